//! F58 of the fault catalogue: tonic's `Channel` is a buffer, and panics if a clone is called of what was
//! polled ready.

use futures_util::future::join_all;
use http::{Request, Response};
use tonic::{body::Body, transport::Channel};
use tower::{BoxError, Service, ServiceBuilder, limit::ConcurrencyLimit};
use tower_dpop_stacks::echo::{Text, echo_client::EchoClient};

use crate::{
    calls::one_of_each,
    world::{EchoStack, World, in_time},
};

/// Calls on every way through the layers: without a token and with one, challenged, refused, and many at once.
/// All on handles that live on, so that the next call finds what the last one left.
async fn every_way<S>(below: impl FnOnce(Channel) -> S)
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let world = World::new().await;
    let client = EchoClient::new(world.stack(below(world.channel())));
    in_time(every_call(&world, client)).await;
    assert_eq!(world.token_requests(), 2);
    let refused = |code| {
        world
            .seen()
            .iter()
            .filter(|seen| seen.1 == Some(code))
            .count()
    };
    assert_eq!(refused("invalid_dpop_proof"), 0);
    assert_eq!(refused("invalid_token"), 1);
    assert!(refused("use_dpop_nonce") >= 3);
}

async fn every_call(world: &World, mut client: EchoStack) {
    one_of_each(&mut client).await;
    world
        .guard
        .rules(|rules| rules.nonce = Some("n1".to_owned()));
    one_of_each(&mut client).await;
    let token = world.guard.seen()[0].token.clone();
    world.guard.rules(|rules| {
        rules.refused.insert(token);
    });
    one_of_each(&mut client).await;
    world
        .guard
        .rules(|rules| rules.nonce = Some("n2".to_owned()));
    one_of_each(&mut client).await;

    world
        .guard
        .rules(|rules| rules.nonce = Some("n3".to_owned()));
    let calls = (0..16).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for text in ["a", "b"] {
                let say = client.say(Text::from(text)).await.unwrap();
                assert_eq!(say.into_inner().text, text);
            }
        })
    });
    for call in join_all(calls.collect::<Vec<_>>()).await {
        call.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_over_a_channel() {
    every_way(|channel| channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_over_a_channel_with_one_place() {
    let world = World::new().await;
    let endpoint = world.endpoint.clone();
    let channel = endpoint.buffer_size(1).concurrency_limit(1).connect_lazy();
    let client = EchoClient::new(world.stack(channel));
    in_time(every_call(&world, client)).await;
    assert_eq!(world.token_requests(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_with_a_limit_between() {
    for limit in [1, 4] {
        every_way(|channel| ConcurrencyLimit::new(channel, limit)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_with_a_buffer_between() {
    for places in [1, 4] {
        every_way(|channel| ServiceBuilder::new().buffer(places).service(channel)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_with_both_between() {
    every_way(|channel| {
        ServiceBuilder::new()
            .buffer(1)
            .concurrency_limit(1)
            .service(channel)
    })
    .await;
    every_way(|channel| {
        ServiceBuilder::new()
            .concurrency_limit(1)
            .buffer(1)
            .service(channel)
    })
    .await;
}
