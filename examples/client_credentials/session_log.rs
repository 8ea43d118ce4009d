//! A layer that sees what is sent: it counts, and writes a session log.
//!
//! It stands below `Dpop` and around the client for token requests, so every proof, nonce challenge and
//! second try passes through it. What the HTTP client itself adds, such as `Host`, it does not see.

use std::{
    error::Error,
    fmt,
    fs::{File, OpenOptions},
    future::Future,
    io::{self, Write as _},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower::{Layer, Service};
use tower_dpop::{BoxError, Challenge};

use crate::{common::one_line, masking::Masking};

/// Answers are held in memory; a longer one is an error.
const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;

/// Whom a client of the stack talks to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    AuthorizationServer,
    Api,
}

/// All that passed through the layers made from it.
#[derive(Clone)]
pub(crate) struct Session(Arc<Inner>);

struct Inner {
    log: Option<Mutex<Log>>,
    exchanges: AtomicU64,
    token_requests: AtomicU64,
    nonce_retries: AtomicU64,
}

impl Session {
    /// Appends to the file `log`, if one is named. On Unix nobody but its owner may read one that is new.
    pub(crate) fn new(log: Option<&Path>) -> Result<Self, BoxError> {
        let log = log.map(|path| Log::open(path).map(Mutex::new)).transpose();
        Ok(Self(Arc::new(Inner {
            log: log.map_err(not_written)?,
            exchanges: AtomicU64::new(0),
            token_requests: AtomicU64::new(0),
            nonce_retries: AtomicU64::new(0),
        })))
    }

    /// An error if something is missing in the log.
    pub(crate) fn check_log(&self) -> Result<(), BoxError> {
        match self.0.log.as_ref().and_then(|log| lock(log).failed.take()) {
            Some(error) => Err(not_written(error)),
            None => Ok(()),
        }
    }

    pub(crate) fn layer(&self, peer: Peer) -> SessionLayer {
        SessionLayer {
            session: self.clone(),
            peer,
        }
    }

    /// Requests to the token endpoint.
    pub(crate) fn token_requests(&self) -> u64 {
        self.0.token_requests.load(Ordering::Relaxed)
    }

    /// Answers, of either server, that asked for another nonce.
    pub(crate) fn nonce_retries(&self) -> u64 {
        self.0.nonce_retries.load(Ordering::Relaxed)
    }

    fn begin(&self, peer: Peer, head: &Parts, body: &[u8]) -> Exchange {
        let number = self.0.exchanges.fetch_add(1, Ordering::Relaxed) + 1;
        if peer == Peer::AuthorizationServer {
            self.0.token_requests.fetch_add(1, Ordering::Relaxed);
        }
        let mut exchange = Exchange {
            session: self.clone(),
            peer,
            started: Instant::now(),
            masking: Masking::default(),
            entry: String::new(),
        };
        if self.0.log.is_some() {
            exchange.request(number, head, body);
        }
        exchange
    }
}

struct Log {
    file: File,
    /// Why entries are missing. No reason to keep a request from its answer.
    failed: Option<io::Error>,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self {
            file: options.open(path)?,
            failed: None,
        })
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_written(error: io::Error) -> BoxError {
    format!("the session log cannot be written: {error}").into()
}

/// One request and its answer: one entry, written as a whole.
struct Exchange {
    session: Session,
    peer: Peer,
    started: Instant,
    masking: Masking,
    /// Empty without a log, and once it is written.
    entry: String,
}

impl Exchange {
    fn request(&mut self, number: u64, head: &Parts, body: &[u8]) {
        let uri = &head.uri;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let line = format!(
            "#{number} {} to {}\n> {} {} {:?}\n",
            httpdate::fmt_http_date(SystemTime::now()),
            uri.authority().map_or("", |authority| authority.as_str()),
            head.method,
            self.masking.url(target),
            head.version,
        );
        self.entry.push_str(&line);
        self.message('>', &head.headers, body);
    }

    fn answered(&mut self, answer: &Response<Bytes>) {
        if asks_for_nonce(self.peer, answer) {
            self.session.0.nonce_retries.fetch_add(1, Ordering::Relaxed);
        }
        if !self.entry.is_empty() {
            let line = format!("< {:?} {}\n", answer.version(), answer.status());
            self.entry.push_str(&line);
            self.message('<', answer.headers(), answer.body());
            self.write();
        }
    }

    fn failed(&mut self, why: &str) {
        if !self.entry.is_empty() {
            self.entry.push_str(&format!("! {why}\n"));
            self.write();
        }
    }

    fn message(&mut self, side: char, headers: &HeaderMap, body: &[u8]) {
        for (name, value) in headers {
            let value = self.masking.header(name, value);
            self.entry.push_str(&format!("{side} {name}: {value}\n"));
        }
        if !body.is_empty() {
            self.entry.push_str(&format!("{side}\n"));
            for line in self.masking.body(headers, body).lines() {
                self.entry.push_str(&format!("{side} {line}\n"));
            }
        }
    }

    /// The whole entry at once, so that those of requests in parallel do not mix. Blocking, and short.
    fn write(&mut self) {
        let mut entry = std::mem::take(&mut self.entry);
        entry.push_str(&format!("({} ms)\n\n", self.started.elapsed().as_millis()));
        if let Some(log) = &self.session.0.log {
            let mut log = lock(log);
            if let Err(error) = log.file.write_all(entry.as_bytes()) {
                log.failed.get_or_insert(error);
            }
        }
    }
}

impl Drop for Exchange {
    /// Nobody waits for the answer any more: a timeout, or the end of the program.
    fn drop(&mut self) {
        self.failed("given up before the answer was here");
    }
}

/// A resource server asks in the header (RFC 9449, section 9), an authorization server in the body (8).
fn asks_for_nonce(peer: Peer, answer: &Response<Bytes>) -> bool {
    let in_header = Challenge::all(answer.headers())
        .iter()
        .any(|challenge| challenge.parameter("error") == Some("use_dpop_nonce"));
    let in_body = || {
        serde_json::from_slice::<serde_json::Value>(answer.body())
            .is_ok_and(|body| body["error"] == "use_dpop_nonce")
    };
    answer.status().is_client_error()
        && (in_header || peer == Peer::AuthorizationServer && in_body())
}

#[derive(Clone)]
pub(crate) struct SessionLayer {
    session: Session,
    peer: Peer,
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionLog<S>;

    fn layer(&self, inner: S) -> SessionLog<S> {
        SessionLog {
            inner,
            layer: self.clone(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct SessionLog<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S, B> Service<Request<Full<Bytes>>> for SessionLog<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// The body is here, to its end.
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let SessionLayer { session, peer } = self.layer.clone();
        let (head, body) = request.clone().into_parts();
        let answer = self.inner.call(request);
        Box::pin(async move {
            // Of a body in memory there is nothing to wait for.
            let body = body.collect().await?.to_bytes();
            let mut exchange = session.begin(peer, &head, &body);
            let answer = collect(answer).await;
            match &answer {
                Ok(answer) => exchange.answered(answer),
                Err(error) => exchange.failed(&one_line(&**error)),
            }
            Ok(answer?.map(Full::new))
        })
    }
}

async fn collect<B, E>(
    answer: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<Bytes>, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    let (head, body) = answer.await.map_err(Into::into)?.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
        Ok(_) => AnswerTooLong.into(),
        Err(error) => error,
    })?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

#[derive(Debug)]
struct AnswerTooLong;

impl fmt::Display for AnswerTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the answer is longer than {} MiB",
            MAX_ANSWER_BYTES / 1024 / 1024
        )
    }
}

impl Error for AnswerTooLong {}
