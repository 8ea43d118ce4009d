//! Refresh tokens of the authorization server of `testing`, from outside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::StatusCode;
use serde_json::{Value, json};
use tower_dpop::{
    DpopKey,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces, TokenFormat},
};

use self::servers::{Answer, Call, Claims, Kit};

const PUBLIC: [(&str, &str); 1] = [("client_id", "public")];
const SECRET: [(&str, &str); 2] = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
const MINUTE: Duration = Duration::from_secs(60);

async fn start() -> Kit {
    let kit = Kit::start().await;
    kit.authorization_server.add_public_client("public");
    kit
}

/// The first refresh token of a grant to the public client.
fn first(kit: &Kit) -> String {
    let server = &kit.authorization_server;
    server.issue_refresh_token("public", &kit.key, "a b")
}

fn call(kit: &Kit, client: &[(&str, &str)], more: &[(&str, &str)], claims: Claims<'_>) -> Call {
    let grant = [("grant_type", "refresh_token")];
    kit.token_call_of(&[&grant, client, more].concat(), claims)
}

/// Of the public client.
async fn refresh(kit: &Kit, token: &str) -> Answer {
    refresh_at(kit, token, 0).await
}

/// With clocks that are so many seconds ahead.
async fn refresh_at(kit: &Kit, token: &str, ahead: i64) -> Answer {
    kit.authorization_server.clock_offset(ahead);
    let more = [("refresh_token", token)];
    kit.send(call(kit, &PUBLIC, &more, Claims::ahead(ahead)))
        .await
}

#[track_caller]
fn access(answer: &Answer) -> String {
    answer.is(200, "");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

#[track_caller]
fn next(answer: &Answer) -> String {
    answer.is(200, "");
    answer.json()["refresh_token"].as_str().unwrap().to_owned()
}

async fn is_good(kit: &Kit, access_token: &str) -> bool {
    let answer = kit.api(access_token, Claims::default()).await;
    match answer.status {
        200 => true,
        _ => {
            answer.is(401, "invalid_token");
            false
        }
    }
}

#[tokio::test]
async fn each_is_good_once_and_brings_the_next() {
    let kit = start().await;
    for client in [&PUBLIC[..], &SECRET] {
        let mut token = kit
            .authorization_server
            .issue_refresh_token(client[0].1, &kit.key, "a b");
        let mut all = vec![token.clone()];
        for _ in 0..3 {
            let more = [("refresh_token", &*token)];
            let answer = kit.send(call(&kit, client, &more, Claims::default())).await;
            token = next(&answer);
            all.push(token.clone());
            let body = answer.json();
            assert_eq!(
                (&body["token_type"], &body["expires_in"], &body["scope"]),
                (&json!("DPoP"), &json!(300), &json!("a b"))
            );
            let answer = kit.api(&access(&answer), Claims::default()).await;
            answer.is(200, "");
            assert_eq!(answer.json()["client_id"], client[0].1);
            assert_eq!(answer.json()["scope"], "a b");
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
    let answer = kit.send(kit.token_call(Claims::default())).await;
    assert_eq!(answer.json().get("refresh_token"), None);
}

#[tokio::test]
async fn one_that_was_used_before_ends_its_grant() {
    let kit = start().await;
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        kit.authorization_server.token_format(format);
        let old = first(&kit);
        let answer = refresh(&kit, &old).await;
        let (middle, early) = (next(&answer), access(&answer));
        let answer = refresh(&kit, &middle).await;
        let (current, late) = (next(&answer), access(&answer));
        let other = refresh(&kit, &first(&kit)).await;
        let without = kit.token().await;
        for token in [&early, &late, &access(&other), &without] {
            assert!(is_good(&kit, token).await);
        }

        refresh(&kit, &old).await.is(400, "invalid_grant");
        let seen = kit.authorization_server.requests();
        assert_eq!(
            seen.last().unwrap().refused(),
            Some("the refresh token was used before; all tokens of its grant are revoked")
        );
        assert!(!is_good(&kit, &early).await && !is_good(&kit, &late).await);
        for token in [&old, &middle, &current] {
            refresh(&kit, token).await.is(400, "invalid_grant");
        }
        // Others have nothing to do with it.
        assert!(is_good(&kit, &access(&other)).await && is_good(&kit, &without).await);
        refresh(&kit, &next(&other)).await.is(200, "");
    }
}

#[tokio::test]
async fn a_client_and_a_public_clients_key_are_bound() {
    let mut kit = start().await;
    let server = kit.authorization_server.clone();
    server.add_public_client("other");
    let of_public = first(&kit);
    let of_secret = server.issue_refresh_token(CLIENT_ID, &kit.key, "");
    for (client, token) in [
        (&[("client_id", "other")][..], &of_public),
        (&SECRET, &of_public),
        (&PUBLIC, &of_secret),
    ] {
        let more = [("refresh_token", &**token)];
        let answer = kit.send(call(&kit, client, &more, Claims::default()));
        answer.await.is(400, "invalid_grant");
    }
    let own = std::mem::replace(&mut kit.key, DpopKey::generate().unwrap());
    refresh(&kit, &of_public).await.is(400, "invalid_grant");

    // A client with a secret may change its key, and gets access tokens for the new one.
    let more = [("refresh_token", &*of_secret)];
    let answer = kit
        .send(call(&kit, &SECRET, &more, Claims::default()))
        .await;
    let token = access(&answer);
    assert_eq!(answer.json().get("scope"), None);
    assert!(is_good(&kit, &token).await);
    kit.key = own;
    assert!(!is_good(&kit, &token).await);

    // None of that used anything up.
    refresh(&kit, &of_public).await.is(200, "");
}

#[tokio::test]
async fn scopes_and_resources() {
    let kit = start().await;
    kit.authorization_server.token_format(TokenFormat::Signed);
    let ask = async |token: &str, parameter: (&str, &str)| {
        let more = [("refresh_token", token), parameter];
        kit.send(call(&kit, &PUBLIC, &more, Claims::default()))
            .await
    };
    let token = first(&kit);
    for more in ["c", "a c", "a b c", "A", "a  b", "\""] {
        ask(&token, ("scope", more)).await.is(400, "invalid_scope");
    }
    ask(&token, ("resource", "/api"))
        .await
        .is(400, "invalid_target");
    // All that left it as it is. Less may be asked for, which is for that access token only.
    let mut token = token;
    for (asked, got) in [("b", "b"), ("b a", "b a"), ("a", "a"), ("", "a b")] {
        let answer = ask(&token, ("scope", asked)).await;
        token = next(&answer);
        assert_eq!(answer.json()["scope"], got);
        let answer = kit.api(&access(&answer), Claims::default()).await;
        assert_eq!(answer.json()["scope"], got);
    }
    let answer = ask(&token, ("resource", "https://a")).await;
    let claims = access(&answer).split('.').nth(1).unwrap().to_owned();
    let claims: Value = serde_json::from_slice(&BASE64URL.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://a");

    let server = &kit.authorization_server;
    let none = server.issue_refresh_token("public", &kit.key, "");
    ask(&none, ("scope", "a")).await.is(400, "invalid_scope");
}

#[tokio::test]
async fn without_rotation() {
    let kit = start().await;
    let rotated = next(&refresh(&kit, &first(&kit)).await);
    kit.authorization_server.rotate_refresh_tokens(false);
    for _ in 0..3 {
        let answer = refresh(&kit, &rotated).await;
        answer.is(200, "");
        assert_eq!(answer.json().get("refresh_token"), None);
    }
    kit.authorization_server.rotate_refresh_tokens(true);
    next(&refresh(&kit, &rotated).await);
    refresh(&kit, &rotated).await.is(400, "invalid_grant");
}

#[tokio::test]
async fn a_time_of_grace() {
    let kit = start().await;
    kit.authorization_server.refresh_token_grace(MINUTE);
    let old = first(&kit);
    let answer = refresh(&kit, &old).await;
    let (current, early) = (next(&answer), access(&answer));
    // It counts from the first use.
    for ahead in [0, 20, 40] {
        let answer = refresh_at(&kit, &old, ahead).await;
        assert_eq!(next(&answer), current, "the same one");
        assert_ne!(access(&answer), early);
    }
    refresh_at(&kit, &old, 61).await.is(400, "invalid_grant");
    refresh_at(&kit, &current, 61)
        .await
        .is(400, "invalid_grant");
    assert!(!is_good(&kit, &early).await);

    // It is over when the next is used.
    let old = first(&kit);
    let middle = next(&refresh(&kit, &old).await);
    let current = next(&refresh(&kit, &middle).await);
    assert_eq!(next(&refresh(&kit, &middle).await), current);
    refresh(&kit, &old).await.is(400, "invalid_grant");
    refresh(&kit, &current).await.is(400, "invalid_grant");

    // Who switches rotation off in the meantime still gets the next.
    let old = first(&kit);
    let current = next(&refresh(&kit, &old).await);
    kit.authorization_server.rotate_refresh_tokens(false);
    assert_eq!(next(&refresh(&kit, &old).await), current);
}

#[tokio::test]
async fn a_lost_answer_costs_the_grant_without_grace() {
    for (grace, status) in [(Duration::ZERO, 400), (MINUTE, 200)] {
        let kit = start().await;
        kit.authorization_server.refresh_token_grace(grace);
        let token = first(&kit);
        kit.authorization_server.lose_answers(1);
        let more = [("refresh_token", &*token)];
        let lost = call(&kit, &PUBLIC, &more, Claims::default());
        assert!(kit.http.request(lost).await.is_err());
        assert_eq!(refresh(&kit, &token).await.status, status);
    }
}

#[tokio::test]
async fn what_is_refused_before_uses_nothing_up() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let token = first(&kit);
    server.fail(1, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refresh(&kit, &token).await.status, 503);
    server.clock_offset(100);
    let more = [("refresh_token", &*token)];
    let old = call(&kit, &PUBLIC, &more, Claims::default());
    kit.send(old).await.is(400, "invalid_dpop_proof");
    server.clock_offset(0);
    server.nonces(Nonces::required());
    let challenge = refresh(&kit, &token).await;
    challenge.is(400, "use_dpop_nonce");
    let nonce = challenge.nonce().unwrap();
    let answer = call(&kit, &PUBLIC, &more, Claims::nonce(&*nonce));
    kit.send(answer).await.is(200, "");
}

#[tokio::test]
async fn what_is_no_refresh_token() {
    let kit = start().await;
    let token = first(&kit);
    for bad in ["unknown", ".", "a.b", &kit.token().await] {
        refresh(&kit, bad).await.is(400, "invalid_grant");
    }
    refresh(&kit, "").await.is(400, "invalid_request");
    let twice = [("refresh_token", &*token), ("refresh_token", &*token)];
    let answer = kit.send(call(&kit, &PUBLIC, &twice, Claims::default()));
    answer.await.is(400, "invalid_request");
    assert!(!is_good(&kit, &token).await, "it is no access token");
    refresh(&kit, &token).await.is(200, "");
}

#[tokio::test]
async fn revoking() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let without = kit.token().await;
    let answer = refresh(&kit, &first(&kit)).await;
    server.revoke_refresh_tokens();
    assert!(is_good(&kit, &without).await && !is_good(&kit, &access(&answer)).await);
    refresh(&kit, &next(&answer)).await.is(400, "invalid_grant");

    let answer = refresh(&kit, &first(&kit)).await;
    server.revoke_all();
    assert!(!is_good(&kit, &without).await && !is_good(&kit, &access(&answer)).await);
    let answer = refresh(&kit, &next(&answer)).await;
    assert!(is_good(&kit, &access(&answer)).await);
}

#[tokio::test]
async fn a_restart_keeps_them() {
    let kit = start().await;
    let old = first(&kit);
    let current = next(&refresh(&kit, &old).await);
    kit.authorization_server.restart().await.unwrap();
    let kit = kit.reconnected();
    let current = next(&refresh(&kit, &current).await);
    refresh(&kit, &old).await.is(400, "invalid_grant");
    refresh(&kit, &current).await.is(400, "invalid_grant");
}
