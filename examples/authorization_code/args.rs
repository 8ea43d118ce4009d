//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tower_dpop::{BoxError, Discovery, Registration, ServerMetadata, oauth::Endpoints};

use crate::common::{self, Usage, https::HttpsClient, key::KeyArgs, login::LoginArgs};

/// Logs a user in, sends a GET request with a DPoP-bound access token in the user's name, and prints the answer.
///
/// The user is asked in a browser, which has to run on this machine. With --store, the next run needs no browser.
/// Without a server, all of it is shown with embedded ones on loopback, and nobody is asked.
///
/// Other users of the machine can see the arguments of a running program: give secrets by the environment
/// or by a file.
#[derive(Parser)]
#[command(after_long_help = "\
Exit status:
  0  the answer was a success (2xx), or the user is logged out
  1  it was not, or there was an error: one line on stderr tells which
  2  the command line could not be read

Example:
  authorization_code --issuer https://as.example.com --client-id app --scope 'openid orders' \\
      --store grant.json https://api.example.com/orders")]
pub(crate) struct Args {
    /// What to ask the API for; its origin is the only one that the token goes to
    url: Option<String>,

    /// Issuer of the authorization server, which tells its endpoints there
    #[arg(long, value_name = "URL", help_heading = "Server")]
    issuer: Option<String>,

    /// URL where users log in, of a server that does not tell; with --token-endpoint
    #[arg(long, value_name = "URL", help_heading = "Server")]
    authorization_endpoint: Option<String>,

    /// URL to ask for tokens, of a server that does not tell
    #[arg(long, value_name = "URL", help_heading = "Server")]
    token_endpoint: Option<String>,

    /// URL to give tokens back, of a server that does not tell; for --logout
    #[arg(long, value_name = "URL", help_heading = "Server")]
    revocation_endpoint: Option<String>,

    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE", help_heading = "Server")]
    pub(crate) ca: Option<PathBuf>,

    /// Id of the client; without a secret it is a public one
    #[arg(long, value_name = "ID", help_heading = "Client")]
    client_id: Option<String>,

    /// Secret of the client; as an argument it can be seen by every user of this machine
    #[arg(long, value_name = "SECRET", help_heading = "Client")]
    #[arg(
        env = "DPOP_CLIENT_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    client_secret: Option<String>,

    /// File of the client's secret, in place of --client-secret
    #[arg(long, value_name = "FILE", help_heading = "Client")]
    client_secret_file: Option<PathBuf>,

    /// Where the client's secret is sent
    #[arg(long, value_enum, value_name = "METHOD", help_heading = "Client")]
    #[arg(default_value_t = ClientAuth::Post)]
    client_auth: ClientAuth,

    /// Scopes to ask for, separated by spaces
    #[arg(long, help_heading = "Login")]
    pub(crate) scope: Option<String>,

    /// Resource that the token is for (RFC 8707); may be given more than once
    #[arg(long, value_name = "URI", help_heading = "Login")]
    pub(crate) resource: Vec<String>,

    #[command(flatten)]
    pub(crate) login: LoginArgs,

    /// File that keeps key and refresh token for the next run; whoever reads it is the user
    #[arg(long, value_name = "FILE", help_heading = "Login")]
    pub(crate) store: Option<PathBuf>,

    /// Logs out in place of a request: has the grant in --store revoked, and removes it
    #[arg(long, requires = "store", help_heading = "Login")]
    pub(crate) logout: bool,

    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClientAuth {
    /// In the form (client_secret_post)
    Post,
    /// In the Authorization header (client_secret_basic)
    Basic,
}

/// What is asked for, and by whom.
pub(crate) struct Target<'a> {
    pub(crate) url: &'a str,
    pub(crate) client_id: &'a str,
}

pub(crate) struct Server {
    pub(crate) endpoints: Endpoints,
    /// Whether it takes pushed authorization requests.
    pub(crate) pushes: bool,
}

impl Args {
    /// None if no server is named.
    pub(crate) fn target(&self) -> Result<Option<Target<'_>>, Usage> {
        let endpoints = [&self.authorization_endpoint, &self.token_endpoint];
        let server = self.issuer.is_some() || endpoints.iter().all(|url| url.is_some());
        let others = [&self.revocation_endpoint, &self.client_id, &self.url];
        let mut named = endpoints.into_iter().chain(others);
        if !server && self.store.is_none() && !named.any(Option::is_some) {
            return Ok(None);
        }
        match (&self.url, &self.client_id, server) {
            (Some(url), Some(client_id), true) => Ok(Some(Target { url, client_id })),
            (url, client_id, server) => {
                let missing = [
                    ("the API's URL", url.is_some()),
                    ("--client-id", client_id.is_some()),
                    ("--issuer", server),
                ];
                let missing = missing.iter().filter(|(_, there)| !there);
                let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
                Err(Usage(format!("missing: {}", missing.join(" and "))))
            }
        }
    }

    /// By discovery, unless the endpoints are given.
    pub(crate) async fn server(&self, http: &HttpsClient) -> Result<Server, BoxError> {
        if let (Some(authorization), Some(token)) =
            (&self.authorization_endpoint, &self.token_endpoint)
        {
            let metadata = match &self.issuer {
                Some(issuer) => ServerMetadata::new(issuer),
                None => ServerMetadata::default(),
            };
            let mut metadata = metadata
                .with_authorization_endpoint(authorization)
                .with_token_endpoint(token);
            if let Some(revocation) = &self.revocation_endpoint {
                metadata = metadata.with_revocation_endpoint(revocation);
            }
            return Ok(Server {
                endpoints: metadata.into(),
                pushes: false,
            });
        }
        let issuer = self.issuer.as_deref().unwrap_or_default();
        Server::discover(http, issuer).await
    }

    pub(crate) fn registration(
        &self,
        endpoints: Endpoints,
        client_id: &str,
    ) -> Result<Registration, BoxError> {
        let registration = Registration::new(endpoints, client_id);
        Ok(match (self.client_secret()?, self.client_auth) {
            (None, _) => registration,
            (Some(secret), ClientAuth::Post) => registration.client_secret_post(secret),
            (Some(secret), ClientAuth::Basic) => registration.client_secret_basic(secret),
        })
    }

    pub(crate) fn client_secret(&self) -> Result<Option<String>, BoxError> {
        common::secret(
            self.client_secret.as_deref(),
            self.client_secret_file.as_deref(),
        )
    }
}

impl Server {
    /// As the server itself tells (RFC 8414).
    pub(crate) async fn discover(http: &HttpsClient, issuer: &str) -> Result<Self, BoxError> {
        let discovery = Discovery::new(http.clone(), issuer)?;
        let metadata = discovery.metadata().await?;
        Ok(Self {
            pushes: metadata.pushed_authorization_request_endpoint().is_some(),
            endpoints: discovery.into(),
        })
    }
}
