//! ES256 (RFC 7518, section 3.4).

use ecdsa::signature::Verifier as _;
use p256::{
    Sec1Point,
    ecdsa::{Signature, VerifyingKey},
};

use super::{WRONG_SIGNATURE, bytes32};
use crate::key;

pub(super) fn verify<'a>(
    member: impl Fn(&str) -> Option<&'a str>,
    signed: &[u8],
    signature: &[u8],
) -> Result<String, &'static str> {
    if member("kty") != Some("EC") || member("crv") != Some("P-256") {
        return Err("`jwk` is no P-256 key");
    }
    let no_point = "`jwk` is no point of P-256";
    let (x, y) = member("x").zip(member("y")).ok_or(no_point)?;
    let (x_bytes, y_bytes) = bytes32(x).zip(bytes32(y)).ok_or(no_point)?;
    let point = Sec1Point::from_affine_coordinates(&x_bytes.into(), &y_bytes.into(), false);
    let key = VerifyingKey::from_sec1_point(&point).map_err(|_| no_point)?;
    let signature = Signature::from_slice(signature).map_err(|_| WRONG_SIGNATURE)?;
    key.verify(signed, &signature)
        .map_err(|_| WRONG_SIGNATURE)?;
    Ok(key::ec_jwk(x, y))
}
