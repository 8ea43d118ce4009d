//! hyper alone: connections of one's own below the layers, and no pool.
//!
//! ```sh
//! cargo run -p tower-dpop-stacks --example hyper
//! cargo run -p tower-dpop-stacks --example hyper -- --http2 https://api.example.com/orders \
//!     --token-endpoint https://as.example.com/token --client-id m2m.dpop --client-secret-file secret.txt
//! ```
//!
//! Without a URL it talks to embedded servers.

mod servers;

use std::{
    future::Future,
    pin::Pin,
    process::ExitCode,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use http::{HeaderValue, Request, Response, Uri, Version, header::HOST, uri::PathAndQuery};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::TlsConnector;
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_dpop::{BoxError, DpopLayer, Origin, TokenLayer};

use self::servers::{Sent, ServerArgs, Servers, common};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For a call, the wait for a token and all its sendings.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Gets an access token and calls an API, on one connection to each.
#[derive(Parser)]
struct Args {
    /// HTTP/2 in place of HTTP/1.1
    #[arg(long)]
    http2: bool,

    #[command(flatten)]
    servers: ServerArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let version = match args.http2 {
        true => Version::HTTP_2,
        false => Version::HTTP_11,
    };
    let servers = Servers::start_or_named(args.servers).await?;
    let tls = servers.tls()?;
    let api = Connection::new(servers.api().parse()?, version, tls.clone());
    // One of its own: an answer of the API that refused the token is kept until the next token is there.
    let to_token_endpoint = Connection::new(servers.authorization_server().parse()?, version, tls);

    let sent = Sent::default();
    // A path says not which server it is of; a proof has to.
    let origin: Origin = servers.api().parse()?;
    let dpop = DpopLayer::new(servers.key.clone()).origin(origin);
    let to_token_endpoint = ServiceBuilder::new()
        .map_request(sent.note())
        .service(to_token_endpoint);
    let request = servers.token_request();
    let tokens = TokenLayer::new(&dpop, to_token_endpoint, request, servers.audience()?)?;
    let api = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .layer(tokens)
        .layer(dpop)
        .map_request(sent.note())
        .service(api);

    let path = servers
        .url
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let request = Request::get(path).body(Full::default())?;
    servers::show(api.oneshot(request).await?).await?;
    // The embedded servers each ask for a nonce first.
    sent.report(if servers.embedded.is_some() { 4 } else { 1 })
}

type Call = Request<Full<Bytes>>;
type Answer = Response<Incoming>;

/// One connection to one server, made when it is needed, and anew once it was closed.
///
/// `http1::SendRequest` cannot be cloned, and the layers need a service that can: so the clones share it. It is
/// always ready, and waits for its turn in `call`. (`tower::buffer::Buffer` would do for sharing; but it takes the
/// first error of `poll_ready`, such as that of connecting, for the end of all.)
#[derive(Clone)]
pub(crate) struct Connection {
    server: Uri,
    version: Version,
    tls: TlsConnector,
    sender: Arc<Mutex<Option<Sender>>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Service<Call> for Connection {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Call) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

impl Connection {
    pub(crate) fn new(server: Uri, version: Version, mut tls: ClientConfig) -> Self {
        let protocol: &[u8] = match version {
            Version::HTTP_2 => b"h2",
            _ => b"http/1.1",
        };
        tls.alpn_protocols = vec![protocol.to_owned()];
        Self {
            server,
            version,
            tls: Arc::new(tls).into(),
            sender: Arc::default(),
        }
    }

    async fn send(self, mut request: Call) -> Result<Answer, BoxError> {
        self.address(&mut request)?;
        let mut sender = self.sender.lock().await;
        // Waits until the last answer's body was read, with HTTP/1.1; it fails if the connection was closed.
        let usable = match &mut *sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            // Whoever comes meanwhile waits for the same connection, and not for ever.
            let connecting = timeout(CONNECT_TIMEOUT, self.connect()).await;
            *sender = Some(connecting??);
        }
        match sender.as_mut() {
            None => Err("there is no connection".into()),
            Some(Sender::Http1(open)) => {
                let answer = open.send_request(request);
                drop(sender);
                Ok(answer.await?)
            }
            Some(Sender::Http2(open)) => {
                let answer = open.send_request(request);
                drop(sender);
                Ok(answer.await?)
            }
        }
    }

    /// A path and a `Host` for HTTP/1.1, a whole URI for HTTP/2.
    fn address(&self, request: &mut Call) -> Result<(), BoxError> {
        let server = self.server.clone().into_parts();
        let mut uri = request.uri().clone().into_parts();
        if uri.authority.is_some()
            && (&uri.scheme, &uri.authority) != (&server.scheme, &server.authority)
        {
            return Err(format!("this is a connection to {}", self.server).into());
        }
        if self.version == Version::HTTP_2 {
            (uri.scheme, uri.authority) = (server.scheme, server.authority);
            *request.uri_mut() = Uri::from_parts(uri)?;
            return Ok(());
        }
        let host = server.authority.ok_or("the server has no host")?;
        let host = HeaderValue::try_from(host.as_str())?;
        request.headers_mut().entry(HOST).or_insert(host);
        *request.uri_mut() = uri.path_and_query.map_or(Uri::default(), Uri::from);
        Ok(())
    }

    async fn connect(&self) -> Result<Sender, BoxError> {
        let host = self.server.host().ok_or("the server has no host")?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let https = self.server.scheme_str() == Some("https");
        let port = match self.server.port_u16() {
            Some(port) => port,
            None if https => 443,
            None => 80,
        };
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        match https {
            true => {
                self.handshake(self.tls.connect(host.try_into()?, tcp).await?)
                    .await
            }
            false => self.handshake(tcp).await,
        }
    }

    /// The task of the connection ends with it: when the server closes it, or the last sender is dropped.
    async fn handshake<T>(&self, io: T) -> Result<Sender, BoxError>
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(io);
        if self.version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return Ok(Sender::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }
}

impl Sender {
    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }
}
