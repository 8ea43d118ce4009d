//! The authorization request (RFC 6749, section 4.1.1), and what waits for its answer. Pure.

mod pending;
mod pkce;
mod response;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, sync::Mutex};

use zeroize::Zeroizing;

use self::{
    pending::{is_visible, with_query},
    response::without_query,
};
use super::{
    ServerMetadata,
    form::Form,
    url::{self, Flaw, PlainHttp},
};
use crate::{
    dpop::Prover,
    error::{Error, Kind},
    origin::{is_absolute_uri, printable, scheme},
    random,
    token::check_resource,
};

pub use self::pending::PendingAuthorization;

/// 128 bits, as RFC 6749, section 10.10 asks of what nobody may guess.
const STATE_BYTES: usize = 16;

/// What this crate writes itself, what belongs to the client's authentication, and what would take the place of all
/// (RFC 9101).
const RESERVED: [&str; 13] = [
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "dpop_jkt",
    "redirect_uri",
    "request",
    "request_uri",
    "response_type",
    "state",
];

/// How a server answers so that [`PendingAuthorization::answered`] can read it.
const RESPONSE_MODES: [&str; 2] = ["query", "form_post"];

/// What a user is asked to allow, by the authorization code grant (RFC 6749, section 4.1).
///
/// Added to it are, always: PKCE with S256 (RFC 7636), a random `state`, and the thumbprint of the key as `dpop_jkt`,
/// which binds the code to the key (RFC 9449, section 10).
///
/// ```
/// use tower_dpop::AuthorizationRequest;
///
/// let request = AuthorizationRequest::new("http://127.0.0.1:8123/callback")
///     .scope("openid orders:read")
///     .parameter("prompt", "consent");
/// ```
///
/// Whether the values can be used is checked by [`OAuthClient::authorize`](crate::OAuthClient::authorize) and
/// [`push`](crate::OAuthClient::push).
#[derive(Clone)]
pub struct AuthorizationRequest {
    redirect_uri: String,
    state: Option<Zeroizing<String>>,
    openid_nonce: bool,
    /// `resource` may stand more than once (RFC 8707, section 2).
    parameters: Vec<(String, Zeroizing<String>)>,
}

impl AuthorizationRequest {
    /// A request whose answer goes to `redirect_uri`: one that is registered for the client, absolute and without
    /// fragment (RFC 6749, section 3.1.2).
    ///
    /// # Security
    ///
    /// An https URL; for a program on the user's machine, a listener on loopback
    /// (`http://127.0.0.1:` with a port; RFC 8252, section 7.3) or a scheme of its own (`com.example.app:/callback`).
    #[must_use]
    pub fn new(redirect_uri: impl Into<String>) -> Self {
        Self {
            redirect_uri: redirect_uri.into(),
            state: None,
            openid_nonce: false,
            parameters: Vec::new(),
        }
    }

    /// The scopes asked for, separated by spaces (RFC 6749, section 3.3). The last call counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.parameters.retain(|(name, _)| name != "scope");
        self.parameter("scope", scope)
    }

    /// A resource that the token is for: an absolute URI without fragment (RFC 8707). Call it again for a further one.
    #[must_use]
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.parameter("resource", resource)
    }

    /// A `nonce` of OpenID Connect, random: the ID token repeats it, and the program compares it with
    /// [`PendingAuthorization::nonce`].
    #[must_use]
    pub fn openid_nonce(mut self) -> Self {
        self.openid_nonce = true;
        self
    }

    /// A `state` of one's own in place of a random one. Most programs need none: [`PendingAuthorization::state`] tells
    /// the random one, and what belongs to it is better kept at home.
    ///
    /// # Security
    ///
    /// It is what tells the answer from a forged one: nobody may guess it, and each authorization has another.
    #[must_use]
    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(Zeroizing::new(state.into()));
        self
    }

    /// A further parameter, such as `prompt`, `login_hint` or `authorization_details`.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        // A reserved name is kept as it is, for `check` to refuse.
        let value = Zeroizing::new(value.into());
        self.parameters.push((name.into(), value));
        self
    }

    /// The request for this server, this client and this key.
    pub(super) fn begin(
        self,
        metadata: &ServerMetadata,
        client_id: &str,
        prover: &Prover,
    ) -> Result<PendingAuthorization, Error> {
        self.check(prover.plain_http())?;
        let endpoint = metadata.authorization_endpoint().ok_or_else(|| {
            Error::config(
                "the authorization server has no authorization endpoint: its metadata name no `authorization_endpoint`",
            )
        })?;
        check_url("the authorization endpoint", endpoint, prover.plain_http())?;
        check_pkce(metadata)?;

        let redirect_uri = self.redirect_uri.clone();
        let code_verifier = pkce::verifier()?;
        let thumbprint = prover.key.thumbprint();
        let state = match &self.state {
            Some(state) => state.clone(),
            None => random::base64url::<STATE_BYTES>()?,
        };
        let mut form = Form::new()
            .with("response_type", "code")
            .with("client_id", client_id)
            .with("redirect_uri", redirect_uri.as_str())
            .with("state", state.as_str())
            .with("code_challenge", pkce::challenge(&code_verifier))
            .with("code_challenge_method", pkce::METHOD)
            .with("dpop_jkt", thumbprint);
        if self.openid_nonce {
            form.push("nonce", random::base64url::<STATE_BYTES>()?);
        }
        for (name, value) in self.parameters {
            form.push(name, value);
        }
        check_query(endpoint, &form)?;
        Ok(PendingAuthorization {
            url: with_query(endpoint, &form.pairs().collect::<Vec<_>>()),
            endpoint: endpoint.to_owned(),
            form,
            redirect_uri,
            state,
            issuer: metadata.issuer().map(str::to_owned),
            server: metadata.name().to_owned(),
            iss_expected: metadata.authorization_response_iss_parameter_supported(),
            thumbprint: thumbprint.to_owned(),
            code_verifier: Mutex::new(Some(code_verifier)),
        })
    }

    fn check(&self, plain: PlainHttp) -> Result<(), Error> {
        check_redirect_uri(&self.redirect_uri, plain)?;
        if let Some(state) = &self.state
            && (state.is_empty() || !is_visible(state))
        {
            return Err(Error::config(
                "the `state` is empty, or has other characters than those of printable ASCII (RFC 6749, appendix A.5)",
            ));
        }
        let mut names = BTreeSet::new();
        if self.openid_nonce {
            names.insert("nonce");
        }
        for (name, value) in &self.parameters {
            if name.is_empty() || RESERVED.contains(&name.as_str()) {
                return Err(Error::config(format!(
                    "`{}` is no further parameter of an authorization request: this crate writes it itself, or cannot \
                     go along with it",
                    printable(name)
                )));
            }
            match name.as_str() {
                "resource" => check_resource(value)?,
                "response_mode" if !RESPONSE_MODES.contains(&value.as_str()) => {
                    return Err(Error::config(format!(
                        "the `response_mode` `{}` cannot be read here: leave it out, or take `query` or `form_post`",
                        printable(value)
                    )));
                }
                name if !names.insert(name) => {
                    return Err(Error::config(format!(
                        "`{}` stands twice in the authorization request, which no server has to accept (RFC 6749, \
                         section 3.1)",
                        printable(name)
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl fmt::Debug for AuthorizationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("AuthorizationRequest")
            .field("redirect_uri", &without_query(&self.redirect_uri))
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}

fn check_redirect_uri(redirect_uri: &str, plain: PlainHttp) -> Result<(), Error> {
    let bad = |what: &str| {
        Error::config(format!(
            "the redirect URI `{}` {what}",
            printable(without_query(redirect_uri))
        ))
    };
    if !is_absolute_uri(redirect_uri) {
        return Err(bad(
            "is no absolute URI without fragment (RFC 6749, section 3.1.2)",
        ));
    }
    // An app's own scheme is nobody's to judge.
    if scheme(redirect_uri).is_some_and(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    }) {
        check_url("the redirect URI", redirect_uri, plain)?;
    }
    for (name, _) in form_urlencoded::parse(query(redirect_uri).as_bytes()) {
        if response::NAMES.contains(&&*name) {
            return Err(bad(&format!(
                "has a `{name}` in its query, where the authorization response has one"
            )));
        }
    }
    Ok(())
}

fn check_url(name: &str, url: &str, plain: PlainHttp) -> Result<(), Error> {
    // Behind the `?` may stand a secret.
    let flawed = |flaw: Flaw| flaw.config(name, without_query(url));
    url::endpoint(url, plain).map_err(flawed)?;
    Ok(())
}

fn check_pkce(metadata: &ServerMetadata) -> Result<(), Error> {
    let methods = metadata.code_challenge_methods_supported();
    if methods.is_none_or(|methods| methods.iter().any(|method| method == pkce::METHOD)) {
        return Ok(());
    }
    Err(Error::new(
        Kind::Metadata,
        "the authorization server does not know PKCE with S256, as its `code_challenge_methods_supported` tell (RFC \
         7636): a stolen code could be used, so no authorization is begun",
    ))
}

/// What the endpoint has in its query already would stand there twice.
fn check_query(endpoint: &str, form: &Form) -> Result<(), Error> {
    for (name, _) in form_urlencoded::parse(query(endpoint).as_bytes()) {
        if name == "request_uri" || form.get(&name).is_some() {
            return Err(Error::config(format!(
                "the authorization endpoint's URL has a `{}` already, so that it would stand there twice",
                printable(&name)
            )));
        }
    }
    Ok(())
}

fn query(url: &str) -> &str {
    url.split_once('?').map_or("", |(_, query)| query)
}
