use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use super::{
    Endpoints, PrivateKeyJwt,
    authentication::{
        AuthenticationContext, ClientAuthentication, ClientSecretBasic, ClientSecretJwt,
        ClientSecretPost, Credentials,
    },
    endpoints::{Endpoint, Found},
};
use crate::{
    dpop::Prover,
    error::{Error, Kind},
};

/// A client as it is registered at an authorization server (RFC 6749, section 2; RFC 7591): where the server's endpoints
/// are, the client's id, and how it shows who it is.
///
/// Without one of the methods that say how, it is a public client (`none`): it sends its id alone. The last of them
/// counts. Their names are those of RFC 7591, section 2 (`token_endpoint_auth_method`).
///
/// ```
/// use tower_dpop::{DpopKey, Grant, Registration, TokenRequest, oauth::PrivateKeyJwt, oauth::ServerMetadata};
///
/// # fn main() -> Result<(), tower_dpop::Error> {
/// // Not the key of the proofs: who authenticates the client, and what a token is bound to, are two things.
/// let client_key = DpopKey::generate()?;
/// let server = ServerMetadata::new("https://as.example.com").with_token_endpoint("https://as.example.com/token");
/// let registration = Registration::new(server, "m2m.dpop")
///     .private_key_jwt(PrivateKeyJwt::new(client_key).key_id("2026-11"));
/// let request = TokenRequest::new(registration, Grant::client_credentials()).scope("orders:read");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Registration {
    endpoints: Endpoints,
    client_id: String,
    authentication: Option<Arc<dyn ClientAuthentication>>,
    /// What is wrong with it: found at once, told where there is a `Result`.
    flaw: Option<Error>,
    /// The method's name.
    method: &'static str,
    mutual_tls: bool,
}

impl Registration {
    /// A public client, unless one of the methods says how it authenticates.
    #[must_use]
    pub fn new(server: impl Into<Endpoints>, client_id: impl Into<String>) -> Self {
        Self {
            endpoints: server.into(),
            client_id: client_id.into(),
            authentication: None,
            flaw: None,
            method: "none",
            mutual_tls: false,
        }
    }

    /// Authenticates by the secret in the request's body.
    #[must_use]
    pub fn client_secret_post(self, secret: impl Into<String>) -> Self {
        let secret = ClientSecretPost::new(secret);
        self.by("client_secret_post", secret.check(), secret)
    }

    /// Authenticates by HTTP Basic; id and secret are form-urlencoded first, as RFC 6749, section 2.3.1
    /// asks.
    #[must_use]
    pub fn client_secret_basic(self, secret: impl Into<String>) -> Self {
        let secret = ClientSecretBasic::new(secret);
        self.by("client_secret_basic", secret.check(), secret)
    }

    /// Authenticates by an assertion that is signed with the secret (HS256; RFC 7523, section 2.2), which itself is not
    /// sent.
    #[must_use]
    pub fn client_secret_jwt(self, secret: impl Into<String>) -> Self {
        let secret = ClientSecretJwt::new(secret);
        self.by("client_secret_jwt", secret.check(), secret)
    }

    /// Authenticates by an assertion that is signed with a key of the client (RFC 7523, section 2.2).
    #[must_use]
    pub fn private_key_jwt(self, assertion: PrivateKeyJwt) -> Self {
        self.by("private_key_jwt", assertion.check(), assertion)
    }

    /// Authenticates by the certificate of the connection (RFC 8705, section 2), which the HTTP client presents: give
    /// the requests of this client one that does.
    ///
    /// Where the server's metadata name endpoints of their own for that (`mtls_endpoint_aliases`, section 5), the
    /// requests go there, and their proofs are for those (`htu`).
    #[must_use]
    pub fn tls_client_auth(mut self) -> Self {
        self.authentication = None;
        self.flaw = None;
        self.method = "tls_client_auth";
        self.mutual_tls = true;
        self
    }

    /// Authenticates in a way of one's own.
    #[must_use]
    pub fn authentication(self, authentication: impl ClientAuthentication) -> Self {
        self.by("other", Ok(()), authentication)
    }

    fn by(
        mut self,
        method: &'static str,
        checked: Result<(), Error>,
        authentication: impl ClientAuthentication,
    ) -> Self {
        self.flaw = checked.err();
        self.authentication = Some(Arc::new(authentication));
        self.method = method;
        self.mutual_tls = false;
        self
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn method(&self) -> &'static str {
        self.method
    }

    /// All that can be checked before the first request.
    pub(crate) fn check(&self, prover: &Prover) -> Result<(), Error> {
        if self.client_id.is_empty() {
            return Err(Error::config("the client id is empty"));
        }
        if let Some(flaw) = &self.flaw {
            return Err(flaw.clone());
        }
        let known = self.endpoints.known();
        known.map_or(Ok(()), |metadata| metadata.check(prover.plain_http()))
    }

    /// The same for whoever will ask at this endpoint.
    pub(crate) fn check_for(&self, endpoint: Endpoint, prover: &Prover) -> Result<(), Error> {
        if let Some(metadata) = self.endpoints.known() {
            Found::new(metadata, endpoint, self.mutual_tls, prover)?;
        }
        self.check(prover)
    }

    pub(crate) async fn find(&self, endpoint: Endpoint, prover: &Prover) -> Result<Found, Error> {
        let metadata = self.endpoints.metadata().await?;
        Found::new(&metadata, endpoint, self.mutual_tls, prover)
    }

    /// For one attempt; with the client's id where that is needed.
    pub(crate) async fn credentials(
        &self,
        found: &Found,
        prover: &Prover,
    ) -> Result<Credentials, Error> {
        let mut credentials = match &self.authentication {
            None => Credentials::new(),
            Some(authentication) => {
                let context = AuthenticationContext {
                    client_id: &self.client_id,
                    issuer: found.issuer.as_deref(),
                    endpoint: &found.url,
                    thumbprint: prover.key.thumbprint(),
                    now: prover.clock.at(found.origin.as_str(), prover.now()),
                };
                let credentials = authentication.authenticate(&context).await;
                credentials.map_err(|error| match error.downcast::<Error>() {
                    Ok(error) => *error,
                    Err(source) => Error::with_source(
                        Kind::Transport,
                        "the client could not be authenticated, so nothing was sent",
                        source,
                    ),
                })?
            }
        };
        let identified = credentials.authorization.is_some()
            || credentials
                .parameters
                .iter()
                .any(|(name, _)| name == "client_id");
        if !identified {
            let id = ("client_id".into(), Zeroizing::new(self.client_id.clone()));
            credentials.parameters.insert(0, id);
        }
        Ok(credentials)
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("endpoints", &self.endpoints)
            .field("client_id", &self.client_id)
            .field("client_authentication", &self.method)
            .finish()
    }
}
