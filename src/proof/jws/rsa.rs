//! RS256 and PS256 (RFC 7518, sections 3.3 and 3.5).

use std::ops::RangeInclusive;

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPublicKeyComponents,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};

use super::WRONG_SIGNATURE;
use crate::key;

pub(super) const PKCS1: RsaParameters = RSA_PKCS1_2048_8192_SHA256;

/// With MGF1 by SHA-256 and a salt as long as the hash, as RFC 7518 has it.
pub(super) const PSS: RsaParameters = RSA_PSS_2048_8192_SHA256;

/// RFC 7518 asks for 2048 bits at least. At most, since the client chooses how much work its key is to a server.
const MODULUS_BITS: RangeInclusive<usize> = 2048..=8192;

/// Odd ones, as FIPS 186-5, section A.1.1 has it; its bound above is higher, this one is what the library takes. Smaller
/// ones have no use, and with 1 everybody can sign.
const EXPONENTS: RangeInclusive<u64> = 65_537..=(1 << 33) - 1;

pub(super) fn verify<'a>(
    parameters: &RsaParameters,
    member: impl Fn(&str) -> Option<&'a str>,
    signed: &[u8],
    signature: &[u8],
) -> Result<String, &'static str> {
    if member("kty") != Some("RSA") {
        return Err("`jwk` is no RSA key");
    }
    let no_numbers = "`n` or `e` of `jwk` is missing, is not base64url or has leading zeros";
    let (n, e) = member("n").zip(member("e")).ok_or(no_numbers)?;
    let (n_bytes, e_bytes) = number(n).zip(number(e)).ok_or(no_numbers)?;
    if !MODULUS_BITS.contains(&key::rsa_bits(&n_bytes)) {
        return Err("the RSA key in `jwk` has less than 2048 bits, or more than 8192");
    }
    let exponent = exponent(&e_bytes).filter(|e| EXPONENTS.contains(e) && e % 2 == 1);
    exponent.ok_or("`e` of `jwk` is even, less than 65537 or more than 33 bits long")?;
    let public = RsaPublicKeyComponents {
        n: n_bytes,
        e: e_bytes,
    };
    public
        .verify(parameters, signed, signature)
        .map_err(|_| WRONG_SIGNATURE)?;
    Ok(key::rsa_jwk(n, e))
}

/// A number in base64url, in as few bytes as it needs (RFC 7518, section 2).
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = BASE64URL.decode(text).ok()?;
    (*bytes.first()? != 0).then_some(bytes)
}

fn exponent(bytes: &[u8]) -> Option<u64> {
    let mut all = [0; 8];
    let unused = all.len().checked_sub(bytes.len())?;
    all[unused..].copy_from_slice(bytes);
    Some(u64::from_be_bytes(all))
}
