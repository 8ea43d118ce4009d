//! Pushed authorization requests (RFC 9126; RFC 9449, section 10.1).

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, request::Parts};
use serde_json::json;

use super::super::{
    answer,
    authorization_request::{self, AuthorizationRequest, PushedRequest},
    issuer::{Answer, Issuer, State, bad, invalid_request},
};

pub(in crate::testing) const PATH: &str = "/par";

/// RFC 9126, section 2.2 suggests 5 to 600 s.
const LIFE: Duration = Duration::from_secs(60);

pub(in crate::testing) fn decide(
    issuer: &Issuer,
    state: &mut State,
    head: &Parts,
    body: &Bytes,
) -> Answer {
    let asked = issuer.client_request(state, head, body, PATH)?;
    let form = &asked.form;
    if form.get("request_uri").is_some() {
        return Err(invalid_request("`request_uri` has no place here"));
    }
    let to =
        authorization_request::redirect_uri(&state.clients, &asked.client_id, form).map_err(bad)?;
    let mut request = AuthorizationRequest::read(&asked.client_id, to, form).map_err(bad)?;
    if let Some(proof) = &asked.proof {
        let key = proof.thumbprint();
        if request.dpop_jkt.as_ref().is_some_and(|jkt| jkt != key) {
            return Err(invalid_request("`dpop_jkt` is not the proof's key"));
        }
        // A proof is as good as `dpop_jkt`.
        request.dpop_jkt = Some(key.to_owned());
    }
    let uri = format!(
        "urn:ietf:params:oauth:request_uri:{}",
        issuer.random().text()
    );
    let now = issuer.now();
    let end = now.saturating_add(LIFE);
    let pushed = PushedRequest { request, end };
    state.pushed.insert(uri.clone(), pushed, end, now);
    let body = json!({ "request_uri": uri, "expires_in": LIFE.as_secs() });
    Ok(answer::json(StatusCode::CREATED, body.to_string()))
}
