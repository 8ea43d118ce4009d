//! The middlewares of tower and tower-http that a client's stack may have, each as a function over a stack.

use std::{
    future::{Ready, ready},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode};
use http_body_util::Full;
use tower::{
    Layer as _, ServiceBuilder,
    hedge::{self, Hedge},
    retry::{self, RetryLayer},
};
use tower_dpop::BoxError;
use tower_http::{
    decompression::DecompressionLayer,
    follow_redirect::{
        FollowRedirectLayer,
        policy::{And, CloneBodyFn, Limited, PolicyExt, Standard, clone_body_fn},
    },
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::TraceLayer,
};

use super::{Answer, Call, Stack, boxed};

/// Longer than anything that is to succeed takes.
const LONG: Duration = Duration::from_secs(60);

pub(crate) type Wrap = fn(Stack) -> Stack;

/// Each as users have it, with nothing that provokes it.
pub(crate) const ALL: [(&str, Wrap); 13] = [
    ("timeout", timeout),
    ("retry", retry),
    ("buffer", buffer),
    ("load shedding", load_shed),
    ("concurrency limit 1", |inner| concurrency_limit(inner, 1)),
    ("concurrency limit 4", |inner| concurrency_limit(inner, 4)),
    ("rate limit", rate_limit),
    ("hedge", |inner| hedge(inner, Whenever, LONG)),
    ("redirect", redirect),
    ("redirect with all headers", redirect_keeping_all),
    ("trace", trace),
    ("request id", request_id),
    ("decompression", decompression),
];

pub(crate) fn timeout(inner: Stack) -> Stack {
    boxed(ServiceBuilder::new().timeout(LONG).service(inner))
}

pub(crate) fn buffer(inner: Stack) -> Stack {
    boxed(ServiceBuilder::new().buffer(4).service(inner))
}

/// Room for all callers at once.
pub(crate) fn wide_buffer(inner: Stack) -> Stack {
    boxed(ServiceBuilder::new().buffer(64).service(inner))
}

pub(crate) fn load_shed(inner: Stack) -> Stack {
    boxed(ServiceBuilder::new().load_shed().service(inner))
}

pub(crate) fn concurrency_limit(inner: Stack, max: usize) -> Stack {
    boxed(ServiceBuilder::new().concurrency_limit(max).service(inner))
}

/// It is not `Clone`: a buffer shares it.
pub(crate) fn rate_limit(inner: Stack) -> Stack {
    let limited = ServiceBuilder::new()
        .buffer(4)
        .rate_limit(10, Duration::from_millis(10));
    boxed(limited.service(inner))
}

pub(crate) fn trace(inner: Stack) -> Stack {
    boxed(TraceLayer::new_for_http().layer(inner))
}

pub(crate) fn decompression(inner: Stack) -> Stack {
    boxed(DecompressionLayer::new().layer(inner))
}

// Request ids.

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone)]
struct Counted;

impl MakeRequestId for Counted {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(RequestId::new(count.into()))
    }
}

pub(crate) fn request_id(inner: Stack) -> Stack {
    let ids = ServiceBuilder::new()
        .layer(SetRequestIdLayer::new(REQUEST_ID, Counted))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID));
    boxed(ids.service(inner))
}

// Retry.

/// Sends once more after a broken connection and a 503.
#[derive(Clone)]
pub(crate) struct Once {
    clone: fn(&Call) -> Call,
    left: u32,
}

impl retry::Policy<Call, Answer, BoxError> for Once {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Call,
        result: &mut Result<Answer, BoxError>,
    ) -> Option<Self::Future> {
        let passes = match result {
            Ok(answer) => answer.status() != StatusCode::SERVICE_UNAVAILABLE,
            // What is ours is no broken connection.
            Err(error) => tower_dpop::Error::find(&**error).is_some(),
        };
        self.left = self.left.checked_sub(1)?;
        (!passes).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Call) -> Option<Call> {
        Some((self.clone)(request))
    }
}

pub(crate) fn retry(inner: Stack) -> Stack {
    let clone = Request::clone;
    boxed(RetryLayer::new(Once { clone, left: 1 }).layer(inner))
}

/// One whose copy of a request is without its extensions.
pub(crate) fn forgetful_retry(inner: Stack) -> Stack {
    let clone = |request: &Call| {
        let mut copy = Request::new(request.body().clone());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        copy
    };
    boxed(RetryLayer::new(Once { clone, left: 1 }).layer(inner))
}

// Hedge.

/// Every request may be sent a second time.
#[derive(Clone)]
pub(crate) struct Whenever;

impl hedge::Policy<Call> for Whenever {
    fn clone_request(&self, request: &Call) -> Option<Call> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Call) -> bool {
        true
    }
}

/// Sends a second time when no answer came `after` so long. It is not `Clone`: a buffer shares it.
pub(crate) fn hedge<P>(inner: Stack, policy: P, after: Duration) -> Stack
where
    P: hedge::Policy<Call> + Clone + Send + 'static,
{
    let latency = u64::try_from(after.as_millis()).unwrap();
    // What it measures itself counts when this period is over: never.
    let period = 1000 * LONG;
    let hedge = Hedge::new_with_mock_latencies(inner, policy, 1, 0.9, period, &[latency]);
    boxed(ServiceBuilder::new().buffer(4).service(hedge))
}

// Redirects.

type CloneBody = CloneBodyFn<fn(&Full<Bytes>) -> Option<Full<Bytes>>>;

/// tower-http's standard follows no redirect of a request with a body unless a policy clones it.
fn clone_body() -> CloneBody {
    clone_body_fn(|body| Some(body.clone()))
}

/// tower-http's standard policy: on the way to another origin it takes away `Authorization`, `Cookie` and all
/// extensions.
pub(crate) fn redirect(inner: Stack) -> Stack {
    let policy: And<Standard, CloneBody> =
        PolicyExt::and::<_, Full<Bytes>, BoxError>(Standard::default(), clone_body());
    boxed(FollowRedirectLayer::with_policy(policy).layer(inner))
}

/// A policy that only counts: it takes nothing away.
pub(crate) fn redirect_keeping_all(inner: Stack) -> Stack {
    let policy: And<Limited, CloneBody> =
        PolicyExt::and::<_, Full<Bytes>, BoxError>(Limited::default(), clone_body());
    boxed(FollowRedirectLayer::with_policy(policy).layer(inner))
}
