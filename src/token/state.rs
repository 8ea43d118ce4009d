//! What is known of one token, and what follows from it. Pure: times, chance and outcomes are arguments.
//!
//! | the token is | nothing under way | a fetch under way | the gate is closed |
//! |---|---|---|---|
//! | fresh | serve | serve | serve |
//! | due | fetch, serve meanwhile | serve | serve |
//! | refused by a server | fetch, wait | wait, while it is quick | serve |
//! | not there, or over | fetch, wait | wait | the last error |
//!
//! The gate is closed for a moment after each success, for longer after each failure, and between renewals
//! that bring nothing but tokens which a server refuses.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::response::Failure;
use crate::{
    access_token::AccessToken,
    clock::Now,
    error::{Error, Kind},
    event::Need,
};

/// A request on its way when the token ends is refused, so the last of its life is not used: a tenth, but
/// no more than this.
const MAX_MARGIN: Duration = Duration::from_secs(10);

/// The part of its life after which a token is due: drawn once for each, so that replicas which started
/// together do not ask together for ever.
const DUE: std::ops::Range<f64> = 0.65..0.85;

/// Between two fetches that both succeed, and the life of a token that has none (`expires_in` 0).
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// After the first failure. Doubles with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_millis(250);

/// Longer would not spare the server more, and delay the recovery of all.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// What a server may ask for by `Retry-After`: a mistyped one shall not be the end.
pub(super) const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// A token that is refused within so many times the wait that went before it is one more of a row of refused
/// tokens. A server that refuses whatever it is shown refuses it at once; one that revokes tokens now and
/// then lets them live longer.
const SOON: u32 = 8;

/// And within this, however short that wait was: one that refuses a token every few seconds would else cost a
/// fetch or two each time. Two refusals that do not belong together cost no more than a quarter second.
const MIN_SOON: Duration = Duration::from_secs(10);

/// But not after this.
const MAX_SOON: Duration = Duration::from_secs(60);

/// A token, and how long the server says it lives. None at all (`expires_in` 0) is a life, too.
pub(super) struct Fetched {
    pub(super) token: AccessToken,
    pub(super) life: Duration,
    /// When it was asked for, if that was not at the fetch's beginning: a user may have taken an hour to decide.
    pub(super) asked: Option<Instant>,
}

/// What a caller does not want, or want any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Ask {
    /// The token that a server has just refused.
    pub(super) but: Option<AccessToken>,
    /// Tokens that were asked for before this.
    pub(super) since: Option<Instant>,
}

/// What a caller is to do.
#[derive(Debug)]
pub(super) enum Step {
    Serve(AccessToken),
    /// Serve, and start a fetch that nobody waits for.
    ServeAndFetch(AccessToken),
    Wait {
        /// Whether to start a fetch first: there is none.
        fetch: bool,
        /// What serves if the fetch fails or takes its time.
        instead: Option<AccessToken>,
    },
    Fail(Error),
}

/// The token, or the error and how long until the next fetch.
pub(super) type Landed = Result<AccessToken, (Error, Duration)>;

/// `F` stands for what else belongs to a fetch under way.
pub(super) struct State<F> {
    current: Option<Current>,
    flight: Option<Flight<F>>,
    flights: u64,
    /// No fetch before this.
    gate: Option<Instant>,
    /// In a row.
    failures: u32,
    last_error: Option<Error>,
    /// Tokens in a row that were refused soon after their arrival.
    refusals: u32,
}

struct Current {
    token: AccessToken,
    asked_for: Instant,
    arrived: Instant,
    due: Instant,
    usable_until: Instant,
    /// By the wall clock; none if that cannot tell such a time.
    ends: Option<SystemTime>,
    /// A server refused it. A token's identity is its generation: this can be no other one's mark.
    refused: bool,
}

impl Current {
    fn is_due(&self, now: Now) -> bool {
        self.due <= now.steady || self.ends.is_some_and(|ends| ends <= now.wall)
    }

    fn pleases(&self, ask: &Ask) -> bool {
        !ask.but.as_ref().is_some_and(|but| but.is(&self.token))
            && ask.since.is_none_or(|since| since <= self.asked_for)
    }
}

/// The fetch under way.
struct Flight<F> {
    id: u64,
    slow: bool,
    payload: F,
}

impl<F> Default for State<F> {
    fn default() -> Self {
        Self {
            current: None,
            flight: None,
            flights: 0,
            gate: None,
            failures: 0,
            last_error: None,
            refusals: 0,
        }
    }
}

impl<F> State<F> {
    pub(super) fn plan(&self, ask: &Ask, now: Now) -> Step {
        let current = self.current.as_ref();
        let current = current.filter(|current| now.steady < current.usable_until);
        let current = current.filter(|current| current.pleases(ask));
        let open = self.gate.is_none_or(|gate| gate <= now.steady);
        // Who insists on a newer token than there is waits for no interval, but for a server in trouble.
        let insists = ask.since.is_some() && self.failures == 0;
        match current {
            Some(current) if current.refused => self.replace(current.token.clone(), open),
            Some(current) if current.is_due(now) && open && self.flight.is_none() => {
                Step::ServeAndFetch(current.token.clone())
            }
            Some(current) => Step::Serve(current.token.clone()),
            None if open || insists || self.flight.is_some() => Step::Wait {
                fetch: self.flight.is_none(),
                instead: None,
            },
            None => Step::Fail(self.last_error.clone().unwrap_or_else(too_soon)),
        }
    }

    /// Why a fetch that `plan` asks for is started.
    pub(super) fn need(&self, ask: &Ask, now: Now) -> Need {
        match &self.current {
            None => Need::First,
            Some(current) if current.refused => Need::Refused,
            Some(current) if current.usable_until <= now.steady => Need::Over,
            Some(current) if !current.pleases(ask) => match ask.since {
                Some(_) => Need::Forced,
                None => Need::Refused,
            },
            Some(_) => Need::Due,
        }
    }

    /// A refused token that has not ended: one server may refuse what all others accept, so it serves
    /// whenever the authorization server does not answer at once with a better one.
    fn replace(&self, refused: AccessToken, open: bool) -> Step {
        let in_trouble = self.failures > 0;
        match &self.flight {
            Some(flight) if flight.slow || in_trouble => Step::Serve(refused),
            Some(_) => Step::Wait {
                fetch: false,
                instead: Some(refused),
            },
            None if !open => Step::Serve(refused),
            None if in_trouble => Step::ServeAndFetch(refused),
            None => Step::Wait {
                fetch: true,
                instead: Some(refused),
            },
        }
    }

    /// A fetch starts; there is none under way.
    pub(super) fn take_off(&mut self, payload: F) -> u64 {
        debug_assert!(self.flight.is_none(), "one fetch at a time");
        self.flights += 1;
        self.flight = Some(Flight {
            id: self.flights,
            slow: false,
            payload,
        });
        self.flights
    }

    pub(super) fn flight(&self) -> Option<(u64, &F)> {
        self.flight
            .as_ref()
            .map(|flight| (flight.id, &flight.payload))
    }

    /// The fetch takes its time. Who can do without its token does not wait any longer.
    pub(super) fn slow(&mut self, id: u64) -> Option<&F> {
        let flight = self.flight.as_mut().filter(|flight| flight.id == id)?;
        flight.slow = true;
        Some(&flight.payload)
    }

    /// The fetch ended without an answer: its task was dropped.
    pub(super) fn lost(&mut self, id: u64) -> Option<F> {
        let flight = self.flight.take_if(|flight| flight.id == id)?;
        Some(flight.payload)
    }

    /// The fetch ended; nothing happens if it was given up before. `chance` is from 0 to 1.
    pub(super) fn land(
        &mut self,
        id: u64,
        outcome: Result<Fetched, Failure>,
        asked: Now,
        now: Now,
        chance: f64,
    ) -> Option<(F, Landed)> {
        let payload = self.lost(id)?;
        let outcome = outcome.and_then(|fetched| self.current(fetched, asked, now, chance));
        let answer = match outcome {
            Ok(current) => {
                let token = current.token.clone();
                // Never longer than the token lasts: with the gate closed and no token, nobody could go on.
                self.gate = Some((now.steady + MIN_INTERVAL).min(current.usable_until));
                // The last one was not refused: what was before it is over.
                if self.current.as_ref().is_some_and(|last| !last.refused) {
                    self.refusals = 0;
                }
                self.current = Some(current);
                self.failures = 0;
                self.last_error = None;
                Ok(token)
            }
            Err(Failure { error, retry_after }) => {
                self.failures = self.failures.saturating_add(1);
                let wait = wait_after(self.failures, retry_after, chance);
                self.gate = Some(now.steady + wait);
                let error = error.until(now.steady + wait);
                self.last_error = Some(error.clone());
                Err((error, wait))
            }
        };
        Some((payload, answer))
    }

    /// What becomes of a token that arrived, if it is of any use.
    fn current(
        &self,
        fetched: Fetched,
        asked: Now,
        now: Now,
        chance: f64,
    ) -> Result<Current, Failure> {
        let Fetched {
            mut token,
            life,
            asked: sent,
        } = fetched;
        let asked = sent.unwrap_or(asked.steady);
        let same = self.current.as_ref();
        let same = same.filter(|current| current.token.same_text(&token));
        if same.is_some_and(|current| current.refused) {
            return Err(Failure::from(Error::new(
                Kind::BadResponse,
                "the authorization server gave the same access token again that a resource server had \
                 refused as invalid",
            )));
        }
        if let Some(same) = same {
            // It stays the very same, or a refusal on its way would not be known for one.
            token = same.token.clone();
        }
        let (due, usable_until) = if life.is_zero() {
            let end = now.steady + MIN_INTERVAL;
            (end, end)
        } else {
            // The life of a token counts from before the server could have made it.
            let due = DUE.start + (DUE.end - DUE.start) * chance;
            let usable = life - MAX_MARGIN.min(life / 10);
            (asked + life.mul_f64(due), asked + usable)
        };
        if usable_until <= now.steady {
            return Err(Failure::from(Error::new(
                Kind::BadResponse,
                format!(
                    "the access token's life of {} s was over when it arrived: the authorization server is \
                     too slow for tokens that short",
                    life.as_secs_f64()
                ),
            )));
        }
        let left = usable_until - now.steady;
        Ok(Current {
            token,
            asked_for: asked,
            arrived: now.steady,
            due,
            usable_until,
            ends: now.wall.checked_add(left),
            refused: false,
        })
    }

    /// A server refused this very token. A late refusal of an old one costs its successor nothing.
    ///
    /// Whether it is the first to say so of the current token.
    pub(super) fn refuse(&mut self, token: &AccessToken, now: Now, chance: f64) -> bool {
        let current = self.current.as_mut();
        let Some(current) = current.filter(|current| current.token.is(token) && !current.refused)
        else {
            return false;
        };
        current.refused = true;
        let lived = now.steady.saturating_duration_since(current.arrived);
        let wait = match self.refusals {
            0 => Duration::ZERO,
            refusals => back_off(refusals, chance),
        };
        if lived > (wait * SOON).clamp(MIN_SOON, MAX_SOON) {
            self.refusals = 0;
        }
        // The first in a row is renewed at once. A server that refuses whatever it is shown would else have
        // us ask for a token with every request.
        if self.failures == 0 {
            // But never longer than the token lasts, as when it landed.
            let gate = (current.arrived + wait).min(current.usable_until);
            self.gate = (self.refusals > 0).then_some(gate);
        }
        self.refusals = self.refusals.saturating_add(1);
        true
    }

    /// Forgets the token, and gives the fetch under way up. A server in trouble is still spared.
    pub(super) fn forget(&mut self) -> Option<F> {
        self.current = None;
        self.refusals = 0;
        if self.failures == 0 {
            self.gate = None;
        }
        Some(self.flight.take()?.payload)
    }
}

/// How long after the `failures`-th failure in a row.
fn wait_after(failures: u32, retry_after: Option<Duration>, chance: f64) -> Duration {
    let back_off = back_off(failures, chance);
    match retry_after {
        // All replicas were told the same: not all at the same moment.
        Some(asked) => {
            let asked = asked.min(MAX_RETRY_AFTER).mul_f64(1.0 + chance / 10.0);
            back_off.max(asked.min(MAX_RETRY_AFTER))
        }
        None => back_off,
    }
}

/// Doubles with each step; half of it is left to chance, so that replicas which failed together do not come
/// back together.
fn back_off(step: u32, chance: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(step.saturating_sub(1));
    let full = FIRST_BACK_OFF.saturating_mul(doubled).min(MAX_BACK_OFF);
    full.mul_f64(0.5 + chance / 2.0)
}

/// The gate is never closed without a token or an error, but for those who want another token than the one
/// there is.
fn too_soon() -> Error {
    Error::new(
        Kind::BadResponse,
        "the access token was refused again so soon that no other is asked for yet",
    )
}

#[cfg(test)]
mod tests;
