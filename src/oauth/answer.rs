//! Reading what an authorization server answers, whatever it was asked (RFC 6749, section 5.2). Pure.

use std::time::Duration;

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use zeroize::Zeroizing;

use super::endpoints::Endpoint;
use crate::{
    error::{Error, Kind, OAuthError},
    json::{Members, text},
};

/// Why there is nothing to go on with, and how long the server wants to be left alone.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    /// Whether it is a refusal with this code.
    pub(crate) fn is(&self, code: &str) -> bool {
        let refusal = self.error.oauth_error();
        refusal.is_some_and(|error| error.code() == code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

/// As much of a server's text as an error shows.
pub(crate) const SHOWN_BYTES: usize = 256;

/// The members of a successful answer. `secrets` are those of the request, which a server might repeat in its texts.
pub(crate) fn members<'a>(
    endpoint: Endpoint,
    status: StatusCode,
    headers: &HeaderMap,
    body: &'a [u8],
    secrets: &[Zeroizing<String>],
) -> Result<Members<'a>, Error> {
    if status.is_success()
        && let Ok(members) = serde_json::from_slice(body)
    {
        return Ok(members);
    }
    Err(failure(endpoint, status, headers, body, secrets))
}

/// Why an answer is none to go on with.
pub(crate) fn failure(
    endpoint: Endpoint,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Zeroizing<String>],
) -> Error {
    if status.is_redirection() {
        let message = redirected(endpoint, status, headers, secrets);
        return Error::new(Kind::BadResponse, message);
    }
    // What a proxy or a crashed server says in a 5xx answer is no verdict on the client.
    let refusal = refusal(status, body);
    let code = refusal.as_ref().and_then(|members| text(members, "error"));
    let (Some(members), Some(code)) = (refusal, code) else {
        let message = no_oauth(endpoint, status, headers, body, secrets);
        return Error::new(Kind::BadResponse, message);
    };
    let error = OAuthError {
        status: Some(status),
        code: clean(&code, secrets),
        description: text(&members, "error_description").map(|text| clean(&text, secrets)),
    };
    let mut message = format!(
        "the authorization server refused the {}: {}",
        endpoint.request(),
        error.code
    );
    if let Some(description) = &error.description {
        message.push_str(&format!(" ({description})"));
    }
    if let Some(advice) = advice(&error.code) {
        message.push_str(&format!("; {advice}"));
    }
    Error::new(Kind::Refused(error), message)
}

/// The `error` of a refusal.
pub(crate) fn error_code(status: StatusCode, body: &[u8]) -> Option<Zeroizing<String>> {
    text(&refusal(status, body)?, "error")
}

/// Whether an answer asks for a proof with another nonce (RFC 9449, section 8).
pub(crate) fn asks_for_nonce(status: StatusCode, body: &[u8]) -> bool {
    error_code(status, body).is_some_and(|error| *error == "use_dpop_nonce")
}

/// Whether an answer says that the client could not be authenticated, or refuses it without a word: servers exist that
/// have none for that.
pub(crate) fn refuses_client(status: StatusCode, body: &[u8]) -> bool {
    let error = refusal(status, body).and_then(|members| text(&members, "error"));
    match error.as_deref() {
        Some(error) => error == "invalid_client",
        None => matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN),
    }
}

/// Whether an answer refuses the proof (RFC 9449, section 5). Servers exist that call it an
/// `invalid_request` and tell only a reader what it is about.
pub(crate) fn refuses_proof(status: StatusCode, body: &[u8]) -> bool {
    refusal(status, body).is_some_and(|members| {
        text(&members, "error").is_some_and(|error| match error.as_str() {
            "invalid_dpop_proof" => true,
            "invalid_request" => {
                text(&members, "error_description").is_some_and(|text| text.contains("DPoP"))
            }
            _ => false,
        })
    })
}

fn refusal(status: StatusCode, body: &[u8]) -> Option<Members<'_>> {
    let refusal = status
        .is_client_error()
        .then(|| serde_json::from_slice(body));
    refusal?.ok()
}

fn redirected(
    endpoint: Endpoint,
    status: StatusCode,
    headers: &HeaderMap,
    secrets: &[Zeroizing<String>],
) -> String {
    let mut message = format!(
        "the {endpoint} answered with a redirect ({status}), which is not followed: a client secret \
         goes nowhere but to the configured URL"
    );
    let location = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    if let Some(location) = location.filter(|location| !location.contains('@')) {
        let location = location.split(['?', '#']).next().unwrap_or_default();
        message.push_str(&format!(
            "; if `{}` is the right one, configure it",
            clean(location, secrets)
        ));
    }
    message
}

fn no_oauth(
    endpoint: Endpoint,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Zeroizing<String>],
) -> String {
    let what = match media_type(headers) {
        _ if body.is_empty() => "an empty body".to_owned(),
        Some(media_type) => format!("a body of type `{}`", clean(media_type, secrets)),
        None => "a body of no known type".to_owned(),
    };
    let advice = if status.is_server_error() {
        "the server is in trouble; try again later"
    } else {
        &format!("is this the {endpoint}?")
    };
    format!(
        "the {endpoint} answered {status} with {what}, not with the JSON of RFC 6749, section 5: {advice}"
    )
}

/// The media type, if it looks like one: nothing else of the header is shown.
fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = value.split(';').next()?.trim();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/+.-".contains(&b);
    (media_type.len() <= 60 && media_type.bytes().all(plain)).then_some(media_type)
}

/// What to do, where the code alone does not say it.
fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "invalid_client" => "check client id, secret and client authentication method",
        "invalid_scope" => "check the scope; the server does not give it to this client",
        "unauthorized_client" => "allow this grant for the client at the server",
        "unsupported_grant_type" => "the server does not know this grant",
        "invalid_target" => "check the resource (RFC 8707)",
        "invalid_dpop_proof" => {
            "check that this machine's clock is right, and that the token endpoint's URL is the one the \
             server knows itself by"
        }
        "use_dpop_nonce" => "the server did not accept any nonce that it offered",
        _ => return None,
    })
}

/// A server's text, fit for an error: without secrets, short, in printable ASCII.
pub(crate) fn clean(text: &str, secrets: &[Zeroizing<String>]) -> String {
    let mut text = Zeroizing::new(text.to_owned());
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = masked(&text, secret);
    }
    text.chars()
        .map(|c| {
            if c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        })
        .take(SHOWN_BYTES)
        .collect()
}

/// `str::replace` would leave what it replaces in the memory that it outgrows.
fn masked(text: &str, secret: &str) -> Zeroizing<String> {
    const MASK: &str = "***";
    let mut masked = Zeroizing::new(String::with_capacity(text.len() * MASK.len()));
    let mut parts = text.split(secret);
    masked.push_str(parts.next().unwrap_or_default());
    for part in parts {
        masked.push_str(MASK);
        masked.push_str(part);
    }
    masked
}
