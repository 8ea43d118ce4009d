use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::{
    HeaderValue, Method, Request, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::Full;
use zeroize::Zeroizing;

use crate::{
    error::Error,
    origin::{Target, printable},
};

/// What this crate writes itself; a second one of these would be read by some servers and not by others.
const RESERVED: [&str; 6] = [
    "grant_type",
    "client_id",
    "client_secret",
    "scope",
    "client_assertion",
    "client_assertion_type",
];

/// Parameters whose values are no secrets; an error that names them helps.
const PUBLIC: [&str; 3] = ["scope", "resource", "audience"];

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
    /// `resource` may stand more than once (RFC 8707, section 2).
    parameters: Vec<(String, String)>,
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
            parameters: Vec::new(),
        }
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
            if name == "resource" && !is_resource(value) {
                return Err(Error::config(format!(
                    "the resource `{}` is no absolute URI without fragment (RFC 8707, section 2)",
                    printable(value)
                )));
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

    /// A request to `endpoint`, made anew for every attempt.
    pub(crate) fn build(&self, endpoint: &Uri) -> Request<Full<Bytes>> {
        let mut body = Serializer::new(String::new());
        body.append_pair("grant_type", "client_credentials");
        body.extend_pairs(&self.parameters);
        let mut authorization = None;
        match &self.authentication {
            ClientAuthentication::None => {
                body.append_pair("client_id", &self.client_id);
            }
            ClientAuthentication::SecretPost(secret) => {
                body.append_pair("client_id", &self.client_id);
                body.append_pair("client_secret", secret);
            }
            ClientAuthentication::SecretBasic(secret) => {
                authorization = Some(basic(&self.client_id, secret));
            }
        }
        let mut request = Request::new(Full::new(Bytes::from(body.finish())));
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

    /// What must not show in any error: the client's secret and the values of parameters that nobody here
    /// knows, as they are and as they are sent.
    pub(crate) fn secrets(&self) -> Vec<Zeroizing<String>> {
        let unknown = self
            .parameters
            .iter()
            .filter(|(name, _)| !PUBLIC.contains(&name.as_str()));
        let mut secrets: Vec<_> = unknown
            .map(|(_, value)| Zeroizing::new(value.clone()))
            .collect();
        match &self.authentication {
            ClientAuthentication::None => {}
            ClientAuthentication::SecretPost(secret)
            | ClientAuthentication::SecretBasic(secret) => {
                let pair = Zeroizing::new(credentials(&self.client_id, secret));
                secrets.push(Zeroizing::new(BASE64.encode(pair.as_bytes())));
                secrets.push(secret.clone());
            }
        }
        let encoded = |secret: &Zeroizing<String>| {
            Zeroizing::new(byte_serialize(secret.as_bytes()).collect::<String>())
        };
        let encoded: Vec<_> = secrets.iter().map(encoded).collect();
        secrets.extend(encoded);
        // The longest first: one may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }
}

fn credentials(id: &str, secret: &str) -> String {
    let mut pair: String = byte_serialize(id.as_bytes()).collect();
    pair.push(':');
    pair.extend(byte_serialize(secret.as_bytes()));
    pair
}

fn basic(id: &str, secret: &str) -> HeaderValue {
    let pair = Zeroizing::new(credentials(id, secret));
    let value = format!("Basic {}", BASE64.encode(pair.as_bytes()));
    // Base64 is ASCII, so this default is never taken.
    let mut value = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

/// An absolute URI of any scheme, such as `urn:example:api`.
fn is_resource(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut scheme = scheme.bytes();
    scheme.next().is_some_and(|b| b.is_ascii_alphabetic())
        && scheme.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && !rest.is_empty()
        && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authentication = match &self.authentication {
            ClientAuthentication::None => "none",
            ClientAuthentication::SecretBasic(_) => "client_secret_basic",
            ClientAuthentication::SecretPost(_) => "client_secret_post",
        };
        // Values of further parameters, and the endpoint's query, may be secrets.
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("TokenRequest")
            .field("client_id", &self.client_id)
            .field("client_authentication", &authentication)
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}
