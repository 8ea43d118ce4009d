//! `RetryPolicy` above both layers: what is sent again, how often, and when.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::HashSet, io, time::Duration};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use support::{
    API, Answer, Fake, a3_key, and, answer,
    bench::{AS, RS, Stack, audience, find, ms, request, secs, stack},
    ok, refusal, token,
};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt, retry::RetryLayer, util::BoxCloneSyncService};
use tower_dpop::{
    BoxError, DpopLayer, EmptyBody, NoReplay, RecordedBody, ReplayBody, RetryPolicy, TokenLayer,
    dpop::ResponseBody,
};

/// The policy over both layers.
fn retrying(fake: &Fake) -> Stack {
    let layers = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::new()));
    BoxCloneSyncService::new(layers.service(stack(fake)))
}

fn method(method: &Method) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(API);
    request.body(Full::from("order")).unwrap()
}

/// Gives a token, and answers with `first` so many times before it answers well.
fn troubled(
    times: usize,
    first: impl Fn() -> Result<Answer, BoxError> + Send + Sync + 'static,
) -> Fake {
    Fake::failing(move |seen, _| match seen.uri.host() {
        Some(AS) => Ok(token("t", 3000)),
        _ if seen.number < times => first(),
        _ => Ok(ok()),
    })
}

/// How often a request was sent, by a method that is idempotent and by one that is not.
async fn sends(
    first: impl Fn() -> Result<Answer, BoxError> + Clone + Send + Sync + 'static,
) -> (usize, usize) {
    let mut hits = [0, 0];
    for (hits, of) in hits.iter_mut().zip([Method::PUT, Method::POST]) {
        let fake = troubled(1, first.clone());
        let _ = retrying(&fake).oneshot(method(&of)).await;
        *hits = fake.hits(RS);
    }
    hits.into()
}

fn status(status: u16) -> impl Fn() -> Result<Answer, BoxError> + Clone {
    move || Ok(answer(status, &[], "first"))
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_again() {
    assert_eq!(sends(status(429)).await, (2, 2));
    assert_eq!(sends(status(502)).await, (2, 1));
    assert_eq!(sends(status(503)).await, (2, 1));
    assert_eq!(sends(status(504)).await, (2, 1));
    let come_again = || Ok(answer(503, &[("retry-after", "1")], ""));
    assert_eq!(sends(come_again).await, (2, 2));
    for other in [
        200, 204, 301, 304, 400, 401, 403, 404, 409, 418, 500, 501, 505,
    ] {
        assert_eq!(sends(status(other)).await, (1, 1), "{other}");
    }
    let reset = || Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
    assert_eq!(sends(reset).await, (2, 1));
    let refused = || Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    assert_eq!(sends(refused).await, (2, 2), "it never left");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_tried_four_times_each_with_its_own_proof() {
    let fake = troubled(usize::MAX, status(503));
    let started = Instant::now();
    let last = retrying(&fake).oneshot(method(&Method::GET)).await.unwrap();
    assert_eq!(last.status(), 503);
    assert_eq!(support::text(last).await, "first");
    let seen = fake.seen_by(RS);
    assert_eq!(seen.len(), 4);
    let proofs: HashSet<_> = seen
        .iter()
        .map(|seen| seen.claims()["jti"].to_string())
        .collect();
    assert_eq!(proofs.len(), 4);
    let waits: Vec<_> = seen.windows(2).map(|two| two[1].at - two[0].at).collect();
    for (wait, full) in waits.iter().zip([100, 200, 400]) {
        // Tokio's timers go by milliseconds, and round up.
        assert!((ms(full / 2)..=ms(full + 1)).contains(wait), "{waits:?}");
    }
    assert!(started.elapsed() >= ms(350));
    assert_eq!(fake.hits(AS), 1);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_up_to_ten_seconds() {
    for (asked, sends, least) in [
        ("0", 2, 0),
        ("7", 2, 7),
        ("10", 2, 10),
        ("11", 1, 0),
        ("soon", 2, 0),
    ] {
        let fake = troubled(1, move || Ok(answer(429, &[("retry-after", asked)], "")));
        let started = Instant::now();
        let _ = retrying(&fake)
            .oneshot(method(&Method::POST))
            .await
            .unwrap();
        assert_eq!(fake.hits(RS), sends, "{asked}");
        let waited = started.elapsed();
        assert!(
            (secs(least)..=secs(least) + ms(102)).contains(&waited),
            "{asked}: {waited:?}"
        );
    }
    let then = |seconds| httpdate::fmt_http_date(std::time::SystemTime::now() + secs(seconds));
    for (seconds, sends) in [(5, 2), (3600, 1)] {
        let fake = troubled(1, move || {
            Ok(and(answer(503, &[], ""), "retry-after", &then(seconds)))
        });
        let _ = retrying(&fake)
            .oneshot(method(&Method::POST))
            .await
            .unwrap();
        assert_eq!(fake.hits(RS), sends, "{seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_there_is_no_token_it_is_asked_for_again_unless_that_is_of_no_use() {
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => answer(500, &[], ""),
        (Some(AS), _) => token("t", 300),
        _ => ok(),
    });
    // The token layer waits before it asks again, so more than one try may fail for the same reason.
    let response = retrying(&fake)
        .oneshot(method(&Method::POST))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 1));

    let fake = Fake::new(|_, _| refusal("invalid_client"));
    let started = Instant::now();
    let error = retrying(&fake)
        .oneshot(method(&Method::GET))
        .await
        .unwrap_err();
    assert!(find(&error).is_permanent());
    assert_eq!(fake.hits(AS), 1);
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn our_other_errors_are_not_tried_again() {
    let fake = troubled(0, status(200));
    let layers = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::new()));
    let started = Instant::now();
    let path_only = Request::get("/orders").body(Full::default()).unwrap();
    let error = layers
        .service(stack(&fake))
        .oneshot(path_only)
        .await
        .unwrap_err();
    assert!(find(&error).is_missing_origin());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_server_in_trouble_is_not_drowned() {
    let fake = troubled(usize::MAX, status(503));
    let retrying = retrying(&fake);
    let mut answers = Vec::new();
    for _ in 0..1000 {
        answers.push(tokio::spawn(retrying.clone().oneshot(method(&Method::GET))));
    }
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().status(), 503);
    }
    // Without a budget there would be 4000. With it: the reserve of ten a second, for ten seconds.
    let sends = fake.hits(RS);
    assert!(
        (1001..1200).contains(&sends),
        "{sends} sends for 1000 requests"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_is_sent_again_as_the_policy_says() {
    async fn sends<P>(policy: P, body: &'static str) -> usize
    where
        P: tower_dpop::Replay<Full<Bytes>> + Clone,
    {
        let fake = troubled(1, status(429));
        let layers = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::with_replay(policy)));
        let request = Request::put(API).body(Full::from(body)).unwrap();
        layers.service(stack(&fake)).oneshot(request).await.unwrap();
        fake.hits(RS)
    }
    assert_eq!(sends(NoReplay, "").await, 1);
    assert_eq!(sends(EmptyBody, "").await, 2);
    assert_eq!(sends(EmptyBody, "order").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_recorded_body_is_sent_again_whole_or_not_at_all() {
    for (limit, sent, last) in [(1000, 2, 200), (999, 1, 429)] {
        let fake = troubled(1, status(429));
        let dpop = DpopLayer::new(a3_key()).replay(RecordedBody);
        let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience()).unwrap();
        let collected = fake.clone();
        let stack = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::with_replay(RecordedBody)))
            .layer(tokens)
            .layer(dpop)
            .service(tower::service_fn(
                move |request: Request<ReplayBody<Full<Bytes>>>| {
                    let fake = collected.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
                        fake.oneshot(Request::from_parts(head, Full::from(body)))
                            .await
                    }
                },
            ));
        let body = ReplayBody::with_limit(Full::from(vec![b'x'; 1000]), limit);
        let response = stack
            .oneshot(Request::post(API).body(body).unwrap())
            .await
            .unwrap();
        let response: Answer = response.map(ResponseBody::into_inner);
        assert_eq!(response.status(), last, "the server's own answer");
        let seen = fake.seen_by(RS);
        assert_eq!(seen.len(), sent);
        assert!(seen.iter().all(|seen| seen.body.len() == 1000));
    }
}

/// How often a thousand requests to a server in trouble are sent again, after `before` was sent through the policy
/// a thousand times.
async fn retries_after(
    before: impl Fn() -> Result<Answer, BoxError> + Send + Sync + 'static,
) -> usize {
    let fake = Fake::failing(move |seen, _| match seen.method {
        Method::POST => before(),
        _ => Ok(answer(503, &[], "")),
    });
    let layers = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::new()));
    let stack = layers.service(fake.clone());
    for _ in 0..1000 {
        let _ = stack.clone().oneshot(method(&Method::POST)).await;
    }
    let sent = fake.seen().len();
    assert_eq!(sent, 1000);
    let answers = (0..1000).map(|_| tokio::spawn(stack.clone().oneshot(method(&Method::GET))));
    for answer in answers.collect::<Vec<_>>() {
        answer.await.unwrap().unwrap();
    }
    fake.seen().len() - sent - 1000
}

#[tokio::test(start_paused = true)]
async fn only_what_a_server_serves_pays_for_retries() {
    let served = retries_after(|| Ok(ok())).await;
    assert!(
        (250..350).contains(&served),
        "a fifth, and the reserve: {served}"
    );
    let reset = || Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
    for failed in [retries_after(reset).await, retries_after(status(502)).await] {
        assert!((90..110).contains(&failed), "the reserve: {failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_sent_again_costs_the_others_nothing() {
    let fake = troubled(usize::MAX, status(503));
    let layers = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::with_replay(EmptyBody)));
    let stack = layers.service(stack(&fake));
    for _ in 0..200 {
        stack.clone().oneshot(method(&Method::PUT)).await.unwrap();
    }
    assert_eq!(fake.hits(RS), 200);
    stack.oneshot(support::get(API)).await.unwrap();
    assert_eq!(fake.hits(RS), 200 + 4);
}

/// Without a token, and told when to come back.
fn away(seconds: &'static str) -> Answer {
    answer(503, &[("retry-after", seconds)], "")
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_token_that_is_not_asked_for_yet() {
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some(AS) => away("60"),
        _ => ok(),
    });
    let started = Instant::now();
    retrying(&fake)
        .oneshot(method(&Method::GET))
        .await
        .unwrap_err();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(fake.hits(AS), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_token_comes_when_it_is_asked_for_again_and_costs_the_others_nothing() {
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => away("5"),
        (Some(AS), _) => token("t", 3000),
        (_, 500) => answer(503, &[], ""),
        _ => ok(),
    });
    let retrying = retrying(&fake);
    let started = Instant::now();
    let calls = (0..500).map(|_| tokio::spawn(retrying.clone().oneshot(method(&Method::POST))));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert!((secs(5)..secs(6)).contains(&started.elapsed()));
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 500));
    // There is all of the budget yet.
    let answer = retrying.oneshot(method(&Method::GET)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(fake.hits(RS), 502);
}
