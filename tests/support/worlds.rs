//! The servers of a scenario, in memory and over TCP, and a client with both layers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, BoxError, DpopLayer, NoReplay, RecordedBody, ReplayBody, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Recorded, ResourceServer},
};

use super::{Answered, BODY, Calls, Kind, Row, Sent, Went};
use crate::support::{
    API, ENDPOINT, Fake, Seen, a3_key,
    bench::{API2, AS, ms, secs},
};

#[derive(Clone, Copy)]
pub(crate) enum World {
    InMemory,
    Tcp(Version),
}

/// Both servers of the crate, the second one twice.
pub(crate) struct Embedded {
    pub(crate) authorization_server: AuthorizationServer,
    pub(crate) one: ResourceServer,
    pub(crate) two: ResourceServer,
}

enum Kept {
    InMemory(Fake),
    Tcp(Embedded),
}

type Streamed = UnsyncBoxBody<Bytes, BoxError>;

/// Whatever sends requests.
type Client = BoxCloneSyncService<Request<Streamed>, Response<Full<Bytes>>, BoxError>;

/// Both layers over it.
type Stack = BoxCloneSyncService<Request<Bytes>, Response<Bytes>, BoxError>;

pub(super) struct Servers {
    kept: Kept,
    endpoint: String,
    origins: [String; 2],
    client: Client,
}

impl Servers {
    pub(super) fn in_memory(row: &Row) -> Self {
        let (asks, api) = (Arc::clone(&row.asks), Arc::clone(&row.api));
        let fake = Fake::new(move |seen, _| {
            let to_as = seen.uri.host() == Some(AS);
            let answer = if to_as { asks(seen) } else { api(seen) };
            answer.map(Full::new)
        });
        // So that what is sent at once is on its way at once.
        let fake = fake.delay(ms(5));
        let sends = fake.clone();
        let client = service_fn(move |request: Request<Streamed>| {
            let sends = sends.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                sends
                    .oneshot(Request::from_parts(head, Full::new(body)))
                    .await
            }
        });
        Self {
            kept: Kept::InMemory(fake),
            endpoint: ENDPOINT.to_owned(),
            origins: [API, API2].map(str::to_owned),
            client: BoxCloneSyncService::new(client),
        }
    }

    /// None if the embedded servers cannot do what the row asks for.
    pub(super) async fn over_tcp(row: &Row, version: Version) -> Option<Self> {
        let order = row.tcp.as_ref()?;
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let embedded = Embedded {
            one: ResourceServer::start(&authorization_server).await.unwrap(),
            two: ResourceServer::start(&authorization_server).await.unwrap(),
            authorization_server,
        };
        order(&embedded);
        let http = legacy::Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            .build_http::<Streamed>();
        let client = service_fn(move |request: Request<Streamed>| {
            let answer = http.request(request);
            async move {
                let (head, body) = answer.await?.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, BoxError>(Response::from_parts(head, Full::new(body)))
            }
        });
        Some(Self {
            endpoint: embedded.authorization_server.token_endpoint(),
            origins: [&embedded.one, &embedded.two].map(|api| api.origin().to_owned()),
            kept: Kept::Tcp(embedded),
            client: BoxCloneSyncService::new(client),
        })
    }

    pub(super) async fn call(&self, calls: Calls) -> Vec<Answered> {
        let kind = match calls {
            Calls::Post(kind) => kind,
            _ => Kind::Whole,
        };
        let stack = self.stack(kind);
        let [one, two] = &self.origins;
        let get = |url: String| {
            stack
                .clone()
                .oneshot(Request::get(url).body(Bytes::new()).unwrap())
        };
        let mut answers = Vec::new();
        match calls {
            Calls::InTurn(times) => {
                for n in 0..times {
                    answers.push(get(format!("{one}/{n}")).await);
                }
            }
            Calls::EachSecond(times) => {
                let mut seconds = tokio::time::interval(secs(1));
                for n in 0..times {
                    seconds.tick().await;
                    answers.push(get(format!("{one}/{n}")).await);
                }
            }
            Calls::AtOnce(times) => {
                let tasks = (0..times).map(|n| tokio::spawn(get(format!("{one}/{n}"))));
                for task in tasks.collect::<Vec<_>>() {
                    answers.push(task.await.unwrap());
                }
            }
            Calls::TwoOrigins => {
                for origin in [one, two, one, two] {
                    answers.push(get(format!("{origin}/")).await);
                }
            }
            Calls::Path(path) => answers.push(get(format!("{one}{path}")).await),
            Calls::Post(_) => {
                let post = Request::post(format!("{one}/orders")).body(Bytes::from(BODY));
                answers.push(stack.oneshot(post.unwrap()).await);
            }
        }
        answers
    }

    /// Both layers, for bodies of one kind.
    fn stack(&self, kind: Kind) -> Stack {
        let dpop = DpopLayer::new(a3_key());
        match kind {
            Kind::Whole => {
                let layers = ServiceBuilder::new()
                    .map_request(|request: Request<Bytes>| request.map(Full::new))
                    .layer(self.tokens(&dpop))
                    .layer(dpop)
                    .map_request(streamed);
                BoxCloneSyncService::new(layers.service(self.client.clone()).and_then(collected))
            }
            Kind::Recorded => {
                let dpop = dpop.replay(RecordedBody);
                let layers = ServiceBuilder::new()
                    .map_request(|request: Request<Bytes>| {
                        request.map(|body| ReplayBody::new(Halves::of(body)))
                    })
                    .layer(self.tokens(&dpop))
                    .layer(dpop)
                    .map_request(streamed);
                BoxCloneSyncService::new(layers.service(self.client.clone()).and_then(collected))
            }
            Kind::Once => {
                let dpop = dpop.replay(NoReplay);
                let layers = ServiceBuilder::new()
                    .map_request(|request: Request<Bytes>| request.map(Halves::of))
                    .layer(self.tokens(&dpop))
                    .layer(dpop)
                    .map_request(streamed);
                BoxCloneSyncService::new(layers.service(self.client.clone()).and_then(collected))
            }
        }
    }

    fn tokens<R: Clone>(&self, dpop: &DpopLayer<R>) -> TokenLayer<R> {
        let request = TokenRequest::client_credentials(&self.endpoint, CLIENT_ID)
            .client_secret_post(CLIENT_SECRET);
        let client = self.client.clone().map_request(streamed::<Full<Bytes>>);
        let audience = Audience::origins(&self.origins).unwrap();
        TokenLayer::new(dpop, client, request, audience).unwrap()
    }

    pub(super) fn went(&self, answers: Vec<Answered>) -> Went {
        let (asked, served) = match &self.kept {
            Kept::InMemory(fake) => {
                let all = fake.seen().into_iter().map(Sent::from_seen);
                all.partition(|sent| self.endpoint.starts_with(&sent.origin))
            }
            Kept::Tcp(embedded) => {
                let server = &embedded.authorization_server;
                let asked = all(server.origin(), server.requests());
                let [one, two] = [&embedded.one, &embedded.two];
                let mut served = all(one.origin(), one.requests());
                served.extend(all(two.origin(), two.requests()));
                (asked, served)
            }
        };
        Went {
            origins: self.origins.clone(),
            asked,
            served,
            answers,
        }
    }
}

impl Sent {
    fn from_seen(seen: Seen) -> Self {
        let (scheme, host) = (seen.uri.scheme_str(), seen.uri.authority());
        Self {
            origin: format!("{}://{}", scheme.unwrap(), host.unwrap()),
            path: seen.uri.path().to_owned(),
            method: seen.method,
            headers: seen.headers,
            body: seen.body,
        }
    }

    fn recorded(origin: &str, seen: &Recorded) -> Self {
        Self {
            origin: origin.to_owned(),
            path: seen.uri().path().to_owned(),
            method: seen.method().clone(),
            headers: seen.headers().clone(),
            body: seen.body().clone(),
        }
    }
}

fn all(origin: &str, requests: Vec<Recorded>) -> Vec<Sent> {
    let all = requests.iter().map(|seen| Sent::recorded(origin, seen));
    all.collect()
}

fn streamed<B>(request: Request<B>) -> Request<Streamed>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    request.map(|body| body.map_err(Into::into).boxed_unsync())
}

async fn collected<B>(answer: Response<B>) -> Answered
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(Into::into)?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// A body as a stream is: it comes in pieces, tells no length, and cannot be cloned.
struct Halves(VecDeque<Bytes>);

impl Halves {
    fn of(mut body: Bytes) -> Self {
        let first = body.split_to(body.len() / 2);
        Self(
            [first, body]
                .into_iter()
                .filter(|half| !half.is_empty())
                .collect(),
        )
    }
}

impl Body for Halves {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|half| Ok(Frame::data(half))))
    }
}
