//! The fault catalogue, part A: one fetch for all, callers that give up, and how a fetch ends. F1 to F15;
//! the figures are the catalogue's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::{
    API, Answer, ENDPOINT, Fake, NEVER, a3_key, answer, bench,
    bench::{
        AS, Dice, Outcome, RS, Wall, all, audience, call, callers, find, herd, ms, over, p99,
        request, runtime, secs, servers, slowest, stack, stack_with,
    },
    get, ok, refusal, token, token_layer,
};
use tokio::{
    runtime::Handle,
    time::{Instant, Interval, sleep, timeout},
};
use tower::{BoxError, Service, ServiceExt};
use tower_dpop::{DpopLayer, TokenLayer, TokenParameters, TokenRequest};

#[tokio::test(start_paused = true)]
async fn f01_a_cold_herd_costs_one_fetch() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let outcomes = herd(&stack(&fake), 1000).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(fake.hits(AS), 1);
    assert_eq!(fake.hits(RS), 1000);
    assert!(slowest(&outcomes) <= ms(150), "{:?}", slowest(&outcomes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f01_a_cold_herd_on_many_threads_costs_one_fetch() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let outcomes = herd(&stack(&fake), 1000).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 1000));
}

#[tokio::test(start_paused = true)]
async fn f02_a_cold_herd_shares_one_error() {
    let said = AtomicUsize::new(0);
    // A description of its own for each answer, to tell whose error a caller has.
    let refused = Fake::new(move |_, _| {
        let number = said.fetch_add(1, Ordering::Relaxed);
        let body = format!(r#"{{"error":"invalid_client","error_description":"number {number}"}}"#);
        answer(400, &[], &body)
    });
    for fake in [Fake::new(|_, _| answer(500, &[], "oops")), refused] {
        let fake = fake.slow(AS, ms(100));
        let outcomes = herd(&stack(&fake), 1000).await;
        assert_eq!(fake.hits(AS), 1);
        assert_eq!(fake.hits(RS), 0);
        let first = outcomes[0].error();
        for outcome in &outcomes {
            let error = outcome.error();
            assert!(error.is_token_request(), "{error}");
            assert_eq!(error.to_string(), first.to_string());
        }
        assert!(slowest(&outcomes) <= ms(150), "{:?}", slowest(&outcomes));
    }
}

#[tokio::test(start_paused = true)]
async fn f03_a_fetch_outlives_callers_with_short_deadlines() {
    let finished = Arc::new(AtomicUsize::new(0));
    let done = finished.clone();
    let fake = Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => {
            done.fetch_add(1, Ordering::Relaxed);
            token("t", 300)
        }
        _ => ok(),
    })
    .slow(AS, ms(200));
    let stack = stack(&fake);
    let mut tasks = Vec::new();
    for _ in 0..100 {
        tasks.push(tokio::spawn(timeout(
            ms(150),
            stack.clone().oneshot(get(API)),
        )));
        sleep(ms(20)).await;
    }
    for (n, task) in (0..).zip(tasks) {
        let in_time = ms(20 * n + 150) > ms(200);
        let outcome = task.await.unwrap();
        assert_eq!(outcome.is_ok(), in_time, "caller {n}");
        assert!(outcome.map_or(true, |answer| answer.unwrap().status() == 200));
    }
    assert_eq!((fake.hits(AS), finished.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn f04_a_leader_that_is_dropped_costs_the_others_nothing() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let stack = stack(&fake);
    let started = Instant::now();
    let leader = call(&stack, get(API));
    sleep(ms(10)).await;
    let waiting: Vec<_> = (0..50).map(|_| call(&stack, get(API))).collect();
    sleep(ms(40)).await;
    leader.abort();
    let outcomes = all(waiting).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(fake.hits(AS), 1);
    assert!(
        started.elapsed() <= ms(105),
        "when the leader would have had it: {:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn f05_when_all_callers_are_dropped_the_token_is_for_the_next() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let stack = stack(&fake);
    let waiting: Vec<_> = (0..50).map(|_| call(&stack, get(API))).collect();
    sleep(ms(10)).await;
    for task in &waiting {
        task.abort();
    }
    sleep(ms(91)).await;
    let next = call(&stack, get(API)).await.unwrap();
    assert!(next.is_ok());
    assert_eq!(next.took, Duration::ZERO);
    assert_eq!(fake.hits(AS), 1);
}

/// Where a client panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Clone,
    Readiness,
    Call,
    Future,
}

/// A client with a bug that goes away.
struct Buggy {
    fake: Fake,
    place: Place,
    until: Instant,
    panics: Arc<AtomicUsize>,
}

impl Buggy {
    fn pass(&self, place: Place) {
        if place == self.place && Instant::now() < self.until {
            self.panics.fetch_add(1, Ordering::Relaxed);
            panic!("a bug in the client: {place:?}");
        }
    }
}

impl Clone for Buggy {
    fn clone(&self) -> Self {
        self.pass(Place::Clone);
        Self {
            fake: self.fake.clone(),
            panics: self.panics.clone(),
            ..*self
        }
    }
}

impl Service<Request<Full<Bytes>>> for Buggy {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.pass(Place::Readiness);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.pass(Place::Call);
        let (place, until, panics) = (self.place, self.until, self.panics.clone());
        let fake = self.fake.clone();
        Box::pin(async move {
            let late = Self {
                fake: fake.clone(),
                place,
                until,
                panics,
            };
            late.pass(Place::Future);
            fake.oneshot(request).await
        })
    }
}

#[tokio::test(start_paused = true)]
async fn f06_a_fetch_that_panics_is_an_error_and_then_forgotten() {
    for place in [Place::Clone, Place::Readiness, Place::Call, Place::Future] {
        let fake = servers(300, |_| true);
        let panics = Arc::new(AtomicUsize::new(0));
        let until = Instant::now() + ms(300);
        let client = Buggy {
            fake: fake.clone(),
            place,
            until,
            panics: panics.clone(),
        };
        let dpop = DpopLayer::new(a3_key());
        let stack = over(token_layer(&dpop, client), dpop, &fake);
        let outcomes = herd(&stack, 50).await;
        for outcome in &outcomes {
            let error = outcome.error();
            assert!(error.is_runtime() && error.is_token_request(), "{error}");
        }
        assert_eq!(panics.load(Ordering::Relaxed), 1, "one panic, shared");
        let outcomes = callers(&stack, API, 200, ms(10)).await;
        let first = outcomes.iter().find(|outcome| outcome.is_ok());
        let first = first.expect("it recovers");
        assert!(
            first.started - until <= secs(1),
            "{:?}",
            first.started - until
        );
        let since = outcomes.iter().filter(|o| o.started >= first.started);
        assert!(since.into_iter().all(Outcome::is_ok), "and stays so");
    }
}

#[test]
fn f07_a_runtime_that_dies_with_the_fetch_does_not_take_the_layer_along() {
    let fake = servers(300, |_| true).slow(AS, ms(100));
    let stack = stack(&fake);
    runtime().block_on(async {
        let given_up = timeout(ms(1), stack.clone().oneshot(get(API)));
        given_up.await.unwrap_err();
    });
    // The runtime is gone, and the fetch with it. The next runtime has a time of its own.
    let mut other = tokio::runtime::Builder::new_current_thread();
    let other = other.enable_all().start_paused(true).build().unwrap();
    other.block_on(async {
        let outcomes = herd(&stack, 50).await;
        assert!(outcomes.iter().all(Outcome::is_ok));
        assert!(slowest(&outcomes) <= ms(150), "{:?}", slowest(&outcomes));
    });
    assert_eq!(fake.hits(AS), 2, "one was lost, one served all");
}

#[test]
fn f07_those_who_wait_in_another_runtime_hear_of_the_loss() {
    let fake = servers(300, |_| true).delay_by(|seen| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => NEVER,
        _ => Duration::ZERO,
    });
    let stack = stack(&fake);
    let doomed = runtime();
    doomed.block_on(async {
        let given_up = timeout(ms(1), stack.clone().oneshot(get(API)));
        given_up.await.unwrap_err();
    });
    // A time of its own: it would pass while they wait.
    let mut other = tokio::runtime::Builder::new_current_thread();
    let other = other.enable_all().start_paused(true).build().unwrap();
    let waiting: Vec<_> = other.block_on(async {
        let waiting = (0..20).map(|_| call(&stack, get(API))).collect();
        tokio::task::yield_now().await;
        waiting
    });
    assert_eq!(fake.hits(AS), 1, "they joined the fetch");
    drop(doomed);
    let outcomes = other.block_on(all(waiting));
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&outcomes), Duration::ZERO);
    assert_eq!(fake.hits(AS), 2);
}

/// One look at a future, outside of any runtime.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn f08_without_a_runtime_there_is_an_error_and_later_a_token() {
    let fake = servers(300, |_| true);
    let wall = Wall::new();
    let (_, stack) = bench::bench(&fake, wall.layer(), request());
    for _ in 0..2 {
        let Poll::Ready(Err(error)) = poll_once(stack.clone().oneshot(get(API))) else {
            panic!("no token, no runtime to wait for one");
        };
        let error = find(&error);
        assert!(error.is_runtime() && error.is_token_request(), "{error}");
        assert!(error.to_string().contains("Tokio"), "{error}");
    }
    let answer = runtime().block_on(stack.clone().oneshot(get(API))).unwrap();
    assert_eq!(answer.status(), 200);
    // A token that is there is served, even one that is due and whose successor nobody can fetch.
    for _ in 0..2 {
        let Poll::Ready(Ok(answer)) = poll_once(stack.clone().oneshot(get(API))) else {
            panic!("the token is there");
        };
        assert_eq!(answer.status(), 200);
        wall.set(wall.now() + secs(3600));
    }
    assert_eq!(fake.hits(AS), 1);
}

/// Whatever the future starts, it starts in that runtime, as long as there is one.
struct Within<F> {
    runtime: Arc<Mutex<Option<Handle>>>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let runtime = self.runtime.lock().unwrap().clone();
        let _entered = runtime.as_ref().map(Handle::enter);
        self.future.as_mut().poll(cx)
    }
}

/// The task of a fetch cannot be aborted from outside; but the runtime that drives it can end, at any moment
/// of the fetch. (The simulation in the crate aborts the tasks themselves.)
#[test]
fn f09_a_fetch_that_is_aborted_is_planned_anew_three_times_at_most() {
    let load_timeout = secs(2);
    let (mut had, mut not_had) = (0, 0);
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let fake = servers(300, |_| true).slow(AS, ms(3));
        let stack = stack_with(&fake, request().timeout(load_timeout));
        let lives = runtime();
        let place = Arc::new(Mutex::new(None));
        let deaths = dice.below(5);
        let mut doomed: Vec<_> = (0..deaths).map(|_| runtime()).collect();
        let show = |doomed: &[tokio::runtime::Runtime]| {
            *place.lock().unwrap() = doomed.last().map(|runtime| runtime.handle().clone());
        };
        show(&doomed);
        let waiting: Vec<_> = (0..20)
            .map(|_| {
                let request = Within {
                    runtime: place.clone(),
                    future: Box::pin(stack.clone().oneshot(get(API))),
                };
                lives.spawn(async move {
                    let started = std::time::Instant::now();
                    let answer = request.await;
                    (answer, started.elapsed())
                })
            })
            .collect();
        while let Some(runtime) = doomed.pop() {
            lives.block_on(tokio::task::yield_now());
            runtime.block_on(async { sleep(ms(dice.below(4))).await });
            show(&doomed);
            drop(runtime);
        }
        for waiting in waiting {
            let waiting = lives.block_on(async { timeout(3 * load_timeout, waiting).await });
            let waiting = waiting.unwrap_or_else(|_| panic!("seed {seed}: one is stuck"));
            let (answer, waited) = waiting.expect("no caller panics");
            match answer {
                Ok(answer) => {
                    assert_eq!(answer.status(), 200, "seed {seed}");
                    had += 1;
                }
                Err(error) => {
                    let error = find(&error);
                    assert!(error.is_runtime() && deaths >= 3, "seed {seed}: {error}");
                    not_had += 1;
                }
            }
            assert!(waited <= 3 * load_timeout, "seed {seed}: {waited:?}");
        }
        let next = lives.block_on(stack.oneshot(get(API))).unwrap();
        assert_eq!(next.status(), 200, "seed {seed}: stuck");
    }
    assert!(had > 0 && not_had > 0, "{had} had a token, {not_had} not");
}

#[tokio::test(start_paused = true)]
async fn f10_with_the_last_handle_goes_the_last_task() {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let idle = servers(300, |_| true);
    let (tokens, stack) = bench::bench(&idle, DpopLayer::new(a3_key()), request());
    assert!(stack.clone().oneshot(get(API)).await.is_ok());
    tokio::task::yield_now().await;
    assert_eq!(alive(), before, "no task waits for anything");
    drop((tokens, stack));
    assert_eq!(alive(), before);

    let stalled = servers(300, |_| true).slow(AS, NEVER);
    let (tokens, stack) = bench::bench(&stalled, DpopLayer::new(a3_key()), request());
    timeout(ms(100), stack.clone().oneshot(get(API)))
        .await
        .unwrap_err();
    assert_eq!(alive(), before + 1, "the fetch");
    drop((tokens, stack));
    sleep(secs(10) - ms(99)).await;
    assert_eq!(alive(), before);
}

#[tokio::test(start_paused = true)]
async fn f11_a_black_hole_ends_after_ten_seconds() {
    let fake = servers(300, |_| true).slow(AS, NEVER);
    let stack = stack(&fake);
    let outcomes = callers(&stack, API, 600, ms(100)).await;
    for outcome in &outcomes {
        let error = outcome.error();
        assert!(error.is_timeout() && error.is_token_request(), "{error}");
    }
    assert!(slowest(&outcomes) <= ms(10_050), "{:?}", slowest(&outcomes));
    assert_eq!(fake.most_open(AS), 1);
    let failed_at_once = outcomes.iter().filter(|o| o.took.is_zero()).count();
    assert!(failed_at_once > 0, "the back-off starts");
}

/// A body that comes byte by byte, one a second, and never ends. It counts how many there are.
struct Trickle(Interval, Arc<AtomicUsize>);

impl Trickle {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(tokio::time::interval(secs(1)), open.clone())
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl http_body::Body for Trickle {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        ready!(self.0.poll_tick(cx));
        let byte = Bytes::from_static(b" ");
        Poll::Ready(Some(Ok(http_body::Frame::data(byte))))
    }
}

#[tokio::test(start_paused = true)]
async fn f12_the_deadline_is_for_the_whole_of_a_trickling_answer() {
    let fake = servers(300, |_| true);
    let open = Arc::new(AtomicUsize::new(0));
    let count = open.clone();
    let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
        let body = Trickle::new(&count);
        async { Ok::<_, BoxError>(Response::new(body)) }
    });
    let dpop = DpopLayer::new(a3_key());
    let tokens = TokenLayer::new(&dpop, client, request(), audience()).unwrap();
    let outcomes = tokio::spawn({
        let stack = over(tokens, dpop, &fake);
        async move { callers(&stack, API, 600, ms(100)).await }
    });
    let mut most_open = 0;
    while !outcomes.is_finished() {
        most_open = most_open.max(open.load(Ordering::Relaxed));
        sleep(ms(20)).await;
    }
    let outcomes = outcomes.await.unwrap();
    assert!(outcomes.iter().all(|outcome| outcome.error().is_timeout()));
    assert!(slowest(&outcomes) <= ms(10_050), "{:?}", slowest(&outcomes));
    assert_eq!((most_open, open.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(fake.hits(RS), 0);
}

#[tokio::test(start_paused = true)]
async fn f13_no_caller_waits_for_two_failing_fetches() {
    let fake = Fake::new(|_, _| answer(503, &[], "")).slow(AS, ms(9_900));
    let outcomes = callers(&stack(&fake), API, 1200, ms(100)).await;
    assert!(outcomes.iter().all(|o| o.error().is_token_request()));
    assert!(fake.hits(AS) > 2, "{}", fake.hits(AS));
    assert!(slowest(&outcomes) <= secs(20), "{:?}", slowest(&outcomes));
}

fn for_scope(scope: &str) -> TokenParameters {
    TokenParameters::new().scope(scope)
}

#[tokio::test(start_paused = true)]
async fn f14_a_stalled_scope_does_not_slow_another() {
    let mut alone = None;
    for stalled in [false, true] {
        // Tokens that last a few seconds, so that there is always a fetch somewhere.
        let fake = servers(4, |_| true).delay_by(|seen| {
            match (seen.uri.host(), seen.parameter("scope").as_deref()) {
                (Some(AS), Some("stalled")) => NEVER,
                (Some(AS), _) => ms(50),
                _ => ms(5),
            }
        });
        let stack = stack(&fake);
        let ask = |scope: &str| {
            let mut request = get(API);
            request.extensions_mut().insert(for_scope(scope));
            call(&stack, request)
        };
        let (mut healthy, mut in_vain) = (Vec::new(), Vec::new());
        for n in 0..3000 {
            // Pauses longer than a token lasts, now and then: some have to wait for a fetch.
            sleep(if n % 20 == 0 { secs(5) } else { ms(50) }).await;
            healthy.push(ask("healthy"));
            if stalled {
                in_vain.push(ask("stalled"));
            }
        }
        let healthy = all(healthy).await;
        assert!(healthy.iter().all(Outcome::is_ok));
        assert!(all(in_vain).await.iter().all(|o| o.error().is_timeout()));
        let took = (p99(&healthy), slowest(&healthy));
        assert_eq!(took, (ms(55), ms(55)), "some waited for a fetch, of 50 ms");
        match alone {
            None => alone = Some(took.0),
            Some(alone) => assert!(took.0 <= alone.mul_f64(1.1), "{took:?}, alone {alone:?}"),
        }
    }
}

/// An authorization server whose refresh tokens `r0`, `r1`, … are good once each: a second use would be theft.
/// Its access tokens are named by their scope.
fn rotating() -> Fake {
    let good = Mutex::new(0);
    Fake::new(move |seen, _| {
        let mut good = good.lock().unwrap();
        if seen.parameter("refresh_token") != Some(format!("r{good}")) {
            return refusal("invalid_grant");
        }
        *good += 1;
        let scope = seen.parameter("scope").unwrap_or_default();
        let body = serde_json::json!({
            "access_token": format!("{scope}.{good}"), "token_type": "DPoP", "expires_in": 3600,
            "refresh_token": format!("r{good}"), "scope": scope,
        });
        answer(
            200,
            &[("content-type", "application/json")],
            &body.to_string(),
        )
    })
}

fn refreshing(fake: &Fake) -> TokenLayer {
    let request = TokenRequest::refresh_token(ENDPOINT, "id", "r0");
    bench::bench(fake, DpopLayer::new(a3_key()), request).0
}

#[tokio::test(start_paused = true)]
async fn f15_two_scopes_that_share_a_refresh_token_each_get_their_own_token() {
    let fake = rotating().delay(ms(1));
    let tokens = refreshing(&fake);
    let scopes = [for_scope("orders"), for_scope("bills")];
    // The catalogue's 10,000 trials pass, too, in 7 s of a processor: this is a fifth of them.
    let trials = 2_000;
    for trial in 0..trials {
        let (orders, bills) = tokio::join!(
            tokens.access_token_for(&scopes[0]),
            tokens.access_token_for(&scopes[1])
        );
        let (orders, bills) = (orders.unwrap(), bills.unwrap());
        assert!(orders.secret().starts_with("orders."), "trial {trial}");
        assert!(bills.secret().starts_with("bills."), "trial {trial}");
        tokens.forget_tokens();
    }
    assert_eq!(fake.hits(AS), 2 * trials);
    assert_eq!(fake.most_open(AS), 1, "one use at a time");
}

#[tokio::test(start_paused = true)]
async fn f15_a_fetch_that_is_given_up_does_not_cost_the_refresh_token() {
    let fake = rotating().delay(secs(2));
    let tokens = refreshing(&fake);
    for _ in 0..5 {
        let waiting = tokio::spawn({
            let tokens = tokens.clone();
            async move { tokens.access_token().await }
        });
        sleep(secs(1)).await;
        tokens.forget_tokens();
        waiting.await.unwrap().unwrap();
        tokens.forget_tokens();
    }
    assert_eq!(fake.hits(AS), 10);
    assert_eq!(fake.most_open(AS), 1, "one use at a time");
}

#[tokio::test(start_paused = true)]
async fn f15_many_scopes_that_wait_for_each_other_do_not_cost_the_refresh_token() {
    // Thirty at once, one after the other, 7 s each: longer than any one of them may take.
    let fake = rotating().delay(secs(7));
    let tokens = refreshing(&fake);
    let at_once: Vec<_> = (0..30)
        .map(|n| {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.access_token_for(&for_scope(&format!("s{n}"))).await })
        })
        .collect();
    let mut served = 0;
    for task in at_once {
        // Some may have waited in vain, but none was sent and given up on its way.
        match task.await.unwrap() {
            Ok(_) => served += 1,
            Err(error) => assert!(!error.is_grant_uncertain(), "{error}"),
        }
    }
    assert!(served >= 60 / 7, "{served}");
    sleep(secs(60)).await;
    let after = tokens.access_token().await;
    assert!(after.is_ok(), "the grant is lost: {}", after.unwrap_err());
}
