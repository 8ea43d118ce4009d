use std::{future::Future, pin::Pin};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use dpop_verifier::{DpopError, DpopVerifier, NonceMode, ReplayContext, ReplayStore};
use http::{HeaderMap, request::Parts};
use serde_json::Value;

use super::{Guard, Rules, Seen};

/// A proof is as old as its way here.
const MAX_AGE_SECONDS: i64 = 60;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The `error` of the challenge.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

impl Guard {
    pub(super) async fn check(&self, head: &Parts, rules: &Rules) -> Seen {
        let mut seen = Seen {
            headers: head.headers.clone(),
            path: head.uri.path().to_owned(),
            token: String::new(),
            claims: Value::Null,
            refused: None,
        };
        seen.refused = self.judge(head, rules, &mut seen).await.err();
        seen
    }

    async fn judge(&self, head: &Parts, rules: &Rules, seen: &mut Seen) -> Result<(), Fault> {
        let bad_token = |reason: &str| fault("invalid_token", reason);
        let token = only(&head.headers, "authorization")
            .and_then(|value| value.strip_prefix("DPoP "))
            .ok_or_else(|| bad_token("not one DPoP token"))?;
        token.clone_into(&mut seen.token);
        let proof = only(&head.headers, "dpop")
            .ok_or_else(|| fault("invalid_dpop_proof", "not one proof"))?;
        seen.claims = claims(proof).unwrap_or_default();

        let bound = claims(token).unwrap_or_default();
        if bound["iss"] != *self.issuer || rules.refused.contains(token) {
            return Err(bad_token("not a good token"));
        }
        let nonce_mode = match &rules.nonce {
            Some(nonce) => NonceMode::RequireEqual {
                expected_nonce: nonce.clone(),
            },
            None => NonceMode::Disabled,
        };
        let url = format!("{}{}", self.origin, head.uri.path());
        let verified = DpopVerifier::new()
            .with_max_age_seconds(MAX_AGE_SECONDS)
            .with_future_skew_seconds(0)
            .with_nonce_mode(nonce_mode)
            .verify(
                &mut Used(self),
                proof,
                &url,
                head.method.as_str(),
                Some(token),
            )
            .await
            .map_err(|error| match error {
                DpopError::MissingNonce | DpopError::UseDpopNonce { .. } => {
                    fault("use_dpop_nonce", &error.to_string())
                }
                error => fault("invalid_dpop_proof", &error.to_string()),
            })?;
        if bound["cnf"]["jkt"] != verified.jkt {
            return Err(bad_token("bound to another key"));
        }
        // Servers exist that compare byte by byte, and the verifier does not.
        match seen.claims["htu"] == url {
            true => Ok(()),
            false => Err(fault("invalid_dpop_proof", "htu is not as it should be")),
        }
    }
}

fn fault(code: &'static str, reason: &str) -> Fault {
    Fault {
        code,
        reason: reason.to_owned(),
    }
}

/// The only value of a header.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// What a JWT says, without a look at its signature.
fn claims(jwt: &str) -> Option<Value> {
    let claims = BASE64URL.decode(jwt.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// The guard's memory of proofs.
struct Used<'a>(&'a Guard);

impl ReplayStore for Used<'_> {
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
        let first = self.0.state().used.insert(jti_hash);
        Box::pin(async move { Ok(first) })
    }
}
