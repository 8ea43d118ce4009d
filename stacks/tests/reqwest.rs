//! `reqwest::Client` below the layers, by the adapter of the example; and what it must not do there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
#[allow(dead_code)]
#[path = "../examples/reqwest.rs"]
mod example;

use std::{convert::Infallible, error::Error as _, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{Full, StreamBody};
use reqwest::{ClientBuilder, redirect, retry};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_dpop::{
    BoxError, DpopLayer, NoReplay, RecordedBody, Replay, ReplayBody, TokenLayer,
    testing::{Nonces, ResourceServer},
};
use tower_http::follow_redirect::FollowRedirectLayer;

use self::clients::{World, in_time, json, no_certificates, ours, statuses};

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(1_000_000);

type Answer = Response<reqwest::Body>;
type Stack<B = Full<Bytes>> = BoxCloneSyncService<Request<B>, Answer, BoxError>;

/// The example's client. No server here has TLS, but this build of reqwest has no certificates of its own.
fn builder() -> ClientBuilder {
    example::builder().tls_backend_preconfigured(no_certificates())
}

/// Both layers over reqwest, which also sends the token requests.
fn stack(world: &World) -> Stack {
    over(world, builder(), world.dpop())
}

fn over<R>(world: &World, client: ClientBuilder, dpop: DpopLayer<R>) -> Stack
where
    R: Replay<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let client = client.build().unwrap();
    let tokens = token_layer(world, &dpop, &client);
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            .layer(tokens)
            .layer(dpop)
            .service(example::service(client))
            .map_response(|answer| answer.map(reqwest::Body::wrap)),
    )
}

fn token_layer<R: Clone>(
    world: &World,
    dpop: &DpopLayer<R>,
    client: &reqwest::Client,
) -> TokenLayer<R> {
    let http = example::service::<Full<Bytes>>(client.clone());
    TokenLayer::new(dpop, http, world.token_request(), world.audience()).unwrap()
}

#[tokio::test]
async fn both_servers_nonces_are_answered() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let world = World::start().await;
        world.authorization_server.nonces(Nonces::required());
        world.api.nonces(Nonces::required());
        let mut client = builder();
        if version == Version::HTTP_2 {
            client = client.http2_prior_knowledge();
        }
        let stack = over(&world, client, world.dpop());
        for number in 0..2 {
            let path = format!("/orders/{number}?page=2");
            let request = Request::post(world.api.url(&path)).body(Full::from("an order"));
            let answer = in_time(stack.clone().oneshot(request.unwrap())).await;
            let answer = answer.unwrap();
            assert_eq!(
                (answer.status(), answer.version()),
                (StatusCode::OK, version)
            );
            assert_eq!(json(answer).await["body"], "an order");
        }
        assert_eq!(world.statuses(), (vec![400, 200], vec![401, 200, 200]));
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn a_revoked_token_is_renewed_within_the_request() {
    let world = World::start().await;
    let stack = stack(&world);
    in_time(stack.clone().oneshot(world.get("/1")))
        .await
        .unwrap();
    world.authorization_server.revoke_all();
    let answer = in_time(stack.oneshot(world.get("/2"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(world.statuses(), (vec![200, 200], vec![200, 401, 200]));
    world.assert_own_proofs().await;
}

/// A body that cannot be cloned.
fn upload(world: &World) -> Request<impl Body<Data = Bytes, Error = Infallible> + use<>> {
    let chunks = ["a stream ", "in ", "pieces"];
    let frames = chunks.map(|chunk| Ok(Frame::data(Bytes::from(chunk))));
    Request::post(world.api.url("/upload"))
        .body(StreamBody::new(stream::iter(frames)))
        .unwrap()
}

#[tokio::test]
async fn a_streamed_body_that_is_not_kept_is_sent_once_and_whole() {
    let world = World::start().await;
    world.api.nonces(Nonces::required());
    let dpop = world.dpop().replay(NoReplay);
    let client = builder().build().unwrap();
    let tokens = token_layer(&world, &dpop, &client);
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(example::service(client));

    // The server's own answer, and the nonce is learned from it.
    let answer = in_time(stack.clone().oneshot(upload(&world))).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.headers().contains_key("dpop-nonce"));
    let answer = in_time(stack.oneshot(upload(&world))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(json(answer).await["body"], "a stream in pieces");
    assert_eq!(statuses(&world.api.requests()), [401, 200]);
    world.assert_own_proofs().await;
}

#[tokio::test]
async fn a_streamed_body_that_is_kept_is_sent_again_and_whole() {
    let world = World::start().await;
    world.api.nonces(Nonces::required());
    let dpop = world.dpop().replay(RecordedBody);
    let client = builder().build().unwrap();
    let tokens = token_layer(&world, &dpop, &client);
    let stack = ServiceBuilder::new()
        .map_request(|request: Request<_>| request.map(ReplayBody::new))
        .layer(tokens)
        .layer(dpop)
        .service(example::service(client));

    for revoked in [false, true] {
        if revoked {
            world.authorization_server.revoke_all();
        }
        let answer = in_time(stack.clone().oneshot(upload(&world))).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(json(answer).await["body"], "a stream in pieces");
    }
    for seen in world.api.requests() {
        assert_eq!(seen.body(), "a stream in pieces");
    }
    assert_eq!(world.statuses(), (vec![200, 200], vec![401, 200, 401, 200]));
    world.assert_own_proofs().await;
}

#[tokio::test]
async fn a_timeout_of_reqwest_passes_as_it_is() {
    let world = World::start().await;
    let client = builder().timeout(Duration::from_secs(3));
    let stack = over(&world, client, world.dpop());
    world.api.delay(NEVER);
    let error = in_time(stack.clone().oneshot(world.get("/1"))).await;
    let error = error.unwrap_err().downcast::<reqwest::Error>().unwrap();
    assert!(error.is_timeout());

    world.api.delay(Duration::ZERO);
    let answer = in_time(stack.oneshot(world.get("/2"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(world.authorization_server.request_count(), 1, "one token");
    world.assert_own_proofs().await;
}

#[tokio::test]
async fn a_timeout_of_reqwest_at_the_token_endpoint_is_the_reason_why_there_is_no_token() {
    let world = World::start().await;
    let client = builder().timeout(Duration::from_secs(3));
    let stack = over(&world, client, world.dpop());
    world.authorization_server.delay(NEVER);
    let error = in_time(stack.oneshot(world.get("/"))).await.unwrap_err();
    assert!(ours(&error).is_token_request());
    let source = ours(&error).source().unwrap();
    assert!(
        source
            .downcast_ref::<reqwest::Error>()
            .unwrap()
            .is_timeout()
    );
    assert_eq!(world.api.request_count(), 0);
}

fn redirect_to(url: &str) -> Response<Bytes> {
    Response::builder()
        .status(StatusCode::TEMPORARY_REDIRECT)
        .header("location", url)
        .body(Bytes::new())
        .unwrap()
}

#[tokio::test]
async fn a_redirect_below_the_layers_sends_the_same_proof_again() {
    let world = World::start().await;
    let foreign = ResourceServer::start(&world.authorization_server)
        .await
        .unwrap();
    // What reqwest does unless told otherwise.
    let client = builder().redirect(redirect::Policy::default());
    let stack = over(&world, client, world.dpop());

    world.api.answer(1, redirect_to(&world.api.url("/moved")));
    let answer = in_time(stack.clone().oneshot(world.get("/")))
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    let [first, second] = &world.api.requests()[..] else {
        panic!("one request and one redirect")
    };
    assert_eq!(second.uri().path(), "/moved");
    assert_eq!(second.proof(), first.proof());
    assert!(second.refused().unwrap().contains("htu"));

    // Of what goes to another origin reqwest takes the token, but not the proof: it shows the key, and what
    // was asked of whom.
    world.api.answer(1, redirect_to(&foreign.url("/moved")));
    in_time(stack.oneshot(world.get("/"))).await.unwrap();
    let [leaked] = &foreign.requests()[..] else {
        panic!("one redirect")
    };
    assert!(!leaked.headers().contains_key("authorization"));
    assert_eq!(leaked.proof(), world.api.requests()[2].proof());
    assert_eq!(leaked.claim("htu"), Some(world.api.url("/")));
}

#[tokio::test]
async fn a_redirect_above_the_layers_gets_a_proof_of_its_own_and_a_stranger_gets_nothing() {
    let world = World::start().await;
    let foreign = ResourceServer::start(&world.authorization_server)
        .await
        .unwrap();
    let stack = ServiceBuilder::new()
        .layer(FollowRedirectLayer::new())
        .service(stack(&world));

    world.api.answer(1, redirect_to(&world.api.url("/moved")));
    let answer = in_time(stack.clone().oneshot(world.get("/")))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(json(answer).await["path"], "/moved");

    world.api.answer(1, redirect_to(&foreign.url("/moved")));
    in_time(stack.oneshot(world.get("/"))).await.unwrap();
    let [foreign] = &foreign.requests()[..] else {
        panic!("one redirect")
    };
    assert!(!foreign.headers().contains_key("authorization"));
    assert!(!foreign.headers().contains_key("dpop"));
    assert_eq!(statuses(&world.api.requests()), [307, 200, 307]);
    world.assert_own_proofs().await;
}

/// Another adapter, for bodies that reqwest can clone.
fn service_of_bytes(
    client: reqwest::Client,
) -> impl Service<Request<Bytes>, Response = Answer, Error = reqwest::Error> + Clone {
    service_fn(move |request: Request<Bytes>| {
        let client = client.clone();
        async move {
            let request = reqwest::Request::try_from(request)?;
            client.execute(request).await.map(Response::from)
        }
    })
}

#[tokio::test]
async fn a_retry_below_the_layers_sends_the_same_proof_again() {
    let world = World::start().await;
    let dpop = world.dpop();
    let tokens = token_layer(&world, &dpop, &builder().build().unwrap());
    let token = tokens.access_token().await.unwrap();
    let order = || {
        Request::post(world.api.url("/orders"))
            .extension(token.clone())
            .body(Bytes::from("an order"))
            .unwrap()
    };
    let on_errors = retry::for_host("127.0.0.1").classify_fn(|sent| match sent.error() {
        Some(_) => sent.retryable(),
        None => sent.success(),
    });
    let retrying = builder().retry(on_errors).build().unwrap();
    let stack = ServiceBuilder::new()
        .layer(dpop.clone())
        .service(service_of_bytes(retrying));
    // It served the first request; only its answer got lost.
    world.api.lose_answers(1);
    let answer = in_time(stack.oneshot(order())).await.unwrap();
    assert_eq!(answer.status(), 401, "for an order that was taken");
    let [first, second] = &world.api.requests()[..] else {
        panic!("one request and one retry")
    };
    assert_eq!((first.refused(), second.proof()), (None, first.proof()));
    assert!(second.refused().unwrap().contains("jti"));

    // As the example sets it: who is above may decide, and sends with a new proof.
    let stack = ServiceBuilder::new()
        .layer(dpop)
        .service(service_of_bytes(builder().build().unwrap()));
    world.api.lose_answers(1);
    let error = in_time(stack.clone().oneshot(order())).await.unwrap_err();
    assert!(error.is::<reqwest::Error>());
    assert_eq!(world.api.request_count(), 3, "sent once");
    let answer = in_time(stack.oneshot(order())).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_path_that_reqwest_would_rewrite_is_not_sent() {
    let world = World::start().await;
    let stack = stack(&world);
    let call = async |path: &str| {
        let request = Request::get(format!("{}{path}", world.api.origin()));
        in_time(
            stack
                .clone()
                .oneshot(request.body(Full::default()).unwrap()),
        )
        .await
    };
    let kept = [
        "/a%2Fb/%7Euser/~x/t@x/%C3%A9/sp%20ace",
        "/a//b",
        "/a;b=1,c|d^e'f",
        "/%zz",
    ];
    for path in kept {
        assert_eq!(call(path).await.unwrap().status(), 200, "{path}");
        assert_eq!(world.api.requests().last().unwrap().uri(), path);
    }
    for path in ["", "?query={a}&b='"] {
        assert_eq!(call(path).await.unwrap().status(), 200, "{path}");
    }
    for path in [
        "/a/../b",
        "/a/./b",
        "/a/%2e%2E/b",
        "/a{b}",
        "/a\"b",
        "/a\\b",
    ] {
        let error = call(path).await.unwrap_err();
        assert!(
            error.to_string().contains("another path"),
            "{path}: {error}"
        );
    }
    assert_eq!(world.api.request_count(), kept.len() + 2);
    world.assert_own_proofs().await;
}
