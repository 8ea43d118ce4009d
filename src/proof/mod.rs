//! DPoP proofs: claims in, compact JWS out, and back (RFC 9449, section 4).
//!
//! [`DpopLayer`](crate::DpopLayer) makes its proofs here; use this module where no tower stack sends the
//! request, or to check proofs in a test server. Signing and checking stand side by side:
//!
//! ```
//! use http::{HeaderMap, HeaderValue, Method, Uri};
//! use tower_dpop::{DpopKey, proof::{Check, Proof}};
//!
//! let key = DpopKey::generate()?;
//! let uri = Uri::from_static("https://api.example.com/orders?page=2");
//! let token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
//!
//! let proof = Proof::new(&Method::GET, &uri)?.access_token(token).sign_at(&key, 1_562_262_618, "unique")?;
//!
//! let mut headers = HeaderMap::new();
//! headers.insert("dpop", HeaderValue::from_str(&proof)?);
//! let checked = Check::new(&Method::GET, "https://api.example.com/orders", 1_562_262_620)
//!     .access_token(token, key.thumbprint())
//!     .verify(&headers)?;
//! assert_eq!(checked.jti(), "unique");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod htu;
mod jws;
mod sign;
mod verdict;
mod verify;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::HeaderName;
use sha2::{Digest as _, Sha256};

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::htu::same_target;
#[cfg(feature = "testing")]
pub(crate) use self::jws::{VERIFIED, verify as verify_jws};
#[cfg(feature = "testing")]
pub(crate) use self::verify::{MAX_AGE, MAX_AHEAD};
pub use self::{
    sign::Proof,
    verdict::{InvalidProof, ValidProof},
    verify::Check,
};

/// The header that carries a proof (RFC 9449, section 4.1).
pub(crate) const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The `ath` claim: the base64url SHA-256 hash of an access token (RFC 9449, section 4.2).
pub(crate) fn ath(token: &str) -> String {
    BASE64URL.encode(Sha256::digest(token))
}
