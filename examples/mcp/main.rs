//! The Model Context Protocol's way to a token: all that is known is the URL of the server, and it tells the rest.
//!
//! ```sh
//! cargo run --example mcp
//! cargo run --example mcp -- --client-id … https://mcp.example.com/mcp
//! ```
//!
//! The steps are those of the protocol's page on authorization: a request without a token is refused, and the refusal
//! tells where the resource's metadata are (RFC 9728); they name the authorization server, which tells its endpoints
//! (RFC 8414); there the user is asked, with PKCE, for a token that is meant for this resource (RFC 8707). With DPoP the
//! code and the token are bound to a key, too.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod servers;

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, Discovery, DpopLayer, OAuthClient, Registration,
    ResourceMetadata, TokenLayer, TokenRequest,
};

use self::{
    args::Args,
    common::{
        https,
        login::Login,
        output::{self, say},
    },
    servers::Servers,
};

/// For one request, a new token included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The protocol's version that is offered.
const PROTOCOL: &str = "2025-11-25";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let servers = Servers::named_or_embedded(&args).await?;
    let url = common::url(&servers.url)?;
    let http = https::client(args.ca.as_deref())?;
    if servers.embedded.is_some() {
        common::tell("note: no URL given, so embedded servers were started");
    }
    let no_answer = |error| https::no_answer(error, &url);
    // The user named this origin. No answer leads to another, and the token goes to no other.
    let audience = Audience::origins([common::origin(&url)])?;

    // 1. Without a token: the refusal tells where the metadata are.
    let without_token = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .and_then(output::read)
        .service(http.clone());
    let refusal = without_token.oneshot(initialize(&url)?).await;
    let refusal = refusal.map_err(no_answer)?;
    if refusal.status() != StatusCode::UNAUTHORIZED {
        return output::answer(&refusal); // it asks for no token, or is in trouble
    }
    let named =
        ResourceMetadata::from_challenges(http.clone(), &servers.url, refusal.headers(), &audience);
    let resource = match named.await? {
        Some(metadata) => metadata,
        None => ResourceMetadata::discover(http.clone(), &servers.url).await?,
    };
    say(&format!("resource: {}", resource.resource()))?;

    // 2. The authorization server that it trusts.
    let issuer = args.choose(resource.authorization_servers())?;
    let discovery = Discovery::new(http.clone(), issuer)?;
    // The protocol's rule: a server that does not tell of PKCE is taken for one without it.
    let metadata = discovery.metadata().await?;
    if metadata.code_challenge_methods_supported().is_none() {
        return Err("the authorization server does not tell that it knows PKCE: nobody is asked to grant there".into());
    }
    say(&format!("authorization server: {issuer}"))?;

    // 3. The user is asked: for a code that is bound to the key (`dpop_jkt`).
    let key = args.key.load()?;
    resource.check_key(&key)?; // the algorithm, if it tells which it accepts
    let dpop = DpopLayer::new(key);
    let registration = Registration::new(discovery, &servers.client_id);
    let login = match servers.embedded {
        Some(_) => Login::embedded(&http),
        None => args.login.listen("/callback").await?,
    };
    let mut request = AuthorizationRequest::new(login.redirect_uri()).resource(resource.resource());
    if let Some(scope) = args.scope(refusal.headers(), resource.scopes_supported()) {
        request = request.scope(scope);
    }
    let oauth = OAuthClient::new(&dpop, http.clone(), registration.clone())?;
    let grant = login.ask(oauth.authorize(request).await?).await?;

    // 4. The request again, with a token for this resource.
    let request = TokenRequest::new(registration, grant).resource(resource.resource());
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience)?;
    let mcp = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .and_then(output::read) // within the timeout
        .layer(tokens) // which token?
        .layer(dpop) // prove the key
        .service(http.clone());
    let answer = mcp.oneshot(initialize(&url)?).await;
    output::answer(&answer.map_err(no_answer)?)
}

/// The first message of every session.
fn initialize(url: &Uri) -> Result<Request<Full<Bytes>>, BoxError> {
    let message = json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": PROTOCOL,
            "capabilities": {},
            "clientInfo": { "name": "tower-dpop example", "version": env!("CARGO_PKG_VERSION") },
        },
    });
    Ok(Request::post(url.clone())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
        .body(Full::from(message.to_string()))?)
}
