use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::timeout;
use tower_service::Service;

use super::{
    AuthorizationRequest, DeviceAuthorization, Introspection, PendingAuthorization, Registration,
    ask::{Answer, Ask, Asker, Question, Repeatable},
    endpoints::Endpoint,
    form::Form,
};
use crate::{
    access_token::AccessToken,
    dpop::{DpopLayer, Prover},
    error::{BoxError, Error, Kind},
    json::text,
    replay::NoReplay,
    token::TokenParameters,
};

/// For one request with all it needs: waiting for the client to be ready, connecting, nonce retries, the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A registered client at work: what it asks an authorization server beside tokens. See the
/// [module documentation](crate::oauth) for an example.
///
/// Its requests go through the given [`DpopLayer`], so they have proofs of its key, and share the nonces and what is
/// known of the servers' clocks. A cheap handle: clones are the same client.
#[derive(Clone)]
pub struct OAuthClient {
    inner: Arc<Inner>,
}

struct Inner {
    server: Box<dyn Ask>,
    registration: Registration,
    prover: Arc<Prover>,
}

impl OAuthClient {
    /// A client that asks by `client`, which is best the plain HTTP client: it must not follow redirects, since
    /// the requests hold the client's credentials.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] and [`Error::is_insecure_http`] if a value of `registration` cannot be used.
    pub fn new<C, ResBody, R>(
        dpop: &DpopLayer<R>,
        client: C,
        registration: Registration,
    ) -> Result<Self, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Into<BoxError>,
        ResBody: Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<BoxError>,
        R: Clone,
    {
        let dpop = dpop.clone().replay(NoReplay);
        let prover = Arc::clone(dpop.prover());
        registration.check(&prover)?;
        let inner = Inner {
            server: Box::new(Asker::new(dpop, client)),
            registration,
            prover,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Begins an authorization (RFC 6749, section 4.1.1): the URL for the user's browser, with the key's thumbprint in
    /// `dpop_jkt` (RFC 9449, section 10). If the server's metadata require it, the request is
    /// [pushed](Self::push).
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] and [`Error::is_insecure_http`] if a value of the request cannot be used, or the server is
    /// known by its token endpoint only; [`Error::is_metadata`] if it says that it does not know PKCE with S256;
    /// [`Error::is_algorithm`] if it does not know that of the key; those of [`push`](Self::push) where the request is
    /// pushed, and of [`Discovery::metadata`](super::Discovery::metadata).
    pub async fn authorize(
        &self,
        request: AuthorizationRequest,
    ) -> Result<PendingAuthorization, Error> {
        let metadata = self.inner.registration.endpoints().metadata().await?;
        if metadata.require_pushed_authorization_requests() {
            return self.push(request).await;
        }
        let key = &self.inner.prover.key;
        metadata.check_algorithm(key.algorithm(), key.algorithms())?;
        request.begin(&metadata, self.client_id(), &self.inner.prover)
    }

    /// Begins an authorization by a pushed authorization request (RFC 9126): the server is told all by the client
    /// itself, which authenticates and proves its key; the URL for the user's browser holds nothing but a reference.
    ///
    /// # Errors
    ///
    /// Those of [`authorize`](Self::authorize); [`Error::is_config`] if the server has no endpoint for it, too;
    /// [`Error::is_token_request`] if the server refuses ([`Error::oauth_error`]), or does not answer as it should.
    pub async fn push(&self, request: AuthorizationRequest) -> Result<PendingAuthorization, Error> {
        let metadata = self.inner.registration.endpoints().metadata().await?;
        let mut pending = request.begin(&metadata, self.client_id(), &self.inner.prover)?;
        let answer = self
            .ask(Endpoint::PushedAuthorizationRequest, &pending.pushed_form())
            .await?;
        let members = answer.members()?;
        let request_uri = text(&members, "request_uri").filter(|uri| !uri.is_empty());
        let request_uri = request_uri.ok_or_else(|| {
            Error::new(
                Kind::BadResponse,
                "the answer to the pushed authorization request has no `request_uri` (RFC 9126, section 2.2)",
            )
        })?;
        pending.was_pushed(self.client_id(), &request_uri);
        Ok(pending)
    }

    /// Begins an authorization on another device (RFC 8628): what to show to the user, and the grant that is waited
    /// for. Of `parameters` it takes scope, resource and audience.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if a parameter cannot be used, or the server has no endpoint for it;
    /// [`Error::is_token_request`] if the server refuses ([`Error::oauth_error`]), or does not answer as it should.
    pub async fn device_authorization(
        &self,
        parameters: &TokenParameters,
    ) -> Result<DeviceAuthorization, Error> {
        parameters.check()?;
        let mut form = Form::new();
        for (name, value) in parameters.pairs() {
            form = form.with(name.to_owned(), value);
        }
        let answer = self.ask(Endpoint::DeviceAuthorization, &form).await?;
        let server = self.inner.registration.endpoints().name();
        let of = (server, self.client_id());
        DeviceAuthorization::read(&answer.members()?, of, form.get("scope"))
    }

    /// Tells the server that an access token is of no use any more (RFC 7009). The
    /// [`TokenLayer`](crate::TokenLayer) is not told: see [`forget_tokens`](crate::TokenLayer::forget_tokens).
    ///
    /// # Errors
    ///
    /// [`Error::is_other_key`] if the token is bound to another key than that of this client: it is not sent, since it
    /// may be another server's. [`Error::is_config`] if the server has no endpoint for it;
    /// [`Error::is_token_request`] if the server refuses ([`Error::oauth_error`]), or does not answer as it should. A
    /// token that it does not know is no error.
    pub async fn revoke_access_token(&self, token: &AccessToken) -> Result<(), Error> {
        self.check_ours(token)?;
        self.revoke(token.secret(), "access_token").await
    }

    /// Tells the server that a refresh token is of no use any more, and with it the access tokens that came from it
    /// (RFC 7009): a logout.
    ///
    /// # Errors
    ///
    /// Those of [`revoke_access_token`](Self::revoke_access_token), but for the first: of which key or server a refresh
    /// token is cannot be seen.
    ///
    /// # Security
    ///
    /// So it goes to this client's server, whosever it is. [`StoredGrant`](crate::StoredGrant) knows where it belongs.
    pub async fn revoke_refresh_token(&self, refresh_token: &str) -> Result<(), Error> {
        self.revoke(refresh_token, "refresh_token").await
    }

    async fn revoke(&self, token: &str, hint: &str) -> Result<(), Error> {
        let form = Form::new()
            .with("token", token)
            .with("token_type_hint", hint);
        let answer = self.ask(Endpoint::Revocation, &form).await?;
        answer.accepted()
    }

    /// What the server knows of an access token (RFC 7662).
    ///
    /// # Errors
    ///
    /// [`Error::is_other_key`] if the token is bound to another key than that of this client, and then it is not sent; or
    /// if the server says that it is bound to another (RFC 9449, section 6.2); [`Error::is_config`] if the server has no
    /// endpoint for it; [`Error::is_token_request`] if the server refuses ([`Error::oauth_error`]), or does not answer as
    /// it should. A token that is not good is no error: [`Introspection::is_active`].
    pub async fn introspect(&self, token: &AccessToken) -> Result<Introspection, Error> {
        self.check_ours(token)?;
        let form = Form::new()
            .with("token", token.secret())
            .with("token_type_hint", "access_token");
        let answer = self.ask(Endpoint::Introspection, &form).await?;
        Introspection::read(&answer.members()?, token.key())
    }

    /// A key for each authorization server: a token of another key may be another server's.
    fn check_ours(&self, token: &AccessToken) -> Result<(), Error> {
        if token.key() == &self.inner.prover.key {
            return Ok(());
        }
        Err(Error::new(
            Kind::OtherKey,
            "the access token is bound to another key than that of this client, so it may be another server's, and was \
             not sent to this one",
        ))
    }

    fn client_id(&self) -> &str {
        self.inner.registration.client_id()
    }

    async fn ask(&self, endpoint: Endpoint, form: &Form) -> Result<Answer, Error> {
        let question = Question {
            registration: &self.inner.registration,
            endpoint,
            form,
            prover: &self.inner.prover,
        };
        let mut repeatable = Repeatable;
        let asking = self.inner.server.ask(question, &mut repeatable);
        let answer = timeout(TIMEOUT, asking).await;
        answer.unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            let message = format!("the {endpoint} gave no answer within {seconds} s");
            Err(Error::new(Kind::Timeout, message))
        })
    }
}

impl fmt::Debug for OAuthClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthClient")
            .field("registration", &self.inner.registration)
            .finish_non_exhaustive()
    }
}
