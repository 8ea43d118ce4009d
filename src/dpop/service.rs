use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{DpopLayer, ResponseBody, ResponseFuture};
use crate::{
    error::BoxError,
    replay::{CloneBody, Replay},
};

/// Signs requests on their way to `S`. See the [module documentation](crate::dpop) for an example.
///
/// # Errors
///
/// The error of `S` unchanged, or an [`Error`](crate::Error): the request's URI names no server
/// ([`is_missing_origin`](crate::Error::is_missing_origin)), it is plain http
/// ([`is_insecure_http`](crate::Error::is_insecure_http)), another `Dpop` signed it already
/// ([`is_layer_order`](crate::Error::is_layer_order)), or no proof could be made
/// ([`is_sign`](crate::Error::is_sign)). Nothing was sent then.
#[derive(Clone)]
pub struct Dpop<S, R = CloneBody> {
    inner: S,
    layer: DpopLayer<R>,
}

impl<S, R> Dpop<S, R> {
    /// `inner`, with the proofs of `layer`.
    pub fn new(inner: S, layer: DpopLayer<R>) -> Self {
        Self { inner, layer }
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
}

impl<S, R, ReqBody, ResBody> Service<Request<ReqBody>> for Dpop<S, R>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
    R: Replay<ReqBody> + Clone,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = BoxError;
    type Future = ResponseFuture<S, ReqBody, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.layer.prover().plan(&mut request) {
            Ok(Some(plan)) => {
                ResponseFuture::signed(&mut self.inner, self.layer.clone(), plan, request)
            }
            Ok(None) => ResponseFuture::untouched(self.inner.call(request)),
            Err(error) => {
                // Gives back what the ready service holds, such as a permit: it is not used.
                self.inner = self.inner.clone();
                ResponseFuture::failed(error.into())
            }
        }
    }
}

impl<S: fmt::Debug, R> fmt::Debug for Dpop<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dpop")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}
