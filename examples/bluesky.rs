//! A user's account at a Bluesky PDS, or any other of atproto: OAuth as that asks for it.
//!
//! ```sh
//! cargo run --example bluesky
//! cargo run --example bluesky -- --handle alice.example.com --store grant.json https://pds.example.com
//! ```
//!
//! Without arguments it runs against embedded servers that behave as a PDS does. Whose PDS is where (the user's handle
//! and DID) is not asked here: it is given. A program that takes the answer for who the user is has to ask: that the
//! token's `sub` (`AccessToken::answer`) is the account it means, and that this account's PDS names this issuer.

mod common;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use http::Request;
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, Discovery, DpopKey, DpopLayer, FileStore,
    ForceRenewal, Grant, GrantStore as _, OAuthClient, Registration, ResourceMetadata, TokenLayer,
    TokenRequest,
    testing::{AuthorizationServer, Profile, ResourceServer},
};

use self::common::{
    https::{self, HttpsClient},
    login::{self, Login, LoginArgs},
    output,
};

/// For one request, a new token and a nonce retry included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What asks who is logged in.
const PATH: &str = "/xrpc/com.atproto.server.getSession";

/// Logs in at a Bluesky PDS (or another of atproto), renews the token, and asks who is logged in.
///
/// The user is asked in a browser, which has to run on this machine. With --store, the next run needs no browser.
/// Without a PDS, the servers are embedded ones on loopback, and nobody is asked.
#[derive(Parser)]
struct Args {
    /// URL of the PDS, such as https://pds.example.com
    pds: Option<String>,

    /// Id of the client: the URL of its metadata. The default is every PDS's client for development, whose
    /// scope is `atproto`
    #[arg(long, value_name = "URL", default_value = "http://localhost")]
    client_id: String,

    /// Scopes to ask for, separated by spaces; the client's metadata must have them
    #[arg(long, default_value = "atproto")]
    scope: String,

    /// Who is to log in
    #[arg(long)]
    handle: Option<String>,

    /// File that keeps key and refresh token for the next run; whoever reads it is the user
    #[arg(long, value_name = "FILE", requires = "pds")]
    store: Option<PathBuf>,

    #[command(flatten)]
    login: LoginArgs,

    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let http = https::client(args.ca.as_deref())?;
    let Some(pds) = &args.pds else {
        let (_authorization_server, pds) = start(&args.client_id).await?;
        let login = Login::embedded(&http);
        return act(&args, http, pds.origin(), Some(login)).await;
    };
    let pds = common::origin(&common::url(pds)?);
    act(&args, http, &pds, None).await
}

async fn act(
    args: &Args,
    http: HttpsClient,
    pds: &str,
    embedded: Option<Login>,
) -> Result<(), BoxError> {
    // The PDS names its authorization server, and that its endpoints.
    let resource = ResourceMetadata::discover(http.clone(), pds).await?;
    let issuer = resource.authorization_servers().first();
    let issuer = issuer.ok_or("the PDS names no authorization server")?;
    let server = Discovery::new(http.clone(), issuer)?;
    let registration = Registration::new(server, &args.client_id); // a public client

    // Each grant has a key of its own, which is kept with its refresh token.
    let store = args.store.as_ref().map(FileStore::new);
    let stored = match &store {
        Some(store) => store.load().await?,
        None => None,
    };
    let key = match stored.as_ref().and_then(|stored| stored.key()) {
        Some(key) => key.clone(),
        None => DpopKey::generate()?,
    };
    let dpop = DpopLayer::new(key);
    let grant = match &stored {
        Some(stored) => Grant::stored(stored),
        None => {
            let login = match embedded {
                Some(login) => login,
                None => args.login.listen("/").await?, // where the client for development is sent back to
            };
            let mut request = AuthorizationRequest::new(login.redirect_uri()).scope(&args.scope);
            if let Some(handle) = &args.handle {
                request = request.parameter("login_hint", handle);
            }
            let client = OAuthClient::new(&dpop, http.clone(), registration.clone())?;
            login.ask(client.push(request).await?).await? // the answer's `iss` is checked, too
        }
    };

    // Refresh tokens are good for one use: each new one is stored before the access token that came along is used.
    let mut request = TokenRequest::new(registration, grant);
    if let Some(store) = &store {
        request = request.store(store.clone());
    }
    let audience = Audience::origins([pds])?;
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience)?;
    let pds_client = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .and_then(output::read) // within the timeout
        .layer(tokens) // which token?
        .layer(dpop) // prove the key, with the nonce of whoever is asked
        .service(http);

    let url = common::url(&format!("{pds}{PATH}"))?;
    let no_answer = |error| login::no_answer(error, &url, args.store.as_deref());
    let mut who = Request::get(&url).body(Full::default())?;
    let answer = pds_client.clone().oneshot(who.clone()).await;
    output::success(&answer.map_err(&no_answer)?)?;
    common::tell(match stored {
        Some(_) => "note: logged in by the refresh token that was stored",
        None => "note: logged in by the user",
    });

    // Not needed, since a token is renewed before it ends: here it shows that the next refresh token is good.
    who.extensions_mut().insert(ForceRenewal::now());
    let answer = pds_client.oneshot(who.clone()).await;
    output::answer(&answer.map_err(no_answer)?)
}

/// Servers on loopback that do as `@atproto/oauth-provider` does: nonces everywhere, pushed requests only.
async fn start(client_id: &str) -> Result<(AuthorizationServer, ResourceServer), BoxError> {
    let authorization_server = AuthorizationServer::start().await?;
    let pds = ResourceServer::start(&authorization_server).await?;
    authorization_server.profile(Profile::Bluesky);
    authorization_server.require_pushed_authorization_requests(true);
    authorization_server.add_public_client(client_id);
    pds.profile(Profile::Bluesky);
    Ok((authorization_server, pds))
}
