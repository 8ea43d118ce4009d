//! RFC 6749, section 4.1.3, with PKCE (RFC 7636, section 4.6) and `dpop_jkt` (RFC 9449, section 10).

use std::sync::Arc;

use super::{
    super::{
        answer::Refusal,
        issuer::{Issuer, State, USER, bad, invalid_grant},
    },
    Asked, Issued, begin,
};

/// A refusal leaves the code as it is, unless it was used before.
pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    let need = |name, missing| asked.form.need(name, missing).map_err(bad);
    let text = need("code", "`code` is missing")?;
    let redirect_uri = need("redirect_uri", "`redirect_uri` is missing")?;
    let verifier = need("code_verifier", "`code_verifier` is missing")?;
    let code = state
        .codes
        .read(text, asked.client_id, issuer.now())
        .map_err(invalid_grant)?;
    code.check(redirect_uri, verifier, asked.thumbprint)
        .map_err(invalid_grant)?;
    let request = &code.request;
    let resources = asked
        .form
        .resources_within(&request.resources)
        .map_err(bad)?;
    let family = asked.family(USER, request.scope.clone(), request.resources.clone());
    let issued = begin(issuer, state, asked, &family, &resources)?;
    state.codes.spend(text, Arc::clone(&family));
    Ok(issued)
}
