//! Keys that sign with `aws-lc-rs`: the faster signer, and the only one for RSA and Ed25519.

mod pair;

use std::{ops::RangeInclusive, path::Path};

use ::aws_lc_rs::{
    error::KeyRejected,
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::{SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use self::pair::{AwsLc, Pair};
use super::{
    DpopKey,
    algorithm::Algorithm,
    load,
    private::{Ed25519, Private, Rsa},
    public::{ed25519_jwk, p256_jwk, rsa_bits, rsa_jwk},
    refuse,
    signer::Signer as _,
};
use crate::error::{Error, Kind};

/// How a stored key names this signer.
pub(super) const NAME: &str = "aws-lc-rs";

/// Bits of an RSA modulus: fewer are no longer safe, and with more `aws-lc-rs` does not sign.
const RSA_BITS: RangeInclusive<usize> = 2048..=8192;

/// FIPS 186-5, section A.1.1: servers refuse less.
const MIN_EXPONENT: u64 = 65_537;

/// The door to keys that sign with [`aws-lc-rs`](https://docs.rs/aws-lc-rs): four times as fast, and RSA and Ed25519, too.
///
/// What comes out of it is a [`DpopKey`] as any other. That the feature is compiled in changes nothing: a key signs with
/// `aws-lc-rs` if it came through this door, and with `p256` if it came through [`DpopKey`]'s own. The same file loads
/// through both.
///
/// ```
/// use tower_dpop::{Algorithm, AwsLcRs, DpopKey};
///
/// # fn main() -> Result<(), tower_dpop::Error> {
/// let key = AwsLcRs::generate()?; // or AwsLcRs::from_file("key.pem", None)?
///
/// let pem = key.to_pkcs8_pem()?;
/// let slower = DpopKey::from_bytes(pem.as_str(), None)?;
/// assert_eq!(slower, key); // one key, two signers
/// assert_eq!(key.algorithm(), Algorithm::Es256);
/// # Ok(())
/// # }
/// ```
///
/// # Which keys
///
/// | | algorithm | by [`with_algorithm`](DpopKey::with_algorithm) |
/// | --- | --- | --- |
/// | P-256 | ES256 | |
/// | RSA with 2048 to 8192 bits | PS256 | RS256 |
/// | RSA for PSS alone (RFC 4055) | PS256 | |
/// | Ed25519 | Ed25519 (RFC 9864) | EdDSA (RFC 8037) |
///
/// Read from [all the formats](DpopKey#which-keys), and RSA from PKCS#1 (`-----BEGIN RSA PRIVATE KEY-----`), too. A JWK's
/// `alg` is followed. An RSA key as JWK needs `p`, `q`, `dp`, `dq` and `qi` beside `n`, `e` and `d`.
///
/// Servers that take DPoP take ES256, nearly all of them. With 2048 bits, an RSA signature takes some 15 times as long as
/// one with P-256, and each proof is some 600 bytes longer: RSA is for servers that ask for it.
///
/// # What it costs
///
/// A C compiler, and at the first build three times the processor time of `p256`; the program grows by some 2.5 MB.
/// Neither CMake nor an assembler is needed on the common platforms, but for NASM on Windows. See
/// [performance](crate::performance).
///
/// With the feature `fips` the signatures are made by the FIPS module of AWS-LC, which takes Go and CMake to build. Reading
/// keys, hashing access tokens and `jti` stay outside of that module, and its rules leave Ed25519 out.
///
/// # Security
///
/// AWS-LC wipes its memory when the last handle is dropped, as [`DpopKey`] says of its own. What it leaves on the stack is
/// not looked at.
pub enum AwsLcRs {}

impl AwsLcRs {
    /// A new P-256 key, as [`DpopKey::generate`], made and used by `aws-lc-rs`.
    ///
    /// # Errors
    ///
    /// If `aws-lc-rs` gives none ([`Error::is_sign`]).
    pub fn generate() -> Result<DpopKey, Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|source| Error::with_source(Kind::Sign, "aws-lc-rs made no key", source))?;
        p256_pair(pair)
    }

    /// Reads a key from a file, as [`DpopKey::from_file`] does.
    ///
    /// The first key of a process takes some 25 ms more: it signs once, and `aws-lc-rs` collects chance for that.
    ///
    /// # Errors
    ///
    /// As [`DpopKey::from_file`]; and [`Error::is_sign`] if the key does not sign.
    ///
    /// # Security
    ///
    /// As [`DpopKey::from_file`].
    pub fn from_file(path: impl AsRef<Path>, password: Option<&str>) -> Result<DpopKey, Error> {
        load::from_file(path.as_ref(), password, key)
    }

    /// Reads a key from memory, as [`DpopKey::from_bytes`] does.
    ///
    /// # Errors
    ///
    /// As [`DpopKey::from_bytes`]; and [`Error::is_sign`] if the key does not sign.
    pub fn from_bytes(bytes: impl AsRef<[u8]>, password: Option<&str>) -> Result<DpopKey, Error> {
        load::from_bytes(bytes.as_ref(), password).and_then(key)
    }
}

fn key(private: Private) -> Result<DpopKey, Error> {
    match private {
        Private::P256(key) => p256(&key),
        Private::Rsa(key) => rsa(*key),
        Private::Ed25519(key) => ed25519(&key),
    }
}

fn p256(key: &SigningKey) -> Result<DpopKey, Error> {
    let scalar = Zeroizing::new(<[u8; 32]>::from(key.to_bytes()));
    let point = key.verifying_key().to_sec1_point(false);
    EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &*scalar,
        point.as_bytes(),
    )
    .map_err(rejected)
    .and_then(p256_pair)
}

fn p256_pair(pair: EcdsaKeyPair) -> Result<DpopKey, Error> {
    let public = VerifyingKey::from_sec1_bytes(pair.public_key().as_ref())
        .map_err(|_| refuse("a P-256 key without its point"))?;
    warmed_up(Pair::P256(pair), Algorithm::Es256, p256_jwk(&public))
}

fn rsa(key: Rsa) -> Result<DpopKey, Error> {
    let [n, e, d, p, q, dp, dq, qi] = &key.numbers;
    let bits = rsa_bits(n);
    if !RSA_BITS.contains(&bits) {
        return Err(Error::key(format!(
            "an RSA key of {bits} bits: needed are {} to {}",
            RSA_BITS.start(),
            RSA_BITS.end()
        )));
    }
    let more = |all: u64, byte: &u8| all.saturating_mul(256).saturating_add(u64::from(*byte));
    if e.iter().fold(0, more) < MIN_EXPONENT {
        return Err(Error::key(
            "an RSA key whose public exponent is less than 65537, which servers refuse",
        ));
    }
    let pair = RsaKeyPair::from_components(&KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: dp,
        dQ: dq,
        qInv: qi,
    })
    .map_err(|_| {
        refuse(
            "an RSA key whose numbers do not belong together: it is damaged, or beside a public key that is not its own",
        )
    })?;
    let jwk = rsa_jwk(&URL_SAFE_NO_PAD.encode(n), &URL_SAFE_NO_PAD.encode(e));
    let algorithm = key.algorithm.unwrap_or(Algorithm::Ps256);
    warmed_up(Pair::Rsa(pair, key.pss_only), algorithm, jwk)
}

fn ed25519(key: &Ed25519) -> Result<DpopKey, Error> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&*key.seed).map_err(rejected)?;
    let public = pair.public_key().as_ref();
    if key.public.as_ref().is_some_and(|beside| beside != public) {
        return Err(refuse(
            "a private key beside a public key that is not its own",
        ));
    }
    let jwk = ed25519_jwk(&URL_SAFE_NO_PAD.encode(public));
    let algorithm = key.algorithm.unwrap_or(Algorithm::Ed25519);
    warmed_up(Pair::Ed25519(pair), algorithm, jwk)
}

fn rejected(error: KeyRejected) -> Error {
    refuse(format!("a key that aws-lc-rs does not take ({error})"))
}

/// Signs once: the first random number of a process takes some 25 ms, which no request is to wait for.
fn warmed_up(pair: Pair, algorithm: Algorithm, public_jwk: String) -> Result<DpopKey, Error> {
    let signer = AwsLc { pair, algorithm };
    signer
        .sign(b"tower-dpop: the first signature")
        .map_err(|source| {
            Error::with_source(Kind::Sign, "aws-lc-rs did not sign with the key", source)
        })?;
    Ok(DpopKey::new(signer, public_jwk))
}
