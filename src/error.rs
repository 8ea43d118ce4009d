//! What can go wrong, as one opaque type that answers questions.

use std::{borrow::Cow, error::Error as StdError, fmt, io, sync::Arc};

use tokio::time::Instant;

/// The error type of the services, as everywhere in tower: errors of the inner service pass through
/// unchanged, ours are an [`Error`] in this box ([`Error::find`] finds it).
pub type BoxError = Box<dyn StdError + Send + Sync + 'static>;

/// An error of this crate.
///
/// Opaque, so that new causes can come without a breaking change: ask it with the `is_*` methods. One
/// `Error` may have been handed to many callers that waited for the same token, so it is cheap to clone.
/// Its text says what was found and what to do; it holds no secret, nor does any [`source`](StdError::source)
/// that this crate made.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
    /// No token is asked for before this: until then, whoever comes gets the same error.
    until: Option<Instant>,
}

struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    source: Option<BoxError>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A private key that cannot be used.
    Key,
    /// An encrypted key, and no password.
    PasswordMissing,
    /// An encrypted key, and not its password.
    PasswordWrong,
    /// A value that the program gave cannot be used.
    Config,
    /// Plain http to a host that is not loopback.
    InsecureHttp,
    /// A request with a path-only URI, and no origin configured.
    MissingOrigin,
    /// The layers stand in an order that cannot work.
    LayerOrder,
    /// No signature: the signer or the random numbers of the operating system failed.
    Sign,
    /// The token request could not be sent, or its answer not be read.
    Transport,
    /// The token request took too long.
    Timeout,
    /// The authorization server refused the token request (RFC 6749, 5.2).
    Refused(OAuthError),
    /// The authorization server's answer is not what RFC 6749, 5.1 and 5.2 ask for.
    BadResponse,
    /// A refresh token was sent, and no answer came: it may be used up.
    GrantUncertain,
    /// A grant that is good once was used, and no refresh token came of it.
    GrantOver,
    /// The token's type is not DPoP.
    Downgrade,
    /// A token or a grant is bound to another key.
    OtherKey,
    /// The server does not know the key's algorithm.
    Algorithm,
    /// The metadata of a server cannot be used (RFC 8414, 3.3; RFC 9728, 3.3).
    Metadata,
    /// An authorization response that is not the answer to our request (RFC 6749, 4.1.2; RFC 9207).
    Authorization,
    /// A stored grant cannot be read or written.
    Store,
    /// Not called from within a Tokio runtime, or the runtime ended.
    Runtime,
}

/// Codes of RFC 6749, section 5.2 and RFC 8707, section 2 that do not pass by themselves. `invalid_request`
/// is none of them: servers exist that answer a proof so which came too late.
const PERMANENT: [&str; 6] = [
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
];

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                source: None,
            }),
            until: None,
        }
    }

    pub(crate) fn with_source(
        kind: Kind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<BoxError>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                source: Some(source.into()),
            }),
            until: None,
        }
    }

    pub(crate) fn until(self, next: Instant) -> Self {
        let until = Some(next);
        Self { until, ..self }
    }

    #[cfg_attr(not(feature = "retry"), allow(dead_code))]
    pub(crate) fn lasts_until(&self) -> Option<Instant> {
        self.until
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Config, message)
    }

    pub(crate) fn key(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Key, message)
    }

    /// A server that may answer better when it is asked again.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self.inner.kind,
            Kind::Transport | Kind::Timeout | Kind::BadResponse
        )
    }

    /// For logs and counters: one of a few words.
    #[cfg_attr(not(any(feature = "tracing", feature = "metrics")), allow(dead_code))]
    pub(crate) fn kind_name(&self) -> &'static str {
        match &self.inner.kind {
            Kind::Key | Kind::PasswordMissing | Kind::PasswordWrong => "key",
            Kind::Config => "config",
            Kind::InsecureHttp => "insecure_http",
            Kind::MissingOrigin => "missing_origin",
            Kind::LayerOrder => "layer_order",
            Kind::Sign => "sign",
            Kind::Transport => "transport",
            Kind::Timeout => "timeout",
            Kind::Refused(_) => "refused",
            Kind::BadResponse => "bad_response",
            Kind::GrantUncertain => "grant_uncertain",
            Kind::GrantOver => "grant_over",
            Kind::Algorithm => "algorithm",
            Kind::Metadata => "metadata",
            Kind::Authorization => "authorization",
            Kind::Store => "store",
            Kind::Downgrade => "downgrade",
            Kind::OtherKey => "other_key",
            Kind::Runtime => "runtime",
        }
    }

    /// Finds an `Error` of this crate in `error` or in its chain of sources.
    ///
    /// The services return a [`BoxError`], and the layers around them may wrap it once more.
    ///
    /// ```
    /// use tower_dpop::{BoxError, DpopKey, Error};
    ///
    /// let boxed: BoxError = DpopKey::from_bytes("no key", None).unwrap_err().into();
    /// assert!(Error::find(&*boxed).is_some_and(Error::is_key));
    /// ```
    #[must_use]
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// A private key could not be read or written, whatever the reason.
    #[must_use]
    pub fn is_key(&self) -> bool {
        matches!(
            self.inner.kind,
            Kind::Key | Kind::PasswordMissing | Kind::PasswordWrong
        )
    }

    /// The key is encrypted and no password was given.
    #[must_use]
    pub fn is_password_missing(&self) -> bool {
        self.inner.kind == Kind::PasswordMissing
    }

    /// The key is encrypted and the password does not open it.
    #[must_use]
    pub fn is_password_wrong(&self) -> bool {
        self.inner.kind == Kind::PasswordWrong
    }

    /// A value given to this crate cannot be used: an endpoint, an origin, a token, a parameter.
    #[must_use]
    pub fn is_config(&self) -> bool {
        self.inner.kind == Kind::Config
    }

    /// Plain `http` to a host that is not loopback was refused; nothing was sent.
    #[must_use]
    pub fn is_insecure_http(&self) -> bool {
        self.inner.kind == Kind::InsecureHttp
    }

    /// The request's URI has no scheme and host, and [`DpopLayer::origin`](crate::DpopLayer::origin) is
    /// not set; nothing was sent.
    #[must_use]
    pub fn is_missing_origin(&self) -> bool {
        self.inner.kind == Kind::MissingOrigin
    }

    /// The layers stand in an order that cannot work; the text names the right one.
    ///
    /// That no `Dpop` stands below a `Token` shows in the answer only: the request had gone out by then,
    /// without a token.
    #[must_use]
    pub fn is_layer_order(&self) -> bool {
        self.inner.kind == Kind::LayerOrder
    }

    /// No proof could be signed; nothing was sent.
    #[must_use]
    pub fn is_sign(&self) -> bool {
        self.inner.kind == Kind::Sign
    }

    /// No access token could be had: the token request failed, was refused, or its answer was no use; or nothing could
    /// be asked, for want of the server's metadata or of the stored grant. The request that needed the token was not
    /// sent. The same of what an [`OAuthClient`](crate::OAuthClient) asked for.
    #[must_use]
    pub fn is_token_request(&self) -> bool {
        // A refused authorization is none: no token was asked for yet.
        if let Kind::Refused(error) = &self.inner.kind {
            return error.status.is_some();
        }
        matches!(
            self.inner.kind,
            Kind::Transport
                | Kind::Timeout
                | Kind::BadResponse
                | Kind::GrantUncertain
                | Kind::GrantOver
                | Kind::Downgrade
                | Kind::Algorithm
                | Kind::Metadata
                | Kind::Store
                | Kind::Runtime
        )
    }

    /// There will be no token before somebody changes something: the client, its secret, the scope, the
    /// grant, the server's settings. The layer asks again all the same, after 30 s at the most (unless
    /// `Retry-After` asks for more): the change may be the server's. Only an
    /// [uncertain grant](Self::is_grant_uncertain) is the end.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match &self.inner.kind {
            Kind::Refused(error) => PERMANENT.contains(&error.code()),
            Kind::GrantUncertain | Kind::GrantOver | Kind::Downgrade | Kind::Algorithm => true,
            _ => false,
        }
    }

    /// A refresh token was sent and its answer lost, so nobody here knows whether it was used up and what took
    /// its place. It is not sent again: a server that has used it up would take that for theft and end the
    /// whole grant ([`retry_lost_refresh`](crate::TokenRequest::retry_lost_refresh) is for servers that
    /// would not). The user has to grant anew.
    #[must_use]
    pub fn is_grant_uncertain(&self) -> bool {
        self.inner.kind == Kind::GrantUncertain
    }

    /// A grant that is good for one token request, such as an authorization code, was used, and no refresh token
    /// came of it; or the user of a device has not agreed in time. The user has to grant anew.
    #[must_use]
    pub fn is_grant_over(&self) -> bool {
        self.inner.kind == Kind::GrantOver
    }

    /// The server's metadata name the algorithms of proofs that it accepts, and that of the key is none of them
    /// (`dpop_signing_alg_values_supported`; RFC 9449, section 5.1).
    #[must_use]
    pub fn is_algorithm(&self) -> bool {
        self.inner.kind == Kind::Algorithm
    }

    /// A server's metadata cannot be used: they are another issuer's, hold an endpoint that is none, are no JSON, too
    /// long, or were answered with a redirect (RFC 8414, section 3.3; RFC 9728, section 3.3).
    #[must_use]
    pub fn is_metadata(&self) -> bool {
        self.inner.kind == Kind::Metadata
    }

    /// An authorization response is not the answer to this request, or not this authorization server's: its `state` or
    /// its `iss` is another, or it has no code (RFC 6749, section 4.1.2; RFC 9207). The code in it, if any, is not used.
    /// A refusal of the server is an [`oauth_error`](Self::oauth_error).
    #[must_use]
    pub fn is_authorization(&self) -> bool {
        self.inner.kind == Kind::Authorization
    }

    /// A stored grant could not be read or written.
    #[must_use]
    pub fn is_store(&self) -> bool {
        self.inner.kind == Kind::Store
    }

    /// There is no Tokio runtime to fetch a token in, or it ended or failed while it did.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        self.inner.kind == Kind::Runtime
    }

    /// The token says that it is bound to another key (`cnf.jkt`; RFC 9449, section 6.1), or the grant was made for
    /// another one (`dpop_jkt`, section 10).
    #[must_use]
    pub fn is_other_key(&self) -> bool {
        self.inner.kind == Kind::OtherKey
    }

    /// The token request took longer than it may.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.inner.kind == Kind::Timeout
    }

    /// The authorization server gave a token whose `token_type` is not `DPoP` (RFC 9449, section 5). It
    /// was thrown away: anybody who saw it could use it.
    #[must_use]
    pub fn is_downgrade(&self) -> bool {
        self.inner.kind == Kind::Downgrade
    }

    /// The authorization server's refusal, if that is what happened (RFC 6749, sections 5.2 and 4.1.2.1).
    #[must_use]
    pub fn oauth_error(&self) -> Option<&OAuthError> {
        match &self.inner.kind {
            Kind::Refused(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message);
        if let Some(source) = &self.inner.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner
            .source
            .as_ref()
            .map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// The error answer of an authorization server (RFC 6749, sections 5.2 and 4.1.2.1).
///
/// The texts come from the server: they are cut to 256 bytes, have control characters and non-ASCII
/// replaced, and every secret of the request masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthError {
    pub(crate) status: Option<http::StatusCode>,
    pub(crate) code: String,
    pub(crate) description: Option<String>,
}

impl OAuthError {
    /// The HTTP status of the answer. None of an authorization response, which comes by way of the browser (RFC 6749,
    /// section 4.1.2.1).
    #[must_use]
    pub fn status(&self) -> Option<http::StatusCode> {
        self.status
    }

    /// The `error` code, such as `invalid_client` or `invalid_dpop_proof`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The `error_description`, if there was one.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }
}

/// Whether an error tells that the request was never sent: there was no connection. What is not surely one of
/// these may have left.
pub(crate) fn never_left(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let refused = error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        // hyper-util's client says so of name lookup, TCP and TLS; its type is not known here.
        if refused || error.is::<Error>() || error.to_string() == "client error (Connect)" {
            return true;
        }
        next = error.source();
    }
    false
}
