//! The authorization server of `testing` from outside: assertions of clients, and assertions as grants.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;

use std::time::SystemTime;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use p256::{
    ecdsa::{Signature, SigningKey, signature::Signer as _},
    pkcs8::EncodePrivateKey as _,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop::{
    DpopKey,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces, TokenFormat},
};

use self::servers::{Answer, Claims, Kit};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn dpop_key(seed: u8) -> DpopKey {
    let der = signing_key(seed).to_pkcs8_der().unwrap();
    DpopKey::from_bytes(der.as_bytes(), None).unwrap()
}

/// RFC 2104, by hand, so that it is not the server's own code that judges it.
fn hmac(secret: &str, message: &[u8]) -> Vec<u8> {
    assert!(secret.len() <= 64);
    let pad = |with: u8| {
        let mut key = [with; 64];
        for (byte, secret) in key.iter_mut().zip(secret.bytes()) {
            *byte ^= secret;
        }
        key
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message);
    let outer = Sha256::new().chain_update(pad(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

enum By<'a> {
    Key(u8),
    Secret(&'a str),
}

fn sign(header: &Value, claims: &Value, by: &By<'_>) -> String {
    let encode = |value: &Value| BASE64URL.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = match by {
        By::Key(seed) => {
            let signature: Signature = signing_key(*seed).sign(signed.as_bytes());
            signature.to_bytes().to_vec()
        }
        By::Secret(secret) => hmac(secret, signed.as_bytes()),
    };
    format!("{signed}.{}", BASE64URL.encode(signature))
}

fn header(by: &By<'_>) -> Value {
    match by {
        By::Key(_) => json!({ "alg": "ES256" }),
        By::Secret(_) => json!({ "alg": "HS256" }),
    }
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Claims that are right, with some changed; null leaves one out.
fn claims(kit: &Kit, client: &str, changes: Value) -> Value {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut claims = json!({
        "iss": client,
        "sub": client,
        "aud": kit.authorization_server.issuer(),
        "exp": now() + 60,
        "jti": COUNT.fetch_add(1, Ordering::Relaxed).to_string(),
    });
    let members = claims.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        members.insert(name.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    claims
}

fn assertion(kit: &Kit, client: &str, by: &By<'_>, changes: Value) -> String {
    sign(&header(by), &claims(kit, client, changes), by)
}

async fn ask(kit: &Kit, assertion: &str, more: &[(&str, &str)], claims: Claims<'_>) -> Answer {
    let basics = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion),
    ];
    let call = kit.token_call_of(&[&basics, more].concat(), claims);
    kit.send(call).await
}

/// A server that knows the client `keyed` by its key, beside the one with a secret.
async fn start() -> Kit {
    let kit = Kit::start().await;
    kit.authorization_server
        .add_client_with_key("keyed", &dpop_key(7));
    kit.authorization_server.add_public_client("public");
    kit
}

const CLIENTS: [(&str, By<'static>); 2] = [
    ("keyed", By::Key(7)),
    (CLIENT_ID, By::Secret(CLIENT_SECRET)),
];

#[tokio::test]
async fn a_client_shows_who_it_is_by_an_assertion() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let token_endpoint = server.token_endpoint();
    for (client, by) in &CLIENTS {
        for changes in [
            json!({}),
            json!({ "aud": [server.issuer()] }),
            json!({ "aud": ["https://other", token_endpoint] }),
            json!({ "aud": token_endpoint }),
            json!({ "exp": now() + 295, "iat": now() + 5, "nbf": now() - 1000 }),
            json!({ "exp": now() as f64 + 20.5, "extra": { "a": 1 } }),
        ] {
            let assertion = assertion(&kit, client, by, changes);
            let answer = ask(&kit, &assertion, &[], Claims::default()).await;
            answer.is(200, "");
            let token = answer.text("access_token");
            let answer = kit.api(&token, Claims::default()).await;
            assert_eq!(answer.text("client_id"), *client);
        }
        // With the id beside it.
        let right = assertion(&kit, client, by, json!({}));
        let id = [("client_id", *client)];
        ask(&kit, &right, &id, Claims::default()).await.is(200, "");
        for typ in ["JWT", "jwt", "client-authentication+jwt"] {
            let mut header = header(by);
            header["typ"] = json!(typ);
            let right = sign(&header, &claims(&kit, client, json!({})), by);
            ask(&kit, &right, &[], Claims::default()).await.is(200, "");
        }
    }
}

#[tokio::test]
async fn assertions_that_are_wrong() {
    let kit = start().await;
    for (client, by) in &CLIENTS {
        let refused = async |assertion: &str| {
            let answer = ask(&kit, assertion, &[], Claims::default()).await;
            answer.is(401, "invalid_client");
            assert!(answer.header("www-authenticate").is_some());
        };
        for changes in [
            json!({ "iss": null }),
            json!({ "sub": null }),
            json!({ "iss": "public" }),
            json!({ "iss": "unknown", "sub": "unknown" }),
            json!({ "iss": "public", "sub": "public" }),
            json!({ "aud": null }),
            json!({ "aud": "https://other" }),
            json!({ "aud": ["https://other"] }),
            json!({ "aud": [] }),
            json!({ "aud": kit.authorization_server.issuer().to_owned() + "/" }),
            json!({ "exp": null }),
            json!({ "exp": "soon" }),
            json!({ "exp": now() - 1 }),
            json!({ "exp": now() + 310 }),
            json!({ "exp": 1e300 }),
            json!({ "iat": now() + 20 }),
            json!({ "nbf": now() + 20 }),
            json!({ "iat": "now" }),
            json!({ "jti": null }),
            json!({ "jti": "" }),
            json!({ "jti": 1 }),
        ] {
            refused(&assertion(&kit, client, by, changes)).await;
        }
        let signed =
            |header: Value, by: &By<'_>| sign(&header, &claims(&kit, client, json!({})), by);
        for header in [
            json!({}),
            json!({ "alg": "none" }),
            json!({ "alg": "RS256" }),
            json!({ "alg": "es256" }),
            json!({ "alg": header(by)["alg"], "typ": "dpop+jwt" }),
            json!({ "alg": header(by)["alg"], "typ": "at+jwt" }),
            json!({ "alg": header(by)["alg"], "typ": 1 }),
            json!({ "alg": header(by)["alg"], "crit": ["x"] }),
        ] {
            refused(&signed(header, by)).await;
        }
        let public_key = dpop_key(7).public_jwk().to_owned();
        for other in [By::Key(8), By::Secret("wrong"), By::Secret("")] {
            refused(&signed(header(&other), &other)).await;
            // With the algorithm that it would have to be.
            refused(&signed(header(by), &other)).await;
        }
        let digest = BASE64URL.encode(Sha256::digest(public_key));
        refused(&signed(json!({ "alg": "HS256" }), &By::Secret(&digest))).await;
        let right = signed(header(by), by);
        let (rest, signature) = right.rsplit_once('.').unwrap();
        for bad in [
            "x",
            "..",
            rest,
            &format!("{rest}."),
            &format!("{rest}.{signature}="),
            &format!("{rest}.{}", &signature[1..]),
            &format!("x{right}"),
            &format!("{right}.{signature}"),
        ] {
            refused(bad).await;
        }
        ask(&kit, &right, &[], Claims::default()).await.is(200, "");
    }
}

#[tokio::test]
async fn the_parameters_beside_an_assertion() {
    let kit = start().await;
    for (client, by) in &CLIENTS {
        let secret = [("client_secret", CLIENT_SECRET)];
        for (changes, status, error) in [
            (&[("client_assertion_type", "")][..], 401, "invalid_client"),
            (&[("client_assertion_type", "urn:x")], 401, "invalid_client"),
            (&[("client_id", "public")], 401, "invalid_client"),
            (&secret, 400, "invalid_request"),
        ] {
            let assertion = assertion(&kit, client, by, json!({}));
            let mut all = vec![
                ("grant_type", "client_credentials"),
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", &assertion),
            ];
            all.retain(|(name, _)| *name != changes[0].0);
            all.extend(changes);
            let call = kit.token_call_of(&all, Claims::default());
            kit.send(call).await.is(status, error);
        }
        let assertion = assertion(&kit, client, by, json!({}));
        let mut call = kit.token_call_of(
            &[
                ("grant_type", "client_credentials"),
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", &assertion),
            ],
            Claims::default(),
        );
        let basic = format!("Basic {}", BASE64.encode(format!("{client}:x")));
        call.headers_mut()
            .insert("authorization", basic.parse().unwrap());
        kit.send(call).await.is(400, "invalid_request");

        let in_url = kit.authorization_server.token_endpoint() + "?client_assertion=x";
        let call = kit.post(&in_url, &[], Some(Claims::default()));
        call.await.is(400, "invalid_request");
    }
}

#[tokio::test]
async fn a_client_with_a_key_must_use_it() {
    let kit = start().await;
    let grant = ("grant_type", "client_credentials");
    for parameters in [
        &[grant, ("client_id", "keyed")][..],
        &[grant, ("client_id", "keyed"), ("client_secret", "x")],
    ] {
        let call = kit.token_call_of(parameters, Claims::default());
        kit.send(call).await.is(401, "invalid_client");
    }
    let seen = kit.authorization_server.requests();
    assert_eq!(
        seen.last().unwrap().refused(),
        Some("the client has a key, and must authenticate with an assertion")
    );
    // A secret in its place takes the key away.
    kit.authorization_server.add_client("keyed", "secret");
    let old = assertion(&kit, "keyed", &By::Key(7), json!({}));
    ask(&kit, &old, &[], Claims::default())
        .await
        .is(401, "invalid_client");
    let new = assertion(&kit, "keyed", &By::Secret("secret"), json!({}));
    ask(&kit, &new, &[], Claims::default()).await.is(200, "");
}

#[tokio::test]
async fn a_strict_audience() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.strict_assertion_audience(true);
    for (client, by) in &CLIENTS {
        for (aud, status) in [
            (json!(server.issuer()), 200),
            (json!([server.issuer()]), 401),
            (json!(server.token_endpoint()), 401),
        ] {
            let assertion = assertion(&kit, client, by, json!({ "aud": aud }));
            let answer = ask(&kit, &assertion, &[], Claims::default()).await;
            assert_eq!(answer.status, status, "{aud}");
        }
    }
}

#[tokio::test]
async fn an_assertion_is_good_for_one_request() {
    let kit = start().await;
    let server = &kit.authorization_server;
    for (client, by) in &CLIENTS {
        let used = assertion(&kit, client, by, json!({ "jti": "once" }));
        ask(&kit, &used, &[], Claims::default()).await.is(200, "");
        ask(&kit, &used, &[], Claims::default())
            .await
            .is(401, "invalid_client");
        // Its `jti` is what counts.
        let again = assertion(
            &kit,
            client,
            by,
            json!({ "jti": "once", "exp": now() + 61 }),
        );
        ask(&kit, &again, &[], Claims::default())
            .await
            .is(401, "invalid_client");

        // Nor is it good after a challenge, which it does not hide.
        server.nonces(Nonces::required());
        let used = assertion(&kit, client, by, json!({}));
        let challenge = ask(&kit, &used, &[], Claims::default()).await;
        challenge.is(400, "use_dpop_nonce");
        let nonce = challenge.nonce().unwrap();
        let claims = || Claims::nonce(&*nonce);
        ask(&kit, &used, &[], claims())
            .await
            .is(401, "invalid_client");
        let fresh = assertion(&kit, client, by, json!({}));
        ask(&kit, &fresh, &[], claims()).await.is(200, "");
        ask(&kit, "x", &[], Claims::default())
            .await
            .is(400, "use_dpop_nonce");
        server.nonces(Nonces::off());

        // One that is wrong in something else uses no `jti` up.
        let wrong = json!({ "jti": "kept", "aud": "https://other" });
        let wrong = assertion(&kit, client, by, wrong);
        ask(&kit, &wrong, &[], Claims::default())
            .await
            .is(401, "invalid_client");
        let right = assertion(&kit, client, by, json!({ "jti": "kept" }));
        ask(&kit, &right, &[], Claims::default()).await.is(200, "");
    }
}

#[tokio::test]
async fn the_clock_judges_assertions() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.clock_offset(1000);
    let (client, by) = &CLIENTS[0];
    for (exp, status) in [(60, 401), (1060, 200), (1400, 401)] {
        let assertion = assertion(&kit, client, by, json!({ "exp": now() + exp }));
        let answer = ask(&kit, &assertion, &[], Claims::ahead(1000)).await;
        assert_eq!(answer.status, status, "{exp}");
    }
}

#[tokio::test]
async fn assertions_at_the_other_endpoints() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let (client, by) = &CLIENTS[0];
    for url in [
        server.revocation_endpoint(),
        server.introspection_endpoint(),
        server.device_authorization_endpoint(),
        server.pushed_authorization_request_endpoint(),
    ] {
        for aud in [server.issuer(), &server.token_endpoint(), &*url] {
            let used = assertion(&kit, client, by, json!({ "aud": aud }));
            let parameters = [
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", &*used),
                ("token", "x"),
                ("response_type", "code"),
                ("redirect_uri", "http://127.0.0.1/"),
                (
                    "code_challenge",
                    "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
                ),
                ("code_challenge_method", "S256"),
            ];
            let answer = kit.post(&url, &parameters, None).await;
            assert!(
                [200, 201].contains(&answer.status),
                "{url} {answer:?}",
                answer = answer.body
            );
            kit.post(&url, &parameters, None)
                .await
                .is(401, "invalid_client");
        }
    }
    // One endpoint's URL is not another's.
    let other = server.revocation_endpoint();
    let wrong = assertion(&kit, client, by, json!({ "aud": other }));
    ask(&kit, &wrong, &[], Claims::default())
        .await
        .is(401, "invalid_client");
}

async fn vouch(kit: &Kit, assertion: &str, more: &[(&str, &str)]) -> Answer {
    let basics = [
        ("grant_type", JWT_BEARER),
        ("client_id", "public"),
        ("assertion", assertion),
    ];
    let call = kit.token_call_of(&[&basics, more].concat(), Claims::default());
    kit.send(call).await
}

const ISSUER: &str = "https://idp.example";

#[tokio::test]
async fn an_assertion_as_a_grant() {
    let kit = start().await;
    let server = &kit.authorization_server;
    server.trust_assertions(ISSUER, &dpop_key(9));
    server.token_format(TokenFormat::Signed);
    let by = By::Key(9);
    let made = |changes: Value| assertion(&kit, ISSUER, &by, changes);
    for changes in [
        json!({ "sub": "alice" }),
        json!({ "sub": "alice", "aud": [server.token_endpoint(), "https://other"] }),
        json!({ "sub": "alice", "jti": null }),
    ] {
        let more = [("scope", "a b"), ("resource", "https://api")];
        let answer = vouch(&kit, &made(changes), &more).await;
        answer.is(200, "");
        assert_eq!(answer.text("scope"), "a b");
        assert_eq!(answer.json().get("refresh_token"), None);
        assert_eq!(answer.json().get("issued_token_type"), None);
        let token = answer.text("access_token");
        let said = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
        let said: Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(
            (&said["sub"], &said["client_id"], &said["aud"]),
            (&json!("alice"), &json!("public"), &json!("https://api"))
        );
        kit.api(&token, Claims::default()).await.is(200, "");
    }

    // A `jti` is good once; without one the assertion is good until its end.
    let once = made(json!({ "sub": "alice" }));
    vouch(&kit, &once, &[("scope", "a  b")])
        .await
        .is(400, "invalid_scope");
    vouch(&kit, &once, &[]).await.is(200, "");
    vouch(&kit, &once, &[]).await.is(400, "invalid_grant");
    let often = made(json!({ "sub": "alice", "jti": null }));
    vouch(&kit, &often, &[]).await.is(200, "");
    vouch(&kit, &often, &[]).await.is(200, "");
    // What authenticated a client before may be a grant, and the other way round.
    server.trust_assertions("keyed", &dpop_key(7));
    let both = assertion(&kit, "keyed", &By::Key(7), json!({}));
    ask(&kit, &both, &[], Claims::default()).await.is(200, "");
    vouch(&kit, &both, &[]).await.is(200, "");

    server.give_refresh_tokens(JWT_BEARER, true);
    let answer = vouch(&kit, &made(json!({})), &[]).await;
    assert!(!answer.text("refresh_token").is_empty());
}

#[tokio::test]
async fn assertions_that_are_no_grant() {
    let kit = start().await;
    let server = &kit.authorization_server;
    let by = By::Key(9);
    let unknown = assertion(&kit, ISSUER, &by, json!({}));
    vouch(&kit, &unknown, &[]).await.is(400, "invalid_grant");
    server.trust_assertions(ISSUER, &dpop_key(9));
    for changes in [
        json!({ "iss": null }),
        json!({ "iss": "https://other" }),
        json!({ "iss": CLIENT_ID }),
        json!({ "sub": null }),
        json!({ "aud": null }),
        json!({ "aud": server.revocation_endpoint() }),
        json!({ "exp": null }),
        json!({ "exp": now() - 1 }),
        json!({ "exp": now() + 310 }),
        json!({ "nbf": now() + 20 }),
    ] {
        let wrong = assertion(&kit, ISSUER, &by, changes);
        vouch(&kit, &wrong, &[]).await.is(400, "invalid_grant");
    }
    for (header, by) in [
        (
            json!({ "alg": "ES256", "typ": "client-authentication+jwt" }),
            By::Key(9),
        ),
        (json!({ "alg": "none" }), By::Key(9)),
        (json!({ "alg": "ES256" }), By::Key(8)),
        (json!({ "alg": "HS256" }), By::Secret("x")),
    ] {
        let wrong = sign(&header, &claims(&kit, ISSUER, json!({})), &by);
        vouch(&kit, &wrong, &[]).await.is(400, "invalid_grant");
    }
    vouch(&kit, "", &[]).await.is(400, "invalid_request");
    let right = assertion(&kit, ISSUER, &by, json!({}));
    vouch(&kit, &right, &[("resource", "/a")])
        .await
        .is(400, "invalid_target");
    vouch(&kit, &right, &[]).await.is(200, "");
}
