//! Assertions: JWTs that somebody signed for this server (RFC 7523, section 3).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{client::Credential, expiring::Expiring, tokens::object};
use crate::{DpopKey, proof::verify_jws};

/// How far ahead an assertion may end, in seconds. RFC 7523 leaves it to the server; the FAPI 2.0 Security
/// Profile and others in the field allow a few minutes.
const MAX_LIFE: f64 = 300.0;

/// How far ahead `iat` and `nbf` may be, in seconds: as a proof's `iat`.
const MAX_AHEAD: f64 = 10.0;

/// A JWT whose signature was not looked at yet.
pub(super) struct Assertion<'a> {
    signed: &'a str,
    signature: &'a str,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl<'a> Assertion<'a> {
    pub(super) fn parse(jwt: &'a str) -> Result<Self, &'static str> {
        let read = || {
            let (signed, signature) = jwt.rsplit_once('.')?;
            let (header, claims) = signed.split_once('.')?;
            Some(Self {
                signed,
                signature,
                header: object(header)?,
                claims: object(claims)?,
            })
        };
        read().ok_or("the assertion is no JWT of three parts")
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.claims.get(name).and_then(Value::as_str)
    }

    /// `typ` is the one that rfc7523bis asks for, that of any JWT, or left out.
    pub(super) fn check_type(&self, explicit: &str) -> Result<(), &'static str> {
        match self.header.get("typ") {
            None => Ok(()),
            Some(Value::String(typ))
                if typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case(explicit) =>
            {
                Ok(())
            }
            Some(_) => Err("the assertion's `typ` is that of something else"),
        }
    }

    /// By a key with the key's algorithm, by a secret with HS256: never one where the other is asked for (RFC 8725,
    /// section 3.1).
    pub(super) fn check_signature(&self, credential: &Credential) -> Result<(), &'static str> {
        let (algorithm, right) = match credential {
            Credential::None => return Err("a public client has nothing to sign assertions with"),
            Credential::Key(key) => (key.algorithm().as_str(), self.is_signed_by(key)),
            Credential::Secret(secret) => ("HS256", self.is_signed_with(secret)),
        };
        if self.header.contains_key("crit") {
            return Err("the assertion's `crit` names an extension that nobody here knows");
        }
        if self.header.get("alg").and_then(Value::as_str) != Some(algorithm) {
            return Err(
                "the assertion's `alg` is not the one of the client's key, or for a secret (HS256)",
            );
        }
        if !right {
            return Err("the assertion's signature is wrong");
        }
        Ok(())
    }

    fn is_signed_by(&self, key: &DpopKey) -> bool {
        let jwk = serde_json::from_str(key.public_jwk());
        jwk.is_ok_and(|jwk| verify_jws(key.algorithm(), &jwk, self.signed, self.signature).is_ok())
    }

    fn is_signed_with(&self, secret: &str) -> bool {
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
            return false;
        };
        let mac = mac.chain_update(self.signed);
        let signature = BASE64URL.decode(self.signature);
        signature.is_ok_and(|signature| mac.verify_slice(&signature).is_ok())
    }

    /// Whether `aud` is the first of these names as one string; unless `strict`, it may be any of them, and
    /// may stand in a list.
    pub(super) fn is_for(&self, names: &[&str], strict: bool) -> bool {
        let is_one = |value: &Value| value.as_str().is_some_and(|text| names.contains(&text));
        match self.claims.get("aud") {
            Some(Value::String(text)) if strict => names.first() == Some(&text.as_str()),
            Some(Value::Array(all)) if !strict => all.iter().any(is_one),
            Some(one) => is_one(one),
            None => false,
        }
    }

    /// The time of its end, since 1970.
    pub(super) fn check_times(&self, now: Duration) -> Result<Duration, &'static str> {
        let seconds = |name: &str| self.claims.get(name).map(|value| value.as_f64());
        let now = now.as_secs_f64();
        let Some(Some(exp)) = seconds("exp") else {
            return Err("the assertion's `exp` is missing, or no number");
        };
        if exp <= now {
            return Err("the assertion expired");
        }
        if exp > now + MAX_LIFE {
            return Err("the assertion's `exp` is more than five minutes ahead");
        }
        for name in ["iat", "nbf"] {
            match seconds(name) {
                None => {}
                Some(Some(time)) if time <= now + MAX_AHEAD => {}
                Some(_) => return Err("the assertion's `iat` or `nbf` is in the future"),
            }
        }
        Duration::try_from_secs_f64(exp).map_err(|_| "the assertion's `exp` is no time")
    }
}

/// What an assertion is for: one that was used for this may still be used for that.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Authentication,
    Grant,
}

/// The assertions that a server saw, each until its end, which is near: so the memory is bounded by what
/// arrives within five minutes.
#[derive(Default)]
pub(super) struct UsedAssertions {
    /// By the hash of use, issuer and `jti`.
    seen: Expiring<[u8; 32], ()>,
}

impl UsedAssertions {
    /// Whether this is its first use.
    pub(super) fn insert(
        &mut self,
        of: Use,
        issuer: &str,
        jti: &str,
        end: Duration,
        now: Duration,
    ) -> bool {
        // The issuer is hashed by itself, so that no two pairs run together.
        let hash = Sha256::new()
            .chain_update([of as u8])
            .chain_update(Sha256::digest(issuer))
            .chain_update(jti);
        self.seen.insert(hash.finalize().into(), (), end, now)
    }
}
