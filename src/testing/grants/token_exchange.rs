//! RFC 8693: one token for another.

use super::{
    super::{
        TokenFormat,
        answer::Refusal,
        issuer::{Issuer, State, USER, bad, invalid_request},
    },
    Asked, Issued, begin,
};

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    let form = asked.form;
    let need = |name, missing| form.need(name, missing).map_err(bad);
    let token = need("subject_token", "`subject_token` is missing")?;
    let kind = need("subject_token_type", "`subject_token_type` is missing")?;
    let subject = read(issuer, state, token, kind)?;
    match (form.get("actor_token"), form.get("actor_token_type")) {
        (None, None) => {}
        (Some(token), Some(kind)) => drop(read(issuer, state, token, kind)?),
        _ => {
            return Err(invalid_request(
                "of `actor_token` and `actor_token_type` one is missing",
            ));
        }
    }
    let signed = state.settings.format == TokenFormat::Signed;
    let kind = match form.get("requested_token_type") {
        None | Some(ACCESS_TOKEN) => ACCESS_TOKEN,
        Some(JWT) if signed => JWT,
        Some(_) => {
            return Err(invalid_request(
                "`requested_token_type` is none that this server issues",
            ));
        }
    };
    let scope = form.scope().map_err(bad)?.map(str::to_owned);
    let mut targets = form.resources().map_err(bad)?;
    targets.extend(form.all("audience").map(str::to_owned));
    let family = asked.family(&subject.name, scope.or(subject.scope), targets);
    let issued = begin(issuer, state, asked, &family, &family.resources)?;
    Ok(Issued {
        kind: Some(kind),
        ..issued
    })
}

struct Subject {
    name: String,
    scope: Option<String>,
}

/// Whom a token stands for. That it is bound to a key is no matter here: whoever exchanges it is as a rule not
/// the one that it was given to.
fn read(issuer: &Issuer, state: &State, token: &str, kind: &str) -> Result<Subject, Refusal> {
    if state.subject_tokens.contains(token) {
        return Ok(Subject {
            name: USER.to_owned(),
            scope: None,
        });
    }
    let is_jwt = token.contains('.');
    if kind != ACCESS_TOKEN && !(kind == JWT && is_jwt) {
        return Err(invalid_request(
            "the token is not of the type that is named",
        ));
    }
    let grant = issuer.tokens().read(token, issuer.now());
    let grant = grant.map_err(invalid_request)?;
    Ok(Subject {
        name: grant.subject,
        scope: grant.scope,
    })
}
