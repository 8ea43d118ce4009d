//! What is known of a server's metadata, and when they are asked for again. No async, no lock.

use std::time::Duration;

use tokio::{
    runtime::{self, Handle},
    sync::watch,
    time::Instant,
};

use crate::{
    error::{Error, Kind},
    oauth::ServerMetadata,
    oauth::answer::Failure,
};

/// How long metadata are fresh: endpoints and algorithms change once in years, and what a server announces with a
/// day's notice is known in time.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// At the least, whatever `Cache-Control` says.
const MIN_FRESH: Duration = Duration::from_secs(60);

/// After the first failure. Doubles with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// Longer would not spare the server more, and delay the recovery of all.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// What a server may ask for by `Retry-After`: a mistyped one shall not be the end.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A fetch that should have ended by itself so long ago is driven by nobody: its runtime stands still.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

pub(super) type Outcome = Result<ServerMetadata, Error>;

/// Metadata as they came, and how long they say that they are fresh.
pub(super) struct Fetched {
    pub(super) metadata: ServerMetadata,
    pub(super) max_age: Option<Duration>,
}

/// A fetch under way. To be dropped when no lock is held: who waits for it may be woken at once.
pub(super) struct Flight {
    id: u64,
    runtime: runtime::Id,
    overdue: Instant,
    news: watch::Sender<Option<Outcome>>,
}

#[derive(Default)]
pub(super) struct Known {
    metadata: Option<ServerMetadata>,
    /// The last failure, unless there was a success since.
    error: Option<Error>,
    failures: u32,
    /// Nothing is asked for before this.
    next: Option<Instant>,
    flight: Option<Flight>,
    flights: u64,
}

/// What a caller is to do.
pub(super) enum Plan {
    Have(Outcome),
    Wait(Wait),
}

pub(super) struct Wait {
    pub(super) id: u64,
    /// Where it runs.
    pub(super) runtime: runtime::Id,
    pub(super) overdue: Instant,
    pub(super) news: watch::Receiver<Option<Outcome>>,
}

impl Known {
    /// What to do; the number of the fetch to start first, if there is one; and what is to be dropped.
    pub(super) fn plan(
        &mut self,
        now: Instant,
        timeout: Duration,
        runtime: Option<&Handle>,
    ) -> (Plan, Option<u64>, Option<Flight>) {
        let dead = self.flight.take_if(|flight| now >= flight.overdue);
        let early = self.next.is_some_and(|next| now < next);
        if early && let Some(error) = self.error.as_ref().filter(|_| self.metadata.is_none()) {
            return (Plan::Have(Err(error.clone())), None, dead);
        }
        let started = match runtime {
            Some(runtime) if !early && self.flight.is_none() => {
                Some(self.take_off(now + timeout + OVERDUE, runtime.id()))
            }
            _ => None,
        };
        let plan = match (&self.metadata, &self.flight) {
            (Some(metadata), _) => Plan::Have(Ok(metadata.clone())),
            (None, Some(flight)) => Plan::Wait(Wait {
                id: flight.id,
                runtime: flight.runtime,
                overdue: flight.overdue,
                news: flight.news.subscribe(),
            }),
            (None, None) => Plan::Have(Err(no_runtime())),
        };
        (plan, started, dead)
    }

    fn take_off(&mut self, overdue: Instant, runtime: runtime::Id) -> u64 {
        self.flights += 1;
        self.flight = Some(Flight {
            id: self.flights,
            runtime,
            overdue,
            news: watch::Sender::new(None),
        });
        self.flights
    }

    /// Ends a fetch without an answer.
    pub(super) fn lost(&mut self, id: u64) -> Option<Flight> {
        self.flight.take_if(|flight| flight.id == id)
    }

    /// Ends a fetch. None if it was given up before.
    pub(super) fn land(
        &mut self,
        id: u64,
        outcome: Result<Fetched, Failure>,
        now: Instant,
        chance: f64,
    ) -> Option<Landed> {
        let flight = self.lost(id)?;
        let (answer, wait, error) = match outcome {
            Ok(Fetched { metadata, max_age }) => {
                self.failures = 0;
                self.metadata = Some(metadata.clone());
                (Ok(metadata), fresh(max_age), None)
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                let wait = wait_after(self.failures, failure.retry_after, chance);
                let error = failure.error;
                (Err(error.clone()), wait, Some(error))
            }
        };
        self.next = Some(now + wait);
        Some(Landed {
            flight,
            answer,
            retry_in: wait,
            served: self.metadata.is_some(),
            before: std::mem::replace(&mut self.error, error),
        })
    }
}

/// To be told when no lock is held.
pub(super) struct Landed {
    flight: Flight,
    answer: Outcome,
    retry_in: Duration,
    /// There are metadata, be they those of before.
    served: bool,
    /// A client's error: what its drop does is not known.
    before: Option<Error>,
}

impl Landed {
    /// A failure that nobody notices, and when it is tried again.
    pub(super) fn outage(&self) -> Option<(&Error, Duration)> {
        let error = self.answer.as_ref().err().filter(|_| self.served)?;
        Some((error, self.retry_in))
    }

    pub(super) fn tell(self) {
        self.flight.news.send_replace(Some(self.answer));
        drop(self.before);
    }
}

fn fresh(max_age: Option<Duration>) -> Duration {
    max_age.map_or(FRESH, |max_age| max_age.clamp(MIN_FRESH, FRESH))
}

/// A part of it is left to chance, so that replicas which failed together do not come back together.
fn wait_after(failures: u32, retry_after: Option<Duration>, chance: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let back_off = FIRST_BACK_OFF.saturating_mul(doubled).min(MAX_BACK_OFF);
    let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    let asked = asked.mul_f64(1.0 + chance / 10.0).min(MAX_RETRY_AFTER);
    back_off.mul_f64(0.5 + chance / 2.0).max(asked)
}

fn no_runtime() -> Error {
    Error::new(
        Kind::Runtime,
        "no Tokio runtime to fetch the server's metadata in: ask for them from within one",
    )
}
