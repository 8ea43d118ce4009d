//! Time, and what was learned of the servers' clocks.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{
    HeaderMap,
    header::{AGE, DATE, RETRY_AFTER},
};
use tokio::time::Instant;

use crate::event;

/// Servers whose clocks differ from ours are few. Whoever is learned past it takes the place of the one that
/// was learned longest ago.
const MAX_OFFSETS: usize = 256;

/// A clock that is off by more is no clock.
const MAX_OFFSET: Duration = Duration::from_secs(24 * 60 * 60);

/// An answer that took longer tells the time too roughly.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(5);

/// `Date` has no fractions.
const DATE_STEP: Duration = Duration::from_secs(1);

/// No server's window for proofs is narrower by design than a few seconds, and some are a minute wide. Who refuses
/// without a reason and is off by more than this has most likely refused the time.
const TELLING: Duration = Duration::from_secs(30);

/// What a server said that it refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Proof,
    /// It did not say.
    Something,
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Does not jump, but may stand still while the machine sleeps.
    pub(crate) steady: Instant,
    /// May jump, but knows of the sleep.
    pub(crate) wall: SystemTime,
}

/// Whole seconds since 1970, rounded down: an `iat` from the future is refused by strict servers. A clock
/// that stands before 1970 gives 0, and the server's refusal then says what is wrong.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

type WallClock = dyn Fn() -> SystemTime + Send + Sync;

/// The wall clock, and by how much those of some servers differ from it.
#[derive(Default)]
pub(crate) struct Clock {
    wall: Option<Box<WallClock>>,
    offsets: RwLock<Offsets>,
}

#[derive(Default)]
struct Offsets {
    by_origin: HashMap<Box<str>, Offset>,
    learned: u64,
}

struct Offset {
    by: Shift,
    learned: u64,
    /// What was gone by before it was guessed, from an answer that gave no reason. A wrong `Date` beside a refusal for
    /// something else is not to spoil all proofs from then on.
    before_guess: Option<Shift>,
}

/// From our clock to a server's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Shift {
    ahead: Duration,
    behind: Duration,
}

impl Shift {
    fn between(ours: SystemTime, theirs: SystemTime) -> Self {
        Self {
            ahead: theirs.duration_since(ours).unwrap_or_default(),
            behind: ours.duration_since(theirs).unwrap_or_default(),
        }
    }

    fn apply(self, ours: SystemTime) -> SystemTime {
        let theirs = ours.checked_add(self.ahead);
        let theirs = theirs.and_then(|time| time.checked_sub(self.behind));
        theirs.unwrap_or(ours)
    }

    fn size(self) -> Duration {
        self.ahead + self.behind
    }

    fn seconds(self) -> f64 {
        self.ahead.as_secs_f64() - self.behind.as_secs_f64()
    }
}

impl Clock {
    pub(crate) fn new(wall: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self {
            wall: Some(Box::new(wall)),
            offsets: RwLock::default(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now {
            steady: Instant::now(),
            wall: self
                .wall
                .as_ref()
                .map_or_else(SystemTime::now, |wall| wall()),
        }
    }

    /// What the clock of `origin` shows, as far as that is known: the date of a proof that goes there.
    pub(crate) fn at(&self, origin: &str, now: Now) -> SystemTime {
        self.offset(origin).apply(now.wall)
    }

    fn offset(&self, origin: &str) -> Shift {
        let offsets = self.offsets.read().unwrap_or_else(PoisonError::into_inner);
        let offset = offsets.by_origin.get(origin);
        offset.map(|offset| offset.by).unwrap_or_default()
    }

    /// Learns from the answer that refused a proof, which was sent at `sent`, dated `dated` and answered after
    /// `round_trip`: whether the server's clock tells another time than the proof did.
    ///
    /// Only then: a `Date` in any other answer might be wrong and do no harm so far. Where the answer does not say what
    /// it refused, the clocks have to be far apart.
    pub(crate) fn learn(
        &self,
        origin: &str,
        headers: &HeaderMap,
        refused: Refused,
        sent: Now,
        dated: SystemTime,
        round_trip: Duration,
    ) -> bool {
        let Some(theirs) = date(headers) else {
            return false;
        };
        // What a cache answers tells the time of its making.
        if headers.contains_key(AGE) || round_trip > MAX_ROUND_TRIP {
            return false;
        }
        let half = round_trip / 2;
        let (Some(ours), Some(proofs)) = (sent.wall.checked_add(half), dated.checked_add(half))
        else {
            return false;
        };
        // Within what cannot be measured, two clocks agree.
        let differs = |time| Shift::between(time, theirs).size() > DATE_STEP + half;
        let offset = Shift::between(ours, theirs);
        let telling = match refused {
            Refused::Proof => true,
            Refused::Something => Shift::between(proofs, theirs).size() > TELLING,
        };
        // If the proof told the right time, it was refused for something else.
        if offset.size() > MAX_OFFSET || !differs(proofs) || !telling {
            return false;
        }
        // Of many requests on their way, the first refusal teaches it; the others were dated before that.
        let before = self.offset(origin);
        if differs(before.apply(ours)) {
            let before_guess = (refused == Refused::Something).then_some(before);
            let first = self.set(origin, offset, before_guess);
            event::clock_corrected(origin, offset.seconds(), first);
        }
        true
    }

    /// What became of a request that was sent again for a guess: whether it was a good one.
    pub(crate) fn judge_guess(&self, origin: &str, good: bool) {
        let mut guard = self.offsets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(offset) = guard.by_origin.get_mut(origin)
            && let Some(before) = offset.before_guess.take()
            && !good
        {
            offset.by = before;
        }
    }

    /// Whether it is the first for this origin.
    fn set(&self, origin: &str, by: Shift, before_guess: Option<Shift>) -> bool {
        let mut guard = self.offsets.write().unwrap_or_else(PoisonError::into_inner);
        let offsets = &mut *guard;
        offsets.learned += 1;
        let learned = offsets.learned;
        let offset = Offset {
            by,
            learned,
            before_guess,
        };
        let first = offsets.by_origin.insert(origin.into(), offset).is_none();
        if offsets.by_origin.len() > MAX_OFFSETS {
            let oldest = offsets.by_origin.iter().min_by_key(|(_, o)| o.learned);
            if let Some(origin) = oldest.map(|(origin, _)| origin.clone()) {
                offsets.by_origin.remove(&origin);
            }
        }
        first
    }
}

/// When an answer was made, by the clock of whoever made it. Two dates are none.
pub(crate) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let mut dates = headers.get_all(DATE).iter();
    let date = dates.next()?;
    if dates.next().is_some() {
        return None;
    }
    httpdate::parse_http_date(date.to_str().ok()?).ok()
}

/// `Retry-After`, as seconds or as a date (RFC 9110, section 10.2.3). What is neither asks for nothing.
pub(crate) fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More than fits is as long as it gets.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let then = httpdate::parse_http_date(value).ok()?;
    // By the clock that wrote it, if that tells the time.
    let now = date(headers).unwrap_or(wall);
    Some(then.duration_since(now).unwrap_or_default())
}
