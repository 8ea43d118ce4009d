//! An axum server whose handler calls an API, through one stack that all requests share.
//!
//! ```sh
//! cargo run -p tower-dpop-stacks --example axum
//! cargo run -p tower-dpop-stacks --example axum -- https://api.example.com/orders \
//!     --token-endpoint https://as.example.com/token --client-id m2m.dpop --client-secret-file secret.txt
//! ```
//!
//! Without arguments the API and the authorization server are embedded ones. The example asks its own server some
//! times at once, and ends.

mod servers;

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use clap::Parser;
use http::{HeaderMap, Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};
use tower::{ServiceBuilder, ServiceExt as _, timeout::error::Elapsed, util::BoxCloneSyncService};
use tower_dpop::{BoxError, DpopLayer, Error, TokenLayer};

use self::servers::{Sent, ServerArgs, Servers, common};

const TIMEOUT: Duration = Duration::from_secs(30);

/// How many requests the example sends to its own server.
const REQUESTS: usize = 5;

/// Serves orders that it has from an API, and asks itself for some.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    servers: ServerArgs,
}

/// The whole stack behind one name. A clone shares key, nonces and token with all others.
pub(crate) type Api = BoxCloneSyncService<Request<Full<Bytes>>, Response<Body>, BoxError>;

#[derive(Clone)]
struct Orders {
    api: Api,
    url: Uri,
}

pub(crate) fn router(api: Api, url: Uri) -> Router {
    Router::new()
        .route("/orders", get(orders))
        .with_state(Orders { api, url })
}

async fn orders(State(Orders { api, url }): State<Orders>) -> Result<Response, Failure> {
    let request = Request::get(url).body(Full::default());
    let answer = api.oneshot(request.map_err(BoxError::from)?).await?;
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        return Err(Failure::of_api(head.status));
    }
    // Only what is meant for our own caller: a nonce, say, is not.
    let content_type = head.headers.get(CONTENT_TYPE).cloned();
    let headers: HeaderMap = content_type
        .map(|content_type| (CONTENT_TYPE, content_type))
        .into_iter()
        .collect();
    Ok((headers, body).into_response())
}

/// Why there are no orders. Our caller is told whose fault it is and no more; the rest is for a log.
struct Failure(StatusCode, &'static str);

impl Failure {
    /// A refusal of the API, too, is between us and the API: our own caller needs no token for it.
    fn of_api(status: StatusCode) -> Self {
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Self(StatusCode::SERVICE_UNAVAILABLE, "the API is busy")
            }
            _ => Self(StatusCode::BAD_GATEWAY, "the API has no orders for us"),
        }
    }
}

impl From<BoxError> for Failure {
    fn from(error: BoxError) -> Self {
        tracing::warn!(error = common::one_line(&*error), "no orders");
        match Error::find(&*error) {
            Some(error) if error.is_token_request() => {
                Self(StatusCode::SERVICE_UNAVAILABLE, "no access to the API now")
            }
            // Of our layers: a mistake in this program or its configuration.
            Some(_) => Self(StatusCode::INTERNAL_SERVER_ERROR, "a mistake of ours"),
            None if error.is::<Elapsed>() => {
                Self(StatusCode::GATEWAY_TIMEOUT, "the API takes too long")
            }
            None => Self(StatusCode::BAD_GATEWAY, "the API does not answer"),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let servers = Servers::start_or_named(args.servers).await?;
    let sent = Sent::default();
    let http = ServiceBuilder::new()
        .map_request(sent.note())
        .service(servers.https()?);

    let dpop = DpopLayer::new(servers.key.clone());
    let request = servers.token_request();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, servers.audience()?)?;
    let api = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .map_response(|answer: Response<_>| answer.map(Body::new))
        .layer(tokens)
        .layer(dpop)
        .service(http);
    let router = router(Api::new(api), servers.url.clone());

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());
    ask_ourselves(&servers, address).await?;
    drop(stop);
    server.await??;

    if let Some((authorization_server, _)) = &servers.embedded {
        // The first was refused for want of a nonce.
        if authorization_server.request_count() != 2 {
            return Err("they should have shared one access token".into());
        }
        println!("one access token for all of them");
    }
    sent.report(REQUESTS)
}

/// Requests at the same time, whose answers must all be good.
async fn ask_ourselves(servers: &Servers, address: SocketAddr) -> Result<(), BoxError> {
    let http = servers.https()?;
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        let request = Request::get(format!("http://{address}/orders"));
        requests.spawn(http.request(request.body(Full::default())?));
    }
    while let Some(answer) = requests.join_next().await {
        servers::show(answer??).await?;
    }
    Ok(())
}
