//! How a client shows who it is (RFC 6749, section 2.3; RFC 7523; RFC 8705).

mod assertion;
mod jwt;
mod secret;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, future::Future, pin::Pin, time::SystemTime};

use http::HeaderValue;
use zeroize::Zeroizing;

use crate::error::BoxError;

pub use self::jwt::PrivateKeyJwt;
pub(crate) use self::secret::{ClientSecretBasic, ClientSecretJwt, ClientSecretPost};

/// The future of [`ClientAuthentication::authenticate`].
pub type Authenticating<'a> =
    Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send + 'a>>;

/// How a client shows an authorization server who it is: for what [`Registration`](crate::Registration) has no method
/// for, such as an assertion that a platform writes into a file, or one that is signed outside of the process.
///
/// It is asked for every attempt, the answer to a nonce challenge included: servers refuse an assertion that they saw
/// before.
///
/// An assertion that the platform writes into a file and renews there, as Kubernetes does with a service account's
/// token, is read anew for each attempt:
///
/// ```
/// use std::{fs, path::PathBuf};
///
/// use tower_dpop::oauth::{Authenticating, AuthenticationContext, ClientAuthentication, Credentials};
///
/// struct AssertionFile(PathBuf);
///
/// impl ClientAuthentication for AssertionFile {
///     fn authenticate<'a>(&'a self, _: &'a AuthenticationContext<'a>) -> Authenticating<'a> {
///         let path = self.0.clone();
///         Box::pin(async move {
///             // Files block, and the runtime has others to serve.
///             let assertion = tokio::task::spawn_blocking(|| fs::read_to_string(path)).await??;
///             Ok(Credentials::jwt(assertion.trim()))
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_dpop::BoxError> {
/// # let path = std::env::temp_dir().join(format!("tower-dpop-assertion-{}", std::process::id()));
/// # fs::write(&path, "eyJ0.eyJp.c2ln\n")?;
/// // And its test:
/// let request = AuthenticationContext::new("m2m.dpop", "https://as.example.com/token");
/// let credentials = AssertionFile(path.clone()).authenticate(&request).await?;
/// assert_eq!(credentials.get("client_assertion"), Some("eyJ0.eyJp.c2ln"));
/// # fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
///
/// A signer outside of the process (a KMS, an HSM) is the same with another call in it: what to sign it finds in the
/// [`AuthenticationContext`].
pub trait ClientAuthentication: Send + Sync + 'static {
    /// The credentials for one request. The time it takes counts as the request's.
    ///
    /// # Errors
    ///
    /// Any: the request is not sent, and the error is its [`source`](std::error::Error::source).
    fn authenticate<'a>(&'a self, request: &'a AuthenticationContext<'a>) -> Authenticating<'a>;
}

/// What is to be known of the request that is authenticated.
#[derive(Debug, Clone)]
pub struct AuthenticationContext<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) issuer: Option<&'a str>,
    pub(crate) endpoint: &'a str,
    pub(crate) thumbprint: &'a str,
    pub(crate) now: SystemTime,
}

impl<'a> AuthenticationContext<'a> {
    /// A request of the client `client_id` to the URL `endpoint`, of now, with no known issuer and an empty thumbprint.
    ///
    /// For tests of a [`ClientAuthentication`] of one's own: else it is this crate that makes them.
    #[must_use]
    pub fn new(client_id: &'a str, endpoint: &'a str) -> Self {
        Self {
            client_id,
            issuer: None,
            endpoint,
            thumbprint: "",
            now: SystemTime::now(),
        }
    }

    /// With a known [`issuer`](Self::issuer).
    #[must_use]
    pub fn with_issuer(mut self, issuer: &'a str) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// With a [`thumbprint`](Self::thumbprint).
    #[must_use]
    pub fn with_thumbprint(mut self, thumbprint: &'a str) -> Self {
        self.thumbprint = thumbprint;
        self
    }

    /// At another time than [`now`](Self::now).
    #[must_use]
    pub fn with_now(mut self, now: SystemTime) -> Self {
        self.now = now;
        self
    }

    /// The client's id.
    #[must_use]
    pub fn client_id(&self) -> &'a str {
        self.client_id
    }

    /// The authorization server's issuer identifier (RFC 8414, section 2), if it is known: from metadata.
    #[must_use]
    pub fn issuer(&self) -> Option<&'a str> {
        self.issuer
    }

    /// The URL of the endpoint that the request goes to.
    #[must_use]
    pub fn endpoint(&self) -> &'a str {
        self.endpoint
    }

    /// The thumbprint of the key that proves the request (RFC 7638), for a `cnf.jkt` in an assertion.
    #[must_use]
    pub fn thumbprint(&self) -> &'a str {
        self.thumbprint
    }

    /// The time by the server's clock, as far as that is known.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.now
    }
}

/// What a request carries to show who the client is: parameters of its form, or an `Authorization` header.
///
/// The client's id is added as `client_id`, unless there is an `Authorization` header or a parameter of that name.
#[derive(Clone, Default)]
pub struct Credentials {
    pub(crate) parameters: Vec<(Cow<'static, str>, Zeroizing<String>)>,
    pub(crate) authorization: Option<HeaderValue>,
    /// What must not show either, although it is not sent as it is here.
    hidden: Vec<Zeroizing<String>>,
}

impl Credentials {
    /// None, as for a client that the connection itself identifies.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An assertion (RFC 7523, section 2.2).
    #[must_use]
    pub fn jwt(assertion: impl Into<String>) -> Self {
        Self::new()
            .parameter(
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            )
            .parameter("client_assertion", assertion)
    }

    /// A parameter of the request's form. Its value is taken for a secret.
    #[must_use]
    pub fn parameter(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Self {
        self.parameters
            .push((name.into(), Zeroizing::new(value.into())));
        self
    }

    /// The `Authorization` header.
    #[must_use]
    pub fn authorization(mut self, mut value: HeaderValue) -> Self {
        value.set_sensitive(true);
        self.authorization = Some(value);
        self
    }

    /// The value of a parameter of the form, the last of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut parameters = self.parameters.iter().rev();
        let (_, value) = parameters.find(|(known, _)| known == name)?;
        Some(value)
    }

    /// The `Authorization` header, if there is one.
    #[must_use]
    pub fn authorization_header(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// What must not show in any error either, although it is not sent as it is.
    fn hide(mut self, secret: Zeroizing<String>) -> Self {
        self.hidden.push(secret);
        self
    }

    /// What must not show in any error beside the parameters.
    pub(crate) fn hidden(&self) -> impl Iterator<Item = Zeroizing<String>> {
        let header = self.authorization.as_ref();
        let header = header.and_then(|value| value.to_str().ok());
        // Without its scheme, by which a server may speak of it.
        let credentials = header.map(|value| {
            value
                .split_once(' ')
                .map_or(value, |(_, rest)| rest)
                .to_owned()
        });
        let hidden = self.hidden.iter().cloned();
        hidden.chain(credentials.map(Zeroizing::new))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("Credentials")
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}
