//! All of it at once, with embedded servers and a user who says yes: no network, no browser.

use std::{env, fs, path::PathBuf};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_dpop::{
    Audience, BoxError, FileStore, ForceRenewal,
    testing::{AuthorizationServer, CLIENT_ID, Nonces, ResourceServer},
};

use crate::{
    app::{App, Session},
    args::{Args, Server},
    common::{
        https::HttpsClient,
        login::Login,
        one_line,
        output::{say, success},
    },
};

pub(crate) async fn run(args: &Args, http: HttpsClient) -> Result<(), BoxError> {
    let (authorization_server, api) = start(args).await?;
    let url = api.url("/orders");
    let key = args.key.load()?;
    let directory = Scratch::new(key.thumbprint())?;
    let app = || async {
        let server = Server::discover(&http, authorization_server.issuer()).await?;
        Ok::<_, BoxError>(App {
            registration: args.registration(server.endpoints, CLIENT_ID)?,
            audience: Audience::origins([api.origin()])?,
            scope: args.scope.clone(),
            resources: args.resource.clone(),
            pushes: server.pushes,
            store: Some(FileStore::new(directory.0.join("grant.json"))),
            http: http.clone(),
        })
    };

    let first_run = app().await?;
    say(&format!(
        "discovery:  {} told its endpoints",
        authorization_server.issuer()
    ))?;
    let session = first_run.log_in(key, Login::embedded(&http)).await?;
    say("login:      the request was pushed, and the browser came back with a code")?;
    let status = get(&session, &url, false).await?;
    say(&format!("API:        {status}, with a token for the code"))?;
    let status = get(&session, &url, true).await?;
    say(&format!(
        "API:        {status}, with a token for the refresh token"
    ))?;

    drop((session, first_run));
    let second_run = app().await?;
    let stored = second_run.stored().await?.ok_or("nothing was stored")?;
    let session = second_run.resume(&stored, None)?;
    say(&format!(
        "restart:    refresh token and key {} are from the file",
        stored.thumbprint()
    ))?;
    let status = get(&session, &url, false).await?;
    say(&format!("API:        {status}, and nobody was asked"))?;

    second_run.log_out(None).await?;
    say("logout:     the grant is revoked, and the file removed")?;
    match get(&session, &url, false).await {
        Ok(status) => Err(format!("the API answered {status} after the logout").into()),
        Err(error) => say(&format!("API:        no more: {}", one_line(&*error))),
    }
}

/// Servers on loopback that enforce every rule of RFC 9449, nonces included.
async fn start(args: &Args) -> Result<(AuthorizationServer, ResourceServer), BoxError> {
    let authorization_server = AuthorizationServer::start().await?;
    let api = ResourceServer::start(&authorization_server).await?;
    authorization_server.nonces(Nonces::required());
    api.nonces(Nonces::required());
    match args.client_secret()? {
        Some(secret) => authorization_server.add_client(CLIENT_ID, secret),
        None => authorization_server.add_public_client(CLIENT_ID),
    }
    Ok((authorization_server, api))
}

async fn get(session: &Session, url: &str, renewed: bool) -> Result<http::StatusCode, BoxError> {
    let mut request = Request::get(url).body(Full::<Bytes>::default())?;
    if renewed {
        request.extensions_mut().insert(ForceRenewal::now());
    }
    let answer = session.call(request).await?;
    success(&answer)?;
    Ok(answer.status())
}

/// A directory for this run.
struct Scratch(PathBuf);

impl Scratch {
    /// `name` is one that nobody could guess.
    fn new(name: &str) -> Result<Self, BoxError> {
        let path = env::temp_dir().join(format!("authorization_code-{name}"));
        fs::create_dir(&path)
            .map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
