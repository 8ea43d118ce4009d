//! What these examples share: which servers they talk to, and an account of what they sent. The work itself
//! stands in each of them.
// Each example uses a part of it.
#![allow(dead_code)]

#[path = "../../../examples/common/mod.rs"]
pub(crate) mod common;

use std::{
    collections::HashSet,
    io::{self, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use rustls::ClientConfig;
use tower_dpop::{
    Audience, BoxError, DpopKey, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer},
};

use self::common::{
    https::{self, HttpsClient},
    key::KeyArgs,
};

/// A longer answer is not read.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

#[derive(clap::Args)]
pub(crate) struct ServerArgs {
    /// What to ask the API for; without it, both servers are embedded ones
    #[arg(requires_all = ["token_endpoint", "client_id"])]
    url: Option<String>,

    /// Where the access token is had
    #[arg(long, value_name = "URL", requires = "url")]
    token_endpoint: Option<String>,

    /// As which client
    #[arg(long, value_name = "ID", requires = "url")]
    client_id: Option<String>,

    /// Secret of the client; as an argument it can be seen by every user of this machine
    #[arg(
        long,
        value_name = "SECRET",
        env = "DPOP_CLIENT_SECRET",
        hide_env_values = true
    )]
    #[arg(allow_hyphen_values = true)]
    client_secret: Option<String>,

    /// File of the secret, in place of --client-secret
    #[arg(long, value_name = "FILE", requires = "url")]
    client_secret_file: Option<PathBuf>,

    /// What to ask for, apart by spaces
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,

    /// PEM file of certificates to trust beside the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    #[command(flatten)]
    key: KeyArgs,
}

/// Whom to talk to, and as whom.
pub(crate) struct Servers {
    pub(crate) url: Uri,
    pub(crate) token_endpoint: Uri,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) key: DpopKey,
    /// They end when this is dropped.
    pub(crate) embedded: Option<(AuthorizationServer, ResourceServer)>,
    ca: Option<PathBuf>,
}

impl Servers {
    /// Those that the flags name, or embedded ones, which ask for nonces.
    pub(crate) async fn start_or_named(args: ServerArgs) -> Result<Self, BoxError> {
        let key = args.key.load()?;
        let (ca, scope) = (args.ca, args.scope);
        if let (Some(url), Some(token_endpoint), Some(client_id)) =
            (args.url, args.token_endpoint, args.client_id)
        {
            let given = args.client_secret.as_deref();
            return Ok(Self {
                url: common::url(&url)?,
                token_endpoint: common::url(&token_endpoint)?,
                client_id,
                client_secret: common::secret(given, args.client_secret_file.as_deref())?,
                scope,
                key,
                embedded: None,
                ca,
            });
        }
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        authorization_server.nonces(Nonces::required());
        api.nonces(Nonces::required());
        Ok(Self {
            url: common::url(&api.url("/orders"))?,
            token_endpoint: common::url(&authorization_server.token_endpoint())?,
            client_id: CLIENT_ID.to_owned(),
            client_secret: Some(CLIENT_SECRET.to_owned()),
            scope,
            key,
            embedded: Some((authorization_server, api)),
            ca,
        })
    }

    /// Scheme, host and port of the API.
    pub(crate) fn api(&self) -> String {
        common::origin(&self.url)
    }

    /// Scheme, host and port of the authorization server.
    pub(crate) fn authorization_server(&self) -> String {
        common::origin(&self.token_endpoint)
    }

    /// Where the token may go: to the API, and nowhere else.
    pub(crate) fn audience(&self) -> Result<Audience, BoxError> {
        Ok(Audience::origins([self.api()])?)
    }

    pub(crate) fn token_request(&self) -> TokenRequest {
        let endpoint = self.token_endpoint.to_string();
        let mut request = TokenRequest::client_credentials(endpoint, self.client_id.as_str());
        if let Some(secret) = &self.client_secret {
            request = request.client_secret_basic(secret.as_str());
        }
        match &self.scope {
            Some(scope) => request.scope(scope.as_str()),
            None => request,
        }
    }

    /// hyper-util's client.
    pub(crate) fn https(&self) -> Result<HttpsClient, BoxError> {
        https::client(self.ca.as_deref())
    }

    pub(crate) fn tls(&self) -> Result<ClientConfig, BoxError> {
        https::tls(self.ca.as_deref())
    }
}

/// What went out, as the HTTP client got it.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Vec<Line>>>);

struct Line {
    text: String,
    proof: Option<HeaderValue>,
}

impl Sent {
    /// To stand between the layers and the client: `.map_request(sent.note())`.
    pub(crate) fn note<B>(
        &self,
    ) -> impl Fn(Request<B>) -> Request<B> + Clone + Send + Sync + 'static {
        let lines = Arc::clone(&self.0);
        move |request| {
            // Without the query, which may hold what nobody is to see.
            let origin = common::origin(request.uri());
            let origin = origin.trim_start_matches("://");
            let line = Line {
                text: format!("{} {origin}{}", request.method(), request.uri().path()),
                proof: request.headers().get("dpop").cloned(),
            };
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(line);
            request
        }
    }

    /// Prints what was sent. An error, if it was fewer than `least`, or any of it had no proof of its own.
    pub(crate) fn report(&self, least: usize) -> Result<(), BoxError> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = io::stdout().lock();
        let mut proofs = HashSet::new();
        for line in &*lines {
            let own = line
                .proof
                .as_ref()
                .is_some_and(|proof| proofs.insert(proof));
            let verdict = if own {
                "a proof of its own"
            } else {
                "NO proof of its own"
            };
            writeln!(out, "sent: {}, with {verdict}", line.text)?;
        }
        writeln!(
            out,
            "{} requests sent, {} proofs",
            lines.len(),
            proofs.len()
        )?;
        if proofs.len() < lines.len() {
            return Err("a request was sent without a proof of its own".into());
        }
        if lines.len() < least {
            return Err(format!("at least {least} requests should have been sent").into());
        }
        Ok(())
    }
}

/// Prints an answer. An error, if it is one.
pub(crate) async fn show<B>(answer: http::Response<B>) -> Result<(), BoxError>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
    let mut out = io::stdout().lock();
    writeln!(out, "{:?} {}", head.version, head.status)?;
    out.write_all(&body.to_bytes())?;
    writeln!(out)?;
    match head.status {
        status if status.is_success() => Ok(()),
        status => Err(unexpected(status, &common::reason(status, &head.headers))),
    }
}

fn unexpected(status: StatusCode, reason: &str) -> BoxError {
    format!("the API answered {status}{reason}").into()
}
