//! Client authentication by assertion: `private_key_jwt` and `client_secret_jwt` (RFC 7523, section 2.2).

use super::{
    assertion::{Assertion, Use},
    form::Form,
    issuer::{Issuer, State},
    token_endpoint,
};

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The client that an assertion authenticates, or why it does not; None if there is no assertion.
///
/// It is good for one request, whatever is answered: also if that is a nonce challenge. Some servers in the
/// field do the same, and a client that sends the same one again must be found out.
pub(super) fn check(
    issuer: &Issuer,
    state: &mut State,
    form: &Form,
    url: &str,
) -> Option<Result<String, &'static str>> {
    let assertion = form.get("client_assertion")?;
    Some(client_of(issuer, state, form, assertion, url))
}

fn client_of(
    issuer: &Issuer,
    state: &mut State,
    form: &Form,
    assertion: &str,
    url: &str,
) -> Result<String, &'static str> {
    if form.get("client_assertion_type") != Some(TYPE) {
        return Err("`client_assertion_type` is not that of a JWT");
    }
    let assertion = Assertion::parse(assertion)?;
    let id = assertion
        .text("sub")
        .ok_or("the assertion's `sub` is missing")?;
    if assertion.text("iss") != Some(id) {
        return Err("the assertion's `iss` is not its `sub`");
    }
    if form.get("client_id").is_some_and(|other| other != id) {
        return Err("`client_id` is another than the assertion's `sub`");
    }
    let credential = state.clients.get(id).ok_or("the client is unknown")?;
    assertion.check_type("client-authentication+jwt")?;
    assertion.check_signature(credential)?;
    // PAR takes all three (RFC 9126, section 2), and what PAR takes the others may.
    let token_endpoint = issuer.url(token_endpoint::PATH);
    let names = [issuer.name(), url, &token_endpoint];
    if !assertion.is_for(&names, state.settings.strict_audience) {
        return Err("the assertion's `aud` is not this server");
    }
    let now = issuer.now();
    let end = assertion.check_times(now)?;
    let jti = assertion
        .text("jti")
        .filter(|jti| !jti.is_empty())
        .ok_or("the assertion's `jti` is missing")?;
    let used = &mut state.used_assertions;
    if !used.insert(Use::Authentication, id, jti, end, now) {
        return Err("the assertion was used before");
    }
    Ok(id.to_owned())
}
