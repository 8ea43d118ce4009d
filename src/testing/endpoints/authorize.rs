//! The authorization endpoint (RFC 6749, section 4.1.1), with a user who answers at once.

use bytes::Bytes;
use http::{Method, Response, StatusCode, header::LOCATION, request::Parts};

use super::super::{
    answer::{self, Refusal},
    authorization_request::{self, AuthorizationRequest},
    form::Form,
    issuer::{Answer, Issuer, State, bad, invalid_request, only},
    shared::Fault,
};

pub(in crate::testing) const PATH: &str = "/authorize";

pub(in crate::testing) fn decide(issuer: &Issuer, state: &mut State, head: &Parts) -> Answer {
    only(head, &Method::GET)?;
    let query = head.uri.query().unwrap_or_default();
    let form =
        Form::parse(query.as_bytes()).ok_or_else(|| invalid_request("a parameter stands twice"))?;
    let client_id = form
        .need("client_id", "`client_id` is missing")
        .map_err(bad)?;
    if state.clients.get(client_id).is_none() {
        return Err(invalid_request("the client is unknown"));
    }
    let request = match form.get("request_uri") {
        Some(uri) => pushed(issuer, state, client_id, uri)?,
        None => plain(issuer, state, client_id, &form)?,
    };
    if state.settings.deny_authorizations {
        let fault = Fault {
            code: "access_denied",
            reason: "the user denies it",
        };
        return Err(refuse(
            issuer,
            &request.redirect_uri,
            request.state.as_deref(),
            fault,
        ));
    }
    let (to, its_state) = (request.redirect_uri.clone(), request.state.clone());
    let code = state.codes.issue(request, issuer.now(), issuer.random());
    Ok(redirect(
        issuer,
        &to,
        its_state.as_deref(),
        &[("code", &code)],
    ))
}

/// What was pushed counts, and nothing else that stands in the URL (RFC 9126, section 4; RFC 9101, section
/// 6.3).
fn pushed(
    issuer: &Issuer,
    state: &mut State,
    client_id: &str,
    uri: &str,
) -> Result<AuthorizationRequest, Refusal> {
    let bad_uri = |reason| {
        bad(Fault {
            code: "invalid_request_uri",
            reason,
        })
    };
    let unknown = "`request_uri` is unknown, or was used before";
    let known = state.pushed.get(uri).ok_or_else(|| bad_uri(unknown))?;
    if known.request.client_id != client_id {
        return Err(bad_uri("`request_uri` is another client's"));
    }
    let pushed = state.pushed.remove(uri).ok_or_else(|| bad_uri(unknown))?;
    if pushed.end <= issuer.now() {
        return Err(bad_uri("`request_uri` expired"));
    }
    Ok(pushed.request)
}

fn plain(
    issuer: &Issuer,
    state: &State,
    client_id: &str,
    form: &Form,
) -> Result<AuthorizationRequest, Refusal> {
    let to = authorization_request::redirect_uri(&state.clients, client_id, form).map_err(bad)?;
    let its_state = form.get("state");
    if state.settings.require_pushed {
        let fault = authorization_request::invalid_request("the request was not pushed");
        return Err(refuse(issuer, &to, its_state, fault));
    }
    AuthorizationRequest::read(client_id, to.clone(), form)
        .map_err(|fault| refuse(issuer, &to, its_state, fault))
}

/// The error answer (RFC 6749, section 4.1.2.1).
fn refuse(issuer: &Issuer, to: &str, state: Option<&str>, fault: Fault) -> Refusal {
    let error = [("error", fault.code), ("error_description", fault.reason)];
    Refusal {
        response: Box::new(redirect(issuer, to, state, &error)),
        reason: fault.reason,
    }
}

/// With `iss`, in an error as well (RFC 9207, section 2). By 303, as RFC 9700, section 4.12 asks.
fn redirect(
    issuer: &Issuer,
    to: &str,
    state: Option<&str>,
    parameters: &[(&str, &str)],
) -> Response<Bytes> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .extend_pairs(state.map(|state| ("state", state)))
        .append_pair("iss", issuer.name())
        .finish();
    let joint = if to.contains('?') { '&' } else { '?' };
    let mut response = answer::response(StatusCode::SEE_OTHER, Bytes::new());
    // A URI that is no header value was registered by nobody but the test.
    if let Ok(location) = format!("{to}{joint}{query}").try_into() {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}
