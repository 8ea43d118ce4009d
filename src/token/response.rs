//! Reading an answer of the token endpoint (RFC 6749, sections 5.1 and 5.2). Pure.

use std::{collections::BTreeMap, time::Duration};

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use serde_json::{Value, value::RawValue};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, OAuthError};

/// Less would ask for a token with every request; a token that claims more is renewed once a day.
const LIFE: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

/// How long an escape in a JSON text may be: `\n`, `\u00e9`, `\ud83d\ude00`.
const ESCAPES: [usize; 3] = [2, 6, 12];

/// As much of a server's text as an error shows.
const SHOWN_BYTES: usize = 256;

/// What an answer holds, in its own memory: a `serde_json::Value` would copy tokens, and drop the copies unwiped.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// A successful answer.
pub(crate) struct TokenResponse {
    pub(crate) access_token: Zeroizing<String>,
    /// None if the answer does not tell it. Zero has a meaning of its own: use it now, and ask again.
    pub(crate) life: Option<Duration>,
}

/// Why there is no token, and how long the server wants to be left alone.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) retry_after: Option<Duration>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

/// The refresh token that came with an answer, whatever else is wrong with it. None at all if it is no
/// answer of a token endpoint: it may have been one before something on its way made it that.
pub(crate) fn refresh_token(status: StatusCode, body: &[u8]) -> Option<Option<Zeroizing<String>>> {
    let members: Members<'_> = status
        .is_success()
        .then(|| serde_json::from_slice(body).ok())??;
    Some(text(&members, "refresh_token").filter(|token| !token.is_empty()))
}

/// Reads an answer. `secrets` are those of the request, which a server might repeat in its texts.
pub(crate) fn parse(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Zeroizing<String>],
) -> Result<TokenResponse, Error> {
    if status.is_redirection() {
        return Err(Error::new(
            Kind::BadResponse,
            redirected(status, headers, secrets),
        ));
    }
    let Ok(members) = serde_json::from_slice(body) else {
        return Err(no_oauth(status, headers, body, secrets));
    };
    if status.is_success() {
        return success(&members, secrets);
    }
    // What a proxy or a crashed server says in a 5xx answer is no verdict on the client.
    if let Some(code) = text(&members, "error").filter(|_| status.is_client_error()) {
        let error = OAuthError {
            status,
            code: clean(&code, secrets),
            description: text(&members, "error_description").map(|text| clean(&text, secrets)),
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
    Err(no_oauth(status, headers, body, secrets))
}

/// Whether an answer asks for a proof with another nonce (RFC 9449, section 8).
pub(crate) fn asks_for_nonce(status: StatusCode, body: &[u8]) -> bool {
    refusal(status, body).is_some_and(|members| {
        text(&members, "error").is_some_and(|error| *error == "use_dpop_nonce")
    })
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

fn success(members: &Members<'_>, secrets: &[Zeroizing<String>]) -> Result<TokenResponse, Error> {
    let token = text(members, "access_token").filter(|token| !token.is_empty()).ok_or_else(|| {
        Error::new(
            Kind::BadResponse,
            "the authorization server's answer has no `access_token`: is this a token endpoint (RFC 6749, \
             section 5.1)?",
        )
    })?;
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
                clean(&token_type, secrets)
            ),
        ));
    }
    Ok(TokenResponse {
        access_token: token,
        life: members.get("expires_in").and_then(|raw| life(raw)),
    })
}

/// `expires_in` as servers write it: a number, a number in a string, or nonsense, which counts as missing.
fn life(expires_in: &RawValue) -> Option<Duration> {
    let seconds = match serde_json::from_str(expires_in.get()).ok()? {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok()?,
        _ => return None,
    };
    if seconds == 0.0 {
        return Some(Duration::ZERO);
    }
    let whole = seconds > 0.0 && seconds.fract() == 0.0;
    whole.then(|| Duration::from_secs_f64(seconds.clamp(*LIFE.start(), *LIFE.end())))
}

fn redirected(status: StatusCode, headers: &HeaderMap, secrets: &[Zeroizing<String>]) -> String {
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
            clean(location, secrets)
        ));
    }
    message
}

fn no_oauth(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Zeroizing<String>],
) -> Error {
    let what = match media_type(headers) {
        _ if body.is_empty() => "an empty body".to_owned(),
        Some(media_type) => format!("a body of type `{}`", clean(media_type, secrets)),
        None => "a body of no known type".to_owned(),
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

/// A member that is a text.
fn text(members: &Members<'_>, name: &str) -> Option<Zeroizing<String>> {
    let raw = members.get(name)?.get();
    let mut rest = raw.strip_prefix('"')?.strip_suffix('"')?;
    // Escapes are longer than what they mean, so it does not grow: a text that grows leaves copies behind. So does
    // a parser that undoes them, which sees each one alone.
    let mut text = Zeroizing::new(String::with_capacity(rest.len()));
    while let Some((plain, _)) = rest.split_once('\\') {
        text.push_str(plain);
        rest = &rest[plain.len()..];
        let (character, length) = ESCAPES.iter().find_map(|length| {
            let escape = format!("\"{}\"", rest.get(..*length)?);
            let character = serde_json::from_str::<char>(&escape).ok()?;
            Some((character, *length))
        })?;
        text.push(character);
        rest = &rest[length..];
    }
    text.push_str(rest);
    Some(text)
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(status: u16, body: &[u8]) -> Result<TokenResponse, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(
            LOCATION,
            HeaderValue::from_static("https://new.example/token?s3cret"),
        );
        let secrets = [Zeroizing::new("s3cret".to_owned())];
        parse(
            StatusCode::from_u16(status).unwrap(),
            &headers,
            body,
            &secrets,
        )
    }

    fn refusal(status: u16, body: &str) -> Error {
        let error = read(status, body.as_bytes()).err().expect("refused");
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("t0ken"),
            "{shown}"
        );
        assert!(
            !error.to_string().contains(char::is_control),
            "one line: {error}"
        );
        error
    }

    fn accepted(body: &[u8]) -> TokenResponse {
        read(200, body).unwrap_or_else(|error| panic!("{error}"))
    }

    fn life_of(expires_in: &str) -> Option<f64> {
        let body =
            format!(r#"{{"access_token":"t","token_type":"DPoP","expires_in":{expires_in}}}"#);
        accepted(body.as_bytes())
            .life
            .map(|life| life.as_secs_f64())
    }

    #[test]
    fn a_token_and_what_else_a_server_may_add() {
        for token_type in ["DPoP", "dpop", "DPOP", "dPoP"] {
            let body = json!({
                "access_token": "Kz~8mXK1", "token_type": token_type, "expires_in": 2677,
                "refresh_token": "r", "scope": null, "unknown": {"a": [1]},
            });
            let answer = accepted(body.to_string().as_bytes());
            assert_eq!(*answer.access_token, "Kz~8mXK1");
            assert_eq!(answer.life, Some(Duration::from_secs(2677)));
            let refresh_token = refresh_token(StatusCode::OK, body.to_string().as_bytes());
            assert_eq!(refresh_token, Some(Some(Zeroizing::new("r".to_owned()))));
        }
    }

    #[test]
    fn life_is_what_the_server_means_within_bounds() {
        for (expires_in, life) in [
            ("3600", Some(3600.0)),
            ("\"3600\"", Some(3600.0)),
            ("3600.0", Some(3600.0)),
            ("3.6e3", Some(3600.0)),
            ("1", Some(1.0)),
            ("0", Some(0.0)),
            ("\"0\"", Some(0.0)),
            ("0.0", Some(0.0)),
            ("86401", Some(86_400.0)),
            ("18446744073709551615", Some(86_400.0)),
            ("9223372036854775807", Some(86_400.0)),
            ("1e300", Some(86_400.0)),
            ("\"99999999999999999999999999\"", Some(86_400.0)),
            // What means nothing counts as missing.
            ("null", None),
            ("-1", None),
            ("-0.5", None),
            ("0.5", None),
            ("\"3600abc\"", None),
            ("\"\"", None),
            ("\"1h\"", None),
            ("\"-1\"", None),
            ("\" 60\"", None),
            ("[]", None),
            ("{}", None),
            ("true", None),
        ] {
            assert_eq!(life_of(expires_in), life, "{expires_in}");
        }
        let missing = accepted(br#"{"access_token":"t","token_type":"DPoP"}"#);
        assert_eq!(missing.life, None);
    }

    #[test]
    fn whatever_is_not_bound_to_the_key_is_refused() {
        for body in [
            r#"{"access_token":"t0ken","token_type":"Bearer"}"#,
            r#"{"access_token":"t0ken","token_type":"mac"}"#,
            r#"{"access_token":"t0ken","token_type":""}"#,
            r#"{"access_token":"t0ken","token_type":null}"#,
            r#"{"access_token":"t0ken","token_type":["DPoP"]}"#,
            r#"{"access_token":"t0ken"}"#,
        ] {
            let error = refusal(200, body);
            assert!(
                error.is_downgrade() && error.is_token_request(),
                "{body}: {error}"
            );
        }
    }

    #[test]
    fn an_answer_that_is_none_says_what_came() {
        for (status, body, word) in [
            (200, "", "empty body"),
            (200, "<html>t0ken</html>", "text/html"),
            (200, "null", "text/html"),
            (200, "\"t0ken\"", "text/html"),
            (200, "{\"access_token\":\"t0ken\"", "text/html"),
            (200, "{}", "access_token"),
            (
                200,
                r#"{"access_token":"","token_type":"DPoP"}"#,
                "access_token",
            ),
            (
                200,
                r#"{"access_token":1,"token_type":"DPoP"}"#,
                "access_token",
            ),
            (200, r#"{"error":"invalid_client"}"#, "access_token"),
            (404, "{}", "token endpoint"),
            (500, "oops s3cret", "trouble"),
            (503, r#"{"error":"invalid_grant"}"#, "trouble"),
            (302, "", "https://new.example/token`"),
            (
                307,
                r#"{"access_token":"t0ken","token_type":"DPoP"}"#,
                "redirect",
            ),
        ] {
            let error = refusal(status, body);
            assert!(error.to_string().contains(word), "{status} {body}: {error}");
            assert!(
                error.oauth_error().is_none() && error.is_token_request(),
                "{error}"
            );
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_and_loses_its_secrets() {
        let body = json!({
            "error": "invalid_client",
            "error_description": format!("no s3cret like\r\n{} fits", "é".repeat(1000)),
        });
        let error = refusal(401, &body.to_string());
        let oauth = error.oauth_error().expect("a refusal");
        assert_eq!(
            (oauth.status().as_u16(), oauth.code()),
            (401, "invalid_client")
        );
        let description = oauth.description().expect("a description");
        assert!(description.starts_with("no *** like??"), "{description}");
        assert_eq!(description.len(), SHOWN_BYTES);
        assert!(error.to_string().contains("check client id"), "{error}");
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(answer) = read(status, &body) {
                prop_assert!(!answer.access_token.is_empty());
            }
        }

        #[test]
        fn no_json_panics_and_life_stays_within_bounds(
            expires_in in prop_oneof![
                any::<f64>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                any::<u64>().prop_map(Value::from),
                ".{0,20}".prop_map(Value::from),
                any::<u64>().prop_map(|n| Value::from(n.to_string())),
                Just(Value::Null),
            ],
            error in ".{0,300}",
            status in prop_oneof![Just(200_u16), Just(400), Just(401), Just(500)],
        ) {
            let body = json!({
                "access_token": "t", "token_type": "DPoP", "expires_in": expires_in,
                "error": error, "error_description": format!("s3cret {error}"),
            });
            match read(status, body.to_string().as_bytes()) {
                Ok(answer) => {
                    let life = answer.life.unwrap_or(Duration::from_secs(300)).as_secs_f64();
                    prop_assert!(life == 0.0 || LIFE.contains(&life));
                }
                Err(error) => {
                    let shown = format!("{error} {error:?}");
                    prop_assert!(!shown.contains("s3cret"), "{}", shown);
                }
            }
        }

        #[test]
        fn what_a_server_wrote_the_parser_finds(token in "[ -~]{1,200}", seconds in 1_u64..86_400) {
            let body = json!({"access_token": token, "token_type": "DPoP", "expires_in": seconds});
            let answer = accepted(body.to_string().as_bytes());
            prop_assert_eq!(&*answer.access_token, &token);
            prop_assert_eq!(answer.life, Some(Duration::from_secs(seconds)));
        }
    }
}
