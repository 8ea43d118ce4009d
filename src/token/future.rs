use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{cache::Cache, state::Ask};
use crate::{
    access_token::AccessToken,
    budget::{Budget, Left},
    challenge,
    error::{BoxError, Error, Kind},
    event::{self, Cause},
    replay::{Replay, Spare},
};

pin_project! {
    /// The future of [`Token`](super::Token).
    pub struct ResponseFuture<S, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B, R, S::Future, S::Response>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B, R, F, Res> {
        // A request to some other origin.
        Untouched { #[pin] future: F },
        // The token was there: nothing waits, nothing is boxed.
        Sent { #[pin] future: F, sent: Option<Sent<S, B, R>> },
        // A token had to be waited for.
        Waiting { future: Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>> },
        Failed { error: Option<BoxError> },
    }
}

/// What is needed when an answer refuses the token.
struct Sent<S, B, R> {
    service: S,
    stack: Stack<R>,
    token: AccessToken,
    spare: Option<Spare<B>>,
}

/// What a request needs to know, besides the service below.
pub(super) struct Stack<R> {
    pub(super) cache: Cache,
    pub(super) replay: R,
    pub(super) dpop_below: Arc<AtomicBool>,
}

impl<S, B, R> ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    pub(super) fn untouched(future: S::Future) -> Self {
        Self {
            state: State::Untouched { future },
        }
    }

    pub(super) fn failed(error: BoxError) -> Self {
        Self {
            state: State::Failed { error: Some(error) },
        }
    }

    /// Sends on `service`, which is ready; its clone is for later, and made ready then.
    pub(super) fn now(
        service: &mut S,
        stack: Stack<R>,
        token: AccessToken,
        mut request: Request<B>,
    ) -> Self
    where
        S: Clone,
        R: Replay<B>,
    {
        let spare = Spare::new(&stack.replay, &request, request.extensions().clone());
        let handle = token.for_request(stack.cache.issuer(), &stack.dpop_below, Budget::FULL);
        request.extensions_mut().insert(handle);
        let future = service.call(request);
        let sent = Sent {
            service: service.clone(),
            stack,
            token,
            spare,
        };
        Self {
            state: State::Sent {
                future,
                sent: Some(sent),
            },
        }
    }
}

impl<S, B, R, ResBody> ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    ResBody: Send + 'static,
    R: Replay<B> + Send + Sync + 'static,
{
    /// Waits for a token, makes `service` ready and sends.
    pub(super) fn later(service: S, stack: Stack<R>, ask: Ask, request: Request<B>) -> Self {
        let wish = Wish {
            ask,
            refused: None,
            budget: Budget::FULL,
        };
        Self {
            state: State::Waiting {
                future: Box::pin(stack.fetch_and_send(service, request, wish)),
            },
        }
    }
}

impl<S, B, R, ResBody> Future for ResponseFuture<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    ResBody: Send + 'static,
    R: Replay<B> + Send + Sync + 'static,
{
    type Output = Result<Response<ResBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let renewal = match state.as_mut().project() {
                StateProj::Untouched { future } => return future.poll(cx).map_err(Into::into),
                StateProj::Sent { future, sent } => {
                    let response = ready!(future.poll(cx)).map_err(Into::into)?;
                    match sent.take() {
                        Some(sent) => match sent.answered(response)? {
                            Answer::Done(response) => return Poll::Ready(Ok(response)),
                            Answer::Renew(future) => future,
                        },
                        None => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Waiting { future } => return future.as_mut().poll(cx),
                StateProj::Failed { error } => {
                    let Some(error) = error.take() else {
                        unreachable!("polled after it was ready")
                    };
                    return Poll::Ready(Err(error));
                }
            };
            state.set(State::Waiting { future: renewal });
        }
    }
}

enum Answer<Res> {
    Done(Res),
    Renew(Pin<Box<dyn Future<Output = Result<Res, BoxError>> + Send>>),
}

impl<S, B, R, ResBody> Sent<S, B, R>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Send + 'static,
    ResBody: Send + 'static,
    R: Replay<B> + Send + Sync + 'static,
{
    fn answered(
        self,
        mut response: Response<ResBody>,
    ) -> Result<Answer<Response<ResBody>>, BoxError> {
        let budget = self.stack.read(&mut response, &self.token, Budget::FULL)?;
        let again = budget.and(self.spare).map(Spare::into_request);
        Ok(match (budget, again) {
            (Some(budget), Some(again)) if self.stack.is_whole(&again) => {
                let wish = Wish::better_than(self.token, response, budget);
                Answer::Renew(Box::pin(self.stack.fetch_and_send(
                    self.service,
                    again,
                    wish,
                )))
            }
            (Some(_), _) => {
                event::not_sent_again(Cause::Token);
                Answer::Done(response)
            }
            (None, _) => Answer::Done(response),
        })
    }
}

/// What the next send of a request needs.
struct Wish<Res> {
    ask: Ask,
    /// The answer that refused the last token. It is kept until there is a better one: without a new token,
    /// it is what the server has to say.
    refused: Option<Res>,
    budget: Budget,
}

impl<Res> Wish<Res> {
    /// After an answer that refused `token`.
    fn better_than(token: AccessToken, refused: Res, budget: Budget) -> Self {
        Self {
            ask: Ask {
                but: Some(token),
                since: None,
            },
            refused: Some(refused),
            budget,
        }
    }
}

impl<R> Stack<R> {
    /// The rare way: waits for a token and sends; if the answer refuses that token, once more, as far as the
    /// budget goes.
    async fn fetch_and_send<S, B, ResBody>(
        self,
        mut service: S,
        mut request: Request<B>,
        mut wish: Wish<Response<ResBody>>,
    ) -> Result<Response<ResBody>, BoxError>
    where
        S: Service<Request<B>, Response = Response<ResBody>>,
        S::Error: Into<BoxError>,
        R: Replay<B>,
    {
        loop {
            let token = match (self.cache.wait(&wish.ask).await, wish.refused) {
                (Ok(token), None) => token,
                (Ok(token), Some(_)) if self.replay.take_over(request.body_mut()) => {
                    event::sent_again(Cause::Token);
                    token
                }
                (Ok(_), Some(response)) => {
                    event::not_sent_again(Cause::Token);
                    return Ok(response);
                }
                (Err(_), Some(response)) => return Ok(response),
                (Err(error), None) => return Err(error.into()),
            };
            let spare = Spare::new(&self.replay, &request, request.extensions().clone());
            let handle = token.for_request(self.cache.issuer(), &self.dpop_below, wish.budget);
            request.extensions_mut().insert(handle);
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            let mut response = service.call(request).await.map_err(Into::into)?;
            let budget = self.read(&mut response, &token, wish.budget)?;
            match (budget, budget.and(spare).map(Spare::into_request)) {
                (Some(budget), Some(again)) if self.is_whole(&again) => {
                    request = again;
                    wish = Wish::better_than(token, response, budget);
                }
                (Some(_), _) => {
                    event::not_sent_again(Cause::Token);
                    return Ok(response);
                }
                (None, _) => return Ok(response),
            }
        }
    }

    /// Reads an answer to a request that was sent with `token`. What is left of the budget, if it refuses the
    /// token and may be answered by another send.
    fn read<ResBody>(
        &self,
        response: &mut Response<ResBody>,
        token: &AccessToken,
        budget: Budget,
    ) -> Result<Option<Budget>, BoxError> {
        self.check_order()?;
        let left = response.extensions_mut().remove::<Left>();
        // RFC 6750, section 3.1 and RFC 9449, section 7.1. A 403 asks for other rights, not for another token.
        if !challenge::refuses(response, "invalid_token") {
            return Ok(None);
        }
        self.cache.refuse(token);
        let Left(mut budget) = left.unwrap_or(Left(budget));
        let again = budget.corrections > 0;
        budget.corrections = 0;
        Ok(again.then_some(budget))
    }

    /// Whether a spare request could be sent now: nobody is to wait for a token in vain.
    fn is_whole<B>(&self, spare: &Request<B>) -> bool
    where
        R: Replay<B>,
    {
        self.replay.replay(spare).is_some()
    }

    /// Without a `Dpop` below, the request went out with no token, and its answer means nothing.
    fn check_order(&self) -> Result<(), BoxError> {
        if self.dpop_below.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(
            Kind::LayerOrder,
            "the request was signed by no `DpopLayer`, since none stands below the `TokenLayer`: \
             `ServiceBuilder::new().layer(tokens).layer(dpop).service(client)`",
        )
        .into())
    }
}

impl<S, B, R> fmt::Debug for ResponseFuture<S, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("token::ResponseFuture")
            .finish_non_exhaustive()
    }
}
