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

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::TokenLayer;
use crate::{
    access_token::AccessToken,
    challenge,
    error::{BoxError, Error, Kind},
    replay::{Replay, spare},
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
    stack: Stack<S, R>,
    token: AccessToken,
    spare: Option<Request<B>>,
}

/// The service below, not ready, and what the layer knows.
struct Stack<S, R> {
    service: S,
    layer: TokenLayer<R>,
    dpop_below: Arc<AtomicBool>,
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
        layer: TokenLayer<R>,
        dpop_below: &Arc<AtomicBool>,
        token: AccessToken,
        mut request: Request<B>,
    ) -> Self
    where
        S: Clone,
        R: Replay<B>,
    {
        let spare = spare(layer.replay_policy(), &request);
        request
            .extensions_mut()
            .insert(token.for_request(dpop_below));
        let future = service.call(request);
        let stack = Stack {
            service: service.clone(),
            layer,
            dpop_below: Arc::clone(dpop_below),
        };
        Self {
            state: State::Sent {
                future,
                sent: Some(Sent {
                    stack,
                    token,
                    spare,
                }),
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
    pub(super) fn later(
        service: S,
        layer: TokenLayer<R>,
        dpop_below: &Arc<AtomicBool>,
        request: Request<B>,
    ) -> Self {
        let stack = Stack {
            service,
            layer,
            dpop_below: Arc::clone(dpop_below),
        };
        Self {
            state: State::Waiting {
                future: Box::pin(stack.fetch_and_send(request, None)),
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
    fn answered(self, response: Response<ResBody>) -> Result<Answer<Response<ResBody>>, BoxError> {
        self.stack.check_order()?;
        if !refuses_token(&response) {
            return Ok(Answer::Done(response));
        }
        self.stack.layer.forget(&self.token);
        Ok(match self.spare {
            Some(again) => {
                Answer::Renew(Box::pin(self.stack.fetch_and_send(again, Some(response))))
            }
            None => Answer::Done(response),
        })
    }
}

impl<S, R> Stack<S, R> {
    /// The rare way: waits for a token and sends; if the answer refuses that token and none was refused
    /// before, once more. `refused` is the answer that refused the last token. It is kept until there is a
    /// better one: without a new token, it is what the server has to say.
    async fn fetch_and_send<B, ResBody>(
        mut self,
        mut request: Request<B>,
        mut refused: Option<Response<ResBody>>,
    ) -> Result<Response<ResBody>, BoxError>
    where
        S: Service<Request<B>, Response = Response<ResBody>>,
        S::Error: Into<BoxError>,
        R: Replay<B>,
    {
        loop {
            let token = match (self.layer.token().await, refused.take()) {
                (Ok(token), None) => token,
                (Ok(token), Some(response)) => {
                    drop(response);
                    return self.send(request, &token).await;
                }
                (Err(_), Some(response)) => return Ok(response),
                (Err(error), None) => return Err(error.into()),
            };
            let spare = spare(self.layer.replay_policy(), &request);
            let response = self.send(request, &token).await?;
            match spare {
                Some(again) if refuses_token(&response) => {
                    request = again;
                    refused = Some(response);
                }
                _ => return Ok(response),
            }
        }
    }

    async fn send<B, ResBody>(
        &mut self,
        mut request: Request<B>,
        token: &AccessToken,
    ) -> Result<Response<ResBody>, BoxError>
    where
        S: Service<Request<B>, Response = Response<ResBody>>,
        S::Error: Into<BoxError>,
    {
        request
            .extensions_mut()
            .insert(token.for_request(&self.dpop_below));
        poll_fn(|cx| self.service.poll_ready(cx))
            .await
            .map_err(Into::into)?;
        let response = self.service.call(request).await.map_err(Into::into)?;
        self.check_order()?;
        if refuses_token(&response) {
            self.layer.forget(token);
        }
        Ok(response)
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

/// RFC 6750, section 3.1 and RFC 9449, section 7.1. A 403 asks for other rights, not for another token.
fn refuses_token<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED
        && challenge::has_error(response.headers(), "invalid_token")
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
