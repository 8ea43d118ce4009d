//! Tokens by hand: insisting on a new one, forgetting, asking for the token itself, and tokens for requests
//! that ask for something of their own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::{
    API, Fake, NEVER, a3_key, answer, bench,
    bench::{
        AS, Outcome, RS, Stack, all, call, callers, find, herd, ms, request, secs, servers, slowest,
    },
    get, ok, refusal, token,
};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower_dpop::{DpopLayer, ForceRenewal, TokenLayer, TokenParameters};

fn layers(fake: &Fake) -> (TokenLayer, Stack) {
    bench::bench(fake, DpopLayer::new(a3_key()), request())
}

fn insisting() -> Request<Full<Bytes>> {
    let mut request = get(API);
    request.extensions_mut().insert(ForceRenewal::now());
    request
}

#[tokio::test(start_paused = true)]
async fn a_hundred_that_insist_cost_one_token_request() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let (_, stack) = layers(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(ms(1)).await;
    let insisting: Vec<_> = (0..100).map(|_| call(&stack, insisting())).collect();
    // Others go on meanwhile, without waiting.
    sleep(ms(10)).await;
    let others = herd(&stack, 20).await;
    assert!(others.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&others), Duration::ZERO);
    let outcomes = all(insisting).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&outcomes), ms(100));
    assert_eq!(fake.hits(AS), 2);
    let served = fake.seen_by(RS);
    let with = |token: &str| served.iter().filter(|seen| seen.token() == token).count();
    assert_eq!((with("t0"), with("t1")), (1 + 20, 100));
}

#[tokio::test(start_paused = true)]
async fn a_token_on_its_way_since_before_is_not_new_enough() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let (_, stack) = layers(&fake);
    let first = call(&stack, get(API));
    sleep(ms(50)).await;
    let outcome = call(&stack, insisting()).await.unwrap();
    assert!(outcome.is_ok());
    assert_eq!(outcome.took, ms(50 + 100), "for the one, and for its own");
    assert_eq!(first.await.unwrap().took, ms(100));
    assert_eq!(fake.hits(AS), 2);
    assert_eq!(fake.seen_by(RS)[1].token(), "t1");
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_request_do_not_insist_anew() {
    let fake = servers(300, |_| true);
    let (_, stack) = layers(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(secs(1)).await;
    let request = insisting();
    for _ in 0..5 {
        assert_eq!(
            stack
                .clone()
                .oneshot(request.clone())
                .await
                .unwrap()
                .status(),
            200
        );
        sleep(secs(2)).await;
    }
    assert_eq!(fake.hits(AS), 2);
    // Another one that insists does.
    stack.oneshot(insisting()).await.unwrap();
    assert_eq!(fake.hits(AS), 3);
}

#[tokio::test(start_paused = true)]
async fn who_insists_in_vain_has_an_error_and_the_others_the_old_token() {
    for delay in [ms(100), NEVER] {
        let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
            (Some(AS), 0) => token("t0", 300),
            (Some(AS), _) => answer(500, &[], ""),
            _ => ok(),
        })
        .delay_by(move |seen| match (seen.uri.host(), seen.number) {
            (Some(AS), 1..) => delay,
            _ => Duration::ZERO,
        });
        let (_, stack) = layers(&fake);
        stack.clone().oneshot(get(API)).await.unwrap();
        sleep(secs(1)).await;
        let in_vain: Vec<_> = (0..10).map(|_| call(&stack, insisting())).collect();
        let others = callers(&stack, API, 150, ms(100)).await;
        assert!(others.iter().all(Outcome::is_ok));
        assert_eq!(slowest(&others), Duration::ZERO);
        for outcome in all(in_vain).await {
            assert!(outcome.error().is_token_request());
            assert_eq!(outcome.took, delay.min(secs(10)));
        }
        assert_eq!(fake.hits(AS), 2, "nobody else needs one");
    }
}

#[tokio::test(start_paused = true)]
async fn who_insists_does_not_press_a_server_in_trouble() {
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => token("t0", 300),
        (Some(AS), _) => refusal("temporarily_unavailable"),
        _ => ok(),
    });
    let (_, stack) = layers(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    let start = Instant::now();
    let mut refused = 0;
    while start.elapsed() < secs(10) {
        sleep(ms(10)).await;
        let outcome = call(&stack, insisting()).await.unwrap();
        assert_eq!(outcome.took, Duration::ZERO);
        assert_eq!(
            outcome.error().oauth_error().unwrap().code(),
            "temporarily_unavailable"
        );
        refused += 1;
    }
    assert!(refused > 900);
    assert!(fake.hits(AS) <= 14, "{}", fake.hits(AS));
}

#[tokio::test(start_paused = true)]
async fn the_token_itself_can_be_had_before_the_first_request() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let (tokens, stack) = layers(&fake);
    // Two that ask for it, and a request, all at once: one fetch.
    let (one, two, request) = tokio::join!(
        tokens.access_token(),
        tokens.access_token(),
        stack.clone().oneshot(get(API)),
    );
    assert_eq!((one.unwrap().secret(), two.unwrap().secret()), ("t0", "t0"));
    assert_eq!(request.unwrap().status(), 200);
    assert_eq!(fake.hits(AS), 1);
    let outcomes = herd(&stack, 10).await;
    assert_eq!(slowest(&outcomes), Duration::ZERO);
    // What is due is handed out like anywhere else.
    sleep(secs(270)).await;
    let start = Instant::now();
    assert_eq!(tokens.access_token().await.unwrap().secret(), "t0");
    assert_eq!(start.elapsed(), Duration::ZERO);
    sleep(ms(101)).await;
    assert_eq!(tokens.access_token().await.unwrap().secret(), "t1");
    assert_eq!(fake.hits(AS), 2);
}

#[tokio::test(start_paused = true)]
async fn the_token_itself_fails_as_a_request_would() {
    let fake = Fake::new(|_, _| refusal("invalid_client"));
    let (tokens, stack) = layers(&fake);
    let error = tokens.access_token().await.unwrap_err();
    assert!(error.is_permanent());
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    let same = find(&stack.oneshot(get(API)).await.unwrap_err());
    assert_eq!(same.to_string(), error.to_string());
    assert_eq!(fake.hits(AS), 1);
    let no_resource = TokenParameters::new().resource("no URI");
    let error = tokens.access_token_for(&no_resource).await.unwrap_err();
    assert!(error.is_config(), "{error}");
    assert_eq!(fake.hits(AS), 1, "nothing is sent for it");
}

#[tokio::test(start_paused = true)]
async fn forgotten_tokens_are_fetched_anew() {
    let fake = servers(300, |_| true);
    let (tokens, stack) = layers(&fake);
    let orders = TokenParameters::new().scope("orders");
    for round in 0..3 {
        // Two tokens each time: the layer's own, and the one of a scope.
        for _ in 0..5 {
            let own = tokens.access_token().await.unwrap();
            assert_eq!(own.secret(), format!("t{}", 2 * round));
            let of_orders = tokens.access_token_for(&orders).await.unwrap();
            assert_eq!(of_orders.secret(), format!("t{}", 2 * round + 1));
            stack.clone().oneshot(get(API)).await.unwrap();
            assert_eq!(fake.seen_by(RS).last().unwrap().token(), own.secret());
        }
        tokens.forget_tokens();
    }
    assert_eq!(fake.hits(AS), 6);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_token_that_is_forgotten_waits_for_the_next() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let (tokens, stack) = layers(&fake);
    let waiting: Vec<_> = (0..20).map(|_| call(&stack, get(API))).collect();
    sleep(ms(50)).await;
    tokens.forget_tokens();
    let outcomes = all(waiting).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&outcomes), ms(150));
    assert_eq!(fake.hits(AS), 2);
    assert!(fake.seen_by(RS).iter().all(|seen| seen.token() == "t1"));
    // The first fetch has ended meanwhile, and has brought its token to nobody.
    assert_eq!(tokens.access_token().await.unwrap().secret(), "t1");
}

#[tokio::test(start_paused = true)]
async fn forgetting_does_not_press_a_server_in_trouble() {
    let fake = Fake::new(|_, _| answer(503, &[], ""));
    let (tokens, _) = layers(&fake);
    let start = Instant::now();
    while start.elapsed() < secs(10) {
        tokens.access_token().await.unwrap_err();
        tokens.forget_tokens();
        sleep(ms(10)).await;
    }
    assert!(fake.hits(AS) <= 14, "{}", fake.hits(AS));
}

// Requests that ask for something of their own.

/// The tokens are named by what was asked for and by how many came before.
fn by_scope(slow: &'static str) -> Fake {
    let issued = std::sync::Mutex::new(HashMap::<_, usize>::new());
    Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => {
            let scope = seen.parameter("scope").unwrap();
            let mut issued = issued.lock().unwrap();
            let number = issued.entry(scope.clone()).or_default();
            *number += 1;
            token(&format!("{scope}.{number}"), 3_000)
        }
        _ => ok(),
    })
    .delay_by(move |seen| match seen.parameter("scope") {
        Some(scope) if scope == slow => secs(5),
        _ => Duration::ZERO,
    })
}

fn scope(scope: impl Into<String>) -> TokenParameters {
    TokenParameters::new().scope(scope)
}

#[tokio::test(start_paused = true)]
async fn each_combination_has_a_token_of_its_own() {
    let fake = by_scope("");
    let (tokens, stack) = layers(&fake);
    for _ in 0..3 {
        for (parameters, token) in [
            (None, "api.1"),
            // Nothing of its own is the layer's own.
            (Some(TokenParameters::new()), "api.1"),
            (Some(scope("orders")), "orders.1"),
            (Some(scope("bills")), "bills.1"),
            (
                Some(scope("bills").resource("urn:example:bills")),
                "bills.2",
            ),
            (Some(scope("bills").audience("bills")), "bills.3"),
            (Some(TokenParameters::new().audience("bills")), "api.2"),
        ] {
            let mut request = get(API);
            if let Some(parameters) = parameters.clone() {
                request.extensions_mut().insert(parameters);
            }
            stack.clone().oneshot(request).await.unwrap();
            let seen = fake.seen_by(RS).pop().unwrap();
            assert_eq!(seen.token(), token);
            assert!(seen.extensions.get::<TokenParameters>().is_none());
            if let Some(parameters) = parameters {
                let had = tokens.access_token_for(&parameters).await.unwrap();
                assert_eq!(had.secret(), token, "the same by hand");
            }
        }
    }
    let asked = fake.seen_by(AS);
    assert_eq!(asked.len(), 6);
    assert_eq!(asked[3].parameter("resource").unwrap(), "urn:example:bills");
    assert_eq!(asked[4].parameter("audience").unwrap(), "bills");
    assert_eq!(asked[5].parameter("audience").unwrap(), "bills");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_64_combinations_are_kept_and_the_oldest_idle_one_goes() {
    let fake = by_scope("s1");
    let (tokens, _) = layers(&fake);
    let had = async |n: usize| {
        let token = tokens.access_token_for(&scope(format!("s{n}"))).await;
        token.unwrap().secret().to_owned()
    };
    tokens.access_token().await.unwrap();
    for n in (0..64).filter(|n| *n != 1) {
        assert_eq!(had(n).await, format!("s{n}.1"));
    }
    // The 64th is on its way for a while.
    let on_its_way = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.access_token_for(&scope("s1")).await.unwrap() }
    });
    tokio::task::yield_now().await;
    assert_eq!(
        had(0).await,
        "s0.1",
        "all are kept, and this one was just used"
    );
    for n in (2..64).chain([0]) {
        assert_eq!(had(n).await, format!("s{n}.1"));
    }
    // It is the one that was not used for the longest time, but it is not idle: the next one goes.
    assert_eq!(had(64).await, "s64.1");
    assert_eq!(
        had(2).await,
        "s2.2",
        "it was the oldest idle one, and is fetched anew"
    );
    assert_eq!(on_its_way.await.unwrap().secret(), "s1.1");
    assert_eq!(had(1).await, "s1.1");
    // For 2 went 3; the layer's own does not count.
    assert_eq!(had(4).await, "s4.1");
    assert_eq!(had(3).await, "s3.2");
    assert_eq!(tokens.access_token().await.unwrap().secret(), "api.1");
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_place_was_taken_still_comes_to_those_who_wait() {
    let fake = servers(300, |_| true).slow(AS, secs(5));
    let (tokens, _) = layers(&fake);
    let all_busy: Vec<_> = (0..200)
        .map(|n| {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.access_token_for(&scope(format!("s{n}"))).await })
        })
        .collect();
    for busy in all_busy {
        busy.await.unwrap().unwrap();
    }
    assert_eq!(fake.hits(AS), 200);
}

#[tokio::test(start_paused = true)]
async fn insisting_and_combinations_go_together() {
    let fake = by_scope("");
    let (tokens, stack) = layers(&fake);
    tokens.access_token().await.unwrap();
    tokens.access_token_for(&scope("orders")).await.unwrap();
    sleep(secs(1)).await;
    let mut request = insisting();
    request.extensions_mut().insert(scope("orders"));
    stack.clone().oneshot(request).await.unwrap();
    assert_eq!(fake.seen_by(RS)[0].token(), "orders.2");
    assert_eq!(tokens.access_token().await.unwrap().secret(), "api.1");
}

#[tokio::test(start_paused = true)]
async fn forgetting_again_and_again_is_no_failure() {
    let fake = servers(300, |_| true).slow(AS, secs(5));
    let (tokens, stack) = layers(&fake);
    let waiting = call(&stack, get(API));
    for _ in 0..10 {
        sleep(secs(1)).await;
        tokens.forget_tokens();
    }
    assert!(waiting.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn insisting_is_no_licence_for_a_storm() {
    let fake = servers(3600, |_| false);
    let (_, stack) = layers(&fake);
    let insists = ForceRenewal::now();
    for _ in 0..1000 {
        let mut request = get(API);
        request.extensions_mut().insert(insists);
        stack.clone().oneshot(request).await.unwrap();
        sleep(ms(10)).await;
    }
    assert!(fake.hits(AS) <= 14, "{} fetches in 10 s", fake.hits(AS));
}

#[tokio::test]
async fn what_else_the_token_came_with_can_be_read() {
    let fake = Fake::new(|_, _| {
        let body = r#"{"access_token":"t","token_type":"DPoP","expires_in":300,"scope":"a b",
            "sub":"did:plc:\u0061bc","refresh_token":"r","amr":["pwd"]}"#;
        answer(200, &[], body)
    });
    let (tokens, _) = layers(&fake);
    let token = tokens.access_token().await.unwrap();
    assert_eq!(token.answer("sub"), Some("did:plc:abc"));
    assert_eq!(token.answer("scope"), Some("a b"));
    for none in [
        "access_token",
        "refresh_token",
        "expires_in",
        "amr",
        "id_token",
    ] {
        assert_eq!(token.answer(none), None, "{none}");
    }
}
