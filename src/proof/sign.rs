//! Making a proof.

use std::{borrow::Cow, fmt, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::{HeaderValue, Method, Uri};

use crate::{
    clock,
    error::{BoxError, Error, Kind},
    key::DpopKey,
    origin::Target,
    random,
};

/// 128 bits: RFC 9449, section 4.2 asks for 96 at least, and UUIDs have 122.
const JTI_BYTES: usize = 16;

/// What a proof will say, before it is signed: the claims of RFC 9449, section 4.2.
///
/// A proof is for one request, and for one sending of it: sign again for every attempt.
#[derive(Clone)]
pub struct Proof<'a> {
    method: &'a Method,
    target: Target<'a>,
    ath: Option<Cow<'a, str>>,
    nonce: Option<&'a str>,
}

// Not the nonce, nor what the token can be recognised by.
impl fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof")
            .field("method", &self.method)
            .field("htu", &self.target.to_string())
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
    pub fn new(method: &'a Method, uri: &'a Uri) -> Result<Self, Error> {
        Ok(Self::for_target(
            method,
            Target::new(uri, None)?,
            None,
            None,
        ))
    }

    /// For callers that have the target and the token's hash already.
    pub(crate) fn for_target(
        method: &'a Method,
        target: Target<'a>,
        ath: Option<&'a str>,
        nonce: Option<&'a str>,
    ) -> Self {
        Self {
            method,
            target,
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
            .and_then(text)
    }

    /// Signs with a given `iat`, in seconds since 1970, and a given `jti`, which nobody may have used
    /// before. The pure form of [`sign`](Self::sign).
    ///
    /// # Errors
    ///
    /// [`Error::is_sign`] if the key does not sign.
    pub fn sign_at(&self, key: &DpopKey, issued_at: u64, jti: &str) -> Result<String, Error> {
        self.write(key, issued_at, escape(jti).as_bytes())
            .and_then(text)
    }

    /// The value of a `DPoP` header that is sent now.
    pub(crate) fn header(&self, key: &DpopKey, issued_at: u64) -> Result<HeaderValue, Error> {
        let proof = self.sign_once(key, issued_at)?;
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(proof)).map_err(unwritten)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// With a `jti` of its own. Drawn from the operating system each time: a generator in this process would repeat
    /// itself in a child that was forked.
    fn sign_once(&self, key: &DpopKey, issued_at: u64) -> Result<Vec<u8>, Error> {
        let mut jti = [0; encoded_len(JTI_BYTES)];
        random::fill_base64url::<JTI_BYTES>(&mut jti)?;
        self.write(key, issued_at, &jti)
    }

    /// `jti` is escaped already.
    fn write(&self, key: &DpopKey, issued_at: u64, jti: &[u8]) -> Result<Vec<u8>, Error> {
        const NONE: [&[u8]; 3] = [b"", b"", b""];
        let (scheme, authority) = self.target.origin();
        let path = escape(self.target.path());
        let nonce = self.nonce.map(escape);
        let ath = self.ath.as_deref().map(str::as_bytes);
        let [ath_name, ath, ath_end] = ath.map_or(NONE, |ath| [b",\"ath\":\"", ath, b"\""]);
        let nonce = nonce.as_deref().map(str::as_bytes);
        let [nonce_name, nonce, nonce_end] =
            nonce.map_or(NONE, |nonce| [b",\"nonce\":\"", nonce, b"\""]);
        let mut digits = itoa::Buffer::new();
        let claims: [&[u8]; 18] = [
            b"{\"jti\":\"",
            jti,
            b"\",\"htm\":\"",
            // What is written as it is has a grammar that leaves nothing to escape.
            self.method.as_str().as_bytes(),
            b"\",\"htu\":\"",
            scheme.as_bytes(),
            b"://",
            authority.as_bytes(),
            path.as_bytes(),
            b"\",\"iat\":",
            digits.format(issued_at).as_bytes(),
            ath_name,
            ath,
            ath_end,
            nonce_name,
            nonce,
            nonce_end,
            b"}",
        ];
        let header = key.proof_header().as_bytes();
        let claims_len = encoded_len(claims.iter().map(|part| part.len()).sum());
        // All the room it will need, and no more: a header value is made of it without a copy.
        let len = header.len() + 1 + claims_len + 1 + encoded_len(key.signature_len());
        let mut proof = Vec::with_capacity(len);
        proof.extend_from_slice(header);
        proof.push(b'.');
        push_parts(&claims, &mut proof)?;
        let signature = key.sign(&proof)?;
        proof.push(b'.');
        push_base64url(&signature, &mut proof)?;
        Ok(proof)
    }
}

/// As it stands between the quotes of a JSON string: mostly as it is.
fn escape(text: &str) -> Cow<'_, str> {
    let special = |b: u8| b < b' ' || b == b'"' || b == b'\\';
    // All of it, and not just to the first: so many bytes are looked at together.
    if !text.bytes().fold(false, |found, b| found | special(b)) {
        return text.into();
    }
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned().into()
}

/// How long the base64url of so many bytes is.
const fn encoded_len(bytes: usize) -> usize {
    (bytes * 8).div_ceil(6)
}

fn push_base64url(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.resize(start + encoded_len(bytes.len()), 0);
    BASE64URL
        .encode_slice(bytes, &mut out[start..])
        .map_err(unwritten)?;
    Ok(())
}

/// The base64url of all parts in a row, without making one of them first.
fn push_parts(parts: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Error> {
    // Three bytes are four characters, so chunks of a multiple of three can stand side by side.
    let mut chunk = [0; 3 * 128];
    let mut len = 0;
    for mut part in parts.iter().copied() {
        while !part.is_empty() {
            let (now, later) = part.split_at(part.len().min(chunk.len() - len));
            chunk[len..len + now.len()].copy_from_slice(now);
            len += now.len();
            if len == chunk.len() {
                push_base64url(&chunk, out)?;
                len = 0;
            }
            part = later;
        }
    }
    push_base64url(&chunk[..len], out)
}

fn text(proof: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(proof).map_err(unwritten)
}

fn unwritten(source: impl Into<BoxError>) -> Error {
    Error::with_source(Kind::Sign, "the proof could not be written", source)
}
