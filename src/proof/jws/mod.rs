//! The signature of a JWS, by a public key in a JWK (RFC 7515, section 5.2): proofs' and assertions'. Pure.
//!
//! A JWK is taken to the letter: the members that its kind requires, base64url in the one form that means these bytes, no
//! leading zeros. So a key has one JWK, and one thumbprint.

#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
mod ed25519;
mod es256;
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
mod rsa;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Map, Value};

use crate::key::Algorithm;

/// The algorithms that signatures can be checked for in this build.
pub(crate) const VERIFIED: &[Algorithm] = if cfg!(any(feature = "aws-lc-rs", feature = "fips")) {
    &[
        Algorithm::Es256,
        Algorithm::Ps256,
        Algorithm::Rs256,
        Algorithm::Ed25519,
        Algorithm::EdDsa,
    ]
} else {
    &[Algorithm::Es256]
};

/// Members of a JWK that hold private or symmetric key material.
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// What no key of these algorithms has anything else to say for.
const WRONG_SIGNATURE: &str = "the signature is not that of the key in `jwk`";

/// The algorithm with this name, to the letter, if it is one of `accepted`.
pub(crate) fn accepted(name: &str, accepted: &[Algorithm]) -> Option<Algorithm> {
    Algorithm::named(name).filter(|one| VERIFIED.contains(one) && accepted.contains(one))
}

/// Checks a signature in base64url. Returns the JWK with its required members and no others, in the order of RFC 7638,
/// section 3; or which rule was broken.
pub(crate) fn verify(
    algorithm: Algorithm,
    jwk: &Map<String, Value>,
    signed: &str,
    signature: &str,
) -> Result<String, &'static str> {
    if PRIVATE_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
        return Err("`jwk` holds a private key");
    }
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let signed = signed.as_bytes();
    let signature = BASE64URL.decode(signature).map_err(|_| WRONG_SIGNATURE)?;
    match algorithm {
        Algorithm::Es256 => es256::verify(member, signed, &signature),
        #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
        Algorithm::Ps256 => rsa::verify(&rsa::PSS, member, signed, &signature),
        #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
        Algorithm::Rs256 => rsa::verify(&rsa::PKCS1, member, signed, &signature),
        #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
        Algorithm::Ed25519 | Algorithm::EdDsa => ed25519::verify(member, signed, &signature),
        // Never accepted, since it is not among those above.
        #[cfg(not(any(feature = "aws-lc-rs", feature = "fips")))]
        _ => Err("the signature's algorithm cannot be checked"),
    }
}

/// 32 bytes in base64url: what a coordinate is on P-256 (RFC 7518, section 6.2.1.2) and on Ed25519.
fn bytes32(text: &str) -> Option<[u8; 32]> {
    BASE64URL.decode(text).ok()?.try_into().ok()
}
