//! Reading an answer of the token endpoint (RFC 6749, sections 5.1 and 5.2). Pure.

use std::time::Duration;

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Kind, OAuthError},
    origin::printable,
};

/// The life of a token whose answer does not tell it: short enough not to be wrong for long, long enough
/// not to ask all the time.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// Less would ask for a token with every request; a token that claims more is renewed once a day.
const LIFE: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

/// As much of a server's text as an error shows.
const SHOWN_BYTES: usize = 256;

/// A successful answer.
pub(crate) struct TokenResponse {
    pub(crate) access_token: Zeroizing<String>,
    pub(crate) life: Duration,
}

/// Reads an answer. `secrets` are those of the request, which a server might repeat in its texts.
pub(crate) fn parse(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Zeroizing<String>],
) -> Result<TokenResponse, Error> {
    if status.is_redirection() {
        return Err(Error::new(Kind::BadResponse, redirected(status, headers)));
    }
    let members = match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => members,
        _ => return Err(no_oauth(status, headers, body)),
    };
    if status.is_success() {
        return success(&members);
    }
    // What a proxy or a crashed server says in a 5xx answer is no verdict on the client.
    if let Some(code) = text(&members, "error").filter(|_| status.is_client_error()) {
        let error = OAuthError {
            status,
            code: clean(code, secrets),
            description: text(&members, "error_description").map(|text| clean(text, secrets)),
        };
        let mut message = format!(
            "the authorization server refused the token request: {}",
            error.code
        );
        if let Some(description) = &error.description {
            message.push_str(&format!(" ({description})"));
        }
        if let Some(advice) = advice(&error.code) {
            message.push_str(&format!("; {advice}"));
        }
        return Err(Error::new(Kind::Refused(error), message));
    }
    Err(no_oauth(status, headers, body))
}

/// Whether an answer asks for a proof with another nonce (RFC 9449, section 8).
pub(crate) fn asks_for_nonce(status: StatusCode, body: &[u8]) -> bool {
    status.is_client_error()
        && serde_json::from_slice::<Value>(body)
            .is_ok_and(|body| body.get("error").and_then(Value::as_str) == Some("use_dpop_nonce"))
}

fn success(members: &Map<String, Value>) -> Result<TokenResponse, Error> {
    let token = text(members, "access_token").filter(|token| !token.is_empty()).ok_or_else(|| {
        Error::new(
            Kind::BadResponse,
            "the authorization server's answer has no `access_token`: is this a token endpoint (RFC 6749, \
             section 5.1)?",
        )
    })?;
    let token = Zeroizing::new(token.to_owned());
    let token_type = text(members, "token_type").ok_or_else(|| {
        Error::new(
            Kind::Downgrade,
            "the authorization server's answer has no `token_type`, so the token may be bound to no key \
             (RFC 6749, section 5.1)",
        )
    })?;
    if !token_type.eq_ignore_ascii_case("DPoP") {
        return Err(Error::new(
            Kind::Downgrade,
            format!(
                "the authorization server gave a `{}` token, not one that is bound to the key: switch DPoP \
                 on for this client at the server (RFC 9449, section 5)",
                clean(token_type, &[])
            ),
        ));
    }
    Ok(TokenResponse {
        access_token: token,
        life: life(members.get("expires_in")),
    })
}

/// `expires_in` as servers write it: a number, a number in a string, or nonsense, which counts as missing.
fn life(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    seconds
        .filter(|seconds| *seconds >= 0.0 && seconds.fract() == 0.0)
        .map_or(DEFAULT_LIFE, |seconds| {
            Duration::from_secs_f64(seconds.clamp(*LIFE.start(), *LIFE.end()))
        })
}

fn redirected(status: StatusCode, headers: &HeaderMap) -> String {
    let mut message = format!(
        "the token endpoint answered with a redirect ({status}), which is not followed: a client secret \
         goes nowhere but to the configured URL"
    );
    let location = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok());
    if let Some(location) = location.filter(|location| !location.contains('@')) {
        let location = location.split(['?', '#']).next().unwrap_or_default();
        message.push_str(&format!(
            "; if `{}` is the right one, configure it",
            printable(location)
        ));
    }
    message
}

fn no_oauth(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let what = if body.is_empty() {
        "an empty body".to_owned()
    } else {
        match headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
        {
            Some(content_type) => format!("a body of type `{}`", printable(content_type)),
            None => "a body of no type".to_owned(),
        }
    };
    let advice = if status.is_server_error() {
        "the server is in trouble; try again later"
    } else {
        "is this the token endpoint?"
    };
    Error::new(
        Kind::BadResponse,
        format!(
            "the token endpoint answered {status} with {what}, not with the JSON of RFC 6749, section 5: {advice}"
        ),
    )
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

fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name).and_then(Value::as_str)
}

/// A server's text, fit for an error: without secrets, short, in printable ASCII.
fn clean(text: &str, secrets: &[Zeroizing<String>]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), "***");
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
