//! A server that asks for a nonce, or refuses the token: in each of the ways in which gRPC servers do.

use futures_util::stream;
use tonic::{Code, Status};
use tower_dpop_stacks::{
    echo::Text,
    guard::{Rules, Shape},
};

use crate::world::{EchoStack, World, in_time, until};

/// What can be answered within the call.
pub(crate) const IN_THE_HEADERS: [Shape; 2] = [Shape::Unauthorized, Shape::TrailersOnly];

/// What a server objects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Objection {
    Nonce,
    Token,
}

pub(crate) const OBJECTIONS: [Objection; 2] = [Objection::Nonce, Objection::Token];

impl Objection {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Nonce => "use_dpop_nonce",
            Self::Token => "invalid_token",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Say,
    Gather,
    Scatter,
    Chat,
}

const KINDS: [Kind; 4] = [Kind::Say, Kind::Gather, Kind::Scatter, Kind::Chat];

/// A call; what its answer says, all in all.
async fn call(client: &mut EchoStack, kind: Kind, texts: Vec<Text>) -> Result<String, Status> {
    let all = || Text {
        text: texts.iter().map(|text| &*text.text).collect(),
    };
    let answer = match kind {
        Kind::Say => return Ok(client.say(all()).await?.into_inner().text),
        Kind::Gather => return Ok(client.gather(stream::iter(texts)).await?.into_inner().text),
        Kind::Scatter => client.scatter(all()).await?,
        Kind::Chat => client.chat(stream::iter(texts)).await?,
    };
    let mut said = String::new();
    let mut answer = answer.into_inner();
    while let Some(text) = answer.message().await? {
        said.push_str(&text.text);
    }
    Ok(said)
}

/// Messages with so many bytes of text in all.
fn bytes(bytes: usize) -> Vec<Text> {
    const EACH: usize = 1024;
    let text = "x".repeat(EACH.min(bytes));
    vec![Text { text }; bytes.div_ceil(EACH)]
}

impl World {
    /// A world where one call was made, and the server objects to the next.
    pub(crate) async fn objecting(objection: Objection, change: impl FnOnce(&mut Rules)) -> Self {
        let world = Self::new().await;
        in_time(world.client().say(Text::from("first")))
            .await
            .unwrap();
        until("it is over", || world.guard.open() == 0).await;
        let token = world.guard.seen()[0].token.clone();
        world.guard.rules(|rules| {
            match objection {
                Objection::Nonce => rules.nonce = Some("n".to_owned()),
                Objection::Token => drop(rules.refused.insert(token)),
            }
            change(rules);
        });
        world
    }

    /// What the server thought of the calls after the first.
    pub(crate) fn verdicts(&self) -> Vec<Option<&'static str>> {
        self.seen().into_iter().skip(1).map(|seen| seen.1).collect()
    }

    /// One token for all calls, or one more.
    pub(crate) fn assert_tokens(&self, objection: Objection) {
        let wanted = if objection == Objection::Token { 2 } else { 1 };
        assert_eq!(self.token_requests(), wanted);
    }
}

/// That it is the server's own refusal.
fn assert_refused(status: &Status, shape: Shape, objection: Objection) {
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    // tonic tells nothing more of an answer that is not gRPC's.
    if shape == Shape::Unauthorized {
        return;
    }
    let metadata = status.metadata();
    let challenge = metadata.get("www-authenticate").unwrap().to_str().unwrap();
    assert_eq!(challenge, format!(r#"DPoP error="{}""#, objection.code()));
    assert_eq!(
        metadata.get("dpop-nonce").is_some(),
        objection == Objection::Nonce
    );
}

#[tokio::test]
async fn in_the_headers_it_is_answered_within_the_call() {
    for shape in IN_THE_HEADERS {
        for objection in OBJECTIONS {
            for kind in KINDS {
                let case = format!("{shape:?} {objection:?} {kind:?}");
                let world = World::objecting(objection, |rules| rules.shape = shape).await;
                let mut client = world.client();
                // Some more than one frame of HTTP/2.
                let said = in_time(call(&mut client, kind, bytes(20 * 1024))).await;
                assert_eq!(said.expect(&case).len(), 20 * 1024, "{case}");
                assert_eq!(world.verdicts(), [Some(objection.code()), None], "{case}");
                world.assert_tokens(objection);
                let said = in_time(call(&mut client, kind, bytes(1))).await;
                assert_eq!(said.expect(&case), "x");
                assert_eq!(
                    world.verdicts().len(),
                    3,
                    "{case}: the next one is sent once"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_nonce_and_a_token_within_one_call() {
    for shape in IN_THE_HEADERS {
        let world = World::objecting(Objection::Token, |rules| {
            rules.shape = shape;
            rules.nonce = Some("n".to_owned());
        })
        .await;
        let said = in_time(call(&mut world.client(), Kind::Gather, bytes(10))).await;
        assert_eq!(said.unwrap(), "x".repeat(10));
        // A refused token is all that its refusal speaks of, but the nonce comes along.
        assert_eq!(world.verdicts(), [Some("invalid_token"), None]);
    }
}

#[tokio::test]
async fn what_was_longer_than_the_limit_is_not_sent_again() {
    for shape in IN_THE_HEADERS {
        for objection in OBJECTIONS {
            for kind in KINDS {
                let case = format!("{shape:?} {objection:?} {kind:?}");
                let world = World::objecting(objection, |rules| rules.shape = shape).await;
                let mut client = world.client();
                let long = || bytes(100 * 1024);
                let status = in_time(call(&mut client, kind, long())).await.unwrap_err();
                assert_refused(&status, shape, objection);
                assert_eq!(
                    world.verdicts(),
                    [Some(objection.code())],
                    "{case}: sent once"
                );
                // What was learned is for the next call, however long.
                let said = in_time(call(&mut client, kind, long())).await;
                assert_eq!(said.expect(&case).len(), 100 * 1024);
                assert_eq!(world.verdicts(), [Some(objection.code()), None], "{case}");
                world.assert_tokens(objection);
            }
        }
    }
}

#[tokio::test]
async fn in_the_trailers_it_is_learned_for_the_next_call() {
    for objection in OBJECTIONS {
        for kind in KINDS {
            let case = format!("{objection:?} {kind:?}");
            let trailers = |rules: &mut Rules| rules.shape = Shape::Trailers;
            let world = World::objecting(objection, trailers).await;
            let mut client = world.client();
            let status = in_time(call(&mut client, kind, bytes(10)))
                .await
                .unwrap_err();
            assert_refused(&status, Shape::Trailers, objection);
            assert_eq!(
                world.verdicts(),
                [Some(objection.code())],
                "{case}: sent once"
            );
            let said = in_time(call(&mut client, kind, bytes(10))).await;
            assert_eq!(said.expect(&case), "x".repeat(10));
            assert_eq!(world.verdicts(), [Some(objection.code()), None], "{case}");
            world.assert_tokens(objection);
        }
    }
}
