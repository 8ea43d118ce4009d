//! Okta: the client shows who it is by `private_key_jwt`, and every token request needs a nonce.
//!
//! ```sh
//! cargo run --example okta
//! cargo run --example okta -- --issuer https://dev.okta.com --client-id 0oa… --client-key client.pem --key-id 2026-11 \
//!     --scope okta.users.read --key dpop.pem https://dev.okta.com/api/v1/users
//! ```
//!
//! What Okta does in a way of its own, all of it handled by the layers:
//!
//! - A token request without a nonce is refused (`use_dpop_nonce`), so the first token costs two requests. The nonce is
//!   kept, and serves the later ones for a day; the APIs ask for none.
//! - An assertion counts as used even where that refusal is the answer: each try has a new one, with a `jti` of its own.
//! - The `aud` of an assertion is the URL of the endpoint that it is sent to, not the issuer.
//! - The key of the assertions is registered at Okta, and is not the key that tokens are bound to.
//! - `https://dev.okta.com` and `https://dev.okta.com/oauth2/default` are two issuers: one for tokens of Okta's own APIs,
//!   one for tokens of yours. Wherever the metadata of either are, by RFC 8414 or by OpenID Connect, they are found.

mod common;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use http::{Method, Request};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, BoxError, Discovery, DpopKey, DpopLayer, Grant, PrivateKeyJwt, Registration,
    TokenLayer, TokenRequest,
    testing::{AuthorizationServer, Profile, ResourceServer},
};

use self::common::{
    https,
    key::KeyArgs,
    output::{self, say},
};

/// For one request, the token's included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls an API with a DPoP-bound access token of Okta, and prints the answer.
///
/// The client is an API services application with "Public key / Private key" as its client authentication, and "Require
/// Demonstrating Proof of Possession (DPoP) header in token requests". With neither a URL nor an issuer, the servers are
/// embedded ones that behave as Okta's, so it runs without any arguments.
#[derive(Parser)]
#[command(after_long_help = "\
Exit status:
  0  the answer was a success (2xx)
  1  it was not, or there was an error: one line on stderr tells which
  2  the command line could not be read

Example:
  okta --issuer https://dev.okta.com --client-id 0oa... --client-key client.pem --key-id 2026-11 \\
      --scope okta.users.read --key dpop.pem https://dev.okta.com/api/v1/users")]
struct Args {
    /// What to ask the API for, such as https://dev.okta.com/api/v1/users
    url: Option<String>,

    /// Issuer of the tokens: https://dev.okta.com for Okta's own APIs, https://dev.okta.com/oauth2/default for yours
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// Id of the client
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// File of the key that is registered for the client (P-256), another than --key
    #[arg(long, value_name = "FILE")]
    client_key: Option<String>,

    /// File of the password of --client-key, if it is encrypted
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_key_password_file: Option<PathBuf>,

    /// The `kid` under which the key is registered
    #[arg(long, value_name = "KID")]
    key_id: Option<String>,

    /// Scopes to ask for, separated by spaces, such as okta.users.read
    #[arg(long)]
    scope: Option<String>,

    #[command(flatten)]
    key: KeyArgs,

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
    let okta = Okta::named_or_embedded(&args).await?;
    let url = common::url(&okta.url)?;
    let http = https::client(args.ca.as_deref())?;

    // Two keys: this one shows who the client is …
    let mut client = PrivateKeyJwt::new(okta.client_key).endpoint_as_audience();
    if let Some(key_id) = &args.key_id {
        client = client.key_id(key_id);
    }
    // … and this one is what the tokens are bound to.
    let dpop = DpopLayer::new(args.key.load()?);

    let endpoints = Discovery::new(http.clone(), okta.issuer)?;
    let registration = Registration::new(endpoints, okta.client_id).private_key_jwt(client);
    let mut request = TokenRequest::new(registration, Grant::client_credentials());
    if let Some(scope) = &args.scope {
        request = request.scope(scope);
    }
    let audience = Audience::origins([common::origin(&url)])?;
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience)?;
    let api = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .and_then(output::read) // within the timeout
        .layer(tokens) // which token?
        .layer(dpop) // prove the key
        .service(http);

    let request = Request::get(url.clone()).body(Full::default())?;
    let answer = api.oneshot(request).await;
    output::answer(&answer.map_err(|error| https::no_answer(error, &url))?)?;
    match okta.embedded {
        Some((authorization_server, _)) => say(&costs(&authorization_server)),
        None => Ok(()),
    }
}

/// Whom to talk to, and as whom.
struct Okta {
    url: String,
    issuer: String,
    client_id: String,
    client_key: DpopKey,
    /// They end when this is dropped.
    embedded: Option<(AuthorizationServer, ResourceServer)>,
}

impl Okta {
    async fn named_or_embedded(args: &Args) -> Result<Self, BoxError> {
        let named = common::together([
            ("the API's URL", &args.url),
            ("--issuer", &args.issuer),
            ("--client-id", &args.client_id),
            ("--client-key", &args.client_key),
        ])?;
        let Some([url, issuer, client_id, client_key]) = named else {
            return Self::start().await;
        };
        common::url(issuer)?;
        let password = common::secret(None, args.client_key_password_file.as_deref())?;
        Ok(Self {
            url: url.to_owned(),
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            client_key: DpopKey::from_file(client_key, password.as_deref())?,
            embedded: None,
        })
    }

    /// Servers on loopback that behave as Okta's do.
    async fn start() -> Result<Self, BoxError> {
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        authorization_server.profile(Profile::Okta);
        api.profile(Profile::Okta);
        let client_id = "0oa-embedded";
        let client_key = DpopKey::generate()?;
        authorization_server.add_client_with_key(client_id, &client_key);
        common::tell(&format!(
            "note: no issuer named, so these were started: issuer {}, API {}",
            authorization_server.issuer(),
            api.origin()
        ));
        Ok(Self {
            url: api.url("/api/v1/users"),
            issuer: authorization_server.issuer().to_owned(),
            client_id: client_id.to_owned(),
            client_key,
            embedded: Some((authorization_server, api)),
        })
    }
}

/// What the embedded server was asked for, and what it said.
fn costs(authorization_server: &AuthorizationServer) -> String {
    let requests = authorization_server.requests();
    let mut lines = Vec::new();
    for request in requests.iter().filter(|one| one.method() == Method::POST) {
        let outcome = request.refused().unwrap_or("a token");
        lines.push(format!("POST {}: {outcome}", request.uri().path()));
    }
    lines.join("\n")
}
