//! Asking an authorization server: a form to one of its endpoints, until there is an answer that is about what was
//! asked. Nonce challenges and refused proofs stand in the body, so they are read here (RFC 9449, section 8).

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
    response::Parts,
};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    answer,
    body::{self, Unread},
    endpoints::{Endpoint, Found},
    form::{Form, all_forms},
    registration::Registration,
};
use crate::{
    budget::Budget,
    challenge,
    clock::{self, Refused},
    dpop::{Dpop, DpopLayer, Prover, SentProof},
    error::{BoxError, Error, Kind, never_left},
    event::{self, Cause},
    json::Members,
    nonce::{Nonce, Role},
    replay::NoReplay,
};

/// The largest answers in the field hold a few signed tokens; this is room for ten times that.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What is asked.
pub(crate) struct Question<'a> {
    pub(crate) registration: &'a Registration,
    pub(crate) endpoint: Endpoint,
    pub(crate) form: &'a Form,
    pub(crate) prover: &'a Prover,
}

/// An answer that is about what was asked, whether it is a good one or not.
pub(crate) struct Answer {
    endpoint: Endpoint,
    pub(crate) head: Parts,
    pub(crate) body: Zeroizing<Vec<u8>>,
    /// Of the request, which the server might repeat in its texts.
    pub(crate) secrets: Vec<Zeroizing<String>>,
}

impl Answer {
    /// What a good one says.
    pub(crate) fn members(&self) -> Result<Members<'_>, Error> {
        let Parts {
            status, headers, ..
        } = &self.head;
        answer::members(self.endpoint, *status, headers, &self.body, &self.secrets)
    }

    /// For what a status alone is good news: whether it is.
    pub(crate) fn accepted(&self) -> Result<(), Error> {
        let Parts {
            status, headers, ..
        } = &self.head;
        if status.is_success() {
            return Ok(());
        }
        let (body, secrets) = (&self.body, &self.secrets);
        Err(answer::failure(
            self.endpoint,
            *status,
            headers,
            body,
            secrets,
        ))
    }

    /// How long the server wants to be left alone.
    pub(crate) fn retry_after(&self, prover: &Prover) -> Option<Duration> {
        clock::retry_after(&self.head.headers, prover.now().wall)
    }
}

/// Who has to know what becomes of a request that is good once.
pub(crate) trait Fate: Send {
    /// It is about to be sent.
    fn begin(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// It did not leave, or was not looked at.
    fn kept(&mut self) {}

    /// An answer is there, all of it.
    fn answered(&mut self, _status: StatusCode, _body: &[u8]) {}
}

/// Of a request that can be made any number of times.
pub(crate) struct Repeatable;

impl Fate for Repeatable {}

pub(crate) type Asking<'a> = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send + 'a>>;

/// The user's client, whatever its type, in the stack's own `Dpop`: a request without a proof cannot be written.
pub(crate) trait Ask: Send + Sync {
    fn ask<'a>(&'a self, question: Question<'a>, fate: &'a mut dyn Fate) -> Asking<'a>;
}

pub(crate) struct Asker<C> {
    /// Locked to be cloned: a client need not be `Sync`.
    service: Mutex<Dpop<C, NoReplay>>,
}

impl<C> Asker<C> {
    pub(crate) fn new(dpop: DpopLayer<NoReplay>, client: C) -> Self {
        let service = Mutex::new(Dpop::new(client, dpop));
        Self { service }
    }
}

impl<C, ResBody> Ask for Asker<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    fn ask<'a>(&'a self, question: Question<'a>, fate: &'a mut dyn Fate) -> Asking<'a> {
        Box::pin(async move {
            // In the task that asks, where a panic of the client's `clone` hurts nobody else.
            let service = self.service.lock();
            let service = service.unwrap_or_else(PoisonError::into_inner).clone();
            question.ask(service, fate).await
        })
    }
}

impl Question<'_> {
    async fn ask<C, ResBody>(
        &self,
        mut service: Dpop<C, NoReplay>,
        fate: &mut dyn Fate,
    ) -> Result<Answer, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone,
        C::Error: Into<BoxError>,
        ResBody: Body,
        ResBody::Error: Into<BoxError>,
    {
        let found = self.registration.find(self.endpoint, self.prover).await?;
        let origin = found.origin.as_str();
        let mut budget = Budget::FULL;
        // The clock was corrected for an answer that gave no reason. The next one tells whether that was it.
        let mut is_guess = false;
        loop {
            let Attempt {
                request,
                secrets,
                dated,
            } = self.request(&found).await?;
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(|error| not_sent(self.endpoint, error))?;
            fate.begin()?;
            let response = match service.call(request).await {
                Ok(response) => response,
                Err(error) => {
                    if never_left(&*error) {
                        fate.kept();
                    }
                    return Err(not_sent(self.endpoint, error));
                }
            };

            let (head, body) = response.into_parts();
            let status = head.status;
            // The status says it: whatever becomes of the body.
            if !is_doubtful(status) {
                fate.kept();
            }
            let body = body::read(body, MAX_ANSWER_BYTES).await;
            let body = body.map_err(|error| unread(self.endpoint, error))?;
            fate.answered(status, &body);
            let offered = Nonce::offered(&head.headers);
            let sent = head.extensions.get::<SentProof>();
            let progress =
                offered.is_some() && offered.as_ref() != sent.and_then(|sent| sent.nonce.as_ref());
            let challenge = asks_for_nonce(&head, &body);
            if challenge {
                event::nonce_challenge(origin, Role::AuthorizationServer);
            }
            if challenge && progress && budget.nonces > 0 {
                event::sent_again(Cause::Nonce);
                budget.nonces -= 1;
                continue;
            }
            let refused = refused(status, &body, dated);
            if is_guess && (refused.is_some() || status.is_success()) {
                self.prover.judge_time(origin, refused.is_none());
            } else if let (Some(refused), Some(sent)) = (refused, sent) {
                let may_again = budget.corrections > 0;
                let wrong_time = (refused == Refused::Proof || may_again)
                    && self.prover.learn_time(origin, &head.headers, refused, sent);
                if wrong_time && may_again {
                    event::sent_again(Cause::Clock);
                    budget.corrections -= 1;
                    is_guess = refused == Refused::Something;
                    continue;
                }
                // As at a resource server: it may have stopped to give nonces.
                let gave_none = offered.is_none() && sent.nonce.is_some();
                if refused == Refused::Proof && !wrong_time && gave_none {
                    let then = sent.at.steady;
                    self.prover.forget_authorization_servers(origin, then);
                }
            }
            return Ok(Answer {
                endpoint: self.endpoint,
                head,
                body,
                secrets,
            });
        }
    }

    /// Made anew for every attempt, and with it how the client shows who it is: servers refuse an assertion that they
    /// saw before.
    async fn request(&self, found: &Found) -> Result<Attempt, Error> {
        let credentials = self.registration.credentials(found, self.prover).await?;
        let mut form = self.form.clone();
        for (name, value) in &credentials.parameters {
            // A pushed authorization request names its client itself.
            if name != "client_id" || form.get(name).is_none() {
                form.push(name.clone(), value.clone());
            }
        }
        let body = Bytes::from_owner(form.encode());
        let secrets = all_forms(form.secrets().chain(credentials.hidden()));
        let dated = credentials.get("client_assertion").is_some();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = found.uri.clone();
        let headers = request.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(authorization) = credentials.authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        request.extensions_mut().insert(found.mark.clone());
        Ok(Attempt {
            request,
            secrets,
            dated,
        })
    }
}

struct Attempt {
    request: Request<Full<Bytes>>,
    /// What must not show in any error.
    secrets: Vec<Zeroizing<String>>,
    /// Whether the client shows who it is by something that tells a time, as the proof does.
    dated: bool,
}

/// What an answer refuses that our clock may be the reason for. A client that is refused for the time of its assertion
/// is told no more than that it was refused, if that.
fn refused(status: StatusCode, body: &[u8], dated: bool) -> Option<Refused> {
    if answer::refuses_proof(status, body) {
        return Some(Refused::Proof);
    }
    (dated && answer::refuses_client(status, body)).then_some(Refused::Something)
}

/// The server may have used up what was sent, though this answer does not say so: something between may
/// have lost its own. An answer that the server made for a failure of its own counts as none of these: most undo
/// what they began, and every hiccup would else cost the grant.
fn is_doubtful(status: StatusCode) -> bool {
    status.is_success()
        || matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
        // What edges say of an answer that broke off, was none, or never came (520, 524).
        || (520..600).contains(&status.as_u16())
}

/// The challenge stands in the body (RFC 9449, section 8); servers exist that write it as an API would.
fn asks_for_nonce(head: &Parts, body: &[u8]) -> bool {
    answer::asks_for_nonce(head.status, body)
        || head.status.is_client_error() && challenge::has_error(&head.headers, "use_dpop_nonce")
}

/// Ours stay what they are; the client's become the reason why there is no answer.
fn not_sent(endpoint: Endpoint, error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(source) => Error::with_source(
            Kind::Transport,
            format!(
                "the {} could not be sent, or was not answered: is the authorization server up, and the \
                 {endpoint}'s URL right?",
                endpoint.request()
            ),
            source,
        ),
    }
}

fn unread(endpoint: Endpoint, unread: Unread) -> Error {
    match unread {
        Unread::TooLong => {
            let limit = MAX_ANSWER_BYTES / 1024;
            let message = format!("the {endpoint}'s answer is longer than {limit} KiB");
            Error::new(Kind::BadResponse, message)
        }
        Unread::Broken(error) => {
            let message = format!("the {endpoint}'s answer broke off");
            Error::with_source(Kind::Transport, message, error)
        }
    }
}
