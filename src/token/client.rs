use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut as _, Bytes};
use http::{Request, Response, StatusCode, Uri, response::Parts};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use tokio::time::timeout;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    TokenParameters, TokenRequest,
    cache::{Fetching, no_answer_within},
    refresh::{RefreshToken, STORE_TIMEOUT},
    response::{self, Failure, TokenResponse},
    state::Fetched,
};
use crate::{
    access_token::{AccessToken, ToAuthorizationServer},
    audience::Audience,
    budget::Budget,
    challenge, clock,
    dpop::{Dpop, DpopLayer, Prover, SentProof},
    error::{BoxError, Error, Kind, never_left},
    event::{self, Cause},
    nonce::{Nonce, Role},
    origin::Origin,
    replay::NoReplay,
};

/// The largest answers in the field hold a few signed tokens; this is room for ten times that.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// The life of a token whose answer does not tell it: short enough not to be wrong for long, long enough
/// not to ask all the time.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// The user's client, whatever its type.
pub(super) trait FetchToken: Send + Sync {
    fn fetch(self: Arc<Self>, parameters: TokenParameters) -> Fetching;
}

/// Asks an authorization server for a token, through a client that is wrapped in the stack's own `Dpop`:
/// a token request without a proof cannot be written.
pub(super) struct TokenClient<C> {
    /// Locked to be cloned: a client need not be `Sync`.
    service: Mutex<Dpop<C, NoReplay>>,
    exchange: Exchange,
}

/// All that a fetch needs to know.
struct Exchange {
    request: TokenRequest,
    endpoint: Uri,
    origin: Origin,
    authorization_server: ToAuthorizationServer,
    prover: Arc<Prover>,
    audience: Audience,
    /// Not only locked but held while it is on its way: it is used once at a time, whatever is asked for.
    refresh: Option<tokio::sync::Mutex<RefreshToken>>,
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
        let prover = Arc::clone(dpop.prover());
        prover.check_secure(target.origin(), target.is_secure())?;
        if let Some(origin) = audience.first_insecure() {
            prover.check_secure(origin.as_str(), false)?;
        }
        let origin = target.to_origin();
        let authorization_server = ToAuthorizationServer::new(Audience::origins([&origin])?);
        let service = Mutex::new(Dpop::new(client, dpop));
        let refresh = request.refresh().map(tokio::sync::Mutex::new);
        let exchange = Exchange {
            request,
            endpoint,
            origin,
            authorization_server,
            prover,
            audience,
            refresh,
        };
        Ok(Self { service, exchange })
    }

    /// For the whole of a fetch. With a refresh token there is room for waiting until it is free, for storing
    /// one that was left over, and the one that comes.
    pub(super) fn time_limit(&self) -> Duration {
        let limit = self.exchange.request.time_limit();
        match self.exchange.refresh {
            Some(_) => limit * 2 + STORE_TIMEOUT * 2,
            None => limit,
        }
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
    fn fetch(self: Arc<Self>, parameters: TokenParameters) -> Fetching {
        Box::pin(async move {
            // In the task, where a panic of the client's `clone` hurts no caller.
            let service = self.service.lock();
            let service = service.unwrap_or_else(PoisonError::into_inner).clone();
            self.exchange.run(service, &parameters).await
        })
    }
}

impl Exchange {
    async fn run<C, ResBody>(
        &self,
        service: Dpop<C, NoReplay>,
        parameters: &TokenParameters,
    ) -> Result<Fetched, Failure>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone,
        C::Error: Into<BoxError>,
        ResBody: Body,
        ResBody::Error: Into<BoxError>,
    {
        let Some(refresh) = &self.refresh else {
            let answer = self.ask(service, parameters, None).await?;
            return self.fetched(&answer);
        };
        let limit = self.request.time_limit();
        // Not for ever: once it is sent, there must be time to wait for the answer. Whoever gives that up loses
        // the next refresh token with it.
        let refresh = timeout(limit, refresh.lock()).await;
        let mut refresh = refresh.map_err(|_| in_use(limit))?;
        // If the last time it could not be.
        let stored = self.store(&mut refresh).await;
        let held = Zeroizing::new(refresh.value().to_owned());
        let answer = timeout(limit, self.ask(service, parameters, Some(&mut refresh))).await;
        // Not once more what could not be a moment ago.
        if stored || refresh.value() != *held {
            self.store(&mut refresh).await;
        }
        match answer.unwrap_or_else(|_| Err(no_answer_within(limit).into())) {
            Ok(answer) => self.fetched(&answer),
            Err(failure) => Err(Failure {
                error: refresh.failed(failure.error),
                ..failure
            }),
        }
    }

    /// Asks until there is an answer that is about the token.
    async fn ask<C, ResBody>(
        &self,
        mut service: Dpop<C, NoReplay>,
        parameters: &TokenParameters,
        mut refresh: Option<&mut RefreshToken>,
    ) -> Result<TokenResponse, Failure>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone,
        C::Error: Into<BoxError>,
        ResBody: Body,
        ResBody::Error: Into<BoxError>,
    {
        let mut budget = Budget::FULL;
        loop {
            let token = refresh.as_deref().map(RefreshToken::value);
            let mut request = self.request.build(&self.endpoint, parameters, token);
            let secrets = self.request.secrets(token);
            request
                .extensions_mut()
                .insert(self.authorization_server.clone());
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(not_sent)?;
            if let Some(refresh) = &mut refresh {
                refresh.begin()?;
            }
            let response = match service.call(request).await {
                Ok(response) => response,
                Err(error) => {
                    if let Some(refresh) = &mut refresh
                        && never_left(&*error)
                    {
                        refresh.kept();
                    }
                    return Err(not_sent(error).into());
                }
            };

            let (head, body) = response.into_parts();
            // The status says it: whatever becomes of the body.
            if let Some(refresh) = &mut refresh
                && !is_doubtful(head.status)
            {
                refresh.kept();
            }
            let body = read(body).await?;
            if let Some(refresh) = &mut refresh
                && let Some(new) = response::refresh_token(head.status, &body)
            {
                refresh.answered(new);
            }
            let offered = Nonce::offered(&head.headers);
            let sent = head.extensions.get::<SentProof>();
            let progress =
                offered.is_some() && offered.as_ref() != sent.and_then(|sent| sent.nonce.as_ref());
            let challenge = asks_for_nonce(&head, &body);
            if challenge {
                event::nonce_challenge(self.origin.as_str(), Role::AuthorizationServer);
            }
            if challenge && progress && budget.nonces > 0 {
                event::sent_again(Cause::Nonce);
                budget.nonces -= 1;
                continue;
            }
            if response::refuses_proof(head.status, &body)
                && let Some(sent) = sent
            {
                if self
                    .prover
                    .learn_time(self.origin.as_str(), &head.headers, sent)
                {
                    if budget.corrections > 0 {
                        event::sent_again(Cause::Clock);
                        budget.corrections -= 1;
                        continue;
                    }
                } else if let (None, Some(nonce)) = (&offered, &sent.nonce) {
                    // As at a resource server: it may have stopped to give nonces.
                    self.prover
                        .forget_authorization_servers(self.origin.as_str(), nonce);
                }
            }
            let answer = response::parse(head.status, &head.headers, &body, &secrets);
            return answer.map_err(|error| Failure {
                error,
                retry_after: clock::retry_after(&head.headers, self.prover.now().wall),
            });
        }
    }

    /// Whether nothing is left to be stored. What cannot be is used all the same.
    async fn store(&self, refresh: &mut RefreshToken) -> bool {
        let Err(error) = refresh.store().await else {
            return true;
        };
        // Who could not write it may say what.
        let secrets = self.request.secrets(Some(refresh.value()));
        event::refresh_token_not_stored(&response::clean(&error.to_string(), &secrets));
        false
    }

    fn fetched(&self, answer: &TokenResponse) -> Result<Fetched, Failure> {
        let token = AccessToken::new(
            &answer.access_token,
            &self.prover.key,
            self.audience.clone(),
        );
        // No header can carry it, or it is bound to another key: the server's mistake, not the program's.
        let token = token.map_err(|error| Error::new(Kind::BadResponse, error.to_string()))?;
        let life = answer.life.unwrap_or_else(|| {
            event::expires_in_unusable(DEFAULT_LIFE);
            DEFAULT_LIFE
        });
        Ok(Fetched { token, life })
    }
}

fn in_use(limit: Duration) -> Error {
    Error::new(
        Kind::Timeout,
        format!(
            "no access token: the refresh token was in use for other access tokens for {} s",
            limit.as_secs_f64()
        ),
    )
}

/// The server may have used the refresh token up, though this answer does not say so: something between may
/// have lost its own. An answer that the server made for a failure of its own counts as none of these: most undo
/// what they began, and every hiccup would else cost the grant.
fn is_doubtful(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
        )
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

async fn read<B>(body: B) -> Result<Zeroizing<Vec<u8>>, Error>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(Limited::new(body, MAX_ANSWER_BYTES));
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        parts.extend(frame.map_err(unread)?.into_data());
    }
    // All the room from the start: a vector that grows leaves copies of tokens behind.
    let length = parts.iter().map(Buf::remaining).sum();
    let mut read = Zeroizing::new(Vec::with_capacity(length));
    for part in parts {
        read.put(part);
    }
    Ok(read)
}

fn unread(error: BoxError) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::new(
            Kind::BadResponse,
            format!(
                "the token endpoint's answer is longer than {} KiB",
                MAX_ANSWER_BYTES / 1024
            ),
        );
    }
    Error::with_source(
        Kind::Transport,
        "the token endpoint's answer broke off",
        error,
    )
}
