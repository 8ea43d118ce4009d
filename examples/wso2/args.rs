//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tower_dpop::BoxError;

use crate::common::{key::KeyArgs, login::LoginArgs, secret};

/// Gets DPoP-bound tokens of a WSO2 Identity Server by both flows of its page on DPoP, calls an API with them, and
/// prints the curl commands that this stands for.
///
/// With neither a URL nor a server, the servers are embedded ones that behave as WSO2's, so it runs without any
/// arguments. Other users of the machine can see the arguments of a running program: give secrets by the environment
/// or by a file.
#[derive(Parser)]
#[command(after_long_help = "\
Exit status:
  0  every answer was a success (2xx)
  1  an answer was not, or there was an error: one line on stderr tells which
  2  the command line could not be read

Example:
  wso2 --base-url https://localhost:9443 --ca wso2.pem --client-id 6vF... --client-secret-file secret.txt \\
      --redirect-port 8123 --scope openid --key key.pem https://localhost:9443/scim2/Me

  The server presents a certificate of its own: wso2.pem is that. The application's redirect URL
  is then http://127.0.0.1:8123/callback.")]
pub(crate) struct Args {
    /// What to ask the API for; its origin is the only one that the token goes to
    pub(crate) url: Option<String>,

    /// The server, such as https://localhost:9443, or https://localhost:9443/t/example.com for a tenant; its endpoints
    /// are /oauth2/token and /oauth2/authorize there
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,

    /// Issuer of the server, where it is not the default [default: /oauth2/token there]
    #[arg(long, value_name = "URL", requires = "base_url")]
    pub(crate) issuer: Option<String>,

    /// Id of the client
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,

    /// Secret of the client; as an argument it can be seen by every user of this machine
    #[arg(long, value_name = "SECRET", env = "DPOP_CLIENT_SECRET")]
    #[arg(hide_env_values = true, allow_hyphen_values = true)]
    client_secret: Option<String>,

    /// File of the client's secret, in place of --client-secret
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,

    /// Scopes to ask for, separated by spaces
    #[arg(long)]
    pub(crate) scope: Option<String>,

    /// Which flow
    #[arg(long, value_enum, default_value_t = Flow::Both)]
    pub(crate) flow: Flow,

    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) login: LoginArgs,

    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flow {
    /// The client for itself
    ClientCredentials,
    /// The client for a user, who is asked in a browser on this machine
    AuthorizationCode,
    /// One after the other
    Both,
}

impl Flow {
    pub(crate) fn has_client_credentials(self) -> bool {
        self != Self::AuthorizationCode
    }

    pub(crate) fn has_authorization_code(self) -> bool {
        self != Self::ClientCredentials
    }
}

impl Args {
    pub(crate) fn client_secret(&self) -> Result<Option<String>, BoxError> {
        secret(
            self.client_secret.as_deref(),
            self.client_secret_file.as_deref(),
        )
    }
}
