use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    DpopLayer, ResponseBody,
    attempt::{Attempt, Verdict},
    plan::Plan,
};
use crate::{
    error::BoxError,
    event::{Cause, Sending},
    nonce::Taken,
    replay::Replay,
};

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
        // The answer asks for another proof; `Attempt` holds the next request.
        Reserving { nonce: Option<Taken>, cause: Cause },
        Failed { error: Option<BoxError> },
    }
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
        request: Request<B>,
    ) -> Self
    where
        S: Clone,
        R: Replay<B>,
    {
        match Attempt::begin(service, layer, plan, request) {
            Ok((future, attempt)) => Self {
                state: State::Calling { future },
                attempt: Some(attempt),
            },
            Err(error) => Self::failed(error.into()),
        }
    }
}

impl<S, B, R, ResBody> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
    R: Replay<B>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Calling { future } => {
                    let Some(attempt) = this.attempt.as_ref() else {
                        let response = ready!(future.poll(cx)).map_err(Into::into)?;
                        return Poll::Ready(Ok(response.map(ResponseBody::new)));
                    };
                    let polled = attempt.sending.within(|| future.poll(cx));
                    let mut response = ready!(polled).map_err(|error| {
                        attempt.sending.failed();
                        error.into()
                    })?;
                    let Some(mut attempt) = this.attempt.take() else {
                        unreachable!("it is a signed request")
                    };
                    match attempt.answered(&mut response) {
                        // Drops the answer and its future, and with it what they hold of the service.
                        Verdict::Again { nonce, cause } => {
                            attempt.sending = Sending::over();
                            *this.attempt = Some(attempt);
                            State::Reserving { nonce, cause }
                        }
                        Verdict::Done => return Poll::Ready(Ok(attempt.done(response))),
                    }
                }
                StateProj::Reserving { nonce, cause } => {
                    let Some(attempt) = this.attempt.as_mut() else {
                        unreachable!("only a signed request is sent again")
                    };
                    ready!(attempt.service.poll_ready(cx)).map_err(Into::into)?;
                    let future = attempt.send_again(nonce.take(), *cause)?;
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

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("dpop::ResponseFuture")
            .finish_non_exhaustive()
    }
}
