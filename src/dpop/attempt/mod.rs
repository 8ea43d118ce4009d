//! What is known of a request between its sendings.

mod answer;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Extensions, Request, Response};
use tower_service::Service;

use super::{DpopLayer, ResponseBody, plan::Plan, prover::Prover};
use crate::{
    access_token::AccessToken,
    budget::Budget,
    clock::Now,
    error::{BoxError, Error},
    event::{self, Cause, Sending},
    nonce::{Nonce, Taken},
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
    /// The clock was corrected for an answer that gave no reason. The next one tells whether that was it.
    is_guess: bool,
    pub(super) sending: Sending,
}

/// What is to be known of a proof when its answer comes.
struct Sent {
    nonce: Option<Taken>,
    at: Now,
    /// By the server's clock, as far as it was known.
    dated: SystemTime,
}

impl Sent {
    fn nonce(&self) -> Option<&Nonce> {
        self.nonce.as_ref().map(|taken| &taken.nonce)
    }
}

pub(super) enum Verdict {
    Done,
    Again { nonce: Option<Taken>, cause: Cause },
}

impl<S, B, R: Replay<B>> Attempt<S, B, R> {
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
            nonce: self.sent.nonce().cloned(),
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
        let nonce = prover.take_nonce(&plan);
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
            is_guess: false,
            sending,
        };
        Ok((future, attempt))
    }

    /// Sends the spare request on the service, which is ready.
    pub(super) fn send_again(
        &mut self,
        nonce: Option<Taken>,
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
    nonce: Option<Taken>,
    budget: Budget,
) -> Result<(S::Future, Sent, Sending), Error>
where
    S: Service<Request<B>>,
{
    let at = prover.now();
    let dated = prover.date(plan, at);
    let stamped = nonce.as_ref().map(|taken| &taken.nonce);
    prover.stamp(&mut request, plan, stamped, dated)?;
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

/// In the extensions of an authorization server's answer: what is to be known of the request's proof.
#[derive(Debug, Clone)]
pub(crate) struct SentProof {
    pub(crate) nonce: Option<Nonce>,
    pub(crate) at: Now,
    pub(crate) dated: SystemTime,
    pub(crate) round_trip: Duration,
}
