use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    Token, TokenRequest,
    cache::Cache,
    client::{FetchToken, TokenClient},
};
use crate::{
    access_token::{AccessToken, ToAuthorizationServer},
    audience::Audience,
    dpop::DpopLayer,
    error::{BoxError, Error},
    origin::{Origin, Target},
    replay::{CloneBody, NoReplay},
};

/// Gives requests an access token. See the [module documentation](crate::token) for an example.
///
/// A cheap handle: clones, and the services made from them, share the token.
#[derive(Clone)]
pub struct TokenLayer<R = CloneBody> {
    client: Arc<dyn FetchToken>,
    cache: Cache,
    audience: Audience,
    origin: Option<Origin>,
    replay: R,
}

impl<R: Clone> TokenLayer<R> {
    /// A layer that gets tokens by `request` through `client`, bound to the key of `dpop`, for requests to
    /// `audience`. Nothing is sent before the first request that needs a token.
    ///
    /// Of `dpop` it takes the key, the nonces and the settings: the origin of path-only URIs, how bodies are
    /// made again, whether plain http is allowed. Set them before.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if a value of `request` cannot be used, and [`Error::is_insecure_http`] if the
    /// token endpoint or an origin of `audience` is plain http and not loopback.
    pub fn new<C, ResBody>(
        dpop: &DpopLayer<R>,
        client: C,
        request: TokenRequest,
        audience: Audience,
    ) -> Result<Self, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Into<BoxError>,
        ResBody: Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<BoxError>,
    {
        // A token request is made anew for each sending, never repeated.
        let for_client = dpop.clone().replay(NoReplay);
        let client = TokenClient::new(for_client, client, request, audience.clone())?;
        Ok(Self {
            client: Arc::new(client),
            cache: Cache::default(),
            audience,
            origin: dpop.default_origin().cloned(),
            replay: dpop.replay_policy().clone(),
        })
    }
}

impl<R> TokenLayer<R> {
    /// Whether a request is to have a token of ours.
    pub(super) fn serves<B>(&self, request: &Request<B>) -> Result<bool, Error> {
        if request
            .extensions()
            .get::<ToAuthorizationServer>()
            .is_some()
        {
            return Ok(false);
        }
        let Some(target) = Target::of_any(request.uri(), self.origin.as_ref())? else {
            return Ok(false);
        };
        // A token that the caller brought for this origin is the caller's choice, and the caller's to renew.
        let own = request.extensions().get::<AccessToken>();
        let own = own.is_some_and(|own| own.audience().allows(target.origin()));
        Ok(!own && self.audience.allows(target.origin()))
    }

    /// The token, if there is one to use now.
    pub(super) fn cached(&self) -> Option<AccessToken> {
        self.cache.get()
    }

    /// The token, fetched if there is none to use now.
    pub(super) async fn token(&self) -> Result<AccessToken, Error> {
        self.cache.get_or_fetch(|| self.client.fetch()).await
    }

    pub(super) fn forget(&self, token: &AccessToken) {
        self.cache.forget(token);
    }

    pub(super) fn replay_policy(&self) -> &R {
        &self.replay
    }
}

impl<S, R: Clone> Layer<S> for TokenLayer<R> {
    type Service = Token<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Token::new(inner, self.clone())
    }
}

impl<R> fmt::Debug for TokenLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLayer")
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
