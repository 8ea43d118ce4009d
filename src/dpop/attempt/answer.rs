//! What an answer means: what is learned of it, and whether the request is sent once more.

use http::{Response, StatusCode};
use tokio::time::Instant;

use super::{Attempt, Verdict};
use crate::{
    budget::Left,
    challenge,
    clock::Refused,
    event::{self, Cause},
    nonce::{Nonce, Offer, Role, Taken},
    replay::Replay,
};

impl<S, B, R: Replay<B>> Attempt<S, B, R> {
    /// Learns from an answer. Whether to send once more, and with which nonce.
    pub(in crate::dpop) fn answered<ResBody>(
        &mut self,
        response: &mut Response<ResBody>,
    ) -> Verdict {
        let offered = Nonce::offered(response.headers());
        let status = response.status();
        let progress = offered.is_some() && offered.as_ref() != self.sent.nonce();
        let offer = match status.is_success() && !progress {
            true => Offer::Again,
            false => Offer::ToAll,
        };
        if self.plan.role() == Role::AuthorizationServer {
            // Its challenges stand in the JSON body: whoever reads that answers them, and with a client
            // authentication of its own. What is taken for one here and is none costs one more at the most.
            if status.is_client_error() && progress {
                self.outdated();
            }
            if let Some(offered) = &offered {
                self.prover().learn(&self.plan, offered, offer);
            }
            let challenge = status == StatusCode::BAD_REQUEST && progress;
            self.sending.answered(status, challenge);
            let sent = self.sent_proof();
            response.extensions_mut().insert(sent);
            return Verdict::Done;
        }
        let refused = refused(response);
        if self.is_guess && (refused.is_some() || status.is_success()) {
            self.is_guess = false;
            let good = refused.is_none();
            self.prover().judge_time(self.plan.origin(), good);
        }
        let verdict = if is_refused(response, "use_dpop_nonce") {
            event::nonce_challenge(self.plan.origin(), self.plan.role());
            self.outdated();
            self.challenged(offered)
        } else if let Some(what) = refused {
            self.refused(response, what, offered)
        } else {
            if let Some(offered) = &offered {
                self.prover().learn(&self.plan, offered, offer);
            }
            Verdict::Done
        };
        let done = matches!(verdict, Verdict::Done);
        self.sending.answered(status, !done);
        if done && self.budget != self.plan.budget() {
            response.extensions_mut().insert(Left(self.budget));
        }
        verdict
    }

    /// The server asks for another nonce than the one that was sent.
    fn outdated(&self) {
        if let Some(sent) = &self.sent.nonce {
            self.prover().outdated(&self.plan, sent);
        }
    }

    /// The server asks for a nonce. It is worth another send if it is not the one that was sent.
    fn challenged(&mut self, offered: Option<Nonce>) -> Verdict {
        let Some(offered) = offered else {
            return Verdict::Done;
        };
        let progress = self.sent.nonce() != Some(&offered);
        let again = progress && self.budget.nonces > 0 && self.take_over(Cause::Nonce);
        if !again {
            self.prover().learn(&self.plan, &offered, Offer::ToAll);
            return Verdict::Done;
        }
        // Who challenges a second time gives each nonce once, and another request took the one that was
        // learned from the first challenge. The second nonce is for this request alone.
        if !self.challenged {
            self.prover().learn(&self.plan, &offered, Offer::ToOne);
        }
        self.challenged = true;
        self.budget.nonces -= 1;
        Verdict::Again {
            nonce: Some(fresh(offered)),
            cause: Cause::Nonce,
        }
    }

    /// The server refuses the proof, or does not say what. It is worth another send if our clock was the reason.
    fn refused<ResBody>(
        &mut self,
        response: &Response<ResBody>,
        what: Refused,
        offered: Option<Nonce>,
    ) -> Verdict {
        let sent = self.sent_proof();
        let (origin, headers) = (self.plan.origin(), response.headers());
        // What cannot be tried is not guessed.
        let may_again = self.budget.corrections > 0 && self.spare.is_some();
        let wrong_time = (what == Refused::Proof || may_again)
            && self.prover().learn_time(origin, headers, what, &sent);
        let again = wrong_time && may_again && self.take_over(Cause::Clock);
        if wrong_time && !again && what == Refused::Something {
            self.prover().judge_time(self.plan.origin(), false);
        }
        match &offered {
            Some(offered) => {
                let offer = if again { Offer::ToOne } else { Offer::ToAll };
                self.prover().learn(&self.plan, offered, offer);
            }
            // Servers exist that refuse every nonce once they have stopped to ask for one. If that was not the
            // reason, the next request costs one more challenge.
            None if sent.nonce.is_some() && !wrong_time && what == Refused::Proof => {
                self.prover().forget(&self.plan, sent.at.steady);
            }
            None => {}
        }
        if !again {
            return Verdict::Done;
        }
        self.is_guess = what == Refused::Something;
        self.budget.corrections -= 1;
        Verdict::Again {
            nonce: offered.map(fresh).or_else(|| self.sent.nonce.clone()),
            cause: Cause::Clock,
        }
    }
}

/// A nonce that came with an answer, for the request that was answered.
fn fresh(nonce: Nonce) -> Taken {
    Taken {
        nonce,
        learned: Instant::now(),
    }
}

/// What an answer refuses that our clock may be the reason for.
fn refused<B>(response: &Response<B>) -> Option<Refused> {
    if is_refused(response, "invalid_dpop_proof") {
        return Some(Refused::Proof);
    }
    challenge::gives_no_reason(response).then_some(Refused::Something)
}

/// RFC 9449, section 9 says 401; servers exist that say 400.
fn is_refused<B>(response: &Response<B>, error: &str) -> bool {
    challenge::refuses(response, error)
        || response.status() == StatusCode::BAD_REQUEST
            && challenge::has_error(response.headers(), error)
}
