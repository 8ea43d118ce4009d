//! `reqwest::Client` below the layers.
//!
//! ```sh
//! cargo run -p tower-dpop-stacks --example reqwest
//! cargo run -p tower-dpop-stacks --example reqwest -- https://api.example.com/orders \
//!     --token-endpoint https://as.example.com/token --client-id m2m.dpop --client-secret-file secret.txt
//! ```
//!
//! Without arguments it talks to embedded servers.

mod servers;

use std::{future::Future, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use reqwest::{ClientBuilder, redirect, retry};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::{BoxError, DpopLayer, TokenLayer};

use self::servers::{Sent, ServerArgs, Servers, common};

/// Gets an access token and calls an API, both with reqwest.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    servers: ServerArgs,
}

/// What reqwest sends again by itself carries the same proof once more, and a redirect may take it to a
/// stranger. Retries and redirects belong above the layers.
pub(crate) fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        .redirect(redirect::Policy::none()) // 10 hops, unless set
        .retry(retry::never()) // what an HTTP/2 server did not take, unless set
        .timeout(Duration::from_secs(30))
}

/// The adapter: a tower service for whatever body the stack has.
///
/// reqwest sends `/b` for `/a/../b`, and `%7B` for `{`: after the layers have signed what it is given. Such a
/// request fails here, instead of at a server to which its proof names another URL.
pub(crate) fn service<B>(
    client: reqwest::Client,
) -> impl Service<
    Request<B>,
    Response = Response<reqwest::Body>,
    Error = BoxError,
    Future: Future + Send,
> + Clone
+ Send
+ Sync
+ 'static
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Sync + 'static,
{
    service_fn(move |request: Request<B>| {
        let client = client.clone();
        async move {
            let path = request.uri().path().to_owned();
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
            if request.url().path() != path {
                let reason = "reqwest would send another path than was signed: write it as `reqwest::Url` does";
                return Err(reason.into());
            }
            Ok(client.execute(request).await?.into())
        }
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let servers = Servers::start_or_named(args.servers).await?;
    let client = builder()
        .tls_backend_preconfigured(servers.tls()?)
        .build()?;
    let sent = Sent::default();
    let http = ServiceBuilder::new()
        .map_request(sent.note())
        .service(service::<Full<Bytes>>(client));

    let dpop = DpopLayer::new(servers.key.clone());
    let request = servers.token_request();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, servers.audience()?)?;
    let api = ServiceBuilder::new()
        .timeout(Duration::from_secs(60)) // for a call: the wait for a token and all its sendings
        .layer(tokens)
        .layer(dpop)
        .service(http);

    let request = Request::get(servers.url).body(Full::default())?;
    servers::show(api.oneshot(request).await?).await?;
    // The embedded servers each ask for a nonce first.
    sent.report(if servers.embedded.is_some() { 4 } else { 1 })
}
