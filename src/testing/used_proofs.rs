//! The proofs that a server saw (RFC 9449, section 11.1).

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::expiring::Expiring;
use crate::proof::{MAX_AGE, ValidProof};

/// Remembers each proof as long as it would be accepted, so the memory is bounded by what arrives within
/// that time.
#[derive(Default)]
pub(super) struct UsedProofs {
    /// By the hash of key and `jti`: not of a proof's text, since the same claims can be written and signed
    /// in more than one way.
    seen: Expiring<[u8; 32], ()>,
}

impl UsedProofs {
    /// Whether this is its first use.
    pub(super) fn insert(&mut self, proof: &ValidProof, now: Duration) -> bool {
        // A thumbprint has one length, so no two pairs run together.
        let hash = Sha256::new()
            .chain_update(proof.thumbprint())
            .chain_update(proof.jti());
        // The check that passed has bounded it on both sides; one second more for its fraction.
        let issued = Duration::try_from_secs_f64(proof.issued_at()).unwrap_or(now);
        let end = issued + MAX_AGE + Duration::from_secs(1);
        self.seen.insert(hash.finalize().into(), (), end, now)
    }
}
