//! What callers get who wait.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::sleep;

use super::*;
use crate::{audience::Audience, key::DpopKey};

/// Its first answer comes at once; the next ones after a while.
fn cache(life: Duration, then: Duration) -> Cache {
    let key = DpopKey::generate().unwrap();
    let given = AtomicUsize::new(0);
    Cache::new(Arc::default(), Duration::from_secs(10), move || {
        let audience = Audience::danger_any_https_origin();
        let given = given.fetch_add(1, Ordering::Relaxed);
        let token = AccessToken::new(&format!("token-{given}"), &key, audience).unwrap();
        Box::pin(async move {
            if given > 0 {
                sleep(then).await;
            }
            Ok(Fetched {
                token,
                life,
                asked: None,
            })
        })
    })
}

/// All fetches but the first.
async fn lose_all(cache: &Cache) {
    for id in 2..2 + MAX_ROUNDS as u64 {
        sleep(Duration::from_millis(100)).await;
        assert!(cache.is_busy());
        cache.0.cell.give_up(id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_does_not_serve_past_its_end() {
    let cache = cache(Duration::from_secs(3), Duration::from_secs(5));
    let ask = Ask::default();
    let token = cache.wait(&ask).await.unwrap();
    sleep(Duration::from_millis(2600)).await;
    cache.refuse(&token);
    // A second later, when the server proves slow, the token has ended.
    let error = cache.wait(&ask).await.unwrap_err();
    assert!(error.to_string().contains("was over when it arrived"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_serves_when_one_fetch_after_the_other_is_lost() {
    let cache = cache(Duration::from_secs(300), Duration::from_secs(5));
    let ask = Ask::default();
    let token = cache.wait(&ask).await.unwrap();
    cache.refuse(&token);
    let (got, ()) = tokio::join!(cache.wait(&ask), lose_all(&cache));
    assert!(got.unwrap().is(&token));
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_one_fetch_after_the_other_is_told() {
    let cache = cache(Duration::from_secs(300), Duration::from_secs(5));
    let ask = Ask::default();
    cache.wait(&ask).await.unwrap();
    cache.forget();
    let (got, ()) = tokio::join!(cache.wait(&ask), lose_all(&cache));
    assert!(got.unwrap_err().is_runtime());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_while_tokens_are_forgotten_gets_one_all_the_same() {
    let cache = cache(Duration::from_secs(300), Duration::from_secs(5));
    let ask = Ask::default();
    cache.wait(&ask).await.unwrap();
    cache.forget();
    let forgotten = async {
        for _ in 0..2 * MAX_ROUNDS {
            sleep(Duration::from_millis(100)).await;
            assert!(cache.is_busy());
            cache.forget();
        }
    };
    let (got, ()) = tokio::join!(cache.wait(&ask), forgotten);
    assert_eq!(
        got.unwrap().secret(),
        format!("token-{}", 2 * MAX_ROUNDS + 1)
    );
}
