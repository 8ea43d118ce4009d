//! Answers, as the RFCs write them.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use serde_json::json;

use super::shared::Fault;

/// A refusal, and the rule that was broken.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Boxed, since it is three times as large as all else that a check returns.
    pub(super) response: Box<Response<Bytes>>,
    pub(super) reason: &'static str,
}

impl Refusal {
    pub(super) fn empty(status: StatusCode, reason: &'static str) -> Self {
        Self {
            response: Box::new(response(status, Bytes::new())),
            reason,
        }
    }

    /// The error answer of an authorization server (RFC 6749, section 5.2).
    pub(super) fn oauth(status: StatusCode, fault: Fault) -> Self {
        let body = json!({ "error": fault.code, "error_description": fault.reason });
        Self {
            response: Box::new(json(status, body.to_string())),
            reason: fault.reason,
        }
    }

    /// Leaves out a value that no header can carry; ours are all ASCII.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.response.headers_mut().append(name, value);
        }
        self
    }
}

pub(super) fn json(status: StatusCode, body: String) -> Response<Bytes> {
    let mut response = response(status, body.into());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A successful answer of the token endpoint, once its token is bound to no key.
pub(super) fn unbound(response: Response<Bytes>, token_type: &str) -> Response<Bytes> {
    let member = |token_type: &str| format!(r#""token_type":{}"#, json!(token_type));
    response.map(|body| {
        String::from_utf8_lossy(&body)
            .replacen(&member(token_type), &member("Bearer"), 1)
            .into()
    })
}

/// A 401 with the challenge that was ordered.
pub(super) fn challenge(challenge: Option<HeaderValue>) -> Response<Bytes> {
    let mut response = response(StatusCode::UNAUTHORIZED, Bytes::new());
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The `Date` of an answer, by the server's clock; one that the test may have set wrong.
pub(super) fn date(now: Duration) -> HeaderValue {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + now);
    // A date is ASCII, so this default is never taken.
    HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""))
}

/// Whole seconds, rounded up: nothing is to end before it is said to, nor to be asked for too soon.
pub(super) fn seconds_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// No answer of these servers may be kept: they hold tokens and nonces (RFC 6749, 5.1; RFC 9449, 8.2).
pub(super) fn response(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
