//! `DpopLayer` alone, with an access token that came from elsewhere.
//!
//! ```sh
//! cargo run --example own_token
//! cargo run --example own_token -- --key key.pem --access-token-file token.txt https://api.example.com/orders
//! ```
//!
//! Without arguments it gets the token from an embedded server, by hand.

mod common;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Parser;
use form_urlencoded::Serializer;
use http::{Method, Request, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    AccessToken, Audience, BoxError, DpopKey, DpopLayer,
    proof::Proof,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, ResourceServer},
};

use self::common::{
    Usage,
    https::{self, HttpsClient},
    key::KeyArgs,
    output,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends a GET request with an access token of your own and a DPoP proof for it, and prints the answer.
#[derive(Parser)]
struct Args {
    /// What to ask the API for; without it, the servers and the token are embedded ones
    #[arg(requires = "key")]
    url: Option<String>,

    #[command(flatten)]
    key: KeyArgs,

    /// Access token that is bound to the key; as an argument it can be seen by every user of this machine
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DPOP_ACCESS_TOKEN",
        hide_env_values = true
    )]
    #[arg(allow_hyphen_values = true)]
    access_token: Option<String>,

    /// File of the access token, in place of --access-token
    #[arg(long, value_name = "FILE", requires = "url")]
    access_token_file: Option<PathBuf>,

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
    let key = args.key.load()?;
    let http = https::client(args.ca.as_deref())?;
    let Some(url) = &args.url else {
        if args.access_token.is_some() {
            return Err(
                Usage("missing: the API's URL, for the token that is given".to_owned()).into(),
            );
        }
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        let endpoint = authorization_server.token_endpoint();
        let token = get_token(&http, &key, &endpoint).await?;
        return call_api(http, key, &token, &api.url("/orders")).await;
    };
    let token = common::secret(
        args.access_token.as_deref(),
        args.access_token_file.as_deref(),
    )?
    .ok_or_else(|| Usage("missing: --access-token-file".to_owned()))?;
    call_api(http, key, &token, url).await
}

/// The stack: whatever passes through it has the token, and a proof of its own.
async fn call_api(http: HttpsClient, key: DpopKey, token: &str, url: &str) -> Result<(), BoxError> {
    let uri = common::url(url)?;
    let audience = Audience::origins([common::origin(&uri)])?;
    let token = AccessToken::new(token, &key, audience)?;
    let api = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .and_then(output::read) // within the timeout
        .map_request(move |mut request: Request<Full<Bytes>>| {
            request.extensions_mut().insert(token.clone());
            request
        })
        .layer(DpopLayer::new(key))
        .service(http);

    let request = Request::get(uri.clone()).body(Full::default())?;
    let answer = api.oneshot(request).await;
    let answer = answer.map_err(|error| https::no_answer(error, &uri))?;

    output::answer(&answer)
}

/// A token request with a proof, without any layer (RFC 9449, section 5). `TokenLayer` does this, and also
/// what is left out here: nonces, `token_type`, errors in words, and a new token when this one ends.
async fn get_token(http: &HttpsClient, key: &DpopKey, endpoint: &str) -> Result<String, BoxError> {
    let uri: Uri = endpoint.parse()?;
    let proof = Proof::new(&Method::POST, &uri)?.sign(key)?;
    let form = Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("client_secret", CLIENT_SECRET)
        .finish();
    let request = Request::post(uri)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("DPoP", proof)
        .body(Full::from(form))?;
    let answer = output::read(http.request(request).await?).await?;
    let members: serde_json::Value = serde_json::from_slice(answer.body())?;
    match members["access_token"].as_str() {
        Some(token) => Ok(token.to_owned()),
        None => Err(format!("no token, but the answer {}", answer.status()).into()),
    }
}
