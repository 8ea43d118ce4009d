use std::{fmt, sync::Arc, time::SystemTime};

use http::{HeaderMap, HeaderValue, Request, header::AUTHORIZATION};
use tower_layer::Layer;

use super::{Dpop, SentProof};
use crate::{
    AccessToken, ToAuthorizationServer,
    budget::Budget,
    clock::{Clock, Now, unix},
    error::{Error, Kind},
    key::DpopKey,
    nonce::{Nonce, NonceStore, Role},
    origin::{Origin, Target},
    proof::{DPOP, Proof},
    replay::CloneBody,
};

/// Adds a DPoP proof to requests. See the [module documentation](crate::dpop) for an example.
///
/// A cheap handle: clones, and the services made from them, share the key and the servers' nonces. Use one
/// for the API's stack and for the [`TokenLayer`](crate::TokenLayer).
#[derive(Clone)]
pub struct DpopLayer<R = CloneBody> {
    key: DpopKey,
    nonces: Arc<NonceStore>,
    clock: Arc<Clock>,
    origin: Option<Origin>,
    allow_plain_http: bool,
    replay: R,
}

impl DpopLayer {
    /// A layer that proves possession of `key`.
    #[must_use]
    pub fn new(key: DpopKey) -> Self {
        Self {
            key,
            nonces: Arc::default(),
            clock: Arc::default(),
            origin: None,
            allow_plain_http: false,
            replay: CloneBody,
        }
    }
}

impl<R> DpopLayer<R> {
    /// The server of requests whose URI is a path only, as tonic's and HTTP/1.1 connections' are: a proof
    /// names scheme, host and path (`htu`). Requests with a full URI keep their own.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// How a body is made a second time, to answer a nonce challenge or a rejected token: by [`CloneBody`]
    /// unless set. For bodies that cannot be cloned there are [`EmptyBody`](crate::EmptyBody) and
    /// [`NoReplay`](crate::NoReplay).
    #[must_use]
    pub fn replay<P>(self, policy: P) -> DpopLayer<P> {
        DpopLayer {
            key: self.key,
            nonces: self.nonces,
            clock: self.clock,
            origin: self.origin,
            allow_plain_http: self.allow_plain_http,
            replay: policy,
        }
    }

    /// The clock that dates proofs (`iat`), in place of the system's: for devices that have the time from
    /// elsewhere, and for tests. It is asked for each request, and must be quick. It also tells the
    /// [`TokenLayer`](crate::TokenLayer) whether a token has ended while the machine slept, and what a date in
    /// `Retry-After` means.
    ///
    /// A server whose clock differs is found out when it refuses a proof for that, by the `Date` of its answer,
    /// and proofs for it are dated by its clock from then on: a correction for this server alone, of 24 h at
    /// the most.
    #[must_use]
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(Clock::new(now));
        self
    }

    /// Lets tokens, client secrets and proofs travel in clear, to any host.
    ///
    /// # Security
    ///
    /// Whoever can listen reads the client secret and the access token, and can use a proof that he keeps
    /// from arriving. Loopback hosts need no permission; nothing else should have it (RFC 9449, section 2).
    #[must_use]
    pub fn danger_allow_plain_http(mut self) -> Self {
        self.allow_plain_http = true;
        self
    }

    /// The key that requests to an authorization server are signed with, and that new tokens are bound to.
    #[must_use]
    pub fn key(&self) -> &DpopKey {
        &self.key
    }

    pub(crate) fn replay_policy(&self) -> &R {
        &self.replay
    }

    pub(crate) fn default_origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    pub(crate) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// The date of a proof that is sent now.
    pub(super) fn date(&self, plan: &Plan, now: Now) -> SystemTime {
        self.clock.at(plan.target.origin(), now)
    }

    /// Learns the time of a server that refused a proof. Whether that was wrong enough to be the reason.
    pub(crate) fn learn_time(&self, origin: &str, headers: &HeaderMap, sent: &SentProof) -> bool {
        let clock = &self.clock;
        clock.learn(origin, headers, sent.at, sent.dated, sent.round_trip)
    }

    pub(crate) fn check_secure(&self, origin: &str, secure: bool) -> Result<(), Error> {
        if secure || self.allow_plain_http {
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
        // The mark counts more than a token that came along: what an authorization server is sent has none.
        let mark = request.extensions_mut().remove::<ToAuthorizationServer>();
        let (signer, audience) = match (mark, request.extensions().get::<AccessToken>()) {
            (Some(mark), _) => {
                request.extensions_mut().remove::<AccessToken>();
                (Signer::Key(self.key.clone()), mark.audience().clone())
            }
            (None, Some(token)) => {
                token.passes_dpop();
                (Signer::Token(token.clone()), token.audience().clone())
            }
            (None, None) => return Ok(None),
        };
        let Some(target) = Target::of_any(request.uri(), self.origin.as_ref())? else {
            return Ok(None);
        };
        if !audience.allows(target.origin()) {
            return Ok(None);
        }
        if let (Signer::Token(_), Some(token)) = (&signer, request.extensions_mut().get_mut()) {
            AccessToken::sign_once(token)?;
        }
        self.check_secure(target.origin(), target.is_secure())?;
        target.canonicalize(request);
        Ok(Some(Plan { target, signer }))
    }

    /// Writes a fresh proof, and the token if there is one, in place of whatever stood there.
    pub(super) fn stamp<B>(
        &self,
        request: &mut Request<B>,
        plan: &Plan,
        nonce: Option<&Nonce>,
        dated: SystemTime,
    ) -> Result<(), Error> {
        let (key, token) = (plan.signer.key(), plan.signer.token());
        let ath = token.map(AccessToken::ath);
        let nonce = nonce.map(Nonce::as_str);
        let proof = Proof::for_target(request.method(), &plan.target, ath, nonce);
        let proof = proof.sign_once(key, unix(dated))?;
        let mut proof = HeaderValue::try_from(proof).map_err(|source| {
            Error::with_source(Kind::Sign, "the proof is no header value", source)
        })?;
        proof.set_sensitive(true);
        let headers = request.headers_mut();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.authorization().clone());
        }
        headers.insert(DPOP, proof);
        Ok(())
    }

    pub(super) fn last_nonce(&self, plan: &Plan) -> Option<Nonce> {
        self.nonces.get(
            plan.signer.key().thumbprint(),
            plan.target.origin(),
            plan.signer.role(),
        )
    }

    pub(super) fn learn(&self, plan: &Plan, nonce: &Nonce) {
        let (key, origin) = (plan.signer.key(), plan.target.origin());
        self.nonces
            .learn(key.thumbprint(), origin, plan.signer.role(), nonce.clone());
    }

    pub(super) fn forget(&self, plan: &Plan, nonce: &Nonce) {
        let (key, origin) = (plan.signer.key(), plan.target.origin());
        self.nonces
            .forget(key.thumbprint(), origin, plan.signer.role(), nonce);
    }

    /// The same for whoever reads the authorization server's answers.
    pub(crate) fn forget_authorization_servers(&self, origin: &str, nonce: &Nonce) {
        self.nonces.forget(
            self.key.thumbprint(),
            origin,
            Role::AuthorizationServer,
            nonce,
        );
    }
}

impl<S, R: Clone> Layer<S> for DpopLayer<R> {
    type Service = Dpop<S, R>;

    fn layer(&self, inner: S) -> Self::Service {
        Dpop::new(inner, self.clone())
    }
}

impl<R> fmt::Debug for DpopLayer<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DpopLayer")
            .field("key", &self.key)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// All that stays the same over the sendings of one request. Key, `ath` and `Authorization` come from one
/// snapshot, so a token that is renewed meanwhile cannot mix with this one.
#[derive(Debug)]
pub(super) struct Plan {
    target: Target,
    signer: Signer,
}

#[derive(Debug)]
enum Signer {
    /// A request to a resource server, with this token and its key.
    Token(AccessToken),
    /// A request to an authorization server.
    Key(DpopKey),
}

impl Plan {
    pub(super) fn role(&self) -> Role {
        self.signer.role()
    }

    pub(super) fn origin(&self) -> &str {
        self.target.origin()
    }

    pub(super) fn budget(&self) -> Budget {
        self.signer
            .token()
            .map_or(Budget::FULL, AccessToken::budget)
    }
}

impl Signer {
    fn token(&self) -> Option<&AccessToken> {
        match self {
            Self::Token(token) => Some(token),
            Self::Key(_) => None,
        }
    }

    fn key(&self) -> &DpopKey {
        match self {
            Self::Token(token) => token.key(),
            Self::Key(key) => key,
        }
    }

    fn role(&self) -> Role {
        match self {
            Self::Token(_) => Role::ResourceServer,
            Self::Key(_) => Role::AuthorizationServer,
        }
    }
}
