//! The token endpoint (RFC 6749, section 3.2; RFC 9449, section 5).

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
    request::Parts,
};
use serde_json::json;

use super::{
    TokenFormat,
    answer::{self, Refusal},
    client::{Clients, Form, authenticate, invalid_request, is_public},
    refresh_tokens::RefreshTokens,
    server::Endpoint,
    shared::{Fault, Shared, lock},
    tokens::{Grant, Tokens},
};

const PATH: &str = "/token";

/// Short, as RFC 9700 asks, and longer than any test runs.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

pub(super) struct TokenEndpoint {
    shared: Shared,
    tokens: Arc<Tokens>,
    refresh_tokens: Mutex<RefreshTokens>,
    settings: Mutex<Settings>,
}

pub(super) struct Settings {
    clients: Clients,
    pub(super) lifetime: Duration,
    pub(super) format: TokenFormat,
    pub(super) token_type: String,
    pub(super) expires_in: ExpiresIn,
}

/// What an answer says about a token's life.
pub(super) enum ExpiresIn {
    Truth,
    Json(String),
    LeftOut,
}

impl TokenEndpoint {
    pub(super) fn new(shared: Shared, tokens: Arc<Tokens>) -> Self {
        let settings = Settings {
            clients: Clients::new(),
            lifetime: DEFAULT_LIFETIME,
            format: TokenFormat::default(),
            token_type: "DPoP".to_owned(),
            expires_in: ExpiresIn::Truth,
        };
        Self {
            shared,
            tokens,
            refresh_tokens: Mutex::new(RefreshTokens::new()),
            settings: Mutex::new(settings),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("{}{PATH}", self.shared.origin())
    }

    pub(super) fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    pub(super) fn refresh_tokens(&self) -> MutexGuard<'_, RefreshTokens> {
        lock(&self.refresh_tokens)
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        lock(&self.settings)
    }

    pub(super) fn add_client(&self, id: String, secret: Option<String>) {
        self.settings().clients.insert(id, secret);
    }

    fn client_credentials(
        &self,
        settings: &Settings,
        client_id: String,
        thumbprint: &str,
        form: &Form,
    ) -> Answer {
        let scope = scope(form)?.map(str::to_owned);
        let resources = resources(form)?;
        let issued = self.shared.now();
        let grant = Grant {
            client_id,
            scope: scope.clone(),
            thumbprint: thumbprint.to_owned(),
            family: None,
            issued,
            expires: issued.saturating_add(settings.lifetime),
        };
        let token = self.access_token(settings, grant, &resources)?;
        Ok(success(settings, &token, None, scope.as_deref()))
    }

    /// A refusal leaves the refresh token as it is, unless the token itself is what is wrong.
    fn refresh(
        &self,
        settings: &Settings,
        client_id: String,
        thumbprint: &str,
        form: &Form,
    ) -> Answer {
        let refresh_token = form
            .get("refresh_token")
            .ok_or_else(|| invalid_request("`refresh_token` is missing"))?;
        let issued = self.shared.now();
        // A client with a secret is bound to its tokens by that, and may change the key (RFC 9449, section 5).
        let bound = is_public(&settings.clients, &client_id).then_some(thumbprint);
        let mut refresh_tokens = self.refresh_tokens();
        let family = refresh_tokens
            .read(refresh_token, &client_id, bound, issued)
            .map_err(|reason| {
                bad(Fault {
                    code: "invalid_grant",
                    reason,
                })
            })?;
        let granted = family.scope.as_deref();
        let scope = match scope(form)? {
            None => granted,
            Some(asked) if is_within(asked, granted.unwrap_or_default()) => Some(asked),
            Some(_) => {
                return Err(bad(Fault {
                    code: "invalid_scope",
                    reason: "`scope` is more than was granted",
                }));
            }
        };
        let resources = resources(form)?;
        let grant = Grant {
            client_id,
            scope: scope.map(str::to_owned),
            thumbprint: thumbprint.to_owned(),
            family: Some(Arc::downgrade(&family)),
            issued,
            expires: issued.saturating_add(settings.lifetime),
        };
        let token = self.access_token(settings, grant, &resources)?;
        let next = refresh_tokens.spend(refresh_token, issued, self.shared.random());
        Ok(success(settings, &token, next.as_deref(), scope))
    }

    fn access_token(
        &self,
        settings: &Settings,
        grant: Grant,
        resources: &[String],
    ) -> Result<String, Refusal> {
        let random = self.shared.random();
        let token = match settings.format {
            TokenFormat::Opaque => Some(self.tokens.opaque(grant, random)),
            TokenFormat::Signed => {
                self.tokens
                    .signed(grant, self.shared.origin(), resources, random)
            }
        };
        token.ok_or_else(|| {
            Refusal::empty(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the access token could not be signed",
            )
        })
    }
}

type Answer = Result<Response<Bytes>, Refusal>;

impl Endpoint for TokenEndpoint {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn decide(&self, head: &Parts, body: &Bytes) -> Answer {
        if head.uri.path() != PATH {
            return Err(Refusal::empty(
                StatusCode::NOT_FOUND,
                "there is nothing but a token endpoint",
            ));
        }
        if head.method != Method::POST {
            let refusal = Refusal::empty(StatusCode::METHOD_NOT_ALLOWED, "the method is not POST");
            return Err(refusal.header(ALLOW, "POST"));
        }
        if !is_form(head) {
            return Err(invalid_request(
                "the body is not application/x-www-form-urlencoded",
            ));
        }
        if in_query(head, "client_secret") || in_query(head, "client_assertion") {
            return Err(invalid_request("the client's secret is in the URL"));
        }
        let form = Form::parse(body).ok_or_else(|| invalid_request("a parameter stands twice"))?;

        // The proof, and with it the nonce, comes before the client and its grant: a nonce challenge must
        // cost nothing but a round trip. A server that takes a client assertion, an authorization code or a
        // refresh token first leaves the client with none to answer the challenge with.
        let proof = self
            .shared
            .check_proof(head, &self.url(), None)
            .map_err(bad)?;

        let settings = self.settings();
        let client_id = authenticate(&settings.clients, &head.headers, &form)?;
        let thumbprint = proof.thumbprint();
        match form.get("grant_type") {
            Some("client_credentials") => {
                self.client_credentials(&settings, client_id, thumbprint, &form)
            }
            Some("refresh_token") => self.refresh(&settings, client_id, thumbprint, &form),
            Some(_) => Err(bad(Fault {
                code: "unsupported_grant_type",
                reason: "`grant_type` is neither client_credentials nor refresh_token",
            })),
            None => Err(invalid_request("`grant_type` is missing")),
        }
    }
}

/// The successful answer (RFC 6749, section 5.1).
fn success(
    settings: &Settings,
    access_token: &str,
    refresh_token: Option<&str>,
    scope: Option<&str>,
) -> Response<Bytes> {
    // Written by hand, since `expires_in` may be any text.
    let mut body = format!(
        r#"{{"access_token":"{access_token}","token_type":{}"#,
        json!(settings.token_type)
    );
    match &settings.expires_in {
        ExpiresIn::Truth => body += &format!(r#","expires_in":{}"#, settings.lifetime.as_secs()),
        ExpiresIn::Json(text) => body += &format!(r#","expires_in":{text}"#),
        ExpiresIn::LeftOut => {}
    }
    if let Some(refresh_token) = refresh_token {
        body += &format!(r#","refresh_token":"{refresh_token}""#);
    }
    if let Some(scope) = scope {
        body += &format!(r#","scope":{}"#, json!(scope));
    }
    body.push('}');
    answer::json(StatusCode::OK, body)
}

fn bad(fault: Fault) -> Refusal {
    Refusal::oauth(StatusCode::BAD_REQUEST, fault)
}

fn is_form(head: &Parts) -> bool {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    essence
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn in_query(head: &Parts, name: &str) -> bool {
    let query = head.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(known, _)| known == name)
}

/// The scope that is asked for.
fn scope(form: &Form) -> Result<Option<&str>, Refusal> {
    let scope = form.get("scope");
    if scope.is_some_and(|scope| !is_scope(scope)) {
        return Err(bad(Fault {
            code: "invalid_scope",
            reason: "`scope` is no list of scopes",
        }));
    }
    Ok(scope)
}

/// What the token is asked for (RFC 8707).
fn resources(form: &Form) -> Result<Vec<String>, Refusal> {
    let resources: Vec<String> = form.all("resource").map(str::to_owned).collect();
    if !resources.iter().all(|resource| is_resource(resource)) {
        return Err(bad(Fault {
            code: "invalid_target",
            reason: "`resource` is no absolute URI without fragment",
        }));
    }
    Ok(resources)
}

/// Whether a scope asks for nothing beyond another.
fn is_within(asked: &str, granted: &str) -> bool {
    asked
        .split(' ')
        .all(|one| granted.split(' ').any(|known| known == one))
}

/// RFC 6749, section 3.3.
fn is_scope(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    text.split(' ').all(is_token)
}

/// RFC 8707, section 2.
fn is_resource(text: &str) -> bool {
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme)
        .unwrap_or_default();
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(['#', ' '])
}
