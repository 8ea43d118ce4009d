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
mod embedded;
mod masking;
mod report;
mod run;
mod session_log;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser as _;
use http::Uri;
use http_body_util::BodyExt as _;
use tower::{ServiceBuilder, ServiceExt as _, timeout::error::Elapsed};
use tower_dpop::{Audience, BoxError, DpopKey, DpopLayer, Error, TokenLayer, TokenRequest};

use self::{
    args::Args,
    common::HttpsClient,
    embedded::Embedded,
    run::Api,
    session_log::{Peer, Session},
};

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run(Args::parse()).await)
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

async fn run(args: Args) -> Result<(), BoxError> {
    let named = args.servers()?;
    let key = args.key.load()?;
    let mut secret = args.client_secret()?;
    let embedded = match named {
        Some(_) => None,
        None => Some(Embedded::start(&args, &mut secret).await?),
    };
    let Some(servers) = named.or_else(|| embedded.as_ref().map(Embedded::servers)) else {
        return Err("there are no servers".into());
    };
    let request = args.request(&servers.url)?;
    let token_request = args.token_request(&servers, secret)?;
    let audience = Audience::origins([origin(request.uri())])?;
    let http = common::https_client(args.ca.as_deref())?;
    let session = Session::new(args.log.as_deref())?;
    let thumbprint = key.thumbprint().to_owned();
    let api = stack(http, key, token_request, audience, args.timeout(), &session)?;

    if embedded.is_some() {
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
    let explain = |error| explain(error, request.uri(), args.timeout());
    if args.repeat > 1 {
        let mut tally = run::repeat(&api, &request, args.repeat, args.concurrency).await;
        tally.error = tally.error.map(explain);
        return report::summary(tally, &session, args.json);
    }
    let started = Instant::now();
    let answer = api.oneshot(request.clone()).await.map_err(explain)?;
    let (head, body) = answer.into_parts();
    let answer = http::Response::from_parts(head, body.collect().await?.to_bytes());
    report::answer(
        &answer,
        started.elapsed().as_secs_f64(),
        &session,
        args.json,
    )
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
}

/// Errors of the layers say what to do; those of the HTTP client and of the timeout do not.
fn explain(error: BoxError, uri: &Uri, timeout: Duration) -> BoxError {
    let origin = origin(uri);
    let untrusted = common::is_untrusted(&*error);
    let line = common::one_line(&*error);
    if error.is::<Elapsed>() {
        format!(
            "{origin} gave no answer within {} s (--timeout)",
            timeout.as_secs()
        )
        .into()
    } else if untrusted {
        format!("{line} (--ca FILE adds a certificate to trust)").into()
    } else if Error::find(&*error).is_some() {
        error
    } else {
        format!("no answer from {origin}: is the server up, and the URL right?: {line}").into()
    }
}
