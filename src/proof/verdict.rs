//! What a check finds.

use std::fmt;

/// What a proof that passed every check says.
#[derive(Clone, PartialEq)]
pub struct ValidProof {
    pub(super) thumbprint: String,
    pub(super) jti: String,
    pub(super) issued_at: f64,
    pub(super) nonce: Option<String>,
    pub(super) has_ath: bool,
}

impl ValidProof {
    /// The RFC 7638 thumbprint of the key that signed.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The proof's unique identifier; at most 512 bytes.
    #[must_use]
    pub fn jti(&self) -> &str {
        &self.jti
    }

    /// When it was signed, in seconds since 1970.
    #[must_use]
    pub fn issued_at(&self) -> f64 {
        self.issued_at
    }

    /// The server's nonce, if the proof has one.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// Whether the proof was made for some access token. One for an authorization server is not.
    #[must_use]
    pub fn has_ath(&self) -> bool {
        self.has_ath
    }
}

// Not the nonce.
impl fmt::Debug for ValidProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ValidProof")
            .field("thumbprint", &self.thumbprint)
            .field("jti", &self.jti)
            .field("issued_at", &self.issued_at)
            .field("has_ath", &self.has_ath)
            .finish_non_exhaustive()
    }
}

/// A proof that breaks a rule of RFC 9449, section 4.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidProof {
    code: &'static str,
    reason: &'static str,
}

impl InvalidProof {
    pub(super) fn proof(reason: &'static str) -> Self {
        Self {
            code: "invalid_dpop_proof",
            reason,
        }
    }

    pub(super) fn nonce(reason: &'static str) -> Self {
        Self {
            code: "use_dpop_nonce",
            reason,
        }
    }

    pub(super) fn other_key(reason: &'static str) -> Self {
        Self {
            code: "invalid_token",
            reason,
        }
    }

    /// The `error` that answers it: `invalid_dpop_proof`, `use_dpop_nonce` or, for a token that is bound to
    /// another key, `invalid_token` (RFC 9449, sections 5, 7.1 and 8).
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// The rule that was broken, fit for `error_description`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

impl fmt::Display for InvalidProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

impl std::error::Error for InvalidProof {}
