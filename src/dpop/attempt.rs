//! What is known of a request between its sendings, and what its answers mean.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Extensions, Request, Response, StatusCode};
use tower_service::Service;

use super::{DpopLayer, ResponseBody, plan::Plan, prover::Prover};
use crate::{
    access_token::AccessToken,
    budget::{Budget, Left},
    challenge,
    clock::Now,
    error::{BoxError, Error},
    event::{self, Cause, Sending},
    nonce::{Nonce, Role},
    replay::{Replay, Spare},
};

/// What it takes to send the request once more.
pub(super) struct Attempt<S, B, R> {
    pub(super) service: S,
    layer: DpopLayer<R>,
    plan: Plan,
    spare: Option<Spare<B>>,
    sent: Sent,
    budget: Budget,
    challenged: bool,
    pub(super) sending: Sending,
}

/// What is to be known of a proof when its answer comes.
struct Sent {
    nonce: Option<Nonce>,
    at: Now,
    /// By the server's clock, as far as it was known.
    dated: SystemTime,
}

pub(super) enum Verdict {
    Done,
    Again { nonce: Option<Nonce>, cause: Cause },
}

impl<S, B, R: Replay<B>> Attempt<S, B, R> {
    /// Learns from an answer. Whether to send once more, and with which nonce.
    pub(super) fn answered<ResBody>(&mut self, response: &mut Response<ResBody>) -> Verdict {
        let offered = Nonce::offered(response.headers());
        if self.plan.role() == Role::AuthorizationServer {
            // Its challenges stand in the JSON body: whoever reads that answers them, and with a client
            // authentication of its own.
            if let Some(offered) = &offered {
                self.prover().learn(&self.plan, offered);
            }
            let challenge = response.status() == StatusCode::BAD_REQUEST
                && offered.is_some()
                && offered != self.sent.nonce;
            self.sending.answered(response.status(), challenge);
            let sent = self.sent_proof();
            response.extensions_mut().insert(sent);
            return Verdict::Done;
        }
        let verdict = if is_refused(response, "use_dpop_nonce") {
            event::nonce_challenge(self.plan.origin(), self.plan.role());
            self.challenged(offered)
        } else {
            if let Some(offered) = &offered {
                self.prover().learn(&self.plan, offered);
            }
            match is_refused(response, "invalid_dpop_proof") {
                true => self.refused(response, offered),
                false => Verdict::Done,
            }
        };
        let done = matches!(verdict, Verdict::Done);
        self.sending.answered(response.status(), !done);
        if done && self.budget != self.plan.budget() {
            response.extensions_mut().insert(Left(self.budget));
        }
        verdict
    }

    /// The server asks for a nonce. It is worth another send if it is not the one that was sent.
    fn challenged(&mut self, offered: Option<Nonce>) -> Verdict {
        let Some(offered) = offered else {
            return Verdict::Done;
        };
        let progress = self.sent.nonce.as_ref() != Some(&offered);
        let again = progress && self.budget.nonces > 0 && self.take_over(Cause::Nonce);
        // Who challenges a second time gives each nonce once, and another request took the one that was
        // learned from the first challenge. The second nonce is for this request alone.
        if !(again && self.challenged) {
            self.prover().learn(&self.plan, &offered);
        }
        if !again {
            return Verdict::Done;
        }
        self.challenged = true;
        self.budget.nonces -= 1;
        Verdict::Again {
            nonce: Some(offered),
            cause: Cause::Nonce,
        }
    }

    /// The server refuses the proof. It is worth another send if our clock was the reason.
    fn refused<ResBody>(
        &mut self,
        response: &Response<ResBody>,
        offered: Option<Nonce>,
    ) -> Verdict {
        let sent = self.sent_proof();
        let (origin, headers) = (self.plan.origin(), response.headers());
        if self.prover().learn_time(origin, headers, &sent) {
            if self.budget.corrections == 0 || !self.take_over(Cause::Clock) {
                return Verdict::Done;
            }
            self.budget.corrections -= 1;
            return Verdict::Again {
                nonce: offered.or(sent.nonce),
                cause: Cause::Clock,
            };
        }
        // Servers exist that refuse every nonce once they have stopped to ask for one. If that was not the
        // reason, the next request costs one more challenge.
        if let (None, Some(nonce)) = (offered, &sent.nonce) {
            self.prover().forget(&self.plan, nonce);
        }
        Verdict::Done
    }

    /// Whether the request can be sent again; the body that was sent is read no more then.
    fn take_over(&mut self, cause: Cause) -> bool {
        let policy = self.layer.replay_policy();
        let spare = self.spare.as_mut();
        let again = spare.is_some_and(|spare| policy.take_over(spare.body_mut()));
        if !again {
            event::not_sent_again(cause);
        }
        again
    }

    /// The answer that the caller gets.
    pub(super) fn done<ResBody>(
        self,
        response: Response<ResBody>,
    ) -> Response<ResponseBody<ResBody>> {
        ResponseBody::learning(response, Arc::clone(self.layer.prover()), self.plan)
    }

    fn prover(&self) -> &Prover {
        self.layer.prover()
    }

    fn sent_proof(&self) -> SentProof {
        SentProof {
            nonce: self.sent.nonce.clone(),
            at: self.sent.at,
            dated: self.sent.dated,
            round_trip: self.sent.at.steady.elapsed(),
        }
    }
}

impl<S, B, R> Attempt<S, B, R>
where
    S: Service<Request<B>>,
    R: Replay<B>,
{
    /// The first sending, on `service`, which is ready.
    pub(super) fn begin(
        service: &mut S,
        layer: DpopLayer<R>,
        plan: Plan,
        request: Request<B>,
    ) -> Result<(S::Future, Self), Error>
    where
        S: Clone,
    {
        let spare = spare(layer.replay_policy(), &request);
        let prover = layer.prover();
        let nonce = prover.last_nonce(&plan);
        let budget = plan.budget();
        let outcome = send(service, prover, &plan, request, nonce, budget);
        // For later; and if nothing was sent, what the ready one holds is given back by its drop.
        let later = service.clone();
        let (future, sent, sending) = match outcome {
            Ok(sent) => sent,
            Err(error) => {
                *service = later;
                return Err(error);
            }
        };
        let attempt = Self {
            service: later,
            layer,
            plan,
            spare,
            sent,
            budget,
            challenged: false,
            sending,
        };
        Ok((future, attempt))
    }

    /// Sends the spare request on the service, which is ready.
    pub(super) fn send_again(
        &mut self,
        nonce: Option<Nonce>,
        cause: Cause,
    ) -> Result<S::Future, BoxError> {
        let Some(spare) = self.spare.take() else {
            unreachable!("`answered` saw the spare request")
        };
        let request = spare.into_request();
        if self.budget.nonces > 0 || self.budget.corrections > 0 {
            self.spare = self::spare(self.layer.replay_policy(), &request);
        }
        let (prover, plan) = (self.layer.prover(), &self.plan);
        let (future, sent, sending) =
            send(&mut self.service, prover, plan, request, nonce, self.budget)?;
        event::sent_again(cause);
        (self.sent, self.sending) = (sent, sending);
        Ok(future)
    }
}

/// Sends a request with a fresh proof on `service`, which is ready.
fn send<S, B>(
    service: &mut S,
    prover: &Prover,
    plan: &Plan,
    mut request: Request<B>,
    nonce: Option<Nonce>,
    budget: Budget,
) -> Result<(S::Future, Sent, Sending), Error>
where
    S: Service<Request<B>>,
{
    let at = prover.now();
    let dated = prover.date(plan, at);
    prover.stamp(&mut request, plan, nonce.as_ref(), dated)?;
    event::proof_made(plan.role());
    let sending = Sending::new(request.method(), plan.origin(), budget.spent());
    let future = sending.within(|| service.call(request));
    Ok((future, Sent { nonce, at, dated }, sending))
}

/// The extensions are most often nothing but the token, which the plan has, too.
fn spare<B>(policy: &impl Replay<B>, request: &Request<B>) -> Option<Spare<B>> {
    let extensions = request.extensions();
    let tokens = usize::from(extensions.get::<AccessToken>().is_some());
    let extensions = match extensions.len() > tokens {
        true => extensions.clone(),
        false => Extensions::new(),
    };
    Spare::new(policy, request, extensions)
}

/// RFC 9449, section 9 says 401; servers exist that say 400.
fn is_refused<B>(response: &Response<B>, error: &str) -> bool {
    challenge::refuses(response, error)
        || response.status() == StatusCode::BAD_REQUEST
            && challenge::has_error(response.headers(), error)
}

/// In the extensions of an authorization server's answer: what is to be known of the request's proof.
#[derive(Debug, Clone)]
pub(crate) struct SentProof {
    pub(crate) nonce: Option<Nonce>,
    pub(crate) at: Now,
    pub(crate) dated: SystemTime,
    pub(crate) round_trip: Duration,
}
