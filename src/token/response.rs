//! Reading a successful answer of the token endpoint (RFC 6749, section 5.1). Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, value::RawValue};
use zeroize::Zeroizing;

pub(crate) use crate::oauth::answer::Failure;
use crate::{
    access_token::Further,
    error::{Error, Kind},
    json::{Members, text},
    oauth::{
        Endpoint,
        answer::{self, clean},
    },
};

/// Less would ask for a token with every request; a token that claims more is renewed once a day.
const LIFE: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;

/// What is used here, and is nobody else's: a refresh token least of all.
const OURS: [&str; 3] = ["access_token", "refresh_token", "token_type"];

/// A successful answer.
pub(crate) struct TokenResponse {
    pub(crate) access_token: Zeroizing<String>,
    /// None if the answer does not tell it. Zero has a meaning of its own: use it now, and ask again.
    pub(crate) life: Option<Duration>,
    pub(crate) further: Further,
}

/// The refresh token that came with an answer, whatever else is wrong with it. None at all if it is no
/// answer of a token endpoint: it may have been one before something on its way made it that.
pub(crate) fn refresh_token(status: StatusCode, body: &[u8]) -> Option<Option<Zeroizing<String>>> {
    let members: Members<'_> = status
        .is_success()
        .then(|| serde_json::from_slice(body).ok())??;
    // Else it is something's on its way, or a server's that knows no status: nobody can tell what became of the grant.
    let tokens = ["access_token", "refresh_token"];
    if !tokens.iter().any(|token| members.contains_key(*token)) {
        return None;
    }
    Some(text(&members, "refresh_token").filter(|token| !token.is_empty()))
}

/// Reads an answer. `secrets` are those of the request, which a server might repeat in its texts.
pub(crate) fn parse(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    secrets: &[Zeroizing<String>],
) -> Result<TokenResponse, Error> {
    let members = answer::members(Endpoint::Token, status, headers, body, secrets)?;
    success(&members, secrets)
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
        further: members
            .keys()
            .filter(|name| !OURS.contains(&name.as_str()))
            .filter_map(|name| Some((name.clone(), text(members, name)?)))
            .collect(),
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

#[cfg(test)]
mod tests {
    use http::{
        HeaderValue,
        header::{CONTENT_TYPE, LOCATION},
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::oauth::answer::SHOWN_BYTES;

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
            (oauth.status().unwrap().as_u16(), oauth.code()),
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
