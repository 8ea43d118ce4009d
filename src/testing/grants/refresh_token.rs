//! RFC 6749, section 6: the next tokens of a grant.

use super::{
    super::{
        answer::Refusal,
        issuer::{Issuer, State, bad, invalid_grant},
    },
    Asked, Issued, access_token,
};

/// A refusal leaves the refresh token as it is, unless the token itself is what is wrong.
pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    let used = asked
        .form
        .need("refresh_token", "`refresh_token` is missing")
        .map_err(bad)?;
    let now = issuer.now();
    let is_bound = issuer.binds_refresh_tokens(state, asked.client_id);
    let bound = is_bound.then_some(asked.thumbprint);
    let family = state
        .refresh_tokens
        .read(used, asked.client_id, bound, now)
        .map_err(invalid_grant)?;
    let scope = asked
        .form
        .scope_within(family.scope.as_deref())
        .map_err(bad)?;
    let resources = asked
        .form
        .resources_within(&family.resources)
        .map_err(bad)?;
    let access_token = access_token(issuer, state, asked, &family, scope.clone(), &resources)?;
    Ok(Issued {
        access_token,
        refresh_token: state.refresh_tokens.spend(used, now, issuer.random()),
        scope,
        kind: None,
    })
}
