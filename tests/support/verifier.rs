//! A verifier of proofs that is not ours.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{collections::HashSet, future::Future, pin::Pin};

use dpop_verifier::{DpopError, DpopVerifier, ReplayContext, ReplayStore};

/// Takes each proof once, and a minute long.
#[derive(Default)]
pub(crate) struct Verifier {
    seen: Once,
}

/// Each `jti` once.
#[derive(Default)]
struct Once(HashSet<[u8; 32]>);

impl ReplayStore for Once {
    fn insert_once<'store, 'context, 'future>(
        &'store mut self,
        jti_hash: [u8; 32],
        _: ReplayContext<'context>,
    ) -> Pin<Box<dyn Future<Output = Result<bool, DpopError>> + Send + 'future>>
    where
        'store: 'future,
        'context: 'future,
        Self: 'future,
    {
        let first = self.0.insert(jti_hash);
        Box::pin(async move { Ok(first) })
    }
}

impl Verifier {
    /// The thumbprint of the key that proves a request to `url`, which carried `token`.
    pub(crate) async fn verify(
        &mut self,
        proof: &str,
        method: &str,
        url: &str,
        token: Option<&str>,
    ) -> Result<String, DpopError> {
        let verifier = DpopVerifier::new()
            .with_max_age_seconds(60)
            .with_future_skew_seconds(0);
        let verified = verifier
            .verify(&mut self.seen, proof, url, method, token)
            .await?;
        Ok(verified.jkt)
    }

    /// How many it has taken.
    pub(crate) fn count(&self) -> usize {
        self.seen.0.len()
    }
}
