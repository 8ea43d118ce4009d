use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    error::Error,
    origin::{is_absolute_uri, printable},
};

/// In a request's extensions: what its token is to be asked for, in place of what the
/// [`TokenRequest`](crate::TokenRequest) says. Each combination has a token of its own.
///
/// What is not set stays as the [`TokenRequest`](crate::TokenRequest) has it. At most 64 combinations are kept
/// beside the layer's own; the idle one that was not used for the longest time goes first, and all that is known
/// of it, its back-off included. So many that are in use at the same time are no longer shared: let no stranger
/// choose them.
///
/// ```
/// use http::Request;
/// use tower_dpop::TokenParameters;
///
/// let request = Request::get("https://api.example.com/orders")
///     .extension(TokenParameters::new().scope("orders:read"))
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TokenParameters(Arc<Parameters>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Parameters {
    scope: Option<String>,
    resources: Vec<String>,
    audiences: Vec<String>,
}

impl TokenParameters {
    /// Nothing else than the [`TokenRequest`](crate::TokenRequest) asks for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The scopes, separated by spaces (RFC 6749, section 3.3). The last call counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).scope = Some(scope.into());
        self
    }

    /// A resource that the token is for: an absolute URI without fragment (RFC 8707). Call it again for a
    /// further one.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).resources.push(resource.into());
        self
    }

    /// A logical name of who the token is for (RFC 8693, section 2.1, and many servers' own `audience`). Call
    /// it again for a further one. Where the token may be sent is not changed by it: that is the layer's
    /// [`Audience`](crate::Audience).
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).audiences.push(audience.into());
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        *self.0 == Parameters::default()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut resources = self.0.resources.iter();
        resources.try_for_each(|resource| check_resource(resource))
    }

    /// Whether a parameter of the token request is replaced by these.
    pub(super) fn replace(&self, name: &str) -> bool {
        match name {
            "scope" => self.0.scope.is_some(),
            "resource" => !self.0.resources.is_empty(),
            "audience" => !self.0.audiences.is_empty(),
            _ => false,
        }
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let scope = self.0.scope.iter().map(|scope| ("scope", &**scope));
        let resources = self.0.resources.iter();
        let audiences = self.0.audiences.iter();
        scope
            .chain(resources.map(|resource| ("resource", &**resource)))
            .chain(audiences.map(|audience| ("audience", &**audience)))
    }
}

/// An absolute URI of any scheme, such as `urn:example:api` (RFC 8707, section 2).
pub(crate) fn check_resource(text: &str) -> Result<(), Error> {
    if is_absolute_uri(text) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the resource `{}` is no absolute URI without fragment (RFC 8707, section 2)",
        printable(text)
    )))
}

/// In a request's extensions: its token must have been asked for after this was made.
///
/// For a program that knows why: rights were granted a moment ago, say, which only a new token has. One
/// token request serves all that insist at the same time, and whoever sends the same request again does not
/// insist anew. If no new token can be had, the request fails, even if the old one would do; it goes on
/// serving the others.
///
/// ```
/// use http::Request;
/// use tower_dpop::ForceRenewal;
///
/// let request = Request::get("https://api.example.com/orders")
///     .extension(ForceRenewal::now())
///     .body(())?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct ForceRenewal(Instant);

impl ForceRenewal {
    /// Tokens that were asked for before now are not good enough.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    pub(super) fn since(self) -> Instant {
        self.0
    }
}
