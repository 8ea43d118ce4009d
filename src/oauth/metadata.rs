//! An authorization server's metadata (RFC 8414). Pure.

use std::{fmt, sync::Arc};

use super::{
    document::Document,
    endpoints::Endpoint,
    url::{self, PlainHttp},
};
use crate::{
    error::{Error, Kind},
    key::Algorithm,
    oauth::answer::clean,
};

const ISSUER: &str = "issuer";
const AUTHORIZATION_ENDPOINT: &str = "authorization_endpoint";

/// What an authorization server tells of itself: its endpoints, and what it can (RFC 8414, section 2).
///
/// [`Discovery`](crate::Discovery) fetches it. For a server that publishes none it is written by hand, and for one
/// whose document comes in some other way there is [`from_json`](Self::from_json).
///
/// ```
/// use tower_dpop::ServerMetadata;
///
/// let by_hand = ServerMetadata::new("https://as.example.com")
///     .with_token_endpoint("https://as.example.com/oauth2/token");
/// assert_eq!(by_hand.token_endpoint(), Some("https://as.example.com/oauth2/token"));
///
/// let json = r#"{"issuer": "https://as.example.com", "token_endpoint": "https://as.example.com/oauth2/token"}"#;
/// let read = ServerMetadata::from_json("https://as.example.com", json.as_bytes())?;
/// assert_eq!(read.token_endpoint(), by_hand.token_endpoint());
/// assert!(ServerMetadata::from_json("https://as.example.com/", json.as_bytes()).is_err(), "another issuer");
/// # Ok::<(), tower_dpop::Error>(())
/// ```
///
/// Cheap to clone.
///
/// Of a server whose issuer is not known, it begins with `ServerMetadata::default()`; authorization responses that name
/// their issuer (RFC 9207) are refused then.
#[derive(Clone, Default)]
pub struct ServerMetadata(Arc<Inner>);

#[derive(Clone, Default)]
struct Inner {
    issuer: Option<String>,
    authorization_endpoint: Option<String>,
    endpoints: Endpoints,
    mtls_endpoint_aliases: Endpoints,
    dpop_signing_alg_values_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    require_pushed_authorization_requests: bool,
    authorization_response_iss_parameter_supported: bool,
}

/// One for each [`Endpoint`], in the order of [`Endpoint::ALL`].
type Endpoints = [Option<String>; Endpoint::ALL.len()];

impl ServerMetadata {
    /// The metadata of a server that publishes none, or none that are right. `issuer` is its issuer identifier,
    /// which is the `aud` of client assertions and is compared with the `iss` of authorization responses.
    ///
    /// What is given here is checked when it is used.
    #[must_use]
    pub fn new(issuer: impl Into<String>) -> Self {
        Self::default().with(|inner| inner.issuer = Some(issuer.into()))
    }

    /// All that is known of the server is where its token endpoint is.
    pub(crate) fn token_endpoint_only(url: impl Into<String>) -> Self {
        Self::default().with_token_endpoint(url)
    }

    /// Reads the metadata of `issuer`: what RFC 8414, section 3.2 has the server answer.
    ///
    /// Of members that are not used here nothing is checked, and `null` counts as missing.
    ///
    /// # Errors
    ///
    /// [`Error::is_metadata`] if it is no JSON object of 256 KiB at the most, holds a name twice (of two values each
    /// reader would take another), has another `issuer`, compared code point by code point (RFC 8414, section 3.3), a
    /// member of the wrong type, or an endpoint that is no absolute URL with https (or http to loopback, of an issuer that
    /// is there itself), without user information and fragment, of 2048 bytes at the most.
    /// [`Error::is_config`] and [`Error::is_insecure_http`] if `issuer` is no issuer identifier.
    pub fn from_json(issuer: &str, json: &[u8]) -> Result<Self, Error> {
        Self::read(issuer, json, PlainHttp::Loopback)
    }

    /// The same, where plain http may be allowed.
    pub(crate) fn read(issuer: &str, json: &[u8], plain: PlainHttp) -> Result<Self, Error> {
        check_issuer(issuer, plain)?;
        let plain = plain.named_by(issuer);
        let document = Document::read(issuer, ISSUER, json)?;
        let aliases = document.object("mtls_endpoint_aliases")?;
        let aliases = aliases.map(|aliases| endpoints(&aliases, plain));
        Ok(Self(Arc::new(Inner {
            issuer: Some(issuer.to_owned()),
            authorization_endpoint: document.endpoint(AUTHORIZATION_ENDPOINT, plain)?,
            endpoints: endpoints(&document, plain)?,
            mtls_endpoint_aliases: aliases.transpose()?.unwrap_or_default(),
            dpop_signing_alg_values_supported: document
                .texts("dpop_signing_alg_values_supported")?,
            code_challenge_methods_supported: document.texts("code_challenge_methods_supported")?,
            require_pushed_authorization_requests: document
                .flag("require_pushed_authorization_requests")?,
            authorization_response_iss_parameter_supported: document
                .flag("authorization_response_iss_parameter_supported")?,
        })))
    }

    /// Checks what the program wrote: [`read`](Self::read) has done it for what a server did.
    pub(crate) fn check(&self, plain: PlainHttp) -> Result<(), Error> {
        if let Some(issuer) = self.issuer() {
            check_issuer(issuer, plain)?;
        }
        let named = Endpoint::ALL.map(|endpoint| (endpoint.name(), self.endpoint(endpoint, false)));
        let authorization = (AUTHORIZATION_ENDPOINT, self.authorization_endpoint());
        for (name, url) in named.into_iter().chain([authorization]) {
            if let Some(url) = url {
                let name = format!("the server's `{name}`");
                url::endpoint(url, plain).map_err(|flaw| flaw.config(&name, url))?;
            }
        }
        Ok(())
    }

    /// Where users grant (RFC 6749, section 3.1).
    #[must_use]
    pub fn with_authorization_endpoint(self, url: impl Into<String>) -> Self {
        self.with(|inner| inner.authorization_endpoint = Some(url.into()))
    }

    /// Where tokens are had (RFC 6749, section 3.2).
    #[must_use]
    pub fn with_token_endpoint(self, url: impl Into<String>) -> Self {
        self.with_endpoint(Endpoint::Token, url)
    }

    /// Where authorization requests are pushed (RFC 9126).
    #[must_use]
    pub fn with_pushed_authorization_request_endpoint(self, url: impl Into<String>) -> Self {
        self.with_endpoint(Endpoint::PushedAuthorizationRequest, url)
    }

    /// Where devices without a browser begin (RFC 8628).
    #[must_use]
    pub fn with_device_authorization_endpoint(self, url: impl Into<String>) -> Self {
        self.with_endpoint(Endpoint::DeviceAuthorization, url)
    }

    /// Where tokens are revoked (RFC 7009).
    #[must_use]
    pub fn with_revocation_endpoint(self, url: impl Into<String>) -> Self {
        self.with_endpoint(Endpoint::Revocation, url)
    }

    /// Where tokens are introspected (RFC 7662).
    #[must_use]
    pub fn with_introspection_endpoint(self, url: impl Into<String>) -> Self {
        self.with_endpoint(Endpoint::Introspection, url)
    }

    /// The algorithms of proofs that the server accepts, such as `ES256` (RFC 9449, section 5.1). Unless they are
    /// given, none is checked.
    #[must_use]
    pub fn with_dpop_signing_alg_values_supported<I>(self, algorithms: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let algorithms = algorithms.into_iter().map(Into::into).collect();
        self.with(|inner| inner.dpop_signing_alg_values_supported = Some(algorithms))
    }

    /// The server names itself in authorization responses (RFC 9207): one that does not is refused.
    #[must_use]
    pub fn with_authorization_response_iss_parameter(self) -> Self {
        self.with(|inner| inner.authorization_response_iss_parameter_supported = true)
    }

    /// The issuer identifier, unless nothing but a token endpoint is known.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.issuer.as_deref()
    }

    /// What the server is called: its issuer, or the token endpoint of one that is known by nothing else.
    pub(crate) fn name(&self) -> &str {
        self.issuer().or(self.token_endpoint()).unwrap_or_default()
    }

    /// Where users grant (RFC 6749, section 3.1).
    #[must_use]
    pub fn authorization_endpoint(&self) -> Option<&str> {
        self.0.authorization_endpoint.as_deref()
    }

    /// Where tokens are had (RFC 6749, section 3.2).
    #[must_use]
    pub fn token_endpoint(&self) -> Option<&str> {
        self.endpoint(Endpoint::Token, false)
    }

    /// Where authorization requests are pushed (RFC 9126, section 5).
    #[must_use]
    pub fn pushed_authorization_request_endpoint(&self) -> Option<&str> {
        self.endpoint(Endpoint::PushedAuthorizationRequest, false)
    }

    /// Where devices without a browser begin (RFC 8628, section 4).
    #[must_use]
    pub fn device_authorization_endpoint(&self) -> Option<&str> {
        self.endpoint(Endpoint::DeviceAuthorization, false)
    }

    /// Where tokens are revoked (RFC 7009).
    #[must_use]
    pub fn revocation_endpoint(&self) -> Option<&str> {
        self.endpoint(Endpoint::Revocation, false)
    }

    /// Where tokens are introspected (RFC 7662).
    #[must_use]
    pub fn introspection_endpoint(&self) -> Option<&str> {
        self.endpoint(Endpoint::Introspection, false)
    }

    /// Whether the server takes authorization requests only when they were pushed (RFC 9126, section 5).
    #[must_use]
    pub fn require_pushed_authorization_requests(&self) -> bool {
        self.0.require_pushed_authorization_requests
    }

    /// Whether the server names itself in authorization responses (RFC 9207, section 3).
    #[must_use]
    pub fn authorization_response_iss_parameter_supported(&self) -> bool {
        self.0.authorization_response_iss_parameter_supported
    }

    /// The algorithms of proofs that the server accepts (RFC 9449, section 5.1), if it tells them.
    #[must_use]
    pub fn dpop_signing_alg_values_supported(&self) -> Option<&[String]> {
        self.0.dpop_signing_alg_values_supported.as_deref()
    }

    /// The ways of PKCE that the server knows (RFC 8414, section 2), if it tells them: a list without `S256` is an error
    /// when an authorization begins. Some rules, such as those of the Model Context Protocol, take a missing one for
    /// that, too.
    #[must_use]
    pub fn code_challenge_methods_supported(&self) -> Option<&[String]> {
        self.0.code_challenge_methods_supported.as_deref()
    }

    /// Where an endpoint is; for a client that its TLS certificate identifies, the alias for such clients if there
    /// is one (RFC 8705, section 5).
    pub(crate) fn endpoint(&self, endpoint: Endpoint, mtls: bool) -> Option<&str> {
        let alias = self.0.mtls_endpoint_aliases[endpoint as usize].as_deref();
        let plain = self.0.endpoints[endpoint as usize].as_deref();
        alias.filter(|_| mtls).or(plain)
    }

    /// Whether the server accepts proofs with this algorithm, as far as it tells.
    pub(crate) fn check_algorithm(
        &self,
        algorithm: Algorithm,
        able: &[Algorithm],
    ) -> Result<(), Error> {
        let theirs = self.dpop_signing_alg_values_supported();
        check_algorithm("the authorization server", theirs, algorithm, able)
    }

    fn with_endpoint(self, endpoint: Endpoint, url: impl Into<String>) -> Self {
        self.with(|inner| inner.endpoints[endpoint as usize] = Some(url.into()))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// Whether a server accepts proofs with this algorithm, as far as it tells which it does.
pub(super) fn check_algorithm(
    server: &str,
    theirs: Option<&[String]>,
    algorithm: Algorithm,
    able: &[Algorithm],
) -> Result<(), Error> {
    let Some(listed) = theirs else {
        return Ok(());
    };
    let lists = |algorithm: &Algorithm| listed.iter().any(|name| name == algorithm.as_str());
    if lists(&algorithm) {
        return Ok(());
    }
    let theirs = match listed {
        [] => "none at all".to_owned(),
        _ => clean(&listed.join(", "), &[]),
    };
    let advice = match able.iter().find(|other| lists(other)) {
        Some(other) => format!(" (`DpopKey::with_algorithm` lets the same key sign with {other})"),
        None => String::new(),
    };
    Err(Error::new(
        Kind::Algorithm,
        format!(
            "{server} does not accept the key's algorithm: the key signs with {algorithm}, and the server's \
             `dpop_signing_alg_values_supported` (RFC 9449, section 5.1; RFC 9728, section 2) are: {theirs}{advice}"
        ),
    ))
}

/// What the program gave as an issuer.
pub(super) fn check_issuer(issuer: &str, plain: PlainHttp) -> Result<(), Error> {
    let checked = url::issuer(issuer, plain);
    checked.map_err(|flaw| flaw.config("the issuer", issuer))?;
    Ok(())
}

fn endpoints(document: &Document, plain: PlainHttp) -> Result<Endpoints, Error> {
    let mut endpoints = Endpoints::default();
    for endpoint in Endpoint::ALL {
        endpoints[endpoint as usize] = document.endpoint(endpoint.name(), plain)?;
    }
    Ok(endpoints)
}

impl fmt::Debug for ServerMetadata {
    /// Of what a program wrote nothing was checked yet: no URL that may hold a password is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: Option<&str>| url.map(|url| url::shown(url).trim().to_owned());
        f.debug_struct("ServerMetadata")
            .field("issuer", &shown(self.issuer()))
            .field("token_endpoint", &shown(self.token_endpoint()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
