//! The fault catalogue, part B: tokens that are due while the authorization server is in trouble, back-off,
//! and many replicas. F16 to F28, and F85; the figures are the catalogue's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::HashMap,
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use support::{
    API, Answer, Fake, a3_key, answer, bench,
    bench::{
        AS, Dice, Outcome, RS, Wall, audience, callers, herd, most_sends, ms, over, request, secs,
        servers, slowest, stack, times,
    },
    get, invalid_token, ok, refusal, token,
};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{BoxError, ServiceExt};
use tower_dpop::{AccessToken, DpopLayer, Error, TokenLayer};

/// Asks for the token all the time, as long as that.
async fn poll(
    tokens: &TokenLayer,
    gap: Duration,
    time: Duration,
) -> Vec<(Instant, Result<AccessToken, Error>)> {
    let end = Instant::now() + time;
    let mut polled = Vec::new();
    while Instant::now() < end {
        let token = tokens.access_token().await;
        polled.push((Instant::now(), token));
        sleep(gap).await;
    }
    polled
}

fn tokens(fake: &Fake) -> TokenLayer {
    bench::bench(fake, DpopLayer::new(a3_key()), request()).0
}

#[tokio::test(start_paused = true)]
async fn f16_a_failing_refresh_of_a_due_token_is_not_felt() {
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => token("t0", 300),
        (Some(AS), _) => answer(500, &[], ""),
        _ => ok(),
    })
    .slow(AS, ms(100));
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(secs(270)).await;
    let outcomes = herd(&stack, 50).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&outcomes), Duration::ZERO);
    assert_eq!(fake.hits(AS), 1 + 1, "one attempt");
    // Nor is it felt when it has failed.
    let outcomes = callers(&stack, API, 190, ms(100)).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&outcomes), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn f17_nobody_waits_for_a_slow_refresh_of_a_due_token() {
    let fake = servers(300, |_| true).delay_by(|seen| match (seen.uri.host(), seen.number) {
        (Some(AS), 1) => secs(9),
        _ => Duration::ZERO,
    });
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(secs(270)).await;
    let outcomes = callers(&stack, API, 200, ms(50)).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert!(slowest(&outcomes) < ms(1), "{:?}", slowest(&outcomes));
    assert_eq!(fake.hits(AS), 2);
    let served = fake.seen_by(RS);
    assert_eq!(
        served[1].token(),
        "t0",
        "who started it does not wait either"
    );
    assert_eq!(served.last().unwrap().token(), "t1");
}

#[tokio::test(start_paused = true)]
async fn f18_an_outage_of_half_an_hour() {
    let outage = secs(1800);
    let mut attempts = Vec::new();
    for _ in 0..4 {
        let down = ms(200);
        let start = Instant::now();
        let ends = Mutex::new(HashMap::new());
        let expired = Arc::new(AtomicUsize::new(0));
        let late = expired.clone();
        let fake = Fake::new(move |seen, _| {
            let now = Instant::now();
            let mut ends = ends.lock().unwrap();
            if seen.uri.host() == Some(AS) {
                if (down..down + outage).contains(&(now - start)) {
                    return answer(500, &[], "");
                }
                let text = format!("t{}", ends.len());
                ends.insert(text.clone(), now + secs(300));
                return token(&text, 300);
            }
            if ends[seen.token()] <= now {
                late.fetch_add(1, Ordering::Relaxed);
            }
            ok()
        })
        .slow(AS, ms(100));
        let outcomes = callers(&stack(&fake), API, 20 * 1860, ms(50)).await;

        let failed: Vec<_> = outcomes.iter().filter(|o| !o.is_ok()).collect();
        let first = failed[0].started - start;
        assert!(first >= secs(290), "the first error after {first:?}");
        let healed = start + down + outage;
        let outlasting = failed.iter().filter(|o| o.started > start + secs(291));
        assert!(
            outlasting.into_iter().all(|o| o.took <= ms(100)),
            "without a token they fail at once"
        );
        // The catalogue's 30 s, and the interval of the callers and the time of an answer.
        let back = outcomes
            .iter()
            .find(|o| o.is_ok() && o.started > healed - ms(200));
        let back = back.expect("it recovers");
        let took = (back.started + back.took).saturating_duration_since(healed);
        assert!(took <= ms(30_150), "{took:?}");
        assert!(
            outcomes
                .iter()
                .filter(|o| o.started > back.started)
                .all(Outcome::is_ok),
            "and stays so"
        );
        assert_eq!(expired.load(Ordering::Relaxed), 0, "expired tokens sent");
        println!("the first error after {first:?}, a token {took:?} after the end");

        let tried = times(&fake, AS, start);
        let tried: Vec<_> = tried
            .into_iter()
            .filter(|at| (down..down + outage).contains(at))
            .collect();
        for (n, pair) in tried.windows(2).enumerate() {
            let step = secs(30).min(ms(250 << n.min(7)));
            assert!(pair[1] - pair[0] >= step / 2, "attempt {n}: {pair:?}");
        }
        attempts.push(tried.len());
    }
    println!("{attempts:?} attempts");
    // By the dice, one outage costs from 72 to 82 attempts.
    let mean = attempts.iter().sum::<usize>() as f64 / attempts.len() as f64;
    assert!(mean <= 80.0, "{attempts:?}");
}

/// A body in pieces; the connection may break between them.
struct Pieces(std::vec::IntoIter<Result<Bytes, io::ErrorKind>>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        let piece = self.0.next();
        Poll::Ready(piece.map(|piece| piece.map(http_body::Frame::data).map_err(Into::into)))
    }
}

#[tokio::test(start_paused = true)]
async fn f19_a_torn_answer_to_a_refresh_is_tried_again_within_a_second() {
    for torn_in_body in [false, true] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let tries = asked.clone();
        let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let mut tries = tries.lock().unwrap();
            tries.push(Instant::now());
            let n = tries.len();
            let body = format!(r#"{{"access_token":"t{n}","token_type":"DPoP","expires_in":300}}"#);
            async move {
                sleep(ms(20)).await;
                let torn = io::ErrorKind::ConnectionReset;
                let mut pieces = vec![Ok(Bytes::from(body))];
                if n == 2 && !torn_in_body {
                    return Err::<_, BoxError>(io::Error::from(torn).into());
                }
                if n == 2 {
                    pieces = vec![Ok(Bytes::from_static(b"{")), Err(torn)];
                }
                Ok(Response::new(Pieces(pieces.into_iter())))
            }
        });
        let dpop = DpopLayer::new(a3_key());
        let tokens = TokenLayer::new(&dpop, client, request(), audience()).unwrap();
        let fake = Fake::new(|_, _| ok());
        let outcomes = callers(&over(tokens, dpop, &fake), API, 2600, ms(100)).await;
        assert!(outcomes.iter().all(Outcome::is_ok));
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 3, "the first, the torn one, and one more");
        assert!(asked[2] - asked[1] <= secs(1), "{:?}", asked[2] - asked[1]);
        assert_eq!(fake.seen().last().unwrap().token(), "t3");
    }
}

#[tokio::test(start_paused = true)]
async fn f20_a_permanent_refusal_that_is_mended_is_over_within_half_a_minute() {
    for error in ["invalid_client", "unauthorized_client", "invalid_scope"] {
        let mended = Instant::now() + secs(600);
        let fake = Fake::new(move |_, _| match Instant::now() < mended {
            true => refusal(error),
            false => token("t", 300),
        });
        let polled = poll(&tokens(&fake), ms(20), secs(640)).await;
        let (before, after): (Vec<_>, Vec<_>) =
            polled.iter().partition(|(_, token)| token.is_err());
        assert!(!before.is_empty());
        for (_, failed) in before {
            let failed = failed.as_ref().unwrap_err();
            assert!(failed.is_permanent(), "{failed}");
            assert_eq!(failed.oauth_error().unwrap().code(), error);
        }
        let took = after[0].0 - mended;
        // The interval of the calls comes on top.
        assert!(took <= secs(30) + ms(20), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn f21_a_program_that_insists_costs_the_server_little() {
    let fake = Fake::new(|_, _| refusal("invalid_grant"));
    let polled = poll(&tokens(&fake), ms(1), secs(10)).await;
    assert!(polled.len() >= 9_000);
    assert!(polled.iter().all(|(_, token)| token.is_err()));
    assert!(fake.hits(AS) <= 14, "{}", fake.hits(AS));
    assert!(fake.hits(AS) >= 5, "but it is asked: {}", fake.hits(AS));
}

#[tokio::test(start_paused = true)]
async fn f22_retry_after_is_honoured_within_reason() {
    let wall = Wall::new();
    let in_seven = httpdate::fmt_http_date(wall.now() + secs(7));
    let past = httpdate::fmt_http_date(wall.now() - secs(3600));
    let (seven, back_off) = ((ms(7_000), ms(7_700)), (ms(125), ms(250)));
    let longest = (secs(300), secs(300));
    for (retry_after, (least, most)) in [
        ("7", seven),
        (&in_seven, seven),
        ("86400", longest),
        ("99999999999999999999999", longest),
        ("300", longest),
        ("0", back_off),
        ("-1", back_off),
        ("soon", back_off),
        ("", back_off),
        ("7.5", back_off),
        (&past, back_off),
    ] {
        for status in [429, 503] {
            // The dice of a few replicas.
            for _ in 0..4 {
                let header = retry_after.to_owned();
                let fake = Fake::new(move |seen, _| match seen.number {
                    0 => answer(status, &[("retry-after", &header)], ""),
                    _ => token("t", 300),
                });
                let now = Wall::new();
                let (tokens, _) = bench::bench(&fake, now.layer(), request());
                let start = Instant::now();
                tokens.access_token().await.unwrap_err();
                sleep_until(start + least - ms(5)).await;
                while tokens.access_token().await.is_err() {
                    sleep(ms(5)).await;
                }
                let next = times(&fake, AS, start)[1];
                assert!(
                    (least..=most + ms(5)).contains(&next),
                    "`{retry_after}`: {next:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f23_an_answer_without_a_token_is_a_failure_that_passes() {
    for body in [
        "",
        "{}",
        "null",
        "[]",
        "<html>all is well</html>",
        r#"{"access_token":"","token_type":"DPoP","expires_in":300}"#,
        r#"{"access_token":" ","token_type":"DPoP","expires_in":300}"#,
        r#"{"access_token":null,"token_type":"DPoP","expires_in":300}"#,
        r#"{"access_token":"t","token_type":"DPoP","expires_in":300"#,
    ] {
        let fake = Fake::new(move |seen, _| match (seen.uri.host(), seen.number) {
            (Some(AS), 0) => answer(200, &[("content-type", "application/json")], body),
            (Some(AS), _) => token("t1", 300),
            _ => ok(),
        });
        let stack = stack(&fake);
        for outcome in herd(&stack, 10).await {
            let error = outcome.error();
            assert!(
                error.is_token_request() && !error.is_permanent(),
                "{body}: {error}"
            );
        }
        assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 0), "{body}");
        sleep(ms(250)).await;
        assert_eq!(
            stack.oneshot(get(API)).await.unwrap().status(),
            200,
            "{body}"
        );
        assert!(fake.seen_by(RS).iter().all(|seen| seen.token() == "t1"));
    }
}

#[tokio::test(start_paused = true)]
async fn f24_a_token_of_a_minute_is_renewed_once_in_39_seconds() {
    let fake = servers(60, |_| true).slow(AS, ms(50));
    let start = Instant::now();
    let outcomes = callers(&stack(&fake), API, 12_000, ms(10)).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(slowest(&outcomes[10..]), Duration::ZERO);
    let asked = times(&fake, AS, start);
    assert!((3..=4).contains(&asked.len()), "{asked:?}");
    for pair in asked.windows(2) {
        assert!(pair[1] - pair[0] >= secs(39), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn f25_the_same_refused_token_again_is_a_failure() {
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some(AS) => token("stuck", 300),
        _ => invalid_token(),
    });
    let start = Instant::now();
    let outcomes = callers(&stack(&fake), API, 1200, ms(50)).await;
    assert!(outcomes.iter().all(|outcome| outcome.status() == 401));
    assert_eq!(slowest(&outcomes), Duration::ZERO);
    let asked = times(&fake, AS, start);
    // The first, the first renewal, and from there on one for each step.
    assert!(asked.len() >= 5, "{asked:?}");
    for (step, pair) in (0..).zip(asked[1..].windows(2)) {
        let least = secs(30).min(ms(250 << step)) / 2;
        assert!(pair[1] - pair[0] >= least, "step {step}: {asked:?}");
    }
    assert_eq!(most_sends(&fake, RS), 1, "there is nothing better to send");
}

#[tokio::test(start_paused = true)]
async fn f26_a_token_that_is_over_when_it_arrives_is_never_sent() {
    // 1 s of life, 5 s on its way.
    let short = |seen: &support::Seen| token(&format!("short{}", seen.number), 1);
    let fake = Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => short(seen),
        _ => ok(),
    })
    .slow(AS, secs(5));
    for outcome in herd(&stack(&fake), 10).await {
        let error = outcome.error();
        assert!(error.is_token_request() && !error.is_permanent(), "{error}");
        assert!(error.to_string().contains("was over"), "{error}");
    }
    assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 0));

    let fake = Fake::new(move |seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => token("long", 300),
        (Some(AS), _) => short(seen),
        _ => ok(),
    })
    .delay_by(|seen| match (seen.uri.host(), seen.number) {
        (Some(AS), 1..) => secs(5),
        _ => Duration::ZERO,
    });
    let outcomes = callers(&stack(&fake), API, 2895, ms(100)).await;
    assert!(outcomes.iter().all(Outcome::is_ok), "the old one is kept");
    assert_eq!(slowest(&outcomes), Duration::ZERO);
    assert!(fake.hits(AS) > 2, "{}", fake.hits(AS));
    assert!(fake.seen_by(RS).iter().all(|seen| seen.token() == "long"));
}

/// Replicas of one program: each has a layer of its own, and a request a second. Tokens last 300 s.
struct Replicas {
    count: u64,
    /// They start within it.
    spread: Duration,
    /// The authorization server is.
    down: Range<Duration>,
    end: Duration,
}

struct Herd {
    /// At the authorization server, in order.
    hits: Vec<Duration>,
    /// When each replica had a token again after the outage.
    back: Vec<Duration>,
}

impl Replicas {
    async fn run(self) -> Herd {
        let start = Instant::now();
        let hits = Arc::new(Mutex::new(Vec::new()));
        let key = a3_key();
        let mut replicas = Vec::new();
        for n in 0..self.count {
            let (hits, down) = (hits.clone(), self.down.clone());
            let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
                let number = {
                    let mut hits = hits.lock().unwrap();
                    hits.push(start.elapsed());
                    hits.len()
                };
                let is_down = down.contains(&start.elapsed());
                async move {
                    sleep(ms(50)).await;
                    Ok::<Answer, BoxError>(match is_down {
                        true => answer(503, &[], ""),
                        false => token(&format!("t{number}"), 300),
                    })
                }
            });
            let dpop = DpopLayer::new(key.clone());
            let tokens = TokenLayer::new(&dpop, client, request(), audience()).unwrap();
            let mut dice = Dice(n);
            let spread = u64::try_from(self.spread.as_millis()).unwrap();
            let first = start + ms(dice.below(spread + 1));
            let phase = ms(dice.below(1000));
            replicas.push(tokio::spawn(one_replica(
                tokens,
                first,
                phase,
                start + self.down.end,
                start + self.end,
            )));
        }
        let mut back = Vec::new();
        for replica in replicas {
            back.extend(
                replica
                    .await
                    .unwrap()
                    .map(|at| at - (start + self.down.end)),
            );
        }
        let hits = hits.lock().unwrap().clone();
        back.sort_unstable();
        Herd { hits, back }
    }
}

/// When it had a token after `healed`.
async fn one_replica(
    tokens: TokenLayer,
    first: Instant,
    phase: Duration,
    healed: Instant,
    end: Instant,
) -> Option<Instant> {
    sleep_until(first).await;
    let mut last = None;
    let mut back = None;
    while Instant::now() < end {
        let token = tokens.access_token().await;
        let now = Instant::now();
        match token {
            Ok(token) => {
                if now >= healed {
                    back.get_or_insert(now);
                }
                let is_new = last.as_deref() != Some(token.secret());
                last = Some(token.secret().to_owned());
                // Before 65 % of its life a new token makes no work: these requests need not be made.
                sleep(if is_new { secs(193) + phase } else { secs(1) }).await;
            }
            Err(_) => sleep(secs(1)).await,
        }
    }
    back
}

impl Herd {
    /// The most hits for each second of a window that long, anywhere within.
    fn peak(&self, within: Range<Duration>, window: Duration) -> f64 {
        let mut most = 0;
        let mut from = within.start;
        while from + window <= within.end {
            let hits = &self.hits;
            let count = hits.partition_point(|at| *at < from + window)
                - hits.partition_point(|at| *at < from);
            most = most.max(count);
            from += ms(500);
        }
        most as f64 / window.as_secs_f64()
    }
}

const NO_OUTAGE: Range<Duration> = Duration::ZERO..Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn f27_replicas_that_start_at_once_do_not_renew_at_once() {
    let herd = Replicas {
        count: 1000,
        spread: Duration::ZERO,
        down: NO_OUTAGE,
        end: secs(3600),
    }
    .run()
    .await;
    assert_eq!(herd.hits.iter().filter(|at| **at < secs(1)).count(), 1000);
    // One draw spreads the first renewals over a minute, each further one spreads more: settled is what no
    // longer shows the common start.
    let peak = herd.peak(secs(3000)..secs(3600), secs(1));
    assert!(peak <= 20.0, "2 % of 1000 in a second: {peak}");
    let first = herd.peak(secs(100)..secs(400), secs(5));
    assert!(first <= 30.0, "{first}");
    println!("settled {peak}/s, the first renewals {first}/s");
}

#[tokio::test(start_paused = true)]
async fn f28_after_an_outage_the_replicas_come_back_neither_at_once_nor_late() {
    let herd = Replicas {
        count: 1000,
        spread: ms(500),
        down: secs(1)..secs(601),
        end: secs(640),
    }
    .run()
    .await;
    // Over three seconds: the dice of a single one would exceed the figure in one run of twenty.
    let peak = herd.peak(secs(601)..secs(611), secs(3));
    assert!(peak <= 60.0, "{peak}");
    assert_eq!(herd.back.len(), 1000);
    let most = herd.back[990];
    assert!(most <= secs(30), "{most:?}");
    let single = herd.peak(secs(601)..secs(611), secs(1));
    println!(
        "{peak}/s over three seconds, {single}/s over one; 99 % back after {most:?}; {} attempts",
        herd.hits.len()
    );
}

#[tokio::test(start_paused = true)]
async fn f85_a_rolling_start_settles() {
    let herd = Replicas {
        count: 200,
        spread: secs(60),
        down: NO_OUTAGE,
        end: secs(3600),
    }
    .run()
    .await;
    // Over five seconds, since of a second's one or two the dice now and then make five.
    let peak = herd.peak(secs(3000)..secs(3600), secs(5));
    assert!(peak <= 4.0, "{peak}");
    println!("{peak}/s");
}
