//! Private keys as they were read, before it is settled who signs with them.
#![cfg_attr(
    not(any(feature = "aws-lc-rs", feature = "fips")),
    allow(
        dead_code,
        reason = "without these, nobody signs with all that is read"
    )
)]

use p256::ecdsa::SigningKey;
use pkcs8::der::{Tag, asn1::AnyRef, asn1::UintRef};
use zeroize::Zeroizing;

use super::{algorithm::Algorithm, refuse};
use crate::error::Error;

/// A number, with the most significant byte first and without leading zeros.
pub(super) type Number = Zeroizing<Vec<u8>>;

/// What the formats hold.
pub(super) enum Private {
    P256(SigningKey),
    Rsa(Box<Rsa>),
    Ed25519(Ed25519),
}

/// An RSA key with two primes (RFC 8017, section 3.2).
pub(super) struct Rsa {
    /// `n`, `e`, `d`, `p`, `q`, `dP`, `dQ` and `qInv`, in the order of RFC 8017, A.1.2.
    pub(super) numbers: [Number; 8],
    /// What a JWK asks for by its `alg`.
    pub(super) algorithm: Option<Algorithm>,
    /// The PKCS#8 of a key that is for PSS alone: written again, it must not become a key for anything else.
    pub(super) pss_only: Option<Zeroizing<Vec<u8>>>,
}

/// An Ed25519 key (RFC 8032, section 5.1.5).
pub(super) struct Ed25519 {
    pub(super) seed: Zeroizing<[u8; 32]>,
    /// The public key that stands beside it, whosoever it is.
    pub(super) public: Option<Vec<u8>>,
    /// What a JWK asks for by its `alg`.
    pub(super) algorithm: Option<Algorithm>,
}

impl Private {
    pub(super) fn rsa(key: Rsa) -> Self {
        Self::Rsa(Box::new(key))
    }

    /// For the signer that is always there.
    pub(super) fn p256(self) -> Result<SigningKey, Error> {
        let kind = match self {
            Self::P256(key) => return Ok(key),
            Self::Rsa(_) => "RSA",
            Self::Ed25519(_) => "Ed25519",
        };
        Err(Error::key(format!(
            "an {kind} key: `DpopKey` itself signs with P-256 keys only; load it by `AwsLcRs::from_file` or \
             `AwsLcRs::from_bytes` (feature `aws-lc-rs`)"
        )))
    }
}

impl Rsa {
    /// The integers of a `RSAPrivateKey` (RFC 8017, A.1.2), behind its version.
    pub(super) fn from_pkcs1(integers: &[(Tag, &[u8])]) -> Result<Self, Error> {
        let numbers: Vec<Number> = integers
            .iter()
            .filter_map(|(tag, value)| {
                let any = AnyRef::new(*tag, value).ok()?;
                Some(number(UintRef::try_from(any).ok()?.as_bytes()))
            })
            .collect();
        let numbers = numbers
            .try_into()
            .map_err(|_| refuse("an RSA key that is damaged"))?;
        Ok(Self {
            numbers,
            algorithm: None,
            pss_only: None,
        })
    }
}

/// The number that these bytes are.
pub(super) fn number(bytes: &[u8]) -> Number {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Zeroizing::new(bytes[zeros..].to_vec())
}
