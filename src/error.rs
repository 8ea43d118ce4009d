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
    /// The token's type is not DPoP.
    Downgrade,
    /// The token says that it is bound to another key.
    OtherKey,
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

    /// No access token could be had: the token request failed, was refused, or its answer was no use. The
    /// request that needed the token was not sent.
    #[must_use]
    pub fn is_token_request(&self) -> bool {
        matches!(
            self.inner.kind,
            Kind::Transport
                | Kind::Timeout
                | Kind::Refused(_)
                | Kind::BadResponse
                | Kind::GrantUncertain
                | Kind::Downgrade
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
            Kind::GrantUncertain | Kind::Downgrade => true,
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

    /// There is no Tokio runtime to fetch a token in, or it ended or failed while it did.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        self.inner.kind == Kind::Runtime
    }

    /// The token says that it is bound to another key (`cnf.jkt`; RFC 9449, section 6.1).
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

    /// The authorization server's refusal, if that is what happened (RFC 6749, section 5.2).
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

/// The error answer of an authorization server (RFC 6749, section 5.2).
///
/// The texts come from the server: they are cut to 256 bytes, have control characters and non-ASCII
/// replaced, and every secret of the request masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthError {
    pub(crate) status: http::StatusCode,
    pub(crate) code: String,
    pub(crate) description: Option<String>,
}

impl OAuthError {
    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> http::StatusCode {
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
