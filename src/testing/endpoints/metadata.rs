//! What the server tells about itself (RFC 8414; OpenID Connect Discovery 1.0).

use http::{Method, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{
    super::{
        answer, grants,
        issuer::{Answer, Issuer, State, only},
        token_endpoint,
    },
    authorize, device, introspect, keys, par, revoke,
};
use crate::proof::VERIFIED;

pub(in crate::testing) const OAUTH_PATH: &str = "/.well-known/oauth-authorization-server";
pub(in crate::testing) const OPENID_PATH: &str = "/.well-known/openid-configuration";

pub(in crate::testing) fn decide(issuer: &Issuer, state: &State, head: &Parts) -> Answer {
    only(head, &Method::GET)?;
    Ok(answer::json(StatusCode::OK, document(issuer, state)))
}

/// Written by hand, since a member may be set to any text.
fn document(issuer: &Issuer, state: &State) -> String {
    let mut members: Vec<(String, String)> = truth(issuer, state)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_string()))
        .collect();
    for (name, json) in &state.settings.metadata {
        members.retain(|(known, _)| known != name);
        if let Some(json) = json {
            members.push((name.clone(), json.clone()));
        }
    }
    let members = members
        .iter()
        .map(|(name, json)| format!("{}:{json}", json!(name)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

fn truth(issuer: &Issuer, state: &State) -> Vec<(&'static str, Value)> {
    let url = |path| json!(issuer.url(path));
    let settings = &state.settings;
    let custom = settings.custom_grants.iter().map(String::as_str);
    let grants: Vec<&str> = grants::ALL.into_iter().chain(custom).collect();
    let secrets = [
        "client_secret_basic",
        "client_secret_post",
        "client_secret_jwt",
        "private_key_jwt",
    ];
    let methods = [&["none"], &secrets[..]].concat();
    // Of assertions.
    let by_keys = VERIFIED.iter().map(|algorithm| algorithm.as_str());
    let algorithms: Value = by_keys.chain(["HS256"]).collect();
    vec![
        ("issuer", json!(issuer.name())),
        ("authorization_endpoint", url(authorize::PATH)),
        ("token_endpoint", url(token_endpoint::PATH)),
        ("pushed_authorization_request_endpoint", url(par::PATH)),
        (
            "require_pushed_authorization_requests",
            json!(settings.require_pushed),
        ),
        ("device_authorization_endpoint", url(device::PATH)),
        ("revocation_endpoint", url(revoke::PATH)),
        ("introspection_endpoint", url(introspect::PATH)),
        ("jwks_uri", url(keys::PATH)),
        ("response_types_supported", json!(["code"])),
        ("response_modes_supported", json!(["query"])),
        ("grant_types_supported", json!(grants)),
        ("code_challenge_methods_supported", json!(["S256"])),
        (
            "authorization_response_iss_parameter_supported",
            json!(true),
        ),
        (
            "dpop_signing_alg_values_supported",
            json!(issuer.algorithms()),
        ),
        ("token_endpoint_auth_methods_supported", json!(methods)),
        (
            "token_endpoint_auth_signing_alg_values_supported",
            algorithms.clone(),
        ),
        ("revocation_endpoint_auth_methods_supported", json!(methods)),
        (
            "revocation_endpoint_auth_signing_alg_values_supported",
            algorithms.clone(),
        ),
        (
            "introspection_endpoint_auth_methods_supported",
            json!(secrets),
        ),
        (
            "introspection_endpoint_auth_signing_alg_values_supported",
            algorithms,
        ),
        // OpenID Connect wants these; there are no ID tokens.
        ("subject_types_supported", json!(["public"])),
        ("id_token_signing_alg_values_supported", json!(["ES256"])),
    ]
}
