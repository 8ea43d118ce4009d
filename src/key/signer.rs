//! What computes signatures: that of the crate, that of a feature, or the program's own.

use std::ops::Deref;

use p256::{ecdsa::SigningKey, pkcs8::EncodePrivateKey as _};
use signature::{Signer as _, Verifier as _};
use zeroize::Zeroizing;

use super::algorithm::Algorithm;
use crate::error::{BoxError, Error, Kind};

/// A private key that this crate never sees: in a hardware token, in another process, or in a library of your choice.
/// [`DpopKey::from_signer`](super::DpopKey::from_signer) makes a key of it.
///
/// Every closure that fits is one.
///
/// It is called in the task that sends, once for each sending, and must not take long: see
/// [performance](crate::performance#a-signer-that-takes-its-time) for one that does.
pub trait Es256Signer: Send + Sync {
    /// The ECDSA signature of the SHA-256 hash of `message` on P-256, as JWS wants it: `r` and `s`, 32 bytes each, with
    /// the most significant one first (RFC 7518, section 3.4). Many libraries give DER instead: that needs converting.
    ///
    /// # Errors
    ///
    /// Whatever kept it from signing. The request is not sent, and gets an error ([`Error::is_sign`]) with this one as
    /// its source.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], BoxError>;
}

impl<F> Es256Signer for F
where
    F: Fn(&[u8]) -> Result<[u8; 64], BoxError> + Send + Sync,
{
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], BoxError> {
        self(message)
    }
}

/// A private key, wherever it is. What is not said here holds for ES256.
pub(super) trait Signer: Send + Sync {
    /// The signature as JWS has it.
    fn sign(&self, message: &[u8]) -> Result<Signature, BoxError>;

    /// What it signs with.
    fn algorithm(&self) -> Algorithm {
        Algorithm::Es256
    }

    /// What it can sign with.
    fn algorithms(&self) -> &'static [Algorithm] {
        &[Algorithm::Es256]
    }

    /// The same key for another one of its algorithms.
    fn with_algorithm(&self, _: Algorithm) -> Option<Box<dyn Signer>> {
        None
    }

    /// Bytes of a signature.
    fn signature_len(&self) -> usize {
        64
    }

    /// The private key as PKCS#8, or why it cannot be had.
    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, String>;

    /// By what name a stored key finds back to this signer. None is that of the crate.
    fn name(&self) -> Option<&'static str> {
        None
    }
}

impl Signer for SigningKey {
    fn sign(&self, message: &[u8]) -> Result<Signature, BoxError> {
        let signature: p256::ecdsa::Signature = self.try_sign(message)?;
        Ok(Signature::Short(signature.to_bytes().into()))
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let der = self.to_pkcs8_der().map_err(|error| error.to_string())?;
        Ok(der.to_bytes())
    }
}

/// The program's own.
pub(super) struct Own<S>(pub(super) S);

impl<S: Es256Signer> Signer for Own<S> {
    fn sign(&self, message: &[u8]) -> Result<Signature, BoxError> {
        self.0.sign(message).map(Signature::Short)
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        Err("only its signer has it".to_owned())
    }
}

/// A signature as JWS has it.
pub(crate) enum Signature {
    /// ES256 and Ed25519.
    Short([u8; 64]),
    /// RSA: as long as the modulus.
    #[cfg_attr(not(any(feature = "aws-lc-rs", feature = "fips")), allow(dead_code))]
    Long(Box<[u8]>),
}

impl Deref for Signature {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes) => bytes,
            Self::Long(bytes) => bytes,
        }
    }
}

/// Signs once: a signer that holds another key, or gives DER, shows here and not in a server's refusal. And what a
/// signer does on its first use is done.
pub(super) fn try_out(
    signer: &impl Es256Signer,
    public: &p256::ecdsa::VerifyingKey,
) -> Result<(), Error> {
    const MESSAGE: &[u8] = b"tower-dpop: does this signer hold the key?";
    let signature = signer
        .sign(MESSAGE)
        .map_err(|source| Error::with_source(Kind::Sign, "the signer did not sign", source))?;
    p256::ecdsa::Signature::from_slice(&signature)
        .and_then(|signature| public.verify(MESSAGE, &signature))
        .map_err(|_| {
            Error::key(
                "a signer whose signature does not belong to the public key: is it that of another key, that of a hash in \
                 place of the message, DER, or are `r` and `s` in another order?",
            )
        })
}
