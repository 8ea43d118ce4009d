//! The servers that all sides talk to, in memory: one authorization server that counts and can be made to
//! fail, and one resource server that can revoke a token.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use serde_json::json;
use tower::Service;

pub(crate) const TOKEN_ENDPOINT: &str = "https://as.example.com/token";
pub(crate) const API: &str = "https://api.example.com";
pub(crate) const API_HOST: &str = "api.example.com";
/// A server that no token is for.
pub(crate) const ELSEWHERE: &str = "https://elsewhere.example.com";

const HOUR: u64 = 3600;

/// Both servers. Clones are the same servers.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) tokens: AuthorizationServer,
    pub(crate) api: ResourceServer,
}

impl Servers {
    /// An authorization server that takes `delay` for a token, and an API that answers at once.
    pub(crate) fn new(delay: Duration) -> Self {
        Self {
            tokens: AuthorizationServer::new(delay),
            api: ResourceServer::default(),
        }
    }

    /// Lets the API take `least` for an answer, and up to `spread` more: `steps` different times, one after
    /// the other.
    pub(crate) fn api_delay(mut self, least: Duration, spread: Duration, steps: usize) -> Self {
        self.api = ResourceServer(Arc::new(Api {
            least,
            spread,
            steps,
            ..Api::default()
        }));
        self
    }
}

/// Gives the tokens `t0`, `t1`, … for an hour each.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizationServer(Arc<Issuer>);

#[derive(Debug)]
struct Issuer {
    delay: Duration,
    life: AtomicU64,
    down: AtomicBool,
    issued: AtomicUsize,
    started: AtomicUsize,
    finished: AtomicUsize,
}

/// A token, and how long it lives by the server's word.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) seconds: u64,
}

/// The authorization server answered with an error.
#[derive(Debug)]
pub(crate) struct Down;

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the authorization server is down")
    }
}

impl std::error::Error for Down {}

impl AuthorizationServer {
    fn new(delay: Duration) -> Self {
        Self(Arc::new(Issuer {
            delay,
            life: AtomicU64::new(HOUR),
            down: AtomicBool::new(false),
            issued: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
        }))
    }

    /// One token request. It has finished when it was answered, by an error too; not if whoever asked went
    /// away before.
    pub(crate) async fn issue(&self) -> Result<Issued, Down> {
        let issuer = &self.0;
        issuer.started.fetch_add(1, Relaxed);
        tokio::time::sleep(issuer.delay).await;
        issuer.finished.fetch_add(1, Relaxed);
        if issuer.down.load(Relaxed) {
            return Err(Down);
        }
        Ok(Issued {
            token: format!("t{}", issuer.issued.fetch_add(1, Relaxed)),
            seconds: issuer.life.load(Relaxed),
        })
    }

    /// The same as an HTTP answer (RFC 6749, sections 5.1 and 5.2).
    pub(crate) async fn answer(&self, token_type: &str) -> Response<Full<Bytes>> {
        let (status, body) = match self.issue().await {
            Ok(issued) => (
                StatusCode::OK,
                json!({
                    "access_token": issued.token,
                    "token_type": token_type,
                    "expires_in": issued.seconds,
                }),
            ),
            Err(Down) => (StatusCode::SERVICE_UNAVAILABLE, json!({})),
        };
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        );
        response
    }

    /// How long the tokens live that it gives from now on.
    pub(crate) fn set_life(&self, seconds: u64) {
        self.0.life.store(seconds, Relaxed);
    }

    /// From now on every answer is an error.
    pub(crate) fn go_down(&self) {
        self.0.down.store(true, Relaxed);
    }

    /// Token requests since the last call: how many started, and how many finished.
    pub(crate) fn take_counts(&self) -> (usize, usize) {
        (
            self.0.started.swap(0, Relaxed),
            self.0.finished.swap(0, Relaxed),
        )
    }
}

/// Accepts every token that it was not told to revoke.
#[derive(Debug, Clone, Default)]
pub(crate) struct ResourceServer(Arc<Api>);

#[derive(Debug, Default)]
struct Api {
    least: Duration,
    spread: Duration,
    steps: usize,
    seen: AtomicUsize,
    first_revoked: AtomicBool,
}

impl ResourceServer {
    /// Whether a request with this token is accepted: found out when it is answered, not when it comes.
    pub(crate) async fn accepts(&self, token: Option<&str>) -> bool {
        let api = &self.0;
        let step = api.seen.fetch_add(1, Relaxed) % api.steps.max(1);
        let share = step as f64 / api.steps.max(1) as f64;
        tokio::time::sleep(api.least + api.spread.mul_f64(share)).await;
        match token {
            Some("t0") => !api.first_revoked.load(Relaxed),
            Some(token) => token.starts_with('t'),
            None => false,
        }
    }

    /// From now on `t0`, the token that the authorization server gave first, is refused.
    pub(crate) fn revoke_first(&self) {
        self.0.first_revoked.store(true, Relaxed);
    }
}

/// Both servers as an HTTP client sees them. The third, elsewhere, is as quick as the API and asks for no token.
impl Service<Request<Full<Bytes>>> for Servers {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let servers = self.clone();
        Box::pin(async move {
            let uri = request.uri().to_string();
            if uri == TOKEN_ENDPOINT {
                return Ok(servers.tokens.answer("DPoP").await);
            }
            let elsewhere = uri.starts_with(ELSEWHERE);
            let accepted = servers.api.accepts(token_of(&request)).await || elsewhere;
            let mut response = Response::new(Full::default());
            if !accepted {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                response.headers_mut().insert(
                    WWW_AUTHENTICATE,
                    http::HeaderValue::from_static(r#"DPoP error="invalid_token""#),
                );
            }
            Ok(response)
        })
    }
}

/// What follows the scheme in `Authorization`.
fn token_of<B>(request: &Request<B>) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    value.split_once(' ').map(|(_, token)| token)
}
