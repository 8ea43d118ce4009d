//! Keys of all algorithms that sign here, not by the crate.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::OnceLock;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{self, Ed25519KeyPair, RsaEncoding, RsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use p256::{
    ecdsa::{Signature, SigningKey, signature::Signer as _},
    pkcs8::EncodePrivateKey as _,
};
use serde_json::{Value, json};
use tower_dpop::{Algorithm, AwsLcRs, DpopKey};

pub(crate) const ALL: [Algorithm; 5] = [
    Algorithm::Es256,
    Algorithm::Ps256,
    Algorithm::Rs256,
    Algorithm::Ed25519,
    Algorithm::EdDsa,
];

/// The file's `note` says where they come from.
pub(crate) fn vectors() -> &'static Value {
    static VECTORS: OnceLock<Value> = OnceLock::new();
    VECTORS.get_or_init(|| serde_json::from_str(include_str!("../data/algorithms.json")).unwrap())
}

/// PKCS#8 in DER.
pub(crate) fn rsa_pkcs8() -> Vec<u8> {
    BASE64.decode(vectors()["rsa"].as_str().unwrap()).unwrap()
}

fn ed25519_seed() -> Vec<u8> {
    let seed = vectors()["ed25519_seed"].as_str().unwrap();
    BASE64URL.decode(seed).unwrap()
}

/// The private JWK of the Ed25519 key (RFC 8037, appendix A.1).
pub(crate) fn ed25519_jwk() -> Value {
    let mut jwk = vectors()["ed25519"].clone();
    jwk["d"] = vectors()["ed25519_seed"].clone();
    jwk
}

/// The key that signs with this algorithm, as it stands in a proof.
pub(crate) fn public_jwk(algorithm: Algorithm) -> Value {
    match algorithm {
        Algorithm::Es256 => {
            let point = p256().verifying_key().to_sec1_point(false);
            let [x, y] = [point.x(), point.y()].map(|c| BASE64URL.encode(c.unwrap()));
            json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
        }
        Algorithm::Ps256 | Algorithm::Rs256 => vectors()["rsa_public"].clone(),
        _ => vectors()["ed25519"].clone(),
    }
}

/// The crate's own handle for it, as it was loaded.
pub(crate) fn key(algorithm: Algorithm) -> DpopKey {
    match algorithm {
        Algorithm::Es256 => AwsLcRs::from_bytes(p256().to_pkcs8_der().unwrap().as_bytes(), None),
        Algorithm::Ps256 | Algorithm::Rs256 => AwsLcRs::from_bytes(rsa_pkcs8(), None),
        _ => AwsLcRs::from_bytes(ed25519_jwk().to_string(), None),
    }
    .unwrap()
}

/// The same, to sign with this algorithm.
pub(crate) fn signing(algorithm: Algorithm) -> DpopKey {
    key(algorithm).with_algorithm(algorithm).unwrap()
}

fn p256() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

pub(crate) fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let rsa = |padding: &'static dyn RsaEncoding| {
        let key = RsaKeyPair::from_pkcs8(&rsa_pkcs8()).unwrap();
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(padding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    };
    match algorithm {
        Algorithm::Es256 => {
            let signature: Signature = p256().sign(message);
            signature.to_bytes().to_vec()
        }
        Algorithm::Ps256 => rsa(&signature::RSA_PSS_SHA256),
        Algorithm::Rs256 => rsa(&signature::RSA_PKCS1_SHA256),
        _ => {
            let key = Ed25519KeyPair::from_seed_unchecked(&ed25519_seed()).unwrap();
            key.sign(message).as_ref().to_vec()
        }
    }
}

/// Whatever header and claims, with a good signature.
pub(crate) fn jws(algorithm: Algorithm, header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| BASE64URL.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = sign(algorithm, signed.as_bytes());
    format!("{signed}.{}", BASE64URL.encode(signature))
}

/// The header of an honest proof.
pub(crate) fn header(algorithm: Algorithm) -> Value {
    json!({ "typ": "dpop+jwt", "alg": algorithm.as_str(), "jwk": public_jwk(algorithm) })
}
