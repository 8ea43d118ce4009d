//! The key that signs access tokens, as a JWK set (RFC 7517, section 5).

use http::{Method, StatusCode, request::Parts};
use serde_json::json;

use super::super::{
    answer,
    issuer::{Answer, Issuer, only},
};

pub(in crate::testing) const PATH: &str = "/jwks";

pub(in crate::testing) fn decide(issuer: &Issuer, head: &Parts) -> Answer {
    only(head, &Method::GET)?;
    let keys = json!({ "keys": [issuer.tokens().public_jwk()] });
    Ok(answer::json(StatusCode::OK, keys.to_string()))
}
