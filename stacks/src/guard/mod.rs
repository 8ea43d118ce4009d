//! Before a gRPC server: the check of tokens and proofs, by a crate that is not ours.
//!
//! It asks of each request one `Authorization: DPoP` with a signed token of the authorization server that it
//! was told of, and one `DPoP` proof, which `dpop-verifier` checks: for this token, its key, this method and
//! URL, never seen before, and with the nonce if one is set. How it says no can be set.

mod check;
mod refusal;

use std::{
    collections::HashSet,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tonic::body::Body;
use tower::{Layer, Service};

use self::refusal::refusal;
pub use self::{check::Fault, refusal::Shape};

/// A trailer on every answer of the service.
pub const SERVED: &str = "x-served";

/// What a [`Guard`] asks for, and how it refuses.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The nonce that proofs must have.
    pub nonce: Option<String>,
    /// Tokens that are good no more.
    pub refused: HashSet<String>,
    /// How it refuses.
    pub shape: Shape,
    /// After how many frames of the request's body it refuses; after all of them, unless set.
    pub after: Option<usize>,
    /// Whether it leaves the rest of that body unread, rather than resetting the stream.
    pub ignores_rest: bool,
}

/// A request as the guard saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its path.
    pub path: String,
    /// The token, if there is one.
    pub token: String,
    /// What the proof says.
    pub claims: Value,
    /// Why it was refused.
    pub refused: Option<Fault>,
}

/// Checks requests; see the [module documentation](crate::guard). A layer for
/// [`Server::layer`](tonic::transport::Server::layer). Clones are the same guard.
#[derive(Clone)]
pub struct Guard {
    origin: Arc<str>,
    issuer: Arc<str>,
    state: Arc<Mutex<State>>,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    rules: Rules,
    used: HashSet<[u8; 32]>,
    seen: Vec<Seen>,
    unread: Vec<Body>,
}

impl Guard {
    /// For the server that its clients know as `origin`, and tokens of `issuer`.
    #[must_use]
    pub fn new(origin: &str, issuer: &str) -> Self {
        Self {
            origin: origin.into(),
            issuer: issuer.into(),
            state: Arc::default(),
            open: Arc::default(),
        }
    }

    /// Changes what it asks for, from the next request on.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.state().rules);
    }

    /// Every request so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// How many calls are not over.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads as much of the request as the rules say, and refuses.
    async fn refuse(&self, rules: &Rules, fault: &Fault, mut body: Body) -> Response<Body> {
        let mut frames = 0;
        while rules.after.is_none_or(|after| frames < after) && body.frame().await.is_some() {
            frames += 1;
        }
        if rules.ignores_rest {
            self.state().unread.push(body);
        }
        refusal(rules, fault)
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: self.clone(),
        }
    }
}

/// A service behind a [`Guard`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let guard = self.guard.clone();
        let open = Open::new(&guard.open);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let rules = guard.state().rules.clone();
            let seen = guard.check(&head, &rules).await;
            guard.state().seen.push(seen.clone());
            if let Some(fault) = &seen.refused {
                let response = guard.refuse(&rules, fault, body).await;
                return Ok(until_over(response, open));
            }
            let response = inner.call(Request::from_parts(head, body)).await?;
            Ok(until_over(response.map(mark_served), open))
        })
    }
}

/// Adds a trailer to those of the service.
fn mark_served(body: Body) -> Body {
    let mark = |frame: Frame<Bytes>| match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers.insert(SERVED, HeaderValue::from_static("yes"));
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    };
    Body::new(body.map_frame(mark))
}

/// Counts a call until it is over: its answer was sent, or nobody waits for it any more.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn until_over(response: Response<Body>, open: Open) -> Response<Body> {
    response.map(|body| {
        // An empty body stays one: its end is told with the headers.
        Body::new(body.map_frame(move |frame| {
            let _open = &open;
            frame
        }))
    })
}
