//! When a server asks for a nonce, and for which (RFC 9449, sections 8 and 9).

use std::{collections::VecDeque, time::Duration};

use super::shared::{Fault, Random};

/// One-time nonces that were given and not used yet. More requests in parallel than this are challenged
/// once more, and nothing grows without bound.
const MAX_UNUSED: usize = 4096;

/// A turn takes some time, or the nonce that an answer gives would never be good.
const MIN_TURN: Duration = Duration::from_millis(1);

/// Servers in the field keep two at the most.
const MAX_PREVIOUS: usize = 100;

/// All of `NQCHAR` (RFC 6749, appendix A): what is visible in ASCII, but for `"` and `\`.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DIGITS: &[u8] = b"0123456789";
const OTHERS: &[u8] = b"!#$%&'()*+,-./:;<=>?@[]^_`{|}~";

/// A server's policy for nonces. All but [`off`](Self::off) refuse a proof without a good nonce with
/// `use_dpop_nonce`, and send a nonce with every answer, unless [`only_in_errors`](Self::only_in_errors).
#[derive(Debug, Clone)]
pub struct Nonces {
    policy: Policy,
    only_in_errors: bool,
    of_all_characters: bool,
    previous: usize,
}

#[derive(Debug, Clone)]
enum Policy {
    Off,
    Required,
    OneTime,
    Rotating(Duration),
    Endless,
}

impl Nonces {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            only_in_errors: false,
            of_all_characters: false,
            previous: 1,
        }
    }

    /// No nonces, as a server starts. A proof that has one is refused with `invalid_dpop_proof`, since it can
    /// only be another server's; some servers in the field do the same. Hence a client that learned a nonce
    /// before the server is switched to this policy is refused, too.
    #[must_use]
    pub fn off() -> Self {
        Self::new(Policy::Off)
    }

    /// One nonce, good until `rotate_nonce` of the server; from then on only the new one is.
    #[must_use]
    pub fn required() -> Self {
        Self::new(Policy::Required)
    }

    /// Each nonce is good for one request, and each answer gives a new one. `rotate_nonce` of the server
    /// takes back all that were not used.
    #[must_use]
    pub fn one_time() -> Self {
        Self::new(Policy::OneTime)
    }

    /// A new nonce whenever `every` has passed by the server's clock (`clock_offset` moves it), or at
    /// `rotate_nonce` of the server. The current and the [`previous`](Self::previous) one are good.
    #[must_use]
    pub fn rotating(every: Duration) -> Self {
        Self::new(Policy::Rotating(every.max(MIN_TURN)))
    }

    /// A new nonce with every answer, none of which is ever good: a broken server, which a client must stop
    /// asking.
    #[must_use]
    pub fn endless() -> Self {
        Self::new(Policy::Endless)
    }

    /// How many nonces before the current one are still good, with [`rotating`](Self::rotating): one, unless
    /// set, and 100 at the most.
    #[must_use]
    pub fn previous(mut self, previous: usize) -> Self {
        self.previous = previous.min(MAX_PREVIOUS);
        self
    }

    /// Nonces come with refusals only, not with successful answers.
    #[must_use]
    pub fn only_in_errors(mut self) -> Self {
        self.only_in_errors = true;
        self
    }

    /// Nonces are of 90 characters: 50 letters, 10 digits, and 30 of all others that a nonce may hold (`NQCHAR`; RFC
    /// 9449, section 8.1), as the conformance suite of the OpenID Foundation makes them. Unless set, they are base64url,
    /// which many a client takes for granted.
    #[must_use]
    pub fn of_all_characters(mut self) -> Self {
        self.of_all_characters = true;
        self
    }

    fn fresh(&self, random: &Random) -> String {
        if !self.of_all_characters {
            return random.text();
        }
        let kinds = [(LETTERS, 50), (DIGITS, 10), (OTHERS, 30)];
        let texts = kinds.map(|(alphabet, length)| random.text_of(alphabet, length));
        texts.concat()
    }
}

/// A policy at work.
pub(super) struct NonceBook {
    nonces: Nonces,
    current: String,
    /// The newest first.
    previous: VecDeque<String>,
    /// When the current nonce became that, by the server's clock.
    turned: Duration,
    unused: VecDeque<String>,
}

impl NonceBook {
    pub(super) fn new(nonces: Nonces, now: Duration, random: &Random) -> Self {
        Self {
            current: nonces.fresh(random),
            nonces,
            previous: VecDeque::new(),
            turned: now,
            unused: VecDeque::new(),
        }
    }

    pub(super) fn are_off(&self) -> bool {
        matches!(self.nonces.policy, Policy::Off)
    }

    pub(super) fn rotate(&mut self, random: &Random) {
        let old = std::mem::replace(&mut self.current, self.nonces.fresh(random));
        self.previous.push_front(old);
        self.previous.truncate(self.nonces.previous);
        self.unused.clear();
    }

    /// Whether a proof's nonce is good. A one-time nonce is used up by that.
    pub(super) fn judge(
        &mut self,
        nonce: Option<&str>,
        ignores_stray: bool,
        now: Duration,
        random: &Random,
    ) -> Result<(), Fault> {
        self.turn(now, random);
        if let Policy::Off = self.nonces.policy {
            return match nonce {
                None => Ok(()),
                Some(_) if ignores_stray => Ok(()),
                Some(_) => Err(Fault::proof(
                    "this server gave no nonce: the proof's is from elsewhere",
                )),
            };
        }
        let challenge = |reason| Fault {
            code: "use_dpop_nonce",
            reason,
        };
        let nonce = nonce.ok_or_else(|| challenge("the proof has no nonce"))?;
        let good = match self.nonces.policy {
            Policy::Off | Policy::Endless => false,
            Policy::Required => nonce == self.current,
            Policy::Rotating(_) => {
                nonce == self.current || self.previous.iter().any(|previous| nonce == previous)
            }
            Policy::OneTime => {
                let place = self.unused.iter().position(|unused| unused == nonce);
                place.and_then(|place| self.unused.remove(place)).is_some()
            }
        };
        if good {
            Ok(())
        } else {
            Err(challenge(
                "the proof's nonce is not one of ours, or too old",
            ))
        }
    }

    /// The nonce that goes with an answer.
    pub(super) fn offer(
        &mut self,
        success: bool,
        now: Duration,
        random: &Random,
    ) -> Option<String> {
        if success && self.nonces.only_in_errors {
            return None;
        }
        self.turn(now, random);
        match self.nonces.policy {
            Policy::Off => None,
            Policy::Required | Policy::Rotating(_) => Some(self.current.clone()),
            Policy::Endless => Some(self.nonces.fresh(random)),
            Policy::OneTime => {
                if self.unused.len() == MAX_UNUSED {
                    self.unused.pop_front();
                }
                let nonce = self.nonces.fresh(random);
                self.unused.push_back(nonce.clone());
                Some(nonce)
            }
        }
    }

    /// Turns a rotating nonce as often as the time that passed asks for, but not more often than it takes for
    /// none of the old ones to be left. A clock that is set back turns nothing.
    fn turn(&mut self, now: Duration, random: &Random) {
        let Policy::Rotating(every) = self.nonces.policy else {
            return;
        };
        let passed = now.saturating_sub(self.turned);
        let turns = passed.as_nanos() / every.as_nanos();
        if turns == 0 {
            return;
        }
        for _ in 0..turns.min(MAX_PREVIOUS as u128 + 1) {
            self.rotate(random);
        }
        self.turned = now;
    }
}
