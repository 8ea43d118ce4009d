use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    ForceRenewal, Token, TokenParameters, TokenRequest, cache::Cache, client::TokenClient,
    partitions::Partitions, state::Ask,
};
use crate::{
    access_token::{AccessToken, ToAuthorizationServer},
    audience::Audience,
    clock::Clock,
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
    tokens: Arc<Tokens>,
    audience: Audience,
    origin: Option<Origin>,
    replay: R,
}

/// All tokens of a layer, and how more are had.
struct Tokens {
    partitions: Partitions,
    make: Make,
}

/// What a token's cache is made of.
struct Make {
    client: Arc<TokenClient>,
    clock: Arc<Clock>,
    timeout: Duration,
}

impl Make {
    fn cache(&self, parameters: &TokenParameters) -> Cache {
        let (client, parameters) = (Arc::clone(&self.client), parameters.clone());
        Cache::new(Arc::clone(&self.clock), self.timeout, move || {
            Box::pin(Arc::clone(&client).fetch(parameters.clone()))
        })
    }
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
    /// [`Error::is_config`] if a value of `request` cannot be used, or its grant is another client's or server's;
    /// [`Error::is_insecure_http`] if the token endpoint or an origin of `audience` is plain http and not loopback;
    /// [`Error::is_other_key`] if the grant is bound to another key than that of `dpop`; [`Error::is_algorithm`] if the
    /// metadata that were given do not name the key's algorithm.
    ///
    /// A grant that is good once is for one layer: of two that were made with the same one, the second one's request
    /// would look like theft. Clones of a layer share it.
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
        let make = Make {
            timeout: client.time_limit(),
            client: Arc::new(client),
            clock: Arc::clone(&dpop.prover().clock),
        };
        let tokens = Tokens {
            partitions: Partitions::new(make.cache(&TokenParameters::new())),
            make,
        };
        Ok(Self {
            tokens: Arc::new(tokens),
            audience,
            origin: dpop.prover().origin.clone(),
            replay: dpop.replay_policy().clone(),
        })
    }
}

impl<R> TokenLayer<R> {
    /// The token itself, fetched if there is none to use now: before the first request, so that it need not
    /// wait, or for uses that are no requests.
    ///
    /// # Errors
    ///
    /// [`Error::is_token_request`]: there is none, for the reason that a request would be told.
    /// [`Error::is_sign`]: the token request could not be signed. [`Error::is_config`], [`Error::is_insecure_http`] and
    /// [`Error::is_other_key`]: what was found at fault only now, in the server's metadata or in the store.
    pub async fn access_token(&self) -> Result<AccessToken, Error> {
        self.tokens.partitions.own().wait(&Ask::default()).await
    }

    /// The same for requests with these [`TokenParameters`].
    ///
    /// # Errors
    ///
    /// Those of [`access_token`](Self::access_token), and [`Error::is_config`] if a resource is none.
    pub async fn access_token_for(
        &self,
        parameters: &TokenParameters,
    ) -> Result<AccessToken, Error> {
        self.cache(Some(parameters))?.wait(&Ask::default()).await
    }

    /// Forgets all tokens. The next request fetches its token anew; one that waits for a token does so, too.
    ///
    /// The authorization server is not told: a token that somebody else has remains good until it ends.
    pub fn forget_tokens(&self) {
        self.tokens.partitions.forget_all();
    }

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
        let own = own.is_some_and(|own| own.audience().allows(&target));
        Ok(!own && self.audience.allows(&target))
    }

    /// The token for a request, taking along what the request asks for.
    pub(super) fn take_wish<B>(&self, request: &mut Request<B>) -> Result<(Cache, Ask), Error> {
        let parameters = request.extensions_mut().remove::<TokenParameters>();
        let renewal = request.extensions_mut().remove::<ForceRenewal>();
        let ask = Ask {
            but: None,
            since: renewal.map(ForceRenewal::since),
        };
        Ok((self.cache(parameters.as_ref())?, ask))
    }

    fn cache(&self, parameters: Option<&TokenParameters>) -> Result<Cache, Error> {
        parameters.map_or(Ok(()), TokenParameters::check)?;
        let make = |parameters: &TokenParameters| self.tokens.make.cache(parameters);
        Ok(self.tokens.partitions.get(parameters, make))
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
