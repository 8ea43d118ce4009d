//! gRPC calls with tokens and proofs: a generated tonic client, over both layers, over a `Channel`.
//!
//! `cargo run -p tower-dpop-stacks --example tonic`
//!
//! Everything runs in here: an authorization server, and a gRPC server with TLS that takes no call without a
//! token, a proof and a nonce. What a program of your own needs is `connect`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Server, ServerTlsConfig},
};
use tower::{ServiceBuilder, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, RecordedBody, ReplayBody, TokenLayer, TokenRequest,
    dpop::ResponseBody,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, TokenFormat},
};
use tower_dpop_stacks::{
    echo::{Parrot, Text, echo_client::EchoClient, echo_server::EchoServer},
    guard::Guard,
    tls::SelfSigned,
};

/// What calls go through, with a name. It is boxed for that alone.
type Layered = BoxCloneSyncService<Request<Body>, Response<ResponseBody<Body>>, Status>;

/// A client of the server that is known as `origin`.
fn connect(
    origin: &str,
    trusted: Certificate,
    token_endpoint: String,
) -> Result<EchoClient<Layered>, BoxError> {
    // A proof names the server, and what a generated client sends to a channel names only the method.
    let dpop = DpopLayer::new(DpopKey::generate()?)
        .origin(origin.parse()?)
        .replay(RecordedBody);

    // Tokens come from another server, by another client. This one is for loopback: a real server needs one with TLS.
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let request = TokenRequest::client_credentials(token_endpoint, CLIENT_ID)
        .client_secret_basic(CLIENT_SECRET);
    let tokens = TokenLayer::new(&dpop, http, request, Audience::origins([origin])?)?;

    let tls = ClientTlsConfig::new().ca_certificate(trusted);
    let channel = Channel::from_shared(origin.to_owned())?
        .tls_config(tls)?
        .connect_timeout(Duration::from_secs(10))
        .connect_lazy();
    let layered = ServiceBuilder::new()
        // What calls fail with anyway. With a boxed error they could not be used in `tokio::spawn`.
        .map_err(Status::from_error)
        // Until the answer begins: a call's own `grpc-timeout` counts anew for each sending.
        .timeout(Duration::from_secs(30))
        // Keeps the beginning of what is sent, to send it once more if the server asks for a nonce.
        .map_request(|request: Request<Body>| request.map(ReplayBody::new))
        .layer(tokens)
        .layer(dpop)
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);
    Ok(EchoClient::new(Layered::new(layered)))
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let authorization_server = AuthorizationServer::start().await?;
    authorization_server.token_format(TokenFormat::Signed);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("https://{}", listener.local_addr()?);
    let certificate = SelfSigned::new(&["127.0.0.1"])?;
    let guard = Guard::new(&origin, authorization_server.origin());
    guard.rules(|rules| rules.nonce = Some("nonce".to_owned()));
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(certificate.identity()))?
        .layer(guard.clone())
        .serve_with_incoming(EchoServer::new(Parrot), TcpListenerStream::new(listener));
    tokio::spawn(server);

    let token_endpoint = authorization_server.token_endpoint();
    let mut client = connect(&origin, certificate.certificate(), token_endpoint)?;
    let answer = client.say(Text::from("hello")).await?;
    println!("one message: {:?}", answer.into_inner().text);

    let words = stream::iter(["a ", "stream"].map(Text::from));
    let answer = client.gather(words).await?;
    println!("a stream there: {:?}", answer.into_inner().text);

    let mut answers = client.scatter(Text::from("and back")).await?.into_inner();
    while let Some(word) = answers.message().await? {
        println!("a stream back: {:?}", word.text);
    }

    println!("the server saw:");
    for seen in guard.seen() {
        let verdict = seen.refused.as_ref().map_or("accepted", |fault| fault.code);
        println!("  {} {verdict}, proof {}", seen.path, seen.claims["jti"]);
    }
    let tokens = authorization_server.request_count();
    let refused = guard
        .seen()
        .iter()
        .filter(|seen| seen.refused.is_some())
        .count();
    match (guard.seen().len(), refused, tokens) {
        (4, 1, 1) => Ok(()),
        other => Err(format!("not three calls, one challenge and one token: {other:?}").into()),
    }
}
