//! Signatures by `aws-lc-rs`.

use ::aws_lc_rs::{
    encoding::{AsDer as _, Pkcs8V1Der},
    error::Unspecified,
    rand::SystemRandom,
    signature::{EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair},
};
use zeroize::Zeroizing;

use super::NAME;
use crate::{
    error::BoxError,
    key::{
        algorithm::Algorithm,
        signer::{Signature, Signer},
    },
};

/// A key pair in the memory of AWS-LC. A handle.
#[derive(Clone)]
pub(super) enum Pair {
    P256(EcdsaKeyPair),
    /// With its PKCS#8, if it is for PSS alone.
    Rsa(RsaKeyPair, Option<Zeroizing<Vec<u8>>>),
    Ed25519(Ed25519KeyPair),
}

/// A key pair, and what it signs with.
pub(super) struct AwsLc {
    pub(super) pair: Pair,
    pub(super) algorithm: Algorithm,
}

impl Signer for AwsLc {
    fn sign(&self, message: &[u8]) -> Result<Signature, BoxError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::P256(pair) => short(pair.sign(&random, message)?.as_ref()),
            Pair::Ed25519(pair) => short(pair.try_sign(message)?.as_ref()),
            Pair::Rsa(pair, _) => {
                let padding = match self.algorithm {
                    Algorithm::Rs256 => &RSA_PKCS1_SHA256,
                    _ => &RSA_PSS_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()].into_boxed_slice();
                pair.sign(padding, &random, message, &mut signature)?;
                Ok(Signature::Long(signature))
            }
        }
    }

    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    fn algorithms(&self) -> &'static [Algorithm] {
        match &self.pair {
            Pair::P256(_) => &[Algorithm::Es256],
            Pair::Rsa(_, Some(_)) => &[Algorithm::Ps256],
            Pair::Rsa(_, None) => &[Algorithm::Ps256, Algorithm::Rs256],
            Pair::Ed25519(_) => &[Algorithm::Ed25519, Algorithm::EdDsa],
        }
    }

    fn with_algorithm(&self, algorithm: Algorithm) -> Option<Box<dyn Signer>> {
        self.algorithms()
            .contains(&algorithm)
            .then(|| -> Box<dyn Signer> {
                Box::new(Self {
                    pair: self.pair.clone(),
                    algorithm,
                })
            })
    }

    fn signature_len(&self) -> usize {
        match &self.pair {
            Pair::P256(_) | Pair::Ed25519(_) => 64,
            Pair::Rsa(pair, _) => pair.public_modulus_len(),
        }
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let refused = |error: Unspecified| error.to_string();
        let der = match &self.pair {
            Pair::P256(pair) => pair.to_pkcs8v1().map_err(refused)?,
            Pair::Ed25519(pair) => pair.to_pkcs8v1().map_err(refused)?,
            Pair::Rsa(_, Some(pkcs8)) => return Ok(pkcs8.clone()),
            Pair::Rsa(pair, None) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(refused)?;
                return Ok(Zeroizing::new(der.as_ref().to_vec()));
            }
        };
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    fn name(&self) -> Option<&'static str> {
        Some(NAME)
    }
}

fn short(signature: &[u8]) -> Result<Signature, BoxError> {
    Ok(Signature::Short(signature.try_into()?))
}
