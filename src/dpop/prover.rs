//! What signs requests, and what it has learned of the servers: the part of the layer that knows no bodies.

use std::{sync::Arc, time::SystemTime};

use http::{HeaderMap, Request, header::AUTHORIZATION};
use tokio::time::Instant;

use super::{
    SentProof,
    plan::{Plan, Signer},
};
use crate::{
    access_token::{AccessToken, ToAuthorizationServer},
    clock::{Clock, Now, Refused, unix},
    error::{Error, Kind},
    key::DpopKey,
    nonce::{Nonce, NonceStore, Offer, Role, Taken},
    oauth::PlainHttp,
    origin::{Origin, Target},
    proof::{DPOP, Proof},
};

/// Clones share nonces and clocks.
#[derive(Clone)]
pub(crate) struct Prover {
    /// Of requests to an authorization server, and of new tokens.
    pub(crate) key: DpopKey,
    pub(crate) clock: Arc<Clock>,
    /// Of requests whose URI is a path only.
    pub(crate) origin: Option<Origin>,
    pub(super) allow_plain_http: bool,
    nonces: Arc<NonceStore>,
}

impl Prover {
    pub(super) fn new(key: DpopKey) -> Self {
        Self {
            key,
            clock: Arc::default(),
            origin: None,
            allow_plain_http: false,
            nonces: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// The date of a proof that is sent now.
    pub(super) fn date(&self, plan: &Plan, now: Now) -> SystemTime {
        self.clock.at(plan.origin(), now)
    }

    /// Learns the time of a server that refused a proof. Whether that was wrong enough to be the reason.
    pub(crate) fn learn_time(
        &self,
        origin: &str,
        headers: &HeaderMap,
        refused: Refused,
        sent: &SentProof,
    ) -> bool {
        let SentProof {
            at,
            dated,
            round_trip,
            ..
        } = *sent;
        let clock = &self.clock;
        clock.learn(origin, headers, refused, at, dated, round_trip)
    }

    pub(crate) fn plain_http(&self) -> PlainHttp {
        match self.allow_plain_http {
            true => PlainHttp::Anywhere,
            false => PlainHttp::Loopback,
        }
    }

    pub(crate) fn check_secure(&self, origin: &Origin) -> Result<(), Error> {
        if self.allow_plain_http || origin.is_secure() {
            return Ok(());
        }
        Err(Error::new(
            Kind::InsecureHttp,
            format!(
                "refused to send credentials in clear to `{origin}`: use https (plain http is for loopback \
                 hosts)"
            ),
        ))
    }

    /// Who signs this request, and for whom; none if it is none of ours.
    pub(super) fn plan<B>(&self, request: &mut Request<B>) -> Result<Option<Plan>, Error> {
        let extensions = request.extensions_mut();
        // The mark counts more than a token that came along: what an authorization server is sent has none.
        let mark = extensions.remove::<ToAuthorizationServer>();
        if mark.is_some() {
            extensions.remove::<AccessToken>();
        }
        let audience = match (&mark, request.extensions().get::<AccessToken>()) {
            (Some(mark), _) => mark.audience(),
            (None, Some(token)) => {
                token.passes_dpop();
                token.audience()
            }
            (None, None) => return Ok(None),
        };
        let Some(target) = Target::of_any(request.uri(), self.origin.as_ref())? else {
            return Ok(None);
        };
        let Some(origin) = audience.find(&target) else {
            return Ok(None);
        };
        let signer = match request.extensions_mut().get_mut::<AccessToken>() {
            Some(token) => {
                token.sign_once()?;
                Signer::Token(token.clone())
            }
            None => Signer::Key(self.key.clone()),
        };
        self.check_secure(&origin)?;
        origin.canonicalize(request);
        Ok(Some(Plan { origin, signer }))
    }

    /// Writes a fresh proof, and the token if there is one, in place of whatever stood there.
    pub(super) fn stamp<B>(
        &self,
        request: &mut Request<B>,
        plan: &Plan,
        nonce: Option<&Nonce>,
        dated: SystemTime,
    ) -> Result<(), Error> {
        let (key, token) = (plan.key(), plan.token());
        let ath = token.map(AccessToken::ath);
        let nonce = nonce.map(Nonce::as_str);
        let target = plan.origin.target(request.uri());
        let proof = Proof::for_target(request.method(), target, ath, nonce);
        let proof = proof.header(key, unix(dated))?;
        if let Some(token) = token {
            let authorization = token.authorization().clone();
            request.headers_mut().insert(AUTHORIZATION, authorization);
            // One that is sent again may have none.
            if request.extensions().get::<AccessToken>().is_none() {
                request.extensions_mut().insert(token.clone());
            }
        }
        request.headers_mut().insert(DPOP, proof);
        Ok(())
    }

    pub(super) fn take_nonce(&self, plan: &Plan) -> Option<Taken> {
        self.nonces
            .take(plan.key().thumbprint(), plan.origin(), plan.role())
    }

    pub(super) fn learn(&self, plan: &Plan, nonce: &Nonce, offer: Offer) {
        let (key, role) = (plan.key().thumbprint(), plan.role());
        self.nonces.learn(key, &plan.origin, role, nonce, offer);
    }

    /// The server asked for another nonce than this.
    pub(super) fn outdated(&self, plan: &Plan, taken: &Taken) {
        let (key, role) = (plan.key().thumbprint(), plan.role());
        self.nonces.outdated(key, plan.origin(), role, taken);
    }

    /// Forgets the server's nonces, unless there is one that was learned since then.
    pub(super) fn forget(&self, plan: &Plan, then: Instant) {
        let key = plan.key().thumbprint();
        self.nonces.forget(key, plan.origin(), plan.role(), then);
    }

    /// The same for whoever reads the authorization server's answers.
    pub(crate) fn forget_authorization_servers(&self, origin: &str, then: Instant) {
        let key = self.key.thumbprint();
        self.nonces
            .forget(key, origin, Role::AuthorizationServer, then);
    }

    /// Whether the clock that was learned from an answer without a reason made the next one a good one.
    pub(crate) fn judge_time(&self, origin: &str, good: bool) {
        self.clock.judge_guess(origin, good);
    }
}
