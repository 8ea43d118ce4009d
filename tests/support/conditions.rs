//! What the OpenID Foundation's conformance suite asks of every proof that a client sends, as its FAPI 2.0 modules do it.
//!
//! Written after that suite and not after `src/proof`; the signature is for a verifier that is not ours.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::verifier::Verifier;

/// Those of FAPI 2.0 (section 5.4.1); the last is another name of the third.
const ALGORITHMS: [&str; 4] = ["PS256", "ES256", "EdDSA", "Ed25519"];

/// Members of a JWK that are private: RFC 7518, sections 6.2.2, 6.3.2 and 6.4; RFC 8037, section 2.
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Either way, in seconds.
const MAX_SKEW: i64 = 300;

/// How many `jti` are remembered.
const MEMORY: usize = 256;

/// A proof, and the request that it came with.
pub(crate) struct Presented<'a> {
    pub(crate) proof: &'a str,
    pub(crate) method: &'a str,
    /// What was asked for, without its query.
    pub(crate) url: &'a str,
    /// The access token, at a resource. Any other endpoint is one of the authorization server.
    pub(crate) token: Option<&'a str>,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

/// What a proof showed that kept to all conditions.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Of its key.
    pub(crate) thumbprint: String,
    pub(crate) nonce: Option<String>,
}

#[derive(Default)]
pub(crate) struct Conditions {
    verifier: Verifier,
    jtis: VecDeque<String>,
}

impl Conditions {
    /// Or the condition that is not kept.
    pub(crate) async fn check(&mut self, presented: Presented<'_>) -> Result<Shown, String> {
        let Presented {
            proof,
            method,
            url,
            token,
            ..
        } = presented;
        let parts: Vec<&str> = proof.split('.').collect();
        let [header, claims, _] = parts[..] else {
            return Err(format!("{} parts", parts.len()));
        };
        let (header, claims) = (object(header)?, object(claims)?);
        check_header(&header)?;
        self.check_jti(&claims)?;
        equal("htm", &claims, method)?;
        equal("htu", &claims, url)?;
        check_times(&claims, i64::try_from(presented.now).unwrap())?;
        match token {
            Some(token) => equal("ath", &claims, &BASE64URL.encode(Sha256::digest(token)))?,
            None if claims.get("ath").is_some() => {
                return Err("ath has no place at an authorization server".into());
            }
            None => {}
        }
        let verified = self.verifier.verify(proof, method, url, token).await;
        Ok(Shown {
            thumbprint: verified.map_err(|error| format!("the verifier says: {error}"))?,
            nonce: claims["nonce"].as_str().map(str::to_owned),
        })
    }

    /// How many proofs kept to all of them.
    pub(crate) fn count(&self) -> usize {
        self.verifier.count()
    }

    fn check_jti(&mut self, claims: &Value) -> Result<(), String> {
        let jti = claims["jti"].as_str().filter(|jti| !jti.is_empty());
        let jti = jti.ok_or("jti is missing")?.to_owned();
        if self.jtis.contains(&jti) {
            return Err(format!("jti was used before: {jti}"));
        }
        if self.jtis.len() == MEMORY {
            self.jtis.pop_front();
        }
        self.jtis.push_back(jti);
        Ok(())
    }
}

fn check_header(header: &Value) -> Result<(), String> {
    equal("typ", header, "dpop+jwt")?;
    let jwk = header["jwk"].as_object().ok_or("jwk is missing")?;
    if let Some(private) = PRIVATE.iter().find(|name| jwk.contains_key(**name)) {
        return Err(format!("jwk holds the private {private}"));
    }
    if header["jwk"]["kty"] == "OKP" {
        equal("crv", &header["jwk"], "Ed25519")?;
    }
    match header["alg"].as_str() {
        Some(alg) if ALGORITHMS.contains(&alg) => Ok(()),
        other => Err(format!("alg is {other:?}")),
    }
}

fn check_times(claims: &Value, now: i64) -> Result<(), String> {
    let iat = claims["iat"].as_i64().ok_or("iat is missing")?;
    if (now - iat).abs() > MAX_SKEW {
        return Err(format!("iat is {} s old", now - iat));
    }
    let time = |name: &str| match &claims[name] {
        Value::Null => Ok(None),
        value => value.as_i64().map(Some).ok_or(format!("{name} is no time")),
    };
    if time("nbf")?.is_some_and(|nbf| nbf > now + MAX_SKEW) {
        return Err("nbf is to come".into());
    }
    if time("exp")?.is_some_and(|exp| exp < now - MAX_SKEW) {
        return Err("exp is over".into());
    }
    Ok(())
}

/// Character by character: nothing is normalised.
fn equal(name: &str, object: &Value, expected: &str) -> Result<(), String> {
    match &object[name] {
        Value::String(text) if text == expected => Ok(()),
        Value::Null => Err(format!("{name} is missing")),
        other => Err(format!("{name} is {other}, not {expected}")),
    }
}

fn object(part: &str) -> Result<Value, String> {
    let json = BASE64URL.decode(part).map_err(|_| "no base64url")?;
    let value: Value = serde_json::from_slice(&json).map_err(|_| "no JSON")?;
    match value.is_object() {
        true => Ok(value),
        false => Err("no JSON object".into()),
    }
}
