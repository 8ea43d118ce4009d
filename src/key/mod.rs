//! The private key that proofs are signed with.
//!
//! Everything the outside sees is [`DpopKey`], a handle that names no curve and has no type parameter. Behind it stands
//! whatever signs: `p256`, another signer by a door of its own, or the program itself.

mod algorithm;
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
mod aws_lc_rs;
mod der;
mod encrypted;
mod jwk;
mod load;
mod oid;
mod pem;
mod private;
mod pss;
mod public;
mod signer;

use std::{fmt, fmt::Display, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::SigningKey;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Kind};

#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
pub use self::aws_lc_rs::AwsLcRs;
#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
pub(crate) use self::public::{ed25519_jwk, rsa_bits, rsa_jwk};
pub use self::{algorithm::Algorithm, signer::Es256Signer};
use self::{
    private::Private,
    public::p256_jwk,
    signer::{Own, Signer},
};
pub(crate) use self::{
    public::{ec_jwk, thumbprint},
    signer::Signature,
};

/// The private part is wiped because `p256` wipes it: this fails to compile if it ever stops to.
const _: () = {
    const fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<SigningKey>();
};

/// Draws before [`DpopKey::generate`] gives up. One draw in 2³² is not a P-256 key, so a second one is
/// rare, and an eighth means that the random numbers are not random.
const MAX_DRAWS: usize = 8;

/// The private key that proofs are signed with: the client's identity towards both servers (RFC 9449).
///
/// A handle: cheap to clone, and every clone is the same key. Two keys are equal if their
/// [thumbprints](Self::thumbprint) are. `Debug` shows algorithm and thumbprint, never the key.
///
/// # Which keys
///
/// P-256 keys, that sign with ES256. RSA keys (PS256, RS256) and Ed25519 keys load by `AwsLcRs` (feature `aws-lc-rs`), and
/// P-256 keys that are to sign four times as fast. A key that this process never sees signs by
/// [`from_signer`](Self::from_signer).
///
/// [`from_file`](Self::from_file) and [`from_bytes`](Self::from_bytes) tell the format by the content, never by the
/// file's name:
///
/// | | PEM | DER | JSON |
/// | --- | --- | --- | --- |
/// | PKCS#8 (RFC 5958), what `openssl genpkey` writes | yes | yes | |
/// | encrypted PKCS#8: PBES2 (RFC 8018) with AES, by PBKDF2 with HMAC-SHA-2 or by scrypt | yes | yes | |
/// | SEC1 (RFC 5915), what `openssl ecparam -genkey` writes | yes | yes | |
/// | PKCS#1 (RFC 8017), what `openssl rsa -traditional` writes: by `AwsLcRs` | yes | yes | |
/// | JWK (RFC 7517) | | | yes |
///
/// A PEM file may hold other things beside the one private key, such as text, EC parameters and certificates.
/// Text may be UTF-8 or, with a byte order mark, UTF-16, and have any line ends.
///
/// ```sh
/// openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
/// ```
///
/// # Security
///
/// The private key is wiped from memory when the last handle is dropped, and so is every buffer of this crate
/// that held it while it was loaded or written. The bytes that the caller gave are the caller's to wipe. What
/// the compiler leaves behind on the stack while it moves values, what the decryption leaves there (the key
/// derived from the password), and what the operating system swapped out is beyond its reach. Keys by `AwsLcRs` are in the
/// memory of that library, which wipes what it gives back.
///
/// # Example
///
/// ```
/// use tower_dpop::DpopKey;
///
/// # fn main() -> Result<(), tower_dpop::Error> {
/// let key = DpopKey::generate()?;
///
/// let pem = key.to_pkcs8_pem()?; // store it where secrets belong
/// let again = DpopKey::from_bytes(pem.as_str(), None)?;
///
/// assert_eq!(again, key);
/// assert_eq!(again.thumbprint().len(), 43); // the `dpop_jkt` of RFC 9449, section 10
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DpopKey {
    inner: Arc<Inner>,
}

struct Inner {
    signer: Box<dyn Signer>,
    // The public side never changes, and every proof needs it: made once for a key.
    public_jwk: String,
    thumbprint: String,
    proof_header: String,
}

impl DpopKey {
    /// A new P-256 key, from the operating system's random numbers.
    ///
    /// It lives as long as its handles; [`to_pkcs8_pem`](Self::to_pkcs8_pem) keeps it longer.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random numbers ([`Error::is_sign`]).
    pub fn generate() -> Result<Self, Error> {
        let mut scalar = Zeroizing::new([0; 32]);
        for _ in 0..MAX_DRAWS {
            getrandom::fill(scalar.as_mut()).map_err(|error| {
                Error::with_source(
                    Kind::Sign,
                    "no random numbers from the operating system",
                    error,
                )
            })?;
            // Out of range, so draw anew: a reduction instead would favour some keys.
            if let Ok(signing) = SigningKey::from_slice(scalar.as_ref()) {
                return Ok(Self::p256(signing));
            }
        }
        Err(Error::new(
            Kind::Sign,
            "the operating system's random numbers are not random",
        ))
    }

    /// Reads a key from a file, in [any of the formats](Self#which-keys).
    ///
    /// `password` opens an encrypted key; if the key is not encrypted, it is ignored. The file is read here and
    /// now, with blocking I/O, and opening an encrypted key takes as long as its maker wished (often a tenth of
    /// a second): load keys at start-up.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or as [`from_bytes`](Self::from_bytes). The text names the file.
    ///
    /// # Security
    ///
    /// The file's permissions are not looked at. A file over 64 KiB is refused, and not read to its end.
    pub fn from_file(path: impl AsRef<Path>, password: Option<&str>) -> Result<Self, Error> {
        load::from_file(path.as_ref(), password, Self::private)
    }

    /// Reads a key from memory, in [any of the formats](Self#which-keys).
    ///
    /// `password` opens an encrypted key; if the key is not encrypted, it is ignored.
    ///
    /// # Errors
    ///
    /// If there is no usable private key in `bytes` ([`Error::is_key`]); the text says what was found instead,
    /// and for many formats how to convert it. [`Error::is_password_missing`] and
    /// [`Error::is_password_wrong`] single out what a user can put right by typing.
    pub fn from_bytes(bytes: impl AsRef<[u8]>, password: Option<&str>) -> Result<Self, Error> {
        load::from_bytes(bytes.as_ref(), password).and_then(Self::private)
    }

    /// A key that stays where it is, and signs there: in a hardware token, say, or by a library of your choice.
    ///
    /// `public_key` is a SubjectPublicKeyInfo (RFC 5480), in PEM or DER, or a point as SEC1 writes it, compressed or
    /// not. `signer` signs once here and now, so that one which does not belong to it shows at once.
    ///
    /// ```
    /// use tower_dpop::{BoxError, DpopKey};
    /// # mod token {
    /// #     use p256::ecdsa::{Signature, SigningKey, signature::Signer};
    /// #     pub fn key() -> SigningKey { SigningKey::from_slice(&[7; 32]).unwrap() }
    /// #     pub fn public_key() -> Vec<u8> { key().verifying_key().to_sec1_point(false).as_bytes().into() }
    /// #     pub fn sign(message: &[u8]) -> Result<[u8; 64], std::io::Error> {
    /// #         let signature: Signature = key().sign(message);
    /// #         Ok(signature.to_bytes().into())
    /// #     }
    /// # }
    ///
    /// let sign = |message: &[u8]| token::sign(message).map_err(BoxError::from);
    /// let key = DpopKey::from_signer(token::public_key(), sign)?;
    /// # Ok::<(), tower_dpop::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::is_key`] if `public_key` is none on P-256, or is not the signer's; [`Error::is_sign`] if the signer does
    /// not sign.
    pub fn from_signer(
        public_key: impl AsRef<[u8]>,
        signer: impl Es256Signer + 'static,
    ) -> Result<Self, Error> {
        let public = public::p256(public_key.as_ref())?;
        signer::try_out(&signer, &public)?;
        Ok(Self::new(Own(signer), p256_jwk(&public)))
    }

    /// The private key as PKCS#8 in PEM (`-----BEGIN PRIVATE KEY-----`), as openssl writes it.
    ///
    /// # Errors
    ///
    /// [`Error::is_key`] if the key cannot leave its place: one [of your own signer](Self::from_signer).
    ///
    /// # Security
    ///
    /// The text is not encrypted. It is wiped from memory when it is dropped; copies of it are not.
    pub fn to_pkcs8_pem(&self) -> Result<Zeroizing<String>, Error> {
        let der = self
            .inner
            .signer
            .to_pkcs8()
            .map_err(|why| Error::key(format!("the key cannot be written as PKCS#8: {why}")))?;
        Ok(pem::encode("PRIVATE KEY", &der))
    }

    /// The algorithm that this key signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.inner.signer.algorithm()
    }

    /// The same key, for another one of its algorithms.
    ///
    /// An RSA key signs with PS256, unless it is told to with RS256. The signature of an Ed25519 key has two names:
    /// `Ed25519`, and `EdDSA` for servers that do not know the new one yet. A P-256 key has ES256 only. The thumbprint
    /// stays what it is.
    ///
    /// # Errors
    ///
    /// [`Error::is_key`] if the key cannot sign with it; the text says what it can.
    pub fn with_algorithm(self, algorithm: Algorithm) -> Result<Self, Error> {
        if algorithm == self.algorithm() {
            return Ok(self);
        }
        let signer = &self.inner.signer;
        let able = signer.with_algorithm(algorithm).ok_or_else(|| {
            let able: Vec<&str> = self.algorithms().iter().map(|a| a.as_str()).collect();
            let able = able.join(" or ");
            Error::key(format!(
                "this key cannot sign with {algorithm}: it signs with {able}"
            ))
        })?;
        Ok(Self::boxed(able, self.inner.public_jwk.clone()))
    }

    /// The public key as a JWK: the JSON text that stands in the header of every proof (RFC 9449, section 4.2).
    ///
    /// It has the required members and no others, in the order of RFC 7638, section 3:
    /// `{"crv":"P-256","kty":"EC","x":"…","y":"…"}`, `{"e":"…","kty":"RSA","n":"…"}` or
    /// `{"crv":"Ed25519","kty":"OKP","x":"…"}`.
    #[must_use]
    pub fn public_jwk(&self) -> &str {
        &self.inner.public_jwk
    }

    /// The JWK thumbprint (RFC 7638) of the public key, by SHA-256, in base64url: the value of `dpop_jkt`
    /// (RFC 9449, section 10) and of a token's `cnf.jkt` (section 6.1).
    ///
    /// Not secret, but it recognises the client.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.inner.thumbprint
    }

    /// The header of every proof of this key, in base64url: the first part of the JWS.
    pub(crate) fn proof_header(&self) -> &str {
        &self.inner.proof_header
    }

    /// Signs, and gives the signature as JWS wants it.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Signature, Error> {
        let signature = self.inner.signer.sign(message);
        signature.map_err(|source| Error::with_source(Kind::Sign, "the key did not sign", source))
    }

    /// A key that was kept as [`to_pkcs8_pem`](Self::to_pkcs8_pem), for the signer that it had.
    pub(crate) fn restore(pem: &str, signer: Option<&str>) -> Result<Self, Error> {
        match signer {
            #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
            Some(aws_lc_rs::NAME) => AwsLcRs::from_bytes(pem, None),
            // Of a signer that is not compiled in: a P-256 key is slower without it, and the same.
            _ => Self::from_bytes(pem, None),
        }
    }

    /// What this key can sign with.
    pub(crate) fn algorithms(&self) -> &'static [Algorithm] {
        self.inner.signer.algorithms()
    }

    /// Whether [`restore`](Self::restore) gives a key this signer.
    pub(crate) fn has_signer(_name: &str) -> bool {
        #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
        return _name == aws_lc_rs::NAME;
        #[cfg(not(any(feature = "aws-lc-rs", feature = "fips")))]
        false
    }

    /// The name of the signer, for [`restore`](Self::restore). None is that of the crate.
    pub(crate) fn signer_name(&self) -> Option<&'static str> {
        self.inner.signer.name()
    }

    /// How many bytes a signature has.
    pub(crate) fn signature_len(&self) -> usize {
        self.inner.signer.signature_len()
    }

    fn private(key: Private) -> Result<Self, Error> {
        key.p256().map(Self::p256)
    }

    fn p256(signing: SigningKey) -> Self {
        let public_jwk = p256_jwk(signing.verifying_key());
        Self::new(signing, public_jwk)
    }

    fn new(signer: impl Signer + 'static, public_jwk: String) -> Self {
        Self::boxed(Box::new(signer), public_jwk)
    }

    fn boxed(signer: Box<dyn Signer>, public_jwk: String) -> Self {
        let algorithm = signer.algorithm();
        let header = format!(r#"{{"typ":"dpop+jwt","alg":"{algorithm}","jwk":{public_jwk}}}"#);
        Self {
            inner: Arc::new(Inner {
                signer,
                thumbprint: thumbprint(&public_jwk),
                proof_header: URL_SAFE_NO_PAD.encode(header),
                public_jwk,
            }),
        }
    }
}

impl PartialEq for DpopKey {
    fn eq(&self, other: &Self) -> bool {
        self.thumbprint() == other.thumbprint()
    }
}

impl Eq for DpopKey {}

impl fmt::Debug for DpopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopKey")
            .field("algorithm", &self.algorithm())
            .field("thumbprint", &self.thumbprint())
            .finish_non_exhaustive()
    }
}

/// An error in one line: what was found, and what would do.
fn refuse(found: impl Display) -> Error {
    Error::key(format!(
        "{found}; needed is a P-256 private key (or RSA or Ed25519, for `AwsLcRs`): PKCS#8, SEC1 or PKCS#1 in PEM or \
         DER, or a JWK"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 6979, A.2.5.
    const KEY: &str = r#"{
        "kty": "EC",
        "crv": "P-256",
        "x": "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
        "y": "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk",
        "d": "ya-p2EW6dRZrXCFXZ7HWk05Qw9s26JsSe4piKxIPZyE"
    }"#;

    #[test]
    fn signs_as_rfc_6979_does() -> Result<(), Error> {
        let signature = DpopKey::from_bytes(KEY, None)?.sign(b"sample")?;
        assert_eq!(
            URL_SAFE_NO_PAD.encode(&*signature),
            "79SLKqy2qP0RQN2c1F6B1p0sh3tWqvmRw00OqE6vNxb\
             3yxyULWV8QdQ2x6G24p9l8-kA27mv9AZNxKsvhDrNqA"
        );
        Ok(())
    }

    #[test]
    fn the_header_holds_the_public_key_only() -> Result<(), Error> {
        let key = DpopKey::from_bytes(KEY, None)?;
        let header = URL_SAFE_NO_PAD.encode(format!(
            r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{}}}"#,
            ec_jwk(
                "YP7UuiVanTHJYet0xjVtaMBJuJI7Yfps5mliLmDyn7Y",
                "eQP-EAi4vJmkGunpVii8ZPLxsgwtfp9Rd6PClNRGIpk"
            )
        ));
        assert_eq!(key.proof_header(), header);
        Ok(())
    }
}
