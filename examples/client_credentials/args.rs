//! The command line.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use http_body_util::Full;
use tower_dpop::{BoxError, TokenRequest};

use crate::{
    common::{self, Usage, key::KeyArgs, secret},
    servers::Servers,
};

/// Sends a request with a DPoP-bound access token, and prints the answer.
///
/// The token is had from the token endpoint by the client credentials grant. With neither a URL nor a token
/// endpoint, the servers are embedded ones on loopback, so it runs without any arguments.
///
/// Other users of the machine can see the arguments of a running program: give secrets by the environment
/// or by a file.
#[derive(Parser)]
#[command(after_long_help = "\
Output:
  The answer's status line and body; nothing if there is no answer. With --repeat, a summary in
  place of them; the run ends early when a request gets no answer.
  With --json, one JSON object:
    one request: status, body (as text), token_requests (those for a nonce included),
                 nonce_retries, seconds
    --repeat:    requests, answers (their number by status), token_requests, nonce_retries,
                 seconds, requests_per_second

Exit status:
  0  every answer was a success (2xx)
  1  an answer was not, or there was an error: one line on stderr tells which
  2  the command line could not be read

Example:
  client_credentials --token-endpoint https://as.example.com/token --client-id m2m.dpop \\
      --client-secret-file secret.txt --key key.pem --scope api https://api.example.com/orders")]
pub(crate) struct Args {
    /// What to ask the API for; its origin is the only one that the token goes to
    url: Option<String>,

    /// URL of the authorization server's token endpoint
    #[arg(long, value_name = "URL", help_heading = "Token")]
    token_endpoint: Option<String>,

    /// Id of the client
    #[arg(long, value_name = "ID", help_heading = "Token")]
    client_id: Option<String>,

    /// Secret of the client; as an argument it can be seen by every user of this machine
    #[arg(long, value_name = "SECRET", help_heading = "Token")]
    #[arg(
        env = "DPOP_CLIENT_SECRET",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    client_secret: Option<String>,

    /// File of the client's secret, in place of --client-secret
    #[arg(long, value_name = "FILE", help_heading = "Token")]
    client_secret_file: Option<PathBuf>,

    /// Where the client's secret is sent
    #[arg(long, value_enum, value_name = "METHOD", help_heading = "Token")]
    #[arg(default_value_t = ClientAuth::Post)]
    pub(crate) client_auth: ClientAuth,

    /// Scopes to ask for, separated by spaces
    #[arg(long, help_heading = "Token")]
    scope: Option<String>,

    /// Resource that the token is for (RFC 8707); may be given more than once
    #[arg(long, value_name = "URI", help_heading = "Token")]
    resource: Vec<String>,

    #[command(flatten)]
    pub(crate) key: KeyArgs,

    /// Method of the request [default: GET, or POST with --data]
    #[arg(long, help_heading = "Request")]
    method: Option<String>,

    /// Body of the request, sent as application/json unless --header tells another Content-Type
    #[arg(
        long,
        value_name = "BODY",
        help_heading = "Request",
        allow_hyphen_values = true
    )]
    data: Option<String>,

    /// Header of the request, as "Name: value"; may be given more than once
    #[arg(long = "header", value_name = "HEADER", help_heading = "Request")]
    headers: Vec<String>,

    /// How often to send the request
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Request")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,

    /// How many requests may be on their way at once
    #[arg(long, value_name = "C", default_value_t = 1, help_heading = "Request")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) concurrency: u64,

    /// How long to wait for an answer, the token's fetching included
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        help_heading = "Request"
    )]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,

    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    pub(crate) ca: Option<PathBuf>,

    /// Appends every request and answer, token requests included, to this file: as the layers hand them to the
    /// HTTP client, secrets masked, JSON written anew
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) log: Option<PathBuf>,

    /// Prints one JSON object, and nothing else, on stdout
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientAuth {
    /// In the form (client_secret_post)
    Post,
    /// In the Authorization header (client_secret_basic)
    Basic,
    /// Not at all: a public client
    None,
}

impl Args {
    /// The servers that the flags name; none if they name none.
    pub(crate) fn servers(&self) -> Result<Option<Servers>, BoxError> {
        let named = common::together([
            ("the API's URL", &self.url),
            ("--token-endpoint", &self.token_endpoint),
            ("--client-id", &self.client_id),
        ])?;
        let Some([url, token_endpoint, client_id]) = named else {
            return Ok(None);
        };
        Ok(Some(Servers {
            url: url.to_owned(),
            token_endpoint: token_endpoint.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: self.client_secret()?,
            embedded: None,
        }))
    }

    pub(crate) fn client_secret(&self) -> Result<Option<String>, BoxError> {
        secret(
            self.client_secret.as_deref(),
            self.client_secret_file.as_deref(),
        )
    }

    pub(crate) fn token_request(&self, servers: &Servers) -> Result<TokenRequest, Usage> {
        let request = TokenRequest::client_credentials(&servers.token_endpoint, &servers.client_id);
        let mut request = match (self.client_auth, &servers.client_secret) {
            (ClientAuth::Post, Some(secret)) => request.client_secret_post(secret.as_str()),
            (ClientAuth::Basic, Some(secret)) => request.client_secret_basic(secret.as_str()),
            (ClientAuth::None, _) => request,
            (ClientAuth::Post | ClientAuth::Basic, None) => {
                return Err(Usage(
                    "the client's secret is missing: give --client-secret-file FILE, or --client-auth none \
                     for a client that has none"
                        .to_owned(),
                ));
            }
        };
        if let Some(scope) = &self.scope {
            request = request.scope(scope);
        }
        for resource in &self.resource {
            request = request.resource(resource);
        }
        Ok(request)
    }

    /// The request to the API.
    pub(crate) fn request(&self, url: &str) -> Result<Request<Full<Bytes>>, Usage> {
        let mut request = Request::new(Full::from(self.data.clone().unwrap_or_default()));
        *request.method_mut() = self.method()?;
        *request.uri_mut() = common::url(url)?;
        *request.headers_mut() = self.headers()?;
        if self.data.is_some() {
            request
                .headers_mut()
                .entry(header::CONTENT_TYPE)
                .or_insert(HeaderValue::from_static("application/json"));
        }
        Ok(request)
    }

    fn method(&self) -> Result<Method, Usage> {
        let Some(method) = &self.method else {
            let post = self.data.is_some();
            return Ok(if post { Method::POST } else { Method::GET });
        };
        Method::from_bytes(method.as_bytes())
            .ok()
            .filter(|method| method != Method::CONNECT)
            .ok_or_else(|| {
                Usage("--method is no method that an API knows, such as GET or POST".to_owned())
            })
    }

    fn headers(&self) -> Result<HeaderMap, Usage> {
        let mut headers = HeaderMap::new();
        for field in &self.headers {
            let parsed = field.split_once(':').and_then(|(name, value)| {
                let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                Some((name, HeaderValue::from_str(value.trim()).ok()?))
            });
            let Some((name, value)) = parsed else {
                return Err(Usage(
                    "a --header is no header: expected \"Name: value\"".to_owned(),
                ));
            };
            if WRITTEN_BY_US.contains(&name.as_str()) {
                return Err(Usage(format!(
                    "--header cannot set `{name}`: that is written for you"
                )));
            }
            headers.append(name, value);
        }
        Ok(headers)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

/// By the layers, and by the HTTP client.
const WRITTEN_BY_US: [&str; 6] = [
    "authorization",
    "dpop",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
];
