//! The proofs that a server saw (RFC 9449, section 11.1).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use super::{
    expiring::Expiring,
    profile::{ProofRules, ReplayScope},
};
use crate::proof::ValidProof;

/// What became of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    First,
    Again,
    /// The memory is full, so nobody can tell.
    Unknown,
}

/// Remembers each proof as long as it would be accepted, so the memory is bounded by what arrives within
/// that time.
#[derive(Default)]
pub(super) struct UsedProofs {
    /// By the hash of `jti` and key, or of `jti` and `htu`: not of a proof's text, since the same claims can be
    /// written and signed in more than one way. With the end of each.
    seen: Expiring<[u8; 32], Duration>,
    counts: Counts,
}

impl UsedProofs {
    pub(super) fn insert(
        &mut self,
        proof: &ValidProof,
        url: &str,
        rules: &ProofRules,
        now: Duration,
    ) -> Use {
        let beside = match rules.replay.scope {
            ReplayScope::Nothing => return Use::First,
            ReplayScope::Key => proof.thumbprint(),
            ReplayScope::Htu => url,
        };
        // A `jti` may hold any character, so its length keeps the two apart.
        let hash: [u8; 32] = Sha256::new()
            .chain_update(proof.jti().len().to_be_bytes())
            .chain_update(proof.jti())
            .chain_update(beside)
            .finalize()
            .into();
        let end = match rules.replay.kept {
            Some(kept) => now.saturating_add(kept),
            // The check that passed has bounded it on both sides; one second more for its fraction.
            None => Duration::try_from_secs_f64(proof.issued_at())
                .unwrap_or(now)
                .saturating_add(rules.max_age)
                .saturating_add(Duration::from_secs(1)),
        };
        let is_over = |end: &Duration| rules.replay.kept.is_some() && *end < now;
        if self.seen.get(&hash).is_some_and(|end| !is_over(end)) {
            return Use::Again;
        }
        if let Some((of_key, of_all)) = rules.replay.capacity
            && !self
                .counts
                .add(proof.thumbprint(), of_key, of_all, end, now)
        {
            return Use::Unknown;
        }
        self.seen.insert(hash, end, end, now);
        Use::First
    }
}

/// How many proofs are remembered, where that has a limit: no more than fit are counted.
#[derive(Default)]
struct Counts {
    /// The end of each, with its key's thumbprint, in order of arrival. One that ends early waits for those
    /// before it, no longer than a proof is good.
    all: VecDeque<(Duration, String)>,
    of_keys: HashMap<String, usize>,
}

impl Counts {
    /// Whether there was room.
    fn add(
        &mut self,
        key: &str,
        of_key: usize,
        of_all: usize,
        end: Duration,
        now: Duration,
    ) -> bool {
        while self.all.front().is_some_and(|(end, _)| *end < now) {
            let Some((_, key)) = self.all.pop_front() else {
                break;
            };
            if let Some(count) = self.of_keys.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.of_keys.remove(&key);
                }
            }
        }
        let known = self.of_keys.get(key).copied().unwrap_or_default();
        let room = known < of_key && self.all.len() < of_all;
        if room {
            self.all.push_back((end, key.to_owned()));
            self.of_keys.insert(key.to_owned(), known + 1);
        }
        room
    }
}
