//! Assertions, as JWS (RFC 7515) with the claims of RFC 7523, section 3.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::AuthenticationContext;
use crate::{
    clock,
    error::{Error, Kind},
    random,
};

/// Seconds that an assertion is good for. It is made for one sending, so they are for the way and for clocks that
/// differ; servers exist that refuse one that could be used for longer than some minutes.
const LIFE: u64 = 60;

/// 128 bits: an assertion's `jti` is never that of another.
const JTI_BYTES: usize = 16;

pub(super) fn header(typ: &str, alg: &str) -> Map<String, Value> {
    object([("typ", typ.into()), ("alg", alg.into())])
}

/// The claims of RFC 7523, section 3. No `nbf`: a server whose clock is behind by a second would refuse the assertion,
/// and nothing is won by it.
pub(super) fn claims(
    request: &AuthenticationContext<'_>,
    audience: &str,
) -> Result<Map<String, Value>, Error> {
    let now = clock::unix(request.now);
    let jti = random::base64url::<JTI_BYTES>()?;
    Ok(object([
        ("iss", request.client_id.into()),
        ("sub", request.client_id.into()),
        // Not an array, in which others could be, too.
        ("aud", audience.into()),
        ("jti", jti.as_str().into()),
        ("iat", now.into()),
        ("exp", now.saturating_add(LIFE).into()),
    ]))
}

pub(super) fn object<const MEMBERS: usize>(
    members: [(&str, Value); MEMBERS],
) -> Map<String, Value> {
    let members = members.into_iter();
    members
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

pub(super) fn signing_input(header: Map<String, Value>, claims: Map<String, Value>) -> String {
    let part = |members| BASE64URL.encode(Value::Object(members).to_string());
    [part(header), part(claims)].join(".")
}

/// What it outgrows here has no signature, and is of no use to anybody.
pub(super) fn signed(mut input: String, signature: &[u8]) -> String {
    input.push('.');
    BASE64URL.encode_string(signature, &mut input);
    input
}

/// HMAC with SHA-256 (RFC 7518, section 3.2).
pub(super) fn hs256(secret: &[u8], message: &[u8]) -> Result<[u8; 32], Error> {
    // Keys of any length will do.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|error| {
        Error::with_source(Kind::Sign, "the client assertion was not signed", error)
    })?;
    mac.update(message);
    Ok(mac.finalize().into_bytes().into())
}
