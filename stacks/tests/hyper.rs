//! `hyper::client::conn` below the layers, by the adapter of the example.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
#[allow(dead_code)]
#[path = "../examples/hyper.rs"]
mod example;

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Response, Version, header::WWW_AUTHENTICATE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt as _, timeout::error::Elapsed, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, TokenLayer, TokenRequest, dpop::ResponseBody,
    testing::Nonces,
};

use self::{
    clients::{World, in_time, no_certificates, ours},
    example::Connection,
};

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(1_000_000);

type Stack = BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<Incoming>>, BoxError>;

fn connection(origin: &str, version: Version) -> Connection {
    Connection::new(origin.parse().unwrap(), version, no_certificates())
}

/// Both layers over one connection to the API; the token requests have one, too.
fn stack(world: &World, version: Version) -> Stack {
    let dpop = world.dpop().origin(world.api.origin().parse().unwrap());
    stack_with(world, version, dpop)
}

fn stack_with(world: &World, version: Version, dpop: DpopLayer) -> Stack {
    let to_token_endpoint = connection(world.authorization_server.origin(), version);
    let request = world.token_request();
    let tokens = TokenLayer::new(&dpop, to_token_endpoint, request, world.audience()).unwrap();
    let layers = ServiceBuilder::new().layer(tokens).layer(dpop);
    BoxCloneSyncService::new(layers.service(connection(world.api.origin(), version)))
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

/// The status of a request by path, after its answer was read.
async fn call(stack: &Stack, path: &str) -> Result<u16, BoxError> {
    let answer = in_time(stack.clone().oneshot(get(path))).await?;
    let status = answer.status().as_u16();
    in_time(answer.into_body().collect()).await?;
    Ok(status)
}

/// Until so many requests have reached the API.
async fn arrived(world: &World, requests: usize) {
    let arrived = async {
        while world.api.request_count() < requests {
            tokio::task::yield_now().await;
        }
    };
    in_time(arrived).await;
}

#[tokio::test]
async fn a_path_is_signed_for_the_origin_and_both_servers_nonces_are_answered() {
    for version in VERSIONS {
        let world = World::start().await;
        world.authorization_server.nonces(Nonces::required());
        world.api.nonces(Nonces::required());
        let stack = stack(&world, version);
        for _ in 0..2 {
            let request = Request::post("/orders?page=2").body(Full::from("an order"));
            let answer = in_time(stack.clone().oneshot(request.unwrap())).await;
            let answer = answer.unwrap();
            assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
            assert_eq!(clients::json(answer).await["body"], "an order");
        }
        assert_eq!(world.statuses(), (vec![400, 200], vec![401, 200, 200]));
        for seen in world.api.requests() {
            assert_eq!(seen.version(), version);
            if version == Version::HTTP_11 {
                assert_eq!(*seen.uri(), "/orders?page=2");
                let host = seen.headers()["host"].to_str().unwrap();
                assert_eq!(format!("http://{host}"), world.api.origin());
            }
            assert_eq!(seen.claim("htu"), Some(world.api.url("/orders")));
        }
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn a_whole_uri_is_served_too_if_it_is_this_servers() {
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack(&world, version);
        assert_eq!(call(&stack, &world.api.url("/1")).await.unwrap(), 200);
        assert_eq!(call(&stack, "/2").await.unwrap(), 200);
        call(&stack, "http://127.0.0.1:1/3").await.unwrap_err();
        assert_eq!(world.api.request_count(), 2);
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn a_path_without_an_origin_is_an_error_and_nothing_is_sent() {
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack_with(&world, version, world.dpop());
        let error = call(&stack, "/").await.unwrap_err();
        assert!(ours(&error).is_missing_origin());
        assert_eq!(world.statuses(), (vec![], vec![]));
    }
}

#[tokio::test]
async fn a_revoked_token_is_renewed_within_the_request() {
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack(&world, version);
        assert_eq!(call(&stack, "/1").await.unwrap(), 200);
        world.authorization_server.revoke_all();
        assert_eq!(call(&stack, "/2").await.unwrap(), 200);
        assert_eq!(world.statuses(), (vec![200, 200], vec![200, 401, 200]));
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn many_at_once_share_the_token() {
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack(&world, version);
        let calls = (0..16).map(|_| call(&stack, "/"));
        for status in join_all(calls).await {
            assert_eq!(status.unwrap(), 200);
        }
        assert_eq!(world.authorization_server.request_count(), 1);
        assert_eq!(world.api.request_count(), 16);
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn with_http_2_they_do_not_wait_for_each_other() {
    let world = World::start().await;
    let stack = stack(&world, Version::HTTP_2);
    world.api.delay(NEVER);
    let slow = tokio::spawn(stack.clone().oneshot(get("/slow")));
    arrived(&world, 1).await;
    world.api.delay(Duration::ZERO);
    assert_eq!(call(&stack, "/quick").await.unwrap(), 200);
    assert!(!slow.is_finished());
    slow.abort();
}

#[tokio::test]
async fn when_the_server_closes_the_connection_the_error_passes_and_the_next_request_has_a_new_one()
{
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack(&world, version);
        assert_eq!(call(&stack, "/1").await.unwrap(), 200);

        // It serves the request, and closes the connection (or the stream of HTTP/2) before the answer.
        world.api.lose_answers(1);
        let error = call(&stack, "/2").await.unwrap_err();
        assert!(error.is::<hyper::Error>(), "{error}");
        assert_eq!(call(&stack, "/3").await.unwrap(), 200);
        assert_eq!(world.api.request_count(), 3, "each sent once");

        world.api.stop().await;
        call(&stack, "/4").await.unwrap_err();
        let error = call(&stack, "/5").await.unwrap_err();
        let error = error.downcast_ref::<io::Error>().expect("as it was");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        world.api.restart().await.unwrap();
        assert_eq!(call(&stack, "/6").await.unwrap(), 200);

        // None of this was the token's fault.
        assert_eq!(world.authorization_server.request_count(), 1);
        assert_eq!(world.api.request_count(), 4);
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn so_it_is_with_the_connection_to_the_token_endpoint() {
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack(&world, version);
        world.authorization_server.stop().await;
        let error = call(&stack, "/").await.unwrap_err();
        assert!(ours(&error).is_token_request());
        world.authorization_server.restart().await.unwrap();
        // Not before the layer asks again.
        let back = async {
            loop {
                match call(&stack, "/").await {
                    Ok(status) => return status,
                    Err(error) => assert!(ours(&error).is_token_request()),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        assert_eq!(in_time(back).await, 200);
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_hold_up_the_others() {
    for version in VERSIONS {
        let world = World::start().await;
        let stack = stack(&world, version);
        assert_eq!(call(&stack, "/1").await.unwrap(), 200);
        world.api.delay(NEVER);
        let given_up = tokio::spawn(stack.clone().oneshot(get("/2")));
        arrived(&world, 2).await;
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        world.api.delay(Duration::ZERO);
        assert_eq!(call(&stack, "/3").await.unwrap(), 200);
        world.assert_own_proofs().await;
    }
}

/// More than a connection takes in while nobody reads it.
const LONG: usize = 16 * 1024 * 1024;

/// Of the waits below, one is to end long before the other.
const SHORT: Duration = Duration::from_secs(3);
const LONG_ENOUGH: Duration = Duration::from_secs(50);

/// An authorization server and an API in one, on a port of its own.
async fn one_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let issued = Arc::new(AtomicUsize::new(0));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let issued = Arc::clone(&issued);
            let service = service_fn(move |request| {
                let answer = answer_at_length(&request, &issued);
                async { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    origin
}

/// Gives the tokens `t0`, `t1`, …, and refuses the first of them at length.
fn answer_at_length(request: &Request<Incoming>, issued: &AtomicUsize) -> Response<Full<Bytes>> {
    if request.uri().path() == "/token" {
        let number = issued.fetch_add(1, Ordering::Relaxed);
        let answer = json!({
            "access_token": format!("t{number}"), "token_type": "DPoP", "expires_in": 300,
        });
        return Response::new(answer.to_string().into());
    }
    if request.headers()["authorization"] != "DPoP t0" {
        return Response::new("served".into());
    }
    Response::builder()
        .status(401)
        .header(WWW_AUTHENTICATE, r#"DPoP error="invalid_token""#)
        .body(vec![b'.'; LONG].into())
        .unwrap()
}

/// Both layers over `api`, to a server which is both. A token request has so long.
fn stack_of_one(
    origin: &str,
    to_token_endpoint: Connection,
    api: Connection,
    timeout: Duration,
) -> Stack {
    let dpop = DpopLayer::new(DpopKey::generate().unwrap()).origin(origin.parse().unwrap());
    let request =
        TokenRequest::client_credentials(format!("{origin}/token"), "m2m.dpop").timeout(timeout);
    let audience = Audience::origins([origin]).unwrap();
    let tokens = TokenLayer::new(&dpop, to_token_endpoint, request, audience).unwrap();
    BoxCloneSyncService::new(ServiceBuilder::new().layer(tokens).layer(dpop).service(api))
}

#[tokio::test]
async fn a_long_refusal_does_not_hold_up_the_token_on_another_connection() {
    for version in VERSIONS {
        let origin = one_server().await;
        let (one, other) = (connection(&origin, version), connection(&origin, version));
        let stack = stack_of_one(&origin, one, other, LONG_ENOUGH);
        for _ in 0..2 {
            let answer = in_time(stack.clone().oneshot(get("/"))).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
}

#[tokio::test]
async fn on_one_connection_of_http_1_a_long_refusal_is_the_answer() {
    let origin = one_server().await;
    let shared = connection(&origin, Version::HTTP_11);
    let stack = stack_of_one(&origin, shared.clone(), shared, SHORT);
    // The refusal is kept until the next token is there, which cannot come before the refusal was read: until
    // the token request's time is over.
    let answer = in_time(stack.clone().oneshot(get("/"))).await.unwrap();
    assert_eq!(answer.status(), 401);
    let body = in_time(answer.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes().len(), LONG, "whole");
    // And the connection is free again.
    call(&stack, "/").await.unwrap();
}

#[tokio::test]
async fn unless_the_caller_gives_up_before_the_token_request_does() {
    let origin = one_server().await;
    let shared = connection(&origin, Version::HTTP_11);
    let stack = stack_of_one(&origin, shared.clone(), shared, LONG_ENOUGH);
    let timed = ServiceBuilder::new().timeout(SHORT).service(stack.clone());
    let error = in_time(timed.oneshot(get("/"))).await.unwrap_err();
    assert!(error.is::<Elapsed>(), "{error}");
    // With it went the refusal: the token request, still under way, has a new connection.
    assert_eq!(call(&stack, "/").await.unwrap(), 200);
}

#[tokio::test]
async fn http_2_has_a_stream_for_the_token() {
    let origin = one_server().await;
    let shared = connection(&origin, Version::HTTP_2);
    let stack = stack_of_one(&origin, shared.clone(), shared, LONG_ENOUGH);
    let answer = in_time(stack.oneshot(get("/"))).await.unwrap();
    assert_eq!(answer.status(), 200);
}
