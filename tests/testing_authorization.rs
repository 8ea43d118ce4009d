//! The authorization server of `testing` from outside: metadata, the authorization endpoint, pushed requests
//! and codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::{Method, Request};
use http_body_util::Full;
use p256::{
    Sec1Point,
    ecdsa::{Signature, VerifyingKey, signature::Verifier as _},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop::{
    DpopKey,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces, Profile, TokenFormat},
};

use self::servers::{Answer, Claims, Kit, form};

const SECRET: [(&str, &str); 2] = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
const PUBLIC: [(&str, &str); 1] = [("client_id", "public")];
const BACK: &str = "http://127.0.0.1:1/back";
/// The pair of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

async fn start() -> Kit {
    let kit = Kit::start().await;
    kit.authorization_server.add_public_client("public");
    kit
}

/// A request that is right, but for what is changed: a value in place of another, or `""` to leave one out.
fn asked<'a>(changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("client_id", "public"),
        ("response_type", "code"),
        ("redirect_uri", BACK),
        ("state", "a state&more"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    for change in changes {
        all.retain(|(name, _)| *name != change.0);
        if !change.1.is_empty() {
            all.push(*change);
        }
    }
    all
}

async fn authorize(kit: &Kit, parameters: &[(&str, &str)]) -> Answer {
    let url = kit.authorization_server.authorization_endpoint();
    kit.get(&format!("{url}?{}", form(parameters))).await
}

async fn push(kit: &Kit, parameters: &[(&str, &str)], claims: Option<Claims<'_>>) -> Answer {
    let url = kit
        .authorization_server
        .pushed_authorization_request_endpoint();
    kit.post(&url, parameters, claims).await
}

/// Where to, and with which parameters.
#[track_caller]
fn redirect(answer: &Answer) -> (String, HashMap<String, String>) {
    assert_eq!(answer.status, 303, "{:?}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let location = answer.header("location").unwrap();
    let (to, query) = location.split_once('?').unwrap();
    let parameters = form_urlencoded::parse(query.as_bytes());
    (to.to_owned(), parameters.into_owned().collect())
}

async fn code(kit: &Kit, changes: &[(&str, &str)]) -> String {
    let (_, parameters) = redirect(&authorize(kit, &asked(changes)).await);
    parameters["code"].clone()
}

async fn exchange(kit: &Kit, code: &str, changes: &[(&str, &str)]) -> Answer {
    exchange_at(kit, code, changes, Claims::default()).await
}

async fn exchange_at(
    kit: &Kit,
    code: &str,
    changes: &[(&str, &str)],
    claims: Claims<'_>,
) -> Answer {
    let mut all = vec![
        ("grant_type", "authorization_code"),
        ("client_id", "public"),
        ("code", code),
        ("redirect_uri", BACK),
        ("code_verifier", VERIFIER),
    ];
    for change in changes {
        all.retain(|(name, _)| *name != change.0);
        all.push(*change);
    }
    kit.send(kit.token_call_of(&all, claims)).await
}

async fn refresh(kit: &Kit, token: &str, more: &[(&str, &str)]) -> Answer {
    let grant = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let call = kit.token_call_of(&[&grant, more].concat(), Claims::default());
    kit.send(call).await
}

fn claims_of(token: &str) -> Value {
    let claims = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

#[tokio::test]
async fn metadata() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let origin = server.origin();
    assert_eq!(server.issuer(), origin);
    for path in ["oauth-authorization-server", "openid-configuration"] {
        let url = format!("{origin}/.well-known/{path}");
        let answer = kit.get(&url).await;
        answer.is(200, "");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let told = answer.json();
        for (name, value) in [
            ("issuer", json!(origin)),
            ("token_endpoint", json!(server.token_endpoint())),
            (
                "authorization_endpoint",
                json!(server.authorization_endpoint()),
            ),
            (
                "pushed_authorization_request_endpoint",
                json!(server.pushed_authorization_request_endpoint()),
            ),
            (
                "device_authorization_endpoint",
                json!(server.device_authorization_endpoint()),
            ),
            ("revocation_endpoint", json!(server.revocation_endpoint())),
            (
                "introspection_endpoint",
                json!(server.introspection_endpoint()),
            ),
            ("require_pushed_authorization_requests", json!(false)),
            ("response_types_supported", json!(["code"])),
            ("code_challenge_methods_supported", json!(["S256"])),
            ("dpop_signing_alg_values_supported", json!(["ES256"])),
            (
                "authorization_response_iss_parameter_supported",
                json!(true),
            ),
        ] {
            assert_eq!(told[name], value, "{name}");
        }
        let list =
            |name: &str| -> Vec<String> { serde_json::from_value(told[name].clone()).unwrap() };
        let methods = list("token_endpoint_auth_methods_supported");
        assert!(methods.contains(&"private_key_jwt".into()) && methods.contains(&"none".into()));
        let methods = list("introspection_endpoint_auth_methods_supported");
        assert!(!methods.contains(&"none".into()));
        assert_eq!(list("grant_types_supported").len(), 6);

        let post = Request::post(&url).body(Full::default()).unwrap();
        let answer = kit.send(post).await;
        answer.is(405, "");
        assert_eq!(answer.header("allow"), Some("GET"));
    }
    assert!(server.requests().iter().all(|seen| seen.proof().is_none()));
}

#[tokio::test]
async fn metadata_may_be_set() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let url = format!("{}/.well-known/openid-configuration", server.origin());
    server.metadata_member("issuer", Some(r#""https://evil.example""#));
    server.metadata_member("token_endpoint", None);
    server.metadata_member("mtls_endpoint_aliases", Some(r#"{"token_endpoint":"x"}"#));
    server.metadata_member("mtls_endpoint_aliases", Some(r#"{"token_endpoint":"y"}"#));
    server.require_pushed_authorization_requests(true);
    server.add_grant("urn:example:grant");
    let answer = kit.get(&url).await;
    let told = answer.json();
    assert_eq!(told["issuer"], "https://evil.example");
    assert_eq!(told.get("token_endpoint"), None);
    assert_eq!(
        told["mtls_endpoint_aliases"],
        json!({ "token_endpoint": "y" })
    );
    assert_eq!(told["require_pushed_authorization_requests"], true);
    let grants = told["grant_types_supported"].as_array().unwrap();
    assert!(grants.contains(&json!("urn:example:grant")));
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert_eq!(text.matches("\"issuer\"").count(), 1);
    // What it tells changes nothing of what it does.
    assert_ne!(server.issuer(), "https://evil.example");
    kit.send(kit.token_call(Claims::default()))
        .await
        .is(200, "");

    server.profile(Profile::FapiSuite);
    let told = kit.get(&url).await.json();
    assert_eq!(
        told["dpop_signing_alg_values_supported"],
        json!(["PS256", "ES256", "EdDSA", "Ed25519"])
    );

    server.metadata_member("issuer", Some("{no JSON"));
    let answer = kit.get(&url).await;
    answer.is(200, "");
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
}

#[tokio::test]
async fn the_key_of_signed_tokens() {
    let kit = start().await;
    kit.authorization_server.token_format(TokenFormat::Signed);
    let origin = kit.authorization_server.origin();
    let url = format!("{origin}/.well-known/oauth-authorization-server");
    let keys = kit.get(&url).await.text("jwks_uri");
    let keys = kit.get(&keys).await;
    keys.is(200, "");
    let key = &keys.json()["keys"][0];
    let coordinate = |name: &str| -> [u8; 32] {
        let text = key[name].as_str().unwrap();
        BASE64URL.decode(text).unwrap().try_into().unwrap()
    };
    let (x, y) = (coordinate("x"), coordinate("y"));
    let point = Sec1Point::from_affine_coordinates(&x.into(), &y.into(), false);
    let token = kit.token().await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = Signature::from_slice(&BASE64URL.decode(signature).unwrap()).unwrap();
    let key = VerifyingKey::from_sec1_point(&point).unwrap();
    key.verify(signed.as_bytes(), &signature).unwrap();
}

#[tokio::test]
async fn a_code_and_a_token() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.token_format(TokenFormat::Signed);
    for (client, name) in [(&PUBLIC[..], "public"), (&SECRET[..], CLIENT_ID)] {
        let changes = [
            ("client_id", name),
            ("scope", "a b"),
            ("resource", "https://api"),
            ("nonce", "ignored"),
            ("dpop_jkt", kit.key.thumbprint()),
        ];
        let (to, parameters) = redirect(&authorize(&kit, &asked(&changes)).await);
        assert_eq!(to, BACK);
        assert_eq!(parameters["state"], "a state&more");
        assert_eq!(parameters["iss"], server.issuer());
        assert_eq!(parameters.len(), 3);

        let answer = exchange(&kit, &parameters["code"], client).await;
        answer.is(200, "");
        let body = answer.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"], &body["scope"]),
            (&json!("DPoP"), &json!(300), &json!("a b"))
        );
        let token = answer.text("access_token");
        let said = claims_of(&token);
        assert_eq!(
            (&said["sub"], &said["client_id"], &said["aud"]),
            (&json!("user"), &json!(name), &json!("https://api"))
        );
        kit.api(&token, Claims::default()).await.is(200, "");

        let answer = refresh(&kit, &answer.text("refresh_token"), client).await;
        answer.is(200, "");
        let said = claims_of(&answer.text("access_token"));
        assert_eq!(
            (&said["sub"], &said["aud"], &said["scope"]),
            (&json!("user"), &json!("https://api"), &json!("a b"))
        );
        let beyond = [client, &[("resource", "https://other")]].concat();
        refresh(&kit, &answer.text("refresh_token"), &beyond)
            .await
            .is(400, "invalid_target");

        // A public client's refresh token is bound to its key, and another's to the client.
        let other = Kit {
            key: DpopKey::generate().unwrap(),
            authorization_server: server.clone(),
            resource_server: kit.resource_server.clone(),
            http: kit.http.clone(),
        };
        let answer = refresh(&other, &answer.text("refresh_token"), client).await;
        assert_eq!(answer.status, if name == "public" { 400 } else { 200 });
    }
}

#[tokio::test]
async fn what_must_not_be_redirected() {
    let kit = start().await;
    for (changes, error) in [
        (&[("client_id", "")][..], "invalid_request"),
        (&[("client_id", "unknown")], "invalid_request"),
        (&[("redirect_uri", "")], "invalid_request"),
        (&[("redirect_uri", "https://a.example/")], "invalid_request"),
        (&[("redirect_uri", "https://127.0.0.1/")], "invalid_request"),
        (
            &[("redirect_uri", "http://127.0.0.1.a.example/")],
            "invalid_request",
        ),
        (
            &[("redirect_uri", "http://127.0.0.1@a.example/")],
            "invalid_request",
        ),
        (
            &[("redirect_uri", "http://127.0.0.1/#x")],
            "invalid_request",
        ),
        (&[("redirect_uri", "/back")], "invalid_request"),
        (
            &[("redirect_uri", "http://127.0.0.1/ x")],
            "invalid_request",
        ),
        (&[("request_uri", "urn:x")], "invalid_request_uri"),
    ] {
        let answer = authorize(&kit, &asked(changes)).await;
        answer.is(400, error);
        assert_eq!(answer.header("location"), None, "{changes:?}");
    }
    let twice = [&asked(&[])[..], &[("state", "b")]].concat();
    authorize(&kit, &twice).await.is(400, "invalid_request");
    let url = kit.authorization_server.authorization_endpoint();
    let answer = kit.post(&url, &asked(&[]), None).await;
    answer.is(405, "");
    assert_eq!(answer.header("allow"), Some("GET"));
    let seen = kit.authorization_server.requests();
    assert!(seen.iter().all(|seen| seen.refused().is_some()));
}

const HASH_AND_MORE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cMA";

/// What an authorization request may have wrong, whichever way it comes.
const WRONG: [(&[(&str, &str)], &str); 13] = [
    (&[("response_type", "")], "invalid_request"),
    (&[("response_type", "token")], "unsupported_response_type"),
    (&[("request", "a.b.c")], "request_not_supported"),
    (&[("code_challenge", "")], "invalid_request"),
    (&[("code_challenge", "short")], "invalid_request"),
    (&[("code_challenge", HASH_AND_MORE)], "invalid_request"),
    (&[("code_challenge_method", "")], "invalid_request"),
    (&[("code_challenge_method", "plain")], "invalid_request"),
    (&[("dpop_jkt", "short")], "invalid_request"),
    (&[("dpop_jkt", HASH_AND_MORE)], "invalid_request"),
    (&[("scope", "a  b")], "invalid_scope"),
    (&[("resource", "/api")], "invalid_target"),
    (&[("resource", "https://a#b")], "invalid_target"),
];

#[tokio::test]
async fn refusals_by_redirect() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let refused = async |changes: &[(&str, &str)], error: &str| {
        let (to, parameters) = redirect(&authorize(&kit, &asked(changes)).await);
        assert_eq!(to, BACK);
        assert_eq!(parameters["error"], error, "{changes:?}");
        assert!(!parameters["error_description"].is_empty());
        assert_eq!(parameters["state"], "a state&more");
        assert_eq!(parameters["iss"], server.issuer());
        assert!(!parameters.contains_key("code"));
        let seen = server.requests();
        let reason = seen.last().unwrap().refused();
        assert_eq!(reason, Some(&*parameters["error_description"]));
    };
    for (changes, error) in WRONG {
        refused(changes, error).await;
    }
    server.deny_authorizations(true);
    refused(&[], "access_denied").await;
    let stateless = authorize(&kit, &asked(&[("state", "")])).await;
    assert!(!redirect(&stateless).1.contains_key("state"));
    server.deny_authorizations(false);
    server.require_pushed_authorization_requests(true);
    refused(&[], "invalid_request").await;
    server.require_pushed_authorization_requests(false);
    code(&kit, &[]).await;
}

#[tokio::test]
async fn redirect_uris() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.add_redirect_uri("public", "https://a.example/back?x=y");
    server.add_redirect_uri("public", "app:/back");
    for (uri, start) in [
        ("http://127.0.0.1/", "http://127.0.0.1/?code="),
        (
            "http://127.0.0.1:65535/a/b",
            "http://127.0.0.1:65535/a/b?code=",
        ),
        ("http://[::1]:8080/", "http://[::1]:8080/?code="),
        (
            "http://localhost:8080/?a=b",
            "http://localhost:8080/?a=b&code=",
        ),
        (
            "https://a.example/back?x=y",
            "https://a.example/back?x=y&code=",
        ),
        ("app:/back", "app:/back?code="),
    ] {
        let answer = authorize(&kit, &asked(&[("redirect_uri", uri)])).await;
        let location = answer.header("location").unwrap();
        assert!(location.starts_with(start), "{location}");
        let (_, parameters) = redirect(&answer);
        exchange(&kit, &parameters["code"], &[("redirect_uri", uri)])
            .await
            .is(200, "");
    }
    for (client, uri) in [
        ("public", "https://a.example/back"),
        ("public", "https://a.example/back?x=y&z"),
        ("public", "HTTPS://a.example/back?x=y"),
        (CLIENT_ID, "app:/back"),
    ] {
        let changes = [("client_id", client), ("redirect_uri", uri)];
        authorize(&kit, &asked(&changes))
            .await
            .is(400, "invalid_request");
    }
}

#[tokio::test]
async fn what_a_code_is_not_good_for() {
    let kit = start().await;
    kit.authorization_server.add_public_client("other");
    let long = "a".repeat(129);
    let changes = [
        ("dpop_jkt", kit.key.thumbprint()),
        ("resource", "https://a"),
    ];
    let good = code(&kit, &changes).await;
    for (changes, error) in [
        (&[("code", "")][..], "invalid_request"),
        (&[("redirect_uri", "")], "invalid_request"),
        (&[("code_verifier", "")], "invalid_request"),
        (&[("code", "unknown")], "invalid_grant"),
        (&[("client_id", "other")], "invalid_grant"),
        (&SECRET[..], "invalid_grant"),
        (
            &[("redirect_uri", "http://127.0.0.1:1/Back")],
            "invalid_grant",
        ),
        (&[("code_verifier", CHALLENGE)], "invalid_grant"),
        (&[("code_verifier", &long)], "invalid_grant"),
        (&[("resource", "/a")], "invalid_target"),
        (&[("resource", "https://b")], "invalid_target"),
    ] {
        exchange(&kit, &good, changes).await.is(400, error);
    }
    let other = Kit {
        key: DpopKey::generate().unwrap(),
        ..kit
    };
    exchange(&other, &good, &[]).await.is(400, "invalid_grant");

    // A verifier that fits, and is none: too short, or with other characters.
    for bad in ["short", "dBjftJeZ4CVP/mB92K27uhbUJU1p1r/wW1gFWFOEjXk"] {
        let challenge = BASE64URL.encode(Sha256::digest(bad));
        let code = code(&other, &[("code_challenge", &challenge)]).await;
        exchange(&other, &code, &[("code_verifier", bad)])
            .await
            .is(400, "invalid_grant");
    }
    // Without `dpop_jkt` any key will do.
    let free = code(&other, &[]).await;
    exchange(&other, &free, &[]).await.is(200, "");
}

#[tokio::test]
async fn what_is_refused_uses_no_code_up() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let code = code(&kit, &[("dpop_jkt", kit.key.thumbprint())]).await;
    let wrong = [("code_verifier", CHALLENGE)];
    exchange(&kit, &code, &wrong).await.is(400, "invalid_grant");
    exchange(&kit, &code, &SECRET)
        .await
        .is(400, "invalid_grant");
    let none = [("resource", "/a")];
    exchange(&kit, &code, &none).await.is(400, "invalid_target");
    server.nonces(Nonces::required());
    let challenge = exchange(&kit, &code, &[]).await;
    challenge.is(400, "use_dpop_nonce");
    let nonce = challenge.nonce().unwrap();
    exchange_at(&kit, &code, &[], Claims::nonce(&*nonce))
        .await
        .is(200, "");
}

#[tokio::test]
async fn a_code_that_was_used_before_costs_what_came_of_it() {
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        // At once, and when the code is over.
        for ahead in [0, 100] {
            let kit = start().await;
            kit.authorization_server.token_format(format);
            let code_ = code(&kit, &[]).await;
            let first = exchange(&kit, &code_, &[]).await;
            let refreshed = refresh(&kit, &first.text("refresh_token"), &PUBLIC).await;
            let other = exchange(&kit, &code(&kit, &[]).await, &[]).await;
            let own = [&first, &refreshed].map(|answer| answer.text("access_token"));
            for token in &own {
                kit.api(token, Claims::default()).await.is(200, "");
            }

            kit.authorization_server.clock_offset(ahead);
            exchange_at(&kit, &code_, &[], Claims::ahead(ahead))
                .await
                .is(400, "invalid_grant");
            let seen = kit.authorization_server.requests();
            assert_eq!(
                seen.last().unwrap().refused(),
                Some("the code was used before; all tokens that came of it are revoked")
            );
            kit.authorization_server.clock_offset(0);
            for token in &own {
                kit.api(token, Claims::default())
                    .await
                    .is(401, "invalid_token");
            }
            refresh(&kit, &refreshed.text("refresh_token"), &PUBLIC)
                .await
                .is(400, "invalid_grant");
            let token = other.text("access_token");
            kit.api(&token, Claims::default()).await.is(200, "");
            refresh(&kit, &other.text("refresh_token"), &PUBLIC)
                .await
                .is(200, "");
        }
    }
}

#[tokio::test]
async fn a_code_that_was_used_is_remembered_among_many() {
    let kit = start().await;
    let code_ = code(&kit, &[]).await;
    let first = exchange(&kit, &code_, &[]).await.text("access_token");
    kit.authorization_server.clock_offset(100);
    for _ in 0..1100 {
        code(&kit, &[]).await;
    }
    exchange_at(&kit, &code_, &[], Claims::ahead(100))
        .await
        .is(400, "invalid_grant");
    kit.authorization_server.clock_offset(0);
    kit.api(&first, Claims::default())
        .await
        .is(401, "invalid_token");
}

#[tokio::test]
async fn a_code_is_good_for_a_minute() {
    let kit = start().await;
    for (ahead, status) in [(58, 200), (61, 400)] {
        let code = code(&kit, &[]).await;
        kit.authorization_server.clock_offset(ahead);
        let answer = exchange_at(&kit, &code, &[], Claims::ahead(ahead)).await;
        answer.is(status, if status == 200 { "" } else { "invalid_grant" });
        kit.authorization_server.clock_offset(0);
    }
}

#[tokio::test]
async fn two_servers_share_nothing() {
    let (kit, elsewhere) = (start().await, start().await);
    let code = code(&kit, &[]).await;
    exchange(&elsewhere, &code, &[])
        .await
        .is(400, "invalid_grant");
    exchange(&kit, &code, &[]).await.is(200, "");
}

#[tokio::test]
async fn a_pushed_request() {
    let kit = start().await;
    kit.authorization_server
        .require_pushed_authorization_requests(true);
    for client in [&PUBLIC[..], &SECRET] {
        let parameters = [&asked(&[("client_id", "")])[..], client].concat();
        let answer = push(&kit, &parameters, None).await;
        answer.is(201, "");
        assert_eq!(answer.json()["expires_in"], 60);
        let uri = answer.text("request_uri");
        assert!(uri.starts_with("urn:ietf:params:oauth:request_uri:"));

        // What else stands in the URL does not count.
        let mut url = vec![("request_uri", &*uri), ("client_id", client[0].1)];
        url.extend([("redirect_uri", "https://evil.example"), ("state", "other")]);
        let (to, parameters) = redirect(&authorize(&kit, &url).await);
        assert_eq!((&*to, &*parameters["state"]), (BACK, "a state&more"));
        exchange(&kit, &parameters["code"], client)
            .await
            .is(200, "");

        // It is good once.
        authorize(&kit, &url).await.is(400, "invalid_request_uri");
    }
}

#[tokio::test]
async fn what_a_pushed_request_is_not_good_for() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.add_public_client("other");
    let uri = push(&kit, &asked(&[]), None).await.text("request_uri");
    let by = |client| [("client_id", client), ("request_uri", &*uri)];
    let answer = authorize(&kit, &by("other")).await;
    answer.is(400, "invalid_request_uri");
    redirect(&authorize(&kit, &by("public")).await);

    for (ahead, status) in [(58, 303), (61, 400)] {
        let uri = push(&kit, &asked(&[]), None).await.text("request_uri");
        server.clock_offset(ahead);
        let parameters = [("client_id", "public"), ("request_uri", &*uri)];
        assert_eq!(authorize(&kit, &parameters).await.status, status);
        server.clock_offset(0);
    }

    server.deny_authorizations(true);
    let uri = push(&kit, &asked(&[]), None).await.text("request_uri");
    let parameters = [("client_id", "public"), ("request_uri", &*uri)];
    let (_, parameters) = redirect(&authorize(&kit, &parameters).await);
    assert_eq!(parameters["error"], "access_denied");
}

#[tokio::test]
async fn refusals_of_pushed_requests() {
    let kit = start().await;
    let more: [(&[(&str, &str)], &str); 3] = [
        (&[("redirect_uri", "")], "invalid_request"),
        (&[("redirect_uri", "https://a.example")], "invalid_request"),
        (&[("request_uri", "urn:x")], "invalid_request"),
    ];
    for (changes, error) in WRONG.into_iter().chain(more) {
        push(&kit, &asked(changes), None).await.is(400, error);
    }
    for (changes, status, error) in [
        (&[("client_id", "unknown")][..], 401, "invalid_client"),
        (&[("client_id", "")], 401, "invalid_client"),
        (&[("client_id", CLIENT_ID)], 401, "invalid_client"),
        (&[("client_secret", "x")], 401, "invalid_client"),
    ] {
        push(&kit, &asked(changes), None).await.is(status, error);
    }
    let url = kit
        .authorization_server
        .pushed_authorization_request_endpoint();
    kit.get(&url).await.is(405, "");
    let mut call = kit.post_call(&url, &asked(&[]), None);
    call.headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    kit.send(call).await.is(400, "invalid_request");
    kit.post(&(url + "?client_secret=x"), &asked(&[]), None)
        .await
        .is(400, "invalid_request");
    let twice = [&asked(&[])[..], &[("state", "b")]].concat();
    push(&kit, &twice, None).await.is(400, "invalid_request");
}

#[tokio::test]
async fn the_proof_of_a_pushed_request() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let own = [("dpop_jkt", kit.key.thumbprint())];
    let foreign = [("dpop_jkt", CHALLENGE)];
    let proof = || Some(Claims::default());
    push(&kit, &asked(&own), proof()).await.is(201, "");
    push(&kit, &asked(&foreign), None).await.is(201, "");
    push(&kit, &asked(&foreign), proof())
        .await
        .is(400, "invalid_request");

    // A proof that is there must be right.
    let old = Some(Claims::ahead(-100));
    push(&kit, &asked(&[]), old)
        .await
        .is(400, "invalid_dpop_proof");
    let url = server.pushed_authorization_request_endpoint();
    let mut call = kit.token_call_of(&asked(&[]), Claims::default());
    *call.uri_mut() = url.parse().unwrap();
    kit.send(call).await.is(400, "invalid_dpop_proof");
    server.nonces(Nonces::required());
    push(&kit, &asked(&[]), None).await.is(201, "");
    let challenge = push(&kit, &[], proof()).await;
    challenge.is(400, "use_dpop_nonce");
    let nonce = challenge.nonce().unwrap();
    let claims = Some(Claims::nonce(&*nonce));
    let uri = push(&kit, &asked(&[]), claims).await.text("request_uri");
    server.nonces(Nonces::off());

    // The code is for the proof's key.
    let parameters = [("client_id", "public"), ("request_uri", &*uri)];
    let (_, parameters) = redirect(&authorize(&kit, &parameters).await);
    let code = &parameters["code"];
    let other = Kit {
        key: DpopKey::generate().unwrap(),
        authorization_server: server.clone(),
        resource_server: kit.resource_server.clone(),
        http: kit.http.clone(),
    };
    exchange(&other, code, &[]).await.is(400, "invalid_grant");
    exchange(&kit, code, &[]).await.is(200, "");
}

#[tokio::test]
async fn everything_else_is_nowhere() {
    let kit = start().await;
    let origin = kit.authorization_server.origin();
    for path in [
        "/",
        "/verify",
        "/.well-known/other",
        "/token/",
        "/authorize/x",
    ] {
        kit.get(&format!("{origin}{path}")).await.is(404, "");
    }
    let url = kit.authorization_server.token_endpoint();
    let mut call = kit.token_call(Claims::default());
    *call.method_mut() = Method::PUT;
    *call.uri_mut() = url.parse().unwrap();
    kit.send(call).await.is(405, "");
}
