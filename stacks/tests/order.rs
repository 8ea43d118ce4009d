//! The order of the layers: each of tower's and tower-http's middlewares above, between and below ours, over
//! TCP against servers that check everything and refuse a proof that they saw before.
//!
//! Redirects have a file of their own, `redirects.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use tower::{
    BoxError, Layer as _, Service as _, ServiceBuilder, ServiceExt as _, hedge,
    load_shed::error::Overloaded, service_fn, timeout::error::Elapsed,
};
use tower_dpop::{
    Challenge,
    testing::{Nonces, ResourceServer},
};
use tower_http::{compression::CompressionLayer, trace::TraceLayer};
use world::{
    Call, Place, REUSED, Stack, World, boxed, count, get,
    middlewares::{self, REQUEST_ID},
    ours, send,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs a scenario in each cell: each middleware, in each place, in both versions of HTTP.
async fn everywhere(scenario: impl AsyncFn(&World, &Stack, &str)) {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (name, wrap) in middlewares::ALL {
            for place in Place::ALL {
                let world = World::speaking(version).await;
                let stack = world.stack(place, wrap);
                let what = format!("{name} {place:?}, {version:?}");
                scenario(&world, &stack, &what).await;
                world.one_proof_for_each_sending(&what);
            }
        }
    }
}

/// One request, which must be served.
async fn one(world: &World, stack: &Stack, what: &str) {
    let (head, body) = send(stack, world.get("/one")).await.unwrap();
    assert_eq!(head.status, 200, "{what}: {body:?}");
}

/// So many requests at once, which must be served all.
async fn in_parallel(world: &World, stack: &Stack, requests: usize, what: &str) {
    let tasks: Vec<_> = (0..requests)
        .map(|n| {
            let (stack, request) = (stack.clone(), world.get(&format!("/{n}")));
            tokio::spawn(async move { send(&stack, request).await })
        })
        .collect();
    for task in tasks {
        let (head, body) = task.await.unwrap().unwrap();
        assert_eq!(head.status, 200, "{what}: {body:?}");
    }
}

/// The error code of the DPoP challenge.
fn error_code(headers: &HeaderMap) -> Option<String> {
    let challenges = Challenge::all(headers);
    let challenge = challenges.iter().find(|found| found.is_scheme("DPoP"))?;
    challenge.parameter("error").map(str::to_owned)
}

async fn until(mut condition: impl FnMut() -> bool) {
    world::in_time(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

// The table: what nothing provokes changes nothing, wherever it stands.

#[tokio::test]
async fn in_every_place_requests_in_parallel_share_one_token() {
    everywhere(async |world, stack, what| {
        in_parallel(world, stack, 16, what).await;
        assert_eq!(world.sendings(), (1, 16), "{what}");
        one(world, stack, what).await;
        assert_eq!(world.sendings(), (1, 17), "{what}");
    })
    .await;
}

#[tokio::test]
async fn in_every_place_a_nonce_challenge_is_answered_within_the_call() {
    everywhere(async |world, stack, what| {
        world.authorization_server.nonces(Nonces::required());
        world.api.nonces(Nonces::required());
        for sendings in [(2, 2), (2, 3)] {
            one(world, stack, what).await;
            assert_eq!(world.sendings(), sendings, "{what}");
        }
        world.api.rotate_nonce();
        one(world, stack, what).await;
        assert_eq!(world.sendings(), (2, 5), "{what}");
    })
    .await;
}

#[tokio::test]
async fn in_every_place_requests_in_parallel_get_through_one_time_nonces() {
    everywhere(async |world, stack, what| {
        world.api.nonces(Nonces::one_time());
        in_parallel(world, stack, 8, what).await;
        let (asked, served) = world.sendings();
        assert_eq!(asked, 1, "{what}");
        // One after the other only the first is challenged; at once each may be, and twice at the most.
        assert!((9..=24).contains(&served), "{what}: {served}");
    })
    .await;
}

#[tokio::test]
async fn in_every_place_a_revoked_token_is_renewed_within_the_call() {
    everywhere(async |world, stack, what| {
        world.api.nonces(Nonces::required());
        one(world, stack, what).await;
        assert_eq!(world.sendings(), (1, 2), "{what}");
        world.authorization_server.revoke_all();
        world.api.rotate_nonce();
        // The refusal of the token brings the new nonce along.
        one(world, stack, what).await;
        assert_eq!(world.sendings(), (2, 4), "{what}");
    })
    .await;
}

#[tokio::test]
async fn in_every_place_one_renewal_serves_all_that_saw_the_refusal() {
    everywhere(async |world, stack, what| {
        one(world, stack, what).await;
        world.authorization_server.revoke_all();
        in_parallel(world, stack, 8, what).await;
        let (asked, served) = world.sendings();
        assert_eq!(asked, 2, "{what}");
        assert!(served <= 1 + 2 * 8, "{what}: {served}");
    })
    .await;
}

#[tokio::test]
async fn in_every_place_a_body_arrives_whole_with_every_sending() {
    everywhere(async |world, stack, what| {
        world.has_a_token().await;
        world.authorization_server.revoke_all();
        world.api.nonces(Nonces::required());
        let order = Request::post(world.api.url("/orders")).body(Full::from("ten of them"));
        let (head, body) = send(stack, order.unwrap()).await.unwrap();
        assert_eq!(head.status, 200, "{what}: {body:?}");
        let sent = world.api.requests();
        assert_eq!(sent.len(), 2, "{what}");
        assert!(
            sent.iter().all(|sent| sent.body() == "ten of them"),
            "{what}"
        );
    })
    .await;
}

// All of them at once, in the order that the docs give to copy.

fn the_order_to_copy(world: &World) -> Stack {
    let above = [
        middlewares::timeout,
        middlewares::load_shed,
        middlewares::wide_buffer,
        middlewares::request_id,
        middlewares::trace,
        middlewares::redirect,
        middlewares::retry,
    ];
    let below = [
        middlewares::rate_limit,
        |inner| middlewares::concurrency_limit(inner, 4),
        middlewares::timeout,
        middlewares::trace,
        middlewares::decompression,
    ];
    let wrapped = |inner: Stack, layers: &[middlewares::Wrap]| {
        layers.iter().rev().fold(inner, |inner, layer| layer(inner))
    };
    let inner = wrapped(world.http.clone(), &below);
    let ours = ServiceBuilder::new()
        .layer(world.tokens.clone())
        .layer(world.dpop.clone());
    wrapped(boxed(ours.service(inner)), &above)
}

#[tokio::test]
async fn the_order_to_copy_stands_all_troubles_at_once() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let world = World::speaking(version).await;
        let stack = the_order_to_copy(&world);
        let what = format!("{version:?}");
        world.authorization_server.nonces(Nonces::required());
        world.api.nonces(Nonces::one_time());
        in_parallel(&world, &stack, 16, &what).await;
        // A challenge, and the token.
        assert_eq!(world.authorization_server.request_count(), 2, "{what}");
        for trouble in Trouble::ALL {
            let sent = world.api.request_count();
            trouble.is_next_for(&world.api);
            one(&world, &stack, &what).await;
            assert!(world.api.request_count() >= sent + 2, "{what}");
        }
        world.authorization_server.revoke_all();
        in_parallel(&world, &stack, 16, &what).await;
        assert_eq!(world.authorization_server.request_count(), 3, "{what}");

        let led = |location| {
            let answer = Response::builder().status(307).header("location", location);
            answer.body(Bytes::new()).unwrap()
        };
        world.api.answer(1, led(world.foreign.url("/away")));
        world.foreign.answer(1, led(world.api.url("/back")));
        one(&world, &stack, &what).await;
        let stranger = &world.foreign.requests()[0];
        for header in ["authorization", "dpop"] {
            assert_eq!(count(stranger, header), 0, "{what} {header}");
        }
        world.one_proof_for_each_sending(&what);
    }
}

// Retry.

#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// A 503 from something before the server, such as a gateway.
    Unavailable,
    /// The request was served, and its answer lost.
    Lost,
}

impl Trouble {
    const ALL: [Self; 2] = [Self::Unavailable, Self::Lost];

    fn is_next_for(self, api: &ResourceServer) {
        match self {
            Self::Unavailable => api.fail(1, StatusCode::SERVICE_UNAVAILABLE),
            Self::Lost => api.lose_answers(1),
        }
    }
}

#[tokio::test]
async fn f49_a_retry_above_or_between_sends_each_time_a_new_proof() {
    for place in Place::RE_SIGNED {
        for trouble in Trouble::ALL {
            let world = World::new().await;
            let stack = world.stack(place, middlewares::retry);
            for n in 1..=10 {
                trouble.is_next_for(&world.api);
                one(&world, &stack, &format!("{place:?} {trouble:?}")).await;
                assert_eq!(world.sendings(), (1, 2 * n), "{place:?} {trouble:?}");
            }
            world.one_proof_for_each_sending(&format!("{place:?} {trouble:?}"));
        }
    }
}

#[tokio::test]
async fn f50_a_retry_below_sends_the_same_proof_again_and_the_server_refuses_it() {
    let world = World::new().await;
    let stack = world.stack(Place::Below, middlewares::retry);
    world.api.lose_answers(1);
    let (head, _) = send(&stack, world.get("/")).await.unwrap();
    assert_eq!(head.status, 401);
    assert_eq!(
        error_code(&head.headers).as_deref(),
        Some("invalid_dpop_proof")
    );
    assert_same_proof_refused(&world);
}

/// The API saw one proof twice: it served the first sending, and refused the second.
#[track_caller]
fn assert_same_proof_refused(world: &World) {
    let [first, second] = &world.api.requests()[..] else {
        panic!("{:?}", world.api.requests())
    };
    assert_eq!(first.proof(), second.proof());
    assert_eq!(first.status(), Some(StatusCode::OK));
    assert_eq!(second.refused(), Some(REUSED));
    assert_eq!(world.authorization_server.request_count(), 1);
}

#[tokio::test]
async fn a_retry_between_that_copies_no_extensions_sends_again_without_a_token() {
    for (place, status, tokens) in [(Place::Above, 200, 1), (Place::Between, 401, 0)] {
        let world = World::new().await;
        let stack = world.stack(place, middlewares::forgetful_retry);
        world.api.lose_answers(1);
        let (head, _) = send(&stack, world.get("/")).await.unwrap();
        assert_eq!(head.status, status, "{place:?}");
        let sent = world.api.requests();
        assert_eq!(sent.len(), 2, "{place:?}");
        for header in ["authorization", "dpop"] {
            assert_eq!(count(&sent[1], header), tokens, "{place:?} {header}");
        }
    }
}

// Hedge.

/// The first sending gets no answer, and the second is allowed as soon as the first has arrived.
#[derive(Clone)]
struct OnceArrived(ResourceServer);

impl hedge::Policy<Call> for OnceArrived {
    fn clone_request(&self, request: &Call) -> Option<Call> {
        Some(request.clone())
    }

    fn can_retry(&self, _: &Call) -> bool {
        let started = Instant::now();
        tokio::task::block_in_place(|| {
            while self.0.request_count() == 0 && started.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        self.0.delay(Duration::ZERO);
        true
    }
}

/// A stack that has a token and sends a request twice.
async fn hedged(world: &World, place: Place) -> Stack {
    world.has_a_token().await;
    world.api.delay(HOUR);
    let policy = OnceArrived(world.api.clone());
    let after = Duration::from_millis(10);
    world.stack(place, |inner| middlewares::hedge(inner, policy, after))
}

#[tokio::test(flavor = "multi_thread")]
async fn f49_a_hedge_above_or_between_has_a_proof_for_each_of_its_sendings() {
    for place in Place::RE_SIGNED {
        for nonces in [Nonces::off(), Nonces::required(), Nonces::one_time()] {
            let world = World::new().await;
            let stack = hedged(&world, place).await;
            world.api.nonces(nonces);
            one(&world, &stack, &format!("{place:?}")).await;
            assert_eq!(world.authorization_server.request_count(), 1, "{place:?}");
            assert!(world.api.request_count() >= 2, "{place:?}");
            world.one_proof_for_each_sending(&format!("{place:?}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f50_a_hedge_below_sends_the_same_proof_twice_and_the_refusal_is_the_answer() {
    let world = World::new().await;
    let stack = hedged(&world, Place::Below).await;
    let (head, _) = send(&stack, world.get("/")).await.unwrap();
    assert_eq!(head.status, 401);
    assert_eq!(
        error_code(&head.headers).as_deref(),
        Some("invalid_dpop_proof")
    );
    assert_same_proof_refused(&world);
}

// Timeout: above it bounds the whole, between what follows the token, below each sending.

const LIMIT: Duration = Duration::from_millis(1_600);
/// Two of them are more than the limit.
const STEP: Duration = Duration::from_secs(1);

async fn timed(world: &World, place: Place) -> Result<StatusCode, BoxError> {
    let stack = world.stack(place, |inner| {
        boxed(ServiceBuilder::new().timeout(LIMIT).service(inner))
    });
    let answer = send(&stack, world.get("/")).await;
    answer.map(|(head, _)| head.status)
}

#[tokio::test]
async fn only_a_timeout_above_bounds_the_wait_for_a_token_which_is_fetched_all_the_same() {
    let outcomes = Place::ALL.map(async |place| {
        let world = World::new().await;
        world.authorization_server.delay(2 * STEP);
        let outcome = timed(&world, place).await;
        match place {
            Place::Above => assert!(outcome.unwrap_err().is::<Elapsed>()),
            _ => assert_eq!(outcome.unwrap(), 200, "{place:?}"),
        }
        one(
            &world,
            &world.stack(place, |inner| inner),
            "without a timeout",
        )
        .await;
        assert_eq!(world.authorization_server.request_count(), 1, "{place:?}");
    });
    futures_util::future::join_all(outcomes).await;
}

#[tokio::test]
async fn a_timeout_below_bounds_each_sending_and_not_all_of_them() {
    let outcomes = Place::ALL.map(async |place| {
        let world = World::new().await;
        world.has_a_token().await;
        world.api.nonces(Nonces::required());
        world.api.delay(STEP);
        let outcome = timed(&world, place).await;
        match place {
            Place::Below => assert_eq!(outcome.unwrap(), 200),
            _ => assert!(outcome.unwrap_err().is::<Elapsed>(), "{place:?}"),
        }
        assert_eq!(world.api.request_count(), 2, "{place:?}");
    });
    futures_util::future::join_all(outcomes).await;
}

// Limits: what holds a place, and what counts.

/// A request that waits for a token which never comes, and whose caller keeps the handle that was ready.
async fn waits_for_a_token(world: &World, stack: &Stack) -> tokio::task::JoinHandle<()> {
    world.authorization_server.delay(HOUR);
    let (mut stack, request) = (stack.clone(), world.get("/"));
    let waiting = tokio::spawn(async move {
        let _ = stack.ready().await.unwrap().call(request).await;
        drop(stack);
    });
    until(|| world.authorization_server.request_count() == 1).await;
    waiting
}

#[tokio::test]
async fn who_waits_for_a_token_holds_a_place_of_a_concurrency_limit_above_and_none_below() {
    for place in Place::ALL {
        let world = World::new().await;
        let stack = world.stack(place, |inner| middlewares::concurrency_limit(inner, 1));
        let waiting = waits_for_a_token(&world, &stack).await;
        let mut next = stack.clone();
        let has_a_place = next.ready().now_or_never().is_some();
        assert_eq!(has_a_place, place != Place::Above, "{place:?}");
        drop(next);
        if place != Place::Above {
            // It needs no token: it only passes.
            send(&stack, get(&world.foreign.url("/"))).await.unwrap();
            assert_eq!(world.foreign.request_count(), 1);
        }
        waiting.abort();
    }
}

#[tokio::test]
async fn load_shedding_over_a_limit_sheds_for_those_who_wait_for_a_token_only_above() {
    for place in Place::ALL {
        let world = World::new().await;
        let stack = world.stack(place, |inner| {
            let shed = ServiceBuilder::new().load_shed().concurrency_limit(1);
            boxed(shed.service(inner))
        });
        let waiting = waits_for_a_token(&world, &stack).await;
        let other = send(&stack, get(&world.foreign.url("/"))).await;
        match place {
            Place::Above => assert!(other.unwrap_err().is::<Overloaded>()),
            _ => assert_eq!(other.unwrap().0.status, 401, "{place:?}: without a token"),
        }
        waiting.abort();
    }
}

/// A request that is challenged, and one whose token is refused: two calls, four sendings.
async fn two_calls(world: &World, stack: &Stack) -> Result<[HeaderMap; 2], BoxError> {
    world.has_a_token().await;
    world.api.nonces(Nonces::required());
    let (first, _) = send(stack, world.get("/first")).await?;
    assert_eq!(first.status, 200);
    world.authorization_server.revoke_all();
    let (second, _) = send(stack, world.get("/second")).await?;
    assert_eq!(second.status, 200);
    assert_eq!(world.sendings(), (2, 4));
    Ok([first.headers, second.headers])
}

/// How often a middleware is passed by `two_calls`.
fn passes(place: Place) -> usize {
    match place {
        Place::Above => 2,
        Place::Between => 3,
        Place::Below => 4,
    }
}

#[tokio::test]
async fn a_rate_limit_above_counts_calls_and_below_sendings() {
    for place in Place::ALL {
        for (rate, enough) in [(passes(place), true), (passes(place) - 1, false)] {
            let world = World::new().await;
            let stack = world.stack(place, |inner| {
                let limited = ServiceBuilder::new()
                    .buffer(4)
                    .load_shed()
                    .rate_limit(rate.try_into().unwrap(), HOUR);
                boxed(limited.service(inner))
            });
            match two_calls(&world, &stack).await {
                Ok(_) => assert!(enough, "{place:?} {rate}"),
                Err(error) => {
                    assert!(error.is::<Overloaded>(), "{place:?} {rate}: {error}");
                    assert!(!enough, "{place:?} {rate}");
                }
            }
        }
    }
}

// What only looks.

#[tokio::test]
async fn a_trace_above_sees_calls_and_below_sendings_and_no_secret_in_any_place() {
    for place in Place::ALL {
        let world = World::new().await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stack = world.stack(place, |inner| {
            let seen = Arc::clone(&seen);
            let layer =
                TraceLayer::new_for_http().on_request(move |request: &Call, _: &tracing::Span| {
                    seen.lock().unwrap().push(format!("{request:?}"));
                });
            boxed(layer.layer(inner))
        });
        two_calls(&world, &stack).await.unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), passes(place), "{place:?}");
        for text in seen.iter() {
            let signed = text.contains("\"authorization\": Sensitive, \"dpop\": Sensitive");
            assert_eq!(signed, place == Place::Below, "{text}");
        }
        let seen = seen.concat();
        for sent in world.api.requests() {
            let authorization = sent.headers()["authorization"].to_str().unwrap();
            let token = authorization.strip_prefix("DPoP ").unwrap();
            assert!(!seen.contains(token), "{place:?}");
            assert!(!seen.contains(sent.proof().unwrap()), "{place:?}");
        }
    }
}

#[tokio::test]
async fn a_request_id_set_above_names_calls_and_below_sendings() {
    for place in Place::ALL {
        let world = World::new().await;
        let stack = world.stack(place, middlewares::request_id);
        let answers = two_calls(&world, &stack).await.unwrap();
        let sent = world.api.requests();
        let id = |headers: &HeaderMap| headers[REQUEST_ID].to_str().unwrap().to_owned();
        let ids: HashSet<_> = sent.iter().map(|sent| id(sent.headers())).collect();
        assert_eq!(ids.len(), passes(place), "{place:?}");
        // The answer has the id of the sending that it answers.
        for (answer, sending) in answers.iter().zip([&sent[1], &sent[3]]) {
            assert_eq!(id(answer), id(sending.headers()), "{place:?}");
        }
    }
}

/// As a server compresses it that was asked for that.
async fn compressed(text: &'static str) -> Response<Bytes> {
    let server = service_fn(move |_: Request<()>| {
        let answer = Response::new(Full::new(Bytes::from(text)));
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let asked = Request::get("/").header("accept-encoding", "gzip").body(());
    let answer = CompressionLayer::new()
        .layer(server)
        .oneshot(asked.unwrap());
    let (head, body) = answer.await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn decompression_works_in_every_place() {
    let text = "compressed, ".repeat(50).leak();
    let answer = compressed(text).await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    for place in Place::ALL {
        let world = World::new().await;
        let stack = world.stack(place, middlewares::decompression);
        world.api.answer(1, answer.clone());
        let (head, body) = send(&stack, world.get("/")).await.unwrap();
        assert_eq!(head.status, 200, "{place:?}");
        assert_eq!(body, *text, "{place:?}");
        let sent = &world.api.requests()[0];
        assert_eq!(sent.headers()["accept-encoding"], "gzip", "{place:?}");
    }
}

// What loses the layers' own marks.

#[tokio::test]
async fn a_layer_between_that_drops_the_requests_extensions_is_an_error_and_nothing_leaks() {
    let world = World::new().await;
    let forgets = |mut request: Call| {
        request.extensions_mut().clear();
        request
    };
    let stack = world.stack(Place::Between, |inner| {
        boxed(ServiceBuilder::new().map_request(forgets).service(inner))
    });
    assert_layer_order(&world, &stack, 1).await;
}

#[tokio::test]
async fn a_layer_between_that_drops_the_answers_extensions_costs_more_sendings_at_the_worst() {
    // Four sendings are allowed for one call: the first, two for nonces, one for the clock or the token.
    for (place, drops, status, sendings) in [
        (Place::Between, false, 401, 4),
        (Place::Between, true, 200, 7),
        (Place::Above, true, 401, 4),
    ] {
        let world = World::new().await;
        world.api.nonces(Nonces::one_time());
        world.api.clock_offset(-600);
        for (times, error) in [
            (2, "use_dpop_nonce"),
            (1, "invalid_dpop_proof"),
            (1, "invalid_token"),
            (2, "use_dpop_nonce"),
        ] {
            world.api.refuse(times, &format!(r#"DPoP error="{error}""#));
        }
        let forgets = move |mut answer: world::Answer| {
            if drops {
                answer.extensions_mut().clear();
            }
            answer
        };
        let stack = world.stack(place, |inner| {
            boxed(ServiceBuilder::new().map_response(forgets).service(inner))
        });
        let (head, _) = send(&stack, world.get("/")).await.unwrap();
        assert_eq!(head.status, status, "{place:?} {drops}");
        assert_eq!(world.api.request_count(), sendings, "{place:?} {drops}");
        world.one_proof_for_each_sending("extensions");
    }
}

// Our own two layers in a wrong order.

/// The first request fails, and so does each that follows; so many sendings went out each time, without token
/// and without proof.
async fn assert_layer_order(world: &World, stack: &Stack, sendings: usize) -> String {
    let mut text = String::new();
    for n in 1..=3 {
        let error = send(stack, world.get("/")).await.expect_err("an error");
        assert!(ours(&error).is_layer_order(), "{error}");
        text = error.to_string();
        assert_eq!(world.api.request_count(), n * sendings);
    }
    for sent in world.api.requests() {
        assert_eq!(count(&sent, "authorization"), 0, "{sent:?}");
        assert_eq!(count(&sent, "dpop"), 0, "{sent:?}");
    }
    text
}

#[tokio::test]
async fn token_inside_dpop_fails_on_the_first_request_and_names_the_right_order() {
    let world = World::new().await;
    let layers = ServiceBuilder::new()
        .layer(world.dpop.clone())
        .layer(world.tokens.clone());
    let stack = boxed(layers.service(world.http.clone()));
    let text = assert_layer_order(&world, &stack, 1).await;
    assert!(text.contains(".layer(tokens).layer(dpop)"), "{text}");
}

#[tokio::test]
async fn token_without_dpop_fails_on_the_first_request_and_names_the_right_order() {
    let world = World::new().await;
    let stack = boxed(world.tokens.layer(world.http.clone()));
    let text = assert_layer_order(&world, &stack, 1).await;
    assert!(text.contains(".layer(tokens).layer(dpop)"), "{text}");
}

#[tokio::test]
async fn two_dpops_fail_on_the_first_request_which_is_not_sent() {
    let world = World::new().await;
    let layers = ServiceBuilder::new()
        .layer(world.tokens.clone())
        .layer(world.dpop.clone())
        .layer(world.dpop.clone());
    let stack = boxed(layers.service(world.http.clone()));
    let text = assert_layer_order(&world, &stack, 0).await;
    assert!(text.contains("leave one, the innermost"), "{text}");
}

#[tokio::test]
async fn a_second_dpop_above_token_signs_nothing_and_does_no_harm() {
    let world = World::new().await;
    world.api.nonces(Nonces::required());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let layers = ServiceBuilder::new()
        .layer(world.dpop.clone())
        .map_request(move |request: Call| {
            counted.fetch_add(1, Ordering::Relaxed);
            assert!(request.headers().is_empty());
            request
        })
        .layer(world.tokens.clone())
        .layer(world.dpop.clone());
    let stack = boxed(layers.service(world.http.clone()));
    one(&world, &stack, "two").await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(world.sendings(), (1, 2));
    world.one_proof_for_each_sending("two");
}
