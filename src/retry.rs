//! A policy for `tower::retry`: the usual answers of servers that are busy, away or in trouble (feature `retry`).
//!
//! It belongs above our layers, so that each try has its own proof, and a token that was renewed meanwhile:
//!
//! ```
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower::{ServiceExt, service_fn};
//! use tower::{ServiceBuilder, retry::RetryLayer};
//! use tower_dpop::{Audience, DpopKey, DpopLayer, RetryPolicy, TokenLayer, TokenRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! # let client = service_fn(|request: Request<Full<Bytes>>| async move {
//! #     let token = r#"{"access_token":"abc","token_type":"DPoP","expires_in":300}"#;
//! #     let body = if request.uri().path() == "/token" { token } else { "hello" };
//! #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(body)))
//! # });
//! # let dpop = DpopLayer::new(DpopKey::generate()?);
//! # let request = TokenRequest::client_credentials("https://as.example.com/token", "m2m.dpop");
//! # let audience = Audience::origins(["https://api.example.com"])?;
//! # let tokens = TokenLayer::new(&dpop, client.clone(), request, audience)?;
//! let api = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::new()))
//!     .layer(tokens)
//!     .layer(dpop)
//!     .service(client);
//!
//! let orders = Request::get("https://api.example.com/orders").body(Full::default())?;
//! let response = api.oneshot(orders).await?;
//! # assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! | what came | sent again |
//! |---|---|
//! | 429 | yes |
//! | 503 with `Retry-After` | yes |
//! | 502, 503, 504 | if the method is idempotent (RFC 9110, section 9.2.2) |
//! | an error that says there was no connection | yes |
//! | another error of the client, or of a layer below such as a timeout | if the method is idempotent |
//! | no access token, for a reason that may pass | yes, when the token layer asks for one again |
//! | no access token, for a reason that will not ([`is_permanent`](Error::is_permanent), [`is_runtime`](Error::is_runtime)); any other error of this crate | no |
//! | any other answer, a 401 too | no: what can be done about that the layers below have done |
//! | a status of gRPC's, such as UNAVAILABLE | no: it is for the caller to know what a call did |
//!
//! At most three times, after 0.1 s, 0.2 s and 0.4 s, less a random part of up to a half; if `Retry-After` asks for
//! more, that much later. If it asks for more than 10 s, the caller gets the answer. All clones share a budget
//! ([`TpsBudget`]): one retry for every five requests that a server serves, and ten a second at the least, so that
//! retries do not drown one that is in trouble.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, Response, StatusCode, header::RETRY_AFTER};
use tokio::time::{Instant, Sleep, sleep};
use tower::retry::{
    Policy,
    budget::{Budget as _, TpsBudget},
};

use crate::{
    clock,
    error::{BoxError, Error, never_left},
    random::chance,
    replay::{CloneBody, Replay},
};

/// Besides the first. More would hold the caller longer than it is worth.
const MAX_RETRIES: u32 = 3;

/// Before the first retry; doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Who is told to wait longer is better off with the answer.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// When to send a request again. See the [module documentation](crate::retry).
///
/// # Panics
///
/// Outside of a Tokio runtime with timers there is no waiting: where it would wait, it panics, as tower's own
/// timeout does.
#[derive(Debug, Clone)]
pub struct RetryPolicy<P = CloneBody> {
    replay: P,
    retries: u32,
    budget: Arc<TpsBudget>,
}

impl RetryPolicy {
    /// For bodies that can be cloned.
    #[must_use]
    pub fn new() -> Self {
        Self::with_replay(CloneBody)
    }
}

impl<P> RetryPolicy<P> {
    /// For bodies that are made again as `replay` says.
    #[must_use]
    pub fn with_replay(replay: P) -> Self {
        Self {
            replay,
            retries: 0,
            budget: Arc::default(),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl<P, B, ResBody> Policy<Request<B>, Response<ResBody>, BoxError> for RetryPolicy<P>
where
    P: Replay<B>,
{
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<B>,
        result: &mut Result<Response<ResBody>, BoxError>,
    ) -> Option<Sleep> {
        let idempotent = request.method().is_idempotent();
        let ours = result
            .as_ref()
            .err()
            .and_then(|error| Error::find(&**error));
        let again = match (&result, ours) {
            (Ok(response), _) => is_transient(response, idempotent),
            (Err(_), Some(error)) => may_pass(error),
            (Err(error), None) => idempotent || never_left(&**error),
        };
        if !again {
            if result.as_ref().is_ok_and(is_served) {
                self.budget.deposit();
            }
            return None;
        }
        let wait = match (&result, ours) {
            (Ok(response), _) => self.wait(asked_by(response))?,
            (Err(_), Some(error)) => self.wait_for_token(error)?,
            (Err(_), None) => self.wait(None)?,
        };
        // A body that cannot be sent again is to cost the others nothing, and so is what was not sent for want of a
        // token. It is taken over last: from then on it belongs to the next try.
        if self.replay.replay(request).is_none()
            || ours.is_none() && !self.budget.withdraw()
            || !self.replay.take_over(request.body_mut())
        {
            return None;
        }
        self.retries += 1;
        Some(sleep(wait))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        let mut again = Request::new(self.replay.replay(request)?);
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.version_mut() = request.version();
        *again.headers_mut() = request.headers().clone();
        *again.extensions_mut() = request.extensions().clone();
        Some(again)
    }
}

impl<P> RetryPolicy<P> {
    /// How long until the next try, if there is to be one.
    fn wait(&self, asked: Option<Duration>) -> Option<Duration> {
        if self.retries >= MAX_RETRIES {
            return None;
        }
        let wait = FIRST_WAIT * 2_u32.pow(self.retries);
        let wait = wait.mul_f64(0.5 + chance() / 2.0);
        match asked {
            Some(asked) if asked > MAX_RETRY_AFTER => None,
            // Not all that were told the same at the same moment.
            Some(asked) => Some(asked + wait),
            None => Some(wait),
        }
    }

    /// The token layer spares an authorization server in trouble: before it asks again, no try could bring more.
    fn wait_for_token(&self, error: &Error) -> Option<Duration> {
        let until = error.lasts_until();
        self.wait(until.map(|until| until.saturating_duration_since(Instant::now())))
    }
}

fn asked_by<B>(response: &Response<B>) -> Option<Duration> {
    clock::retry_after(response.headers(), SystemTime::now())
}

fn is_transient<B>(response: &Response<B>, idempotent: bool) -> bool {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => true,
        // It says that it has not served the request. Without `Retry-After`, it may be a gateway's word for anything.
        StatusCode::SERVICE_UNAVAILABLE => {
            idempotent || response.headers().contains_key(RETRY_AFTER)
        }
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => idempotent,
        _ => false,
    }
}

fn is_served<B>(response: &Response<B>) -> bool {
    !response.status().is_server_error()
}

/// The request did not go out.
fn may_pass(error: &Error) -> bool {
    error.is_token_request() && !error.is_permanent() && !error.is_runtime()
}
