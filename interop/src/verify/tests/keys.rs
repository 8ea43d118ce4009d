//! Keys that sign whatever they are given.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

#[derive(Clone)]
pub(super) enum Key {
    Es256(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>, &'static str),
    Rsa(Arc<RsaKeyPair>, &'static str),
}

impl Key {
    /// Another one at each call.
    pub(super) fn es256() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::Es256(key.into())
    }

    pub(super) fn ed25519(alg: &'static str) -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap().into(), alg)
    }

    /// One for all tests, since it takes a while.
    pub(super) fn rsa(alg: &'static str) -> Self {
        static KEY: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
        let generate = || RsaKeyPair::generate(KeySize::Rsa2048).unwrap().into();
        Self::Rsa(KEY.get_or_init(generate).clone(), alg)
    }

    pub(super) fn all() -> [Self; 5] {
        let [new, old] = ["Ed25519", "EdDSA"].map(Self::ed25519);
        let [ps256, rs256] = ["PS256", "RS256"].map(Self::rsa);
        [Self::es256(), new, old, ps256, rs256]
    }

    pub(super) fn alg(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Ed25519(_, alg) | Self::Rsa(_, alg) => alg,
        }
    }

    pub(super) fn jwk(&self) -> Value {
        match self {
            Self::Es256(key) => {
                let point = key.public_key().as_ref();
                let [x, y] = [&point[1..33], &point[33..]].map(|part| BASE64URL.encode(part));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})
            }
            Self::Ed25519(key, _) => {
                let x = BASE64URL.encode(key.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x})
            }
            Self::Rsa(key, _) => {
                let public = key.public_key();
                let parts = [public.modulus(), public.exponent()];
                let [n, e] =
                    parts.map(|part| BASE64URL.encode(part.big_endian_without_leading_zero()));
                json!({"kty": "RSA", "n": n, "e": e})
            }
        }
    }

    pub(super) fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
        let signature = BASE64URL.encode(self.signature(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn signature(&self, signed: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Es256(key) => key.sign(&random, signed).unwrap().as_ref().to_vec(),
            Self::Ed25519(key, _) => key.sign(signed).as_ref().to_vec(),
            Self::Rsa(key, alg) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let pss: &dyn RsaEncoding = &RSA_PSS_SHA256;
                let pkcs1: &dyn RsaEncoding = &RSA_PKCS1_SHA256;
                let encoding = if *alg == "PS256" { pss } else { pkcs1 };
                key.sign(encoding, &random, signed, &mut signature).unwrap();
                signature
            }
        }
    }
}
