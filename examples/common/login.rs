//! The user's part of an authorization: a browser opens a URL, and its answer comes to a listener on loopback (RFC
//! 8252, section 7.3). Where the servers are embedded ones, nobody need be there.

use std::{io, path::Path, sync::Arc, time::Duration};

use http::{StatusCode, Uri, header::LOCATION};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_dpop::{BoxError, Error, Grant, PendingAuthorization};

use super::{
    https::{self, HttpsClient},
    tell,
};

/// For a user who looks for a password. Servers forget what they were asked after some minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(600);

/// For one request, which a browser on this machine sends at once.
const VISIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a request's head: what `PendingAuthorization::answered` reads at the most, and the browser's headers.
const MAX_HEAD_BYTES: usize = 2 * 64 * 1024;

/// Browsers open some connections ahead of need, and send nothing.
const MAX_VISITS: usize = 32;

/// After a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
pub(crate) struct LoginArgs {
    /// Port of 127.0.0.1 that the browser is sent back to; any free one unless given
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true
    )]
    #[arg(help_heading = "Login")]
    redirect_port: u16,
}

impl LoginArgs {
    /// Listens where the browser will be sent back to: `path` begins with `/`.
    pub(crate) async fn listen(&self, path: &str) -> Result<Login, BoxError> {
        Login::listen(self.redirect_port, path).await
    }
}

/// Where the user is asked.
pub(crate) struct Login {
    redirect_uri: String,
    user: User,
}

enum User {
    /// Whoever sits at this machine.
    Here(TcpListener),
    /// The embedded authorization server's, who says yes at once.
    Embedded(Box<HttpsClient>),
}

impl Login {
    pub(crate) async fn listen(port: u16, path: &str) -> Result<Self, BoxError> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.map_err(|error| {
            format!("port {port} of 127.0.0.1 cannot be had (--redirect-port): {error}")
        })?;
        Ok(Self {
            redirect_uri: format!("http://{}{path}", listener.local_addr()?),
            user: User::Here(listener),
        })
    }

    /// Nobody listens: the answer is read from where the browser is sent to.
    pub(crate) fn embedded(http: &HttpsClient) -> Self {
        Self {
            redirect_uri: "http://127.0.0.1/callback".to_owned(),
            user: User::Embedded(Box::new(http.clone())),
        }
    }

    /// For the authorization request.
    pub(crate) fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Has the user asked, and gives what was granted.
    pub(crate) async fn ask(self, pending: PendingAuthorization) -> Result<Grant, BoxError> {
        match self.user {
            User::Here(listener) => {
                tell(&format!("open this in a browser here: {}", pending.url()));
                let answer = timeout(USER_TIMEOUT, answer(&listener, pending)).await;
                Ok(answer.map_err(|_| "nobody answered in the browser within 10 minutes")??)
            }
            User::Embedded(http) => {
                let redirect = embedded_user_agent(&http, pending.url()).await?;
                Ok(pending.answered(&redirect)?)
            }
        }
    }
}

/// Why there is no answer from `uri`, and what to do if the grant in `store` is good no more.
pub(crate) fn no_answer(error: BoxError, uri: &Uri, store: Option<&Path>) -> BoxError {
    let known = Error::find(&*error);
    let refused = known.and_then(Error::oauth_error);
    let over = refused.is_some_and(|refused| refused.code() == "invalid_grant")
        || known.is_some_and(|error| error.is_grant_uncertain() || error.is_grant_over());
    match store.filter(|store| over && store.exists()) {
        Some(store) => {
            let line = super::one_line(&*error);
            format!("{line} (remove {} to log in anew)", store.display()).into()
        }
        None => https::no_answer(error, uri),
    }
}

/// Opens the authorization URL of an embedded server, and gives the URL that a browser would be sent to.
pub(crate) async fn embedded_user_agent(http: &HttpsClient, url: &str) -> Result<String, BoxError> {
    let answer = http.get(url.parse()?).await?;
    let location = answer
        .headers()
        .get(LOCATION)
        .filter(|_| answer.status() == StatusCode::SEE_OTHER);
    let location = location.ok_or_else(|| {
        format!(
            "the authorization endpoint sent the browser nowhere, but answered {}",
            answer.status()
        )
    })?;
    Ok(location.to_str()?.to_owned())
}

/// Listens until the answer comes, whatever else does: a browser's question for `/favicon.ico`, another program's
/// forgery.
async fn answer(listener: &TcpListener, pending: PendingAuthorization) -> Result<Grant, Error> {
    let pending = Arc::new(pending);
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            visitor = listener.accept(), if visits.len() < MAX_VISITS => match visitor {
                Ok((stream, _)) => {
                    visits.spawn(visit(stream, Arc::clone(&pending)));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
            Some(visit) = visits.join_next() => {
                if let Ok(Some(outcome)) = visit {
                    return outcome;
                }
            }
        }
    }
}

/// One connection with one request. The outcome, if that was the answer.
async fn visit(
    stream: TcpStream,
    pending: Arc<PendingAuthorization>,
) -> Option<Result<Grant, Error>> {
    let target = timeout(VISIT_TIMEOUT, target(&stream)).await.ok()??;
    let outcome = match pending.answered(&target) {
        Err(error) if error.is_authorization() => {
            if target.contains('?') {
                tell(&format!("note: an answer was not used: {error}"));
            }
            None
        }
        outcome => Some(outcome),
    };
    let page = page(outcome.as_ref().map(Result::is_ok));
    // The answer counts, whether the browser shows a page or not.
    let _ = timeout(VISIT_TIMEOUT, write(&stream, page.as_bytes())).await;
    outcome
}

/// Path and query of a GET request. The whole head is read: a connection that is closed before would be reset, and
/// the browser show an error.
async fn target(stream: &TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut part = [0; 4096];
        stream.readable().await.ok()?;
        match stream.try_read(&mut part) {
            Ok(0) => return None,
            Ok(count) => head.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        if head.len() > MAX_HEAD_BYTES {
            return None;
        }
    }
    let line = head.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (target, version) = line.strip_prefix("GET ")?.split_once(' ')?;
    (target.starts_with('/') && version.starts_with("HTTP/1.")).then(|| target.to_owned())
}

async fn write(stream: &TcpStream, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Shows nothing of the request, which anybody may have sent. `granted` is none if it was not the answer.
fn page(granted: Option<bool>) -> String {
    let (status, text) = match granted {
        Some(true) => ("200 OK", "The answer is there. This page can be closed."),
        Some(false) => ("200 OK", "Nothing was granted. The program tells why."),
        None => (
            "404 Not Found",
            "This is not the answer that is waited for.",
        ),
    };
    let body = format!("<!doctype html><title>Login</title><p>{text}</p>\n");
    format!(
        "HTTP/1.1 {status}\r\n\
         content-type: text/html; charset=utf-8\r\n\
         content-length: {}\r\n\
         content-security-policy: default-src 'none'\r\n\
         referrer-policy: no-referrer\r\n\
         cache-control: no-store\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}
