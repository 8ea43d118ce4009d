//! The fault catalogue, part C: what servers say of a token's life, and clocks. F29 to F35; the figures are
//! the catalogue's, but for the sends of one request: four at the most, whatever happens.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{
    API, Answer, ENDPOINT, Fake, Seen, a3_key, and, answer, bench,
    bench::{
        API2, AS, Outcome, RS, RS2, Stack, Wall, callers, herd, most_sends, ms, request, secs,
        servers, slowest, stack,
    },
    get, invalid_token, nonce_challenge, ok, refusal, token,
    told::Told,
};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;
use tower_dpop::{DpopLayer, Grant, PrivateKeyJwt, Registration, TokenLayer, TokenRequest};
use tracing::Level;

/// The authorization server gives one token, and is down from then on.
fn only_once(body: String) -> TokenLayer {
    let fake = Fake::new(move |seen, _| match seen.number {
        0 => answer(200, &[("content-type", "application/json")], &body),
        _ => answer(500, &[], ""),
    });
    bench::bench(&fake, DpopLayer::new(a3_key()), request()).0
}

#[tokio::test(start_paused = true)]
async fn f29_whatever_expires_in_says_a_token_has_a_life() {
    let none = Some(300);
    for (expires_in, life) in [
        ("18446744073709551615", Some(86_400)),
        ("9223372036854775807", Some(86_400)),
        ("1e300", Some(86_400)),
        ("3.6e3", Some(3_600)),
        ("\"3600\"", Some(3_600)),
        ("3600", Some(3_600)),
        ("86401", Some(86_400)),
        ("1", Some(1)),
        ("0", Some(0)),
        ("\"0\"", Some(0)),
        // What means no time is as if it were missing.
        ("\"3600abc\"", none),
        ("-1", none),
        ("0.5", none),
        ("null", none),
        ("[]", none),
        ("\"\"", none),
        ("true", none),
        ("", none),
        // No JSON at all.
        ("NaN", None),
    ] {
        let told = Told::default();
        let _listening = told.listen();
        let member = match expires_in {
            "" => String::new(),
            value => format!(r#","expires_in":{value}"#),
        };
        let body = format!(r#"{{"access_token":"t","token_type":"DPoP"{member}}}"#);
        let tokens = only_once(body);
        let first = tokens.access_token().await;
        let Some(life) = life else {
            assert!(!first.unwrap_err().is_permanent());
            continue;
        };
        first.unwrap();
        // The last of it, a tenth but 10 s at the most, is not used. No life at all is a second from arrival.
        let usable = match secs(life) {
            Duration::ZERO => secs(1),
            life => life - secs(10).min(life / 10),
        };
        sleep(usable - ms(10)).await;
        tokens.access_token().await.expect(expires_in);
        sleep(ms(20)).await;
        tokens.access_token().await.expect_err(expires_in);
        if cfg!(feature = "tracing") {
            let warned = told.count(Level::WARN, "does not tell how long");
            assert_eq!(warned, usize::from(life == 300), "{expires_in}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    // The catalogue's 10^7 cases are a fuzz run by hand; this is the same question, put to the whole layer.
    // (The parser alone has a test of its own kind beside it.)
    #[test]
    fn f29_a_life_is_never_shorter_than_a_second_nor_longer_than_a_day(
        expires_in in prop_oneof![
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-10_i64..100_000).prop_map(Value::from),
            ".{0,20}".prop_map(Value::from),
            any::<u64>().prop_map(|n| Value::from(n.to_string())),
            Just(Value::Null),
        ],
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let body = json!({"access_token": "t", "token_type": "DPoP", "expires_in": expires_in});
            let tokens = only_once(body.to_string());
            tokens.access_token().await.expect("a token");
            // Of a second, the last tenth is not used.
            sleep(ms(890)).await;
            tokens.access_token().await.expect("it lives");
            sleep(secs(86_400)).await;
            tokens.access_token().await.expect_err("it is over");
        });
    }
}

#[tokio::test(start_paused = true)]
async fn f30_a_token_without_life_is_fetched_once_a_second() {
    for delay in [Duration::ZERO, ms(20)] {
        let fake = servers(0, |_| true).slow(AS, delay);
        let start = Instant::now();
        let outcomes = callers(&stack(&fake), API, 250, ms(100)).await;
        assert!(start.elapsed() >= secs(25));
        assert!(outcomes.iter().all(Outcome::is_ok));
        assert!(fake.hits(AS) <= 26, "{}", fake.hits(AS));
        assert!(fake.hits(AS) >= 20, "it is not kept: {}", fake.hits(AS));
    }
}

#[tokio::test(start_paused = true)]
async fn f31_a_wall_clock_that_jumps_costs_one_fetch_at_the_most() {
    let new_year = Wall::new().now();
    let hour = secs(3600);
    for (from, to) in [
        (new_year, new_year - hour),
        (new_year, new_year + hour),
        (new_year, UNIX_EPOCH - hour),
        (UNIX_EPOCH - hour, new_year),
        (UNIX_EPOCH, UNIX_EPOCH - hour),
        // The end of the year 9999, the last that `Date` can tell.
        (new_year, UNIX_EPOCH + secs(253_402_300_799)),
        (UNIX_EPOCH + secs(253_402_300_000), UNIX_EPOCH),
    ] {
        for down_after_the_jump in [false, true] {
            let wall = Wall::new();
            wall.set(from);
            let (clock, down) = (wall.clone(), Arc::new(AtomicBool::new(false)));
            let is_down = down.clone();
            let fake = Fake::new(move |seen, _| {
                let iat = seen.claims()["iat"].as_i64().unwrap();
                assert_eq!(iat, clock.unix().max(0), "`iat` is the wall clock's");
                match seen.uri.host() {
                    Some(AS) if is_down.load(Ordering::Relaxed) => answer(500, &[], ""),
                    Some(AS) => token("t", 300),
                    _ => ok(),
                }
            });
            let (_, stack) = bench::bench(&fake, wall.layer(), request());
            let before = callers(&stack, API, 20, ms(500)).await;
            wall.set(to);
            down.store(down_after_the_jump, Ordering::Relaxed);
            let after = callers(&stack, API, 200, ms(500)).await;
            assert!(before.iter().chain(&after).all(Outcome::is_ok));
            assert_eq!(slowest(&after), Duration::ZERO);
            if !down_after_the_jump {
                let extra = fake.hits(AS) - 1;
                assert_eq!(extra, usize::from(to > from), "fetches");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f32_the_first_request_after_a_suspend_is_answered() {
    for crowd in [1, 50] {
        let wall = Wall::new();
        // The servers' clocks went on, and know when each token ends.
        let (clock, start) = (wall.clone(), wall.now());
        let fake = Fake::new(move |seen, _| {
            let now = clock.now().duration_since(start).unwrap().as_secs();
            match seen.uri.host() {
                Some(AS) => token(&format!("{}", now + 300), 300),
                _ if seen.token().parse::<u64>().unwrap() > now => ok(),
                _ => invalid_token(),
            }
        })
        .slow(AS, ms(100))
        .slow(RS, ms(20));
        let (_, stack) = bench::bench(&fake, wall.layer(), request());
        let before = callers(&stack, API, 10, secs(1)).await;
        assert!(before.iter().all(Outcome::is_ok));
        // While the machine slept, the other clock stood still.
        wall.set(wall.now() + secs(2 * 3600));
        let sent = fake.hits(RS);
        let after = herd(&stack, crowd).await;
        assert!(after.iter().all(Outcome::is_ok));
        assert!(
            fake.hits(RS) - sent <= 2 * crowd,
            "one more send at the most"
        );
        assert_eq!(fake.hits(AS), 2);
        assert!(stack.oneshot(get(API)).await.unwrap().status() == 200);
        assert_eq!(fake.hits(AS), 2);
    }
}

/// A server refuses the proof, and says what time it is there.
fn wrong_time(seen: &Seen, date: SystemTime) -> Answer {
    let refused = match seen.uri.host() {
        Some(AS) => refusal("invalid_dpop_proof"),
        _ => answer(
            401,
            &[("www-authenticate", r#"DPoP error="invalid_dpop_proof""#)],
            "refused",
        ),
    };
    and(refused, "date", &httpdate::fmt_http_date(date))
}

fn done(seen: &Seen) -> Answer {
    match seen.uri.host() {
        Some(AS) => token(&format!("t{}", seen.number), 300),
        _ => ok(),
    }
}

/// Both servers go by `wall`, and accept 30 s either way.
fn strict(wall: &Wall, delay: Duration) -> Fake {
    let wall = wall.clone();
    Fake::new(move |seen, _| {
        // They look at the clock when half of the time is over: a network is as slow on both ways.
        let now = wall.now() - delay / 2;
        let arrived = (now - delay / 2).duration_since(UNIX_EPOCH).unwrap();
        let iat = seen.claims()["iat"].as_u64().unwrap();
        let refused = iat.abs_diff(arrived.as_secs()) > 30;
        match refused {
            true => wrong_time(seen, now),
            false => {
                let off = iat.abs_diff(arrived.as_secs());
                assert!(off <= 1, "the clock was corrected, but is off by {off} s");
                done(seen)
            }
        }
    })
    .delay(delay)
}

/// A clock that is off by so many seconds.
fn off_by(wall: &Wall, seconds: i64) -> Wall {
    let off = Wall::new();
    let by = secs(seconds.unsigned_abs());
    off.set(match seconds > 0 {
        true => wall.now() + by,
        false => wall.now() - by,
    });
    off
}

#[tokio::test(start_paused = true)]
async fn f33_a_clock_that_is_wrong_is_found_out_once_for_each_server() {
    for skew in [600, -600, 31, -31, 86_000, -86_000] {
        for delay in [Duration::ZERO, ms(4_000)] {
            let told = Told::default();
            let _listening = told.listen();
            let wall = Wall::new();
            let fake = strict(&wall, delay);
            let (_, stack) = bench::bench(&fake, off_by(&wall, skew).layer(), request());
            let first = callers(&stack, API, 1, Duration::ZERO).await;
            assert!(first[0].is_ok(), "{skew}, {delay:?}");
            assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 2));
            // From then on one send for each request, at both.
            let outcomes = callers(&stack, API, 310, secs(1)).await;
            assert!(outcomes.iter().all(Outcome::is_ok));
            assert_eq!((fake.hits(AS), fake.hits(RS)), (3, 2 + 310));
            // A server more is a clock more.
            let other = callers(&stack, API2, 3, secs(5)).await;
            assert!(other.iter().all(Outcome::is_ok));
            assert_eq!(fake.hits(RS2), 1 + 3);
            if cfg!(feature = "tracing") {
                assert_eq!(
                    told.count(Level::WARN, "clock is another"),
                    3,
                    "one for each server"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f33_a_clock_that_is_set_right_again_is_found_out_too() {
    let wall = Wall::new();
    let fake = strict(&wall, ms(100));
    let ours = off_by(&wall, 600);
    let (_, stack) = bench::bench(&fake, ours.layer(), request());
    assert!(
        callers(&stack, API, 3, secs(1))
            .await
            .iter()
            .all(Outcome::is_ok)
    );
    assert_eq!(fake.hits(RS), 1 + 3);
    ours.set(wall.now());
    assert!(
        callers(&stack, API, 3, secs(1))
            .await
            .iter()
            .all(Outcome::is_ok)
    );
    assert_eq!(fake.hits(RS), 1 + 3 + 1 + 3);
}

#[tokio::test(start_paused = true)]
async fn f33_many_that_find_out_at_once_are_sent_twice_each() {
    let wall = Wall::new();
    let fake = strict(&wall, ms(100));
    let (_, stack) = bench::bench(&fake, off_by(&wall, -600).layer(), request());
    assert!(herd(&stack, 100).await.iter().all(Outcome::is_ok));
    assert_eq!(fake.hits(AS), 2);
    assert_eq!(most_sends(&fake, RS), 2);
}

#[tokio::test(start_paused = true)]
async fn f33_what_tells_no_time_teaches_none() {
    let wall = Wall::new();
    let ten = secs(600);
    let day = secs(86_400);
    type Refuse = Box<dyn Fn(&Seen, SystemTime) -> Answer + Send + Sync>;
    let cases: Vec<(&str, Duration, Refuse)> = vec![
        (
            "from a cache",
            Duration::ZERO,
            Box::new(move |seen, now| and(wrong_time(seen, now + ten), "age", "0")),
        ),
        (
            "too slow",
            ms(5_001),
            Box::new(move |seen, now| wrong_time(seen, now + ten)),
        ),
        (
            "too far ahead",
            Duration::ZERO,
            Box::new(move |seen, now| wrong_time(seen, now + day + secs(2))),
        ),
        (
            "too far behind",
            Duration::ZERO,
            Box::new(move |seen, now| wrong_time(seen, now - day - secs(2))),
        ),
        (
            "two dates",
            Duration::ZERO,
            Box::new(move |seen, now| {
                let date = httpdate::fmt_http_date(now + ten);
                and(wrong_time(seen, now + ten), "date", &date)
            }),
        ),
        (
            "no date",
            Duration::ZERO,
            Box::new(move |seen, now| {
                let mut refused = wrong_time(seen, now);
                refused.headers_mut().remove("date");
                refused
            }),
        ),
        ("the same time", Duration::ZERO, Box::new(wrong_time)),
    ];
    for (what, delay, refuse) in cases {
        let refuse = Arc::new(refuse);
        for at in [AS, RS] {
            let (clock, ours) = (wall.clone(), wall.clone());
            let refuse = refuse.clone();
            let fake = Fake::new(move |seen, _| {
                let iat = seen.claims()["iat"].as_i64().unwrap();
                let sent = ours.now() - delay;
                let sent = sent.duration_since(UNIX_EPOCH).unwrap().as_secs();
                assert_eq!(iat, i64::try_from(sent).unwrap(), "{what}: learned");
                match seen.uri.host() == Some(at) {
                    true => refuse(seen, clock.now()),
                    false => done(seen),
                }
            })
            .delay(delay);
            let (_, stack) = bench::bench(&fake, wall.layer(), request());
            for n in 1..=3 {
                let outcome = callers(&stack, API, 1, Duration::ZERO).await;
                assert!(!outcome[0].is_ok());
                assert_eq!(fake.hits(at), n, "{what}, {at}: one send for each");
                sleep(secs(2)).await;
            }
        }
    }
}

/// By how much a server's time `claims` tells is off.
fn off(claims: &Value, wall: &Wall) -> u64 {
    claims["iat"].as_i64().unwrap().abs_diff(wall.unix())
}

const SKEWS: [(i64, bool); 6] = [
    (600, true),
    (-600, true),
    (33, true),
    (-33, true),
    // Near enough to be right, and refused for something else.
    (27, false),
    (-27, false),
];

#[tokio::test(start_paused = true)]
async fn f33_who_does_not_say_what_it_refused_teaches_the_time_if_that_is_far_off() {
    let reasons = [
        None,
        Some("DPoP"),
        Some(r#"DPoP algs="ES256""#),
        // What nobody can read.
        Some(r#"realm="user""#),
        Some(r#"Bearer realm="api""#),
    ];
    for reason in reasons {
        for (skew, is_found) in SKEWS {
            let wall = Wall::new();
            let server = wall.clone();
            let fake = Fake::new(move |seen, _| match seen.uri.host() {
                Some(RS) if off(&seen.claims(), &server) > 10 => {
                    let challenge = reason.map(|reason| ("www-authenticate", reason));
                    let date = httpdate::fmt_http_date(server.now());
                    and(answer(401, challenge.as_slice(), ""), "date", &date)
                }
                _ => done(seen),
            });
            let (_, stack) = bench::bench(&fake, off_by(&wall, skew).layer(), request());
            let first = callers(&stack, API, 1, Duration::ZERO).await;
            assert_eq!(first[0].is_ok(), is_found, "{reason:?}, {skew}");
            assert_eq!(fake.hits(RS), 1 + usize::from(is_found));
            let before = fake.hits(RS);
            callers(&stack, API, 10, secs(1)).await;
            assert_eq!(fake.hits(RS), before + 10, "one send each, found or not");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f33_a_wrong_date_beside_a_refusal_for_something_else_spoils_no_proof() {
    // A client whose clock is right, and one that had to learn the server's.
    for skew in [0, 3_600] {
        let wall = Wall::new();
        let clock = wall.clone();
        let is_away = Arc::new(AtomicBool::new(false));
        let away = is_away.clone();
        let fake = Fake::new(move |seen, _| match seen.uri.host() {
            Some(RS) if away.load(Ordering::Relaxed) => {
                let wrong = httpdate::fmt_http_date(clock.now() + secs(600));
                and(answer(401, &[], ""), "date", &wrong)
            }
            Some(RS) if off(&seen.claims(), &clock) > 10 => wrong_time(seen, clock.now()),
            _ => done(seen),
        });
        let (_, stack) = bench::bench(&fake, off_by(&wall, skew).layer(), request());
        assert!(callers(&stack, API, 1, Duration::ZERO).await[0].is_ok());
        for _ in 0..3 {
            let before = fake.hits(RS);
            is_away.store(true, Ordering::Relaxed);
            let refused = callers(&stack, API, 1, Duration::ZERO).await;
            assert_eq!(refused[0].status(), 401);
            assert_eq!(fake.hits(RS), before + 2, "one more send, to find out");
            is_away.store(false, Ordering::Relaxed);
            let good = callers(&stack, API, 2, secs(1)).await;
            assert!(good.iter().all(Outcome::is_ok));
            assert_eq!(fake.hits(RS), before + 4, "{skew}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f33_nor_has_the_time_of_an_assertion_to_be_named() {
    let refusals: [fn() -> Answer; 3] = [
        || refusal("invalid_client"),
        || answer(401, &[], ""),
        || answer(403, &[], ""),
    ];
    for refuse in refusals {
        for (skew, is_found) in SKEWS {
            for keyed in [true, false] {
                let wall = Wall::new();
                let server = wall.clone();
                let fake = Fake::new(move |seen, _| {
                    let told = match seen.parameter("client_assertion") {
                        Some(assertion) => support::claims(&assertion),
                        None => seen.claims(),
                    };
                    match seen.uri.host() {
                        Some(AS) if off(&told, &server) > 10 => {
                            let date = httpdate::fmt_http_date(server.now());
                            and(refuse(), "date", &date)
                        }
                        _ => done(seen),
                    }
                });
                let request = match keyed {
                    true => {
                        let registration = Registration::new(ENDPOINT, "keyed")
                            .private_key_jwt(PrivateKeyJwt::new(a3_key()).endpoint_as_audience());
                        TokenRequest::new(registration, Grant::client_credentials())
                    }
                    // Whoever shows a secret is not refused for the time.
                    false => request(),
                };
                let (_, stack) = bench::bench(&fake, off_by(&wall, skew).layer(), request);
                let first = callers(&stack, API, 1, Duration::ZERO).await;
                let mended = keyed && is_found;
                assert_eq!(first[0].is_ok(), mended, "{skew}, {keyed}");
                assert_eq!(fake.hits(AS), 1 + usize::from(mended), "{skew}, {keyed}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f34_a_hostile_date_moves_no_clock() {
    let year_2099 = UNIX_EPOCH + secs(4_070_908_800);
    let wall = Wall::new();
    // As far as it can be learned, where it is learned.
    let near = wall.now() + secs(82_800);
    for date in [year_2099, near] {
        let date = httpdate::fmt_http_date(date);
        let refusals: [fn(&Seen) -> Answer; 7] = [
            |_| ok(),
            |_| invalid_token(),
            |seen| nonce_challenge(&format!("n{}", seen.number)),
            |_| {
                answer(
                    401,
                    &[("www-authenticate", r#"DPoP error="insufficient_scope""#)],
                    "",
                )
            },
            |_| answer(403, &[], ""),
            |_| {
                answer(
                    403,
                    &[("www-authenticate", r#"DPoP error="invalid_dpop_proof""#)],
                    "",
                )
            },
            |_| {
                answer(
                    500,
                    &[("www-authenticate", r#"DPoP error="invalid_dpop_proof""#)],
                    "",
                )
            },
        ];
        for refuse in refusals {
            let (date, clock) = (date.clone(), wall.clone());
            let fake = Fake::new(move |seen, _| {
                let iat = seen.claims()["iat"].as_i64().unwrap();
                assert!(iat - clock.unix() <= 300, "{iat}");
                let answer = match seen.uri.host() {
                    Some(AS) => done(seen),
                    _ => refuse(seen),
                };
                and(answer, "date", &date)
            });
            let (_, stack) = bench::bench(&fake, wall.layer(), request());
            callers(&stack, API, 100, secs(5)).await;
        }
    }
    // Refused proofs at one origin: what is learned is bounded, and that origin's alone.
    for (date, bound) in [(year_2099, 0), (near, 86_400)] {
        let clock = wall.clone();
        let fake = Fake::new(move |seen, _| {
            let ahead = seen.claims()["iat"].as_i64().unwrap() - clock.unix();
            match seen.uri.host() {
                Some(RS) => {
                    assert!(ahead <= bound, "{ahead}");
                    wrong_time(seen, date)
                }
                _ => {
                    assert!(ahead <= 0, "{ahead}");
                    done(seen)
                }
            }
        });
        let (_, stack) = bench::bench(&fake, wall.layer(), request());
        let hostile = callers(&stack, API, 200, secs(1)).await;
        assert!(hostile.iter().all(|outcome| outcome.status() == 401));
        assert!(most_sends(&fake, RS) <= 2);
        let healthy = callers(&stack, API2, 200, secs(1)).await;
        assert!(healthy.iter().all(Outcome::is_ok));
        assert_eq!(fake.hits(RS2), 200);
    }
}

/// A wrong clock and nonces together: how often the first request was sent to each server, and what became of
/// it. `nonces` is how many challenges each server has for one request.
async fn skewed(nonces: usize) -> (Fake, Stack) {
    let wall = Wall::new();
    let clock = wall.clone();
    let fake = Fake::new(move |seen, _| {
        let fresh = format!("n{}", seen.number);
        let iat = seen.claims()["iat"].as_i64().unwrap();
        let last = seen.nonce().is_some_and(|nonce| {
            nonce.strip_prefix('n').unwrap().parse::<usize>().unwrap() + 1 >= nonces
        });
        let answer = if nonces > 0 && !last {
            match seen.uri.host() {
                Some(AS) => refusal("use_dpop_nonce"),
                _ => nonce_challenge(""),
            }
        } else if iat.abs_diff(clock.unix()) > 30 {
            return wrong_time(seen, clock.now());
        } else {
            return done(seen);
        };
        let mut answer = answer;
        answer
            .headers_mut()
            .insert("dpop-nonce", fresh.parse().unwrap());
        answer
    });
    let (_, stack) = bench::bench(&fake, off_by(&wall, -600).layer(), request());
    (fake, stack)
}

#[tokio::test(start_paused = true)]
async fn f35_a_wrong_clock_and_nonces_together_cost_four_sends() {
    for (nonces, sends) in [(0, 2), (1, 3), (2, 4)] {
        let (fake, stack) = skewed(nonces).await;
        let outcome = callers(&stack, API, 1, Duration::ZERO).await;
        assert!(outcome[0].is_ok(), "{nonces} nonces");
        assert_eq!((fake.hits(AS), fake.hits(RS)), (sends, sends));
        for host in [AS, RS] {
            let seen = fake.seen_by(host);
            let first = seen.first().unwrap().claims()["iat"].as_i64().unwrap();
            let last = seen.last().unwrap().claims()["iat"].as_i64().unwrap();
            assert!(last - first >= 590, "the clock comes last");
            let before = &seen[seen.len() - 2];
            assert_eq!(before.claims()["iat"], first);
            assert_eq!(seen.last().unwrap().nonce(), before.nonce());
        }
    }
    // With a third nonce it is over.
    let (fake, stack) = skewed(3).await;
    let outcome = callers(&stack, API, 1, Duration::ZERO).await;
    assert!(!outcome[0].is_ok());
    assert_eq!((fake.hits(AS), fake.hits(RS)), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn f35_a_server_that_always_finds_something_gets_four_sends() {
    let wall = Wall::new();
    let clock = wall.clone();
    let fake = Fake::new(move |seen, _| {
        let fresh = format!("n{}", seen.number);
        match (seen.uri.host(), seen.number % 2) {
            // Another time with each answer.
            (Some(RS), 0) => wrong_time(seen, clock.now() + secs(600 + 100 * seen.number as u64)),
            (Some(RS), _) => nonce_challenge(&fresh),
            _ => done(seen),
        }
    });
    let (_, stack) = bench::bench(&fake, wall.layer(), request());
    let outcomes = callers(&stack, API, 200, ms(100)).await;
    assert!(outcomes.iter().all(|outcome| outcome.status() == 401));
    assert!(most_sends(&fake, RS) <= 4, "{}", most_sends(&fake, RS));
    assert_eq!(fake.hits(AS), 1, "a refused proof is no refused token");
}
