//! The `oauth2` crate's token requests, through `Dpop`; then an API call with the token.
//!
//! ```sh
//! cargo run -p tower-dpop-stacks --example oauth2
//! cargo run -p tower-dpop-stacks --example oauth2 -- https://api.example.com/orders \
//!     --token-endpoint https://as.example.com/token --client-id m2m.dpop --client-secret-file secret.txt
//! ```
//!
//! Without arguments it talks to embedded servers. This is for grants that `TokenLayer` does not have: it does
//! more, such as renewing tokens.

mod servers;

use std::{io, process::ExitCode, time::Duration};

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use oauth2::{
    ClientId, ClientSecret, HttpRequest, HttpResponse, RefreshToken, Scope, TokenResponse as _,
    TokenUrl,
    basic::{BasicClient, BasicTokenResponse},
};
use serde_json::Value;
use tokio::time::timeout;
use tower::{Service, ServiceBuilder, ServiceExt as _};
use tower_dpop::{AccessToken, Audience, BoxError, DpopKey, DpopLayer, ToAuthorizationServer};

use self::servers::{Sent, ServerArgs, Servers, common};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A longer answer is no token.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A token request is sent once more for a nonce, and once more for a server whose nonces are good for one
/// request only.
const SENDS: usize = 3;

/// Gets access tokens by the `oauth2` crate and calls an API with them.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    servers: ServerArgs,
}

/// Sends a request of the `oauth2` crate. Below `service` stands a `Dpop`, which gives it a proof and learns the
/// nonces. The challenge stands in the JSON body, so it is answered here, by sending the request again.
///
/// All of the request but its proof is sent again as it was. That is right for a client secret; a client assertion
/// has a `jti` of its own, which servers take once only (RFC 7523), and would have to be made anew here.
pub(crate) async fn ask<S, B>(
    service: S,
    to: ToAuthorizationServer,
    request: HttpRequest,
) -> Result<HttpResponse, io::Error>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError> + Clone,
    B: Body<Error: Into<BoxError>>,
{
    let request = request.map(|body| Full::new(Bytes::from(body)));
    let mut sends = 0;
    loop {
        let mut request = request.clone();
        request.extensions_mut().insert(to.clone());
        let answer = service.clone().oneshot(request).await;
        let (head, body) = answer.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        sends += 1;
        if sends == SENDS || head.status.is_success() || !asks_for_nonce(&body) {
            return Ok(Response::from_parts(head, body.into()));
        }
    }
}

fn asks_for_nonce(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["error"] == "use_dpop_nonce"
}

/// The token for our layers. A `Bearer` token is refused: no proof would protect it.
pub(crate) fn dpop_token(
    answer: &BasicTokenResponse,
    key: &DpopKey,
    audience: Audience,
) -> Result<AccessToken, BoxError> {
    let token_type = answer.token_type().as_ref();
    if !token_type.eq_ignore_ascii_case("DPoP") {
        return Err(format!("asked for a DPoP token, and got one of type `{token_type}`").into());
    }
    Ok(AccessToken::new(
        answer.access_token().secret(),
        key,
        audience,
    )?)
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let servers = Servers::start_or_named(args.servers).await?;
    let sent = Sent::default();
    let service = ServiceBuilder::new()
        .timeout(TIMEOUT)
        .layer(DpopLayer::new(servers.key.clone()))
        .map_request(sent.note())
        .service(servers.https()?);

    let to = ToAuthorizationServer::new(Audience::origins([servers.authorization_server()])?);
    let http = |request| async {
        // For all of it: the body of the answer, too.
        let answer = timeout(TIMEOUT, ask(service.clone(), to.clone(), request)).await;
        answer.unwrap_or_else(|elapsed| Err(elapsed.into()))
    };

    let mut client = BasicClient::new(ClientId::new(servers.client_id.clone()))
        .set_token_uri(TokenUrl::new(servers.token_endpoint.to_string())?);
    if let Some(secret) = &servers.client_secret {
        client = client.set_client_secret(ClientSecret::new(secret.clone()));
    }
    let scopes = servers.scope.iter().cloned().map(Scope::new);
    let answer = client
        .exchange_client_credentials()
        .add_scopes(scopes)
        .request_async(&http);
    call_api(&service, &servers, &answer.await?).await?;

    if let Some((authorization_server, _)) = &servers.embedded {
        // As a grant with a user would have ended with.
        let first = authorization_server.issue_refresh_token(&servers.client_id, &servers.key, "");
        let first = RefreshToken::new(first);
        let answer = client.exchange_refresh_token(&first).request_async(&http);
        call_api(&service, &servers, &answer.await?).await?;
    }
    // The embedded servers each ask for a nonce first; then it is known.
    sent.report(if servers.embedded.is_some() { 6 } else { 2 })
}

async fn call_api<S, B>(
    service: &S,
    servers: &Servers,
    answer: &BasicTokenResponse,
) -> Result<(), BoxError>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError> + Clone,
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let token = dpop_token(answer, &servers.key, servers.audience()?)?;
    let request = Request::get(&servers.url)
        .extension(token)
        .body(Full::default())?;
    servers::show(service.clone().oneshot(request).await?).await
}
