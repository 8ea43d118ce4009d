use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response, Uri, response::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tower_service::Service;

use super::{
    TokenRequest,
    cache::Fetched,
    response::{self, TokenResponse},
};
use crate::{
    access_token::{AccessToken, ToAuthorizationServer},
    audience::Audience,
    challenge,
    dpop::{Dpop, DpopLayer, MAX_NONCE_RETRIES, SentNonce},
    error::{BoxError, Error, Kind},
    nonce::Nonce,
    origin::Origin,
    replay::NoReplay,
};

/// The largest answers in the field hold a few signed tokens; this is room for ten times that.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

type FetchFuture = Pin<Box<dyn Future<Output = Result<Fetched, Error>> + Send>>;

/// The user's client, whatever its type.
pub(super) trait FetchToken: Send + Sync {
    fn fetch(&self) -> FetchFuture;
}

/// Asks an authorization server for a token, through a client that is wrapped in the stack's own `Dpop`:
/// a token request without a proof cannot be written.
pub(super) struct TokenClient<C> {
    /// Locked to be cloned: a client need not be `Sync`.
    service: Mutex<Dpop<C, NoReplay>>,
    exchange: Arc<Exchange>,
}

/// All that a fetch needs to know.
struct Exchange {
    request: TokenRequest,
    endpoint: Uri,
    origin: Origin,
    authorization_server: ToAuthorizationServer,
    dpop: DpopLayer<NoReplay>,
    audience: Audience,
}

impl<C> TokenClient<C> {
    /// Checks all that can be checked before the first request.
    pub(super) fn new(
        dpop: DpopLayer<NoReplay>,
        client: C,
        request: TokenRequest,
        audience: Audience,
    ) -> Result<Self, Error> {
        let (endpoint, target) = request.check()?;
        dpop.check_secure(target.origin(), target.is_secure())?;
        if let Some(origin) = audience.first_insecure() {
            dpop.check_secure(origin.as_str(), false)?;
        }
        let origin = target.to_origin();
        let authorization_server = ToAuthorizationServer::new(Audience::origins([&origin])?);
        let service = Mutex::new(Dpop::new(client, dpop.clone()));
        let exchange = Arc::new(Exchange {
            request,
            endpoint,
            origin,
            authorization_server,
            dpop,
            audience,
        });
        Ok(Self { service, exchange })
    }
}

impl<C, ResBody> FetchToken for TokenClient<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    fn fetch(&self) -> FetchFuture {
        let service = self
            .service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let exchange = Arc::clone(&self.exchange);
        Box::pin(async move { exchange.run(service).await })
    }
}

impl Exchange {
    async fn run<C, ResBody>(&self, mut service: Dpop<C, NoReplay>) -> Result<Fetched, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone,
        C::Error: Into<BoxError>,
        ResBody: Body,
        ResBody::Error: Into<BoxError>,
    {
        let mut retries = 0;
        loop {
            let mut request = self.request.build(&self.endpoint);
            request
                .extensions_mut()
                .insert(self.authorization_server.clone());
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(not_sent)?;
            let response = service.call(request).await.map_err(not_sent)?;

            let (head, body) = response.into_parts();
            let body = read(body).await?;
            let sent = head
                .extensions
                .get()
                .and_then(|SentNonce(sent)| sent.as_ref());
            let offered = Nonce::offered(&head.headers);
            let progress = offered.is_some() && offered.as_ref() != sent;
            if progress && retries < MAX_NONCE_RETRIES && asks_for_nonce(&head, &body) {
                retries += 1;
                continue;
            }
            let answer =
                response::parse(head.status, &head.headers, &body, &self.request.secrets());
            if let (Some(sent), None, Err(error)) = (sent, offered, &answer)
                && error
                    .oauth_error()
                    .is_some_and(|error| error.code() == "invalid_dpop_proof")
            {
                // As at a resource server: it may have stopped to give nonces.
                self.dpop
                    .forget_authorization_servers(self.origin.as_str(), sent);
            }
            return self.fetched(&answer?);
        }
    }

    fn fetched(&self, answer: &TokenResponse) -> Result<Fetched, Error> {
        let token = AccessToken::new(&answer.access_token, self.dpop.key(), self.audience.clone());
        // No header can carry it, or it is bound to another key: the server's mistake, not the program's.
        let token = token.map_err(|error| Error::new(Kind::BadResponse, error.to_string()))?;
        Ok(Fetched {
            token,
            life: answer.life,
        })
    }
}

/// The challenge stands in the body (RFC 9449, section 8); servers exist that write it as an API would.
fn asks_for_nonce(head: &Parts, body: &[u8]) -> bool {
    response::asks_for_nonce(head.status, body)
        || head.status.is_client_error() && challenge::has_error(&head.headers, "use_dpop_nonce")
}

/// Ours stay what they are; the client's become the reason why there is no token.
fn not_sent(error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(source) => Error::with_source(
            Kind::Transport,
            "the token request could not be sent, or was not answered: is the authorization server up, and \
             the token endpoint's URL right?",
            source,
        ),
    }
}

async fn read<B>(body: B) -> Result<Bytes, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let body = std::pin::pin!(Limited::new(body, MAX_ANSWER_BYTES));
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::new(
            Kind::BadResponse,
            format!(
                "the token endpoint's answer is longer than {} KiB",
                MAX_ANSWER_BYTES / 1024
            ),
        )),
        Err(source) => Err(Error::with_source(
            Kind::Transport,
            "the token endpoint's answer broke off",
            source,
        )),
    }
}
