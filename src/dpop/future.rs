use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{DpopLayer, layer::Plan};
use crate::{
    challenge,
    error::BoxError,
    nonce::{Nonce, Role},
    replay::{Replay, spare},
};

/// One for a server whose nonce was unknown or outdated, one more for a server that gives each nonce once:
/// requests in parallel overtake each other there. Who asks a third time does not mean us to get through. Token
/// requests, whose challenges are answered by the one who reads the answer, have the same limit.
pub(crate) const MAX_NONCE_RETRIES: u8 = 2;

pin_project! {
    /// The future of [`Dpop`](super::Dpop).
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S::Future>,
        // None for a request that is none of ours.
        attempt: Option<Attempt<S, B, R>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling { #[pin] future: F },
        // The answer was a nonce challenge; `Attempt` holds the next request.
        Reserving { nonce: Nonce },
        Failed { error: Option<BoxError> },
    }
}

/// What it takes to send the request once more.
struct Attempt<S, B, R> {
    service: S,
    layer: DpopLayer<R>,
    plan: Plan,
    spare: Option<Request<B>>,
    sent: Option<Nonce>,
    retries: u8,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    pub(super) fn untouched(future: S::Future) -> Self {
        Self {
            state: State::Calling { future },
            attempt: None,
        }
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
            attempt: None,
        }
    }

    /// Sends on `service`, which is ready; its clone is for later, and made ready then.
    pub(super) fn signed(
        service: &mut S,
        layer: DpopLayer<R>,
        plan: Plan,
        mut request: Request<B>,
    ) -> Self
    where
        S: Clone,
        R: Replay<B>,
    {
        let spare = spare(layer.replay_policy(), &request);
        let sent = layer.last_nonce(&plan);
        if let Err(error) = layer.stamp(&mut request, &plan, sent.as_ref()) {
            *service = service.clone();
            return Self::failed(error.into());
        }
        let future = service.call(request);
        let service = service.clone();
        let attempt = Attempt {
            service,
            layer,
            plan,
            spare,
            sent,
            retries: 0,
        };
        Self {
            state: State::Calling { future },
            attempt: Some(attempt),
        }
    }
}

impl<S, B, R, ResBody> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    R: Replay<B>,
{
    type Output = Result<Response<ResBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let mut response = ready!(future.poll(cx)).map_err(Into::into)?;
                    let nonce = this
                        .attempt
                        .as_mut()
                        .and_then(|attempt| attempt.answered(&mut response));
                    match nonce {
                        // Drops the answer and its future, and with it what they hold of the service.
                        Some(nonce) => State::Reserving { nonce },
                        None => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Reserving { nonce } => {
                    let Some(attempt) = this.attempt.as_mut() else {
                        unreachable!("only a signed request is sent again")
                    };
                    ready!(attempt.service.poll_ready(cx)).map_err(Into::into)?;
                    let future = attempt.send_again(nonce.clone())?;
                    State::Calling { future }
                }
                StateProj::Failed { error } => {
                    let Some(error) = error.take() else {
                        unreachable!("polled after it was ready")
                    };
                    return Poll::Ready(Err(error));
                }
            };
            this.state.set(next);
        }
    }
}

impl<S, B, R> Attempt<S, B, R> {
    /// Learns from an answer. The nonce to try again with, if that is what the answer asks for and there is
    /// something to send.
    fn answered<ResBody>(&mut self, response: &mut Response<ResBody>) -> Option<Nonce> {
        let offered = Nonce::offered(response.headers());
        let again = match &offered {
            Some(offered) => self.asks_again(response, offered),
            None => {
                self.forget_if_refused(response);
                false
            }
        };
        // Who challenges a second time gives each nonce once, and another request took the one that was
        // learned from the first challenge. The second nonce is for this request alone.
        if let Some(offered) = &offered
            && !(again && self.retries > 0)
        {
            self.layer.learn(&self.plan, offered);
        }
        if self.plan.role() == Role::AuthorizationServer {
            // For whoever reads the body.
            response
                .extensions_mut()
                .insert(SentNonce(self.sent.clone()));
        }
        offered.filter(|_| again)
    }

    /// Whether the answer asks for another nonce than the one that was sent, and there is something to send.
    /// An authorization server's challenge stands in the JSON body: whoever reads that answers it, and with a
    /// client authentication of its own.
    fn asks_again<ResBody>(&self, response: &Response<ResBody>, offered: &Nonce) -> bool {
        self.plan.role() == Role::ResourceServer
            && self.sent.as_ref() != Some(offered)
            && self.spare.is_some()
            && self.retries < MAX_NONCE_RETRIES
            && is_refused(response, "use_dpop_nonce")
    }

    /// Servers exist that refuse every nonce once they have stopped to ask for one. If that was not the
    /// reason, the next request costs one more challenge.
    fn forget_if_refused<ResBody>(&self, response: &Response<ResBody>) {
        if let Some(sent) = &self.sent
            && self.plan.role() == Role::ResourceServer
            && is_refused(response, "invalid_dpop_proof")
        {
            self.layer.forget(&self.plan, sent);
        }
    }
}

impl<S, B, R> Attempt<S, B, R>
where
    S: Service<Request<B>>,
    R: Replay<B>,
{
    /// Sends the spare request on the service, which is ready.
    fn send_again(&mut self, nonce: Nonce) -> Result<S::Future, BoxError> {
        let Some(mut request) = self.spare.take() else {
            unreachable!("`answered` saw the spare request")
        };
        self.retries += 1;
        if self.retries < MAX_NONCE_RETRIES {
            self.spare = spare(self.layer.replay_policy(), &request);
        }
        self.layer.stamp(&mut request, &self.plan, Some(&nonce))?;
        self.sent = Some(nonce);
        Ok(self.service.call(request))
    }
}

/// RFC 9449, section 9 says 401; servers exist that say 400.
fn is_refused<B>(response: &Response<B>, error: &str) -> bool {
    matches!(
        response.status(),
        StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST
    ) && challenge::has_error(response.headers(), error)
}

/// In the extensions of an authorization server's answer: the nonce that was in the request's proof.
#[derive(Debug, Clone)]
pub(crate) struct SentNonce(pub(crate) Option<Nonce>);

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("dpop::ResponseFuture")
            .finish_non_exhaustive()
    }
}
