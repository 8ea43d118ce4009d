//! The token endpoint (RFC 6749, section 3.2; RFC 9449, section 5).

use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use serde_json::json;

use super::{
    answer, client_assertion,
    form::Form,
    grants::{self, Asked, Issued},
    issuer::{Answer, Issuer, State, bad},
    settings::{ExpiresIn, Settings},
};
use crate::proof::ValidProof;

pub(super) const PATH: &str = "/token";

pub(super) fn decide(issuer: &Issuer, state: &mut State, head: &Parts, body: &Bytes) -> Answer {
    let form = Form::read(head, body)?;
    let url = issuer.url(PATH);
    let assertion = client_assertion::check(issuer, state, &form, &url);

    // The proof, and with it the nonce, comes before the client and its grant: a nonce challenge must
    // cost nothing but a round trip. A server that takes an authorization code or a refresh token first
    // leaves the client with none to answer the challenge with. Client assertions are the exception: one is
    // used up by now, and a client makes another as easily as another proof.
    let proof = issuer.check_proof(state, head, &form, &url)?;

    let client_id = state
        .clients
        .authenticate(&head.headers, &form, assertion)?;
    let grant_type = form
        .need("grant_type", "`grant_type` is missing")
        .map_err(bad)?;
    let asked = Asked {
        form: &form,
        grant_type,
        client_id: &client_id,
        // No key has this thumbprint, and what is bound to it is bound to none.
        thumbprint: proof.as_ref().map_or("", ValidProof::thumbprint),
    };
    let issued = grants::issue(issuer, state, &asked)?;
    let answer = success(&state.settings, &issued);
    Ok(match proof {
        Some(_) => answer,
        None => answer::unbound(answer, &state.settings.token_type),
    })
}

/// The successful answer (RFC 6749, section 5.1).
fn success(settings: &Settings, issued: &Issued) -> Response<Bytes> {
    // Written by hand, since `expires_in` may be any text.
    let mut body = format!(
        r#"{{"access_token":"{}","token_type":{}"#,
        issued.access_token,
        json!(settings.token_type)
    );
    match &settings.expires_in {
        ExpiresIn::Truth => body += &format!(r#","expires_in":{}"#, settings.lifetime.as_secs()),
        ExpiresIn::Json(text) => body += &format!(r#","expires_in":{text}"#),
        ExpiresIn::LeftOut => {}
    }
    if let Some(kind) = issued.kind {
        body += &format!(r#","issued_token_type":"{kind}""#);
    }
    if let Some(refresh_token) = &issued.refresh_token {
        body += &format!(r#","refresh_token":"{refresh_token}""#);
    }
    if let Some(scope) = &issued.scope {
        body += &format!(r#","scope":{}"#, json!(scope));
    }
    body.push('}');
    answer::json(StatusCode::OK, body)
}
