//! Grants under faults: F77 to F79 of the fault catalogue, and what else may befall a thing that is good once.
//!
//! The server ends the whole grant when a code or a refresh token comes twice, so one sent twice would be its end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "support/flows.rs"]
mod flows;
#[path = "support/grants.rs"]
mod grants;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use support::{
    Answer, Fake, a3_key, answer,
    bench::{AS, RS, runtime, secs},
    refusal,
    saves::saves,
    told::Told,
};
use tokio::time::timeout;
use tower_dpop::{
    BoxError, DpopKey, DpopLayer, Error, Grant, GrantStore, OAuthClient, PrivateKeyJwt,
    Registration, StoredGrant, TokenParameters, TokenRequest, testing::Nonces, token::Storing,
};
use tracing::Level;

use self::{
    flows::{Flow, LONG, at_last, distinct, own},
    grants::{
        ISSUER, LOST, NEVER, Scripted, UNREACHABLE, ask, by, code, exchange, given, later, layer,
        layer_of, sent, server,
    },
};

const CODE: &str = "authorization_code";

fn lost() -> Answer {
    answer(LOST, &[], "")
}

/// What may have been used up, by what became of its answer.
fn doubtful() -> [(Answer, &'static str); 6] {
    let torn = r#"{"access_token":"canary","token_type":"DPoP","refresh_token":"cana"#;
    [
        (lost(), "broke off"),
        (answer(NEVER, &[], ""), "never came"),
        (answer(502, &[], ""), "a gateway lost it"),
        (
            answer(504, &[("retry-after", "1")], ""),
            "a gateway gave up",
        ),
        (answer(200, &[], torn), "a part of it is missing"),
        (answer(200, &[], "<html>"), "another answer came"),
    ]
}

#[tokio::test(start_paused = true)]
async fn f77_a_code_whose_answer_was_lost_is_not_sent_again() {
    for (lost, why) in doubtful() {
        for once in [code().await, exchange().once()] {
            let fake = server(vec![lost.clone(), given("a", None)]);
            let tokens = layer(&fake, by(once));
            for _ in 0..5 {
                let error = ask(&tokens).await.unwrap_err();
                assert!(
                    error.is_grant_uncertain() && error.is_permanent(),
                    "{why}: {error:?}"
                );
                assert!(error.to_string().contains("grant anew"), "{error}");
                later().await;
            }
            assert_eq!(fake.hits(AS), 1, "{why}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f77_nor_is_a_refresh_token_that_came_of_it() {
    for (lost, why) in doubtful() {
        let fake = server(vec![given("a0", "canary-r1"), lost, given("a", None)]);
        let tokens = layer(&fake, by(code().await));
        ask(&tokens).await.unwrap();
        for _ in 0..5 {
            later().await;
            let error = ask(&tokens).await.unwrap_err();
            assert!(error.is_grant_uncertain(), "{why}: {error:?}");
        }
        assert_eq!(sent(&fake), [CODE, "canary-r1"], "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn f77_what_never_left_or_was_not_looked_at_is_sent_again() {
    let fake = server(vec![
        answer(UNREACHABLE, &[], ""),
        answer(503, &[], ""),
        answer(500, &[], "oops"),
        answer(429, &[], ""),
        answer(302, &[("location", "https://elsewhere.example/")], ""),
        given("a0", "canary-r1"),
        answer(UNREACHABLE, &[], ""),
        answer(503, &[], ""),
        given("a1", None),
    ]);
    let tokens = layer(&fake, by(code().await));
    let mut failed = 0;
    for _ in 0..9 {
        if let Err(error) = ask(&tokens).await {
            assert!(!error.is_grant_uncertain() && !error.is_grant_over());
            failed += 1;
        }
        later().await;
    }
    assert_eq!(failed, 7);
    let expected = [&[CODE; 6][..], &["canary-r1"; 3]].concat();
    assert_eq!(sent(&fake), expected);
}

/// Kept past a restart: else the next process would send what this one knows to be in doubt.
#[tokio::test(start_paused = true)]
async fn f77_nor_after_a_restart() {
    let file = Arc::new(Mutex::new(None::<StoredGrant>));
    let store = || {
        let (from, to) = (file.clone(), file.clone());
        Scripted {
            load: move || Ok(from.lock().unwrap().clone()),
            save: move |grant| {
                *to.lock().unwrap() = Some(grant);
                Ok(())
            },
        }
    };
    let fake = server(vec![given("a0", "canary-r1"), lost(), given("a", None)]);
    let tokens = layer(&fake, by(code().await).store(store()));
    ask(&tokens).await.unwrap();
    assert!(!file.lock().unwrap().as_ref().unwrap().is_uncertain());
    later().await;
    assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
    drop(tokens);

    let kept = file.lock().unwrap().clone().expect("a grant");
    assert!(kept.is_uncertain() && kept.refresh_token() == "canary-r1");
    let again = StoredGrant::from_json(kept.to_json().unwrap().as_bytes()).unwrap();
    let tokens = layer(&fake, by(Grant::stored(&again)).store(store()));
    assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
    assert_eq!(sent(&fake), [CODE, "canary-r1"]);
    // A process that shares the store hears of it, too.
    let known = StoredGrant::new(&a3_key(), "canary-r1", ISSUER, "app", None);
    let tokens = layer(&fake, by(Grant::stored(&known)).store(store()));
    assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
    assert_eq!(sent(&fake), [CODE, "canary-r1"]);
    // Where the server allows it, it is sent once more, and known again.
    let request = by(Grant::stored(&again))
        .store(store())
        .retry_lost_refresh();
    ask(&layer(&fake, request)).await.unwrap();
    assert_eq!(sent(&fake), [CODE, "canary-r1", "canary-r1"]);
    assert!(!file.lock().unwrap().as_ref().unwrap().is_uncertain());
}

/// T8: at servers that accept it. The same code is never sent twice, nor the same refresh token three times.
#[tokio::test(start_paused = true)]
async fn f77_one_more_try_is_for_refresh_tokens_only_and_one() {
    let fake = server(vec![lost(), given("a", None)]);
    let tokens = layer(&fake, by(code().await).retry_lost_refresh());
    for _ in 0..3 {
        assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
        later().await;
    }
    assert_eq!(sent(&fake), [CODE]);

    let fake = server(vec![
        given("a0", "canary-r1"),
        lost(),
        given("a1", "canary-r2"),
        lost(),
        lost(),
        given("a", None),
    ]);
    let tokens = layer(&fake, by(code().await).retry_lost_refresh());
    let mut uncertain = Vec::new();
    for _ in 0..7 {
        let error = ask(&tokens).await.err();
        uncertain.push(error.as_ref().is_some_and(Error::is_grant_uncertain));
        later().await;
    }
    assert_eq!(
        sent(&fake),
        [CODE, "canary-r1", "canary-r1", "canary-r2", "canary-r2"]
    );
    assert_eq!(uncertain, [false, false, false, false, true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn f77_callers_that_give_up_cost_nothing() {
    let fake = server(vec![given("a0", "canary-r1"), given("a1", "canary-r2")]).delay(secs(30));
    let tokens = layer(&fake, by(code().await));
    for _ in 0..4 {
        assert!(timeout(secs(5), ask(&tokens)).await.is_err());
    }
    assert_eq!(ask(&tokens).await.unwrap(), "a0");
    later().await;
    for _ in 0..4 {
        assert!(timeout(secs(5), ask(&tokens)).await.is_err());
    }
    assert_eq!(ask(&tokens).await.unwrap(), "a1");
    assert_eq!(sent(&fake), [CODE, "canary-r1"]);
}

#[test]
fn f77_a_runtime_that_dies_in_mid_flight_leaves_the_code_uncertain() {
    let fake = server(vec![answer(NEVER, &[], ""), given("a", None)]);
    let first = runtime();
    let tokens = first.block_on(async {
        let tokens = layer(&fake, by(code().await));
        let asking = async { ask(&tokens).await };
        let sent = async {
            while fake.hits(AS) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = asking => panic!("it never answers"),
            () = sent => {}
        }
        tokens
    });
    drop(first);
    let error = runtime().block_on(ask(&tokens)).unwrap_err();
    assert!(error.is_grant_uncertain(), "{error:?}");
    assert_eq!(fake.hits(AS), 1);
}

/// The server has them, and the client does not know: over TCP, with a server that would take a second use for theft.
#[tokio::test]
async fn f77_an_answer_that_is_lost_over_tcp_does_not_cost_the_family() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let app = flow.app().await;
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    let first = tokens.access_token().await.unwrap();

    server.lose_answers(1);
    for _ in 0..5 {
        tokens.forget_tokens();
        let error = tokens.access_token().await.unwrap_err();
        assert!(error.is_grant_uncertain(), "{error:?}");
    }
    assert_eq!(flow.asked().len(), 2);
    distinct(&flow.sent("refresh_token"));
    // Had it come twice, all that came of the grant were revoked.
    assert_eq!(flow.get_with(&first).await, StatusCode::OK);

    // And the code itself.
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    server.lose_answers(1);
    for _ in 0..5 {
        assert!(
            tokens
                .access_token()
                .await
                .unwrap_err()
                .is_grant_uncertain()
        );
        tokens.forget_tokens();
    }
    assert_eq!(flow.asked().len(), 3);
    distinct(&flow.sent("code"));
    let statuses: Vec<_> = flow.asked().iter().map(|seen| seen.status()).collect();
    assert_eq!(statuses, [Some(StatusCode::OK); 3], "all had their effect");
}

#[tokio::test]
async fn f77_a_server_that_is_down_or_busy_over_tcp_costs_nothing() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let app = flow.app().await;
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    for round in 0..2 {
        server.stop().await;
        let error = tokens.access_token().await.unwrap_err();
        assert!(
            error.is_token_request() && !error.is_grant_uncertain(),
            "{error:?}"
        );
        server.restart().await.unwrap();
        server.fail(2, StatusCode::SERVICE_UNAVAILABLE);
        let token = timeout(LONG, at_last(&tokens)).await.unwrap().unwrap();
        assert_eq!(flow.get_with(&token).await, StatusCode::OK);
        assert_eq!(flow.asked().len(), 3 * (round + 1));
        tokens.forget_tokens();
    }
    // One good answer for the code, one for the refresh token.
    let asked = flow.asked();
    let good = asked
        .iter()
        .filter(|seen| seen.status() == Some(StatusCode::OK));
    assert_eq!(good.count(), 2);
}

#[tokio::test]
async fn f77_a_gateway_that_lost_it_over_tcp() {
    for status in [StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT] {
        let flow = Flow::start().await;
        let app = flow.app().await;
        let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
        tokens.access_token().await.unwrap();
        flow.authorization_server.fail(1, status);
        for _ in 0..3 {
            tokens.forget_tokens();
            let error = tokens.access_token().await.unwrap_err();
            assert!(error.is_grant_uncertain(), "{error:?}");
        }
        assert_eq!(flow.asked().len(), 2, "{status}");
    }
}

/// What was answered in time or not is decided by the server before it waits.
#[tokio::test]
async fn f77_a_server_that_is_too_slow_over_tcp() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let app = flow.app().await;
    let request = TokenRequest::new(app.clone(), flow.code(&app).await);
    let tokens = flow.tokens(request.timeout(secs(2)));
    tokens.access_token().await.unwrap();
    server.delay(LONG);
    tokens.forget_tokens();
    let error = tokens.access_token().await.unwrap_err();
    assert!(error.is_grant_uncertain(), "{error:?}");
    let source = std::error::Error::source(&error).unwrap();
    let source: &Error = source.downcast_ref().unwrap();
    assert!(source.is_timeout(), "{source:?}");
    server.delay(Duration::ZERO);
    tokens.forget_tokens();
    tokens.access_token().await.unwrap_err();
    assert_eq!(flow.asked().len(), 2);
}

/// The server goes down with the request in its hands.
#[tokio::test]
async fn f77_a_server_that_dies_with_it_over_tcp() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let app = flow.app().await;
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    tokens.access_token().await.unwrap();
    tokens.forget_tokens();
    server.delay(LONG);
    let asking = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.access_token().await }
    });
    while flow.asked().len() < 2 || flow.asked()[1].status().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.stop().await;
    let error = timeout(LONG, asking).await.unwrap().unwrap().unwrap_err();
    assert!(error.is_grant_uncertain(), "{error:?}");
    server.delay(Duration::ZERO);
    server.restart().await.unwrap();
    tokens.forget_tokens();
    assert!(
        tokens
            .access_token()
            .await
            .unwrap_err()
            .is_grant_uncertain()
    );
    assert_eq!(flow.asked().len(), 2);
}

#[tokio::test]
async fn f77_one_more_try_over_tcp() {
    for (grace, works) in [(LONG, true), (Duration::ZERO, false)] {
        let flow = Flow::start().await;
        let server = &flow.authorization_server;
        server.refresh_token_grace(grace);
        let app = flow.app().await;
        let request = TokenRequest::new(app.clone(), flow.code(&app).await).retry_lost_refresh();
        let tokens = flow.tokens(request);
        tokens.access_token().await.unwrap();
        tokens.forget_tokens();
        server.lose_answers(1);
        let error = tokens.access_token().await.unwrap_err();
        assert!(!error.is_grant_uncertain(), "{error:?}");
        let mut renewed = None;
        for _ in 0..40 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if flow.asked().len() == 3 {
                break;
            }
            renewed = Some(tokens.access_token().await);
        }
        match renewed.unwrap() {
            Ok(token) => assert!(works && flow.get_with(&token).await == StatusCode::OK),
            Err(error) => {
                assert!(!works);
                assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
            }
        }
        let sent = flow.sent("refresh_token");
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[0], sent[1]);
    }
}

/// T13 and section 8 of RFC 9449: all is made anew for the same code.
#[tokio::test]
async fn a_nonce_challenge_gets_a_new_proof_and_a_new_assertion_for_the_same_code() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let client_key = DpopKey::generate().unwrap();
    server.add_client_with_key("keyed", &client_key);
    server.strict_assertion_audience(true);
    let registration = Registration::new(flow.metadata().await, "keyed")
        .private_key_jwt(PrivateKeyJwt::new(client_key));
    for nonces in [Nonces::required(), Nonces::one_time()] {
        let grant = flow.code(&registration).await;
        let before = flow.asked().len();
        server.nonces(nonces);
        server.rotate_nonce();
        let tokens = flow.tokens(TokenRequest::new(registration.clone(), grant));
        for _ in 0..3 {
            let token = tokens.access_token().await.unwrap();
            assert_eq!(flow.get_with(&token).await, StatusCode::OK);
            tokens.forget_tokens();
        }
        server.nonces(Nonces::off());
        let asked = &flow.asked()[before..];
        let refused: Vec<_> = asked.iter().filter_map(|seen| seen.refused()).collect();
        assert!(
            !refused.is_empty() && refused.iter().all(|why| why.contains("nonce")),
            "{refused:?}"
        );
        let claims = |name| asked.iter().map(move |seen| seen.claim(name).unwrap());
        distinct(&claims("jti").collect::<Vec<_>>());
        let assertions = asked
            .iter()
            .map(|seen| flows::parameter(seen, "client_assertion").unwrap());
        let jti = assertions.map(|jwt| support::claims(&jwt)["jti"].to_string());
        distinct(&jti.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_promised_key_swapped_is_found_before_anything_is_sent() {
    let flow = Flow::start().await;
    let app = flow.app().await;
    let grant = flow.code(&app).await;
    let before = flow.authorization_server.request_count();
    let other = DpopLayer::new(DpopKey::generate().unwrap());
    let audience = tower_dpop::Audience::origins([flow.api.origin()]).unwrap();
    let request = TokenRequest::new(app, grant.clone());
    let error =
        tower_dpop::TokenLayer::new(&other, flow.http.clone(), request, audience).unwrap_err();
    assert!(error.is_other_key(), "{error:?}");
    assert_eq!(flow.authorization_server.request_count(), before);
    // It is as good as before.
    let tokens = flow.tokens(TokenRequest::new(flow.app().await, grant));
    tokens.access_token().await.unwrap();
}

#[tokio::test]
async fn all_that_share_one_rotating_refresh_token_over_tcp_send_each_once() {
    let flow = Flow::start().await;
    let app = flow.app().await;
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    let asking = (0..30).map(|number| {
        let tokens = tokens.clone();
        tokio::spawn(async move {
            let parameters = match number % 3 {
                0 => TokenParameters::new(),
                1 => own("a"),
                _ => own("b"),
            };
            let token = tokens.access_token_for(&parameters).await;
            if number % 5 == 0 {
                tokens.forget_tokens();
            }
            token
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        let token = timeout(LONG, asking).await.unwrap().unwrap().unwrap();
        assert_eq!(flow.get_with(&token).await, StatusCode::OK);
    }
    distinct(&flow.sent("refresh_token"));
    assert_eq!(flow.sent("code").len(), 1);
    assert!(flow.asked().iter().all(|seen| seen.refused().is_none()));
}

// What is stored.

/// What was saved, with the number of the API's requests before it.
type Saved = Arc<Mutex<Vec<(String, usize)>>>;

#[tokio::test(start_paused = true)]
async fn f78_a_refresh_token_is_stored_before_its_access_token_is_used() {
    for grant in [code().await, exchange()] {
        let fake = server(vec![
            given("a0", "canary-r1"),
            given("a1", "canary-r2"),
            given("a2", "canary-r2"),
        ]);
        let saved = Saved::default();
        let store = {
            let (fake, saved) = (fake.clone(), Arc::clone(&saved));
            saves(move |token| {
                let (fake, saved) = (fake.clone(), Arc::clone(&saved));
                async move {
                    tokio::time::sleep(secs(1)).await;
                    saved.lock().unwrap().push((token, fake.hits(RS)));
                    Ok(())
                }
            })
        };
        let dpop = DpopLayer::new(a3_key());
        let tokens = layer_of(&dpop, &fake, by(grant).store(store));
        let stack = support::bench::over(tokens, dpop, &fake);
        for _ in 0..3 {
            let outcomes = support::bench::herd(&stack, 3).await;
            assert!(outcomes.iter().all(support::bench::Outcome::is_ok));
            later().await;
        }
        let expected = [("canary-r1".to_owned(), 0), ("canary-r2".to_owned(), 3)];
        assert_eq!(*saved.lock().unwrap(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn f78_a_store_that_fails_keeps_both_and_is_tried_again() {
    let told = Told::default();
    let _listening = told.listen();
    let broken = Arc::new(AtomicBool::new(true));
    let saved = Arc::new(Mutex::new(Vec::new()));
    let store = {
        let (broken, saved) = (Arc::clone(&broken), Arc::clone(&saved));
        saves(move |token| {
            let result = match broken.load(Ordering::Relaxed) {
                true => Err(BoxError::from(format!("no room for {token}\u{1b}"))),
                false => {
                    saved.lock().unwrap().push(token);
                    Ok(())
                }
            };
            std::future::ready(result)
        })
    };
    let fake = server(vec![
        given("a0", "canary-r1"),
        given("a1", "canary-r2"),
        refusal("invalid_scope"),
        given("a2", None),
    ]);
    let tokens = layer(&fake, by(code().await).store(store));
    assert_eq!(ask(&tokens).await.unwrap(), "a0");
    later().await;
    assert_eq!(ask(&tokens).await.unwrap(), "a1");
    assert!(told.count(Level::WARN, "could not be stored") >= 2);
    assert!(!told.all().contains("canary"), "{}", told.all());
    broken.store(false, Ordering::Relaxed);
    later().await;
    // Even if the refresh that comes after it brings nothing.
    ask(&tokens).await.unwrap_err();
    assert_eq!(
        *saved.lock().unwrap(),
        ["canary-r2"],
        "the one that is good"
    );
    later().await;
    ask(&tokens).await.unwrap();
    assert_eq!(saved.lock().unwrap().len(), 1);
    assert_eq!(sent(&fake), [CODE, "canary-r1", "canary-r2", "canary-r2"]);
}

/// The task that fetches ends after the answer and before all is saved. What was learned is not lost with it.
#[test]
fn f78_what_ends_between_the_answer_and_the_store_loses_nothing() {
    let saved = Arc::new(Mutex::new(Vec::new()));
    let tries = Arc::new(AtomicUsize::new(0));
    let store = {
        let (saved, tries) = (Arc::clone(&saved), Arc::clone(&tries));
        saves(move |token| {
            let (saved, number) = (Arc::clone(&saved), tries.fetch_add(1, Ordering::Relaxed));
            async move {
                if number == 0 {
                    std::future::pending::<()>().await;
                }
                saved.lock().unwrap().push(token);
                Ok(())
            }
        })
    };
    let fake = server(vec![given("a0", "canary-r1"), given("a1", None)]);
    let first = runtime();
    let tokens = first.block_on(async {
        let tokens = layer(&fake, by(code().await).store(store));
        let asking = async { ask(&tokens).await };
        let saving = async {
            while tries.load(Ordering::Relaxed) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = asking => panic!("it is never stored"),
            () = saving => {}
        }
        tokens
    });
    drop(first);
    assert_eq!(tries.load(Ordering::Relaxed), 1);
    let token = runtime().block_on(ask(&tokens)).unwrap();
    assert_eq!(token, "a1", "the first one went down with its task");
    assert_eq!(*saved.lock().unwrap(), ["canary-r1"]);
    assert_eq!(sent(&fake), [CODE, "canary-r1"]);
}

#[tokio::test(start_paused = true)]
async fn f79_an_answer_without_a_refresh_token_leaves_the_old_one() {
    for (name, grant) in [
        (CODE, code().await),
        (grants::EXCHANGE, exchange()),
        ("canary-r1", Grant::refresh_token("canary-r1")),
    ] {
        let empty =
            r#"{"access_token":"a","token_type":"DPoP","expires_in":100,"refresh_token":""}"#;
        let null =
            r#"{"access_token":"a","token_type":"DPoP","expires_in":100,"refresh_token":null}"#;
        let fake = server(vec![
            given("a0", "canary-r1"),
            given("a1", None),
            answer(200, &[], empty),
            answer(200, &[], null),
            given("a4", "canary-r1"),
            given("a5", "canary-r2"),
            given("a6", None),
        ]);
        let tokens = layer(&fake, by(grant));
        for _ in 0..7 {
            ask(&tokens).await.unwrap();
            later().await;
        }
        let expected = [&[name][..], &["canary-r1"; 5], &["canary-r2"]].concat();
        assert_eq!(sent(&fake), expected);
    }
}

fn stored(key: &DpopKey, server: &str, client: &str, token: &str) -> StoredGrant {
    StoredGrant::new(key, token, server, client, None)
}

fn refresh() -> TokenRequest {
    by(Grant::refresh_token("canary-r0"))
}

#[tokio::test(start_paused = true)]
async fn a_store_of_somebody_else_is_not_used() {
    let other = DpopKey::generate().unwrap();
    for (grant, is_right) in [
        (
            stored(&other, ISSUER, "app", "canary-r9"),
            Error::is_other_key as fn(&Error) -> bool,
        ),
        (
            stored(&a3_key(), ISSUER, "other", "canary-r9"),
            Error::is_store,
        ),
        (
            stored(&a3_key(), "https://other.example", "app", "canary-r9"),
            Error::is_store,
        ),
        // Nor if it is the same refresh token.
        (
            stored(&a3_key(), ISSUER, "other", "canary-r0"),
            Error::is_store,
        ),
    ] {
        let fake = server(vec![given("a", "canary-r1")]);
        let saves = Arc::new(AtomicUsize::new(0));
        let store = Scripted {
            load: move || Ok(Some(grant.clone())),
            save: {
                let saves = Arc::clone(&saves);
                move |_| {
                    saves.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                }
            },
        };
        let tokens = layer(&fake, refresh().store(store));
        for _ in 0..2 {
            let error = ask(&tokens).await.unwrap_err();
            assert!(is_right(&error), "{error:?}");
            later().await;
        }
        assert_eq!(fake.hits(AS), 0, "nothing is sent");
        assert_eq!(saves.load(Ordering::Relaxed), 0, "nothing is overwritten");
    }
}

#[tokio::test(start_paused = true)]
async fn f80_what_cannot_be_read_may_have_been_used_up_by_another() {
    let failing: fn() -> Result<Option<StoredGrant>, BoxError> = || Err("no such disk".into());
    let panicking: fn() -> Result<Option<StoredGrant>, BoxError> = || panic!("a bug");
    for load in [failing, panicking] {
        let fake = server(vec![given("a0", "canary-r1"), given("a1", None)]);
        let broken = Arc::new(AtomicBool::new(true));
        let store = Scripted {
            load: {
                let broken = broken.clone();
                move || match broken.load(Ordering::Relaxed) {
                    true => load(),
                    false => Ok(None),
                }
            },
            save: |_| Ok(()),
        };
        let tokens = layer(&fake, refresh().store(store));
        let error = ask(&tokens).await.unwrap_err();
        assert!(error.is_store() && !error.is_permanent(), "{error}");
        assert_eq!(fake.hits(AS), 0);
        broken.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            later().await;
            ask(&tokens).await.unwrap();
        }
        assert_eq!(sent(&fake), ["canary-r0", "canary-r1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_changes_nothing() {
    let fake = server(vec![given("a0", "canary-r1"), given("a1", None)]);
    let store = Scripted {
        load: || Ok(None),
        save: |_| Ok(()),
    };
    let tokens = layer(&fake, refresh().store(store));
    for _ in 0..2 {
        ask(&tokens).await.unwrap();
        later().await;
    }
    assert_eq!(sent(&fake), ["canary-r0", "canary-r1"]);
}

/// It has no lock: another process came in between, and used up what this one was just about to send.
#[tokio::test(start_paused = true)]
async fn f80_a_store_that_changed_meanwhile_is_read_again_after_a_refusal() {
    let current = Arc::new(Mutex::new(stored(&a3_key(), ISSUER, "app", "canary-r0")));
    let fake = {
        let current = Arc::clone(&current);
        Fake::new(move |seen, _| match seen.parameter("refresh_token") {
            Some(token) if token == "canary-r0" => {
                *current.lock().unwrap() = stored(&a3_key(), ISSUER, "app", "canary-r7");
                refusal("invalid_grant")
            }
            Some(token) if token == "canary-r7" => given("a", "canary-r8"),
            _ => refusal("invalid_request"),
        })
    };
    let store = Scripted {
        load: {
            let current = Arc::clone(&current);
            move || Ok(Some(current.lock().unwrap().clone()))
        },
        save: {
            let current = Arc::clone(&current);
            move |grant| {
                *current.lock().unwrap() = grant;
                Ok(())
            }
        },
    };
    let tokens = layer(&fake, refresh().store(store));
    assert_eq!(ask(&tokens).await.unwrap(), "a", "nobody notices");
    assert_eq!(sent(&fake), ["canary-r0", "canary-r7"]);
    assert_eq!(current.lock().unwrap().refresh_token(), "canary-r8");
}

/// What another process got is taken even by one that does not know what became of its own.
#[tokio::test(start_paused = true)]
async fn f80_another_processes_refresh_token_ends_the_doubt() {
    let current = Arc::new(Mutex::new(stored(&a3_key(), ISSUER, "app", "canary-r0")));
    let fake = server(vec![lost(), given("a", None)]);
    let store = Scripted {
        load: {
            let current = Arc::clone(&current);
            move || Ok(Some(current.lock().unwrap().clone()))
        },
        save: |_| Ok(()),
    };
    let tokens = layer(&fake, refresh().store(store));
    for _ in 0..2 {
        assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
        later().await;
    }
    *current.lock().unwrap() = stored(&a3_key(), ISSUER, "app", "canary-r5");
    assert_eq!(ask(&tokens).await.unwrap(), "a");
    assert_eq!(sent(&fake), ["canary-r0", "canary-r5"]);
}

/// A store whose lock others hold for so long.
struct Busy(Duration, Result<(), &'static str>);

impl GrantStore for Busy {
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        Box::pin(async { Ok(None) })
    }

    fn save(&self, _: StoredGrant) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear(&self) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn lock(&self) -> Storing<'_, Box<dyn Send>> {
        Box::pin(async {
            tokio::time::sleep(self.0).await;
            self.1?;
            let lock: Box<dyn Send> = Box::new(());
            Ok(lock)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn f80_without_the_lock_nothing_is_sent() {
    for busy in [
        Busy(Duration::ZERO, Err("no lock")),
        Busy(secs(1_000_000), Ok(())),
    ] {
        let fake = server(vec![given("a", None)]);
        let tokens = layer(&fake, refresh().store(busy));
        let error = ask(&tokens).await.unwrap_err();
        assert!(error.is_store() && !error.is_grant_uncertain(), "{error}");
        assert_eq!(fake.hits(AS), 0);
    }
}

/// However long it waited for the others: the token is not older for it.
#[tokio::test(start_paused = true)]
async fn f80_waiting_for_the_lock_takes_nothing_of_a_tokens_life() {
    let fake = server(vec![given("a", "canary-r1")]);
    let tokens = layer(&fake, refresh().store(Busy(secs(115), Ok(()))));
    assert_eq!(ask(&tokens).await.unwrap(), "a");
    tokio::time::sleep(secs(60)).await;
    assert_eq!(ask(&tokens).await.unwrap(), "a");
    assert_eq!(fake.hits(AS), 1, "it is still fresh");
}

/// A store with a lock, that several share.
#[derive(Clone)]
struct Shared {
    grant: Arc<Mutex<Option<StoredGrant>>>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    fn new(grant: impl Into<Option<StoredGrant>>) -> Self {
        Self {
            grant: Arc::new(Mutex::new(grant.into())),
            lock: Arc::default(),
        }
    }

    fn refresh_token(&self) -> String {
        let grant = self.grant.lock().unwrap();
        grant.as_ref().unwrap().refresh_token().to_owned()
    }
}

impl GrantStore for Shared {
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        Box::pin(async { Ok(self.grant.lock().unwrap().clone()) })
    }

    fn save(&self, grant: StoredGrant) -> Storing<'_, ()> {
        Box::pin(async {
            assert!(self.lock.try_lock().is_err(), "saved without the lock");
            *self.grant.lock().unwrap() = Some(grant);
            Ok(())
        })
    }

    fn clear(&self) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn lock(&self) -> Storing<'_, Box<dyn Send>> {
        Box::pin(async {
            let lock: Box<dyn Send> = Box::new(Arc::clone(&self.lock).lock_owned().await);
            Ok(lock)
        })
    }
}

/// One process logs in anew, which takes its user an hour; another one lives by the old grant meanwhile.
#[tokio::test(start_paused = true)]
async fn f80_nobody_waits_for_anothers_user() {
    let store = Shared::new(stored(&a3_key(), ISSUER, "app", "canary-r0"));
    let fake = Fake::new(|seen, _| {
        if seen.uri.path() == "/device" {
            let device = r#"{"device_code":"canary-d","user_code":"A","verification_uri":"https://as.example.com/",
                "expires_in":3600}"#;
            return answer(200, &[], device);
        }
        match seen.parameter("refresh_token") {
            Some(_) => given("a", None),
            None if seen.number < 200 => refusal("authorization_pending"),
            None => given("a", "canary-r1"),
        }
    });
    let dpop = DpopLayer::new(a3_key());
    let client = grants::client(&fake);
    let client = OAuthClient::new(&dpop, client, grants::registration()).unwrap();
    let device = client.device_authorization(&TokenParameters::new()).await;
    let request = by(Grant::device_code(&device.unwrap())).store(store.clone());
    let device = layer_of(&dpop, &fake, request);
    let login = tokio::spawn(async move { ask(&device).await });
    tokio::task::yield_now().await;
    let daemon = layer(&fake, refresh().store(store.clone()));
    for _ in 0..3 {
        let begin = tokio::time::Instant::now();
        ask(&daemon).await.unwrap();
        assert_eq!(begin.elapsed(), Duration::ZERO);
        later().await;
    }
    assert!(!login.is_finished());
    assert_eq!(store.refresh_token(), "canary-r0");
    assert_eq!(login.await.unwrap().unwrap(), "a");
    assert_eq!(store.refresh_token(), "canary-r1");
    later().await;
    // From now on with what the user gave.
    ask(&daemon).await.unwrap();
    assert_eq!(
        fake.seen_by(AS)
            .last()
            .unwrap()
            .parameter("refresh_token")
            .as_deref(),
        Some("canary-r1")
    );
}

/// The same for everything that was granted: what is new is saved under the lock, however long others hold it.
#[tokio::test(start_paused = true)]
async fn f80_whatever_is_saved_is_saved_under_the_lock() {
    for grant in [code().await, exchange(), Grant::refresh_token("canary-r0")] {
        let store = Shared::new(None);
        let fake = server(vec![given("a0", "canary-r1"), given("a1", "canary-r2")]);
        let tokens = layer(&fake, by(grant).store(store.clone()));
        let held = Arc::clone(&store.lock).lock_owned().await;
        tokio::spawn(async move {
            tokio::time::sleep(secs(8)).await;
            drop(held);
        });
        assert_eq!(ask(&tokens).await.unwrap(), "a0");
        assert_eq!(store.refresh_token(), "canary-r1");
        later().await;
        assert_eq!(ask(&tokens).await.unwrap(), "a1");
        assert_eq!(store.refresh_token(), "canary-r2");
    }
}

/// And if they never give it back, there is a token all the same: what could not be saved is saved later.
#[tokio::test(start_paused = true)]
async fn f80_a_lock_that_is_never_given_back_costs_no_grant() {
    let store = Shared::new(None);
    let fake = server(vec![given("a0", "canary-r1"), given("a1", None)]);
    let tokens = layer(&fake, by(code().await).store(store.clone()));
    let held = Arc::clone(&store.lock).lock_owned().await;
    assert_eq!(ask(&tokens).await.unwrap(), "a0");
    assert!(store.grant.lock().unwrap().is_none());
    drop(held);
    later().await;
    assert_eq!(ask(&tokens).await.unwrap(), "a1");
    assert_eq!(store.refresh_token(), "canary-r1");
}

/// Cloudflare's words for an answer that was lost on its way.
#[tokio::test(start_paused = true)]
async fn an_edge_that_lost_the_answer_leaves_the_grant_uncertain() {
    for status in [520, 524] {
        let fake = server(vec![answer(status, &[], "error code"), given("a", None)]);
        let tokens = layer(&fake, by(code().await));
        let _ = ask(&tokens).await;
        later().await;
        let _ = ask(&tokens).await;
        assert_eq!(fake.hits(AS), 1, "{status}: the code was sent twice");
    }
}
