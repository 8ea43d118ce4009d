//! What both servers have in common: their clock, their record, their orders, and how they check a proof.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::{HeaderValue, Response, header::HOST, request::Parts, uri::Authority};
use sha2::{Digest as _, Sha256};

use super::{
    answer::Refusal,
    nonces::{NonceBook, Nonces},
    profile::{self, ProofRules, Rules},
    record::Record,
    recorded::Recorded,
    used_proofs::{Use, UsedProofs},
};
use crate::{
    nonce::DPOP_NONCE,
    proof::{Check, DPOP, InvalidProof, ValidProof},
};

/// 9999-12-31T23:59:59Z, the last second that a `Date` header can tell, in seconds since 1970.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// A poisoned lock is one whose holder panicked; what it guards here is whole between any two statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the test ordered to become of a request.
#[derive(Clone)]
pub(super) enum Order {
    /// An answer in place of the server's own.
    Exactly(Response<Bytes>),
    /// A challenge in place of the server's own answer.
    Challenge(Option<HeaderValue>),
    /// The server's own answer, which never goes out.
    Lose,
}

/// What a request met when it arrived.
pub(super) struct Arrival {
    /// Its number in the record.
    pub(super) number: usize,
    pub(super) order: Option<Order>,
    pub(super) delay: Duration,
}

/// A broken rule: the error code that answers it, and its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) reason: &'static str,
}

impl Fault {
    pub(super) fn proof(reason: &'static str) -> Self {
        Self {
            code: "invalid_dpop_proof",
            reason,
        }
    }
}

impl From<InvalidProof> for Fault {
    fn from(invalid: InvalidProof) -> Self {
        Self {
            code: invalid.code(),
            reason: invalid.reason(),
        }
    }
}

pub(super) struct Shared {
    origin: String,
    random: Random,
    state: Mutex<State>,
}

struct State {
    /// In seconds.
    clock_offset: i64,
    delay: Duration,
    /// In order of their giving, with the number of requests that each is still for.
    orders: VecDeque<(usize, Order)>,
    rules: Rules,
    nonces: NonceBook,
    used_proofs: UsedProofs,
    record: Record,
}

impl State {
    fn now(&self) -> Duration {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let offset = Duration::from_secs(self.clock_offset.unsigned_abs());
        if self.clock_offset < 0 {
            now.saturating_sub(offset)
        } else {
            now.saturating_add(offset).min(END_OF_TIME)
        }
    }
}

impl Shared {
    pub(super) fn new(origin: String) -> io::Result<Self> {
        let random = Random::new()?;
        let state = State {
            clock_offset: 0,
            delay: Duration::ZERO,
            orders: VecDeque::new(),
            rules: Rules::RFC,
            nonces: NonceBook::new(Nonces::off(), Duration::ZERO, &random),
            used_proofs: UsedProofs::default(),
            record: Record::new(),
        };
        Ok(Self {
            origin,
            random,
            state: Mutex::new(state),
        })
    }

    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    /// The server's time since 1970.
    pub(super) fn now(&self) -> Duration {
        lock(&self.state).now()
    }

    pub(super) fn set_clock_offset(&self, seconds: i64) {
        lock(&self.state).clock_offset = seconds;
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        lock(&self.state).delay = delay;
    }

    pub(super) fn rules(&self) -> Rules {
        lock(&self.state).rules
    }

    /// What was seen so far is forgotten: another server would not know it.
    pub(super) fn set_rules(&self, rules: Rules, nonces: Nonces) {
        let mut state = lock(&self.state);
        state.rules = rules;
        state.nonces = NonceBook::new(nonces, state.now(), &self.random);
        state.used_proofs = UsedProofs::default();
    }

    pub(super) fn set_nonces(&self, nonces: Nonces) {
        let mut state = lock(&self.state);
        state.nonces = NonceBook::new(nonces, state.now(), &self.random);
    }

    pub(super) fn rotate_nonce(&self) {
        lock(&self.state).nonces.rotate(&self.random);
    }

    pub(super) fn order(&self, times: usize, order: Order) {
        if times > 0 {
            lock(&self.state).orders.push_back((times, order));
        }
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        lock(&self.state).record.all()
    }

    pub(super) fn request_count(&self) -> usize {
        lock(&self.state).record.count()
    }

    pub(super) fn keep_requests(&self, n: usize) {
        lock(&self.state).record.keep(n);
    }

    /// A request's head is here. Record and orders are one step, so that the first order is for the first
    /// request in the record.
    pub(super) fn arrived(&self, head: &Parts) -> Arrival {
        let mut state = lock(&self.state);
        let number = state.record.push(Recorded::new(head));
        let order = state.orders.front_mut().map(|(times, order)| {
            *times -= 1;
            (*times == 0, order.clone())
        });
        if let Some((true, _)) = order {
            state.orders.pop_front();
        }
        Arrival {
            number,
            order: order.map(|(_, order)| order),
            delay: state.delay,
        }
    }

    /// The whole body of a request is here.
    pub(super) fn read(&self, number: usize, body: Bytes) {
        if let Some(recorded) = lock(&self.state).record.get_mut(number) {
            recorded.body = body;
        }
    }

    pub(super) fn decided(
        &self,
        number: usize,
        answer: &Response<Bytes>,
        refused: Option<&'static str>,
    ) {
        if let Some(recorded) = lock(&self.state).record.get_mut(number) {
            recorded.status = Some(answer.status());
            recorded.offered_nonce = answer.headers().get(DPOP_NONCE).cloned();
            recorded.refused = refused;
        }
    }

    /// Checks the proof of a request to an authorization server, if it must have one; without, there is none.
    /// `is_public`: whether the client has no secret.
    pub(super) fn check_token_proof(
        &self,
        head: &Parts,
        url: &str,
        is_public: bool,
    ) -> Result<Option<ValidProof>, Refusal> {
        let rules = self.rules().token;
        if rules.unbound_without_proof && !head.headers.contains_key(DPOP) {
            return Ok(None);
        }
        let asks_nonce = is_public || rules.nonces_for_all_clients;
        self.check(head, url, None, &rules.proof, asks_nonce)
            .map(Some)
            .map_err(|fault| profile::token_refusal(&rules, fault))
    }

    /// Checks the proof of a request to a resource server. `bound` is the access token and the thumbprint of its
    /// key.
    pub(super) fn check_resource_proof(
        &self,
        head: &Parts,
        url: &str,
        bound: (&str, &str),
    ) -> Result<(), Fault> {
        let rules = self.rules().resource.proof;
        self.check(head, url, Some(bound), &rules, true).map(drop)
    }

    /// All checks of RFC 9449, section 4.3, in the way of this server.
    fn check(
        &self,
        head: &Parts,
        url: &str,
        bound: Option<(&str, &str)>,
        rules: &ProofRules,
        asks_nonce: bool,
    ) -> Result<ValidProof, Fault> {
        let url = match host(head).filter(|_| rules.host_of_request) {
            None => url.to_owned(),
            Some(host) => format!(
                "http://{host}{}",
                url.strip_prefix(&self.origin).unwrap_or(url)
            ),
        };
        let mut state = lock(&self.state);
        let now = state.now();
        let algorithms = rules.verified_algorithms();
        let mut check = Check::new(&head.method, &url, now.as_secs())
            .accepting(&algorithms)
            .same_target(rules.same_target);
        check = match rules.nonce_for_iat {
            true => check.window(Duration::MAX, Duration::MAX),
            false => check.window(rules.max_age, rules.max_ahead),
        };
        if let Some((token, thumbprint)) = bound {
            check = check.access_token(token, thumbprint);
        }
        let proof = check.verify(&head.headers)?;
        // Where nonces are asked for, the one that is missing is what is told.
        if rules.nonce_for_iat && proof.nonce().is_none() && state.nonces.are_off() {
            check
                .window(rules.max_age, rules.max_ahead)
                .verify(&head.headers)?;
        }
        if bound.is_none() && proof.has_ath() {
            return Err(Fault::proof(
                "`ath` has no place here: the request carries no access token",
            ));
        }
        // Every right proof counts as used, even one that lacks the nonce: the next must have a `jti` of
        // its own, with or without a challenge in between (RFC 9449, 4.2). The challenge itself comes first
        // nevertheless: the client can always answer it, and a nonce that is good once is taken only from a
        // proof that is right in all else.
        let used = state.used_proofs.insert(&proof, &url, rules, now);
        if asks_nonce {
            let ignores_stray = rules.ignores_stray_nonces;
            state
                .nonces
                .judge(proof.nonce(), ignores_stray, now, &self.random)?;
        }
        match used {
            Use::First => Ok(proof),
            Use::Again => Err(Fault::proof(profile::REPLAYED)),
            Use::Unknown => Err(Fault::proof("unable to cache the proof's `jti`")),
        }
    }

    /// Adds the nonce that the policy gives with this answer, if any.
    pub(super) fn offer_nonce(&self, response: &mut Response<Bytes>) {
        let mut state = lock(&self.state);
        let now = state.now();
        let offered = state
            .nonces
            .offer(response.status().is_success(), now, &self.random);
        // A nonce is visible ASCII, so always a header value.
        if let Some(Ok(nonce)) = offered.map(HeaderValue::try_from) {
            response.headers_mut().insert(DPOP_NONCE, nonce);
        }
    }
}

/// The host that a request names: as it was written, for servers that build a URL of it.
fn host(head: &Parts) -> Option<&str> {
    let of_uri = head.uri.authority().map(Authority::as_str);
    of_uri.or_else(|| head.headers.get(HOST)?.to_str().ok())
}

/// Unpredictable texts from one draw of the operating system's random numbers: what could fail has failed
/// before the server runs.
pub(super) struct Random {
    secret: [u8; 32],
    count: AtomicU64,
}

impl Random {
    fn new() -> io::Result<Self> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Self {
            secret,
            count: AtomicU64::new(0),
        })
    }

    /// 256 bits in base64url. No two are the same, and none tells another.
    pub(super) fn text(&self) -> String {
        BASE64URL.encode(self.bytes())
    }

    /// So many characters of an alphabet, which is ASCII. Some of them come a little more often than others.
    pub(super) fn text_of(&self, alphabet: &[u8], length: usize) -> String {
        let bytes = std::iter::repeat_with(|| self.bytes()).flatten();
        let characters = bytes.map(|byte| char::from(alphabet[usize::from(byte) % alphabet.len()]));
        characters.take(length).collect()
    }

    fn bytes(&self) -> [u8; 32] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let hash = Sha256::new()
            .chain_update(self.secret)
            .chain_update(count.to_be_bytes());
        hash.finalize().into()
    }
}
