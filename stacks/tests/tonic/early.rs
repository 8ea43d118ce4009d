//! A server that objects before the client's stream is through.

use futures_util::{Stream, StreamExt as _};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tower_dpop_stacks::{echo::Text, guard::Shape};

use crate::{
    calls::words,
    challenges::{IN_THE_HEADERS, OBJECTIONS, Objection},
    world::{World, in_time, until},
};

/// How the server leaves the rest of the stream, and where the objection stands.
fn ways() -> impl Iterator<Item = (Shape, Objection, bool)> {
    IN_THE_HEADERS.into_iter().flat_map(|shape| {
        OBJECTIONS
            .into_iter()
            .flat_map(move |objection| [false, true].map(|ignores| (shape, objection, ignores)))
    })
}

/// A world where the server objects to the next call after so many frames.
async fn world(after: usize, (shape, objection, ignores): (Shape, Objection, bool)) -> World {
    World::objecting(objection, |rules| {
        rules.shape = shape;
        rules.after = Some(after);
        rules.ignores_rest = ignores;
    })
    .await
}

fn messages() -> (
    mpsc::Sender<Text>,
    impl Stream<Item = Text> + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, ReceiverStream::new(receiver))
}

#[tokio::test]
async fn a_stream_that_goes_on_is_sent_again_from_its_beginning() {
    for way in ways() {
        for after in [0, 1] {
            let world = world(after, way).await;
            let tasks = || Handle::current().metrics().num_alive_tasks();
            let base = tasks();
            let (sender, receiver) = messages();
            let mut client = world.client();
            let gather = tokio::spawn(async move { client.gather(receiver).await });
            for text in ["a", "b"] {
                in_time(sender.send(Text::from(text))).await.unwrap();
            }
            until("it is sent again", || world.verdicts().len() == 2).await;
            for text in ["c", "d", "e"] {
                in_time(sender.send(Text::from(text))).await.unwrap();
            }
            drop(sender);
            let answer = in_time(gather).await.unwrap().unwrap();
            assert_eq!(answer.into_inner().text, "abcde", "{way:?} {after}");
            assert_eq!(world.verdicts(), [Some(way.1.code()), None]);
            world.assert_tokens(way.1);
            until("nothing is left of the first send", || tasks() <= base).await;
        }
    }
}

/// However the objection and the messages meet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_stream_in_full_flow_nothing_is_lost_or_doubled() {
    const MESSAGES: usize = 500;
    for way in ways() {
        for after in [0, 1, 7] {
            let world = world(after, way).await;
            let (sender, receiver) = messages();
            tokio::spawn(async move {
                for n in 0..MESSAGES {
                    let text = format!("{n} ");
                    sender.send(Text { text }).await.unwrap();
                    if n % 10 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            });
            let answer = in_time(world.client().gather(receiver)).await.unwrap();
            let wanted: String = (0..MESSAGES).map(|n| format!("{n} ")).collect();
            assert_eq!(answer.into_inner().text, wanted, "{way:?} {after}");
            assert_eq!(world.verdicts(), [Some(way.1.code()), None]);
        }
    }
}

#[tokio::test]
async fn a_chat_without_end_does_not_hang() {
    for way in ways() {
        let world = world(1, way).await;
        let (sender, receiver) = messages();
        in_time(sender.send(Text::from("a"))).await.unwrap();
        let chat = in_time(world.client().chat(receiver)).await.unwrap();
        let mut answers = chat.into_inner();
        assert_eq!(in_time(answers.next()).await.unwrap().unwrap().text, "a");
        for n in 0..10 {
            let text = n.to_string();
            in_time(sender.send(Text { text: text.clone() }))
                .await
                .unwrap();
            let answer = in_time(answers.next()).await.unwrap().unwrap();
            assert_eq!(answer.text, text, "{way:?}");
        }
        assert_eq!(world.verdicts(), [Some(way.1.code()), None]);
        drop(sender);
        assert_eq!(in_time(words(answers)).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_chat_that_said_too_much_before_ends_with_the_servers_status() {
    for way in ways() {
        let world = world(100, way).await;
        let (sender, receiver) = messages();
        let mut client = world.client();
        let chat = tokio::spawn(async move {
            // Of an answer that is not gRPC's, tonic makes a status where messages would be.
            client.chat(receiver).await?.into_inner().message().await
        });
        // One frame each, and more than is kept.
        let text = "x".repeat(1024);
        let mut sent = 0;
        while in_time(sender.send(Text { text: text.clone() }))
            .await
            .is_ok()
            && sent < 1000
        {
            tokio::task::yield_now().await;
            sent += 1;
        }
        let status = in_time(chat).await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{way:?}");
        assert_eq!(world.verdicts(), [Some(way.1.code())], "{way:?}: sent once");
        in_time(world.client().say(Text::from("a"))).await.unwrap();
        assert_eq!(world.verdicts(), [Some(way.1.code()), None]);
        world.assert_tokens(way.1);
    }
}
