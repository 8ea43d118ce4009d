//! RFC 6749, section 4.4: the client in its own name.

use super::{
    super::{
        answer::Refusal,
        issuer::{Issuer, State, bad},
    },
    Asked, Issued, begin,
};

pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    let scope = asked.form.scope().map_err(bad)?.map(str::to_owned);
    let resources = asked.form.resources().map_err(bad)?;
    let family = asked.family(asked.client_id, scope, resources);
    begin(issuer, state, asked, &family, &family.resources)
}
