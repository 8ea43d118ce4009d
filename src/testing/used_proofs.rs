//! The proofs that a server saw (RFC 9449, section 11.1).

use std::{collections::HashMap, time::Duration};

use sha2::{Digest as _, Sha256};

use crate::proof::{MAX_AGE, ValidProof};

/// The memory is looked through when it has doubled, and not below this many proofs.
const MIN_LOOK: usize = 1024;

/// Remembers each proof as long as it would be accepted, so the memory is bounded by what arrives within
/// that time.
#[derive(Default)]
pub(super) struct UsedProofs {
    /// When each ends, by the hash of its key and `jti`: not of its text, since the same claims can be
    /// written and signed in more than one way.
    ends: HashMap<[u8; 32], Duration>,
    next_look: usize,
}

impl UsedProofs {
    /// Whether this is its first use.
    pub(super) fn insert(&mut self, proof: &ValidProof, now: Duration) -> bool {
        if self.ends.len() >= self.next_look {
            self.ends.retain(|_, end| *end >= now);
            self.next_look = (self.ends.len() * 2).max(MIN_LOOK);
        }
        // A thumbprint has one length, so no two pairs run together.
        let hash = Sha256::new()
            .chain_update(proof.thumbprint())
            .chain_update(proof.jti());
        // The check that passed has bounded it on both sides; one second more for its fraction.
        let issued = Duration::try_from_secs_f64(proof.issued_at()).unwrap_or(now);
        let end = issued + MAX_AGE + Duration::from_secs(1);
        self.ends.insert(hash.finalize().into(), end).is_none()
    }
}
