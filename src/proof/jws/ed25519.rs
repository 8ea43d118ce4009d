//! Ed25519, by either name (RFC 8037, section 3.1; RFC 9864).

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::{WRONG_SIGNATURE, bytes32};
use crate::key;

pub(super) fn verify<'a>(
    member: impl Fn(&str) -> Option<&'a str>,
    signed: &[u8],
    signature: &[u8],
) -> Result<String, &'static str> {
    if member("kty") != Some("OKP") || member("crv") != Some("Ed25519") {
        return Err("`jwk` is no Ed25519 key");
    }
    let no_point = "`jwk` is no point of Ed25519, or one of small order";
    let x = member("x").ok_or(no_point)?;
    let bytes = bytes32(x).filter(is_strong).ok_or(no_point)?;
    UnparsedPublicKey::new(&ED25519, bytes)
        .verify(signed, signature)
        .map_err(|_| WRONG_SIGNATURE)?;
    Ok(key::ed25519_jwk(x))
}

/// The `y` of the points whose order divides 8, little-endian and without the sign of `x`: 0, 1, p - 1, and two more. By
/// such a key a signature is found without any private key, so it proves the possession of none.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    first(1),
    LARGEST,
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
];

/// p - 1, where p is 2^255 - 19. Above it the same points would have a second name, and a second thumbprint.
const LARGEST: [u8; 32] = {
    let mut y = [0xff; 32];
    y[0] = 0xec;
    y[31] = 0x7f;
    y
};

const fn first(byte: u8) -> [u8; 32] {
    let mut y = [0; 32];
    y[0] = byte;
    y
}

/// Whether a point is written in its only form, and not of small order. That it is a point at all, the library sees.
fn is_strong(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y[31] &= 0x7f;
    !SMALL_ORDER.contains(&y) && y.iter().rev().le(LARGEST.iter().rev())
}
