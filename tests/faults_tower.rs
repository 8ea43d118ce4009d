//! Our layers among tower's, at their worst moments: F55 to F61 of the fault catalogue. F62 is in
//! `faults_memory.rs`.
//!
//! All in memory and in paused time, so that the figures are exact. F58 over a tonic `Channel` is in
//! `stacks/tests/tonic/readiness.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use support::{
    API, Answer, Fake, a3_key, answer, get, invalid_token, nonce_challenge, ok, own_token, plain,
    token, token_layer, with_token,
};
use tokio::{sync::Semaphore, time::Instant};
use tower::{
    Service, ServiceBuilder, ServiceExt, limit::ConcurrencyLimit, load_shed::error::Overloaded,
    service_fn, timeout::error::Elapsed, util::BoxCloneSyncService,
};
use tower_dpop::{BoxError, DpopLayer, Error};
use tower_test::mock;

const AS: &str = "as.example.com";
const RS: &str = "api.example.com";
const OTHER: &str = "https://other.example/";

type Call = Request<Full<Bytes>>;
type Client = BoxCloneSyncService<Call, Answer, BoxError>;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Both layers over `api`, and token requests through `client`.
fn stack<C, S>(client: C, api: S) -> Client
where
    C: Service<Call, Response = Answer> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
    S: Service<Call, Response = Answer> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, client);
    let stack = ServiceBuilder::new().layer(tokens).layer(dpop);
    BoxCloneSyncService::new(stack.service(api).map_response(plain))
}

/// An authorization server that gives `t0`, `t1`, … after a while.
fn authorization_server(delay: Duration) -> Fake {
    Fake::new(|_, n| token(&format!("t{n}"), 300)).delay(delay)
}

/// An API that takes every token but those `refused`.
fn api(delay: Duration, refused: &'static [&'static str]) -> Fake {
    Fake::new(move |seen, _| {
        let token = seen.header("authorization").unwrap_or_default();
        if refused.contains(&token.trim_start_matches("DPoP ")) {
            invalid_token()
        } else {
            ok()
        }
    })
    .delay(delay)
}

/// One client for both servers.
fn either(authorization_server: &Fake, api: &Fake) -> Client {
    let (authorization_server, api) = (authorization_server.clone(), api.clone());
    BoxCloneSyncService::new(service_fn(move |request: Call| {
        let to_as = request.uri().host() == Some(AS);
        if to_as { &authorization_server } else { &api }
            .clone()
            .oneshot(request)
    }))
}

fn ours(error: &BoxError) -> &Error {
    Error::find(&**error).unwrap_or_else(|| panic!("not ours: {error}"))
}

/// A deadlock is a failure, and in paused time no wait.
async fn in_time<F: Future>(future: F) -> F::Output {
    let hour = Duration::from_secs(3600);
    let output = tokio::time::timeout(hour, future).await;
    output.unwrap_or_else(|_| panic!("a deadlock"))
}

// F55: the token request goes through the same limited stack.

/// The token client beside the limit, where it belongs, or below it, which is the documented mistake.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Separate,
    Shared,
}

/// Sixteen requests through a limit; the time until all have succeeded.
///
/// Each caller keeps its service until it has its answer: one that was ready and waits for a token must not
/// keep its place. They start a little apart, and otherwise in each run.
async fn sixteen(
    limit: usize,
    layout: Layout,
    refused: &'static [&'static str],
    run: u64,
) -> Duration {
    let authorization_server = authorization_server(ms(50));
    let api = api(ms(5), refused);
    let stack = match layout {
        Layout::Separate => {
            let limited = ConcurrencyLimit::new(api.clone(), limit);
            stack(authorization_server.clone(), limited)
        }
        Layout::Shared => {
            let both = either(&authorization_server, &api);
            let limited = ConcurrencyLimit::new(both, limit);
            stack(limited.clone(), limited)
        }
    };
    let started = Instant::now();
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let mut stack = stack.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ms(n * run % 7)).await;
                let answer = stack.ready().await?.call(get(API)).await;
                drop(stack);
                answer
            })
        })
        .collect();
    let all = async {
        for task in tasks {
            assert_eq!(task.await.unwrap().unwrap().status(), 200);
        }
    };
    in_time(all).await;
    assert_eq!(authorization_server.seen().len(), 1 + refused.len());
    started.elapsed()
}

#[tokio::test(start_paused = true)]
async fn f55_sixteen_of_sixteen_get_through_a_limit_in_200_ms_a_thousand_times() {
    for run in 0..250 {
        for limit in [1, 4] {
            for layout in [Layout::Separate, Layout::Shared] {
                let took = sixteen(limit, layout, &[], run).await;
                assert!(
                    took < ms(200),
                    "{layout:?}, limit {limit}, run {run}: {took:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f55_a_renewal_does_not_lock_itself_out_either() {
    for run in 0..25 {
        for limit in [1, 4] {
            for layout in [Layout::Separate, Layout::Shared] {
                // Two tokens for 50 ms each, and at the most 32 sends of 5 ms one after the other.
                let took = sixteen(limit, layout, &["t0"], run).await;
                assert!(
                    took < ms(300),
                    "{layout:?}, limit {limit}, run {run}: {took:?}"
                );
            }
        }
    }
}

// F56: the authorization server stalls, and traffic that needs no token shares the limit.

#[tokio::test(start_paused = true)]
async fn f56_while_the_authorization_server_stalls_unrelated_requests_take_20_ms_at_the_most() {
    for limit in [1, 4] {
        let authorization_server = authorization_server(Duration::from_secs(2));
        let api = api(ms(10), &[]);
        let limited = ConcurrencyLimit::new(api.clone(), limit);
        let stack = stack(authorization_server.clone(), limited);
        let started = Instant::now();
        let waiting: Vec<_> = (0..16)
            .map(|_| {
                let mut stack = stack.clone();
                tokio::spawn(async move {
                    let answer = stack.ready().await?.call(get(API)).await;
                    drop(stack);
                    answer
                })
            })
            .collect();
        tokio::time::sleep(ms(10)).await;
        for n in 0..100 {
            let started = Instant::now();
            let answer = in_time(stack.clone().oneshot(get(OTHER))).await.unwrap();
            assert_eq!(answer.status(), 200);
            let took = started.elapsed();
            assert!(took <= ms(20), "limit {limit}, request {n}: {took:?}");
        }
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "it still stalls"
        );
        assert_eq!(api.seen_by(RS).len(), 0);
        for task in waiting {
            assert_eq!(in_time(task).await.unwrap().unwrap().status(), 200);
        }
        assert_eq!(authorization_server.seen().len(), 1);
        assert_eq!(api.seen_by(RS).len(), 16);
    }
}

// F57: polled ready and never called.

#[tokio::test(start_paused = true)]
async fn f57_who_was_ready_and_is_dropped_leaves_its_place_and_asks_for_no_token() {
    const PLACES: usize = 4;
    let authorization_server = authorization_server(ms(50));
    let api = api(Duration::ZERO, &[]);
    let places = Arc::new(Semaphore::new(PLACES));
    let limited = ConcurrencyLimit::with_semaphore(api.clone(), places.clone());
    let stack = stack(authorization_server.clone(), limited);
    for _ in 0..1000 {
        let mut ready: Vec<_> = (0..PLACES).map(|_| stack.clone()).collect();
        for handle in &mut ready {
            in_time(handle.ready()).await.unwrap();
        }
        assert_eq!(places.available_permits(), 0);
        // One that waits for a place, and loses the race.
        let mut loser = stack.clone();
        tokio::select! {
            biased;
            _ = loser.ready() => panic!("there is no place"),
            () = std::future::ready(()) => {}
        }
        drop(ready);
        // A place that comes free goes to the first in line, which the loser still is.
        drop(loser);
        assert_eq!(places.available_permits(), PLACES);
        // One that was ready, and whose request is not sent since another branch was first.
        let mut loser = stack.clone();
        tokio::select! {
            biased;
            never = async { loser.ready().await.unwrap(); std::future::pending::<()>().await } => never,
            () = tokio::task::yield_now() => {}
        }
        drop(loser);
        assert_eq!(places.available_permits(), PLACES);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(authorization_server.seen().len(), 0);
    assert_eq!(api.seen().len(), 0);
    assert_eq!(
        in_time(stack.oneshot(get(API))).await.unwrap().status(),
        200
    );
    assert_eq!(places.available_permits(), PLACES);
    assert_eq!(authorization_server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn f57_nor_do_places_in_a_buffer_leak() {
    let authorization_server = authorization_server(ms(50));
    let buffered = ServiceBuilder::new()
        .buffer(1)
        .service(api(Duration::ZERO, &[]));
    let stack = stack(authorization_server.clone(), buffered);
    for _ in 0..1000 {
        in_time(stack.clone().ready()).await.unwrap();
    }
    assert_eq!(authorization_server.seen().len(), 0);
    let answer = in_time(stack.oneshot(get(API))).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn f57_readiness_is_that_of_the_inner_service() {
    let (client, mut authorization_server) = mock::pair::<Call, Answer>();
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, client);
    let layers = ServiceBuilder::new().layer(tokens).layer(dpop).into_inner();
    let (mut service, mut api) = mock::spawn_layer::<Call, Answer, _>(layers);
    // Not that of the token client, which is never ready.
    authorization_server.allow(0);
    api.allow(0);
    tokio_test::assert_pending!(service.poll_ready());
    api.allow(1);
    assert!(service.is_woken());
    tokio_test::assert_ready_ok!(service.poll_ready());
    api.send_error("closed");
    let error = tokio_test::assert_ready_err!(service.poll_ready());
    assert_eq!(error.to_string(), "closed");
}

// F58: who calls a clone of what was polled ready panics, over a service that keeps the contract.

/// Requests on every way through the layers: without a token and with one, challenged, refused, and many at
/// once. All on handles that live on, so that the next request finds what the last one left.
async fn every_way<S>(name: &str, below: impl FnOnce(Fake) -> S)
where
    S: Service<Call, Response = Answer, Error = BoxError> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let authorization_server = authorization_server(ms(50));
    let revoked = Arc::new(AtomicBool::new(false));
    let api = {
        let revoked = revoked.clone();
        Fake::new(move |seen, n| {
            let challenged = seen.uri.path() == "/nonce";
            let challenged =
                challenged && seen.nonce().is_none_or(|nonce| nonce.starts_with("old"));
            let refused = seen.header("authorization") == Some("DPoP t0");
            if refused && revoked.load(Ordering::Relaxed) {
                return invalid_token();
            }
            if challenged {
                return nonce_challenge(&format!("new{n}"));
            }
            // So that whoever comes to `/nonce` next is challenged again.
            let mut answer = ok();
            answer
                .headers_mut()
                .insert("dpop-nonce", "old".parse().unwrap());
            answer
        })
        .delay(ms(10))
    };
    let stack = stack(authorization_server.clone(), below(api.clone()));
    let requests = async {
        let mut handle = stack.clone();
        for (path, revoke) in [
            ("/", false),
            ("/", false),
            ("/nonce", false),
            ("/", true),
            ("/nonce", true),
            ("/", true),
        ] {
            revoked.store(revoke, Ordering::Relaxed);
            let request = get(&format!("{API}{path}"));
            let answer = handle.ready().await.unwrap().call(request).await.unwrap();
            assert_eq!(answer.status(), 200, "{name} {path}");
        }
        // A request that cannot be sent takes nothing from the next one.
        let unsent = handle.ready().await.unwrap().call(get("/path"));
        assert!(ours(&unsent.await.unwrap_err()).is_missing_origin());
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let mut stack = stack.clone();
                tokio::spawn(async move {
                    for path in ["/", "/nonce"] {
                        let request = get(&format!("{API}{path}"));
                        let answer = stack.ready().await.unwrap().call(request).await;
                        assert_eq!(answer.unwrap().status(), 200);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    };
    in_time(requests).await;
    assert_eq!(authorization_server.seen().len(), 2, "{name}");
}

#[tokio::test(start_paused = true)]
async fn f58_over_and_under_a_buffer() {
    every_way("buffer of 1", |api| {
        ServiceBuilder::new().buffer(1).service(api)
    })
    .await;
    every_way("buffer of 4", |api| {
        ServiceBuilder::new().buffer(4).service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn f58_over_a_concurrency_limit() {
    for limit in [1, 4] {
        every_way("limit", |api| ConcurrencyLimit::new(api, limit)).await;
    }
    every_way("buffer and limit", |api| {
        ServiceBuilder::new()
            .buffer(1)
            .concurrency_limit(1)
            .service(api)
    })
    .await;
    every_way("limit and buffer", |api| {
        ServiceBuilder::new()
            .concurrency_limit(1)
            .buffer(1)
            .service(api)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn f58_between_limits() {
    let authorization_server = authorization_server(ms(50));
    let api = Fake::new(|seen, n| {
        if seen.nonce().is_some() && n > 1 {
            ok()
        } else {
            nonce_challenge(&format!("n{n}"))
        }
    })
    .delay(ms(10));
    let below = ConcurrencyLimit::new(api.clone(), 1);
    let between = ServiceBuilder::new()
        .buffer(4)
        .concurrency_limit(1)
        .service(stack(authorization_server, below));
    let tasks: Vec<_> = (0..4)
        .map(|_| tokio::spawn(between.clone().oneshot(get(API))))
        .collect();
    for task in tasks {
        let answer = in_time(task).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(api.seen().len(), 3 + 3);
}

/// Runs the other tasks until `future` was woken.
async fn woken<F: Future>(future: &tokio_test::task::Spawn<F>) {
    for _ in 0..1000 {
        if future.is_woken() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("nothing woke it");
}

#[tokio::test(start_paused = true)]
async fn f58_each_send_has_a_readiness_of_its_own() {
    // `Mock` panics if it is called without having said that it is ready, and says so as often as allowed.
    let (client, mut authorization_server) = mock::pair::<Call, Answer>();
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, client);
    let layers = ServiceBuilder::new().layer(tokens).layer(dpop).into_inner();
    let (mut service, mut api) = mock::spawn_layer::<Call, Answer, _>(layers);
    authorization_server.allow(0);
    api.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut request = tokio_test::task::spawn(service.call(get(API)));
    tokio_test::assert_pending!(request.poll());

    // No token: nothing is sent on the service that was ready.
    tokio::task::yield_now().await;
    tokio_test::assert_pending!(api.poll_request());
    tokio_test::assert_pending!(authorization_server.poll_request());
    authorization_server.allow(1);
    let (_, reply) = in_time(authorization_server.next_request()).await.unwrap();
    reply.send_response(token("t0", 300));
    api.allow(0);

    let mut proofs = Vec::new();
    // What each send is answered, and with it the token of the next one.
    for (answer, wanted) in [
        (Some(nonce_challenge("n")), "DPoP t0"),
        (Some(invalid_token()), "DPoP t0"),
        (None, "DPoP t1"),
    ] {
        woken(&request).await;
        tokio_test::assert_pending!(request.poll(), "not ready, so nothing is sent");
        tokio_test::assert_pending!(api.poll_request());
        api.allow(1);
        assert!(request.is_woken());
        tokio_test::assert_pending!(request.poll());
        let (seen, reply) = in_time(api.next_request()).await.unwrap();
        assert_eq!(seen.headers()["authorization"], wanted);
        proofs.push(seen.headers()["dpop"].clone());
        let Some(answer) = answer else {
            reply.send_response(ok());
            break;
        };
        let renew = answer.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("invalid_token");
        reply.send_response(answer);
        if renew {
            woken(&request).await;
            tokio_test::assert_pending!(request.poll());
            authorization_server.allow(1);
            let (_, reply) = in_time(authorization_server.next_request()).await.unwrap();
            reply.send_response(token("t1", 300));
        }
    }
    woken(&request).await;
    assert_eq!(tokio_test::assert_ready_ok!(request.poll()).status(), 200);
    proofs.dedup();
    assert_eq!(proofs.len(), 3);
    // The service that was called is as before: not ready before it says so.
    tokio_test::assert_pending!(service.poll_ready());
    api.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut request = tokio_test::task::spawn(service.call(get(API)));
    tokio_test::assert_pending!(request.poll());
    let (seen, reply) = in_time(api.next_request()).await.unwrap();
    assert_eq!(seen.headers()["authorization"], "DPoP t1");
    reply.send_response(ok());
    assert_eq!(tokio_test::assert_ready_ok!(request.poll()).status(), 200);
}

#[tokio::test(start_paused = true)]
async fn f58_so_has_the_retry_of_dpop_alone() {
    let (mut service, mut api) = mock::spawn_layer::<Call, Answer, _>(DpopLayer::new(a3_key()));
    api.allow(1);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let request = with_token(get(API), &own_token(&a3_key()));
    let mut request = tokio_test::task::spawn(service.call(request));
    tokio_test::assert_pending!(request.poll());
    let mut proofs = Vec::new();
    for n in 0..3 {
        let (seen, reply) = in_time(api.next_request()).await.unwrap();
        proofs.push(seen.headers()["dpop"].clone());
        if n == 2 {
            reply.send_response(ok());
            break;
        }
        reply.send_response(nonce_challenge(&format!("n{n}")));
        assert!(request.is_woken());
        tokio_test::assert_pending!(request.poll(), "not ready, so nothing is sent");
        tokio_test::assert_pending!(api.poll_request());
        api.allow(1);
        assert!(request.is_woken());
        tokio_test::assert_pending!(request.poll());
    }
    assert_eq!(tokio_test::assert_ready_ok!(request.poll()).status(), 200);
    proofs.dedup();
    assert_eq!(proofs.len(), 3);
}

// F59: a token's failure under a `Buffer`, which takes one error of `poll_ready` for the end.

/// Longer than the layer waits after any failure.
const BACK_OFF: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn f59_after_a_hundred_token_errors_a_buffer_above_still_serves() {
    // At once, they are one failure that all are told of; apart, each has a token request of its own.
    for (apart, token_requests) in [(Duration::ZERO, 1), (BACK_OFF, 100)] {
        let down = Arc::new(AtomicBool::new(true));
        let server = {
            let down = down.clone();
            Fake::new(move |seen, _| match seen.uri.host() {
                Some(AS) if down.load(Ordering::Relaxed) => answer(503, &[], "down"),
                Some(AS) => token("t", 300),
                _ => ok(),
            })
        };
        let mut buffered = ServiceBuilder::new()
            .buffer(1)
            .service(stack(server.clone(), server.clone()));
        for n in 0..100 {
            let answer = buffered.ready().await.expect("always ready").call(get(API));
            let error = answer.await.unwrap_err();
            assert!(ours(&error).is_token_request(), "request {n}: {error}");
            assert!(error.to_string().contains("503"), "request {n}: {error}");
            if !apart.is_zero() {
                tokio::time::sleep(apart).await;
            }
        }
        assert_eq!(server.seen_by(AS).len(), token_requests);
        assert_eq!(server.seen_by(RS).len(), 0);
        // What needs no token is served all along.
        let answer = buffered.ready().await.unwrap().call(get(OTHER)).await;
        assert_eq!(answer.unwrap().status(), 200);

        down.store(false, Ordering::Relaxed);
        tokio::time::sleep(BACK_OFF).await;
        for _ in 0..100 {
            let answer = buffered.ready().await.unwrap().call(get(API)).await;
            assert_eq!(answer.unwrap().status(), 200);
        }
    }
}

// F60: a timeout outside that is shorter than the authorization server takes.

#[tokio::test(start_paused = true)]
async fn f60_with_a_timeout_of_100_ms_a_token_that_takes_300_ms_is_there_at_300_ms() {
    let authorization_server = authorization_server(ms(300));
    let api = api(ms(10), &[]);
    let timed = ServiceBuilder::new()
        .timeout(ms(100))
        .service(stack(authorization_server.clone(), api.clone()));
    let started = Instant::now();
    for n in 1..=2 {
        let error = timed.clone().oneshot(get(API)).await.unwrap_err();
        assert!(error.is::<Elapsed>(), "{error}");
        assert_eq!(started.elapsed(), n * ms(100));
    }
    tokio::time::sleep(ms(90)).await;
    assert_eq!(authorization_server.seen().len(), 1, "it flies on");
    assert_eq!(api.seen().len(), 0);

    // One that joins late, and one that comes at 300 ms.
    let late = tokio::spawn(timed.clone().oneshot(get(API)));
    tokio::time::sleep_until(started + ms(300)).await;
    let answer = timed.oneshot(get(API)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(started.elapsed(), ms(310), "no waiting for a token");
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
    assert_eq!(authorization_server.seen().len(), 1);
    assert_eq!(api.seen().len(), 2);
}

// F61: a limit inside that sheds load.

#[tokio::test(start_paused = true)]
async fn f61_overloaded_passes_and_changes_nothing_about_the_token() {
    let authorization_server = authorization_server(ms(50));
    let api = api(ms(100), &[]);
    let limited = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(api.clone());
    let stack = stack(authorization_server.clone(), limited);
    let overloaded = async || {
        let started = Instant::now();
        let error = stack.clone().oneshot(get(API)).await.unwrap_err();
        assert!(error.downcast::<Overloaded>().is_ok(), "as it was");
        assert_eq!(started.elapsed(), Duration::ZERO);
    };
    // The first two have to wait for the token, and one of them finds a place.
    let (first, second) = tokio::join!(
        stack.clone().oneshot(get(API)),
        stack.clone().oneshot(get(API)),
    );
    let (sent, shed) = match (first, second) {
        (Ok(sent), Err(shed)) | (Err(shed), Ok(sent)) => (sent, shed),
        other => panic!("{other:?}"),
    };
    assert_eq!(sent.status(), 200);
    assert!(shed.downcast::<Overloaded>().is_ok());
    for _ in 0..3 {
        let one = tokio::spawn(stack.clone().oneshot(get(API)));
        tokio::task::yield_now().await;
        for _ in 0..10 {
            overloaded().await;
        }
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
        // At once, with the same token: this is no failure to be waited for.
        let started = Instant::now();
        let next = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(next.status(), 200);
        assert_eq!(started.elapsed(), ms(100));
    }
    assert_eq!(authorization_server.seen().len(), 1);
    assert!(
        api.seen()
            .iter()
            .all(|seen| seen.header("authorization") == Some("DPoP t0"))
    );
}

#[tokio::test(start_paused = true)]
async fn f61_so_does_a_rate_limit() {
    let authorization_server = authorization_server(ms(50));
    let api = api(Duration::ZERO, &[]);
    // A rate limit is not `Clone`: a buffer shares it.
    let limited = ServiceBuilder::new()
        .buffer(16)
        .load_shed()
        .rate_limit(1, Duration::from_secs(1))
        .service(api.clone());
    let stack = stack(authorization_server.clone(), limited);
    for _ in 0..5 {
        let answer = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(answer.status(), 200);
        for _ in 0..10 {
            let error = stack.clone().oneshot(get(API)).await.unwrap_err();
            assert!(error.downcast::<Overloaded>().is_ok());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(authorization_server.seen().len(), 1);
    assert_eq!(api.seen().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn f61_our_own_second_sending_is_not_shed_for_the_place_of_the_first() {
    let authorization_server = authorization_server(ms(50));
    let api = Fake::new(|seen, n| match (seen.header("authorization"), n) {
        (Some("DPoP t0"), 0) => nonce_challenge("n"),
        (Some("DPoP t0"), _) => invalid_token(),
        _ => ok(),
    })
    .delay(ms(10));
    let limited = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(api.clone());
    let stack = stack(authorization_server.clone(), limited);
    for sends in [3, 4] {
        let answer = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!((answer.status().as_u16(), api.seen().len()), (200, sends));
    }
    assert_eq!(authorization_server.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn f61_a_retry_that_is_shed_leaves_what_was_learned() {
    let authorization_server = authorization_server(ms(50));
    let api = Fake::new(|seen, _| match seen.nonce() {
        Some(_) => ok(),
        None => nonce_challenge("n"),
    });
    // Lets the first sending of each request through, until it is told to let all.
    let shed = Arc::new(Mutex::new(vec![false, true]));
    let limited = {
        let api = api.clone();
        service_fn(move |request: Call| {
            let mut shed = shed.lock().unwrap();
            let shed = !shed.is_empty() && shed.remove(0);
            let api = api.clone();
            async move {
                if shed {
                    return Err(Overloaded::new().into());
                }
                api.oneshot(request).await
            }
        })
    };
    let stack = stack(authorization_server.clone(), limited);
    let error = stack.clone().oneshot(get(API)).await.unwrap_err();
    assert!(error.downcast::<Overloaded>().is_ok());
    let answer = stack.oneshot(get(API)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(api.seen().len(), 2, "the nonce was remembered");
    assert_eq!(authorization_server.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn f61_one_that_sheds_above_finds_us_as_ready_as_what_is_below() {
    let authorization_server = authorization_server(ms(50));
    let api = api(ms(10), &[]);
    let limited = ConcurrencyLimit::new(api, 1);
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, authorization_server.clone());
    let mut shed = ServiceBuilder::new()
        .load_shed()
        .layer(tokens)
        .layer(dpop)
        .service(limited);
    // Whoever waits for a token has no place, so nobody is shed for that.
    let first = shed.ready().await.unwrap().call(get(API));
    let second = shed.ready().await.unwrap().call(get(API));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap().status(), 200);
    assert_eq!(second.unwrap().status(), 200);

    let first = shed.ready().await.unwrap().call(get(API));
    let second = shed.ready().await.unwrap().call(get(API));
    assert!(second.await.unwrap_err().is::<Overloaded>());
    // A service that was found not ready keeps its place in the limit's queue: tower's, not ours.
    drop(shed);
    assert_eq!(first.await.unwrap().status(), 200);
    assert_eq!(authorization_server.seen().len(), 1);
}
