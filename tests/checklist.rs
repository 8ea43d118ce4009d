//! The checklist of what a DPoP client owes an authorization server, row by row: RFC 6749, 6750, 7523, 8414, 8705, 8707,
//! 9126, 9449, 9700 and FAPI 2.0.
//!
//! These numbers are the checklist's. Those in `traps.rs` (`t01` to `t30`) count the traps that other clients fell into,
//! and are another list: hence the `checklist_` in front of the names here. Where a row is proven elsewhere already, the
//! table names the test and nothing is repeated; what it lacked stands in this file (the token endpoint, T1 to T12) or in
//! `checklist_servers.rs` (all else).
//!
//! | row | requirement | test |
//! |---|---|---|
//! | T1 | a POST, form-urlencoded, UTF-8 | `checklist_t01` |
//! | T2 | Basic: id and secret form-urlencoded first | `checklist_t02`; `t30` in `traps_tokens.rs` |
//! | T3 | one client authentication method, no secret in a URL | `checklist_t03` (the last method set is the only one); at every endpoint: `profiles_grants.rs`, `every_method_at_the_token_endpoint_with_its_nonce_retry` in `oauth_client.rs` |
//! | T4 | `token_type` in any case; none that is not understood | `checklist_t04`; `t14` in `traps_tokens.rs` |
//! | T5 | `expires_in` in all shapes; no token is good for all of it | `checklist_t05`; `t28` in `traps_tokens.rs` |
//! | T6 | unknown members, long tokens; a bound for the answer | `checklist_t06`; `a_huge_answer_is_not_read` in `end_to_end.rs` |
//! | T7 | a new refresh token takes the old one's place; without one the old one stays | `a_new_refresh_token_takes_the_place_of_the_old_one_and_stays_until_the_next` in `refresh_tokens.rs`; `f79` in `faults_grants.rs` |
//! | T8 | a lost answer to a refresh token, at a server that rotates | `checklist_t08`; `f77` in `faults_grants.rs` |
//! | T9 | a refresh token that comes with client credentials is ignored | `client_credentials_are_used_again_whatever_comes_with_them` in `grants.rs` |
//! | T10 | `scope` absent or narrower | `checklist_t10` |
//! | T11 | refusals, and what is none | `checklist_t11`; `what_is_no_token_answer_is_an_error_that_says_so` in `end_to_end.rs` |
//! | T12 | what an API's refusal is answered with | `checklist_t12`; `t26` in `traps.rs` |
//! | T13 | `private_key_jwt`: `aud` is the issuer, as a string; short; a new one for each attempt | `client_authentication.rs`; over TCP, with a strict server and its nonce retry: `every_method_at_the_token_endpoint_with_its_nonce_retry` in `oauth_client.rs`, and `profiles_grants.rs` |
//! | T14 | pushed authorization requests: 201 or 200, challenge, 413, 429 | `checklist_t14`; `a_pushed_request_goes_all_the_way_to_a_token` in `oauth_client.rs` |
//! | T15 | metadata: where, of whom; no endpoint but theirs | `t15_the_well_known_places_in_their_order` and `t15_an_issuer_is_the_same_to_the_letter_or_another` in `discovery.rs`; `checklist_t15` |
//! | T16 | `resource` twice; `invalid_target` | `checklist_t16` |
//! | T17 | `htu` follows the mTLS alias | `with_mutual_tls_the_aliases_are_used_and_proofs_follow` in `oauth_client.rs` |
//! | T18 | refresh tokens bound or rotated, tokens for one audience, asymmetric client authentication | `checklist_t18` |
//! | T19 | FAPI: PS256, ES256 or EdDSA; nonces; the server's clock by `Date` | `checklist_t19`: with ES256 for proofs and assertions; with PS256, EdDSA and Ed25519, which need a feature, in `algorithms.rs`; RSA keys of less than 2048 bits do not load: `keys_aws_lc_rs.rs` |
//! | T20 | a key for each authorization server | `two_servers_and_two_keys_in_one_stack_keep_apart` in `oauth_client.rs`; a stored grant is for its server: `a_stored_grant_is_for_its_client_and_its_server` in `grants.rs` |
//! | T21 | `Ed25519`, not `EdDSA`; chosen from the server's list | `checklist_t21`: ES256 is found in any list that has it, to the letter, and nothing is sent where it is not; without a feature an Ed25519 key is refused when it is loaded. The choice, in `algorithms.rs`: a server that takes the key by its other name, or its other algorithm, is told of in the error, and `DpopKey::with_algorithm` is enough |
//! | C18 | a new proof for each retry, dated when it is sent | `checklist_c18`; `t01` in `traps.rs` |
//! | C19 | a valid proof with every grant | `profiles_grants.rs`: all that the embedded servers know, by a verifier that is not ours |
//! | C20 | the same key as the refresh token's | `checklist_c20`; `the_promised_key_swapped_is_found_before_anything_is_sent` in `faults_grants.rs`, `another_key_than_the_promised_one_is_found_before_anything_is_sent` in `grants.rs` |
//! | C27 | `dpop_signing_alg_values_supported` and `algs` | `checklist_c27`: the authorization server's before anything is sent. Of an API's the program is told (`ResourceMetadata`, the challenge's `algs`); the layers read neither, and hand the API's refusal on. Every key at every profile: `algorithms.rs` |
//! | C28 | `dpop_jkt` in the authorization request; with PAR the proof says the same | `checklist_c28` |
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/flows.rs"]
mod flows;
mod support;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::Method;
use support::{
    API, Answer, ENDPOINT, Fake, and, answer,
    bench::{AS, RS, bench, find, request, secs, stack, stack_with},
    get, ok, token,
};
use tower::ServiceExt as _;
use tower_dpop::{
    DpopLayer, Error, Grant, Registration, TokenRequest,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces, Profile},
};

use self::flows::{Flow, distinct, parameter};

/// An authorization server that answers so, and an API that is content.
fn answering(answer: Answer) -> Fake {
    Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => answer.clone(),
        _ => ok(),
    })
}

async fn error_of(fake: &Fake) -> Error {
    let error = find(&stack(fake).oneshot(get(API)).await.unwrap_err());
    assert_eq!(fake.hits(RS), 0, "no request without a token");
    error
}

#[tokio::test]
async fn checklist_t01_a_token_request_is_a_form_to_the_byte() {
    let fake = answering(token("t", 300));
    let request = TokenRequest::client_credentials(ENDPOINT, "ä b&c")
        .client_secret_post("1+1=2 & \"50 %\"/~*-._€")
        .scope("read write:ü")
        .parameter("audience", "https://api.example.com/?a=b&c=d+e#f");
    stack_with(&fake, request).oneshot(get(API)).await.unwrap();
    let asked = &fake.seen_by(AS)[0];
    assert_eq!(asked.method, Method::POST);
    assert_eq!(asked.uri, ENDPOINT);
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    // Written by hand, from the rules of the WHATWG's URL standard, section 5.2.
    let expected = "grant_type=client_credentials&scope=read+write%3A%C3%BC\
        &audience=https%3A%2F%2Fapi.example.com%2F%3Fa%3Db%26c%3Dd%2Be%23f\
        &client_id=%C3%A4+b%26c&client_secret=1%2B1%3D2+%26+%2250+%25%22%2F%7E*-._%E2%82%AC";
    assert_eq!(asked.body, expected);
}

#[tokio::test]
async fn checklist_t02_basic_is_form_urlencoded_and_then_base64() {
    let fake = answering(token("t", 300));
    let request =
        TokenRequest::client_credentials(ENDPOINT, "m2m:dpop ü").client_secret_basic("a:b c/+%");
    stack_with(&fake, request).oneshot(get(API)).await.unwrap();
    let asked = &fake.seen_by(AS)[0];
    let expected = BASE64.encode("m2m%3Adpop+%C3%BC:a%3Ab+c%2F%2B%25");
    assert_eq!(
        asked.header("authorization"),
        Some(&*format!("Basic {expected}"))
    );
    assert_eq!(asked.body, "grant_type=client_credentials", "no id twice");
}

#[tokio::test]
async fn checklist_t03_of_several_methods_the_last_is_the_only_one() {
    let flow = Flow::start().await;
    let metadata = flow.metadata().await;
    let of = || Registration::new(metadata.clone(), CLIENT_ID);
    let wrong = "wr0ng-secret-of-more-than-32-bytes-in-all";
    for (registration, shown) in [
        (
            of().client_secret_basic(wrong)
                .client_secret_post(CLIENT_SECRET),
            [false, true, false],
        ),
        (
            of().client_secret_post(wrong)
                .client_secret_basic(CLIENT_SECRET),
            [true, false, false],
        ),
        (
            of().client_secret_post(wrong)
                .client_secret_basic(wrong)
                .client_secret_jwt(CLIENT_SECRET),
            [false, false, true],
        ),
    ] {
        let before = flow.asked().len();
        let request = TokenRequest::new(registration, Grant::client_credentials());
        flow.tokens(request).access_token().await.unwrap();
        let asked = &flow.asked()[before..];
        let [seen] = asked else { panic!("{asked:?}") };
        let has = |name| parameter(seen, name).is_some();
        let basic = seen.headers().contains_key("authorization");
        assert_eq!(
            [basic, has("client_secret"), has("client_assertion")],
            shown
        );
        assert_eq!(seen.uri().query(), None);
        let whole = format!("{:?}{:?}", seen.headers(), seen.body());
        assert!(!whole.contains("wr0ng"), "{whole}");
    }
}

#[tokio::test]
async fn checklist_t04_a_type_that_is_not_understood_is_not_used() {
    for (token_type, good) in [
        ("dPoP", true),
        ("DPOP", true),
        ("BEARER", false),
        ("mac", false),
        ("N_A", false),
        ("PoP", false),
    ] {
        let flow = Flow::start().await;
        flow.authorization_server.token_type(token_type);
        let endpoint = flow.authorization_server.token_endpoint();
        let request =
            TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
        let result = flow.get(&flow.tokens(request)).await;
        match &result {
            Ok(status) => assert!(good && status.is_success(), "{token_type}: {status}"),
            Err(error) => assert!(!good && error.is_downgrade(), "{token_type}: {error}"),
        }
        assert_eq!(flow.api.request_count(), usize::from(good), "{token_type}");
    }
}

/// How long a token is taken to be good, by the answer's `expires_in`, as JSON.
const LIVES: [(Option<&str>, u64); 14] = [
    (Some("3600"), 3600),
    (Some("\"3600\""), 3600),
    (Some("3600.0"), 3600),
    (Some("3.6e3"), 3600),
    // No more than a day, however much is claimed.
    (Some("1e18"), 86_400),
    (Some("99999999999999999999999"), 86_400),
    // What says nothing is five minutes.
    (None, 300),
    (Some("null"), 300),
    (Some("-1"), 300),
    (Some("\"1h\""), 300),
    (Some("\"\""), 300),
    (Some("true"), 300),
    (Some("[3600]"), 300),
    // Good for those who wait for it, and a second at the most.
    (Some("0"), 0),
];

#[tokio::test(start_paused = true)]
async fn checklist_t05_expires_in_as_servers_write_it_and_never_all_of_it() {
    for (expires_in, life) in LIVES {
        let member = expires_in.map(|json| format!(r#","expires_in":{json}"#));
        let body = format!(
            r#"{{"access_token":"t","token_type":"DPoP"{}}}"#,
            member.unwrap_or_default()
        );
        let fake = answering(answer(200, &[], &body));
        let stack = stack(&fake);
        let call = async || {
            stack.clone().oneshot(get(API)).await.unwrap();
            // So that a renewal in the background is done.
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        call().await;
        if life == 0 {
            tokio::time::sleep(secs(1)).await;
            call().await;
            assert_eq!(fake.hits(AS), 2, "{expires_in:?}: good for one moment");
            continue;
        }
        // It is kept for 65 % of its life, and renewed when 85 % are over.
        tokio::time::sleep(secs(life * 64 / 100)).await;
        call().await;
        assert_eq!(fake.hits(AS), 1, "{expires_in:?}: too soon");
        tokio::time::sleep(secs(life * 22 / 100)).await;
        call().await;
        assert_eq!(fake.hits(AS), 2, "{expires_in:?}: too late");
    }
}

#[tokio::test]
async fn checklist_t06_what_is_unknown_is_ignored_and_what_is_long_is_sent() {
    let long = "t".repeat(60 * 1024);
    let body = format!(
        r#"{{"access_token":"{long}","token_type":"DPoP","expires_in":300,"a":null,"b":[[{{}}]],"c":{{"access_token":1}},
        "ext_expires_in":"x","id_token":5,"refresh_token_expires_in":-1,"":{{}},"é\u0000":1e400}}"#
    );
    assert!(body.len() < 64 * 1024);
    let fake = answering(answer(200, &[], &body));
    stack(&fake).oneshot(get(API)).await.unwrap();
    assert_eq!(fake.seen_by(RS)[0].token(), long);

    let too_long = body.replace("\"a\":null", &format!("\"a\":\"{}\"", "x".repeat(4096)));
    assert!(too_long.len() > 64 * 1024);
    let error = error_of(&answering(answer(200, &[], &too_long))).await;
    assert!(error.is_token_request(), "{error}");
    assert!(error.to_string().contains("64 KiB"), "{error}");
}

#[tokio::test]
async fn checklist_t08_a_fapi_server_that_rotates_takes_a_lost_one_again() {
    for retry in [true, false] {
        let flow = Flow::start().await;
        let server = &flow.authorization_server;
        server.profile(Profile::FapiSuite);
        // The suite's variant without: else the first answer that is lost would be the challenge.
        server.nonces(Nonces::off());
        server.refresh_token_grace(flows::LONG);
        let first = server.issue_refresh_token("app", flow.dpop.key(), "a");
        let mut request = TokenRequest::refresh_token(server.token_endpoint(), "app", &first);
        if retry {
            request = request.retry_lost_refresh();
        }
        let tokens = flow.tokens(request);
        server.lose_answers(1);
        let error = tokens.access_token().await.unwrap_err();
        assert_eq!(error.is_grant_uncertain(), !retry, "{error}");
        if !retry {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let error = tokens.access_token().await.unwrap_err();
                assert!(error.is_grant_uncertain(), "{error}");
            }
            assert_eq!(flow.sent("refresh_token"), [first], "it is not sent again");
            continue;
        }
        let token = flows::at_last(&tokens).await.unwrap();
        assert_eq!(flow.get_with(&token).await, 200);
        assert_eq!(flow.sent("refresh_token"), [&*first, &first], "once more");
        // And the grant lives on by the next one.
        for number in [2, 3] {
            tokens.forget_tokens();
            tokens.access_token().await.unwrap();
            let sent = flow.sent("refresh_token");
            assert_eq!(sent.len(), number + 1);
            distinct(&sent[1..]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn checklist_t10_a_scope_that_is_absent_or_narrower_is_no_reason_to_ask_again() {
    for scope in [
        "",
        r#","scope":"read""#,
        r#","scope":"read write""#,
        r#","scope":"other""#,
        r#","scope":"""#,
        r#","scope":null"#,
        r#","scope":["read"]"#,
    ] {
        let body = format!(r#"{{"access_token":"t","token_type":"DPoP","expires_in":300{scope}}}"#);
        let fake = answering(answer(200, &[], &body));
        let stack = stack_with(&fake, request().scope("read write"));
        for _ in 0..3 {
            stack.clone().oneshot(get(API)).await.unwrap();
        }
        assert_eq!(fake.hits(AS), 1, "{scope}");
        // The next one is asked for with what was asked for, not with what was given.
        tokio::time::sleep(secs(300)).await;
        stack.oneshot(get(API)).await.unwrap();
        let asked = fake.seen_by(AS);
        assert_eq!(asked.len(), 2);
        for seen in asked {
            assert_eq!(seen.parameter("scope").as_deref(), Some("read write"));
        }
    }
}

const JSON: Headers = &[("content-type", "application/json")];
const HTML: Headers = &[("content-type", "text/html; charset=utf-8")];

type Headers = &'static [(&'static str, &'static str)];

/// What a server answers, its code if it is a refusal, and whether nothing will change by itself.
const REFUSALS: [(u16, Headers, &str, Option<&str>, bool); 21] = [
    (
        400,
        JSON,
        r#"{"error":"invalid_request"}"#,
        Some("invalid_request"),
        false,
    ),
    (
        400,
        JSON,
        r#"{"error":"invalid_client"}"#,
        Some("invalid_client"),
        true,
    ),
    (
        401,
        JSON,
        r#"{"error":"invalid_client"}"#,
        Some("invalid_client"),
        true,
    ),
    (
        401,
        &[("www-authenticate", r#"Basic realm="token endpoint""#)],
        r#"{"error":"invalid_client","error_description":"no","error_uri":"https://as.example.com/e"}"#,
        Some("invalid_client"),
        true,
    ),
    (
        400,
        JSON,
        r#"{"error":"invalid_grant"}"#,
        Some("invalid_grant"),
        true,
    ),
    (
        400,
        JSON,
        r#"{"error":"unauthorized_client"}"#,
        Some("unauthorized_client"),
        true,
    ),
    (
        400,
        JSON,
        r#"{"error":"unsupported_grant_type"}"#,
        Some("unsupported_grant_type"),
        true,
    ),
    (
        400,
        JSON,
        r#"{"error":"invalid_scope"}"#,
        Some("invalid_scope"),
        true,
    ),
    // The type of a body is not what it is.
    (
        400,
        HTML,
        r#"{"error":"invalid_scope"}"#,
        Some("invalid_scope"),
        true,
    ),
    (400, &[], r#"{"error":"urn:own"}"#, Some("urn:own"), false),
    // What is no NQSCHAR does not show.
    (
        400,
        JSON,
        r#"{"error":"a\u001b[31m\u00e4\nb"}"#,
        Some("a?[31m??b"),
        false,
    ),
    (400, JSON, r#"{"error":5}"#, None, false),
    (400, JSON, r#"{"error":null}"#, None, false),
    (400, JSON, r#"["invalid_client"]"#, None, false),
    (400, JSON, "", None, false),
    (400, HTML, "<html>invalid_client</html>", None, false),
    (403, HTML, "<html>WAF</html>", None, false),
    (500, JSON, r#"{"error":"invalid_client"}"#, None, false),
    (502, HTML, "<html>502 Bad Gateway</html>", None, false),
    (503, &[], "", None, false),
    (200, HTML, r#"{"error":"invalid_client"}"#, None, false),
];

#[tokio::test]
async fn checklist_t11_a_refusal_is_told_and_what_is_none_is_not_taken_for_one() {
    for (status, headers, body, code, permanent) in REFUSALS {
        let fake = answering(answer(status, headers, body));
        let error = error_of(&fake).await;
        assert_eq!(fake.hits(AS), 1, "{status} {body}: asked again");
        assert!(error.is_token_request(), "{status} {body}: {error}");
        let refusal = error.oauth_error();
        assert_eq!(
            refusal.map(|refusal| refusal.code()),
            code,
            "{status} {body}"
        );
        if let Some(refusal) = refusal {
            assert_eq!(refusal.status().unwrap(), status);
        }
        assert_eq!(error.is_permanent(), permanent, "{status} {body}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
    }
    let huge = format!(
        r#"{{"error":"invalid_grant","x":"{}"}}"#,
        "x".repeat(64 * 1024)
    );
    let error = error_of(&answering(answer(400, JSON, &huge))).await;
    assert!(error.oauth_error().is_none() && error.to_string().contains("64 KiB"));
    let wordy = format!(r#"{{"error":"{}"}}"#, "x".repeat(1000));
    let error = error_of(&answering(answer(400, JSON, &wordy))).await;
    assert_eq!(error.oauth_error().unwrap().code().len(), 256);
}

/// An API's answer, and how many token requests and sendings it costs.
const API_REFUSALS: [(u16, &str, usize, usize); 10] = [
    (401, r#"DPoP error="invalid_token""#, 2, 2),
    (
        401,
        r#"DPoP realm="a", error="invalid_token", error_description="expired""#,
        2,
        2,
    ),
    // As the FAPI suite does it.
    (401, r#"Bearer error="invalid_token""#, 2, 2),
    (400, r#"DPoP error="invalid_request""#, 1, 1),
    (401, r#"DPoP error="invalid_request""#, 1, 1),
    (
        403,
        r#"DPoP error="insufficient_scope", scope="more""#,
        1,
        1,
    ),
    (403, r#"Bearer error="insufficient_scope""#, 1, 1),
    (401, r#"DPoP error="insufficient_scope""#, 1, 1),
    // With another status it is no statement on the token.
    (403, r#"DPoP error="invalid_token""#, 1, 1),
    (500, r#"DPoP error="invalid_token""#, 1, 1),
];

#[tokio::test]
async fn checklist_t12_what_an_api_refuses_is_renewed_only_where_that_helps() {
    for (status, challenge, asked, sent) in API_REFUSALS {
        let fake = Fake::new(move |seen, _| match (seen.uri.host(), seen.number) {
            (Some(AS), number) => token(&format!("t{number}"), 300),
            (_, 0) => and(
                answer(status, &[], "refused"),
                "www-authenticate",
                challenge,
            ),
            _ => ok(),
        });
        let answered = bench(&fake, DpopLayer::new(support::a3_key()), request()).1;
        let answered = answered.oneshot(get(API)).await.unwrap();
        let expected = if sent == 2 { 200 } else { status };
        assert_eq!(answered.status(), expected, "{challenge}");
        assert_eq!(
            (fake.hits(AS), fake.hits(RS)),
            (asked, sent),
            "{status} {challenge}"
        );
        let tokens: Vec<_> = fake
            .seen_by(RS)
            .iter()
            .map(|seen| seen.token().to_owned())
            .collect();
        assert_eq!(tokens, ["t0", "t1"][..sent], "{challenge}");
    }
}
