//! The four kinds of calls, with nothing amiss.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all};
use tonic::{Code, Request, Status, body::Body};
use tower::ServiceBuilder;
use tower_dpop::ReplayBody;
use tower_dpop_stacks::{
    echo::{DETAILS, MISSING, TAG, Text, echo_client::EchoClient},
    guard::SERVED,
};

use crate::world::{EchoStack, NAME, World, in_time, texts};

/// One call of each kind.
pub(crate) async fn one_of_each(client: &mut EchoStack) {
    let say = client.say(Text::from("a b c")).await.unwrap();
    assert_eq!(say.get_ref().text, "a b c");
    let gather = client.gather(texts(&["a", "b", "c"])).await.unwrap();
    assert_eq!(gather.get_ref().text, "abc");
    let scatter = client.scatter(Text::from("a b c")).await.unwrap();
    assert_eq!(words(scatter.into_inner()).await, ["a", "b", "c"]);
    let chat = client.chat(texts(&["a", "b", "c"])).await.unwrap();
    assert_eq!(words(chat.into_inner()).await, ["a", "b", "c"]);
}

pub(crate) async fn words(texts: tonic::Streaming<Text>) -> Vec<String> {
    texts.map_ok(|text| text.text).try_collect().await.unwrap()
}

fn tagged<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(TAG, "tag".parse().unwrap());
    request
}

#[tokio::test]
async fn each_kind_of_call_has_one_proof_for_the_origin_that_was_set() {
    let named = format!("https://{NAME}:8443");
    for world in [World::new().await, World::named(&named).await] {
        in_time(one_of_each(&mut world.client())).await;
        let paths = ["Say", "Gather", "Scatter", "Chat"];
        let paths = paths.map(|method| (format!("/stacks.Echo/{method}"), None));
        assert_eq!(world.seen(), paths, "each call is one request");
        assert_eq!(world.token_requests(), 1);
        // Signature, `ath`, `jti` and `htu` were checked by the server; this is for those who read along.
        for seen in world.guard.seen() {
            assert_eq!(seen.claims["htm"], "POST");
            let htu = seen.claims["htu"].as_str().unwrap();
            assert!(
                htu.starts_with("https://") && htu.ends_with(&seen.path),
                "{htu}"
            );
        }
    }
    let world = World::named(&named).await;
    world.client().say(Text::from("a")).await.unwrap();
    let htu = &world.guard.seen()[0].claims["htu"];
    assert_eq!(*htu, format!("{named}/stacks.Echo/Say"));
}

#[tokio::test]
async fn many_messages_are_one_call() {
    let world = World::new().await;
    let mut client = world.client();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let chat = in_time(client.chat(receiver)).await.unwrap();
    let mut answers = chat.into_inner();
    // One after the other, so that each is a frame of its own.
    for n in 0..100 {
        let text = n.to_string();
        sender.send(Text { text: text.clone() }).await.unwrap();
        let answer = in_time(answers.next()).await.unwrap().unwrap();
        assert_eq!(answer.text, text);
    }
    drop(sender);
    assert!(in_time(answers.next()).await.is_none());
    assert_eq!(world.guard.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_parallel_share_one_token() {
    let world = World::new().await;
    let client = world.client();
    let calls = (0..64).map(|n| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let text = n.to_string();
            let answer = client.say(Text { text: text.clone() }).await.unwrap();
            assert_eq!(answer.into_inner().text, text);
        })
    });
    for call in in_time(join_all(calls.collect::<Vec<_>>())).await {
        call.unwrap();
    }
    assert_eq!(world.token_requests(), 1);
    let seen = world.guard.seen();
    assert!(seen.iter().all(|seen| seen.refused.is_none()));
    let proofs: HashSet<_> = seen
        .iter()
        .map(|seen| seen.claims["jti"].as_str())
        .collect();
    let tokens: HashSet<_> = seen.iter().map(|seen| &seen.token).collect();
    assert_eq!((seen.len(), proofs.len(), tokens.len()), (64, 64, 1));
}

/// As in the other tests, but nothing is boxed.
#[tokio::test]
async fn the_generated_client_takes_the_layers_as_they_are() {
    let world = World::new().await;
    let layers = ServiceBuilder::new()
        .map_err(Status::from_error)
        .map_request(|request: http::Request<Body>| request.map(ReplayBody::new))
        .layer(world.tokens.clone())
        .layer(world.dpop.clone())
        .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
        .service(world.channel());
    let mut client = EchoClient::new(layers);
    let call = tokio::spawn(async move { client.gather(texts(&["a", "b"])).await });
    let answer = in_time(call).await.unwrap().unwrap();
    assert_eq!(answer.into_inner().text, "ab");
    assert_eq!(world.seen().len(), 1);
}

/// An error of the layers is found in the status that a call ends with.
#[tokio::test]
async fn without_a_token_the_call_fails_with_the_reason() {
    let world = World::new().await;
    world
        .authorization_server
        .fail(1, http::StatusCode::FORBIDDEN);
    let status = in_time(world.client().say(Text::from("a")))
        .await
        .unwrap_err();
    let error = tower_dpop::Error::find(&status).expect("it is ours");
    assert!(error.is_token_request(), "{error}");
    assert_eq!(world.seen(), []);
}

#[tokio::test]
async fn metadata_and_trailers_are_untouched() {
    let world = World::new().await;
    let mut client = world.client();
    let say = in_time(client.say(tagged(Text::from("a")))).await.unwrap();
    assert_eq!(say.metadata().get(TAG).unwrap(), "tag");
    assert_eq!(say.metadata().get(SERVED).unwrap(), "yes", "a trailer");

    let scatter = in_time(client.scatter(tagged(Text::from("a b"))))
        .await
        .unwrap();
    assert_eq!(scatter.metadata().get(TAG).unwrap(), "tag");
    assert!(scatter.metadata().get(SERVED).is_none(), "not a header");
    let mut texts = scatter.into_inner();
    while in_time(texts.message()).await.unwrap().is_some() {}
    let trailers = texts.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get(SERVED).unwrap(), "yes");
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");

    // What a call brings along arrives, with what the layers add and nothing else.
    let names = |with_layers: bool, headers: &http::HeaderMap| {
        let names = headers.keys().map(http::HeaderName::as_str);
        let ours = ["authorization", "dpop"];
        let names = names.filter(|name| with_layers || !ours.contains(name));
        names.map(str::to_owned).collect::<HashSet<_>>()
    };
    let bare = in_time(EchoClient::new(world.channel()).say(tagged(Text::from("a")))).await;
    assert_eq!(
        bare.unwrap_err().code(),
        Code::Unauthenticated,
        "without the layers"
    );
    let [with, .., without] = &world.guard.seen()[..] else {
        panic!("three calls")
    };
    assert_eq!(with.headers[TAG], "tag");
    assert_eq!(names(false, &with.headers), names(true, &without.headers));
}

#[tokio::test]
async fn a_status_is_untouched() {
    let world = World::new().await;
    let mut layered = world.client();
    let status = in_time(layered.say(tagged(Text::from(MISSING)))).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "no such text");
    assert_eq!(status.details(), DETAILS);
    assert_eq!(status.metadata().get(TAG).unwrap(), "tag");

    let seen = world.guard.seen();
    assert_eq!(seen.len(), 1, "sent once");
    assert_eq!(world.token_requests(), 1);
}
