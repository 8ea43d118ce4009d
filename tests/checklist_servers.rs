//! The checklist, further: T14 to T21 and C18 to C28. The table of all rows stands at the top of `checklist.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/flows.rs"]
mod flows;
mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::{
    API, Fake, a3_key, answer,
    bench::{AS, RS, Wall, audience, request, stack},
    claims, get, header, ok, token, token_nonce_challenge,
};
use tower::{ServiceBuilder, ServiceExt as _, retry::RetryLayer};
use tower_dpop::{
    Audience, AuthorizationRequest, Discovery, DpopKey, DpopLayer, Error, Grant, OAuthClient,
    PrivateKeyJwt, Registration, ResourceMetadata, RetryPolicy, ServerMetadata, TokenLayer,
    TokenParameters, TokenRequest,
    testing::{Nonces, Profile, Recorded, TokenFormat},
};

use self::flows::{CALLBACK, Flow, distinct, parameter};

const ISSUER: &str = "https://as.example.com";

fn metadata() -> ServerMetadata {
    ServerMetadata::new(ISSUER)
        .with_token_endpoint("https://as.example.com/token")
        .with_authorization_endpoint("https://as.example.com/authorize")
        .with_pushed_authorization_request_endpoint("https://as.example.com/par")
}

fn authorization() -> AuthorizationRequest {
    AuthorizationRequest::new(CALLBACK).scope("a")
}

fn client(fake: &Fake, registration: Registration) -> OAuthClient {
    let dpop = DpopLayer::new(a3_key());
    OAuthClient::new(&dpop, fake.clone(), registration).unwrap()
}

/// By the rules of RFC 7638, section 3, with a hash of our own choice and no code of the crate.
fn thumbprint(jwk: &Value) -> String {
    let text = |name: &str| jwk[name].as_str().unwrap();
    let required = format!(
        r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#,
        text("crv"),
        text("kty"),
        text("x"),
        text("y")
    );
    BASE64URL.encode(Sha256::digest(required))
}

/// The thumbprint of the key in a proof.
fn proven(seen: &Recorded) -> String {
    thumbprint(&header(seen.proof().unwrap())["jwk"])
}

/// What the `aud` of a signed token says.
fn audiences(token: &str) -> Value {
    claims(token)["aud"].clone()
}

#[tokio::test]
async fn checklist_t14_what_may_come_of_a_pushed_request() {
    let good = r#"{"request_uri":"urn:ietf:params:oauth:request_uri:1","expires_in":60}"#;
    for (status, body, challenged, good) in [
        (201, good, false, true),
        (200, good, false, true),
        (201, good, true, true),
        (201, r#"{"request_uri":"urn:r"}"#, false, true),
        (201, r#"{"expires_in":60}"#, false, false),
        (201, r#"{"request_uri":"","expires_in":60}"#, false, false),
        (413, "", false, false),
        (429, "", true, false),
        (405, "", false, false),
        (400, r#"{"error":"invalid_request"}"#, true, false),
        (401, r#"{"error":"invalid_client"}"#, false, false),
    ] {
        let fake = Fake::new(move |seen, _| match (challenged, seen.number) {
            (true, 0) => token_nonce_challenge("n"),
            _ => answer(status, &[("retry-after", "1")], body),
        });
        let registration = Registration::new(metadata(), "app").client_secret_post("s3cret");
        let pending = client(&fake, registration).push(authorization()).await;
        let seen = fake.seen();
        // Nobody asks again by himself, whatever the server may ask for.
        assert_eq!(seen.len(), 1 + usize::from(challenged), "{status} {body}");
        for (number, seen) in seen.iter().enumerate() {
            assert_eq!(seen.uri, "https://as.example.com/par");
            let claims = seen.claims();
            assert_eq!(claims["htu"], "https://as.example.com/par");
            assert_eq!(claims["ath"], Value::Null);
            let nonce = (number == 1).then(|| "n".to_owned());
            assert_eq!(seen.nonce(), nonce, "{status} {body}");
        }
        let jtis = seen.iter().map(|seen| seen.claims()["jti"].to_string());
        distinct(&jtis.collect::<Vec<_>>());
        match pending {
            Ok(pending) => {
                assert!(good, "{status} {body}");
                assert!(
                    pending.url().contains("request_uri=urn"),
                    "{}",
                    pending.url()
                );
                assert!(!pending.url().contains("code_challenge"));
            }
            Err(error) => {
                assert!(
                    !good && error.is_token_request(),
                    "{status} {body}: {error}"
                );
                let refused = body.contains("error");
                assert_eq!(error.oauth_error().is_some(), refused, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn checklist_t15_no_endpoint_is_asked_that_the_metadata_do_not_name() {
    let elsewhere = "https://tokens.example.net/t";
    let document = json!({
        "issuer": ISSUER, "token_endpoint": elsewhere,
        "authorization_endpoint": "https://as.example.com/authorize",
    });
    let fake = Fake::new(move |seen, _| match seen.uri.path() {
        "/.well-known/oauth-authorization-server" => answer(200, &[], &document.to_string()),
        "/t" => token("t", 300),
        // What could be guessed.
        _ => answer(500, &[], ""),
    });
    let discovery = Discovery::new(fake.clone(), ISSUER).unwrap();
    let registration = Registration::new(discovery, "app");
    let by = TokenRequest::new(registration.clone(), Grant::client_credentials());
    let dpop = DpopLayer::new(a3_key());
    let tokens = TokenLayer::new(&dpop, fake.clone(), by, audience()).unwrap();
    let got = tokens.access_token().await.unwrap();
    let client = client(&fake, registration);
    let pushed = client.push(authorization()).await.unwrap_err();
    let device = client.device_authorization(&TokenParameters::new()).await;
    let revoked = client.revoke_access_token(&got).await.unwrap_err();
    let introspected = client.introspect(&got).await.unwrap_err();
    for error in [pushed, device.unwrap_err(), revoked, introspected] {
        assert!(error.is_config(), "{error}");
    }
    let asked: Vec<_> = fake
        .seen()
        .iter()
        .map(|seen| seen.uri.to_string())
        .collect();
    assert_eq!(
        asked,
        [
            "https://as.example.com/.well-known/oauth-authorization-server",
            elsewhere
        ]
    );
}

#[tokio::test]
async fn checklist_t16_two_resources_and_one_that_was_not_granted() {
    let flow = Flow::start().await;
    flow.authorization_server.token_format(TokenFormat::Signed);
    let app = flow.app().await;
    let two = ["https://one.example/a?b=c", "urn:example:two"];
    let request = TokenRequest::new(app.clone(), Grant::client_credentials());
    let request = request.resource(two[0]).resource(two[1]);
    let tokens = flow.tokens(request);
    let token = tokens.access_token().await.unwrap();
    let resources = |seen: &Recorded| {
        let pairs = form_urlencoded::parse(seen.body());
        let all = pairs.filter(|(name, _)| name == "resource");
        all.map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(resources(&flow.asked()[0]), two);
    assert_eq!(
        audiences(token.secret()),
        json!(two),
        "both are in the token"
    );
    // A request's own take the place of both.
    let own = TokenParameters::new()
        .resource("urn:three")
        .resource("urn:four");
    tokens.access_token_for(&own).await.unwrap();
    assert_eq!(resources(&flow.asked()[1]), ["urn:three", "urn:four"]);

    // What was granted for one is not for another.
    let client = flow.client(app.clone());
    let pending = client
        .authorize(authorization().resource(two[0]))
        .await
        .unwrap();
    let grant = pending.answered(&flow.user(pending.url()).await).unwrap();
    let tokens = flow.tokens(TokenRequest::new(app, grant));
    tokens.access_token().await.unwrap();
    let other = TokenParameters::new().resource("urn:other");
    let error = tokens.access_token_for(&other).await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_target");
    assert!(
        error.is_permanent() && error.to_string().contains("RFC 8707"),
        "{error}"
    );
    // The refusal costs the grant nothing.
    let same = TokenParameters::new().resource(two[0]);
    let token = tokens.access_token_for(&same).await.unwrap();
    assert_eq!(audiences(token.secret()), json!(two[0]));

    // What can be none is not sent.
    let before = flow.asked().len();
    for none in ["", "/a", "one.example", "https://one.example/#a"] {
        let by = TokenRequest::new(flow.app().await, Grant::client_credentials());
        let audience = Audience::origins([flow.api.origin()]).unwrap();
        let layer = TokenLayer::new(&flow.dpop, flow.http.clone(), by.resource(none), audience);
        assert!(layer.unwrap_err().is_config(), "{none}");
        let own = TokenParameters::new().resource(none);
        assert!(tokens.access_token_for(&own).await.unwrap_err().is_config());
    }
    assert_eq!(flow.asked().len(), before);
}

#[tokio::test]
async fn checklist_t18_a_refresh_token_is_of_use_to_nobody_else() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    server.token_format(TokenFormat::Signed);
    let app = flow.app().await;
    let client = flow.client(app.clone());
    let request = authorization().resource("https://one.example/");
    let pending = client.authorize(request).await.unwrap();
    let grant = pending.answered(&flow.user(pending.url()).await).unwrap();
    let tokens = flow.tokens(TokenRequest::new(app.clone(), grant));
    for _ in 0..3 {
        let token = tokens.access_token().await.unwrap();
        // For one audience, and for one key.
        assert_eq!(audiences(token.secret()), "https://one.example/");
        let jkt = &claims(token.secret())["cnf"]["jkt"];
        assert_eq!(jkt, flow.dpop.key().thumbprint());
        tokens.forget_tokens();
    }
    let used = flow.sent("refresh_token");
    assert_eq!(used.len(), 2);
    distinct(&used);

    // Whoever steals one has no key for it, and is told so by the server.
    let stolen = server.issue_refresh_token("app", flow.dpop.key(), "a");
    let thief = DpopLayer::new(DpopKey::generate().unwrap());
    let by = TokenRequest::new(app, Grant::refresh_token(&stolen));
    let audience = Audience::origins([flow.api.origin()]).unwrap();
    let theirs = TokenLayer::new(&thief, flow.http.clone(), by, audience).unwrap();
    let error = theirs.access_token().await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
    let refused = flow.asked().pop().unwrap();
    assert_eq!(
        refused.refused(),
        Some("the refresh token is bound to another key")
    );
}

#[tokio::test]
async fn checklist_t19_es256_and_the_servers_clock() {
    for ahead in [3600, -3600] {
        let flow = Flow::start().await;
        let server = &flow.authorization_server;
        let client_key = DpopKey::generate().unwrap();
        server.add_client_with_key("keyed", &client_key);
        server.strict_assertion_audience(true);
        server.profile(Profile::FapiSuite);
        flow.api.profile(Profile::FapiSuite);
        let discovery = Discovery::new(flow.http.clone(), server.issuer()).unwrap();
        let by_key = PrivateKeyJwt::new(client_key);
        let registration = Registration::new(discovery, "keyed").private_key_jwt(by_key);
        server.clock_offset(ahead);
        flow.api.clock_offset(ahead);
        let request = TokenRequest::new(registration, Grant::client_credentials());
        assert_eq!(
            flow.get(&flow.tokens(request)).await.unwrap(),
            200,
            "{ahead}"
        );

        // The last one of each was by the server's clock: the assertion's times, too.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let theirs = now.checked_add_signed(ahead).unwrap();
        let near = |time: &Value| time.as_u64().unwrap().abs_diff(theirs) < 100;
        let asked = flow.asked();
        assert!(
            asked[0].refused().is_some(),
            "{ahead}: its clock was not known"
        );
        let good = asked.last().unwrap();
        assert_eq!(good.refused(), None);
        let assertion = parameter(good, "client_assertion").unwrap();
        assert!(near(&claims(&assertion)["iat"]) && near(&claims(&assertion)["exp"]));
        assert!(near(&claims(good.proof().unwrap())["iat"]));
        for seen in asked.iter().chain(&flow.api.requests()) {
            assert_eq!(header(seen.proof().unwrap())["alg"], "ES256");
        }
        for seen in &asked {
            let assertion = parameter(seen, "client_assertion").unwrap();
            assert_eq!(header(&assertion)["alg"], "ES256");
        }
        // And nonces are supported, at both.
        assert!(good.claim("nonce").is_some());
        assert!(flow.api.requests().last().unwrap().claim("nonce").is_some());
    }
}

#[tokio::test]
async fn checklist_t21_the_algorithm_is_found_in_any_list_that_has_it() {
    for (list, known) in [
        (json!(["ES256"]), true),
        (json!(["Ed25519", "EdDSA", "PS256", "ES256"]), true),
        (json!(["EdDSA"]), false),
        (json!(["Ed25519"]), false),
        (json!(["PS256", "RS256", "ES384"]), false),
        // To the letter (RFC 7515, section 4.1.1).
        (json!(["es256", "ES256 ", "ES256K"]), false),
        (json!([]), false),
    ] {
        let flow = Flow::start().await;
        let server = &flow.authorization_server;
        let name = "dpop_signing_alg_values_supported";
        server.metadata_member(name, Some(&list.to_string()));
        let app = Discovery::new(flow.http.clone(), server.issuer()).unwrap();
        let app = Registration::new(app, "app");
        let tokens = flow.tokens(TokenRequest::new(app, Grant::client_credentials()));
        match flow.get(&tokens).await {
            Ok(status) => assert!(known && status == 200, "{list}: {status}"),
            Err(error) => assert!(!known && error.is_algorithm(), "{list}: {error}"),
        }
        assert_eq!(flow.asked().len(), usize::from(known), "{list}");
    }
    let ed25519 = json!({
        "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    });
    let error = DpopKey::from_bytes(ed25519.to_string(), None).unwrap_err();
    assert!(
        error.is_key() && error.to_string().contains("`AwsLcRs::from_bytes`"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn checklist_c18_each_attempt_is_proven_when_it_is_sent() {
    let fake = Fake::failing(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), _) => Ok(token("t", 300)),
        (_, 0) => Err("connection reset".into()),
        (_, 1) => Ok(answer(503, &[("retry-after", "3")], "")),
        (_, 2) => Ok(answer(502, &[], "")),
        _ => Ok(ok()),
    });
    let wall = Wall::new();
    let dpop = wall.layer();
    let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience()).unwrap();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::new()))
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone());
    let (began, from) = (wall.unix(), tokio::time::Instant::now());
    assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
    let seen = fake.seen_by(RS);
    assert_eq!(seen.len(), 4);
    let jtis = seen.iter().map(|seen| seen.claims()["jti"].to_string());
    distinct(&jtis.collect::<Vec<_>>());
    let dates = seen
        .iter()
        .map(|seen| seen.claims()["iat"].as_i64().unwrap());
    let dates: Vec<_> = dates.collect();
    for (seen, date) in seen.iter().zip(&dates) {
        // Not when the request was made, but when it went.
        let passed = i64::try_from((seen.at - from).as_secs()).unwrap();
        assert_eq!(*date, began + passed);
    }
    assert!(
        dates[2] >= dates[1] + 3,
        "the server wanted a pause: {dates:?}"
    );
}

#[tokio::test]
async fn checklist_c20_a_refresh_token_is_used_with_its_key_each_time() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    server.nonces(Nonces::one_time());
    let app = flow.app().await;
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    for _ in 0..4 {
        assert_eq!(flow.get(&tokens).await.unwrap(), 200);
        tokens.forget_tokens();
    }
    assert_eq!(flow.sent("refresh_token").len(), 3);
    for seen in flow.asked().iter().chain(&flow.api.requests()) {
        assert_eq!(proven(seen), flow.dpop.key().thumbprint());
    }

    // A new key while a refresh token is held: refused before it is sent, as far as its key is known.
    let held = server.issue_refresh_token("app", flow.dpop.key(), "a");
    let new = DpopLayer::new(DpopKey::generate().unwrap());
    let before = server.request_count();
    let grant = Grant::refresh_token(&held).bound_to(flow.dpop.key().thumbprint());
    let with = |dpop: &DpopLayer, grant: Grant| {
        let audience = Audience::origins([flow.api.origin()]).unwrap();
        let by = TokenRequest::new(app.clone(), grant);
        TokenLayer::new(dpop, flow.http.clone(), by, audience)
    };
    assert!(with(&new, grant.clone()).unwrap_err().is_other_key());
    assert_eq!(server.request_count(), before);
    // Where nobody knows it the server refuses, which costs the grant nothing and is not tried with more keys.
    let unknown = with(&new, Grant::refresh_token(&held)).unwrap();
    let error = unknown.access_token().await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
    assert!(error.is_permanent(), "{error}");
    with(&flow.dpop, grant)
        .unwrap()
        .access_token()
        .await
        .unwrap();
}

#[tokio::test]
async fn checklist_c27_what_both_servers_say_of_algorithms() {
    // The authorization server's list is looked at before anything is sent, at every endpoint with a proof.
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let name = "dpop_signing_alg_values_supported";
    server.metadata_member(name, Some(r#"["PS256", "Ed25519"]"#));
    let app = flow.app().await;
    let before = server.request_count();
    let client = flow.client(app.clone());
    let grants = [
        Grant::client_credentials(),
        Grant::refresh_token("r"),
        Grant::token_exchange("s", "urn:ietf:params:oauth:token-type:jwt"),
    ];
    let mut errors: Vec<Error> = Vec::new();
    for grant in grants {
        let audience = Audience::origins([flow.api.origin()]).unwrap();
        let by = TokenRequest::new(app.clone(), grant);
        errors.push(
            match TokenLayer::new(&flow.dpop, flow.http.clone(), by, audience) {
                Ok(tokens) => tokens.access_token().await.unwrap_err(),
                Err(error) => error,
            },
        );
    }
    errors.push(client.push(authorization()).await.unwrap_err());
    errors.push(client.authorize(authorization()).await.unwrap_err());
    let device = client.device_authorization(&TokenParameters::new()).await;
    errors.push(device.unwrap_err());
    for error in errors {
        assert!(error.is_algorithm(), "{error}");
        assert!(
            error.to_string().contains("ES256") && error.to_string().contains("PS256, Ed25519")
        );
    }
    assert_eq!(server.request_count(), before, "nothing was sent");

    // An API's are told to the program: by its metadata, and by its refusal, which comes back as it is.
    flow.api.metadata_member(name, Some(r#"["PS256"]"#));
    let url = flow.api.url("/orders");
    let told = ResourceMetadata::discover(flow.http.clone(), &url)
        .await
        .unwrap();
    assert_eq!(
        told.dpop_signing_alg_values_supported(),
        Some(&["PS256".to_owned()][..])
    );
    let error = told.check_key(flow.dpop.key()).unwrap_err();
    assert!(
        error.is_algorithm() && error.to_string().contains("PS256"),
        "{error}"
    );
    flow.api
        .metadata_member(name, Some(r#"["PS256", "ES256"]"#));
    let told = ResourceMetadata::discover(flow.http.clone(), &url);
    told.await.unwrap().check_key(flow.dpop.key()).unwrap();
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some(AS) => token("t", 300),
        _ => {
            let challenge = r#"DPoP error="invalid_dpop_proof", algs="PS256""#;
            answer(401, &[("www-authenticate", challenge)], "")
        }
    });
    let refused = stack(&fake).oneshot(get(API)).await.unwrap();
    let challenges = tower_dpop::Challenge::all(refused.headers());
    assert_eq!(challenges[0].parameter("algs"), Some("PS256"));
    assert_eq!(
        (fake.hits(AS), fake.hits(RS)),
        (1, 1),
        "it is not tried again"
    );
}

#[tokio::test]
async fn checklist_c28_the_key_is_promised_in_the_url_and_proven_where_it_is_pushed() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let jwk: Value = serde_json::from_str(flow.dpop.key().public_jwk()).unwrap();
    let jkt = thumbprint(&jwk);
    let app = flow.app().await;
    let client = flow.client(app.clone());
    let promised = |query: &str| {
        let query = query.split_once('?').map_or(query, |(_, query)| query);
        let pairs = form_urlencoded::parse(query.as_bytes());
        let all = pairs.filter(|(name, _)| name == "dpop_jkt");
        all.map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    };

    // In the URL, once.
    let pending = client.authorize(authorization()).await.unwrap();
    assert_eq!(promised(pending.url()), [&*jkt]);
    // Pushed, in the body and by the proof; and in the URL no more.
    let pushed = client.push(authorization()).await.unwrap();
    let seen = flow.to("/par").pop().unwrap();
    assert_eq!(promised(std::str::from_utf8(seen.body()).unwrap()), [&*jkt]);
    assert_eq!(proven(&seen), jkt);
    assert_eq!(promised(pushed.url()), [""; 0]);

    // Either way the server takes the code with that key, and with no other. An answer that says nothing leaves the
    // verifier in the record, for the thief; and a grant of ours would not go with another key at all.
    for pending in [pending, pushed] {
        let grant = pending.answered(&flow.user(pending.url()).await).unwrap();
        let tokens = flow.tokens(TokenRequest::new(app.clone(), grant));
        server.fail(1, StatusCode::SERVICE_UNAVAILABLE);
        tokens.access_token().await.unwrap_err();
        let seen = flow.asked().pop().unwrap();
        let [code, verifier] =
            ["code", "code_verifier"].map(|name| parameter(&seen, name).unwrap());
        let thief = DpopLayer::new(DpopKey::generate().unwrap());
        let by = Grant::authorization_code(code, CALLBACK, verifier);
        let by = TokenRequest::new(app.clone(), by);
        let audience = Audience::origins([flow.api.origin()]).unwrap();
        let theirs = TokenLayer::new(&thief, flow.http.clone(), by, audience).unwrap();
        let error = theirs.access_token().await.unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
        let refused = flow.asked().pop().unwrap();
        assert!(
            refused.refused().unwrap().contains("dpop_jkt"),
            "{refused:?}"
        );
        flows::at_last(&tokens).await.unwrap();
    }

    // Two that disagree cannot be written: the promise is not the program's to make.
    let both = authorization().parameter("dpop_jkt", "x".repeat(43));
    assert!(client.authorize(both).await.unwrap_err().is_config());
}
