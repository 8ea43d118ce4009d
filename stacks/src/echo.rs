//! A gRPC service with one method of each kind.

use std::{future::pending, pin::Pin};

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::{Code, Request, Response, Status, Streaming};

/// What goes to and fro.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Text {
    /// Whatever it says.
    #[prost(string, tag = "1")]
    pub text: String,
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
        }
    }
}

#[allow(clippy::missing_errors_doc)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/stacks.Echo.rs"));
}

pub use generated::{echo_client, echo_server};

/// A message to [`Parrot`] that is answered by NOT_FOUND, with details.
pub const MISSING: &str = "missing";

/// A message to [`Parrot`] that is never answered.
pub const NEVER: &str = "never";

/// Metadata that [`Parrot`] gives back.
pub const TAG: &str = "x-tag";

/// What NOT_FOUND comes with.
pub const DETAILS: &[u8] = b"\x08\x05details";

/// The service: it repeats what it is told.
///
/// `say` answers with the same text, `gather` with all texts as one, `scatter` with each word alone, and `chat`
/// repeats each text when it comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Parrot;

type Texts = Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

/// An answer with the tag of the request.
fn tagged<A, Q>(request: &Request<Q>, answer: A) -> Response<A> {
    let mut response = Response::new(answer);
    if let Some(tag) = request.metadata().get(TAG) {
        response.metadata_mut().insert(TAG, tag.clone());
    }
    response
}

#[tonic::async_trait]
impl echo_server::Echo for Parrot {
    async fn say(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        match request.get_ref().text.as_str() {
            MISSING => {
                let tag = tagged(&request, ()).metadata().clone();
                let (code, details) = (Code::NotFound, DETAILS.into());
                Err(Status::with_details_and_metadata(
                    code,
                    "no such text",
                    details,
                    tag,
                ))
            }
            NEVER => pending().await,
            _ => Ok(tagged(&request, request.get_ref().clone())),
        }
    }

    async fn gather(&self, request: Request<Streaming<Text>>) -> Result<Response<Text>, Status> {
        let mut response = tagged(&request, Text::default());
        let mut texts = request.into_inner();
        while let Some(text) = texts.try_next().await? {
            response.get_mut().text.push_str(&text.text);
        }
        Ok(response)
    }

    type ScatterStream = Texts;

    async fn scatter(&self, request: Request<Text>) -> Result<Response<Texts>, Status> {
        let words: Vec<_> = request.get_ref().text.split(' ').map(Text::from).collect();
        let texts = stream::iter(words).map(Ok).boxed();
        Ok(tagged(&request, texts))
    }

    type ChatStream = Texts;

    async fn chat(&self, request: Request<Streaming<Text>>) -> Result<Response<Texts>, Status> {
        let response = tagged(&request, ());
        let texts = request.into_inner().boxed();
        Ok(response.map(|()| texts))
    }
}
