//! Servers, and clients for them.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    transport::{Channel, ClientTlsConfig, Endpoint, Server, ServerTlsConfig},
};
use tower::{BoxError, Service, ServiceBuilder, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, DpopKey, DpopLayer, RecordedBody, ReplayBody, TokenLayer, TokenRequest,
    dpop::ResponseBody,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, TokenFormat},
};
use tower_dpop_stacks::{
    echo::{Parrot, Text, echo_client::EchoClient, echo_server::EchoServer},
    guard::Guard,
    tls::SelfSigned,
};

/// Against hangs. Nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A name of the server, which no resolver knows.
pub(crate) const NAME: &str = "grpc.example.com";

pub(crate) type Stack = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;
pub(crate) type EchoStack = EchoClient<Stack>;

pub(crate) struct World {
    pub(crate) authorization_server: AuthorizationServer,
    pub(crate) guard: Guard,
    pub(crate) endpoint: Endpoint,
    pub(crate) dpop: DpopLayer<RecordedBody>,
    pub(crate) tokens: TokenLayer<RecordedBody>,
    client: EchoStack,
    server: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    /// The server is known by its address.
    pub(crate) async fn new() -> Self {
        Self::with(None).await
    }

    /// The server is known as `origin`.
    pub(crate) async fn named(origin: &str) -> Self {
        Self::with(Some(origin)).await
    }

    async fn with(origin: Option<&str>) -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        authorization_server.token_format(TokenFormat::Signed);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let origin = origin.unwrap_or(&url);
        let guard = Guard::new(origin, authorization_server.origin());
        let tls = SelfSigned::new(&["127.0.0.1", NAME]).unwrap();
        let server = serve(listener, &tls, guard.clone());

        let trust = ClientTlsConfig::new().ca_certificate(tls.certificate());
        let endpoint = Endpoint::from_shared(url.clone())
            .unwrap()
            .origin(origin.parse().unwrap())
            .tls_config(trust.domain_name(NAME))
            .unwrap();
        let dpop = DpopLayer::new(DpopKey::generate().unwrap())
            .origin(origin.parse().unwrap())
            .replay(RecordedBody);
        let tokens = tokens(&authorization_server, &dpop, origin);
        let layered = stack(&tokens, &dpop, endpoint.connect_lazy());
        Self {
            client: EchoClient::new(layered),
            authorization_server,
            guard,
            endpoint,
            dpop,
            tokens,
            server,
        }
    }

    /// A channel of its own.
    pub(crate) fn channel(&self) -> Channel {
        self.endpoint.connect_lazy()
    }

    /// Both layers over `below`.
    pub(crate) fn stack<S>(&self, below: S) -> Stack
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
    {
        stack(&self.tokens, &self.dpop, below)
    }

    /// The generated client, over both layers, over a channel. All of them share it.
    pub(crate) fn client(&self) -> EchoStack {
        self.client.clone()
    }

    /// How many tokens were asked for.
    pub(crate) fn token_requests(&self) -> usize {
        self.authorization_server.request_count()
    }

    /// Paths that the server saw, and why it refused.
    pub(crate) fn seen(&self) -> Vec<(String, Option<&'static str>)> {
        let seen = self.guard.seen().into_iter();
        seen.map(|seen| (seen.path, seen.refused.map(|fault| fault.code)))
            .collect()
    }
}

fn serve(listener: TcpListener, tls: &SelfSigned, guard: Guard) -> JoinHandle<()> {
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(tls.identity()))
        .unwrap()
        .layer(guard)
        .serve_with_incoming(EchoServer::new(Parrot), TcpListenerStream::new(listener));
    tokio::spawn(async move { server.await.unwrap() })
}

fn tokens(
    authorization_server: &AuthorizationServer,
    dpop: &DpopLayer<RecordedBody>,
    origin: &str,
) -> TokenLayer<RecordedBody> {
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let request =
        TokenRequest::client_credentials(authorization_server.token_endpoint(), CLIENT_ID)
            .client_secret_post(CLIENT_SECRET);
    TokenLayer::new(dpop, http, request, Audience::origins([origin]).unwrap()).unwrap()
}

fn stack<S>(tokens: &TokenLayer<RecordedBody>, dpop: &DpopLayer<RecordedBody>, below: S) -> Stack
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let stack = ServiceBuilder::new()
        // A call can be spawned only if the error of its service is not a boxed one.
        .map_err(Status::from_error)
        .map_response(|response: Response<ResponseBody<Body>>| response.map(Body::new))
        .map_request(|request: Request<Body>| request.map(ReplayBody::new))
        .layer(tokens.clone())
        .layer(dpop.clone())
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(below);
    BoxCloneSyncService::new(stack)
}

/// A hang is a failure.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("it hangs"))
}

/// Waits until something holds that nobody tells of.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Messages, all there from the start.
pub(crate) fn texts(texts: &'static [&'static str]) -> impl Stream<Item = Text> + Send + 'static {
    stream::iter(texts).map(|text| Text::from(*text))
}
