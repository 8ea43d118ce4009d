//! The client credentials grant with DPoP: gets a token that is bound to a key, and calls an API with it.
//!
//! ```sh
//! cargo run --example client_credentials
//! cargo run --example client_credentials -- --help
//! ```
//!
//! The stack of layers is in [`stack`]; the rest is a command line around it.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod masking;
mod report;
mod run;
mod servers;
mod session_log;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use tower::{ServiceBuilder, ServiceExt as _, timeout::error::Elapsed};
use tower_dpop::{Audience, BoxError, DpopKey, DpopLayer, TokenLayer, TokenRequest};

use self::{
    args::Args,
    common::https::{self, HttpsClient},
    run::Api,
    servers::Servers,
    session_log::{Peer, Session},
};

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

/// The layers, from the outermost to the innermost.
fn stack(
    http: HttpsClient,
    key: DpopKey,
    token_request: TokenRequest,
    audience: Audience,
    timeout: Duration,
    session: &Session,
) -> Result<Api, BoxError> {
    let dpop = DpopLayer::new(key);
    let token_client = ServiceBuilder::new()
        .layer(session.layer(Peer::AuthorizationServer))
        .service(http.clone());
    let tokens = TokenLayer::new(&dpop, token_client, token_request, audience)?;
    Ok(ServiceBuilder::new()
        .boxed_clone() // only to give the stack a short name
        .timeout(timeout)
        .layer(tokens) // which token?
        .layer(dpop) // prove the key: below all that sends a request again
        .layer(session.layer(Peer::Api)) // sees what is really sent
        .service(http))
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let key = args.key.load()?;
    let servers = Servers::start_or_named(&args).await?;
    let request = args.request(&servers.url)?;
    let token_request = args.token_request(&servers)?;
    let audience = Audience::origins([common::origin(request.uri())])?;
    let http = https::client(args.ca.as_deref())?;
    let session = Session::new(args.log.as_deref())?;
    let thumbprint = key.thumbprint().to_owned();
    let api = stack(http, key, token_request, audience, args.timeout(), &session)?;

    if servers.embedded.is_some() {
        common::tell(&format!(
            "note: no servers named, so these were started: token endpoint {}, API {}",
            servers.token_endpoint, servers.url
        ));
    }
    if args.key.key.is_none() {
        common::tell(&format!(
            "note: no --key given, so one was made for this run (thumbprint {thumbprint})"
        ));
    }
    let no_answer = |error: BoxError| {
        if error.is::<Elapsed>() {
            let seconds = args.timeout().as_secs();
            format!("no token, or no answer, within {seconds} s (--timeout)").into()
        } else {
            https::no_answer(error, request.uri())
        }
    };
    let reported = if args.repeat > 1 {
        let mut tally = run::repeat(&api, &request, args.repeat, args.concurrency).await;
        tally.error = tally.error.map(no_answer);
        report::summary(tally, &session, args.json)
    } else {
        let started = Instant::now();
        let answer = api.oneshot(request.clone()).await.map_err(no_answer)?;
        report::answer(answer, started.elapsed(), &session, args.json).await
    };
    reported.and(session.check_log())
}
