//! The authorization server of `testing` from outside: devices, token exchange, grants of one's own, and which
//! grants bring a refresh token.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use tower_dpop::testing::{CLIENT_ID, CLIENT_SECRET, Nonces, TokenFormat};

use self::servers::{Answer, Claims, Kit};

const SECRET: [(&str, &str); 2] = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
const PUBLIC: [(&str, &str); 1] = [("client_id", "public")];
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

async fn start() -> Kit {
    let kit = Kit::start().await;
    kit.authorization_server.add_public_client("public");
    // None, so that what is not about it need not wait.
    kit.authorization_server.device_interval(Duration::ZERO);
    kit
}

async fn grant(kit: &Kit, parameters: &[(&str, &str)]) -> Answer {
    grant_by(kit, parameters, &PUBLIC, Claims::default()).await
}

async fn grant_by(
    kit: &Kit,
    parameters: &[(&str, &str)],
    client: &[(&str, &str)],
    claims: Claims<'_>,
) -> Answer {
    let call = kit.token_call_of(&[parameters, client].concat(), claims);
    kit.send(call).await
}

async fn device(kit: &Kit, parameters: &[(&str, &str)]) -> Answer {
    let url = kit.authorization_server.device_authorization_endpoint();
    kit.post(&url, &[parameters, &PUBLIC].concat(), None).await
}

async fn poll(kit: &Kit, code: &str) -> Answer {
    grant(kit, &[("grant_type", DEVICE_CODE), ("device_code", code)]).await
}

fn claims_of(token: &str) -> Value {
    let claims = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test]
async fn a_device() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.token_format(TokenFormat::Signed);
    server.device_interval(Duration::from_millis(1));
    let asked = [("scope", "a b"), ("resource", "https://api")];
    let answer = device(&kit, &asked).await;
    answer.is(200, "");
    let (code, user_code) = (answer.text("device_code"), answer.text("user_code"));
    let told = answer.json();
    assert_eq!(
        (&told["expires_in"], &told["interval"]),
        (&json!(600), &json!(1)),
        "rounded up"
    );
    server.device_interval(Duration::ZERO);
    let uri = answer.text("verification_uri");
    assert!(uri.starts_with(server.origin()));
    assert_eq!(
        answer.text("verification_uri_complete"),
        format!("{uri}?user_code={user_code}")
    );
    assert_eq!(user_code.len(), 9);
    let other = device(&kit, &asked).await;
    assert_ne!(other.text("user_code"), user_code);

    poll(&kit, &code).await.is(400, "authorization_pending");
    assert!(!server.approve_device("nobody's"));
    assert!(server.approve_device(&user_code.to_lowercase().replace('-', " ")));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let answer = poll(&kit, &code).await;
    answer.is(200, "");
    assert_eq!(answer.text("scope"), "a b");
    let token = answer.text("access_token");
    let said = claims_of(&token);
    assert_eq!(
        (&said["sub"], &said["client_id"], &said["aud"]),
        (&json!("user"), &json!("public"), &json!("https://api"))
    );
    kit.api(&token, Claims::default()).await.is(200, "");
    let refresh = answer.text("refresh_token");
    grant(
        &kit,
        &[("grant_type", "refresh_token"), ("refresh_token", &refresh)],
    )
    .await
    .is(200, "");

    // It is good once, and its neighbour still waits.
    poll(&kit, &code).await.is(400, "invalid_grant");
    poll(&kit, &other.text("device_code"))
        .await
        .is(400, "authorization_pending");
}

#[tokio::test]
async fn a_user_denies_or_all_approve() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let denied = device(&kit, &[]).await;
    assert!(server.deny_device(&denied.text("user_code")));
    assert!(!server.deny_device(""));
    let waiting = device(&kit, &[]).await;
    server.approve_devices(true);
    let denied = denied.text("device_code");
    for _ in 0..2 {
        poll(&kit, &denied).await.is(400, "access_denied");
    }
    poll(&kit, &waiting.text("device_code")).await.is(200, "");
    let later = device(&kit, &[]).await;
    poll(&kit, &later.text("device_code")).await.is(200, "");
    server.approve_devices(false);
    let last = device(&kit, &[]).await;
    poll(&kit, &last.text("device_code"))
        .await
        .is(400, "authorization_pending");
}

#[tokio::test(start_paused = true)]
async fn a_device_waits_between_two_requests() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.device_interval(Duration::from_secs(10));
    let answer = device(&kit, &[]).await;
    assert_eq!(answer.json()["interval"], 10);
    let code = answer.text("device_code");
    let wait = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
    poll(&kit, &code).await.is(400, "authorization_pending");
    poll(&kit, &code).await.is(400, "slow_down");
    // Five seconds more from now on, each time.
    wait(14).await;
    poll(&kit, &code).await.is(400, "slow_down");
    wait(19).await;
    poll(&kit, &code).await.is(400, "slow_down");
    for _ in 0..2 {
        wait(25).await;
        poll(&kit, &code).await.is(400, "authorization_pending");
    }
    // An approval does not make it less of a hurry, and costs nothing.
    server.approve_device(&answer.text("user_code"));
    poll(&kit, &code).await.is(400, "slow_down");
    wait(30).await;
    poll(&kit, &code).await.is(200, "");

    // Each device has a pace of its own.
    let codes = [device(&kit, &[]).await, device(&kit, &[]).await];
    for answer in &codes {
        poll(&kit, &answer.text("device_code"))
            .await
            .is(400, "authorization_pending");
    }
    wait(10).await;
    for answer in &codes {
        poll(&kit, &answer.text("device_code"))
            .await
            .is(400, "authorization_pending");
    }
}

#[tokio::test]
async fn what_a_device_is_refused() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let url = server.device_authorization_endpoint();
    device(&kit, &[("scope", "a  b")])
        .await
        .is(400, "invalid_scope");
    device(&kit, &[("resource", "/a")])
        .await
        .is(400, "invalid_target");
    kit.post(&url, &[], None).await.is(401, "invalid_client");
    kit.get(&url).await.is(405, "");
    let old = Some(Claims::ahead(-100));
    kit.post(&url, &PUBLIC, old)
        .await
        .is(400, "invalid_dpop_proof");
    server.nonces(Nonces::required());
    let challenge = kit.post(&url, &PUBLIC, Some(Claims::default())).await;
    challenge.is(400, "use_dpop_nonce");
    let nonce = challenge.nonce().unwrap();
    let claims = Some(Claims::nonce(&*nonce));
    kit.post(&url, &PUBLIC, claims).await.is(200, "");
    server.nonces(Nonces::off());

    server.approve_devices(true);
    let answer = device(&kit, &[("resource", "https://a")]).await;
    let code = answer.text("device_code");
    let asked = [("grant_type", DEVICE_CODE), ("device_code", &*code)];
    poll(&kit, "").await.is(400, "invalid_request");
    poll(&kit, "unknown").await.is(400, "invalid_grant");
    poll(&kit, &answer.text("user_code"))
        .await
        .is(400, "invalid_grant");
    grant_by(&kit, &asked, &SECRET, Claims::default())
        .await
        .is(400, "invalid_grant");
    let beyond = [&asked[..], &[("resource", "https://b")]].concat();
    grant(&kit, &beyond).await.is(400, "invalid_target");
    server.nonces(Nonces::required());
    poll(&kit, &code).await.is(400, "use_dpop_nonce");
    server.nonces(Nonces::off());
    poll(&kit, &code).await.is(200, "");
}

#[tokio::test]
async fn a_device_code_ends() {
    let kit = start().await;
    let server = &kit.authorization_server;
    for (lifetime, ahead) in [
        (Duration::from_secs(600), 601),
        (Duration::from_secs(60), 61),
    ] {
        server.device_code_lifetime(lifetime);
        let answer = device(&kit, &[]).await;
        assert_eq!(answer.json()["expires_in"], lifetime.as_secs());
        server.approve_device(&answer.text("user_code"));
        let code = answer.text("device_code");
        let asked = [("grant_type", DEVICE_CODE), ("device_code", &*code)];
        server.clock_offset(ahead);
        for _ in 0..2 {
            grant_by(&kit, &asked, &PUBLIC, Claims::ahead(ahead))
                .await
                .is(400, "expired_token");
        }
        server.clock_offset(ahead - 3);
        grant_by(&kit, &asked, &PUBLIC, Claims::ahead(ahead - 3))
            .await
            .is(200, "");
        server.clock_offset(0);
    }
}

#[tokio::test]
async fn a_device_code_that_is_over_is_remembered_among_many() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let code = device(&kit, &[]).await.text("device_code");
    server.clock_offset(700);
    for _ in 0..1100 {
        device(&kit, &[]).await.is(200, "");
    }
    let asked = [("grant_type", DEVICE_CODE), ("device_code", &*code)];
    grant_by(&kit, &asked, &PUBLIC, Claims::ahead(700))
        .await
        .is(400, "expired_token");
}

async fn exchange(kit: &Kit, parameters: &[(&str, &str)]) -> Answer {
    let grant_type = [("grant_type", TOKEN_EXCHANGE)];
    grant(kit, &[&grant_type, parameters].concat()).await
}

#[tokio::test]
async fn one_token_for_another() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.token_format(TokenFormat::Signed);
    // Of a user, by a code for a device; its scope goes on if none is named.
    server.approve_devices(true);
    let answer = device(&kit, &[("scope", "a b")]).await;
    let own = poll(&kit, &answer.text("device_code")).await;
    let own = own.text("access_token");
    server.accept_subject_token("foreign");
    for (subject, kind, more, scope, issued) in [
        (&*own, ACCESS_TOKEN, &[][..], Some("a b"), ACCESS_TOKEN),
        (
            &own,
            JWT,
            &[("requested_token_type", JWT)],
            Some("a b"),
            JWT,
        ),
        (
            &own,
            ACCESS_TOKEN,
            &[("scope", "a")],
            Some("a"),
            ACCESS_TOKEN,
        ),
        (
            "foreign",
            "urn:ietf:params:oauth:token-type:saml2",
            &[("requested_token_type", ACCESS_TOKEN)],
            None,
            ACCESS_TOKEN,
        ),
        (
            "foreign",
            "urn:x",
            &[("actor_token", &*own), ("actor_token_type", ACCESS_TOKEN)],
            None,
            ACCESS_TOKEN,
        ),
    ] {
        let targets = [
            ("resource", "https://a"),
            ("audience", "b"),
            ("audience", "c"),
            ("subject_token", subject),
            ("subject_token_type", kind),
        ];
        let answer = exchange(&kit, &[&targets, more].concat()).await;
        answer.is(200, "");
        assert_eq!(answer.text("issued_token_type"), issued);
        assert_eq!(answer.json()["scope"].as_str(), scope);
        assert_eq!(answer.json().get("refresh_token"), None);
        let token = answer.text("access_token");
        let said = claims_of(&token);
        assert_eq!(
            (&said["sub"], &said["aud"], &said["cnf"]["jkt"]),
            (
                &json!("user"),
                &json!(["https://a", "b", "c"]),
                &json!(kit.key.thumbprint())
            )
        );
        kit.api(&token, Claims::default()).await.is(200, "");
    }
}

#[tokio::test]
async fn what_is_not_exchanged() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let own = kit.token().await;
    let subject = [
        ("subject_token", &*own),
        ("subject_token_type", ACCESS_TOKEN),
    ];
    let right = |more: &[(&'static str, &'static str)]| {
        let mut all = subject.to_vec();
        all.extend(more);
        all
    };
    for parameters in [
        vec![],
        subject[..1].to_vec(),
        subject[1..].to_vec(),
        vec![("subject_token", "unknown"), subject[1]],
        vec![subject[0], ("subject_token_type", "urn:x")],
        // It is opaque.
        vec![subject[0], ("subject_token_type", JWT)],
        right(&[("requested_token_type", JWT)]),
        right(&[("requested_token_type", "urn:x")]),
        right(&[
            ("actor_token", "unknown"),
            ("actor_token_type", ACCESS_TOKEN),
        ]),
        right(&[("actor_token", "x")]),
        right(&[("actor_token_type", ACCESS_TOKEN)]),
    ] {
        let answer = exchange(&kit, &parameters).await;
        answer.is(400, "invalid_request");
    }
    exchange(&kit, &right(&[("scope", "a  b")]))
        .await
        .is(400, "invalid_scope");
    exchange(&kit, &right(&[("resource", "/a")]))
        .await
        .is(400, "invalid_target");
    exchange(&kit, &subject).await.is(200, "");
    server.revoke_all();
    exchange(&kit, &subject).await.is(400, "invalid_request");
}

#[tokio::test]
async fn grants_of_ones_own() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let asked = [
        ("grant_type", "urn:example:grant"),
        ("anything", "at all"),
        ("scope", "a"),
    ];
    grant(&kit, &asked).await.is(400, "unsupported_grant_type");
    server.add_grant("urn:example:grant");
    let answer = grant(&kit, &asked).await;
    answer.is(200, "");
    assert_eq!(answer.text("scope"), "a");
    let token = answer.text("access_token");
    kit.api(&token, Claims::default()).await.is(200, "");
    grant(&kit, &[("grant_type", "urn:example:other")])
        .await
        .is(400, "unsupported_grant_type");
    // It goes the way of all others.
    grant_by(&kit, &asked, &[], Claims::default())
        .await
        .is(401, "invalid_client");
}

#[tokio::test]
async fn which_grants_bring_a_refresh_token() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.add_grant("urn:example:grant");
    server.approve_devices(true);
    server.accept_subject_token("foreign");
    let code = async || {
        let url = server.authorization_endpoint();
        let url = url
            + "?response_type=code&client_id=public&redirect_uri=http://127.0.0.1/"
            + "&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256";
        let answer = kit.get(&url).await;
        let location = answer.header("location").unwrap();
        let query = location.split_once('?').unwrap().1;
        let mut parameters = form_urlencoded::parse(query.as_bytes());
        parameters
            .find(|(name, _)| name == "code")
            .unwrap()
            .1
            .into_owned()
    };
    for (grant_type, by_itself) in [
        ("authorization_code", true),
        (DEVICE_CODE, true),
        ("client_credentials", false),
        (TOKEN_EXCHANGE, false),
        ("urn:example:grant", false),
    ] {
        for given in [by_itself, !by_itself, by_itself] {
            server.give_refresh_tokens(grant_type, given);
            let code = match grant_type {
                "authorization_code" => code().await,
                _ => device(&kit, &[]).await.text("device_code"),
            };
            let asked = [
                ("grant_type", grant_type),
                ("code", &code),
                ("device_code", &code),
                ("redirect_uri", "http://127.0.0.1/"),
                (
                    "code_verifier",
                    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
                ),
                ("subject_token", "foreign"),
                ("subject_token_type", ACCESS_TOKEN),
            ];
            let answer = grant(&kit, &asked).await;
            answer.is(200, "");
            let token = answer.text("access_token");
            kit.api(&token, Claims::default()).await.is(200, "");
            assert_eq!(
                answer.json()["refresh_token"].is_string(),
                given,
                "{grant_type}"
            );
            if given {
                let token = answer.text("refresh_token");
                let asked = [("grant_type", "refresh_token"), ("refresh_token", &token)];
                grant(&kit, &asked).await.is(200, "");
            }
        }
    }
}

#[tokio::test]
async fn revoking_refresh_tokens_ends_what_came_with_them() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let mut tokens = Vec::new();
    for given in [true, false] {
        server.give_refresh_tokens("client_credentials", given);
        tokens.push(kit.token().await);
    }
    server.revoke_refresh_tokens();
    kit.api(&tokens[0], Claims::default())
        .await
        .is(401, "invalid_token");
    kit.api(&tokens[1], Claims::default()).await.is(200, "");
}
