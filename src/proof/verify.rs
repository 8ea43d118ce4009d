//! Checking a proof, as a server does (RFC 9449, section 4.3).

use std::{fmt, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use super::{DPOP, InvalidProof, ValidProof, htu, jws};
use crate::{
    error::Error,
    json,
    key::{self, Algorithm},
};

/// How old a proof may be, unless [`Check::window`] says otherwise: long enough for a slow network and a
/// clock that is a little off, short enough for a bounded memory of used `jti`s.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60);

/// How far in the future a proof may be dated. FAPI 2.0 asks servers to accept 10 s and to refuse 60 s.
pub(crate) const MAX_AHEAD: Duration = Duration::from_secs(10);

/// A header of hyper's default size has room for more, an honest proof does not need it.
const MAX_PROOF_BYTES: usize = 16 * 1024;

/// Servers remember the `jti` of every proof they saw, so its length is theirs to bound (RFC 9449, 11.1).
const MAX_JTI_BYTES: usize = 512;

/// What a proof is checked against: the request that carried it, the time, and what the server knows.
///
/// The check is pure. It does not remember `jti`s: a server does that with [`ValidProof::jti`] and
/// [`ValidProof::thumbprint`] as the key (never the proof's text: the same claims can be written, and
/// signed, in more than one way).
///
/// # Algorithms
///
/// ES256, and those that [`algorithms`](Self::algorithms) names. With each the `jwk` must be such a key, to the letter of
/// RFC 7518 and RFC 8037: base64url without padding, all bytes of a coordinate, no leading zeros in `n` and `e`, no member
/// of a private key.
///
/// | | keys |
/// |---|---|
/// | ES256 | on P-256 |
/// | PS256, RS256 | RSA with 2048 to 8192 bits and an odd `e` from 65537 to 33 bits; a salt of 32 bytes |
/// | Ed25519, EdDSA | on Ed25519, not of small order |
#[derive(Clone)]
pub struct Check<'a> {
    method: &'a Method,
    url: &'a str,
    now: u64,
    max_age: Duration,
    max_ahead: Duration,
    bound: Option<(&'a str, &'a str)>,
    nonces: Option<&'a [String]>,
    algorithms: &'a [Algorithm],
    /// Whether the second, an `htu`, names the first, the URL of the request.
    same_target: fn(&str, &str) -> bool,
}

// Neither the access token nor nonces.
impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("method", &self.method)
            .field("now", &self.now)
            .field("max_age", &self.max_age)
            .field("max_ahead", &self.max_ahead)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl<'a> Check<'a> {
    /// A check for a request with `method` to `url`, which is absolute, at `now` in seconds since 1970.
    #[must_use]
    pub fn new(method: &'a Method, url: &'a str, now: u64) -> Self {
        Self {
            method,
            url,
            now,
            max_age: MAX_AGE,
            max_ahead: MAX_AHEAD,
            bound: None,
            nonces: None,
            algorithms: &[Algorithm::Es256],
            same_target: htu::same_target,
        }
    }

    /// The access token that the request carried, and the thumbprint of the key it is bound to (`cnf.jkt`):
    /// asks for the token's hash in `ath`, and for this key. Without this call neither is asked for; whether
    /// there is an `ath` then shows in [`ValidProof::has_ath`].
    #[must_use]
    pub fn access_token(mut self, token: &'a str, thumbprint: &'a str) -> Self {
        self.bound = Some((token, thumbprint));
        self
    }

    /// Asks for a nonce: one of `nonces`. Without this call any nonce, or none, is accepted.
    #[must_use]
    pub fn nonces(mut self, nonces: &'a [String]) -> Self {
        self.nonces = Some(nonces);
        self
    }

    /// How old a proof may be (60 s unless set), and how far ahead of our clock (10 s unless set).
    #[must_use]
    pub fn window(mut self, max_age: Duration, max_ahead: Duration) -> Self {
        self.max_age = max_age;
        self.max_ahead = max_ahead;
        self
    }

    /// The algorithms that are accepted, by their names to the letter: ES256 alone unless set, whatever features are on. They
    /// are the server's choice, and what it tells as `algs` and `dpop_signing_alg_values_supported`.
    ///
    /// [`Algorithm::Ed25519`] and [`Algorithm::EdDsa`] are two names of one algorithm. Whoever accepts Ed25519 names both,
    /// as long as clients exist that know the old one alone.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if one of them cannot be checked in this build: all but ES256 need the feature `aws-lc-rs`.
    pub fn algorithms(mut self, algorithms: &'a [Algorithm]) -> Result<Self, Error> {
        let mut all = algorithms.iter();
        if let Some(unknown) = all.find(|one| !jws::VERIFIED.contains(one)) {
            return Err(Error::config(format!(
                "proofs by {unknown} cannot be checked without the feature `aws-lc-rs` of tower-dpop"
            )));
        }
        self.algorithms = algorithms;
        Ok(self)
    }

    /// For callers that know which can be checked.
    #[cfg(feature = "testing")]
    pub(crate) fn accepting(mut self, algorithms: &'a [Algorithm]) -> Self {
        self.algorithms = algorithms;
        self
    }

    /// Compares an `htu` with the URL of the request in another way than RFC 9449 recommends, as some servers
    /// do.
    #[cfg(feature = "testing")]
    pub(crate) fn same_target(mut self, same_target: fn(&str, &str) -> bool) -> Self {
        self.same_target = same_target;
        self
    }

    /// Checks the proof in the `DPoP` header of a request.
    ///
    /// # Errors
    ///
    /// [`InvalidProof`] says which rule was broken and which error code answers it.
    pub fn verify(&self, headers: &HeaderMap) -> Result<ValidProof, InvalidProof> {
        let mut fields = headers.get_all(DPOP).iter();
        let field = fields
            .next()
            .ok_or(InvalidProof::proof("there is no DPoP header"))?;
        if fields.next().is_some() {
            return Err(InvalidProof::proof("there is more than one DPoP header"));
        }
        let proof = field
            .to_str()
            .map_err(|_| InvalidProof::proof("the DPoP header holds more than ASCII"))?;
        self.verify_proof(proof)
    }

    /// Checks a proof that was taken out of its header.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    pub fn verify_proof(&self, proof: &str) -> Result<ValidProof, InvalidProof> {
        if proof.len() > MAX_PROOF_BYTES {
            return Err(InvalidProof::proof("the proof is too long"));
        }
        let parts: Vec<&str> = proof.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(InvalidProof::proof("the proof is no JWS of three parts"));
        };
        let signed = &proof[..header.len() + 1 + claims.len()];
        let header = decode_object(header).ok_or(InvalidProof::proof(
            "the proof's header is no base64url JSON object",
        ))?;
        let claims = decode_object(claims).ok_or(InvalidProof::proof(
            "the proof's claims are no base64url JSON object",
        ))?;

        let thumbprint = self.verify_signature(&header, signed, signature)?;
        self.verify_claims(&claims, thumbprint)
    }

    /// Checks header and signature; returns the thumbprint of the key that signed.
    fn verify_signature(
        &self,
        header: &Map<String, Value>,
        signed: &str,
        signature: &str,
    ) -> Result<String, InvalidProof> {
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        if text("typ") != Some("dpop+jwt") {
            return Err(InvalidProof::proof("`typ` is not dpop+jwt"));
        }
        if header.contains_key("crit") {
            return Err(InvalidProof::proof(
                "`crit` names an extension that nobody here knows",
            ));
        }
        let algorithm = text("alg")
            .and_then(|name| jws::accepted(name, self.algorithms))
            .ok_or(InvalidProof::proof("`alg` is not one that is accepted"))?;
        let jwk = header
            .get("jwk")
            .and_then(Value::as_object)
            .ok_or(InvalidProof::proof("`jwk` is missing or no object"))?;
        let jwk = jws::verify(algorithm, jwk, signed, signature).map_err(InvalidProof::proof)?;
        Ok(key::thumbprint(&jwk))
    }

    fn verify_claims(
        &self,
        claims: &Map<String, Value>,
        thumbprint: String,
    ) -> Result<ValidProof, InvalidProof> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let jti = text("jti")
            .filter(|jti| (1..=MAX_JTI_BYTES).contains(&jti.len()))
            .ok_or(InvalidProof::proof(
                "`jti` is missing, empty, too long or no string",
            ))?;
        let htm = text("htm").ok_or(InvalidProof::proof("`htm` is missing or no string"))?;
        if htm != self.method.as_str() {
            return Err(InvalidProof::proof(
                "`htm` is not the method of this request",
            ));
        }
        let htu = text("htu").ok_or(InvalidProof::proof("`htu` is missing or no string"))?;
        if !(self.same_target)(self.url, htu) {
            return Err(InvalidProof::proof(
                "`htu` is not the target of this request",
            ));
        }
        let iat = claims
            .get("iat")
            .and_then(Value::as_f64)
            .ok_or(InvalidProof::proof("`iat` is missing or no number"))?;
        // Exact for every second of the next hundred million years.
        #[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
        let age = self.now as f64 - iat;
        if age > self.max_age.as_secs_f64() {
            return Err(InvalidProof::proof("`iat` is too long ago"));
        }
        if -age > self.max_ahead.as_secs_f64() {
            return Err(InvalidProof::proof("`iat` is in the future"));
        }
        let nonce = match claims.get("nonce") {
            None => None,
            Some(Value::String(nonce)) => Some(nonce),
            Some(_) => return Err(InvalidProof::proof("`nonce` is no string")),
        };
        if let Some(known) = self.nonces {
            let nonce = nonce.ok_or(InvalidProof::nonce("the proof has no nonce"))?;
            if !known.contains(nonce) {
                return Err(InvalidProof::nonce(
                    "the proof's nonce is not one of ours, or too old",
                ));
            }
        }
        if let Some((token, bound_to)) = self.bound {
            let ath = text("ath").ok_or(InvalidProof::proof("`ath` is missing or no string"))?;
            if ath != super::ath(token) {
                return Err(InvalidProof::proof(
                    "`ath` is not the hash of the access token",
                ));
            }
            if thumbprint != bound_to {
                return Err(InvalidProof::other_key(
                    "the access token is bound to another key than the proof's",
                ));
            }
        }
        Ok(ValidProof {
            thumbprint,
            jti: jti.to_owned(),
            issued_at: iat,
            nonce: nonce.cloned(),
            has_ath: claims.contains_key("ath"),
        })
    }
}

fn decode_object(part: &str) -> Option<Map<String, Value>> {
    json::unique::object(&BASE64URL.decode(part).ok()?)
}
