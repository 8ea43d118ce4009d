//! RFC 7523, section 2.1: what somebody whom the server trusts vouches for.

use super::{
    super::{
        answer::Refusal,
        assertion::{Assertion, Use},
        issuer::{Issuer, State, bad, invalid_grant},
        token_endpoint,
    },
    Asked, Issued, begin,
};

pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    let form = asked.form;
    let text = form
        .need("assertion", "`assertion` is missing")
        .map_err(bad)?;
    let scope = form.scope().map_err(bad)?.map(str::to_owned);
    let resources = form.resources().map_err(bad)?;
    let subject = use_up(issuer, state, text).map_err(invalid_grant)?;
    let family = asked.family(&subject, scope, resources);
    begin(issuer, state, asked, &family, &family.resources)
}

/// Whom it vouches for.
fn use_up(issuer: &Issuer, state: &mut State, text: &str) -> Result<String, &'static str> {
    let assertion = Assertion::parse(text)?;
    let by = assertion
        .text("iss")
        .ok_or("the assertion's `iss` is missing")?;
    let trusted = state.trusted.get(by);
    let credential = trusted.ok_or("the assertion's `iss` is nobody whom this server trusts")?;
    assertion.check_type("authorization-grant+jwt")?;
    assertion.check_signature(credential)?;
    let subject = assertion
        .text("sub")
        .ok_or("the assertion's `sub` is missing")?;
    let names = [issuer.name(), &issuer.url(token_endpoint::PATH)];
    if !assertion.is_for(&names, false) {
        return Err("the assertion's `aud` is not this server");
    }
    let now = issuer.now();
    let end = assertion.check_times(now)?;
    if let Some(jti) = assertion.text("jti") {
        let used = &mut state.used_assertions;
        if !used.insert(Use::Grant, by, jti, end, now) {
            return Err("the assertion was used before");
        }
    }
    Ok(subject.to_owned())
}
