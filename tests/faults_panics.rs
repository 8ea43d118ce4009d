//! Somebody else's code that panics at the worst moment: F74 of the fault catalogue. Whose request it hits has the
//! panic or an error; all others, and all that come later, are served.
//!
//! That of the client for token requests is F6, in `faults_fetch.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicIsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::{
    API, Fake, a3_key, and, answer,
    bench::{AS, audience, request, secs},
    get, invalid_token, nonce_challenge, ok, token, token_nonce_challenge,
};
use tokio::{sync::Mutex, task::JoinError};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_dpop::{BoxError, CloneBody, DpopLayer, Replay, TokenLayer};
use tracing::{Event, Metadata, Subscriber, span};

/// Panics at its n-th use, once.
#[derive(Clone)]
struct Mine(Arc<AtomicIsize>);

impl Mine {
    fn at(uses: isize) -> Self {
        Self(Arc::new(AtomicIsize::new(uses)))
    }

    fn step(&self) {
        let left = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(left != 0, "a mine");
    }

    fn has_gone_off(&self) -> bool {
        self.0.load(Ordering::Relaxed) < 0
    }
}

type Stack = BoxCloneSyncService<Request<Full<Bytes>>, u16, BoxError>;

/// Servers that find something with every other request, until they are well.
fn servers(well: &Arc<AtomicBool>) -> Fake {
    let well = Arc::clone(well);
    let hour_ahead = httpdate::fmt_http_date(SystemTime::now() + secs(3600));
    Fake::new(move |seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => token_nonce_challenge("a"),
        (Some(AS), n) => token(&format!("t{n}"), 300),
        _ if well.load(Ordering::Relaxed) => ok(),
        (_, n) if n % 8 == 1 => nonce_challenge(&format!("n{n}")),
        (_, n) if n % 8 == 3 => invalid_token(),
        (_, n) if n % 8 == 6 => {
            let refused = [("www-authenticate", r#"DPoP error="invalid_dpop_proof""#)];
            and(answer(401, &refused, ""), "date", &hour_ahead)
        }
        _ => ok(),
    })
}

/// Both layers, and one place below, so that one that is not given back is missed.
fn stack<R>(dpop: DpopLayer<R>, fake: &Fake) -> Stack
where
    R: Replay<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience()).unwrap();
    let stack = ServiceBuilder::new()
        .map_response(|answer: http::Response<_>| answer.status().as_u16())
        .layer(tokens)
        .layer(dpop)
        .concurrency_limit(1)
        .service(fake.clone());
    BoxCloneSyncService::new(stack)
}

/// So many at once. How many of them panicked; no other fails but for the one reason.
async fn callers(stack: &Stack, count: usize) -> usize {
    let tasks: Vec<_> = (0..count)
        .map(|_| tokio::spawn(stack.clone().oneshot(get(API))))
        .collect();
    let mut panics = 0;
    for task in tasks {
        let outcome = tokio::time::timeout(secs(3600), task);
        match outcome.await.expect("nobody waits for ever") {
            Ok(_) => {}
            Err(error) => panics += usize::from(JoinError::is_panic(&error)),
        }
    }
    panics
}

/// Whoever listens to a log in one thread may hear nothing of what another thread came to first: one test at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Lays the mine at each place that is reached, one after the other.
async fn at_every_step<R>(
    name: &str,
    lay: impl Fn(&Mine) -> (DpopLayer<R>, Option<tracing::subscriber::DefaultGuard>),
) where
    R: Replay<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    let _alone = ALONE.lock().await;
    let mut steps = 0;
    loop {
        let mine = Mine::at(steps);
        let well = Arc::new(AtomicBool::new(false));
        let fake = servers(&well);
        let (dpop, listening) = lay(&mine);
        let stack = stack(dpop, &fake);
        let mut panics = 0;
        for count in [1, 4, 1, 4] {
            panics += callers(&stack, count).await;
        }
        assert!(panics <= 1, "{name}, step {steps}: {panics} panics");
        if !mine.has_gone_off() {
            break;
        }
        // As it was: whoever failed may have left a back-off.
        well.store(true, Ordering::Relaxed);
        tokio::time::sleep(secs(31)).await;
        for _ in 0..3 {
            let answer = tokio::time::timeout(secs(60), stack.clone().oneshot(get(API)));
            let answer = answer.await.expect("a place below is free");
            assert_eq!(answer.unwrap(), 200, "{name}, step {steps}");
        }
        drop(listening);
        steps += 1;
    }
    assert!(steps > 10, "{name}: only {steps} steps");
}

#[tokio::test(start_paused = true)]
async fn f74_a_clock_that_panics() {
    at_every_step("clock", |mine| {
        let mine = mine.clone();
        let dpop = DpopLayer::new(a3_key()).wall_clock(move || {
            mine.step();
            SystemTime::now()
        });
        (dpop, None)
    })
    .await;
}

#[derive(Clone)]
struct Policy(Mine);

impl Replay<Full<Bytes>> for Policy {
    fn replay(&self, request: &Request<Full<Bytes>>) -> Option<Full<Bytes>> {
        self.0.step();
        CloneBody.replay(request)
    }
}

#[tokio::test(start_paused = true)]
async fn f74_a_replay_policy_that_panics() {
    at_every_step("policy", |mine| {
        (DpopLayer::new(a3_key()).replay(Policy(mine.clone())), None)
    })
    .await;
}

/// A log whose every method may panic, but for those that a destructor calls.
struct Log(Mine);

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn register_callsite(&self, _: &'static Metadata<'static>) -> tracing::subscriber::Interest {
        tracing::subscriber::Interest::sometimes()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        self.0.step();
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {
        self.0.step();
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {
        self.0.step();
    }

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "tower_dpop" {
            self.0.step();
        }
    }

    fn enter(&self, _: &span::Id) {
        self.0.step();
    }

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn f74_a_log_that_panics() {
    at_every_step("log", |mine| {
        let listening = tracing::subscriber::set_default(Log(mine.clone()));
        (DpopLayer::new(a3_key()), Some(listening))
    })
    .await;
}
