//! Introspection (RFC 7662; RFC 9449, section 6.2).

use bytes::Bytes;
use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::super::{
    answer,
    client::invalid_client,
    issuer::{Answer, Issuer, State, bad},
};

pub(in crate::testing) const PATH: &str = "/introspect";

/// Any client may ask about any token, as resource servers do: but not a public one, which could be anybody
/// who looks for tokens that are good (RFC 7662, section 2.1).
pub(in crate::testing) fn decide(
    issuer: &Issuer,
    state: &mut State,
    head: &Parts,
    body: &Bytes,
) -> Answer {
    let asked = issuer.client_request(state, head, body, PATH)?;
    if state.clients.is_public(&asked.client_id) {
        return Err(invalid_client("a public client may not introspect"));
    }
    let token = asked.form.need("token", "`token` is missing");
    let told = tell(issuer, state, token.map_err(bad)?);
    Ok(answer::json(StatusCode::OK, told.to_string()))
}

fn tell(issuer: &Issuer, state: &State, token: &str) -> Value {
    let now = issuer.now();
    let mut told = if let Ok(grant) = issuer.tokens().read(token, now) {
        let bound = grant.is_bound();
        json!({
            "active": true,
            "client_id": grant.client_id,
            "sub": grant.subject,
            "scope": grant.scope,
            "token_type": if bound { "DPoP" } else { "Bearer" },
            "iat": grant.issued.as_secs(),
            "exp": answer::seconds_up(grant.expires),
            "cnf": bound.then(|| json!({ "jkt": grant.thumbprint })),
        })
    } else if let Some(family) = state.refresh_tokens.find(token, now) {
        let bound = issuer.binds_refresh_tokens(state, &family.client_id);
        json!({
            "active": true,
            "client_id": family.client_id,
            "sub": family.subject,
            "scope": family.scope,
            "cnf": bound.then(|| json!({ "jkt": family.thumbprint })),
        })
    } else {
        json!({ "active": false })
    };
    if let Value::Object(members) = &mut told {
        members.retain(|_, value| !value.is_null());
    }
    told
}
