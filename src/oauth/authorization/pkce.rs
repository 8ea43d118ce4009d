//! Proof Key for Code Exchange (RFC 7636): a code is of use only to whoever asked for it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{error::Error, random};

/// As RFC 7636, section 7.1 recommends; base64url makes the 43 characters of it that section 4.1 asks for at least.
const VERIFIER_BYTES: usize = 32;

/// The method of [`challenge`]. The other one, `plain`, would show the verifier.
pub(super) const METHOD: &str = "S256";

pub(super) fn verifier() -> Result<Zeroizing<String>, Error> {
    random::base64url::<VERIFIER_BYTES>()
}

/// What the server gets to know of the verifier (section 4.2).
pub(super) fn challenge(verifier: &str) -> String {
    BASE64URL.encode(Sha256::digest(verifier))
}
