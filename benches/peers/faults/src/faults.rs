//! The faults. Each is one function for both sides, so that both get the same load and the same servers.
//!
//! Their names are those of the rows that are printed.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tower::BoxError;

use crate::{
    herd::{Callers, Client, Herd, Seconds},
    servers::Servers,
    stack::{LIMIT, Stack},
};

/// What a side has to say for itself.
pub(crate) type Report = Result<String, BoxError>;

/// Longer than any peer's own deadline: what is measured is the peers' patience, not ours.
const PATIENT: Duration = Duration::from_secs(15);

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A hundred callers, nothing cached, and a healthy server.
pub(crate) async fn a1<C: Client>(build: impl FnOnce(&Servers) -> Result<C, BoxError>) -> Report {
    let servers = Servers::new(millis(100));
    let client = build(&servers)?;
    let callers = Herd::at_once(100, PATIENT).run(&client).await;
    Ok(report(&servers, &callers))
}

/// The same, and every token request fails after its 100 ms.
pub(crate) async fn a2<C: Client>(build: impl FnOnce(&Servers) -> Result<C, BoxError>) -> Report {
    let servers = Servers::new(millis(100));
    servers.tokens.go_down();
    let client = build(&servers)?;
    let callers = Herd::at_once(100, PATIENT).run(&client).await;
    Ok(report(&servers, &callers))
}

/// A healthy server takes 200 ms, and callers, one each 20 ms, give up after 150 ms.
pub(crate) async fn a3<C: Client>(build: impl FnOnce(&Servers) -> Result<C, BoxError>) -> Report {
    let servers = Servers::new(millis(200));
    let client = build(&servers)?;
    let herd = Herd {
        callers: 100,
        apart: millis(20),
        deadline: millis(150),
    };
    let callers = herd.run(&client).await;
    Ok(report(&servers, &callers))
}

/// `expires_in` is the largest number there is. Then the server comes to its senses.
pub(crate) async fn g1<C: Client>(build: impl Fn(&Servers) -> Result<C, BoxError>) -> Report {
    let herd = Herd::at_once(20, millis(2000));

    // Without the fault all is well; else the fault proves nothing.
    let servers = Servers::new(millis(10));
    let healthy = herd.run(&build(&servers)?).await;
    if !healthy.all_ok() {
        return Err(format!("already without the fault: {healthy}").into());
    }

    let servers = Servers::new(millis(10));
    servers.tokens.set_life(u64::MAX);
    let client = build(&servers)?;
    let during = report(&servers, &herd.run(&client).await);
    servers.tokens.set_life(3600);
    sleep(millis(1000)).await;
    let after = report(&servers, &herd.run(&client).await);
    Ok(format!("{during}. One second after the fault: {after}"))
}

/// 200 requests are on their way when the token that all carry is revoked. Their answers come 2 ms apart.
pub(crate) async fn z1<C: Client>(build: impl FnOnce(&Servers) -> Result<C, BoxError>) -> Report {
    let servers = Servers::new(millis(10)).api_delay(millis(100), millis(400), 200);
    let client = build(&servers)?;
    prime(&client).await?;
    // Not in the second in which it was given: a cache may well wait a little before it asks again.
    sleep(millis(1500)).await;
    let revoke = async {
        sleep(millis(50)).await;
        servers.api.revoke_first();
    };
    let herd = Herd::at_once(200, PATIENT);
    let (callers, ()) = tokio::join!(herd.run(&client), revoke);
    Ok(report(&servers, &callers))
}

/// The cached token still works, its renewal is due, and every token request fails after 100 ms.
///
/// `life` and `age` bring the token there; when a renewal is due differs from side to side.
pub(crate) async fn z2<C: Client>(
    life: Duration,
    age: Duration,
    build: impl FnOnce(&Servers) -> Result<C, BoxError>,
) -> Report {
    let servers = Servers::new(millis(100));
    servers.tokens.set_life(life.as_secs());
    let client = build(&servers)?;
    let asked = Instant::now();
    prime(&client).await?;
    sleep_until(asked + age).await;
    servers.tokens.go_down();
    servers.tokens.take_counts();
    let callers = Herd::at_once(50, PATIENT).run(&client).await;
    // Whoever did not wait for the renewal ended before it; it is to be counted as finished nevertheless.
    sleep(millis(200)).await;
    Ok(report(&servers, &callers))
}

/// API requests and token requests share one limit of four, and it is in use when the first callers come, so
/// that they wait for its permits before the first token request does.
pub(crate) async fn t1(build: impl FnOnce(&Servers) -> Result<Stack, BoxError>) -> Report {
    let servers = Servers::new(millis(50)).api_delay(millis(20), Duration::ZERO, 1);
    let client = build(&servers)?;
    let mut in_use = JoinSet::new();
    for _ in 0..LIMIT {
        in_use.spawn(client.call_elsewhere());
    }
    sleep(millis(5)).await;
    let callers = Herd::at_once(16, millis(3000)).run(&client).await;
    if !in_use.join_all().await.into_iter().all(|ok| ok) {
        return Err("an unrelated request failed".into());
    }
    Ok(report(&servers, &callers))
}

/// The authorization server takes 2 s. Eight requests wait for the token, and one comes that needs none and
/// shares their limit of four.
pub(crate) async fn t5(build: impl FnOnce(&Servers) -> Result<Stack, BoxError>) -> Report {
    let servers = Servers::new(millis(2000)).api_delay(millis(10), Duration::ZERO, 1);
    let client = build(&servers)?;
    let unrelated = async {
        sleep(millis(30)).await;
        let began = Instant::now();
        let answer = timeout(PATIENT, client.call_elsewhere()).await;
        (answer.unwrap_or(false), began.elapsed())
    };
    let herd = Herd::at_once(8, PATIENT);
    let (callers, (ok, took)) = tokio::join!(herd.run(&client), unrelated);
    if !ok {
        return Err("the unrelated request failed".into());
    }
    let callers = report(&servers, &callers);
    Ok(format!(
        "the unrelated request {}. {callers}",
        Seconds(took)
    ))
}

/// The first call, for a cache with a token.
async fn prime(client: &impl Client) -> Result<(), BoxError> {
    match timeout(PATIENT, client.call()).await {
        Ok(true) => Ok(()),
        _ => Err("the first call, before the fault, failed".into()),
    }
}

fn report(servers: &Servers, callers: &Callers) -> String {
    let (started, finished) = servers.tokens.take_counts();
    let plural = if started == 1 { "" } else { "s" };
    let lost = if finished == started {
        String::new()
    } else {
        format!(" ({finished} finished)")
    };
    format!("{started} token request{plural}{lost}; {callers}")
}
