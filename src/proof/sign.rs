//! Making a proof.

use std::{borrow::Cow, fmt, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::{Method, Uri};

use crate::{
    clock,
    error::{Error, Kind},
    key::DpopKey,
    origin::Target,
};

/// 128 bits: RFC 9449, section 4.2 asks for 96 at least, and UUIDs have 122.
const JTI_BYTES: usize = 16;

/// What a proof will say, before it is signed: the claims of RFC 9449, section 4.2.
///
/// A proof is for one request, and for one sending of it: sign again for every attempt.
#[derive(Clone)]
pub struct Proof<'a> {
    method: &'a Method,
    htu: Cow<'a, str>,
    ath: Option<Cow<'a, str>>,
    nonce: Option<&'a str>,
}

// Not the nonce, nor what the token can be recognised by.
impl fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("method", &self.method)
            .field("htu", &self.htu)
            .finish_non_exhaustive()
    }
}

impl<'a> Proof<'a> {
    /// A proof for a request with `method` (`htm`) to `uri` (`htu`: without query, fragment and user
    /// information, scheme and host in lower case, no default port, the path as it is).
    ///
    /// # Errors
    ///
    /// [`Error::is_missing_origin`] for a URI without scheme and host, [`Error::is_config`] for another
    /// scheme than `http` and `https` and for a port that is none.
    pub fn new(method: &'a Method, uri: &Uri) -> Result<Self, Error> {
        let htu = Target::new(uri, None)?.htu().to_owned();
        Ok(Self {
            method,
            htu: htu.into(),
            ath: None,
            nonce: None,
        })
    }

    /// For callers that have the target and the token's hash already.
    pub(crate) fn for_target(
        method: &'a Method,
        target: &'a Target,
        ath: Option<&'a str>,
        nonce: Option<&'a str>,
    ) -> Self {
        Self {
            method,
            htu: target.htu().into(),
            ath: ath.map(Cow::Borrowed),
            nonce,
        }
    }

    /// The access token that the request carries (`ath`). Requests to an authorization server carry none.
    #[must_use]
    pub fn access_token(mut self, token: &str) -> Self {
        self.ath = Some(super::ath(token).into());
        self
    }

    /// The last nonce that the server gave in its `DPoP-Nonce` header (RFC 9449, sections 8 and 9).
    #[must_use]
    pub fn nonce(mut self, nonce: &'a str) -> Self {
        self.nonce = Some(nonce);
        self
    }

    /// Signs for now, with a `jti` of 128 random bits of the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::is_sign`] if there are no random numbers or the key does not sign.
    pub fn sign(&self, key: &DpopKey) -> Result<String, Error> {
        self.sign_once(key, clock::unix(SystemTime::now()))
    }

    /// With a `jti` of its own.
    pub(crate) fn sign_once(&self, key: &DpopKey, issued_at: u64) -> Result<String, Error> {
        let mut random = [0; JTI_BYTES];
        getrandom::fill(&mut random).map_err(|source| {
            Error::with_source(
                Kind::Sign,
                "the operating system gave no random numbers for the proof",
                source,
            )
        })?;
        self.sign_at(key, issued_at, &BASE64URL.encode(random))
    }

    /// Signs with a given `iat`, in seconds since 1970, and a given `jti`, which nobody may have used
    /// before. The pure form of [`sign`](Self::sign).
    ///
    /// # Errors
    ///
    /// [`Error::is_sign`] if the key does not sign.
    pub fn sign_at(&self, key: &DpopKey, issued_at: u64, jti: &str) -> Result<String, Error> {
        let header = key.proof_header();
        let mut claims = Vec::with_capacity(256);
        claims.extend(b"{\"jti\":");
        push_json(&mut claims, jti)?;
        claims.extend(b",\"htm\":");
        push_json(&mut claims, self.method.as_str())?;
        claims.extend(b",\"htu\":");
        push_json(&mut claims, &self.htu)?;
        claims.extend(b",\"iat\":");
        claims.extend(issued_at.to_string().as_bytes());
        if let Some(ath) = &self.ath {
            claims.extend(b",\"ath\":");
            push_json(&mut claims, ath)?;
        }
        if let Some(nonce) = self.nonce {
            claims.extend(b",\"nonce\":");
            push_json(&mut claims, nonce)?;
        }
        claims.push(b'}');

        // Three parts, two dots; a signature of 64 bytes is 86 characters long.
        let mut proof = String::with_capacity(header.len() + claims.len().div_ceil(3) * 4 + 86 + 2);
        proof.push_str(header);
        proof.push('.');
        BASE64URL.encode_string(&claims, &mut proof);
        let signature = key.sign(proof.as_bytes())?;
        proof.push('.');
        BASE64URL.encode_string(signature, &mut proof);
        Ok(proof)
    }
}

/// Writes a JSON string, quotes and escapes and all.
fn push_json(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    serde_json::to_writer(out, text)
        .map_err(|source| Error::with_source(Kind::Sign, "the proof could not be written", source))
}
