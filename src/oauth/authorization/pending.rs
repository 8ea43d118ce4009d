//! An authorization that waits for the user.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use form_urlencoded::byte_serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    super::{
        answer::clean,
        form::{Form, all_forms},
    },
    response::{self, Parameters, refuse, without_query},
};
use crate::{
    error::{Error, Kind, OAuthError},
    origin::printable,
    token::Grant,
};

/// How much longer a text gets in a URL, at the most.
const URL_FACTOR: usize = 3;

/// An authorization that has begun: the user is to open [`url`](Self::url), and the server sends the browser on to the
/// redirect URI, with an answer for [`answered`](Self::answered).
///
/// From [`OAuthClient::authorize`](crate::OAuthClient::authorize) or [`push`](crate::OAuthClient::push). It is good for
/// one code, and for the key that it was begun with. A program that has many at the same time finds the right one by
/// its [`state`](Self::state).
///
/// ```
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use tower_dpop::{
///     AuthorizationRequest, DpopKey, DpopLayer, OAuthClient, Registration, ServerMetadata, TokenRequest,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_dpop::BoxError> {
/// # let http = service_fn(|_: Request<Full<Bytes>>| async {
/// #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
/// # });
/// let server = ServerMetadata::new("https://as.example.com")
///     .with_authorization_endpoint("https://as.example.com/authorize")
///     .with_token_endpoint("https://as.example.com/token");
/// let registration = Registration::new(server, "my-app");
/// let dpop = DpopLayer::new(DpopKey::generate()?);
/// let client = OAuthClient::new(&dpop, http, registration.clone())?;
///
/// let request = AuthorizationRequest::new("http://127.0.0.1:8123/callback").scope("orders:read");
/// let pending = client.authorize(request).await?;
/// println!("Open in your browser: {}", pending.url());
///
/// // The first line of the request that comes to the redirect URI has it.
/// # let answer = format!("/callback?code=1&state={}", pending.state());
/// let grant = pending.answered(&answer)?;
/// let request = TokenRequest::new(registration, grant);
/// # Ok(())
/// # }
/// ```
pub struct PendingAuthorization {
    pub(super) url: Zeroizing<String>,
    pub(super) endpoint: String,
    /// The whole request, as it is pushed.
    pub(super) form: Form,
    pub(super) redirect_uri: String,
    pub(super) state: Zeroizing<String>,
    pub(super) issuer: Option<String>,
    /// What the server is called, if by nothing else.
    pub(super) server: String,
    /// The server said that its responses have an `iss` (RFC 9207, section 3).
    pub(super) iss_expected: bool,
    pub(super) thumbprint: String,
    /// Taken by the response that has the code: there is no second one.
    pub(super) code_verifier: Mutex<Option<Zeroizing<String>>>,
}

impl PendingAuthorization {
    /// What the user's browser is to open: the authorization endpoint with the request as its query; or with a
    /// reference to it, if it was pushed (RFC 9126, section 4).
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The `state` of the request, which comes back in the answer (RFC 6749, section 4.1.1).
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The `nonce` of the request, if it has one: what an ID token has to repeat (OpenID Connect Core 1.0, section
    /// 3.1.3.7). Has nothing to do with the nonces of proofs.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.form.get("nonce")
    }

    /// Reads the answer: the URL that the browser was sent to, its path and query, or its query alone (which is also
    /// what `response_mode=form_post` sends as a form).
    ///
    /// Of a URL the scheme, host, port and path have to be those of the redirect URI, of a path that. What comes to a
    /// listener on loopback can be anything, a browser's question for `/favicon.ico` or another program's forgery:
    /// whatever is refused here changes nothing, and the right answer may still come. The code is given out once.
    ///
    /// # Errors
    ///
    /// [`Error::is_authorization`] if it is not the answer to this request, or has no code: another path, no `state` or
    /// another, an `iss` that is not the server's issuer (RFC 9207), none although the server's metadata promise one, a
    /// parameter that stands twice, an encrypted or signed response (JARM); or if the code was given out before.
    /// [`Error::oauth_error`] if it is the server's refusal, such as `access_denied`: it is believed only with the
    /// right `state` and `iss`.
    ///
    /// # Security
    ///
    /// Servers exist whose answers have no `iss`, and whose metadata promise none. A program that uses several servers
    /// gives each of those a redirect URI of its own: else one of them may get the code of another (RFC 9700, section
    /// 4.4).
    pub fn answered(&self, redirect: &str) -> Result<Grant, Error> {
        let mut response = response::read(redirect, &self.redirect_uri)?;
        self.check_ours(&response)?;
        if let Some(error) = given(&response, "error") {
            return Err(self.refused(error, &response));
        }
        let code = response.remove("code").unwrap_or_default();
        // RFC 6749, appendix A.11.
        if code.is_empty() || !is_visible(&code) {
            return Err(refuse(
                "the authorization response has neither a code nor an error (RFC 6749, section 4.1.2)",
            ));
        }
        let verifier = self.code_verifier.lock();
        let verifier = verifier.unwrap_or_else(PoisonError::into_inner).take();
        let code_verifier = verifier.ok_or_else(|| {
            refuse("this authorization was answered before, and its code given out: it is good for one")
        })?;
        let grant = Grant::authorization_code(&*code, &self.redirect_uri, &*code_verifier);
        let scope = self.form.get("scope");
        let grant = grant.bound_to(&self.thumbprint).for_scope(scope);
        // One server's code is no other's to see, nor its verifier.
        let client_id = self.form.get("client_id").unwrap_or_default();
        Ok(match self.server.as_str() {
            "" => grant,
            server => grant.of(server, client_id),
        })
    }

    /// Before anything else in a response is believed.
    fn check_ours(&self, response: &Parameters) -> Result<(), Error> {
        if response.contains_key("response") {
            return Err(refuse(
                "the authorization response is a JWT (`response`, JARM), which is not read here: the server is to take \
                 `response_mode=query`",
            ));
        }
        let state = response.get("state").ok_or_else(|| {
            refuse("the authorization response has no `state`, so it may be the answer to anything: it was not used")
        })?;
        if !same(state, &self.state) {
            return Err(refuse(
                "the `state` of the authorization response is another one: it is the answer to another request, or \
                 forged, and was not used",
            ));
        }
        match (response.get("iss"), &self.issuer) {
            (Some(iss), Some(issuer)) if **iss != *issuer => Err(refuse(format!(
                "the authorization response is of `{}`, not of `{}`: it was not used, since another server may be \
                 after the code (RFC 9207, section 2.4)",
                clean(iss, &self.secrets(response)),
                printable(issuer),
            ))),
            (Some(iss), None) => Err(refuse(format!(
                "the authorization response says that it is of `{}`, and the server's issuer is not configured to \
                 compare it with: if it is the right one, begin with `ServerMetadata::new` of it, or with `Discovery`",
                clean(iss, &self.secrets(response)),
            ))),
            (None, _) if self.iss_expected => Err(refuse(
                "the authorization response has no `iss`, which the server's metadata promise: it was not used, since \
                 another server may be after the code (RFC 9207, section 2.4)",
            )),
            _ => Ok(()),
        }
    }

    fn refused(&self, code: &str, response: &Parameters) -> Error {
        let secrets = self.secrets(response);
        let error = OAuthError {
            status: None,
            code: clean(code, &secrets),
            description: given(response, "error_description").map(|text| clean(text, &secrets)),
        };
        let mut message = format!(
            "the authorization server refused the authorization: {}",
            error.code
        );
        if let Some(description) = &error.description {
            message.push_str(&format!(" ({description})"));
        }
        Error::new(Kind::Refused(error), message)
    }

    /// What a server might repeat in its texts, and must not show.
    fn secrets(&self, response: &Parameters) -> Vec<Zeroizing<String>> {
        let code = response.get("code").cloned();
        all_forms(self.form.secrets().chain(code))
    }

    /// What is pushed to the server (RFC 9126, section 2.1).
    pub(in crate::oauth) fn pushed_form(&self) -> Form {
        self.form.clone()
    }

    /// The request was pushed, and the server knows it as `request_uri`.
    pub(in crate::oauth) fn was_pushed(&mut self, client_id: &str, request_uri: &str) {
        let pairs = [("client_id", client_id), ("request_uri", request_uri)];
        self.url = with_query(&self.endpoint, &pairs);
    }
}

impl fmt::Debug for PendingAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAuthorization")
            .field("redirect_uri", &without_query(&self.redirect_uri))
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// A parameter without a value counts as left out (RFC 6749, section 3.1).
fn given<'a>(response: &'a Parameters, name: &str) -> Option<&'a str> {
    let value = response.get(name)?;
    (!value.is_empty()).then_some(value)
}

/// Compared by their hashes: how long that takes tells nothing of a text that somebody might guess piece by piece.
fn same(one: &str, other: &str) -> bool {
    Sha256::digest(one) == Sha256::digest(other)
}

/// The VSCHAR of RFC 6749, appendix A.
pub(super) fn is_visible(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

/// Adds to the query that an endpoint may have (RFC 6749, section 3.1).
pub(super) fn with_query(endpoint: &str, pairs: &[(&str, &str)]) -> Zeroizing<String> {
    let room = |(name, value): &(&str, &str)| (name.len() + value.len()) * URL_FACTOR + "&=".len();
    let room: usize = pairs.iter().map(room).sum();
    let mut url = Zeroizing::new(String::with_capacity(endpoint.len() + room));
    url.push_str(endpoint);
    let mut separator = match endpoint.split_once('?') {
        None => "?",
        Some((_, query)) if query.is_empty() || query.ends_with('&') => "",
        Some(_) => "&",
    };
    for (name, value) in pairs {
        url.push_str(separator);
        push_encoded(&mut url, name);
        url.push('=');
        push_encoded(&mut url, value);
        separator = "&";
    }
    url
}

/// As in a form, but for spaces: `%20` means one to every reader, and `+` to those of forms only.
fn push_encoded(url: &mut String, text: &str) {
    for part in byte_serialize(text.as_bytes()) {
        url.push_str(if part == "+" { "%20" } else { part });
    }
}
