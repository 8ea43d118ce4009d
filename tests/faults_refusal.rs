//! The fault catalogue, part D: tokens that a resource server refuses. F36 to F40; the figures are the
//! catalogue's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{
    API, Fake, NEVER, answer,
    bench::{
        API2, AS, Outcome, RS, RS2, all, call, callers, most_sends, ms, secs, servers, slowest,
        stack, times,
    },
    get, invalid_token, ok, text, token,
};
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
async fn f36_a_revocation_with_200_in_flight_costs_one_renewal() {
    let revoked = Arc::new(AtomicUsize::new(0));
    let valid = revoked.clone();
    let fake = servers(300, move |number| number >= valid.load(Ordering::Relaxed))
        .slow(AS, ms(100))
        .delay_by(
            |seen| match (seen.uri.host(), seen.uri.path()[1..].parse::<u64>()) {
                (Some(AS), _) => ms(100),
                // The refusals of one instant come over 200 ms.
                (_, Ok(number)) if seen.token() == "t0" => ms(number + 1),
                _ => Duration::ZERO,
            },
        );
    let stack = stack(&fake);
    stack
        .clone()
        .oneshot(get(&format!("{API}/warm")))
        .await
        .unwrap();
    let tasks = (0..200).map(|n| call(&stack, get(&format!("{API}/{n}"))));
    let tasks: Vec<_> = tasks.collect();
    tokio::task::yield_now().await;
    revoked.store(1, Ordering::Relaxed);
    let outcomes = all(tasks).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(fake.hits(AS), 1 + 1);
    assert_eq!(fake.hits(RS), 1 + 200 * 2, "one retry each");
    assert_eq!(most_sends(&fake, RS), 2);
}

#[tokio::test(start_paused = true)]
async fn f36_a_revocation_under_load_costs_one_renewal() {
    let revoked = Arc::new(AtomicUsize::new(0));
    let valid = revoked.clone();
    let fake = servers(300, move |number| number >= valid.load(Ordering::Relaxed)).delay(ms(100));
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    let load = tokio::spawn({
        let stack = stack.clone();
        async move { callers(&stack, API, 200, ms(1)).await }
    });
    sleep(ms(50)).await;
    revoked.store(1, Ordering::Relaxed);
    assert!(load.await.unwrap().iter().all(Outcome::is_ok));
    assert_eq!(fake.hits(AS), 1 + 1);
    assert!(most_sends(&fake, RS) <= 2);
}

#[tokio::test(start_paused = true)]
async fn f37_a_late_refusal_of_an_old_token_costs_the_new_one_nothing() {
    // The refusal of `/late` comes a minute later than the others.
    let fake = servers(300, |number| number > 0).delay_by(|seen| {
        match seen.uri.path() == "/late" && seen.token() == "t0" {
            true => secs(60),
            false => Duration::ZERO,
        }
    });
    let stack = stack(&fake);
    let late: Vec<_> = (0..20)
        .map(|_| call(&stack, get(&format!("{API}/late"))))
        .collect();
    sleep(secs(1)).await;
    assert_eq!(stack.clone().oneshot(get(API)).await.unwrap().status(), 200);
    assert_eq!(fake.hits(AS), 2);
    let late = all(late).await;
    assert!(
        late.iter().all(Outcome::is_ok),
        "sent again with the new one"
    );
    assert_eq!(slowest(&late), secs(60), "which was there");
    stack.oneshot(get(API)).await.unwrap();
    assert_eq!(
        fake.hits(AS),
        2,
        "no fetch for it, and the new one is still in use"
    );
}

#[tokio::test(start_paused = true)]
async fn f38_a_server_that_refuses_every_token_makes_no_storm() {
    let fake = servers(300, |_| false);
    let answer = stack(&fake).oneshot(get(API)).await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(text(answer).await, "refused", "it has the last word");
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 2));

    // How long the server takes to refuse, and how often it is asked.
    for (delay, gap) in [
        (Duration::ZERO, ms(50)),
        (Duration::ZERO, ms(10)),
        (Duration::ZERO, secs(1)),
        (ms(100), ms(50)),
        (ms(1_000), ms(50)),
        (ms(2_500), ms(50)),
        (ms(5_000), ms(50)),
    ] {
        let fake = servers(300, |_| false).slow(AS, ms(100)).slow(RS, delay);
        let start = Instant::now();
        let count = 60_000 / usize::try_from(gap.as_millis()).unwrap();
        let outcomes = callers(&stack(&fake), API, count, gap).await;
        assert!(outcomes.iter().all(|outcome| outcome.status() == 401));
        let fetches = times(&fake, AS, start);
        let fetches = fetches.iter().filter(|at| **at <= secs(60)).count();
        println!("{delay:?}, a request in {gap:?}: {fetches} fetches");
        assert!(
            fetches <= 14,
            "{delay:?}, {gap:?}: {fetches} fetches in a minute"
        );
        assert!(most_sends(&fake, RS) <= 2, "{delay:?}, {gap:?}");
    }
}

/// How an authorization server is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    Error,
    Slow,
    BlackHole,
}

#[tokio::test(start_paused = true)]
async fn f39_a_server_that_refuses_a_token_does_not_stop_the_others() {
    for down in [Down::Error, Down::Slow, Down::BlackHole] {
        // One server refuses the token, the other one accepts it.
        let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
            (Some(AS), 0) => token("t0", 300),
            (Some(AS), _) => answer(503, &[], "down"),
            (Some(RS2), _) => ok(),
            _ => invalid_token(),
        })
        .delay_by(move |seen| match (seen.uri.host(), seen.number, down) {
            (Some(AS), 1.., Down::Error) => ms(20),
            (Some(AS), 1.., Down::Slow) => secs(3),
            (Some(AS), 1.., Down::BlackHole) => NEVER,
            _ => Duration::ZERO,
        });
        // The very first request may be the one that is refused.
        let cold = stack(&fake).oneshot(get(API)).await.unwrap();
        assert_eq!(text(cold).await, "refused", "{down:?}");

        let fake = fake.anew();
        let stack = stack(&fake);
        let start = Instant::now();
        stack.clone().oneshot(get(API2)).await.unwrap();
        let (refused, healthy) = tokio::join!(
            callers(&stack, API, 1_400, ms(200)),
            callers(&stack, API2, 1_400, ms(200)),
        );
        for outcome in refused {
            assert_eq!(text(outcome.result.unwrap()).await, "refused", "{down:?}");
        }
        assert!(healthy.iter().all(Outcome::is_ok), "{down:?}");
        // While nobody knows yet that the authorization server is down, they wait for it: a second at the most.
        let known = match down {
            Down::Error => ms(20),
            Down::Slow | Down::BlackHole => secs(1),
        };
        assert!(
            slowest(&healthy) <= known + ms(1),
            "{:?}",
            slowest(&healthy)
        );
        let waited = healthy.iter().filter(|o| !o.took.is_zero());
        let last = waited.map(|outcome| outcome.started - start).max();
        assert!(
            last.is_none_or(|last| last <= known),
            "{down:?}: one waited {last:?} after the start"
        );
        let attempts = fake.hits(AS);
        assert!((2..30).contains(&attempts), "{down:?}: {attempts}");
        println!("{down:?}: {attempts} token requests, the last that waited came after {last:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn f40_a_token_that_was_on_its_way_at_the_refusal_is_the_new_one() {
    // It accepts the first token until that is due, and refuses it while the next one is on its way.
    let start = Instant::now();
    let fake = Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => token(&format!("t{}", seen.number), 300),
        _ if seen.token() == "t0" && start.elapsed() > secs(256) => invalid_token(),
        _ => ok(),
    })
    .slow(AS, ms(500));
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(secs(257)).await;
    // The first of these finds the token due, and is refused with it.
    let outcomes = callers(&stack, API, 100, ms(20)).await;
    assert!(outcomes.iter().all(Outcome::is_ok));
    assert_eq!(fake.hits(AS), 2, "one fetch for both reasons");
    let landed = fake.seen_by(AS)[1].at + ms(500);
    let sent = fake.seen_by(RS);
    assert!(sent.iter().any(|seen| seen.token() == "t1"));
    let after = sent.iter().filter(|seen| seen.at > landed);
    assert!(after.into_iter().all(|seen| seen.token() == "t1"));
}

#[tokio::test(start_paused = true)]
async fn f40_the_refused_token_once_more_is_not_taken_for_a_new_one() {
    // The first token is refused while the next one is on its way, and that has the same text.
    let start = Instant::now();
    let fake = Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) if seen.number < 2 => token("same", 300),
        Some(AS) => token("new", 300),
        _ if seen.token() == "same" && start.elapsed() > secs(256) => invalid_token(),
        _ => ok(),
    })
    .slow(AS, ms(500));
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(secs(257)).await;
    let refused = stack.clone().oneshot(get(API)).await.unwrap();
    assert_eq!(refused.status(), 401, "there is nothing better");
    assert_eq!(fake.hits(RS), 2, "and it is not sent again");
    assert_eq!(fake.hits(AS), 2);
    // It counts as a failure: the next try comes after a back-off.
    let outcomes = callers(&stack, API, 100, ms(20)).await;
    assert!(outcomes.last().unwrap().is_ok());
    let asked = times(&fake, AS, start);
    assert_eq!(asked.len(), 3);
    let pause = asked[2] - (asked[1] + ms(500));
    assert!((ms(125)..=ms(270)).contains(&pause), "{pause:?}");
    let landed = start + asked[2] + ms(500);
    let after = fake.seen_by(RS);
    let mut after = after.iter().filter(|seen| seen.at > landed);
    assert!(after.all(|seen| seen.token() == "new"));
}

/// With tokens that live less than the pause between two renewals of a refused one.
#[tokio::test(start_paused = true)]
async fn f39_short_tokens_and_a_server_that_refuses_them_all_leave_the_others_alone() {
    for seconds in [0, 2, 20] {
        let issued = AtomicUsize::new(0);
        let fake = Fake::new(move |seen, _| match seen.uri.host() {
            Some(AS) => token(
                &format!("t{}", issued.fetch_add(1, Ordering::Relaxed)),
                seconds,
            ),
            Some(RS2) => invalid_token(),
            _ => ok(),
        });
        let stack = stack(&fake);
        for _ in 0..1200 {
            assert_eq!(
                stack.clone().oneshot(get(API2)).await.unwrap().status(),
                401
            );
            assert_eq!(stack.clone().oneshot(get(API)).await.unwrap().status(), 200);
            sleep(ms(100)).await;
        }
        // One for each token's life, or for each step between renewals.
        let most = if seconds > 10 { 30 } else { 160 };
        assert!(
            fake.hits(AS) <= most,
            "{seconds} s: {} fetches in 120 s",
            fake.hits(AS)
        );
    }
}

/// A server that refused everything for a minute is forgiven: a revocation ten minutes later is like the first.
#[tokio::test(start_paused = true)]
async fn f36_after_a_quiet_time_a_revocation_costs_one_renewal_again() {
    // Tokens up to this number are refused.
    let refused = Arc::new(AtomicUsize::new(0));
    let limit = refused.clone();
    let fake = servers(60, move |number| number >= limit.load(Ordering::Relaxed));
    let stack = stack(&fake);
    let run = async |seconds: u64| {
        let mut failed = 0;
        for _ in 0..seconds * 5 {
            let answer = stack.clone().oneshot(get(API)).await.unwrap();
            failed += usize::from(answer.status() != 200);
            sleep(ms(200)).await;
        }
        failed
    };
    assert_eq!(run(10).await, 0);
    refused.store(usize::MAX, Ordering::Relaxed);
    assert!(run(60).await > 250, "refused whatever it is shown");
    refused.store(0, Ordering::Relaxed);
    assert_eq!(run(600).await, 0);
    let before = fake.hits(AS);
    while fake.hits(AS) == before {
        run(1).await;
    }
    refused.store(fake.hits(AS), Ordering::Relaxed);
    let before = fake.hits(AS);
    assert_eq!(run(10).await, 0);
    assert_eq!(fake.hits(AS), before + 1);
}

/// What a server can make of us that refuses each token some time after it saw it first.
#[tokio::test(start_paused = true)]
async fn f38_a_server_that_refuses_tokens_of_some_age_makes_no_storm() {
    for age in [0, 2, 6, 30] {
        let born = Arc::new(std::sync::Mutex::new(Vec::<Instant>::new()));
        let fake = Fake::new(move |seen, _| {
            let mut born = born.lock().unwrap();
            if seen.uri.host() == Some(AS) {
                born.push(Instant::now());
                return token(&format!("t{}", born.len() - 1), 3600);
            }
            let number: usize = seen.token().strip_prefix('t').unwrap().parse().unwrap();
            match born[number].elapsed() < secs(age) {
                true => ok(),
                false => invalid_token(),
            }
        });
        let stack = stack(&fake);
        for _ in 0..2000 {
            stack.clone().oneshot(get(API)).await.unwrap();
            sleep(ms(300)).await;
        }
        assert!(
            fake.hits(AS) <= 1 + 600 / 5,
            "{age} s: {} fetches in 600 s",
            fake.hits(AS)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn f40_a_token_that_is_given_twice_is_refused_once() {
    let refuses = Arc::new(AtomicUsize::new(0));
    let fake = {
        let refuses = refuses.clone();
        Fake::new(move |seen, n| match seen.uri.host() {
            // One text for a long time, as servers that keep tokens give it.
            Some(AS) if refuses.load(Ordering::Relaxed) < 2 => token("same", 100),
            Some(AS) => token(&format!("other{n}"), 100),
            _ if seen.uri.path() == "/late" => {
                refuses.store(2, Ordering::Relaxed);
                match seen.token() {
                    "same" => invalid_token(),
                    _ => ok(),
                }
            }
            _ => ok(),
        })
        .delay_by(|seen| match seen.uri.path() {
            "/late" => secs(30),
            _ => Duration::ZERO,
        })
    };
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(secs(64)).await;
    let late = call(&stack, get(&format!("{API}/late")));
    // Renewed in between, with the same text.
    sleep(secs(22)).await;
    stack.clone().oneshot(get(API)).await.unwrap();
    sleep(ms(1)).await;
    assert_eq!(fake.hits(AS), 2);
    assert!(late.await.unwrap().is_ok());
    assert_eq!(fake.hits(AS), 3);
    let late = fake.seen_by(RS);
    let late: Vec<_> = late
        .iter()
        .filter(|seen| seen.uri.path() == "/late")
        .collect();
    assert_eq!(late.len(), 2);
    assert!(
        late[1].token().starts_with("other"),
        "not the refused text again"
    );
}
