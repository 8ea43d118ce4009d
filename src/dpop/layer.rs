use std::{fmt, sync::Arc, time::SystemTime};

use tower_layer::Layer;

use super::{Dpop, prover::Prover};
use crate::{clock::Clock, key::DpopKey, origin::Origin, replay::CloneBody};

/// Adds a DPoP proof to requests. See the [module documentation](crate::dpop) for an example.
///
/// A cheap handle: clones, and the services made from them, share the key and the servers' nonces. Use one
/// for the API's stack and for the [`TokenLayer`](crate::TokenLayer).
#[derive(Clone)]
pub struct DpopLayer<R = CloneBody> {
    prover: Arc<Prover>,
    replay: R,
}

impl DpopLayer {
    /// A layer that proves possession of `key`.
    #[must_use]
    pub fn new(key: DpopKey) -> Self {
        Self {
            prover: Arc::new(Prover::new(key)),
            replay: CloneBody,
        }
    }
}

impl<R> DpopLayer<R> {
    /// The server of requests whose URI is a path only, as tonic's and HTTP/1.1 connections' are: a proof
    /// names scheme, host and path (`htu`). Requests with a full URI keep their own.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        Arc::make_mut(&mut self.prover).origin = Some(origin);
        self
    }

    /// How a body is made a second time, to answer a nonce challenge or a rejected token: by [`CloneBody`]
    /// unless set. For bodies that cannot be cloned there is [`RecordedBody`](crate::RecordedBody), with bodies that
    /// keep what was sent; and [`EmptyBody`](crate::EmptyBody) and [`NoReplay`](crate::NoReplay).
    #[must_use]
    pub fn replay<P>(self, policy: P) -> DpopLayer<P> {
        DpopLayer {
            prover: self.prover,
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
    /// the most. A refusal that gives no reason counts, too, if the `Date` beside it is more than 30 s from what the proof
    /// said; so does that of a client which showed an assertion, since that has times of its own.
    #[must_use]
    pub fn wall_clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.prover).clock = Arc::new(Clock::new(now));
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
        Arc::make_mut(&mut self.prover).allow_plain_http = true;
        self
    }

    /// The key that requests to an authorization server are signed with, and that new tokens are bound to.
    #[must_use]
    pub fn key(&self) -> &DpopKey {
        &self.prover.key
    }

    pub(crate) fn prover(&self) -> &Arc<Prover> {
        &self.prover
    }

    pub(crate) fn replay_policy(&self) -> &R {
        &self.replay
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
            .field("key", &self.prover.key)
            .field("origin", &self.prover.origin)
            .finish_non_exhaustive()
    }
}
