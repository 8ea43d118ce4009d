use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{plan::Plan, prover::Prover};
use crate::{
    access_token::AccessToken,
    challenge, event,
    nonce::{Nonce, Offer},
};

pin_project! {
    /// The body of an answer to [`Dpop`](super::Dpop): that of the inner service, frame by frame.
    ///
    /// The trailers of a gRPC call may hold a nonce, or a challenge that comes too late to be answered within the
    /// call: the next request profits from them.
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        // For gRPC only: elsewhere trailers are not to change what the headers said (RFC 9110, section 6.5.1).
        learner: Option<Box<Learner>>,
    }
}

struct Learner {
    prover: Arc<Prover>,
    plan: Plan,
}

impl<B> ResponseBody<B> {
    pub(super) fn new(inner: B) -> Self {
        Self {
            inner,
            learner: None,
        }
    }

    /// Of an answer to a request that was signed.
    pub(super) fn learning(
        response: Response<B>,
        prover: Arc<Prover>,
        plan: Plan,
    ) -> Response<Self> {
        let learner =
            challenge::is_grpc(response.headers()).then(|| Box::new(Learner { prover, plan }));
        response.map(|inner| Self { inner, learner })
    }

    /// The inner service's body.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }

    /// The inner service's body.
    pub fn get_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    /// The inner service's body. What its trailers say is not learned then.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl Learner {
    fn learn(&self, trailers: &HeaderMap) {
        if let Some(offered) = Nonce::offered(trailers) {
            self.prover.learn(&self.plan, &offered, Offer::ToAll);
        }
        if !challenge::is_unauthenticated(trailers) {
            return;
        }
        if challenge::has_error(trailers, "use_dpop_nonce") {
            event::nonce_challenge(self.plan.origin(), self.plan.role());
        }
        if challenge::has_error(trailers, "invalid_token") {
            self.plan.token().map(AccessToken::refused);
        }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(cx));
        if let (Some(learner), Some(Ok(frame))) = (&*this.learner, &frame)
            && let Some(trailers) = frame.trailers_ref()
        {
            learner.learn(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::new(B::default())
    }
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResponseBody").field(&self.inner).finish()
    }
}
