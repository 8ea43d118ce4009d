//! Revocation (RFC 7009).

use bytes::Bytes;
use http::{StatusCode, request::Parts};

use super::super::{
    answer::{self, Refusal},
    issuer::{Answer, ClientRequest, Issuer, State, bad, invalid_grant},
};

pub(in crate::testing) const PATH: &str = "/revoke";

pub(in crate::testing) fn decide(
    issuer: &Issuer,
    state: &mut State,
    head: &Parts,
    body: &Bytes,
) -> Answer {
    let asked = issuer.client_request(state, head, body, PATH)?;
    let token = asked.form.need("token", "`token` is missing");
    let token = token.map_err(bad)?;
    // `token_type_hint` would only say where to look first.
    if let Ok(grant) = issuer.tokens().read(token, issuer.now()) {
        check_owner(&asked, &grant.client_id)?;
        issuer.tokens().revoke(token);
    } else if let Some(family) = state.refresh_tokens.family(token) {
        check_owner(&asked, &family.client_id)?;
        family.end();
    }
    // A token that is unknown is as good as revoked (section 2.2).
    Ok(answer::response(StatusCode::OK, Bytes::new()))
}

fn check_owner(asked: &ClientRequest, owner: &str) -> Result<(), Refusal> {
    if asked.client_id == owner {
        Ok(())
    } else {
        Err(invalid_grant("the token is another client's"))
    }
}
