//! How gRPC says 401: in the headers of an answer that is nothing but a status, or in the trailers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use support::{
    API, Fake, a3_key, answer,
    bench::{AS, RS, stack},
    claims, get, own_token, token, token_layer, with_token,
};
use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
use tower_dpop::DpopLayer;

const NONCE: (&str, &str) = ("www-authenticate", r#"DPoP error="use_dpop_nonce""#);
const TOKEN: (&str, &str) = ("www-authenticate", r#"DPoP error="invalid_token""#);
const GRPC: (&str, &str) = ("content-type", "application/grpc");
const UNAUTHENTICATED: (&str, &str) = ("grpc-status", "16");

#[tokio::test]
async fn a_nonce_challenge_that_is_all_status_is_answered() {
    let fake = Fake::new(|seen, _| {
        if seen.uri.host() == Some(AS) {
            return token("t", 300);
        }
        match seen.nonce() {
            Some(_) => answer(200, &[GRPC], "hello"),
            None => answer(
                200,
                &[GRPC, UNAUTHENTICATED, NONCE, ("dpop-nonce", "n")],
                "",
            ),
        }
    });
    let stack = stack(&fake);
    for sends in [2, 3] {
        let response = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(support::text(response).await, "hello");
        assert_eq!(fake.hits(RS), sends);
    }
}

#[tokio::test]
async fn a_refused_token_that_is_all_status_is_renewed() {
    let fake = Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => token(&format!("t{}", seen.number), 300),
        _ if seen.token() == "t0" => answer(200, &[GRPC, UNAUTHENTICATED, TOKEN], ""),
        _ => answer(200, &[GRPC], "hello"),
    });
    let response = stack(&fake).oneshot(get(API)).await.unwrap();
    assert_eq!(support::text(response).await, "hello");
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 2));
}

#[tokio::test]
async fn other_statuses_and_other_reasons_are_no_refusals() {
    for headers in [
        // PERMISSION_DENIED.
        [GRPC, ("grpc-status", "7"), TOKEN],
        [GRPC, ("grpc-status", "16 "), TOKEN],
        [
            GRPC,
            UNAUTHENTICATED,
            ("www-authenticate", r#"Basic error="invalid_token""#),
        ],
        [GRPC, ("x-grpc-status", "16"), TOKEN],
    ] {
        let fake = Fake::new(move |seen, _| match seen.uri.host() {
            Some(AS) => token("t", 300),
            _ => answer(200, &headers, "status"),
        });
        let response = stack(&fake).oneshot(get(API)).await.unwrap();
        assert_eq!(support::text(response).await, "status");
        assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 1), "{headers:?}");
    }
}

/// What a server was sent: token and nonce.
type Sent = Arc<Mutex<Vec<(String, Option<String>)>>>;

type Answer = Response<BoxBody<Bytes, BoxError>>;

/// A server that answers everything with these headers, and trailers after a message.
fn with_trailers(
    content_type: &'static str,
    trailers: &[(&'static str, &str)],
) -> (
    impl tower::Service<Request<Full<Bytes>>, Response = Answer, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static,
    Sent,
) {
    let trailers: HeaderMap = trailers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect();
    let sent = Sent::default();
    let record = sent.clone();
    let server = service_fn(move |request: Request<Full<Bytes>>| {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let nonce = claims(&header("dpop"))["nonce"].as_str().map(str::to_owned);
        record
            .lock()
            .unwrap()
            .push((header("authorization"), nonce));
        let trailers = trailers.clone();
        async move {
            let body = Full::<Bytes>::from("message").with_trailers(async { Some(Ok(trailers)) });
            let body = body.map_err(|never| match never {}).boxed();
            let response = Response::builder().header("content-type", content_type);
            Ok::<_, BoxError>(response.body(body)?)
        }
    });
    (server, sent)
}

fn nonces(sent: &Sent) -> Vec<Option<String>> {
    sent.lock()
        .unwrap()
        .iter()
        .map(|(_, nonce)| nonce.clone())
        .collect()
}

#[tokio::test]
async fn a_nonce_in_the_trailers_is_for_the_next_call() {
    for trailers in [
        &[UNAUTHENTICATED, NONCE, ("dpop-nonce", "late")][..],
        // One that comes with a success counts as well.
        &[("grpc-status", "0"), ("dpop-nonce", "late")],
    ] {
        let (server, sent) = with_trailers("application/grpc+proto", trailers);
        let stack = ServiceBuilder::new()
            .layer(DpopLayer::new(a3_key()))
            .service(server);
        for _ in 0..2 {
            let request = with_token(get(API), &own_token(&a3_key()));
            let response = stack.clone().oneshot(request).await.unwrap();
            let whole = response.into_body().collect().await.unwrap();
            // As they came.
            assert_eq!(whole.trailers().unwrap().len(), trailers.len());
            assert_eq!(whole.to_bytes(), "message");
        }
        assert_eq!(nonces(&sent), [None, Some("late".to_owned())]);
    }
}

#[tokio::test]
async fn elsewhere_trailers_teach_nothing() {
    let trailers = [UNAUTHENTICATED, NONCE, ("dpop-nonce", "late")];
    let (server, sent) = with_trailers("text/plain", &trailers);
    let stack = ServiceBuilder::new()
        .layer(DpopLayer::new(a3_key()))
        .service(server);
    for _ in 0..2 {
        let request = with_token(get(API), &own_token(&a3_key()));
        let response = stack.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(nonces(&sent), [None, None]);
}

#[tokio::test]
async fn a_token_that_is_refused_in_the_trailers_is_renewed_for_the_next_call() {
    let authorization_server = Fake::new(|_, n| token(&format!("t{n}"), 300));
    let (server, sent) = with_trailers("application/grpc", &[UNAUTHENTICATED, TOKEN]);
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, authorization_server.clone());
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(server);
    for _ in 0..2 {
        let response = stack.clone().oneshot(get(API)).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let sent = sent.lock().unwrap();
    assert_eq!(sent[0].0, "DPoP t0");
    assert_eq!(sent[1].0, "DPoP t1");
    assert_eq!(authorization_server.seen().len(), 2);
}

#[tokio::test]
async fn other_statuses_in_the_trailers_refuse_no_token() {
    for status in ["0", "7", "13"] {
        let authorization_server = Fake::new(|_, n| token(&format!("t{n}"), 300));
        let (server, _) = with_trailers("application/grpc", &[("grpc-status", status), TOKEN]);
        let dpop = DpopLayer::new(a3_key());
        let tokens = token_layer(&dpop, authorization_server.clone());
        let layers = ServiceBuilder::new().layer(tokens).layer(dpop);
        let stack = layers.service(server);
        for _ in 0..2 {
            let response = stack.clone().oneshot(get(API)).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        assert_eq!(authorization_server.seen().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_read_teaches_nothing_and_hurts_nobody() {
    let (server, sent) = with_trailers(
        "application/grpc",
        &[UNAUTHENTICATED, NONCE, ("dpop-nonce", "late")],
    );
    let stack = ServiceBuilder::new()
        .layer(DpopLayer::new(a3_key()))
        .service(server);
    for _ in 0..2 {
        let request = with_token(get(API), &own_token(&a3_key()));
        drop(stack.clone().oneshot(request).await.unwrap());
    }
    assert_eq!(nonces(&sent), [None, None]);
}

#[tokio::test]
async fn a_status_of_grpc_counts_in_grpc_only() {
    let json = ("content-type", "application/json");
    for error in [NONCE, TOKEN] {
        let fake = Fake::new(move |seen, _| match seen.uri.host() {
            Some(AS) => token("t", 300),
            _ => answer(
                200,
                &[json, UNAUTHENTICATED, error, ("dpop-nonce", "n")],
                "served",
            ),
        });
        let response = stack(&fake).oneshot(get(API)).await.unwrap();
        assert_eq!(support::text(response).await, "served");
        assert_eq!(
            (fake.hits(AS), fake.hits(RS)),
            (1, 1),
            "it was served: not again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_every_token_in_its_trailers_costs_few_renewals() {
    let authorization_server = Fake::new(|_, n| token(&format!("t{n}"), 3600));
    let (server, _) = with_trailers("application/grpc", &[UNAUTHENTICATED, TOKEN]);
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, authorization_server.clone());
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(server);
    for _ in 0..6000 {
        let response = stack.clone().oneshot(get(API)).await.unwrap();
        response.into_body().collect().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let renewals = authorization_server.seen().len();
    assert!((10..50).contains(&renewals), "{renewals} in ten minutes");
}
