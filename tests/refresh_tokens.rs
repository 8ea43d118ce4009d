//! Refresh tokens: rotated, kept, stored, and never sent again when nobody knows what became of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::{
    API, ENDPOINT, Fake, a3_key, answer,
    bench::{AS, RS},
    get, ok, plain,
    saves::saves,
};
use tower::{BoxError, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_dpop::{Audience, DpopLayer, Error, TokenLayer, TokenRequest};

/// Statuses by which a fake server says what becomes of its answer.
const LOST: u16 = 599;
const NEVER: u16 = 598;
const UNREACHABLE: u16 = 597;

type Stack = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

fn request() -> TokenRequest {
    TokenRequest::refresh_token(ENDPOINT, "app", "canary-r0")
}

fn stack(fake: &Fake, request: TokenRequest) -> Stack {
    let client = fake
        .clone()
        .and_then(|response: Response<Full<Bytes>>| async {
            match response.status().as_u16() {
                LOST => Err("connection closed before the answer".into()),
                UNREACHABLE => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
                NEVER => std::future::pending().await,
                _ => Ok::<_, BoxError>(response),
            }
        });
    let dpop = DpopLayer::new(a3_key());
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, client, request, audience).unwrap();
    BoxCloneService::new(
        ServiceBuilder::new()
            .map_response(plain)
            .layer(tokens)
            .layer(dpop)
            .service(fake.clone()),
    )
}

fn given(access_token: &str, refresh_token: Option<&str>) -> Response<Full<Bytes>> {
    let mut body = serde_json::json!({
        "access_token": access_token, "token_type": "DPoP", "expires_in": 100,
    });
    if let Some(refresh_token) = refresh_token {
        body["refresh_token"] = refresh_token.into();
    }
    answer(200, &[], &body.to_string())
}

/// Answers the token requests one after another, the last answer for ever; the API accepts everything.
fn server(answers: Vec<Response<Full<Bytes>>>) -> Fake {
    let asked = AtomicUsize::new(0);
    Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            answers[number.min(answers.len() - 1)].clone()
        }
        _ => ok(),
    })
}

/// The refresh tokens that the server has seen.
fn sent(fake: &Fake) -> Vec<String> {
    let forms = fake.seen_by(AS);
    let token = |body: &Bytes| {
        let mut pairs = form_urlencoded::parse(body);
        let (_, value) = pairs.find(|(name, _)| name == "refresh_token").unwrap();
        value.into_owned()
    };
    forms.iter().map(|seen| token(&seen.body)).collect()
}

async fn ask(stack: &Stack) -> Result<(), Error> {
    match stack.clone().oneshot(get(API)).await {
        Ok(answer) => {
            assert_eq!(answer.status(), 200);
            Ok(())
        }
        Err(error) => {
            let error = Error::find(&*error).expect("ours").clone();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("canary"), "{shown}");
            Err(error)
        }
    }
}

/// Longer than any access token here, and than any back-off.
async fn later() {
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_takes_the_place_of_the_old_one_and_stays_until_the_next() {
    let fake = server(vec![
        given("a0", Some("canary-r1")),
        given("a1", None),
        given("a2", Some("canary-r2")),
        given("a3", None),
    ]);
    let stack = stack(&fake, request().client_secret_basic("secret").scope("s"));
    for _ in 0..4 {
        ask(&stack).await.unwrap();
        later().await;
    }
    assert_eq!(
        sent(&fake),
        ["canary-r0", "canary-r1", "canary-r1", "canary-r2"]
    );
    let seen = fake.seen_by(AS);
    assert_eq!(
        seen[0].body,
        "grant_type=refresh_token&refresh_token=canary-r0&scope=s"
    );
    assert!(
        seen[0]
            .header("authorization")
            .unwrap()
            .starts_with("Basic ")
    );
    let used: Vec<_> = fake.seen_by(RS);
    let used: Vec<_> = used
        .iter()
        .map(|seen| seen.header("authorization").unwrap())
        .collect();
    assert_eq!(used, ["DPoP a0", "DPoP a1", "DPoP a2", "DPoP a3"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_leaves_the_grant_uncertain() {
    let torn = r#"{"access_token":"a","token_type":"DPoP","refresh_token":"cana"#;
    for (lost, why) in [
        (answer(LOST, &[], ""), "broke off"),
        (answer(NEVER, &[], ""), "never came"),
        (answer(502, &[], ""), "a gateway lost it"),
        (answer(504, &[], ""), "a gateway gave up"),
        (answer(200, &[], torn), "a part of it is missing"),
        (answer(200, &[], "<html>"), "another answer came"),
    ] {
        let fake = server(vec![lost, given("a", None)]);
        let stack = stack(&fake, request());
        let begin = tokio::time::Instant::now();
        let error = ask(&stack).await.unwrap_err();
        assert!(
            error.is_grant_uncertain() && error.is_permanent(),
            "{why}: {error}"
        );
        assert!(std::error::Error::source(&error).is_some(), "{why}");
        assert!(begin.elapsed() <= Duration::from_secs(60), "{why}");
        for _ in 0..5 {
            later().await;
            assert!(ask(&stack).await.unwrap_err().is_grant_uncertain(), "{why}");
        }
        assert_eq!(
            sent(&fake),
            ["canary-r0"],
            "{why}: sent once, whatever happens"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_attempt_has_sixty_seconds() {
    let fake = server(vec![given("a", None)]).delay(Duration::from_secs(59));
    let stack = stack(&fake, request());
    // The request to the API takes as long, and is nobody's business here.
    ask(&stack).await.unwrap();
    assert_eq!(sent(&fake).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_more_try_is_one_more_try() {
    let lost = || answer(LOST, &[], "");
    let fake = server(vec![
        lost(),
        given("a", Some("canary-r1")),
        lost(),
        lost(),
        given("a", None),
    ]);
    let stack = stack(&fake, request().retry_lost_refresh());
    let error = ask(&stack).await.unwrap_err();
    assert!(
        !error.is_grant_uncertain(),
        "it will be tried again: {error}"
    );
    later().await;
    ask(&stack).await.unwrap();
    later().await;
    assert!(!ask(&stack).await.unwrap_err().is_grant_uncertain());
    later().await;
    for _ in 0..3 {
        assert!(ask(&stack).await.unwrap_err().is_grant_uncertain());
        later().await;
    }
    assert_eq!(
        sent(&fake),
        ["canary-r0", "canary-r0", "canary-r1", "canary-r1"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_never_left_and_what_was_answered_is_certain() {
    let nonce = answer(400, &[("dpop-nonce", "n")], r#"{"error":"use_dpop_nonce"}"#);
    let fake = server(vec![
        answer(UNREACHABLE, &[], ""),
        answer(503, &[("retry-after", "1")], ""),
        answer(400, &[], r#"{"error":"invalid_grant"}"#),
        nonce,
        given("a", None),
    ]);
    let stack = stack(&fake, request());
    for permanent in [false, false, true] {
        let error = ask(&stack).await.unwrap_err();
        assert!(!error.is_grant_uncertain(), "{error}");
        assert_eq!(error.is_permanent(), permanent, "{error}");
        later().await;
    }
    ask(&stack).await.unwrap();
    assert_eq!(
        sent(&fake).len(),
        5,
        "the challenge was answered with the same one"
    );
}

#[test]
fn a_runtime_that_dies_in_mid_flight_leaves_the_grant_uncertain() {
    let fake = server(vec![answer(NEVER, &[], ""), given("a", None)]);
    let stack = stack(&fake, request());
    let runtime = |()| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let first = runtime(());
    first.block_on(async {
        let waits = tokio::time::timeout(Duration::from_millis(50), ask(&stack));
        assert!(waits.await.is_err(), "it never answers");
    });
    drop(first);
    let error = runtime(()).block_on(ask(&stack)).unwrap_err();
    assert!(error.is_grant_uncertain(), "{error}");
    assert_eq!(sent(&fake).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_is_stored_before_its_access_token_is_used() {
    let fake = server(vec![
        given("a0", Some("canary-r1")),
        given("a1", Some("canary-r1")),
        given("a2", Some("canary-r2")),
    ]);
    let stored: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
    let request = {
        let (fake, stored) = (fake.clone(), stored.clone());
        request().store(saves(move |token| {
            let (fake, stored) = (fake.clone(), stored.clone());
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                stored.lock().unwrap().push((token, fake.seen_by(RS).len()));
                Ok(())
            }
        }))
    };
    let stack = stack(&fake, request);
    for _ in 0..3 {
        ask(&stack).await.unwrap();
        later().await;
    }
    // With the number of API requests before it. The one that is given again is no new one.
    let stored = stored.lock().unwrap();
    assert_eq!(
        *stored,
        [("canary-r1".to_owned(), 0), ("canary-r2".to_owned(), 2)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_tried_again_and_keeps_nobody_from_the_token() {
    let fake = server(vec![given("a0", Some("canary-r1")), given("a1", None)]);
    let tries = Arc::new(AtomicUsize::new(0));
    let request = {
        let tries = tries.clone();
        request().store(saves(move |token| {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                assert_eq!(token, "canary-r1");
                match number {
                    // The disk is full.
                    0..3 => Err("canary of the store".into()),
                    _ => Ok(()),
                }
            }
        }))
    };
    let stack = stack(&fake, request);
    ask(&stack).await.unwrap();
    assert_eq!(tries.load(Ordering::Relaxed), 3);
    later().await;
    ask(&stack).await.unwrap();
    assert_eq!(
        tries.load(Ordering::Relaxed),
        4,
        "before the next refresh, and not after it"
    );
    assert_eq!(sent(&fake), ["canary-r0", "canary-r1"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_costs_ten_seconds() {
    let fake = server(vec![given("a0", Some("canary-r1")), given("a1", None)]);
    let request = request().store(saves(|_| std::future::pending()));
    let stack = stack(&fake, request);
    let begin = tokio::time::Instant::now();
    ask(&stack).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
    // And again: what was left, before the next refresh that brings nothing new.
    later().await;
    let begin = tokio::time::Instant::now();
    ask(&stack).await.unwrap();
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_no_parameter_and_shows_nowhere() {
    let shown = format!("{:?}", request());
    assert!(
        shown.contains("refresh_token") && !shown.contains("canary"),
        "{shown}"
    );
    let repeated = r#"{"error":"invalid_grant","error_description":"no canary-r0 here"}"#;
    let fake = server(vec![answer(400, &[], repeated)]);
    let error = ask(&stack(&fake, request())).await.unwrap_err();
    assert_eq!(
        error.oauth_error().unwrap().description(),
        Some("no *** here")
    );

    let dpop = DpopLayer::new(a3_key());
    let audience = Audience::origins([API]).unwrap();
    for bad in [
        TokenRequest::refresh_token(ENDPOINT, "app", ""),
        TokenRequest::client_credentials(ENDPOINT, "app").parameter("refresh_token", "canary"),
        request().timeout(Duration::ZERO),
        request().timeout(Duration::MAX),
    ] {
        let error = TokenLayer::new(&dpop, fake.clone(), bad, audience.clone()).unwrap_err();
        assert!(
            error.is_config() && !error.to_string().contains("canary"),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_and_is_no_use_still_brings_the_next_refresh_token() {
    let bearer = r#"{"access_token":"a","token_type":"Bearer","refresh_token":"canary-r1"}"#;
    let nothing = r#"{"token_type":"DPoP","refresh_token":"canary-r2"}"#;
    let fake = server(vec![
        answer(200, &[], bearer),
        answer(200, &[], nothing),
        given("a", Some("canary-r3")),
    ]);
    let stored: Arc<Mutex<Vec<String>>> = Arc::default();
    let request = {
        let stored = stored.clone();
        request().store(saves(move |token| {
            stored.lock().unwrap().push(token);
            async { Ok(()) }
        }))
    };
    let stack = stack(&fake, request);
    let error = ask(&stack).await.unwrap_err();
    assert!(
        error.is_downgrade() && !error.is_grant_uncertain(),
        "{error}"
    );
    later().await;
    let error = ask(&stack).await.unwrap_err();
    assert!(!error.is_grant_uncertain(), "{error}");
    later().await;
    ask(&stack).await.unwrap();
    assert_eq!(sent(&fake), ["canary-r0", "canary-r1", "canary-r2"]);
    assert_eq!(
        *stored.lock().unwrap(),
        ["canary-r1", "canary-r2", "canary-r3"]
    );
}

/// Never ready, and panics or not when it is asked.
#[derive(Clone)]
struct NeverReady {
    panics: bool,
}

impl tower::Service<Request<Full<Bytes>>> for NeverReady {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = std::future::Pending<Result<Self::Response, BoxError>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), BoxError>> {
        assert!(!self.panics, "a bug in the client");
        std::task::Poll::Pending
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_gets_ready_has_sent_nothing() {
    for panics in [false, true] {
        let dpop = DpopLayer::new(a3_key());
        let audience = Audience::origins([API]).unwrap();
        let tokens = TokenLayer::new(&dpop, NeverReady { panics }, request(), audience).unwrap();
        for _ in 0..3 {
            let error = tokens.access_token().await.unwrap_err();
            assert!(!error.is_grant_uncertain(), "{error}");
            assert_eq!(error.is_timeout(), !panics, "{error}");
            later().await;
        }
    }
}

/// With hyper's own client: a name that nobody has, and a port that nobody listens on.
#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    for endpoint in [
        "https://no-such-host.invalid/token",
        "https://127.0.0.1:1/token",
    ] {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(
                rustls::ClientConfig::builder()
                    .with_root_certificates(rustls::RootCertStore::empty())
                    .with_no_client_auth(),
            )
            .https_only()
            .enable_http1()
            .build();
        let client =
            hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
                .build::<_, Full<Bytes>>(connector);
        let dpop = DpopLayer::new(a3_key());
        let audience = Audience::origins([API]).unwrap();
        let request = TokenRequest::refresh_token(endpoint, "app", "canary-r0");
        let tokens = TokenLayer::new(&dpop, client, request, audience).unwrap();
        let error = tokens.access_token().await.unwrap_err();
        assert!(
            !error.is_grant_uncertain() && error.is_token_request(),
            "{endpoint}: {error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_may_say_when_to_come_back() {
    let fake = server(vec![
        answer(504, &[("retry-after", "100")], ""),
        given("a", None),
    ]);
    let stack = stack(&fake, request().retry_lost_refresh());
    ask(&stack).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(99)).await;
    ask(&stack).await.unwrap_err();
    assert_eq!(sent(&fake).len(), 1);
    tokio::time::sleep(Duration::from_secs(12)).await;
    ask(&stack).await.unwrap();
    assert_eq!(sent(&fake).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_a_refresh_token_is_refused_where_there_is_none() {
    let dpop = DpopLayer::new(a3_key());
    let request = || TokenRequest::client_credentials(ENDPOINT, "app");
    for bad in [
        request().retry_lost_refresh(),
        request().store(saves(|_| async { Ok(()) })),
    ] {
        let audience = Audience::origins([API]).unwrap();
        let error = TokenLayer::new(&dpop, server(vec![]), bad, audience).unwrap_err();
        assert!(error.is_config(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_counts_whatever_becomes_of_its_body() {
    let page = "x".repeat(70 * 1024);
    let fake = server(vec![answer(503, &[], &page), given("a", None)]);
    let stack = stack(&fake, request());
    let error = ask(&stack).await.unwrap_err();
    assert!(!error.is_grant_uncertain(), "{error}");
    later().await;
    ask(&stack).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_more_try_stays_one_whatever_is_answered_in_between() {
    let challenge = answer(400, &[("dpop-nonce", "n")], r#"{"error":"use_dpop_nonce"}"#);
    let busy = answer(503, &[], "");
    for (between, most) in [(challenge, 4), (busy, 3)] {
        let asked = AtomicUsize::new(0);
        let fake = Fake::new(move |_, _| match asked.fetch_add(1, Ordering::Relaxed) {
            number if number % 2 == 0 => {
                let mut answer = between.clone();
                // A nonce of its own each time, or it would be no challenge.
                if answer.status() == 400 {
                    let nonce = format!("n{number}").parse().unwrap();
                    answer.headers_mut().insert("dpop-nonce", nonce);
                }
                answer
            }
            _ => answer(LOST, &[], ""),
        });
        let stack = stack(&fake, request().retry_lost_refresh());
        let mut uncertain = 0;
        for _ in 0..10 {
            uncertain += usize::from(ask(&stack).await.unwrap_err().is_grant_uncertain());
            later().await;
        }
        assert!(uncertain >= 6, "{uncertain}");
        let sent = sent(&fake).len();
        assert!(sent <= most + 1, "{sent} sends of one refresh token");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_panics_keeps_nobody_from_the_token() {
    let fake = server(vec![given("a0", Some("canary-r1")), given("a1", None)]);
    let request = request().store(saves(|_| async { panic!("a bug in the program") }));
    let stack = stack(&fake, request);
    for _ in 0..3 {
        ask(&stack).await.unwrap();
        later().await;
    }
    assert_eq!(sent(&fake), ["canary-r0", "canary-r1", "canary-r1"]);
}
