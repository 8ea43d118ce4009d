//! `WWW-Authenticate` against every vector, and against what nobody thought of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::vectors;
use tower_dpop::Challenge;

fn headers<'a>(lines: impl IntoIterator<Item = &'a str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(
            WWW_AUTHENTICATE,
            HeaderValue::from_bytes(line.as_bytes()).unwrap(),
        );
    }
    headers
}

fn parameters(challenge: &Challenge<'_>) -> Value {
    let lower = |(name, value): (&str, &str)| (name.to_ascii_lowercase(), Value::from(value));
    Value::Object(challenge.parameters().map(lower).collect())
}

#[test]
fn published_challenges() {
    for figure in vectors()["www_authenticate"].as_array().unwrap() {
        let headers = headers([figure["value"].as_str().unwrap()]);
        let found: Vec<Value> = Challenge::all(&headers)
            .iter()
            .map(|c| json!([c.scheme(), parameters(c)]))
            .collect();
        assert_eq!(
            Value::from(found),
            figure["parsed"],
            "figure {}",
            figure["figure"]
        );
    }
}

#[test]
fn project_challenges() {
    for vector in vectors()["project_www_authenticate"].as_array().unwrap() {
        let lines = vector["field_lines"].as_array().unwrap();
        let headers = headers(lines.iter().map(|line| line.as_str().unwrap()));
        let found: Vec<Value> = Challenge::all(&headers)
            .iter()
            .map(|c| {
                json!({
                    "scheme": c.scheme().to_ascii_lowercase(),
                    "token68": c.token68(),
                    "params": parameters(c),
                })
            })
            .collect();
        let expected = match &vector["challenges"] {
            Value::Null => json!([]),
            challenges => challenges.clone(),
        };
        assert_eq!(Value::from(found), expected, "{}", vector["name"]);
    }
}

#[test]
fn a_broken_line_does_not_spoil_the_others() {
    let headers = headers(["DPoP error=\"open", "Bearer realm=\"x\""]);
    let found = Challenge::all(&headers);
    assert_eq!(found.len(), 1);
    assert!(found[0].is_scheme("bearer"));
}

#[test]
fn what_the_grammar_forbids_counts_for_nothing() {
    for line in [
        "=",
        "DPoP =",
        "DPoP a b",
        "DPoP a=b c=d",
        "DPoP a=\"b\"c",
        "DPoP a=\"b\" e=f",
        "a=b",
        "a=b, DPoP c=d",
        "Negotiate abc==, x=y",
        "DPoP a=b, A=c",
        "DPoP\u{e9} a=b",
        "DPoP a=\"\\",
        "DPoP \"a\"",
        "DPoP/abc",
    ] {
        assert_eq!(Challenge::all(&headers([line])), [], "{line}");
    }
}

#[test]
fn eight_kilobytes_of_parameters_are_refused_cheaply() {
    let line = (0..2_000).fold("DPoP a=1".to_owned(), |line, n| format!("{line},p{n}=1"));
    assert_eq!(Challenge::all(&headers([&*line])), []);
}

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"
}

/// What a server may want to say: text with all that needs quoting.
fn text() -> impl Strategy<Value = String> {
    "[\\t -~]{0,30}"
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b','), Just(b'='), Just(b'\\'), Just(b' '), 0x20..=0xff_u8], 0..200)) {
        if let Ok(value) = HeaderValue::from_bytes(&line) {
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, value);
            for challenge in Challenge::all(&headers) {
                prop_assert!(!challenge.scheme().is_empty());
            }
        }
    }

    #[test]
    fn what_a_writer_wrote_the_parser_finds(
        written in proptest::collection::vec(
            (token(), proptest::collection::btree_map("[a-z]{1,8}", (text(), token(), any::<bool>()), 0..5)),
            1..5,
        ),
        comma in "( ?, ?)(, )?",
    ) {
        let line = written
            .iter()
            .map(|(scheme, parameters)| {
                let parameters = parameters.iter().map(|(name, (text, token, quote))| {
                    if *quote { format!("{name}={}", quoted(text)) } else { format!("{name} = {token}") }
                });
                format!("{scheme} {}", parameters.collect::<Vec<_>>().join(&comma)).trim_end().to_owned()
            })
            .collect::<Vec<_>>()
            .join(&comma);
        let headers = headers([&*line]);
        let found = Challenge::all(&headers);
        prop_assert_eq!(found.len(), written.len(), "{}", line);
        for (found, (scheme, parameters)) in found.iter().zip(&written) {
            prop_assert_eq!(found.scheme(), scheme);
            prop_assert_eq!(found.parameters().count(), parameters.len());
            for (name, (text, token, quote)) in parameters {
                let expected = if *quote { text } else { token };
                prop_assert_eq!(found.parameter(name), Some(expected.as_str()), "{}", line);
            }
        }
    }
}
