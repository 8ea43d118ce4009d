//! Times of the processor, not of the wall: others may want the machine, too.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Enough for a median that repeats.
pub const ROUNDS: usize = 101;

fn clock(id: ClockId) -> Duration {
    clock_gettime(id).try_into().unwrap()
}

/// What the current thread has used of its processor.
#[must_use]
pub fn thread() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// What all threads have used of all processors.
#[must_use]
pub fn process() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// What `times` cost, if `done` of them, which may be a few more, cost `all`.
#[must_use]
pub fn share(all: Duration, times: u64, done: u64) -> Duration {
    all.mul_f64(times as f64 / done as f64)
}

/// Nanoseconds for one of so many.
#[must_use]
pub fn each(times: u64, all: Duration) -> f64 {
    all.as_secs_f64() * 1e9 / times as f64
}

/// What is measured in one round, in nanoseconds.
pub type Work<'a> = Box<dyn FnMut() -> f64 + 'a>;

/// Works in turn, so that what happens to the machine happens to all; in each round another one goes first. Afterwards
/// there is one line for each round, in the order of `works`. The first round is for nothing.
pub fn rounds(rounds: usize, works: &mut [Work<'_>]) -> Vec<Vec<f64>> {
    let mut all = vec![vec![0.0; works.len()]; rounds + 1];
    for (number, figures) in all.iter_mut().enumerate() {
        for place in 0..works.len() {
            let which = (place + number) % works.len();
            figures[which] = works[which]();
        }
    }
    all.split_off(1)
}

/// The median of what `figure` makes of each round.
pub fn median(rounds: &[Vec<f64>], figure: impl Fn(&[f64]) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(|round| figure(round)).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
