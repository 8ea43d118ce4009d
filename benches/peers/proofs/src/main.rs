//! Proofs a second on one core: `tower-dpop` beside other Rust clients, in one process. Prints a table, and two lines
//! `ROW name | figure | goal | ok` (or `short`) for `benches/report`.

mod case;
mod makers;
mod report;
mod rounds;

use case::{BoxError, Case};

fn main() -> Result<(), BoxError> {
    let case = Case::new()?;
    let makers = makers::all(&case)?;
    // Before any time is taken: whoever says less is named for it, whoever says something else does not run.
    let checked = makers
        .into_iter()
        .map(|maker| case.check(maker))
        .collect::<Result<Vec<_>, _>>()?;
    let timed = rounds::run(checked)?;
    report::print(&timed)
}
