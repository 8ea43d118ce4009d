use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{ResponseFuture, TokenLayer, future::Stack};
use crate::{
    error::BoxError,
    replay::{CloneBody, Replay},
};

/// Gives requests an access token on their way to `S`. See the [module documentation](crate::token) for an
/// example.
///
/// # Errors
///
/// The error of `S` unchanged, or an [`Error`](crate::Error): there is no token
/// ([`is_token_request`](crate::Error::is_token_request)), the request's URI names no server
/// ([`is_missing_origin`](crate::Error::is_missing_origin)), a resource in its
/// [`TokenParameters`](crate::TokenParameters) is none ([`is_config`](crate::Error::is_config)), the token
/// request could not be signed ([`is_sign`](crate::Error::is_sign)), or no [`Dpop`](crate::Dpop) stands below
/// ([`is_layer_order`](crate::Error::is_layer_order)): this shows in the answer to a request, which went out
/// without a token. Readiness is that of `S`: a token's failure never
/// shows in `poll_ready`.
#[derive(Clone)]
pub struct Token<S, R = CloneBody> {
    inner: S,
    layer: TokenLayer<R>,
    /// Whether a `Dpop` was seen below: set by the first that a request of ours passes through.
    dpop_below: Arc<AtomicBool>,
}

impl<S, R> Token<S, R> {
    /// `inner`, with the tokens of `layer`.
    pub fn new(inner: S, layer: TokenLayer<R>) -> Self {
        Self {
            inner,
            layer,
            dpop_below: Arc::default(),
        }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// Gives back what the ready service holds, such as a permit or a place in a buffer.
    fn give_back(&mut self)
    where
        S: Clone,
    {
        self.inner = self.inner.clone();
    }
}

impl<S, R, ReqBody, ResBody> Service<Request<ReqBody>> for Token<S, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: Send + 'static,
    R: Replay<ReqBody> + Clone + Send + Sync + 'static,
{
    type Response = Response<ResBody>;
    type Error = BoxError;
    type Future = ResponseFuture<S, ReqBody, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.layer.serves(&request) {
            Ok(true) => {}
            Ok(false) => return ResponseFuture::untouched(self.inner.call(request)),
            Err(error) => {
                self.give_back();
                return ResponseFuture::failed(error.into());
            }
        }
        let (cache, ask) = match self.layer.take_wish(&mut request) {
            Ok(wish) => wish,
            Err(error) => {
                self.give_back();
                return ResponseFuture::failed(error.into());
            }
        };
        let stack = Stack {
            cache,
            replay: self.layer.replay_policy().clone(),
            dpop_below: Arc::clone(&self.dpop_below),
        };
        // Whoever insists on a new token has to wait.
        let token = match ask.since {
            None => stack.cache.get(),
            Some(_) => None,
        };
        match token {
            Some(token) => ResponseFuture::now(&mut self.inner, stack, token, request),
            None => {
                // Waiting would hold what the ready service holds: if the token request needs the same,
                // neither would ever end.
                self.give_back();
                ResponseFuture::later(self.inner.clone(), stack, ask, request)
            }
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for Token<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}
