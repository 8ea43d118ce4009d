use std::{fmt, future::Future, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::{
    HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use zeroize::Zeroizing;

use super::{
    TokenParameters,
    extensions::check_resource,
    refresh::{RefreshToken, Store},
};
use crate::{
    error::{BoxError, Error},
    origin::{Target, printable},
};

/// What this crate writes itself; a second one of these would be read by some servers and not by others.
const RESERVED: [&str; 7] = [
    "grant_type",
    "refresh_token",
    "client_id",
    "client_secret",
    "scope",
    "client_assertion",
    "client_assertion_type",
];

/// Parameters whose values are no secrets; an error that names them helps.
const PUBLIC: [&str; 3] = ["scope", "resource", "audience"];

/// A healthy server answers within a second; one that has not after this will not.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A refresh token is sent once. Giving its answer up may cost the grant, so it has more time.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(60);

/// What is outside of these is a mistake of units.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3600);

/// How a token is asked for: the grant, the client and how it shows who it is (RFC 6749).
///
/// ```
/// use tower_dpop::TokenRequest;
///
/// let request = TokenRequest::client_credentials("https://as.example.com/token", "m2m.dpop")
///     .client_secret_post("secret")
///     .scope("api");
/// ```
///
/// Whether the values can be used is checked by [`TokenLayer::new`](crate::TokenLayer::new).
#[derive(Clone)]
pub struct TokenRequest {
    endpoint: String,
    client_id: String,
    authentication: ClientAuthentication,
    grant: Grant,
    retry_lost_refresh: bool,
    store: Option<Arc<Store>>,
    timeout: Duration,
    /// `resource` may stand more than once (RFC 8707, section 2).
    parameters: Vec<(String, String)>,
}

/// What the token is given for.
#[derive(Clone)]
enum Grant {
    ClientCredentials,
    RefreshToken(Zeroizing<String>),
}

/// How the client authenticates: RFC 6749, section 2.3.1, by the names of RFC 7591, section 2.
#[derive(Clone)]
enum ClientAuthentication {
    None,
    SecretBasic(Zeroizing<String>),
    SecretPost(Zeroizing<String>),
}

impl TokenRequest {
    /// The client credentials grant (RFC 6749, section 4.4), without client authentication unless one of
    /// the `client_secret_*` methods adds it.
    #[must_use]
    pub fn client_credentials(
        token_endpoint: impl Into<String>,
        client_id: impl Into<String>,
    ) -> Self {
        Self {
            endpoint: token_endpoint.into(),
            client_id: client_id.into(),
            authentication: ClientAuthentication::None,
            grant: Grant::ClientCredentials,
            retry_lost_refresh: false,
            store: None,
            timeout: TIMEOUT,
            parameters: Vec::new(),
        }
    }

    /// The refresh token grant (RFC 6749, section 6), without client authentication unless one of the
    /// `client_secret_*` methods adds it.
    ///
    /// A refresh token that comes with an answer takes the place of the last one; where none comes, the last
    /// one stays. It is sent once at a time. If an answer is lost on its way, it is not sent again, since it
    /// may have been used up: [`Error::is_grant_uncertain`]. What failed before there was a connection counts
    /// as not sent, as hyper's client tells it. Give the client a timeout for connecting that is shorter than
    /// this request's, or nobody can tell.
    ///
    /// The refresh token of a public client is bound to the key that it was first asked for with (RFC 9449,
    /// section 5): load that key.
    #[must_use]
    pub fn refresh_token(
        token_endpoint: impl Into<String>,
        client_id: impl Into<String>,
        refresh_token: impl Into<String>,
    ) -> Self {
        Self {
            grant: Grant::RefreshToken(Zeroizing::new(refresh_token.into())),
            timeout: REFRESH_TIMEOUT,
            ..Self::client_credentials(token_endpoint, client_id)
        }
    }

    /// `store` gets each new refresh token, to keep it past a restart. It is called, and its future awaited,
    /// before the access token that came along is used: each time for 10 s at the most, which
    /// [`timeout`](Self::timeout) does not count.
    ///
    /// If it fails, it is called twice more, and then again before the next refresh; the access token is used
    /// all the same.
    #[must_use]
    pub fn store_refresh_token<S, F>(mut self, store: S) -> Self
    where
        S: Fn(String) -> F + Send + Sync + 'static,
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.store = Some(Arc::new(move |token| Box::pin(store(token))));
        self
    }

    /// After an answer that was lost, sends the same refresh token once more.
    ///
    /// # Security
    ///
    /// For servers that accept a refresh token again for a while, as FAPI 2.0 (section 5.3.2.1) has them. Others
    /// take it for theft and revoke the grant, with all of its tokens (RFC 9700, section 4.14.2).
    #[must_use]
    pub fn retry_lost_refresh(mut self) -> Self {
        self.retry_lost_refresh = true;
        self
    }

    /// How long a token request may take, with all it needs: waiting for the client to be ready, connecting,
    /// nonce retries, reading the answer. 10 s unless set, 60 s for a refresh token; from 1 ms to 1 h.
    /// A refresh token that is in use for another combination of [`TokenParameters`] is waited for as long
    /// again.
    ///
    /// It has nothing to do with how long a request to the API may take: a caller that gives up does not end
    /// the token request.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Authenticates by the secret in the request's body.
    #[must_use]
    pub fn client_secret_post(mut self, secret: impl Into<String>) -> Self {
        self.authentication = ClientAuthentication::SecretPost(Zeroizing::new(secret.into()));
        self
    }

    /// Authenticates by HTTP Basic; id and secret are form-urlencoded first, as RFC 6749, section 2.3.1
    /// asks.
    #[must_use]
    pub fn client_secret_basic(mut self, secret: impl Into<String>) -> Self {
        self.authentication = ClientAuthentication::SecretBasic(Zeroizing::new(secret.into()));
        self
    }

    /// The scopes asked for, separated by spaces (RFC 6749, section 3.3). The last call counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.parameters.retain(|(name, _)| name != "scope");
        self.parameters.push(("scope".to_owned(), scope.into()));
        self
    }

    /// A resource that the token is for: an absolute URI without fragment (RFC 8707). Call it again for a
    /// further one.
    #[must_use]
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.parameter("resource", resource)
    }

    /// A further parameter of the token request, such as `audience`.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        // A reserved name is kept as it is, for `check` to refuse.
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// The token endpoint, if all values of this request can be used.
    pub(crate) fn check(&self) -> Result<(Uri, Target), Error> {
        let uri: Uri = self
            .endpoint
            .parse()
            .map_err(|_| self.bad_endpoint("is no URL"))?;
        if uri.scheme().is_none() {
            return Err(self.bad_endpoint("has no scheme and host"));
        }
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(Error::config(
                "the token endpoint has user information (the part before `@`): give the client's secret \
                 by `client_secret_basic` or `client_secret_post`",
            ));
        }
        if self.endpoint.contains('#') {
            return Err(self.bad_endpoint("has a fragment, which RFC 6749, section 3.2 forbids"));
        }
        let target = Target::new(&uri, None)
            .map_err(|error| self.bad_endpoint(&format!("cannot be used ({error})")))?;
        if self.client_id.is_empty() {
            return Err(Error::config("the client id is empty"));
        }
        match &self.grant {
            Grant::RefreshToken(token) if token.is_empty() => {
                return Err(Error::config("the refresh token is empty"));
            }
            Grant::ClientCredentials if self.store.is_some() || self.retry_lost_refresh => {
                return Err(Error::config(
                    "`store_refresh_token` and `retry_lost_refresh` are for grants that have a refresh token",
                ));
            }
            _ => {}
        }
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(Error::config(
                "the timeout of token requests is less than a millisecond or more than an hour",
            ));
        }
        let scopes = self
            .parameters
            .iter()
            .filter(|(name, _)| name == "scope")
            .count();
        for (name, value) in &self.parameters {
            let reserved = RESERVED.contains(&name.as_str()) && (name != "scope" || scopes > 1);
            if name.is_empty() || reserved {
                return Err(Error::config(format!(
                    "`{}` is no further parameter of a token request: it has a method of its own",
                    printable(name)
                )));
            }
            if name == "resource" {
                check_resource(value)?;
            }
        }
        Ok((uri, target))
    }

    fn bad_endpoint(&self, what: &str) -> Error {
        // Before an `@` may stand a password, behind a `?` a secret.
        let shown = match self.endpoint.contains('@') {
            true => "…",
            false => self.endpoint.split(['?', '#']).next().unwrap_or_default(),
        };
        Error::config(format!(
            "the token endpoint `{}` {what}: expected something like `https://as.example.com/token`",
            printable(shown)
        ))
    }

    pub(crate) fn time_limit(&self) -> Duration {
        self.timeout
    }

    /// The refresh token to begin with, if that is the grant.
    pub(super) fn refresh(&self) -> Option<RefreshToken> {
        match &self.grant {
            Grant::ClientCredentials => None,
            Grant::RefreshToken(token) => Some(RefreshToken::new(
                token.clone(),
                self.retry_lost_refresh,
                self.store.clone(),
            )),
        }
    }

    /// A request to `endpoint`, made anew for every attempt: with the refresh token of now, if that is the
    /// grant.
    pub(crate) fn build(
        &self,
        endpoint: &Uri,
        parameters: &TokenParameters,
        refresh_token: Option<&str>,
    ) -> Request<Full<Bytes>> {
        let mut pairs: Vec<(&str, &str)> = match refresh_token {
            None => vec![("grant_type", "client_credentials")],
            Some(token) => vec![("grant_type", "refresh_token"), ("refresh_token", token)],
        };
        let own = self.parameters.iter();
        let own = own.filter(|(name, _)| !parameters.replace(name));
        pairs.extend(own.map(|(name, value)| (name.as_str(), value.as_str())));
        pairs.extend(parameters.pairs());
        let mut authorization = None;
        match &self.authentication {
            ClientAuthentication::None => pairs.push(("client_id", &self.client_id)),
            ClientAuthentication::SecretPost(secret) => {
                pairs.push(("client_id", &self.client_id));
                pairs.push(("client_secret", secret));
            }
            ClientAuthentication::SecretBasic(secret) => {
                authorization = Some(basic(&self.client_id, secret));
            }
        }
        let body = Bytes::from_owner(encoded_pairs(&pairs));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        request
    }

    /// What must not show in any error: the client's secret, the refresh token and the values of parameters
    /// that nobody here knows, as they are and as they are sent.
    pub(crate) fn secrets(&self, refresh_token: Option<&str>) -> Vec<Zeroizing<String>> {
        let unknown = self
            .parameters
            .iter()
            .filter(|(name, _)| !PUBLIC.contains(&name.as_str()));
        let mut secrets: Vec<_> = unknown
            .map(|(_, value)| Zeroizing::new(value.clone()))
            .collect();
        secrets.extend(refresh_token.map(|token| Zeroizing::new(token.to_owned())));
        match &self.authentication {
            ClientAuthentication::None => {}
            ClientAuthentication::SecretPost(secret)
            | ClientAuthentication::SecretBasic(secret) => {
                let pair = credentials(&self.client_id, secret);
                secrets.push(Zeroizing::new(BASE64.encode(pair.as_bytes())));
                secrets.push(secret.clone());
            }
        }
        let encoded = |secret: &Zeroizing<String>| encoded(secret);
        let encoded: Vec<_> = secrets.iter().map(encoded).collect();
        secrets.extend(encoded);
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

/// How much longer a text gets in a form, at the most. What has all its room from the start does not grow: a text
/// that grows leaves copies behind.
const FORM_FACTOR: usize = 3;

fn encoded(text: &str) -> Zeroizing<String> {
    let mut form = Zeroizing::new(String::with_capacity(text.len() * FORM_FACTOR));
    form.extend(byte_serialize(text.as_bytes()));
    form
}

fn encoded_pairs(pairs: &[(&str, &str)]) -> Zeroizing<String> {
    let room = |(name, value): &(&str, &str)| (name.len() + value.len()) * FORM_FACTOR + "&=".len();
    let form = String::with_capacity(pairs.iter().map(room).sum());
    Zeroizing::new(Serializer::new(form).extend_pairs(pairs).finish())
}

fn credentials(id: &str, secret: &str) -> Zeroizing<String> {
    let (id, secret) = (encoded(id), encoded(secret));
    Zeroizing::new([id.as_str(), ":", &secret].concat())
}

fn basic(id: &str, secret: &str) -> HeaderValue {
    let base64 = Zeroizing::new(BASE64.encode(credentials(id, secret).as_bytes()));
    let value = Zeroizing::new(["Basic ", &base64].concat());
    // Base64 is ASCII, so this default is never taken.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))
        .unwrap_or(HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authentication = match &self.authentication {
            ClientAuthentication::None => "none",
            ClientAuthentication::SecretBasic(_) => "client_secret_basic",
            ClientAuthentication::SecretPost(_) => "client_secret_post",
        };
        let grant = match &self.grant {
            Grant::ClientCredentials => "client_credentials",
            Grant::RefreshToken(_) => "refresh_token",
        };
        // Values of further parameters, and the endpoint's query, may be secrets.
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("TokenRequest")
            .field("grant_type", &grant)
            .field("client_id", &self.client_id)
            .field("client_authentication", &authentication)
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}
