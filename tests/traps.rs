//! What other DPoP clients got wrong in the field, and that this one does not: a test for each, of its very
//! point; after it stands where more of the matter is tested.
//!
//! | trap | what others do | here | test |
//! |---|---|---|---|
//! | T1 | a retry around or inside the client sends the old proof again | each sending that passes `Dpop` is signed anew; retries below it are forbidden | `t01`; `retry.rs`, `stacks/tests/order.rs` |
//! | T2 | nonces are learned from challenges only, not from a success or from the answer to the retry | from every answer | `t02`; `faults_nonces.rs`, F42 |
//! | T3 | one nonce for all servers, so that one server's goes to another | one for each key, origin and role | `t03`; `faults_nonces.rs`, F47 and F48 |
//! | T4 | an answer without a nonce empties the store, and then any failure counts as news and is sent again | it changes nothing, and only a challenge is answered | `t04`; `dpop.rs` |
//! | T5 | retries without end | three sends for nonces, four in all | `t05`; `sends.rs` |
//! | T6 | a filter turns the challenge into an error before the retry sees it | the challenge is answered below whatever filters; a filter inside is the user's own | `t06` |
//! | T7 | a new key for the retry | the same key throughout | `t07` in `traps_tokens.rs` |
//! | T8 | the client assertion is repeated with its `jti` | token requests are made anew for each sending, and with them the assertion | `t08` in `traps_tokens.rs`; `oauth_client.rs`, `profiles_grants.rs` |
//! | T9 | a stream is sent again empty, and the answer passes for success | whole, or not at all | `t09`; `replay_body.rs` |
//! | T10 | the error that the body cannot be sent again hides the server's 401 | the 401 comes back as it was, and the nonce is kept | `t10`; `dpop.rs` |
//! | T11 | `invalid_token` is taken for a nonce challenge | it means a new token, whatever nonce comes along | `t11`; `faults_nonces.rs`, F42 |
//! | T12 | challenges are found by searching for words, with case, in the first place only | by the grammar | `t12`; `challenges.rs`, `scenarios.rs` |
//! | T13 | without a token or a proof the request goes out bare, or as `Bearer` | nothing goes out | `t13` in `traps_tokens.rs`; `token.rs` |
//! | T14 | `token_type` is not looked at, or compared with case | `DPoP` in any case, or an error | `t14` in `traps_tokens.rs`; `scenarios.rs` |
//! | T15 | tokens are shared between requests for different scopes or resources | one token for each combination | `t15` in `traps_tokens.rs`; `token_by_hand.rs` |
//! | T16 | the private key lies in a shared cache in clear | nothing that holds it can be serialised; what a store gets is its owner's choice: `FileStore` keeps it for its owner alone, and refuses a file that others may read. The key's own `to_pkcs8_pem` is the one way out | `t16` in `traps_tokens.rs`; `faults_secrets.rs` |
//! | T17 | `htu` with query, template, decoded path, default port or a slash more | the URL as it is on the wire, without query | `t17` in `traps_tokens.rs`; `proofs.rs`, `scenarios.rs` |
//! | T18 | `htm` in lower case | the method as it is sent | `t18` in `traps_tokens.rs`; `proofs.rs` |
//! | T19 | a redirect is followed with the old proof | none is followed; whoever follows one through the layers gets a new proof, and no token elsewhere | `t19`; `stacks/tests/redirects.rs` |
//! | T20 | `ath` at the token endpoint | never there | `t20` in `traps_tokens.rs`; `scenarios.rs` |
//! | T21 | `jti` from a weak generator | 128 bits of the operating system | `t21` in `traps_tokens.rs`; `proofs.rs` |
//! | T22 | the token is read twice: one for `ath`, another for the header | one snapshot for each sending. Here within one thread; many threads are in the soak | `t22` in `traps_tokens.rs`; `soak.rs` |
//! | T23 | nonces are kept only if a callback is registered | without any setting | `t23` |
//! | T24 | when the retries are used up, nothing comes back and passes for success | the server's own answer, or an error | `t24`; `faults_nonces.rs`, F41 |
//! | T25 | an everyday challenge is logged and counted as an error | at debug level, no error in its span, a counter of its own | `t25` in `events.rs`; `stacks/tests/metrics.rs` |
//! | T26 | every 401 is sent again, and changes the server's state | only one with a reason that another sending can mend | `t26`; `token.rs`, `dpop.rs` |
//! | T27 | the constructor sends requests | nothing before the first request that needs a token | `t27` in `traps_tokens.rs` |
//! | T28 | a token is used until 2 s before its end, or until it is refused | renewed after 65 to 85 % of its life, unused in its last tenth (10 s at the most) | `t28` in `traps_tokens.rs`; `faults_outage.rs` |
//! | T29 | a nonce is taken to live for some time | it is used until the server gives another | `t29`; `faults_nonces.rs`, F43 |
//! | T30 | id and secret go into Basic as they are | form-urlencoded first | `t30` in `traps_tokens.rs`; `token.rs`, `end_to_end.rs` |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use support::{
    API, Answer, Fake, Seen, a3_key, and, answer,
    bench::{API2, AS, RS, RS2, api, bench, challenging, find, request, secs, stack},
    get, invalid_token, nonce_challenge, ok, own_token, plain, text, token, token_nonce_challenge,
    with_token,
};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, retry::RetryLayer, service_fn};
use tower_dpop::{BoxError, DpopLayer, NoReplay, RecordedBody, ReplayBody, RetryPolicy};

const BODY: &str = "the whole body";

fn post(uri: &str) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::from(BODY)).unwrap()
}

/// With a token of the caller's own: no token layer is needed.
fn owned<B>(request: Request<B>) -> Request<B> {
    with_token(request, &own_token(&a3_key()))
}

fn jtis(seen: &[Seen]) -> HashSet<String> {
    let jtis = seen.iter().map(|seen| seen.claims()["jti"].to_string());
    jtis.collect()
}

fn nonces(seen: &[Seen]) -> Vec<Option<String>> {
    seen.iter().map(Seen::nonce).collect()
}

fn some(nonce: &str) -> Option<String> {
    Some(nonce.to_owned())
}

#[tokio::test(start_paused = true)]
async fn t01_a_retry_above_never_sends_a_proof_again() {
    let fake = api(|seen| match seen.number {
        0..3 => answer(429, &[], ""),
        _ => ok(),
    });
    let retrying = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::new()));
    let stack = retrying.service(stack(&fake));
    assert_eq!(stack.oneshot(post(API)).await.unwrap().status(), 200);
    assert_eq!(jtis(&fake.seen_by(RS)).len(), 4);
}

#[tokio::test]
async fn t02_successes_and_the_answer_to_the_retry_teach_nonces() {
    let fake = api(|seen| match seen.number {
        0 => nonce_challenge("n0"),
        1 => and(answer(500, &[], ""), "dpop-nonce", "n1"),
        2 => and(ok(), "dpop-nonce", "n2"),
        _ => ok(),
    });
    let stack = stack(&fake);
    for _ in 0..3 {
        stack.clone().oneshot(get(API)).await.unwrap();
    }
    let sent = nonces(&fake.seen_by(RS));
    assert_eq!(sent, [None, some("n0"), some("n1"), some("n2")]);
}

#[tokio::test]
async fn t03_no_servers_nonce_goes_to_another() {
    let fake = Fake::new(|seen, _| {
        let host = seen.uri.host().unwrap();
        let answer = if host == AS { token("t", 300) } else { ok() };
        and(answer, "dpop-nonce", host)
    });
    let (tokens, stack) = bench(&fake, DpopLayer::new(a3_key()), request());
    for origin in [API, API2, API, API2] {
        stack.clone().oneshot(get(origin)).await.unwrap();
    }
    tokens.forget_tokens();
    stack.oneshot(get(API)).await.unwrap();
    for (host, first) in [(AS, 1), (RS, 1), (RS2, 1)] {
        let sent = nonces(&fake.seen_by(host));
        assert!(
            sent.len() > 1 && sent[..first] == [None],
            "{host}: {sent:?}"
        );
        assert!(sent[first..].iter().all(|nonce| *nonce == some(host)));
    }
}

#[tokio::test]
async fn t04_an_answer_without_a_nonce_makes_no_failure_a_challenge() {
    let fake = api(|seen| match seen.number {
        0 => and(ok(), "dpop-nonce", "n"),
        1 => ok(),
        2 => answer(503, &[], "down"),
        3 => and(answer(500, &[], "down"), "dpop-nonce", "n3"),
        _ => ok(),
    });
    let stack = stack(&fake);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = stack.clone().oneshot(post(API)).await.unwrap();
        statuses.push(answer.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 503, 500, 200], "each was sent once");
    let n = some("n");
    let sent = nonces(&fake.seen_by(RS));
    assert_eq!(sent, [None, n.clone(), n.clone(), n, some("n3")]);
}

#[tokio::test]
async fn t05_retries_end() {
    let fake = api(|seen| nonce_challenge(&format!("n{}", seen.number)));
    stack(&fake).oneshot(get(API)).await.unwrap();
    assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 3));
    // Whatever it finds, and in whatever order.
    let fake = api(|seen| match seen.number % 2 {
        0 => nonce_challenge(&format!("n{}", seen.number)),
        _ => invalid_token(),
    });
    stack(&fake).oneshot(get(API)).await.unwrap();
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 4));
    let fake = Fake::new(|_, n| token_nonce_challenge(&format!("n{n}")));
    stack(&fake).oneshot(get(API)).await.unwrap_err();
    assert_eq!((fake.hits(AS), fake.hits(RS)), (3, 0));
}

#[tokio::test]
async fn t06_a_filter_of_errors_above_sees_no_challenge() {
    let fake = challenging();
    let filtered = stack(&fake).and_then(async |answer: Answer| match answer.status() {
        StatusCode::OK => Ok(answer),
        status => Err(BoxError::from(status.to_string())),
    });
    assert_eq!(filtered.oneshot(get(API)).await.unwrap().status(), 200);
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 2));
}

#[tokio::test]
async fn t09_a_stream_is_sent_again_whole_or_not_at_all() {
    for (limit, status, sends) in [(1000, 200, 2), (10, 401, 1)] {
        let fake = challenging();
        let sending = fake.clone();
        let client = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
            let sending = sending.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                let request = Request::from_parts(head, Full::new(body));
                sending.oneshot(request).await
            }
        });
        let request = post(API).map(|body| ReplayBody::with_limit(body, limit));
        let dpop = DpopLayer::new(a3_key()).replay(RecordedBody);
        let answer = dpop.layer(client).oneshot(owned(request)).await.unwrap();
        assert_eq!(answer.status(), status, "kept: {limit} bytes");
        let seen = fake.seen();
        assert_eq!(seen.len(), sends, "kept: {limit} bytes");
        assert!(seen.iter().all(|seen| seen.body == BODY));
    }
}

#[tokio::test]
async fn t10_a_body_that_is_gone_does_not_hide_the_servers_401() {
    let fake = challenging();
    let dpop = DpopLayer::new(a3_key()).replay(NoReplay);
    let send = async || {
        let answer = dpop.layer(fake.clone()).oneshot(owned(post(API))).await;
        answer.map(plain).unwrap()
    };
    let first = send().await;
    let told = nonce_challenge("n");
    assert_eq!(
        (first.status(), first.headers()),
        (told.status(), told.headers())
    );
    assert_eq!(text(first).await, "challenge");
    assert_eq!(send().await.status(), 200, "and the nonce is kept");
    assert_eq!(fake.hits(RS), 2);
}

#[tokio::test]
async fn t11_a_refused_token_is_no_nonce_challenge() {
    let refusing = || {
        api(|seen| match seen.token() {
            "t1" => ok(),
            _ => and(invalid_token(), "dpop-nonce", "n"),
        })
    };
    let fake = refusing();
    assert_eq!(stack(&fake).oneshot(get(API)).await.unwrap().status(), 200);
    let seen = fake.seen_by(RS);
    let tokens: Vec<_> = seen.iter().map(Seen::token).collect();
    assert_eq!(tokens, ["t0", "t1"], "no second try with the first");
    // Where there is no other token to be had, the answer comes back.
    let fake = refusing();
    let dpop = DpopLayer::new(a3_key()).layer(fake.clone());
    let answer = dpop.oneshot(owned(get(API))).await.unwrap();
    assert_eq!((answer.status().as_u16(), fake.hits(RS)), (401, 1));
}

#[tokio::test]
async fn t12_challenges_are_read_not_searched() {
    for (challenge, sends) in [
        (r#"DPoP error="use_dpop_nonce""#, 2),
        (r#"dPOP Error="use_dpop_nonce""#, 2),
        ("DPoP error=use_dpop_nonce", 2),
        (
            r#"Bearer realm="x, y", DPoP algs="ES256", error="use_dpop_nonce""#,
            2,
        ),
        (r#"Basic realm="DPoP error=use_dpop_nonce""#, 1),
        (
            r#"DPoP realm="use_dpop_nonce_blocklist", error="insufficient_scope""#,
            1,
        ),
        (
            r#"DPoP error="x", error_description="\", error=\"use_dpop_nonce\"""#,
            1,
        ),
        (r#"DPoP error="USE_DPOP_NONCE""#, 1),
        (r#"Basic error="use_dpop_nonce""#, 1),
    ] {
        let fake = api(move |seen| match seen.nonce() {
            None => answer(
                401,
                &[("www-authenticate", challenge), ("dpop-nonce", "n")],
                "",
            ),
            Some(_) => ok(),
        });
        stack(&fake).oneshot(get(API)).await.unwrap();
        assert_eq!(fake.hits(RS), sends, "{challenge}");
    }
}

#[tokio::test]
async fn t19_a_redirect_is_not_followed_and_a_hop_through_the_layers_is_signed_anew() {
    let fake = api(|seen| match seen.uri.path() {
        "/here" => answer(302, &[("location", "https://api.example.com/there")], ""),
        "/there" => answer(302, &[("location", "https://elsewhere.example/")], ""),
        _ => ok(),
    });
    let stack = stack(&fake);
    let mut next = format!("{API}/here");
    for hops in 1..=3 {
        let answer = stack.clone().oneshot(get(&next)).await.unwrap();
        assert_eq!(fake.seen().len(), 1 + hops, "each answer comes back");
        if let Some(location) = answer.headers().get("location") {
            next = location.to_str().unwrap().to_owned();
        }
    }
    let hops = fake.seen_by(RS);
    assert_eq!(jtis(&hops).len(), 2);
    assert_eq!(hops[1].claims()["htu"], "https://api.example.com/there");
    let elsewhere = &fake.seen_by("elsewhere.example")[0];
    assert!(elsewhere.headers.is_empty(), "neither token nor proof");
}

#[tokio::test]
async fn t23_nonces_are_kept_without_any_setting() {
    let fake = Fake::new(|_, _| and(ok(), "dpop-nonce", "n"));
    let dpop = DpopLayer::new(a3_key());
    for _ in 0..2 {
        let service = dpop.layer(fake.clone());
        service.oneshot(owned(get(API))).await.unwrap();
    }
    assert_eq!(nonces(&fake.seen()), [None, some("n")]);
}

#[tokio::test]
async fn t24_when_the_retries_are_used_up_nothing_passes_for_success() {
    let fake = api(|seen| nonce_challenge(&format!("n{}", seen.number)));
    let last = stack(&fake).oneshot(get(API)).await.unwrap();
    assert_eq!(
        (last.status().as_u16(), &last.headers()["dpop-nonce"]),
        (401, &"n2".parse().unwrap())
    );
    assert_eq!(text(last).await, "challenge");

    let fake = Fake::new(|_, n| token_nonce_challenge(&format!("n{n}")));
    let error = find(&stack(&fake).oneshot(get(API)).await.unwrap_err());
    assert_eq!(error.oauth_error().unwrap().code(), "use_dpop_nonce");
}

#[tokio::test]
async fn t26_a_401_that_no_other_sending_can_mend_is_sent_once() {
    for challenge in [
        "",
        "DPoP",
        r#"DPoP algs="ES256""#,
        r#"Bearer realm="api""#,
        r#"Basic realm="api""#,
        r#"DPoP error="insufficient_scope""#,
        r#"DPoP error="invalid_request""#,
        r#"DPoP error="invalid_dpop_proof""#,
        r#"DPoP error="account_locked", error_description="invalid_token""#,
    ] {
        let fake = api(move |_| match challenge {
            "" => answer(401, &[], ""),
            challenge => answer(401, &[("www-authenticate", challenge)], ""),
        });
        let answer = stack(&fake).oneshot(post(API)).await.unwrap();
        let came = (answer.status().as_u16(), fake.hits(AS), fake.hits(RS));
        assert_eq!(came, (401, 1, 1), "{challenge}");
    }
}

#[tokio::test(start_paused = true)]
async fn t29_a_nonce_is_used_until_the_server_gives_another() {
    let nonce = Arc::new(Mutex::new("n1"));
    let fake = {
        let nonce = nonce.clone();
        Fake::new(move |seen, _| {
            let wanted = *nonce.lock().unwrap();
            match seen.nonce().as_deref() == Some(wanted) {
                true => ok(),
                false => nonce_challenge(wanted),
            }
        })
    };
    let dpop = DpopLayer::new(a3_key());
    let sends = async || {
        let before = fake.hits(RS);
        let service = dpop.layer(fake.clone());
        assert_eq!(
            service.oneshot(owned(get(API))).await.unwrap().status(),
            200
        );
        fake.hits(RS) - before
    };
    assert_eq!(sends().await, 2);
    tokio::time::sleep(secs(30 * 86_400)).await;
    assert_eq!(sends().await, 1, "after a month it is as good as before");
    *nonce.lock().unwrap() = "n2";
    assert_eq!(sends().await, 2, "after a moment it may be gone");
    assert_eq!(sends().await, 1);
}
