//! Assertions that the client signs with a key of its own (RFC 7523; OpenID Connect Core 1.0, section 9).

use std::{fmt, future};

use serde_json::json;

use super::{
    Authenticating, AuthenticationContext, ClientAuthentication, Credentials,
    assertion::{claims, header, signed, signing_input},
};
use crate::{
    error::{Error, Kind},
    key::DpopKey,
    origin::printable,
};

/// What an assertion says anyway (RFC 7523, section 3), and `cnf`, which is no text.
const RESERVED: [&str; 8] = ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "cnf"];

/// Shows who the client is by an assertion, signed with a private key whose public part the authorization server
/// knows: `private_key_jwt` (RFC 7523, section 2.2; OpenID Connect Core 1.0, section 9).
///
/// An assertion is made for every attempt: with a new `jti`, dated by the server's clock as far as that is known, and
/// good for 60 s. It is signed with the key's [algorithm](DpopKey::algorithm), be it ES256 or what a key by `AwsLcRs` has.
/// `iss` and `sub` are the client's id, and `aud` is the authorization server's issuer identifier, as one text, as FAPI
/// 2.0 (section 5.3.3.1) asks: from metadata, or else from [`audience`](Self::audience).
///
/// ```
/// use tower_dpop::{DpopKey, PrivateKeyJwt};
///
/// # fn main() -> Result<(), tower_dpop::Error> {
/// # let pem = DpopKey::generate()?.to_pkcs8_pem()?;
/// // Its public part, `key.public_jwk()`, is registered at the server.
/// let key = DpopKey::from_bytes(pem.as_str(), None)?;
/// let authentication = PrivateKeyJwt::new(key).key_id("2026-07");
/// # let _ = authentication;
/// # Ok(())
/// # }
/// ```
///
/// # Security
///
/// Better not the key that signs the proofs: that one may be changed at any time, and a signature means one thing only
/// if its key has one use.
#[derive(Clone)]
pub struct PrivateKeyJwt {
    key: DpopKey,
    key_id: Option<String>,
    explicit_type: bool,
    audience: Audience,
    claims: Vec<(String, String)>,
    confirm_key: bool,
}

/// Who an assertion is for.
#[derive(Debug, Clone)]
enum Audience {
    Issuer,
    Endpoint,
    Text(String),
}

impl PrivateKeyJwt {
    /// Signs with `key`.
    #[must_use]
    pub fn new(key: DpopKey) -> Self {
        Self {
            key,
            key_id: None,
            explicit_type: false,
            audience: Audience::Issuer,
            claims: Vec::new(),
            confirm_key: false,
        }
    }

    /// The `kid` of the header: the name under which the server knows the key. Without one there is none, and the
    /// server tries the client's keys.
    #[must_use]
    pub fn key_id(mut self, kid: impl Into<String>) -> Self {
        self.key_id = Some(kid.into());
        self
    }

    /// Another `aud` than the issuer.
    ///
    /// # Security
    ///
    /// An assertion is good wherever its `aud` is accepted: a text that two servers go by lets one of them use it at
    /// the other.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Audience::Text(audience.into());
        self
    }

    /// The URL of the endpoint that the request goes to as `aud`, for servers that want it so.
    ///
    /// # Security
    ///
    /// The URL may come from a server's metadata, and a hostile server can name another's there: it gets an assertion
    /// that is good at the other. With more than one authorization server, let each have a key of its own.
    #[must_use]
    pub fn endpoint_as_audience(mut self) -> Self {
        self.audience = Audience::Endpoint;
        self
    }

    /// A further claim, a text. The last call for a name counts.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.claims.retain(|(known, _)| *known != name);
        self.claims.push((name, value.into()));
        self
    }

    /// The thumbprint of the key that signs the proofs as `cnf.jkt`, for servers that want to find it in the assertion,
    /// too (Singpass).
    #[must_use]
    pub fn confirm_key(mut self) -> Self {
        self.confirm_key = true;
        self
    }

    /// `client-authentication+jwt` as the header's `typ`, in place of `JWT`, for servers that ask for explicit types
    /// (draft-ietf-oauth-rfc7523bis).
    #[must_use]
    pub fn explicit_type(mut self) -> Self {
        self.explicit_type = true;
        self
    }

    /// Whether all values can be used.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.key_id.as_deref() == Some("") {
            return Err(Error::config("the key id of `private_key_jwt` is empty"));
        }
        if matches!(&self.audience, Audience::Text(text) if text.is_empty()) {
            return Err(Error::config("the audience of `private_key_jwt` is empty"));
        }
        for (name, _) in &self.claims {
            if name.is_empty() || RESERVED.contains(&name.as_str()) {
                return Err(Error::config(format!(
                    "`{}` is no further claim of a client assertion: this crate writes it itself (`audience`, \
                     `endpoint_as_audience` and `confirm_key` change what it writes)",
                    printable(name)
                )));
            }
        }
        Ok(())
    }

    fn assertion(&self, request: &AuthenticationContext<'_>) -> Result<String, Error> {
        self.check()?;
        let mut claims = claims(request, self.audience_of(request)?)?;
        for (name, value) in &self.claims {
            claims.insert(name.clone(), value.as_str().into());
        }
        if self.confirm_key {
            claims.insert("cnf".to_owned(), json!({ "jkt": request.thumbprint }));
        }
        let typ = match self.explicit_type {
            true => "client-authentication+jwt",
            // Many servers look for none, some for this one; it may be left out, but nobody refuses it.
            false => "JWT",
        };
        let mut header = header(typ, self.key.algorithm().as_str());
        if let Some(kid) = &self.key_id {
            header.insert("kid".to_owned(), kid.as_str().into());
        }
        let input = signing_input(header, claims);
        let signature = self.key.sign(input.as_bytes()).map_err(|error| {
            Error::with_source(Kind::Sign, "the client assertion was not signed", error)
        })?;
        Ok(signed(input, &signature))
    }

    fn audience_of<'a>(&'a self, request: &AuthenticationContext<'a>) -> Result<&'a str, Error> {
        match &self.audience {
            Audience::Text(text) => Ok(text),
            Audience::Endpoint => Ok(request.endpoint),
            Audience::Issuer => request.issuer.ok_or_else(|| {
                Error::config(
                    "`private_key_jwt` does not know who the assertion is for: configure the server by its metadata, \
                     which name its issuer, or call `PrivateKeyJwt::audience` or `endpoint_as_audience`",
                )
            }),
        }
    }
}

impl ClientAuthentication for PrivateKeyJwt {
    fn authenticate<'a>(&'a self, request: &'a AuthenticationContext<'a>) -> Authenticating<'a> {
        let credentials = self.assertion(request).map(Credentials::jwt);
        Box::pin(future::ready(credentials.map_err(Into::into)))
    }
}

impl fmt::Debug for PrivateKeyJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of further claims may be anything.
        let names: Vec<&str> = self.claims.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("PrivateKeyJwt")
            .field("key", &self.key)
            .field("key_id", &self.key_id)
            .field("audience", &self.audience)
            .field("claims", &names)
            .finish_non_exhaustive()
    }
}
