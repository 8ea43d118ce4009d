//! What the token endpoint gives tokens for: one file for each grant.

use std::sync::Arc;

use http::StatusCode;

use super::{
    TokenFormat,
    answer::Refusal,
    form::Form,
    issuer::{Issuer, State, bad},
    refresh_tokens::Family,
    shared::Fault,
    tokens::Grant,
};

mod authorization_code;
mod client_credentials;
mod device_code;
mod jwt_bearer;
mod refresh_token;
mod token_exchange;

pub(super) const AUTHORIZATION_CODE: &str = "authorization_code";
pub(super) const CLIENT_CREDENTIALS: &str = "client_credentials";
pub(super) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
pub(super) const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(super) const REFRESH_TOKEN: &str = "refresh_token";
pub(super) const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// What every server knows.
pub(super) const ALL: [&str; 6] = [
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    JWT_BEARER,
    REFRESH_TOKEN,
    TOKEN_EXCHANGE,
];

/// A token request whose proof and client are right.
pub(super) struct Asked<'a> {
    pub(super) form: &'a Form,
    pub(super) grant_type: &'a str,
    pub(super) client_id: &'a str,
    /// Of the proof's key.
    pub(super) thumbprint: &'a str,
}

/// What the answer holds.
pub(super) struct Issued {
    pub(super) access_token: String,
    pub(super) refresh_token: Option<String>,
    pub(super) scope: Option<String>,
    /// The `issued_token_type` of a token exchange.
    pub(super) kind: Option<&'static str>,
}

pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    match asked.grant_type {
        AUTHORIZATION_CODE => authorization_code::issue(issuer, state, asked),
        CLIENT_CREDENTIALS => client_credentials::issue(issuer, state, asked),
        DEVICE_CODE => device_code::issue(issuer, state, asked),
        JWT_BEARER => jwt_bearer::issue(issuer, state, asked),
        REFRESH_TOKEN => refresh_token::issue(issuer, state, asked),
        TOKEN_EXCHANGE => token_exchange::issue(issuer, state, asked),
        // It is let through for the client itself, whatever it means.
        other if state.settings.custom_grants.contains(other) => {
            client_credentials::issue(issuer, state, asked)
        }
        _ => Err(bad(Fault {
            code: "unsupported_grant_type",
            reason: "`grant_type` is none that this server knows",
        })),
    }
}

impl Asked<'_> {
    /// A grant to this client and its key.
    fn family(&self, subject: &str, scope: Option<String>, resources: Vec<String>) -> Arc<Family> {
        Arc::new(Family {
            client_id: self.client_id.to_owned(),
            subject: subject.to_owned(),
            scope,
            resources,
            thumbprint: self.thumbprint.to_owned(),
            ..Family::default()
        })
    }
}

/// The first tokens of a grant: all that it allows, and a refresh token if its type brings one.
fn begin(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
    family: &Arc<Family>,
    resources: &[String],
) -> Result<Issued, Refusal> {
    let scope = family.scope.clone();
    let access_token = access_token(issuer, state, asked, family, scope.clone(), resources)?;
    let refreshed = state.settings.refreshed.contains(asked.grant_type);
    let refresh_token = refreshed.then(|| {
        let tokens = &mut state.refresh_tokens;
        tokens.issue(Arc::clone(family), issuer.random())
    });
    Ok(Issued {
        access_token,
        refresh_token,
        scope,
        kind: None,
    })
}

/// It is bound to the key of the proof that it was asked for with.
fn access_token(
    issuer: &Issuer,
    state: &State,
    asked: &Asked<'_>,
    family: &Arc<Family>,
    scope: Option<String>,
    resources: &[String],
) -> Result<String, Refusal> {
    let issued = issuer.now();
    let grant = Grant {
        client_id: family.client_id.clone(),
        subject: family.subject.clone(),
        scope,
        thumbprint: asked.thumbprint.to_owned(),
        family: Arc::clone(family),
        issued,
        expires: issued.saturating_add(state.settings.lifetime),
    };
    let (tokens, random) = (issuer.tokens(), issuer.random());
    let token = match state.settings.format {
        TokenFormat::Opaque => Some(tokens.opaque(grant, random)),
        TokenFormat::Signed => tokens.signed(grant, issuer.name(), resources, random),
    };
    token.ok_or_else(|| {
        Refusal::empty(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the access token could not be signed",
        )
    })
}
