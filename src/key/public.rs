//! Public keys: as JWK, and their thumbprints (RFC 7638).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{ecdsa::VerifyingKey, pkcs8::DecodePublicKey as _};
use sha2::{Digest as _, Sha256};

use super::pem;
use crate::error::Error;

/// Reads a P-256 public key: SubjectPublicKeyInfo (RFC 5480) in DER or PEM, or the point of SEC1, section 2.3.3.
pub(super) fn p256(bytes: &[u8]) -> Result<VerifyingKey, Error> {
    let none = || {
        Error::key(
            "no public key on P-256: needed is a SubjectPublicKeyInfo in PEM or DER, or the point of SEC1",
        )
    };
    if pem::is_pem(bytes) {
        let blocks = pem::blocks(bytes)?;
        let block = blocks.iter().find(|block| block.label == "PUBLIC KEY");
        let der = block.ok_or_else(none)?.decode()?;
        VerifyingKey::from_public_key_der(&der).map_err(|_| none())
    } else {
        VerifyingKey::from_public_key_der(bytes)
            .or_else(|_| VerifyingKey::from_sec1_bytes(bytes))
            .map_err(|_| none())
    }
}

/// As RFC 7638, section 3 has it hashed: the required members and no others, in their order.
pub(super) fn p256_jwk(key: &VerifyingKey) -> String {
    let point = key.to_sec1_point(false);
    // With all their leading zeros (RFC 7518, section 6.2.1.2).
    let [x, y] = [point.x(), point.y()].map(|coordinate| {
        // Only the point at infinity has none, and it is no public key.
        coordinate.map_or_else(String::new, |bytes| URL_SAFE_NO_PAD.encode(bytes))
    });
    ec_jwk(&x, &y)
}

/// Both must be base64url: they are put into JSON as they are.
pub(crate) fn ec_jwk(x: &str, y: &str) -> String {
    format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// The same of an RSA key.
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
pub(crate) fn rsa_jwk(n: &str, e: &str) -> String {
    format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
}

/// The same of an Ed25519 key.
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
pub(crate) fn ed25519_jwk(x: &str) -> String {
    format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
}

/// How long the modulus of an RSA key is, which begins with no zero byte.
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
pub(crate) fn rsa_bits(n: &[u8]) -> usize {
    n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize)
}

/// The thumbprint of a public JWK that has the required members and no others, in their order.
pub(crate) fn thumbprint(jwk: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(jwk))
}
