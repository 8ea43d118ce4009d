//! RFC 8628, section 3.4: what the user of a device approved.

use super::{
    super::{
        answer::Refusal,
        issuer::{Issuer, State, USER, bad},
    },
    Asked, Issued, begin,
};

pub(super) fn issue(
    issuer: &Issuer,
    state: &mut State,
    asked: &Asked<'_>,
) -> Result<Issued, Refusal> {
    let code = asked
        .form
        .need("device_code", "`device_code` is missing")
        .map_err(bad)?;
    let device = state
        .devices
        .poll(code, asked.client_id, issuer.now())
        .map_err(bad)?;
    let resources = asked
        .form
        .resources_within(&device.resources)
        .map_err(bad)?;
    let family = asked.family(USER, device.scope, device.resources);
    let issued = begin(issuer, state, asked, &family, &resources)?;
    state.devices.spend(code);
    Ok(issued)
}
