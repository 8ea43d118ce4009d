//! Two servers that check nothing and write down everything: one is the API, and leads every caller away.

use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, extract::State};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tower_dpop::{Audience, DpopKey, DpopLayer, TokenLayer, testing::AuthorizationServer};

use super::{Stack, boxed, token_layer};

pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct Script {
    status: StatusCode,
    location: String,
    /// Whether the next request elsewhere is refused for now, so that a retry has its turn.
    unavailable: bool,
    seen: Vec<Seen>,
}

type Shared = Arc<Mutex<Script>>;

pub(crate) struct Desks {
    _authorization_server: AuthorizationServer,
    pub(crate) dpop: DpopLayer,
    pub(crate) tokens: TokenLayer,
    pub(crate) http: Stack,
    api: u16,
    foreign: u16,
    script: Shared,
}

impl Desks {
    pub(crate) async fn open() -> Self {
        let script = Shared::default();
        let api = serve(&script).await.unwrap();
        let foreign = serve(&script).await.unwrap();
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let http = without_tls();
        let dpop = DpopLayer::new(DpopKey::generate().unwrap());
        let audience = Audience::origins([format!("https://127.0.0.1:{api}")]).unwrap();
        Self {
            tokens: token_layer(&authorization_server, &dpop, &http, audience),
            _authorization_server: authorization_server,
            dpop,
            http,
            api,
            foreign,
            script,
        }
    }

    /// A URL of the API.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.api)
    }

    /// What is none of the API's origin, though some of it looks like that.
    pub(crate) fn elsewhere(&self) -> [String; 7] {
        let (api, foreign) = (self.api, self.foreign);
        [
            // Another port; the same by a reference without a scheme.
            format!("https://127.0.0.1:{foreign}/away"),
            format!("//127.0.0.1:{foreign}/away"),
            // Another scheme, at the same port and at another.
            format!("http://127.0.0.1:{api}/away"),
            format!("http://127.0.0.1:{foreign}/away"),
            // Another host, though it is the same machine and the same server.
            format!("https://localhost:{api}/away"),
            // User information that looks like the API's host.
            format!("https://127.0.0.1:{api}@127.0.0.1:{foreign}/away"),
            format!("https://user:secret@127.0.0.1:{foreign}/away"),
        ]
    }

    /// From now on the API leads its callers there.
    pub(crate) fn lead(&self, status: StatusCode, location: &str) {
        let mut script = self.script.lock().unwrap();
        script.status = status;
        script.location = location.to_owned();
        script.unavailable = true;
    }

    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.script.lock().unwrap().seen)
    }
}

/// The client takes `https` at its word and speaks without TLS: to the layers above it is https.
fn without_tls() -> Stack {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let client = Client::builder(TokioExecutor::new());
    boxed(client.build::<_, Full<Bytes>>(connector))
}

/// Serves until the runtime ends.
async fn serve(script: &Shared) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let app = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(port)
}

async fn answer(State(script): State<Shared>, request: Request<Body>) -> Response<Body> {
    let mut script = script.lock().unwrap();
    let path = request.uri().path().to_owned();
    let start = path == "/start";
    script.seen.push(Seen {
        path,
        headers: request.headers().clone(),
    });
    let mut answer = Response::new(Body::empty());
    if start {
        *answer.status_mut() = script.status;
        let location = script.location.parse().unwrap();
        answer.headers_mut().insert("location", location);
    } else if std::mem::take(&mut script.unavailable) {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    answer
}
