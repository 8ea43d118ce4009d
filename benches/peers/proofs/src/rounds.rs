//! Times, in shuffled rounds: what slows the machine down for a while slows all down alike.

use cpu_time::ThreadTime;

use crate::case::{BoxError, Checked, Make};

const ROUNDS: usize = 401;
/// Seconds of CPU for each maker in each round.
const TURN: f64 = 0.002;

/// A maker, and the seconds of CPU for one proof in each round.
pub(crate) struct Timed {
    pub(crate) checked: Checked,
    pub(crate) seconds: Vec<f64>,
}

pub(crate) fn run(makers: Vec<Checked>) -> Result<Vec<Timed>, BoxError> {
    let mut turns = Vec::new();
    for mut checked in makers {
        // Warms up, and finds out how many proofs make a turn.
        let mut proofs = 1;
        while turn(&mut checked.maker.make, proofs)? < TURN / 4.0 {
            proofs *= 2;
        }
        let seconds = turn(&mut checked.maker.make, proofs)? / f64::from(proofs);
        let seconds_of_each_round = Vec::with_capacity(ROUNDS);
        let timed = Timed {
            checked,
            seconds: seconds_of_each_round,
        };
        turns.push((timed, (TURN / seconds).ceil().max(1.0) as u32));
    }
    let mut order: Vec<usize> = (0..turns.len()).collect();
    for _ in 0..ROUNDS {
        fastrand::shuffle(&mut order);
        for &i in &order {
            let (timed, proofs) = &mut turns[i];
            let seconds = turn(&mut timed.checked.maker.make, *proofs)? / f64::from(*proofs);
            timed.seconds.push(seconds);
        }
    }
    Ok(turns.into_iter().map(|(timed, _)| timed).collect())
}

/// Seconds of this thread's CPU for so many proofs.
fn turn(make: &mut Make, proofs: u32) -> Result<f64, BoxError> {
    let start = ThreadTime::now();
    for _ in 0..proofs {
        std::hint::black_box(make()?);
    }
    Ok(start.elapsed().as_secs_f64())
}
