//! What is stored of a grant, and what a store's faults cost: never the grant.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "support/grants.rs"]
mod grants;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use support::{API, Fake, a3_key, answer, refusal};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, DpopLayer, Grant, GrantStore, OAuthClient,
    Registration, ServerMetadata, StoredGrant, TokenLayer, TokenParameters, TokenRequest,
};

use self::grants::{
    ISSUER, LOST, Scripted, ask, ask_for, by, client, code, given, later, layer, sent, server,
};

fn stored(token: &str) -> StoredGrant {
    StoredGrant::new(&a3_key(), token, ISSUER, "app", None)
}

fn refresh() -> TokenRequest {
    by(Grant::refresh_token("canary-r0"))
}

/// Another process has rotated r0 to r5. Its file cannot be read for a moment: r0, which is used up, must not be sent
/// (a server that looks for theft ends the grant of all).
#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_read_for_once_does_not_cost_the_grant() {
    let loads = Arc::new(AtomicUsize::new(0));
    let fake = server(vec![given("a", "canary-r6")]);
    let store = Scripted {
        load: move || match loads.fetch_add(1, Ordering::Relaxed) {
            0 => Err("EIO, or of a later format, or its mode is 0644".into()),
            _ => Ok(Some(stored("canary-r5"))),
        },
        save: |_| Ok(()),
    };
    let tokens = layer(&fake, refresh().store(store));
    let _ = ask(&tokens).await;
    later().await;
    let _ = ask(&tokens).await;
    assert_eq!(sent(&fake)[0], "canary-r5");
}

/// The code is spent, so what came of it is all there is: stored before anything else is waited for.
#[tokio::test(start_paused = true)]
async fn what_came_of_a_code_is_stored_before_it_is_used() {
    let saved = Arc::new(Mutex::new(Vec::new()));
    let store = Scripted {
        load: || Ok(None),
        save: {
            let saved = Arc::clone(&saved);
            move |grant: StoredGrant| {
                saved.lock().unwrap().push(grant.refresh_token().to_owned());
                Ok(())
            }
        },
    };
    let fake = {
        let saved = Arc::clone(&saved);
        Fake::new(move |seen, _| match seen.parameter("refresh_token") {
            None => given("a0", "canary-r1"),
            Some(token) => {
                assert_eq!(
                    *saved.lock().unwrap(),
                    [token],
                    "a crash now costs the grant"
                );
                given("a1", "canary-r2")
            }
        })
    };
    let tokens = layer(&fake, by(code().await).store(store));
    let own = TokenParameters::new().resource("urn:own");
    assert_eq!(ask_for(&tokens, &own).await.unwrap(), "a1");
}

/// The user granted anew and put the new refresh token into the configuration; the file beside it holds the old one,
/// which the server does not honour any more.
#[tokio::test(start_paused = true)]
async fn a_dead_stored_refresh_token_does_not_cost_the_live_one() {
    let fake = Fake::new(|seen, _| match seen.parameter("refresh_token").as_deref() {
        Some("canary-r0") => given("a", None),
        _ => refusal("invalid_grant"),
    });
    let store = Scripted {
        load: || Ok(Some(stored("canary-dead"))),
        save: |_| Ok(()),
    };
    let tokens = layer(&fake, refresh().store(store));
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(ask(&tokens).await);
        later().await;
    }
    assert!(!got.is_empty(), "{:?}", sent(&fake));
}

/// The error said that the user has to grant anew; the user did.
#[tokio::test(start_paused = true)]
async fn nor_does_one_whose_answer_was_lost() {
    let json = stored("canary-lost").to_json().unwrap();
    let json = json.replace(r#""refresh_token""#, r#""answer":"lost","refresh_token""#);
    let current = Arc::new(Mutex::new(StoredGrant::from_json(json.as_bytes()).unwrap()));
    assert!(current.lock().unwrap().is_uncertain());
    let store = Scripted {
        load: {
            let current = Arc::clone(&current);
            move || Ok(Some(current.lock().unwrap().clone()))
        },
        save: {
            let current = Arc::clone(&current);
            move |grant| {
                *current.lock().unwrap() = grant;
                Ok(())
            }
        },
    };
    let fake = server(vec![given("a", None)]);
    let tokens = layer(&fake, refresh().store(store));
    for _ in 0..2 {
        assert_eq!(ask(&tokens).await.unwrap(), "a");
        later().await;
    }
    assert_eq!(sent(&fake), ["canary-r0"; 2]);
    assert!(!current.lock().unwrap().is_uncertain());
}

/// What one lost, another one may have renewed meanwhile: that is not overwritten by what is known of the old one.
#[tokio::test(start_paused = true)]
async fn a_doubt_that_could_not_be_stored_overwrites_nothing() {
    let current = Arc::new(Mutex::new(stored("canary-r0")));
    let works = Arc::new(Mutex::new(false));
    let store = Scripted {
        load: {
            let current = Arc::clone(&current);
            move || Ok(Some(current.lock().unwrap().clone()))
        },
        save: {
            let (current, works) = (Arc::clone(&current), Arc::clone(&works));
            move |grant| {
                if !*works.lock().unwrap() {
                    return Err("no space".into());
                }
                *current.lock().unwrap() = grant;
                Ok(())
            }
        },
    };
    let fake = server(vec![answer(LOST, &[], ""), given("a", None)]);
    let tokens = layer(&fake, refresh().store(store));
    assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
    *current.lock().unwrap() = stored("canary-r5");
    *works.lock().unwrap() = true;
    later().await;
    let _ = ask(&tokens).await;
    assert_eq!(current.lock().unwrap().refresh_token(), "canary-r5");
}

/// Two layers that share a store, at a server that takes a refresh token once: nobody allowed one more try.
#[tokio::test(start_paused = true)]
async fn what_one_process_does_not_know_the_fate_of_no_other_one_sends() {
    let current = Arc::new(Mutex::new(stored("canary-r0")));
    let store = || Scripted {
        load: {
            let current = Arc::clone(&current);
            move || Ok(Some(current.lock().unwrap().clone()))
        },
        save: {
            let current = Arc::clone(&current);
            move |grant| {
                *current.lock().unwrap() = grant;
                Ok(())
            }
        },
    };
    let fake = server(vec![answer(LOST, &[], ""), given("a", None)]);
    let one = layer(&fake, refresh().store(store()));
    assert!(ask(&one).await.unwrap_err().is_grant_uncertain());
    let grant = current.lock().unwrap().clone();
    let other = layer(&fake, by(Grant::stored(&grant)).store(store()));
    let _ = ask(&other).await;
    assert_eq!(sent(&fake), ["canary-r0"]);
}

#[tokio::test(start_paused = true)]
async fn no_error_shows_the_query_of_a_stored_grants_server() {
    let endpoint = "https://as.example.com/token?key=canary";
    let grant = StoredGrant::new(&a3_key(), "canary-r", endpoint, "app", None);
    let fake = server(vec![given("a", None)]);
    let request = by(Grant::stored(&grant));
    let audience = Audience::origins([API]).unwrap();
    let layer = TokenLayer::new(&DpopLayer::new(a3_key()), client(&fake), request, audience);
    let error = layer.err().unwrap();
    assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
}

fn uncertain(token: &str) -> StoredGrant {
    let json = stored(token).to_json().unwrap();
    let json = json.replace(r#""refresh_token""#, r#""answer":"lost","refresh_token""#);
    StoredGrant::from_json(json.as_bytes()).unwrap()
}

type Row = Arc<Mutex<StoredGrant>>;

fn kept_in(row: &Row) -> impl GrantStore {
    let (a, b) = (Arc::clone(row), Arc::clone(row));
    Scripted {
        load: move || Ok::<_, BoxError>(Some(a.lock().unwrap().clone())),
        save: move |grant| {
            *b.lock().unwrap() = grant;
            Ok(())
        },
    }
}

/// The stored one is dead; the server has a hiccup when the user's own is sent.
#[tokio::test(start_paused = true)]
async fn a_hiccup_after_a_dead_one_does_not_cost_the_live_one() {
    let times = AtomicUsize::new(0);
    let fake = Fake::new(
        move |seen, _| match seen.parameter("refresh_token").as_deref() {
            Some("canary-r0") if times.fetch_add(1, Ordering::Relaxed) == 0 => answer(503, &[], ""),
            Some("canary-r0") => given("a", None),
            _ => refusal("invalid_grant"),
        },
    );
    let row: Row = Arc::new(Mutex::new(stored("canary-dead")));
    let tokens = layer(&fake, refresh().store(kept_in(&row)));
    let mut got = Vec::new();
    for _ in 0..4 {
        got.extend(ask(&tokens).await);
        later().await;
    }
    assert!(!got.is_empty(), "{:?}", sent(&fake));
}

/// The grant comes from the store, and another process has rotated it since, and then lost an answer.
#[tokio::test(start_paused = true)]
async fn a_stored_one_that_another_process_used_up_is_not_sent_again() {
    let row: Row = Arc::new(Mutex::new(uncertain("canary-r5")));
    let fake = server(vec![given("a", None)]);
    let tokens = layer(
        &fake,
        by(Grant::stored(&stored("canary-r0"))).store(kept_in(&row)),
    );
    assert!(ask(&tokens).await.unwrap_err().is_grant_uncertain());
    assert!(sent(&fake).is_empty(), "{:?}", sent(&fake));
    assert_eq!(row.lock().unwrap().refresh_token(), "canary-r5");
}

/// What the user was asked for is what is stored.
#[tokio::test(start_paused = true)]
async fn the_scope_of_a_login_is_stored() {
    let fake = server(vec![given("a", "canary-r1")]);
    let dpop = DpopLayer::new(a3_key());
    let metadata = ServerMetadata::default()
        .with_authorization_endpoint("https://as.example.com/authorize")
        .with_token_endpoint("https://as.example.com/token");
    let registration = Registration::new(metadata, "app");
    let oauth = OAuthClient::new(&dpop, client(&fake), registration.clone()).unwrap();
    let pending = oauth
        .authorize(AuthorizationRequest::new("http://127.0.0.1:1/c").scope("orders"))
        .await
        .unwrap();
    let grant = pending
        .answered(&format!("/c?code=x&state={}", pending.state()))
        .unwrap();
    let other = Registration::new("https://other.example.com/token", "app");
    let audience = Audience::origins([API]).unwrap();
    let refused = TokenLayer::new(
        &dpop,
        client(&fake),
        TokenRequest::new(other, grant.clone()),
        audience.clone(),
    );
    assert!(refused.err().unwrap().is_config());
    let row: Row = Arc::new(Mutex::new(stored("canary-old")));
    let tokens = TokenLayer::new(
        &dpop,
        client(&fake),
        TokenRequest::new(registration, grant).store(kept_in(&row)),
        audience,
    )
    .unwrap();
    assert_eq!(ask(&tokens).await.unwrap(), "a");
    assert_eq!(row.lock().unwrap().scope(), Some("orders"));
}
