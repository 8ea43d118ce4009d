use std::fmt;

/// A signature algorithm, by its name in JOSE.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256 and SHA-256 (RFC 7518, section 3.4).
    Es256,
    /// RSASSA-PSS with SHA-256 (RFC 7518, section 3.5).
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518, section 3.3).
    Rs256,
    /// Ed25519 by its own name (RFC 9864).
    Ed25519,
    /// Ed25519 by its name of old (RFC 8037), which many servers still ask for.
    EdDsa,
}

impl Algorithm {
    /// The name: the `alg` of a proof's header.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
            Self::Ed25519 => "Ed25519",
            Self::EdDsa => "EdDSA",
        }
    }

    /// By its name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        use Algorithm::{Ed25519, EdDsa, Es256, Ps256, Rs256};
        [Es256, Ps256, Rs256, Ed25519, EdDsa]
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
