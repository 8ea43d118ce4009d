//! The crate `dpop-verifier`.

use std::{
    future::Future,
    pin::Pin,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use dpop_verifier::{DpopError, DpopVerifier, ReplayContext, ReplayStore};
use serde_json::Value;

use super::line::TOLERANCE_MS;
use crate::record::Sent;

pub(super) struct Other;

impl Other {
    pub(super) const NAME: &str = "dpop-verifier";

    /// Algorithms that it does not know, and the other library does. All else goes to it, and is refused there.
    const UNKNOWN: [&str; 3] = ["Ed25519", "PS256", "RS256"];

    pub(super) fn knows(sent: &Sent) -> bool {
        let header = sent.proof.split('.').next().unwrap_or_default();
        let header = BASE64URL.decode(header).unwrap_or_default();
        let header: Value = serde_json::from_slice(&header).unwrap_or_default();
        let alg = header.get("alg").and_then(Value::as_str);
        !Self::UNKNOWN.contains(&alg.unwrap_or_default())
    }

    pub(super) async fn check(sent: &Sent) -> Result<(), String> {
        let token = sent.token.as_deref();
        verifier(sent)
            .verify(&mut Any, &sent.proof, &sent.url, &sent.method, token)
            .await
            .map(drop)
            .map_err(|e| format!("{e} ({e:?})"))
    }
}

/// It reads the clock itself, long after the proof was sent: its window is as far away.
fn verifier(sent: &Sent) -> DpopVerifier {
    let seconds = |ms: u64| i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let sent_at = seconds(sent.sent_ms);
    // One more for the part of a second that is cut off, and one for now's.
    let tolerance = seconds(TOLERANCE_MS) + 2;
    let first = sent_at + sent.clock.min(0) - tolerance;
    let last = sent_at + sent.clock.max(0) + tolerance;
    DpopVerifier::new()
        .with_max_age_seconds(now - first)
        .with_future_skew_seconds(last - now)
}

/// No store of `jti`s: those of the whole record are compared elsewhere.
struct Any;

impl ReplayStore for Any {
    fn insert_once<'store, 'context, 'future>(
        &'store mut self,
        _: [u8; 32],
        _: ReplayContext<'context>,
    ) -> Pin<Box<dyn Future<Output = Result<bool, DpopError>> + Send + 'future>>
    where
        'store: 'future,
        'context: 'future,
        Self: 'future,
    {
        Box::pin(async { Ok(true) })
    }
}
