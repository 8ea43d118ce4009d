//! Both layers over servers in memory, crowds of callers, and clocks that can be set.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::{task::JoinHandle, time::Instant};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_dpop::{Audience, BoxError, DpopLayer, Error, TokenLayer, TokenRequest};

use super::{
    API, Answer, ENDPOINT, Fake, Seen, a3_key, get, invalid_token, nonce_challenge, ok, plain,
    token, token_nonce_challenge,
};

pub(crate) const AS: &str = "as.example.com";
pub(crate) const RS: &str = "api.example.com";
/// A second server of the same audience.
pub(crate) const RS2: &str = "api2.example.com";
pub(crate) const API2: &str = "https://api2.example.com";

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn request() -> TokenRequest {
    TokenRequest::client_credentials(ENDPOINT, "m2m.dpop")
        .client_secret_post("s3cret")
        .scope("api")
}

pub(crate) fn audience() -> Audience {
    Audience::origins([API, API2]).unwrap()
}

pub(crate) type Stack = BoxCloneSyncService<Request<Full<Bytes>>, Answer, BoxError>;

/// Both layers over `fake`, which is authorization server and resource server at once.
pub(crate) fn stack(fake: &Fake) -> Stack {
    stack_with(fake, request())
}

pub(crate) fn stack_with(fake: &Fake, request: TokenRequest) -> Stack {
    bench(fake, DpopLayer::new(a3_key()), request).1
}

/// The same, and the handle to the tokens.
pub(crate) fn bench(fake: &Fake, dpop: DpopLayer, request: TokenRequest) -> (TokenLayer, Stack) {
    let tokens = TokenLayer::new(&dpop, fake.clone(), request, audience()).unwrap();
    (tokens.clone(), over(tokens, dpop, fake))
}

/// Both layers over a resource server.
pub(crate) fn over(tokens: TokenLayer, dpop: DpopLayer, fake: &Fake) -> Stack {
    let layers = ServiceBuilder::new().layer(tokens).layer(dpop);
    BoxCloneSyncService::new(layers.service(fake.clone()).map_response(plain))
}

pub(crate) fn find(error: &BoxError) -> Error {
    Error::find(&**error)
        .unwrap_or_else(|| panic!("not ours: {error}"))
        .clone()
}

/// Gives the tokens `t0`, `t1`, … and lets through the requests that carry one that `accepts`.
pub(crate) fn servers(
    seconds: u64,
    accepts: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> Fake {
    let issued = AtomicUsize::new(0);
    Fake::new(move |seen, _| {
        if seen.uri.host() == Some(AS) {
            let number = issued.fetch_add(1, Ordering::Relaxed);
            return token(&format!("t{number}"), seconds);
        }
        let number = seen.token().strip_prefix('t').unwrap();
        match accepts(number.parse().unwrap()) {
            true => ok(),
            false => invalid_token(),
        }
    })
}

/// Both want the nonce `n`.
pub(crate) fn challenging() -> Fake {
    Fake::new(|seen, _| match (seen.uri.host(), seen.nonce()) {
        (Some(AS), None) => token_nonce_challenge("n"),
        (Some(AS), _) => token("t", 300),
        (_, None) => nonce_challenge("n"),
        _ => ok(),
    })
}

/// Gives the tokens `t0`, `t1`, …, and answers all else so.
pub(crate) fn api(answers: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Fake {
    Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => token(&format!("t{}", seen.number), 300),
        _ => answers(seen),
    })
}

/// What became of one caller.
pub(crate) struct Outcome {
    pub(crate) started: Instant,
    pub(crate) took: Duration,
    pub(crate) result: Result<Answer, BoxError>,
}

impl Outcome {
    /// The answer's status, 0 if there is none.
    pub(crate) fn status(&self) -> u16 {
        let answer = self.result.as_ref();
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.status() == 200
    }

    pub(crate) fn error(&self) -> Error {
        find(self.result.as_ref().expect_err("an error"))
    }
}

/// A caller in a task of its own.
pub(crate) fn call(stack: &Stack, request: Request<Full<Bytes>>) -> JoinHandle<Outcome> {
    let stack = stack.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        let result = stack.oneshot(request).await;
        Outcome {
            started,
            took: started.elapsed(),
            result,
        }
    })
}

pub(crate) async fn all(tasks: Vec<JoinHandle<Outcome>>) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(tasks.len());
    for task in tasks {
        outcomes.push(task.await.expect("no caller panics"));
    }
    outcomes
}

/// So many callers at the same instant. The n-th asks for `/n`.
pub(crate) async fn herd(stack: &Stack, count: usize) -> Vec<Outcome> {
    callers(stack, API, count, Duration::ZERO).await
}

/// So many callers of a server, one after the other, whether the last one is done or not.
pub(crate) async fn callers(
    stack: &Stack,
    origin: &str,
    count: usize,
    gap: Duration,
) -> Vec<Outcome> {
    let mut tasks = Vec::with_capacity(count);
    for n in 0..count {
        tasks.push(call(stack, get(&format!("{origin}/{n}"))));
        if !gap.is_zero() {
            tokio::time::sleep(gap).await;
        }
    }
    all(tasks).await
}

pub(crate) fn slowest(outcomes: &[Outcome]) -> Duration {
    outcomes.iter().map(|o| o.took).max().unwrap_or_default()
}

/// How long requests took, but for the slowest hundredth.
pub(crate) fn p99(outcomes: &[Outcome]) -> Duration {
    let mut times: Vec<_> = outcomes.iter().map(|o| o.took).collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// How often the request that was sent most often was sent: each has a path of its own.
pub(crate) fn most_sends(fake: &Fake, host: &str) -> usize {
    let mut sends = std::collections::HashMap::<_, usize>::new();
    for seen in fake.seen_by(host) {
        *sends.entry(seen.uri).or_default() += 1;
    }
    sends.into_values().max().unwrap_or_default()
}

/// When requests came to a host, counted from `start`.
pub(crate) fn times(fake: &Fake, host: &str, start: Instant) -> Vec<Duration> {
    let seen = fake.seen_by(host);
    seen.iter().map(|seen| seen.at - start).collect()
}

/// A wall clock that goes with the tests' time, and can be set.
#[derive(Clone)]
pub(crate) struct Wall(Arc<Mutex<(SystemTime, Instant)>>);

impl Wall {
    /// It is the first of January 2026.
    pub(crate) fn new() -> Self {
        let new_year = UNIX_EPOCH + secs(1_767_225_600);
        Self(Arc::new(Mutex::new((new_year, Instant::now()))))
    }

    pub(crate) fn now(&self) -> SystemTime {
        let (set, at) = *self.0.lock().unwrap();
        set + at.elapsed()
    }

    pub(crate) fn set(&self, time: SystemTime) {
        *self.0.lock().unwrap() = (time, Instant::now());
    }

    pub(crate) fn unix(&self) -> i64 {
        match self.now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap(),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap(),
        }
    }

    /// A layer that reads it.
    pub(crate) fn layer(&self) -> DpopLayer {
        let wall = self.clone();
        DpopLayer::new(a3_key()).wall_clock(move || wall.now())
    }
}

/// Chance that can be had again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// A runtime in real time.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}
