//! The table, and the rows for `benches/report`.

use crate::{
    case::{BoxError, Kind},
    rounds::Timed,
};

/// At least so many times the proofs of the fastest other client.
const GOAL: f64 = 1.02;
const GOAL_AWS_LC: f64 = 4.0;

pub(crate) fn print(timed: &[Timed]) -> Result<(), BoxError> {
    let of = |kind| timed.iter().filter(move |timed| timed.kind() == kind);
    let default = of(Kind::Default).next().ok_or("nothing to compare")?;
    let aws_lc = of(Kind::AwsLc).next().ok_or("nothing to compare")?;
    let fastest = of(Kind::Client)
        .min_by(|a, b| a.median().total_cmp(&b.median()))
        .ok_or("no other client")?;

    println!(
        "| | CPU µs a proof | proofs a second | CPU × tower-dpop's [p10–p90] | × that with aws-lc-rs | lacks |"
    );
    println!("|---|---|---|---|---|---|");
    let mut sorted: Vec<_> = timed.iter().collect();
    sorted.sort_by(|a, b| a.median().total_cmp(&b.median()));
    for timed in sorted {
        println!(
            "| {} | {:.1} | {:.0} | {} | {} | {} |",
            timed.name(),
            1e6 * timed.median(),
            1.0 / timed.median(),
            Ratio::new(timed, default),
            Ratio::new(timed, aws_lc),
            timed.checked.lacks.join(", "),
        );
    }
    println!();
    println!("The fastest other client is {}.", fastest.name());
    row("default build", Ratio::new(fastest, default), GOAL);
    row("aws-lc-rs", Ratio::new(fastest, aws_lc), GOAL_AWS_LC);
    Ok(())
}

fn row(build: &str, figure: Ratio, goal: f64) {
    let judged = match figure.median >= goal {
        true => "ok",
        false => "short",
    };
    println!(
        "ROW proofs a second beside the fastest other Rust client, {build} | {:.3} | >= {goal} | {judged}",
        figure.median
    );
}

impl Timed {
    fn name(&self) -> String {
        version(self.checked.maker.name)
    }

    fn kind(&self) -> Kind {
        self.checked.maker.kind
    }

    fn median(&self) -> f64 {
        quantile(self.seconds.clone(), 0.5)
    }
}

/// Of times that were taken in the same round.
struct Ratio {
    median: f64,
    p10: f64,
    p90: f64,
}

impl Ratio {
    fn new(over: &Timed, under: &Timed) -> Self {
        let rounds = over.seconds.iter().zip(&under.seconds);
        let ratios: Vec<f64> = rounds.map(|(over, under)| over / under).collect();
        Self {
            median: quantile(ratios.clone(), 0.5),
            p10: quantile(ratios.clone(), 0.1),
            p90: quantile(ratios, 0.9),
        }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { median, p10, p90 } = self;
        write!(f, "{median:.3} [{p10:.3}–{p90:.3}]")
    }
}

fn quantile(mut values: Vec<f64>, at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = (at * (values.len() - 1) as f64).round() as usize;
    values[index]
}

/// The name with the version that was built, by the lock file.
fn version(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let end = name.find([' ', ',']).unwrap_or(name.len());
    let (package, rest) = name.split_at(end);
    // The newest one, if there are several: the lock file has them in order.
    let version = lock
        .rsplit_once(&format!("name = \"{package}\"\nversion = \""))
        .and_then(|(_, after)| after.split_once('"'));
    match version {
        Some((version, _)) => format!("{package} {version}{rest}"),
        None => name.to_owned(),
    }
}
