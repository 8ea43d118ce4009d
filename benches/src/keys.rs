//! One key, in every backend: behind a [`DpopKey`], and bare.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use p256::{
    ecdsa::{Signature, SigningKey, signature::Signer as _},
    pkcs8::EncodePrivateKey as _,
};
use tower_dpop::{AwsLcRs, BoxError, DpopKey};

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The default.
    P256,
    /// The fastest.
    AwsLcRs,
    /// Nobody: 64 bytes that are always the same. What is left is our own work.
    Null,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::P256, Self::AwsLcRs, Self::Null];

    /// As the tables have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::AwsLcRs => "aws-lc-rs",
            Self::Null => "null",
        }
    }

    /// The key, signing with this backend.
    #[must_use]
    pub fn key(self) -> DpopKey {
        match self {
            Self::P256 => DpopKey::from_bytes(pkcs8(), None).unwrap(),
            Self::AwsLcRs => AwsLcRs::from_bytes(pkcs8(), None).unwrap(),
            Self::Null => null(),
        }
    }
}

/// A backend without anything around it.
pub enum Bare {
    /// The default.
    P256(SigningKey),
    /// The fastest.
    AwsLcRs(EcdsaKeyPair, SystemRandom),
}

impl Bare {
    /// The bare backend; none for [`Backend::Null`], which signs nothing.
    #[must_use]
    pub fn new(backend: Backend) -> Option<Self> {
        match backend {
            Backend::P256 => Some(Self::P256(secret())),
            Backend::AwsLcRs => {
                let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8());
                Some(Self::AwsLcRs(key.unwrap(), SystemRandom::new()))
            }
            Backend::Null => None,
        }
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        match self {
            Self::P256(key) => {
                let signature: Signature = key.sign(message);
                signature.to_bytes().into()
            }
            Self::AwsLcRs(key, random) => {
                let signature = key.sign(random, message).unwrap();
                signature.as_ref().try_into().unwrap()
            }
        }
    }
}

fn secret() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

fn pkcs8() -> Vec<u8> {
    secret().to_pkcs8_der().unwrap().as_bytes().into()
}

fn public_key() -> Vec<u8> {
    secret()
        .verifying_key()
        .to_sec1_point(false)
        .as_bytes()
        .into()
}

/// The first signature has to be right, or there is no key: it is the trial.
fn null() -> DpopKey {
    let (key, tried) = (Bare::P256(secret()), AtomicBool::new(false));
    let sign = move |message: &[u8]| {
        Ok::<_, BoxError>(match tried.load(Ordering::Relaxed) {
            true => [0x55; 64],
            false => {
                tried.store(true, Ordering::Relaxed);
                key.sign(message)
            }
        })
    };
    DpopKey::from_signer(public_key(), sign).unwrap()
}
