//! Calls that nobody waits for any more.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::{runtime::Handle, sync::Semaphore};
use tonic::{Code, Request};
use tower::{ServiceBuilder, limit::ConcurrencyLimit};
use tower_dpop_stacks::echo::{NEVER, Text, echo_client::EchoClient};

use crate::world::{World, in_time, until};

const SHORT: Duration = Duration::from_millis(100);

/// Longer than any call takes on a busy machine.
const LONG: Duration = Duration::from_secs(2);

fn within<M>(limit: Duration, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

#[tokio::test]
async fn a_deadline_in_the_metadata_reaches_the_server_and_ends_the_call() {
    let world = World::new().await;
    let mut client = world.client();
    client.say(Text::from("a")).await.unwrap();
    let status = in_time(client.say(within(SHORT, Text::from(NEVER)))).await;
    let code = status.unwrap_err().code();
    assert!(
        matches!(code, Code::Cancelled | Code::DeadlineExceeded),
        "{code}"
    );
    let seen = world.guard.seen();
    assert_eq!(seen.len(), 2, "no call is sent twice for it");
    assert!(seen[1].headers.contains_key("grpc-timeout"));
    until("the server lets it go", || world.guard.open() == 0).await;
    in_time(client.say(Text::from("b"))).await.unwrap();
    assert_eq!(world.token_requests(), 1);
}

#[tokio::test]
async fn a_deadline_above_ends_the_wait_for_a_token_and_not_its_fetch() {
    let world = World::new().await;
    world.authorization_server.delay(LONG);
    let below = world.stack(world.channel());
    let above = ServiceBuilder::new().timeout(SHORT).service(below);
    for _ in 0..3 {
        let mut client = EchoClient::new(above.clone());
        let status = in_time(client.say(Text::from("a"))).await.unwrap_err();
        assert_eq!(status.message(), "request timed out");
    }
    assert_eq!(world.seen(), [], "nothing was sent without a token");
    in_time(world.client().say(Text::from("a"))).await.unwrap();
    assert_eq!(world.token_requests(), 1);
}

/// tonic's `Channel` is what keeps to `grpc-timeout`, and the wait for a token comes before it: that needs a
/// deadline above, as in the test before.
#[tokio::test]
async fn a_deadline_in_the_metadata_begins_when_the_call_is_sent() {
    let world = World::new().await;
    world.authorization_server.delay(LONG + SHORT);
    let say = world.client().say(within(LONG, Text::from("a"))).await;
    assert_eq!(say.unwrap().into_inner().text, "a");
}

#[tokio::test]
async fn a_dropped_call_leaves_nothing_behind() {
    let world = World::new().await;
    let places = Arc::new(Semaphore::new(8));
    let limited = ConcurrencyLimit::with_semaphore(world.channel(), places.clone());
    let mut client = EchoClient::new(world.stack(limited));
    in_time(client.say(Text::from("a"))).await.unwrap();
    until("the first call is over", || world.guard.open() == 0).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let base = tasks();
    let source = Arc::new(());

    // Calls that the server has, and does not answer.
    let endless = || {
        let source = source.clone();
        let texts = stream::iter([Text::from("a"), Text::from("b")]);
        texts.chain(stream::pending()).inspect(move |_| {
            let _source = &source;
        })
    };
    for kind in ["say", "gather"] {
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, texts) = (client.clone(), endless());
                tokio::spawn(async move {
                    match kind {
                        "say" => client.say(Text::from(NEVER)).await,
                        _ => client.gather(texts).await,
                    }
                })
            })
            .collect();
        until("all are there", || world.guard.open() == 4).await;
        assert_eq!(places.available_permits(), 4);
        for call in calls {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
        until("the server lets them go", || world.guard.open() == 0).await;
    }
    // Calls that wait for a token.
    world.authorization_server.delay(LONG);
    world.tokens.forget_tokens();
    for _ in 0..4 {
        let mut client = client.clone();
        let call = tokio::spawn(async move { client.say(Text::from("a")).await });
        until("it waits", || world.token_requests() == 2).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
    }
    until("no task is left", || tasks() == base).await;
    until("no stream is left", || Arc::strong_count(&source) == 1).await;
    assert_eq!(places.available_permits(), 8);
    assert_eq!(world.token_requests(), 2);

    // The token that they did not wait for is there.
    world.authorization_server.delay(Duration::ZERO);
    in_time(client.say(Text::from("a"))).await.unwrap();
    assert_eq!(world.token_requests(), 2);
}
