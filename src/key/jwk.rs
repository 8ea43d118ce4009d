//! JWK: private keys in (RFC 7517 and 7518, section 6.2), public keys and thumbprints (RFC 7638) out.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::SigningKey;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{der, refuse};
use crate::error::Error;

/// The public key with these coordinates, as RFC 7638, section 3 has it hashed.
///
/// Both must be base64url: they are put into JSON as they are.
pub(super) fn public_jwk(x: &str, y: &str) -> String {
    format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// The thumbprint of the public key with these coordinates, which must be base64url.
pub(crate) fn thumbprint_of(x: &str, y: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(public_jwk(x, y)))
}

/// The public key's `x` and `y`, with all their leading zeros (RFC 7518, section 6.2.1.2).
pub(super) fn coordinates(signing: &SigningKey) -> (String, String) {
    let point = signing.verifying_key().to_sec1_point(false);
    let [x, y] = [point.x(), point.y()].map(|coordinate| {
        // Only the point at infinity has none, and it is no public key.
        coordinate.map_or_else(String::new, |bytes| URL_SAFE_NO_PAD.encode(bytes))
    });
    (x, y)
}

/// Reads a private JWK.
pub(super) fn key(json: &[u8]) -> Result<SigningKey, Error> {
    // Borrowed values: a `serde_json::Value` would copy `d`, and drop the copy unwiped.
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(json).map_err(|_| refuse("JSON that is cut off or damaged"))?;
    let string = |name: &str| -> Option<&str> {
        let value: &RawValue = members.get(name)?;
        serde_json::from_str(value.get()).ok()
    };

    if !members.contains_key("kty") {
        return Err(refuse(if members.contains_key("keys") {
            "a JWK Set (give the one key out of its \"keys\")"
        } else {
            "JSON without \"kty\", so not a JWK"
        }));
    }
    match string("kty") {
        Some("EC") => {}
        // Names from the file are shown only if they are known ones: others could be anything.
        Some(kty @ ("RSA" | "OKP" | "oct" | "AKP")) => {
            return Err(refuse(format!("a JWK of another kind: {kty}")));
        }
        _ => return Err(refuse("a JWK of another kind")),
    }
    match string("crv") {
        Some("P-256") => {}
        Some(crv @ ("P-384" | "P-521" | "secp256k1")) => {
            return Err(refuse(format!("a JWK on another curve: {crv}")));
        }
        _ => return Err(refuse("a JWK on another curve, or on none")),
    }
    if members.contains_key("alg") && string("alg") != Some("ES256") {
        return Err(refuse("a JWK for another \"alg\" than ES256"));
    }
    if !members.contains_key("d") {
        return Err(refuse("a public JWK, without \"d\""));
    }
    let bytes = |name: &str| {
        string(name).and_then(bytes32).ok_or_else(|| {
            refuse(format!(
                "a JWK whose \"{name}\" is not 32 bytes in base64url"
            ))
        })
    };
    for name in ["x", "y"] {
        if !members.contains_key(name) {
            return Err(refuse(format!(
                "a JWK without \"{name}\", which RFC 7518 requires"
            )));
        }
    }
    let signing = der::signing_key(&*bytes("d")?)?;
    let point = signing.verifying_key().to_sec1_point(false);
    let own = [point.x(), point.y()].map(|own| own.map(|bytes| &bytes[..]));
    if own != [Some(&bytes("x")?[..]), Some(&bytes("y")?[..])] {
        return Err(refuse(
            "a JWK whose \"x\" and \"y\" do not belong to its \"d\"",
        ));
    }
    Ok(signing)
}

/// 32 bytes in base64url: what each of `d`, `x` and `y` must be on P-256 (RFC 7518, section 6.2).
fn bytes32(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    // One byte longer, because the decoder reckons with the longest that 43 characters can be.
    let mut buffer = Zeroizing::new([0; 33]);
    let len = URL_SAFE_NO_PAD.decode_slice(text, buffer.as_mut()).ok()?;
    let decoded = buffer.get(..len)?;
    let mut bytes = Zeroizing::new([0; 32]);
    (decoded.len() == bytes.len()).then(|| bytes.copy_from_slice(decoded))?;
    Some(bytes)
}
