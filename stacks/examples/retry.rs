//! `RetryPolicy` above the layers: `cargo run -p tower-dpop-stacks --example retry`
//!
//! An embedded API is busy, then away, then well again. Each try has a proof of its own: the server refuses one that
//! it saw before.
#![allow(clippy::print_stdout)]

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt as _, retry::RetryLayer};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, RetryPolicy, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, ResourceServer},
};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let authorization_server = AuthorizationServer::start().await?;
    let api = ResourceServer::start(&authorization_server).await?;

    let http = Client::builder(TokioExecutor::new()).build_http();
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let endpoint = authorization_server.token_endpoint();
    let request =
        TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
    let audience = Audience::origins([api.origin()])?;
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience)?;
    let stack = ServiceBuilder::new()
        .timeout(Duration::from_secs(30)) // for all tries together
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(tokens)
        .layer(dpop)
        .timeout(Duration::from_secs(5)) // for each
        .service(http);

    let busy = Response::builder()
        .status(StatusCode::TOO_MANY_REQUESTS)
        .header("retry-after", "1")
        .body(Bytes::new())?;
    api.answer(1, busy);
    api.lose_answers(1);
    api.fail(1, StatusCode::SERVICE_UNAVAILABLE);

    let request = Request::get(api.url("/orders")).body(Full::<Bytes>::default())?;
    let response = stack.oneshot(request).await?;
    let tries = api.requests();
    for (number, seen) in tries.iter().enumerate() {
        let status = seen
            .status()
            .map_or("no answer".into(), |status| status.to_string());
        println!(
            "try {}: {status}{}",
            number + 1,
            if number == 1 { ", its answer lost" } else { "" }
        );
    }
    let proofs: HashSet<_> = tries.iter().map(|seen| seen.claim("jti")).collect();
    println!("{}, {} proofs", response.status(), proofs.len());
    match (response.status(), tries.len(), proofs.len()) {
        (StatusCode::OK, 4, 4) => Ok(()),
        _ => {
            Err("four tries with four proofs, and a success at last, would have been right".into())
        }
    }
}
