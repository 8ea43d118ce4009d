//! The authorization server of `testing` from outside: revocation and introspection.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use tower_dpop::testing::{CLIENT_ID, CLIENT_SECRET, Nonces, Profile, TokenFormat};

use self::servers::{Answer, Claims, Kit};

const SECRET: [(&str, &str); 2] = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
const PUBLIC: [(&str, &str); 1] = [("client_id", "public")];

async fn start() -> Kit {
    let kit = Kit::start().await;
    kit.authorization_server.add_public_client("public");
    kit
}

async fn revoke(kit: &Kit, token: &str, client: &[(&str, &str)]) -> Answer {
    let url = kit.authorization_server.revocation_endpoint();
    let parameters = [client, &[("token", token)]].concat();
    kit.post(&url, &parameters, None).await
}

async fn introspect(kit: &Kit, token: &str) -> Value {
    let url = kit.authorization_server.introspection_endpoint();
    let parameters = [&SECRET[..], &[("token", token)]].concat();
    let answer = kit.post(&url, &parameters, None).await;
    answer.is(200, "");
    answer.json()
}

async fn refresh(kit: &Kit, token: &str, client: &[(&str, &str)]) -> Answer {
    let grant = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let call = kit.token_call_of(&[&grant, client].concat(), Claims::default());
    kit.send(call).await
}

async fn is_good(kit: &Kit, token: &str) -> bool {
    kit.api(token, Claims::default()).await.status == 200
}

#[tokio::test]
async fn revoking_an_access_token() {
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        let kit = start().await;
        kit.authorization_server.token_format(format);
        let (token, other) = (kit.token().await, kit.token().await);
        revoke(&kit, &token, &PUBLIC).await.is(400, "invalid_grant");
        assert!(is_good(&kit, &token).await, "it is another client's");
        for _ in 0..2 {
            let answer = revoke(&kit, &token, &SECRET).await;
            answer.is(200, "");
            assert!(answer.body.is_empty());
            assert!(!is_good(&kit, &token).await && is_good(&kit, &other).await);
        }
    }
}

#[tokio::test]
async fn revoking_a_refresh_token() {
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        let kit = start().await;
        let server = &kit.authorization_server;
        server.token_format(format);
        for client in [&PUBLIC[..], &SECRET] {
            let first = server.issue_refresh_token(client[0].1, &kit.key, "a");
            let other = server.issue_refresh_token(client[0].1, &kit.key, "a");
            let answer = refresh(&kit, &first, client).await;
            let (access, next) = (answer.text("access_token"), answer.text("refresh_token"));
            let wrong = if client.len() == 1 {
                &SECRET[..]
            } else {
                &PUBLIC
            };
            revoke(&kit, &next, wrong).await.is(400, "invalid_grant");
            assert!(is_good(&kit, &access).await);

            // An access token alone leaves the refresh token as it is.
            revoke(&kit, &access, client).await.is(200, "");
            let answer = refresh(&kit, &next, client).await;
            let (access, next) = (answer.text("access_token"), answer.text("refresh_token"));
            let hint = [client, &[("token_type_hint", "access_token")]].concat();
            for _ in 0..2 {
                revoke(&kit, &next, &hint).await.is(200, "");
                assert!(!is_good(&kit, &access).await);
            }
            refresh(&kit, &next, client).await.is(400, "invalid_grant");
            refresh(&kit, &other, client).await.is(200, "");
        }
    }
}

#[tokio::test]
async fn revoking_what_was_used_or_never_was() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let first = server.issue_refresh_token("public", &kit.key, "");
    let answer = refresh(&kit, &first, &PUBLIC).await;
    for unknown in ["unknown", "a.b", "a.b.c"] {
        revoke(&kit, unknown, &PUBLIC).await.is(200, "");
    }
    assert!(is_good(&kit, &answer.text("access_token")).await);
    // It names its grant, though it is no longer good.
    revoke(&kit, &first, &PUBLIC).await.is(200, "");
    assert!(!is_good(&kit, &answer.text("access_token")).await);
    refresh(&kit, &answer.text("refresh_token"), &PUBLIC)
        .await
        .is(400, "invalid_grant");
}

#[tokio::test]
async fn introspecting() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        server.token_format(format);
        let first = server.issue_refresh_token("public", &kit.key, "a b");
        let answer = refresh(&kit, &first, &PUBLIC).await;
        let (token, next) = (answer.text("access_token"), answer.text("refresh_token"));
        let mut told = introspect(&kit, &token).await;
        let members = told.as_object_mut().unwrap();
        let iat = members.remove("iat").unwrap().as_u64().unwrap();
        let exp = members.remove("exp").unwrap().as_u64().unwrap();
        assert!((now..now + 60).contains(&iat));
        assert!((300..=301).contains(&(exp - iat)));
        let jkt = json!({ "jkt": kit.key.thumbprint() });
        assert_eq!(
            told,
            json!({
                "active": true, "client_id": "public", "sub": "user", "scope": "a b",
                "token_type": "DPoP", "cnf": jkt,
            })
        );
        let inactive = json!({ "active": false });
        for _ in 0..2 {
            // The one that was used must not cost the grant by this.
            assert_eq!(introspect(&kit, &first).await, inactive);
            assert_eq!(
                introspect(&kit, &next).await,
                json!({ "active": true, "client_id": "public", "sub": "user", "scope": "a b", "cnf": jkt })
            );
        }
        for unknown in ["unknown", "a.b", "a.b.c"] {
            assert_eq!(introspect(&kit, unknown).await, inactive);
        }
        server.clock_offset(302);
        assert_eq!(introspect(&kit, &token).await, inactive);
        server.clock_offset(0);
        assert_eq!(introspect(&kit, &token).await["active"], true);
        revoke(&kit, &next, &PUBLIC).await.is(200, "");
        assert_eq!(introspect(&kit, &next).await, inactive);
        assert_eq!(introspect(&kit, &token).await, inactive);

        // Without a scope there is none; a client with a secret binds its refresh token, not a key.
        let told = introspect(&kit, &kit.token().await).await;
        assert_eq!((told.get("scope"), &told["sub"]), (None, &json!(CLIENT_ID)));
        let token = server.issue_refresh_token(CLIENT_ID, &kit.key, "");
        assert_eq!(introspect(&kit, &token).await.get("cnf"), None);
    }
}

#[tokio::test]
async fn what_both_endpoints_refuse() {
    let kit = start().await;
    let server = &kit.authorization_server;
    for url in [
        server.revocation_endpoint(),
        server.introspection_endpoint(),
    ] {
        let post = async |parameters: &[(&str, &str)], claims| {
            let parameters = [&[("token", "x")][..], parameters].concat();
            kit.post(&url, &parameters, claims).await
        };
        kit.get(&url).await.is(405, "");
        kit.post(&url, &SECRET, None)
            .await
            .is(400, "invalid_request");
        post(&[], None).await.is(401, "invalid_client");
        post(&SECRET[..1], None).await.is(401, "invalid_client");
        let right = Some(Claims::default());
        post(&SECRET, right).await.is(200, "");
        let old = Some(Claims::ahead(-100));
        post(&SECRET, old).await.is(400, "invalid_dpop_proof");
        server.nonces(Nonces::required());
        post(&SECRET, None).await.is(200, "");
        let challenge = post(&[], Some(Claims::default())).await;
        challenge.is(400, "use_dpop_nonce");
        let nonce = challenge.nonce().unwrap();
        post(&SECRET, Some(Claims::nonce(&*nonce)))
            .await
            .is(200, "");
        server.nonces(Nonces::off());
    }
    let parameters = [("token", "x"), ("client_id", "public")];
    let url = server.introspection_endpoint();
    kit.post(&url, &parameters, None)
        .await
        .is(401, "invalid_client");
}

#[tokio::test]
async fn the_id_of_a_signed_token_is_no_token() {
    let kit = start().await;
    kit.authorization_server.token_format(TokenFormat::Signed);
    let token = kit.token().await;
    let claims = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let id = claims["jti"].as_str().unwrap();
    assert!(is_good(&kit, &token).await && !is_good(&kit, id).await);
    for id in [id, &format!(".{id}")] {
        assert_eq!(introspect(&kit, id).await["active"], false);
        revoke(&kit, id, &SECRET).await.is(200, "");
    }
    assert!(is_good(&kit, &token).await);
}

#[tokio::test]
async fn introspecting_what_is_bound_to_no_key_or_always() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.profile(Profile::Wso2);
    let token = server.issue_refresh_token(CLIENT_ID, &kit.key, "");
    assert_eq!(
        introspect(&kit, &token).await["cnf"]["jkt"],
        kit.key.thumbprint()
    );
    let mut call = kit.token_call(Claims::default());
    call.headers_mut().remove("dpop");
    let token = kit.send(call).await.text("access_token");
    let told = introspect(&kit, &token).await;
    assert_eq!(told["token_type"], "Bearer");
    assert_eq!((&told["active"], told.get("cnf")), (&json!(true), None));
}
