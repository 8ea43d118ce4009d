//! Device authorization (RFC 8628, section 3.1).

use bytes::Bytes;
use http::{StatusCode, request::Parts};
use serde_json::json;

use super::super::{
    answer,
    devices::Device,
    issuer::{Answer, Issuer, State, bad},
};

pub(in crate::testing) const PATH: &str = "/device";

/// Where a user would type the code. There is no page: the test answers in the user's place.
const USER_PATH: &str = "/verify";

pub(in crate::testing) fn decide(
    issuer: &Issuer,
    state: &mut State,
    head: &Parts,
    body: &Bytes,
) -> Answer {
    let asked = issuer.client_request(state, head, body, PATH)?;
    let device = Device {
        scope: asked.form.scope().map_err(bad)?.map(str::to_owned),
        resources: asked.form.resources().map_err(bad)?,
        client_id: asked.client_id,
    };
    let devices = &mut state.devices;
    let (code, user_code) = devices.issue(device, issuer.now(), issuer.random());
    let uri = issuer.url(USER_PATH);
    let body = json!({
        "device_code": code,
        "user_code": user_code,
        "verification_uri": uri,
        "verification_uri_complete": format!("{uri}?user_code={user_code}"),
        "expires_in": devices.lifetime.as_secs(),
        "interval": answer::seconds_up(devices.interval),
    });
    Ok(answer::json(StatusCode::OK, body.to_string()))
}
