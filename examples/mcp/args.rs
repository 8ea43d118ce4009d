//! The command line.

use std::path::PathBuf;

use clap::Parser;
use http::HeaderMap;
use tower_dpop::{BoxError, Challenge};

use crate::common::{key::KeyArgs, login::LoginArgs};

/// Begins a session with an MCP server that asks for a token, and prints its answer.
///
/// Where a token is had, the server tells. The user is asked in a browser, which has to run on this machine. Without a
/// URL, the servers are embedded ones, and nobody is asked.
#[derive(Parser)]
#[command(after_long_help = "\
Exit status:
  0  the server's answer was a success (2xx)
  1  it was not, or there was an error: one line on stderr tells which
  2  the command line could not be read

Example:
  mcp --client-id https://app.example.com/client.json --redirect-port 8123 https://mcp.example.com/mcp")]
pub(crate) struct Args {
    /// The MCP server's endpoint; its origin is the only one that its answers lead to, and that the token goes to
    pub(crate) url: Option<String>,

    /// Id of the client at the authorization server: a public client
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,

    /// The authorization server to use, where the MCP server trusts several, or may name a wrong one [default: the
    /// first that it names]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// Scopes to ask for, separated by spaces [default: those that the MCP server asks for]
    #[arg(long)]
    scope: Option<String>,

    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) login: LoginArgs,

    #[command(flatten)]
    pub(crate) key: KeyArgs,
}

impl Args {
    /// The authorization server to ask, of those that the MCP server trusts.
    pub(crate) fn choose<'a>(&self, trusted: &'a [String]) -> Result<&'a str, BoxError> {
        let chosen = match &self.issuer {
            Some(issuer) => trusted.iter().find(|trusted| *trusted == issuer),
            None => trusted.first(),
        };
        chosen.map(String::as_str).ok_or_else(|| {
            let named = match trusted {
                [] => "no authorization server".to_owned(),
                [first, ..] => format!("{first}, and not --issuer"),
            };
            format!("there is nobody to ask for a token: the MCP server names {named}").into()
        })
    }

    /// What the user says; else what the refusal asks for; else all that the resource knows.
    pub(crate) fn scope(&self, refusal: &HeaderMap, supported: &[String]) -> Option<String> {
        let asked = Challenge::all(refusal)
            .iter()
            .find_map(|challenge| challenge.parameter("scope").map(str::to_owned));
        let all = (!supported.is_empty()).then(|| supported.join(" "));
        self.scope.clone().or(asked).or(all)
    }
}
