//! A client of the Model Context Protocol with both layers, for the conformance suite of that protocol.
//!
//! The suite starts an MCP server and an authorization server, and this program with the MCP server's URL as its last
//! argument; what it watches is the wire. Everything else is found out as the protocol has it: a request without a token
//! is refused, the refusal leads to the resource's metadata (RFC 9728), those to the authorization server's (RFC 8414),
//! which says how to become a client. Then a token, and a session: `initialize`, `tools/list`, `tools/call`.
//!
//! Exit status: 0 if the session went to its end, 3 if the authorization server gave a token that is bound to no key
//! (which is refused, and no request sent with it), 1 for anything else.

mod client_id;
mod find;
mod rpc;
mod tokens;

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{ServiceBuilder, timeout::TimeoutLayer};
use tower_dpop::{Audience, BoxError, DpopKey, DpopLayer, Error};

type Http = Client<HttpConnector, Full<Bytes>>;

/// For one request, a new token included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// For all of it; the suite itself gives 30 s.
const WHOLE: Duration = Duration::from_secs(25);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let whole = tokio::time::timeout(WHOLE, run()).await;
    let error = match whole {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => error,
        Err(_) => "it took too long".into(),
    };
    eprintln!("{}", with_sources(&*error));
    let downgrade = Error::find(&*error).is_some_and(Error::is_downgrade);
    ExitCode::from(if downgrade { 3 } else { 1 })
}

async fn run() -> Result<(), BoxError> {
    let url = std::env::args().next_back().ok_or("no URL")?;
    let origin = url::Url::parse(&url)?.origin().ascii_serialization();
    // The user named this origin: no refusal leads elsewhere, and the token goes to no other.
    let audience = Audience::origins([&origin])?;
    let http: Http = Client::builder(TokioExecutor::new()).build_http();

    let session = rpc::Session::new(&url)?;
    let plain = ServiceBuilder::new()
        .layer(TimeoutLayer::new(TIMEOUT))
        .service(http.clone());
    let refusal = match session.begin(plain).await? {
        rpc::Begun::Refused(headers) => headers,
        rpc::Begun::Open => return Err("the server asks for no token".into()),
    };

    let found = find::find(&http, &url, &origin, &refusal, &audience).await?;
    let dpop = DpopLayer::new(DpopKey::generate()?);
    found.resource.check_key(dpop.key())?;
    let tokens = tokens::layer(&http, &dpop, &found, audience).await?;

    let mcp = ServiceBuilder::new()
        .layer(TimeoutLayer::new(TIMEOUT))
        .layer(tokens)
        .layer(dpop)
        .service(http);
    session.run(mcp).await
}

fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        line = format!("{line}: {source}");
        next = source.source();
    }
    line
}
