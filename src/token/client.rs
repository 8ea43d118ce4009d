use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tokio::time::{Instant, sleep_until, timeout};
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    TokenParameters, TokenRequest,
    cache::no_answer_within,
    grant::Uses,
    held::{Held, Next},
    keeper::{LOCK_TIMEOUT, Lease, STORE_TIMEOUT},
    response::{self, Failure, TokenResponse},
    state::Fetched,
};
use crate::{
    access_token::AccessToken,
    audience::Audience,
    dpop::{DpopLayer, Prover},
    error::{BoxError, Error, Kind},
    event,
    oauth::{
        Endpoint,
        answer::clean,
        ask::{Ask, Asker, Fate, Question, Repeatable},
        form::{Form, all_forms},
    },
    replay::NoReplay,
};

/// The life of a token whose answer does not tell it: short enough not to be wrong for long, long enough
/// not to ask all the time.
const DEFAULT_LIFE: Duration = Duration::from_secs(300);

/// How often an authorization server is asked within a fetch for other reasons than its nonces: the grant after a
/// refresh token, once more for parameters of a request's own, and one to spare. Polling does not count.
const MAX_ROUNDS: u32 = 3;

/// How often a fetch reads or writes a store, or waits to, beside the one long wait for its lock: before and after each
/// of the requests.
const MAX_STORE_USES: u32 = 6;

/// A token, and when it was asked for.
struct Got {
    answer: TokenResponse,
    asked: Instant,
}

/// Asks an authorization server for tokens.
pub(super) struct TokenClient {
    server: Box<dyn Ask>,
    request: TokenRequest,
    prover: Arc<Prover>,
    audience: Audience,
    /// Not only locked but held while it is on its way: it is used once at a time, whatever is asked for.
    held: Option<tokio::sync::Mutex<Held>>,
}

impl TokenClient {
    /// Checks all that can be checked before the first request.
    pub(super) fn new<C, ResBody>(
        dpop: DpopLayer<NoReplay>,
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
        let prover = Arc::clone(dpop.prover());
        request.check(&prover)?;
        if let Some(origin) = audience.first_insecure() {
            prover.check_secure(origin)?;
        }
        let held = request.held(&prover).map(tokio::sync::Mutex::new);
        Ok(Self {
            server: Box::new(Asker::new(dpop, client)),
            request,
            prover,
            audience,
            held,
        })
    }

    /// For the whole of a fetch. With a grant that is used once at a time there is room for waiting until it is free,
    /// for storing what was left over, and what comes.
    pub(super) fn time_limit(&self) -> Duration {
        let limit = self.request.time_limit();
        if self.held.is_none() {
            return limit;
        }
        let polled = self.polled();
        let store = match self.request.has_store() {
            true => LOCK_TIMEOUT + STORE_TIMEOUT * MAX_STORE_USES,
            false => Duration::ZERO,
        };
        limit * (1 + MAX_ROUNDS) + polled + store
    }

    /// How long a user has from now on to decide.
    fn polled(&self) -> Duration {
        match self.request.grant().uses() {
            Uses::Polled { end, .. } => end.saturating_duration_since(Instant::now()),
            Uses::Always | Uses::Again | Uses::Once => Duration::ZERO,
        }
    }

    pub(super) async fn fetch(
        self: Arc<Self>,
        parameters: TokenParameters,
    ) -> Result<Fetched, Failure> {
        let got = match &self.held {
            // A refresh token is for what the layer asks for; what can be asked for anew needs none.
            Some(held) if !self.request.grant().is_repeatable() || parameters.is_empty() => {
                self.with_held(held, &parameters).await?
            }
            _ => {
                let asking = async {
                    let form = self.request.grant().form().await?;
                    self.ask(form, &parameters, &mut Repeatable).await
                };
                self.limited(asking).await?
            }
        };
        self.fetched(&got)
    }

    async fn with_held(
        &self,
        held: &tokio::sync::Mutex<Held>,
        parameters: &TokenParameters,
    ) -> Result<Got, Failure> {
        // While the user decides, all wait.
        let limit = self.request.time_limit() + self.polled();
        // Not for ever: once it is sent, there must be time to wait for the answer. Whoever gives that up loses
        // the next refresh token with it.
        let held = timeout(limit, held.lock()).await;
        let mut held = held.map_err(|_| in_use(limit))?;
        let mut lease = match held.refresh_token() {
            Some(_) => self.lease(&mut held).await?,
            // What is asked for by the grant itself is nobody else's, and a user may take an hour to decide: that
            // keeps nobody from the store.
            None => None,
        };
        // If the last time it could not be.
        let stored = self.save(&mut held, lease.is_some()).await;
        let before = held.refresh_token().map(str::to_owned).map(Zeroizing::new);
        let got = self.exchange(&mut held, &mut lease, parameters).await;
        // Not once more what could not be a moment ago.
        if stored || held.refresh_token() != before.as_ref().map(|token| token.as_str()) {
            self.save(&mut held, lease.is_some()).await;
        }
        got.map_err(|failure| Failure {
            error: held.failed(failure.error),
            ..failure
        })
    }

    /// Asks by what is held, until there is a token or no way to one.
    async fn exchange(
        &self,
        held: &mut Held,
        lease: &mut Option<Lease>,
        parameters: &TokenParameters,
    ) -> Result<Got, Failure> {
        let nothing_else = TokenParameters::new();
        let mut rounds = 0;
        loop {
            rounds += 1;
            if let Some(pause) = held.pause() {
                sleep_until(pause).await;
            }
            // What is good once gives what it was granted for. Who wants something else is served by the refresh
            // token that comes with it.
            let first = held.is_unused() && !parameters.is_empty();
            let asked = if first { &nothing_else } else { parameters };
            let asking = async {
                let form = held.form().await?;
                self.ask(form, asked, held).await
            };
            let failure = match self.limited(asking).await {
                Ok(_) if first && held.refresh_token().is_some() => {
                    // The grant is spent: this is all there is of it, whatever becomes of the next request. Once it is
                    // stored it is everybody's who has the store.
                    self.save(held, lease.is_some()).await;
                    *lease = self.lease(held).await?;
                    continue;
                }
                Ok(got) => return Ok(got),
                Err(failure) => failure,
            };
            match held.next(&failure.error, failure.retry_after) {
                Next::Poll => rounds = 0,
                Next::Again if rounds < MAX_ROUNDS => {}
                Next::Again | Next::Fail => {
                    // A store without a lock may hold what another process got meanwhile.
                    if rounds < MAX_ROUNDS && failure.is("invalid_grant") && held.adopt().await? {
                        continue;
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// One token request, with the time that it may take.
    async fn limited(
        &self,
        asking: impl Future<Output = Result<Got, Failure>>,
    ) -> Result<Got, Failure> {
        let limit = self.request.time_limit();
        let got = timeout(limit, asking).await;
        got.unwrap_or_else(|_| Err(no_answer_within(limit).into()))
    }

    async fn ask(
        &self,
        grant: Form,
        parameters: &TokenParameters,
        fate: &mut dyn Fate,
    ) -> Result<Got, Failure> {
        let asked = Instant::now();
        let question = Question {
            registration: self.request.registration(),
            endpoint: Endpoint::Token,
            form: &self.request.form(grant, parameters),
            prover: &self.prover,
        };
        let answer = self.server.ask(question, fate).await?;
        let (status, headers) = (answer.head.status, &answer.head.headers);
        match response::parse(status, headers, &answer.body, &answer.secrets) {
            Ok(answer) => Ok(Got { answer, asked }),
            Err(error) => Err(Failure {
                error,
                retry_after: answer.retry_after(&self.prover),
            }),
        }
    }

    /// Locks the store, and takes from it what another process may have put there.
    async fn lease(&self, held: &mut Held) -> Result<Option<Lease>, Error> {
        let Some(keeper) = held.keeper() else {
            return Ok(None);
        };
        let lease = keeper.lock().await?;
        held.adopt().await?;
        Ok(Some(lease))
    }

    /// Whether nothing is left to be stored. What cannot be is used all the same.
    async fn save(&self, held: &mut Held, locked: bool) -> bool {
        let Err(error) = held.save(locked).await else {
            return true;
        };
        // Who could not write it may say what.
        let token = held.refresh_token().map(str::to_owned);
        let secrets = all_forms(token.map(Zeroizing::new).into_iter());
        event::refresh_token_not_stored(&clean(&error.to_string(), &secrets));
        false
    }

    fn fetched(&self, Got { answer, asked }: &Got) -> Result<Fetched, Failure> {
        let token = AccessToken::answered(
            &answer.access_token,
            &self.prover.key,
            self.audience.clone(),
            answer.further.clone(),
        );
        // No header can carry it, or it is bound to another key: the server's mistake, not the program's.
        let token = token.map_err(|error| Error::new(Kind::BadResponse, error.to_string()))?;
        let life = answer.life.unwrap_or_else(|| {
            event::expires_in_unusable(DEFAULT_LIFE);
            DEFAULT_LIFE
        });
        Ok(Fetched {
            token,
            life,
            asked: Some(*asked),
        })
    }
}

fn in_use(limit: Duration) -> Error {
    Error::new(
        Kind::Timeout,
        format!(
            "no access token: the grant was in use for other access tokens for {} s",
            limit.as_secs_f64()
        ),
    )
}
