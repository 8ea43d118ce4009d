//! A proof, and the bare signature of the same bytes.

use std::sync::LazyLock;

use http::{HeaderValue, Method, Uri};
use tower_dpop::{DpopKey, proof::Proof};

use crate::keys::{Backend, Bare};

/// 64 characters: the `htu`.
pub const URI: &str = "https://api.example.com/v1/customers/4711/orders/2026-11-21/item";

/// 100 characters.
pub const TOKEN: &str = "mF_9.B5f-4.1JqM0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklm";

/// 34 characters, as servers in use give them.
pub const NONCE: &str = "eyJ7S_zG.eyJH0-Z.HX4w-7v.012345678";

/// What is to be proven, made once: the token's hash is made once for a token, the URI's `htu` once for a request.
pub struct Subject {
    key: DpopKey,
    proof: Proof<'static>,
}

impl Subject {
    /// A proof by `backend`.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        assert_eq!((URI.len(), TOKEN.len(), NONCE.len()), (64, 100, 34));
        static TARGET: LazyLock<Uri> = LazyLock::new(|| Uri::from_static(URI));
        let proof = Proof::new(&Method::POST, &TARGET).unwrap();
        Self {
            key: backend.key(),
            proof: proof.access_token(TOKEN).nonce(NONCE),
        }
    }

    /// One sending's proof: all that is done for it, up to the value of the header.
    #[must_use]
    pub fn prove(&self) -> HeaderValue {
        HeaderValue::try_from(self.proof.sign(&self.key).unwrap()).unwrap()
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn signing_input(&self) -> Vec<u8> {
        let proof = self.prove();
        let (input, _) = proof.to_str().unwrap().rsplit_once('.').unwrap();
        input.into()
    }
}

/// The same message signed, and nothing else.
pub struct Floor {
    bare: Bare,
    message: Vec<u8>,
}

impl Floor {
    /// For what `backend` signs.
    #[must_use]
    pub fn new(backend: Backend) -> Self {
        Self {
            bare: Bare::new(backend).expect("a backend that signs"),
            message: Subject::new(Backend::Null).signing_input(),
        }
    }

    /// The bare signature.
    #[must_use]
    pub fn sign(&self) -> [u8; 64] {
        self.bare.sign(&self.message)
    }
}
