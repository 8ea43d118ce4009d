//! What a client asks an authorization server beside tokens, over TCP; and how it shows who it is, at the token
//! endpoint too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/flows.rs"]
mod flows;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    AccessToken, Audience, AuthorizationRequest, DpopKey, DpopLayer, Error, Grant, OAuthClient,
    PrivateKeyJwt, Registration, ServerMetadata, TokenLayer, TokenParameters, TokenRequest,
    oauth::{Authenticating, AuthenticationContext, ClientAuthentication, Credentials},
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, Recorded, TokenFormat},
};

use self::flows::{CALLBACK, Flow, LONG, at_last, distinct, http, own, parameter};

fn request() -> AuthorizationRequest {
    AuthorizationRequest::new(CALLBACK)
        .scope("a b")
        .resource("https://api.example.com/")
}

/// The claims of a JWS, read without the crate.
fn claims(jwt: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap());
    serde_json::from_slice(&claims.unwrap()).unwrap()
}

/// The `jti` of the client assertions, each another.
#[track_caller]
fn assertions(asked: &[Recorded]) -> Vec<String> {
    let of = |seen: &Recorded| claims(&parameter(seen, "client_assertion").unwrap());
    let jti: Vec<_> = asked
        .iter()
        .map(|seen| of(seen)["jti"].to_string())
        .collect();
    distinct(&jti);
    jti
}

#[track_caller]
fn no_secret(error: &Error) {
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        shown += &format!(" {error} {error:?}");
        source = error.source();
    }
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!error.to_string().contains(char::is_control), "{shown}");
    assert!(shown.len() < 5000, "{shown}");
}

/// With assertions, at a server that takes each once.
async fn keyed(flow: &Flow) -> Registration {
    let key = DpopKey::generate().unwrap();
    let server = &flow.authorization_server;
    server.add_client_with_key("keyed", &key);
    Registration::new(flow.metadata().await, "keyed").private_key_jwt(PrivateKeyJwt::new(key))
}

#[tokio::test]
async fn a_pushed_request_goes_all_the_way_to_a_token() {
    let flow = Flow::start().await;
    flow.authorization_server.nonces(Nonces::required());
    let registration = keyed(&flow).await;
    let client = flow.client(registration.clone());
    let pending = client.push(request()).await.unwrap();

    let pushed = flow.to("/par");
    let [challenged, accepted] = &pushed[..] else {
        panic!("{pushed:?}")
    };
    assert_eq!(challenged.refused(), Some("the proof has no nonce"));
    assert_eq!(accepted.status(), Some(StatusCode::CREATED));
    assertions(&pushed);
    for seen in &pushed {
        let endpoint = flow
            .authorization_server
            .pushed_authorization_request_endpoint();
        assert_eq!(seen.claim("htu"), Some(endpoint));
        assert_eq!(seen.claim("ath"), None);
        let told = |name| parameter(seen, name);
        let jkt = flow.dpop.key().thumbprint().to_owned();
        assert_eq!(told("dpop_jkt"), Some(jkt));
        assert_eq!(told("code_challenge_method").as_deref(), Some("S256"));
        assert_eq!(told("scope").as_deref(), Some("a b"));
        assert_eq!(told("state").as_deref(), Some(pending.state()));
        let pairs: Vec<_> = form_urlencoded::parse(seen.body()).collect();
        let names: BTreeSet<_> = pairs.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names.len(), pairs.len(), "no parameter stands twice");
    }
    // Nothing but the reference is in the URL (RFC 9126, section 4).
    let url = pending.url().split_once('?').unwrap().1;
    let query: Vec<_> = form_urlencoded::parse(url.as_bytes()).collect();
    let names: Vec<_> = query.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["client_id", "request_uri"]);

    let grant = pending.answered(&flow.user(pending.url()).await).unwrap();
    let tokens = flow.tokens(TokenRequest::new(registration, grant));
    assert_eq!(flow.get(&tokens).await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_wants_it_is_pushed_to_without_being_asked() {
    for required in [true, false] {
        let flow = Flow::start().await;
        let server = &flow.authorization_server;
        server.require_pushed_authorization_requests(required);
        let app = flow.app().await;
        let pending = flow.client(app.clone()).authorize(request()).await.unwrap();
        assert_eq!(flow.to("/par").len(), usize::from(required));
        assert_eq!(pending.url().contains("request_uri="), required);
        let grant = pending.answered(&flow.user(pending.url()).await).unwrap();
        let tokens = flow.tokens(TokenRequest::new(app, grant));
        assert_eq!(flow.get(&tokens).await.unwrap(), StatusCode::OK);
    }
}

/// RFC 8628, with a user who takes his time.
#[tokio::test]
async fn a_device_gets_its_token_when_the_user_agrees() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    server.nonces(Nonces::required());
    server.device_interval(Duration::from_secs(1));
    let app = flow.app().await;
    let device = flow
        .client(app.clone())
        .device_authorization(&own("a b").resource("https://api.example.com/"))
        .await
        .unwrap();
    let asked = flow.to("/device");
    assert_eq!(
        parameter(asked.last().unwrap(), "scope").as_deref(),
        Some("a b")
    );
    assert!(device.verification_uri().starts_with(server.origin()));
    let complete = device.verification_uri_complete().unwrap();
    assert!(complete.contains(device.user_code()));

    let tokens = flow.tokens(TokenRequest::new(app, Grant::device_code(&device)));
    let waiting = tokio::spawn({
        let tokens = tokens.clone();
        async move { tokens.access_token().await }
    });
    let polls = || {
        let asked = flow.asked();
        let pending = asked.iter().filter(|seen| {
            seen.refused()
                .is_some_and(|why| why.contains("not answered yet"))
        });
        pending.count()
    };
    while polls() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(server.approve_device(device.user_code()));
    let token = timeout(LONG, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(flow.get_with(&token).await, StatusCode::OK);
    // And with the refresh token that came along.
    tokens.forget_tokens();
    assert_eq!(flow.get(&tokens).await.unwrap(), StatusCode::OK);
    assert_eq!(flow.sent("refresh_token").len(), 1);
    assert!(
        !flow
            .asked()
            .iter()
            .any(|seen| seen.refused().is_some_and(|why| why.contains("sooner"))),
        "it was never too fast"
    );

    // Another user says no.
    let client = flow.client(flow.app().await);
    let device = client.device_authorization(&TokenParameters::new()).await;
    let device = device.unwrap();
    assert!(server.deny_device(device.user_code()));
    let tokens = flow.tokens(TokenRequest::new(
        flow.app().await,
        Grant::device_code(&device),
    ));
    for _ in 0..2 {
        let error = tokens.access_token().await.unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), "access_denied");
        tokens.forget_tokens();
    }
}

/// A grant with a refresh token, and both tokens.
async fn granted(flow: &Flow) -> (Registration, TokenLayer, AccessToken) {
    let app = flow.app().await;
    let tokens = flow.tokens(TokenRequest::new(app.clone(), flow.code(&app).await));
    let token = tokens.access_token().await.unwrap();
    assert_eq!(flow.get_with(&token).await, StatusCode::OK);
    (app, tokens, token)
}

#[tokio::test]
async fn a_revoked_access_token_is_dead() {
    let flow = Flow::start().await;
    let (app, tokens, token) = granted(&flow).await;
    flow.authorization_server.nonces(Nonces::required());
    let client = flow.client(app);
    client.revoke_access_token(&token).await.unwrap();
    let asked = flow.to("/revoke");
    let seen = asked.last().unwrap();
    assert_eq!(parameter(seen, "token").as_deref(), Some(token.secret()));
    assert_eq!(
        parameter(seen, "token_type_hint").as_deref(),
        Some("access_token")
    );
    assert_eq!(seen.claim("ath"), None);
    assert_eq!(flow.get_with(&token).await, StatusCode::UNAUTHORIZED);
    // Its grant is as good as before, and a second time is no error (RFC 7009, section 2.2).
    assert_eq!(flow.get(&tokens).await.unwrap(), StatusCode::OK);
    client.revoke_access_token(&token).await.unwrap();
}

#[tokio::test]
async fn a_revoked_refresh_token_takes_its_access_tokens_along() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    server.rotate_refresh_tokens(false);
    let refresh_token = server.issue_refresh_token("app", flow.dpop.key(), "a");
    let app = flow.app().await;
    let grant = Grant::refresh_token(&refresh_token);
    let tokens = flow.tokens(TokenRequest::new(app.clone(), grant));
    let token = tokens.access_token().await.unwrap();
    assert_eq!(flow.get_with(&token).await, StatusCode::OK);

    let client = flow.client(app);
    client.revoke_refresh_token(&refresh_token).await.unwrap();
    assert_eq!(flow.get_with(&token).await, StatusCode::UNAUTHORIZED);
    tokens.forget_tokens();
    let error = tokens.access_token().await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
    client.revoke_refresh_token("unknown").await.unwrap();
}

#[tokio::test]
async fn introspection_tells_what_the_server_knows() {
    let flow = Flow::start().await;
    let registration = Registration::new(flow.metadata().await, CLIENT_ID);
    let registration = registration.client_secret_basic(CLIENT_SECRET);
    let request = TokenRequest::new(registration.clone(), Grant::client_credentials()).scope("s");
    let tokens = flow.tokens(request);
    let token = tokens.access_token().await.unwrap();
    flow.authorization_server.nonces(Nonces::required());
    let client = flow.client(registration);
    let told = client.introspect(&token).await.unwrap();
    assert!(told.is_active());
    assert_eq!(
        (told.scope(), told.client_id()),
        (Some("s"), Some(CLIENT_ID))
    );
    assert_eq!(told.thumbprint(), Some(flow.dpop.key().thumbprint()));
    assert!(told.expires_at().unwrap() > std::time::SystemTime::now());
    assert!(!format!("{told:?}").contains(token.secret()));
    flow.authorization_server.revoke_all();
    let told = client.introspect(&token).await.unwrap();
    assert!(!told.is_active() && told.scope().is_none() && told.thumbprint().is_none());
    // A public client may not ask.
    let error = flow.client(flow.app().await).introspect(&token).await;
    assert_eq!(
        error.unwrap_err().oauth_error().unwrap().code(),
        "invalid_client"
    );
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Bytes> {
    let response = Response::builder().status(status);
    let response = response.header("content-type", "application/json");
    response.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_token_of_another_key_is_found_out() {
    let flow = Flow::start().await;
    let (app, _, token) = granted(&flow).await;
    let client = flow.client(app);
    let jkt = DpopKey::generate().unwrap().thumbprint().to_owned();
    let mine = flow.dpop.key().thumbprint();
    for (body, other_key) in [
        (json!({"active": true, "cnf": {"jkt": jkt}}), true),
        (json!({"active": false, "cnf": {"jkt": jkt}}), true),
        (json!({"active": true, "cnf": {"jkt": mine}}), false),
        (json!({"active": true, "cnf": {"x5t#S256": "x"}}), false),
        (json!({"active": true}), false),
    ] {
        let server = &flow.authorization_server;
        server.answer(1, answer(200, body.to_string()));
        let told = client.introspect(&token).await;
        assert_eq!(told.is_err(), other_key, "{body}");
        if let Err(error) = told {
            assert!(error.is_other_key() && !error.is_token_request());
        }
    }
    for bad in [
        json!({}),
        json!({"active": "true"}),
        json!({"active": 1}),
        json!({"active": null}),
    ] {
        let server = &flow.authorization_server;
        server.answer(1, answer(200, bad.to_string()));
        let error = client.introspect(&token).await.unwrap_err();
        assert!(error.is_token_request() && error.to_string().contains("`active`"));
    }
}

/// All that this client asks, one after another.
async fn all(client: &OAuthClient, token: &AccessToken) -> [(&'static str, Result<(), Error>); 5] {
    let nothing = TokenParameters::new();
    [
        (
            "pushed authorization request",
            client.push(request()).await.map(drop),
        ),
        (
            "device authorization",
            client.device_authorization(&nothing).await.map(drop),
        ),
        ("revocation", client.revoke_access_token(token).await),
        (
            "revocation",
            client.revoke_refresh_token("canary-refresh").await,
        ),
        ("introspection", client.introspect(token).await.map(drop)),
    ]
}

fn canary_token(flow: &Flow) -> AccessToken {
    let audience = Audience::origins([flow.api.origin()]).unwrap();
    AccessToken::new("canary-access-token", flow.dpop.key(), audience).unwrap()
}

#[tokio::test]
async fn endpoints_that_a_server_does_not_have_are_named() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let bare = [
        Registration::new(server.token_endpoint(), "app"),
        Registration::new(
            ServerMetadata::new(server.issuer())
                .with_token_endpoint(server.token_endpoint())
                .with_authorization_endpoint(server.authorization_endpoint()),
            "app",
        ),
    ];
    let before = server.request_count();
    let token = canary_token(&flow);
    for registration in bare {
        let client = flow.client(registration);
        for (what, result) in all(&client, &token).await {
            let error = result.unwrap_err();
            assert!(error.is_config(), "{what}: {error:?}");
            no_secret(&error);
        }
    }
    let client = flow.client(Registration::new(server.token_endpoint(), "app"));
    let error = client.authorize(request()).await.unwrap_err();
    assert!(error.is_config(), "{error:?}");
    assert_eq!(server.request_count(), before, "nothing was sent");
    // And a token request without a token endpoint.
    let none = Registration::new(ServerMetadata::new(server.issuer()), "app");
    let request = TokenRequest::new(none, Grant::client_credentials());
    let audience = Audience::origins([flow.api.origin()]).unwrap();
    let error = TokenLayer::new(&flow.dpop, http(), request, audience).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("`token_endpoint`"));
}

#[tokio::test]
async fn answers_that_are_none_are_errors_that_say_so() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let key = DpopKey::generate().unwrap();
    server.add_client_with_key("keyed", &key);
    let secret = Registration::new(flow.metadata().await, CLIENT_ID)
        .client_secret_post("canary-client-secret");
    let client = flow.client(secret);
    let token = canary_token(&flow);
    let echo = json!({
        "error": "canary-client-secret",
        "error_description": "it was canary-client-secret \u{1b}[31m",
    });
    let html = || {
        let page = "<html>canary-access-token canary-client-secret</html>";
        let response = Response::builder().header("content-type", "text/html");
        response.body(Bytes::from(page)).unwrap()
    };
    let long = format!(r#"{{"active":true,"x":"{}"}}"#, "x".repeat(64 * 1024));
    let redirect = Response::builder()
        .status(307)
        .header("location", "http://127.0.0.1:9/?canary-client-secret")
        .body(Bytes::new())
        .unwrap();
    let rows = [
        (html(), "text/html"),
        (answer(200, ""), "empty body"),
        (answer(200, "[1]"), "application/json"),
        (answer(200, long), "64 KiB"),
        (redirect, "redirect"),
        (answer(400, echo.to_string()), "***"),
        (answer(503, "canary-access-token"), "trouble"),
        (answer(404, "{}"), "endpoint"),
    ];
    for (response, word) in rows {
        let ok = response.status().is_success();
        server.answer(5, response);
        for (what, result) in all(&client, &token).await {
            // To be told that it is done is all that a revocation wants.
            if ok && what == "revocation" && word != "64 KiB" {
                result.unwrap();
                continue;
            }
            let error = result.unwrap_err();
            no_secret(&error);
            assert!(error.is_token_request(), "{what}: {error:?}");
            assert!(!error.is_permanent(), "{what}: {error:?}");
            assert_eq!(error.oauth_error().is_some(), word == "***");
            assert!(error.to_string().contains(word), "{what}: {error}");
        }
    }
    assert_eq!(
        server.request_count(),
        1 + 8 * 5,
        "nobody follows, nobody tries again"
    );
    // What is asked about does not show either.
    for secret in ["canary-access-token", "canary-refresh"] {
        let echo = json!({"error": secret, "error_description": secret});
        server.answer(1, answer(400, echo.to_string()));
        let result = match secret {
            "canary-refresh" => client.revoke_refresh_token(secret).await,
            _ => client.introspect(&token).await.map(drop),
        };
        let error = result.unwrap_err();
        no_secret(&error);
        assert_eq!(error.oauth_error().unwrap().code(), "***");
    }
}

#[tokio::test]
async fn answers_with_half_of_what_they_should_hold() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let client = flow.client(flow.app().await);
    for bad in [
        json!({}),
        json!({"request_uri": ""}),
        json!({"request_uri": 7, "expires_in": 60}),
        json!({"request_uri": null}),
        json!({"uri": "urn:canary"}),
    ] {
        server.answer(1, answer(201, bad.to_string()));
        let error = client.push(request()).await.unwrap_err();
        no_secret(&error);
        assert!(error.is_token_request() && error.to_string().contains("`request_uri`"));
    }
    // What would end the reference and begin a parameter of its own does not.
    let evil = "urn:a&redirect_uri=https://evil.example#\u{1b}";
    server.answer(1, answer(201, json!({"request_uri": evil}).to_string()));
    let pending = client.push(request()).await.unwrap();
    let query = pending.url().split_once('?').unwrap().1;
    let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
    assert_eq!(pairs.len(), 2);
    assert_eq!(&*pairs[1].1, evil);
    assert!(!pending.url().contains(['\u{1b}', '#']));

    for (body, word) in [
        (
            json!({"user_code": "A", "verification_uri": "https://x", "expires_in": 1}),
            "device_code",
        ),
        (
            json!({"device_code": "canary", "verification_uri": "https://x", "expires_in": 1}),
            "user_code",
        ),
        (
            json!({"device_code": "canary", "user_code": "A\u{1b}[2J", "verification_uri": "https://x", "expires_in": 1}),
            "user_code",
        ),
        (
            json!({"device_code": "canary", "user_code": "A", "expires_in": 1}),
            "verification_uri",
        ),
        (
            json!({"device_code": "canary", "user_code": "A", "verification_uri": "https://x"}),
            "expires_in",
        ),
    ] {
        server.answer(1, answer(200, body.to_string()));
        let device = client.device_authorization(&TokenParameters::new()).await;
        let error = device.unwrap_err();
        no_secret(&error);
        assert!(
            error.is_token_request() && error.to_string().contains(word),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_answer() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let client = flow.client(flow.app().await);
    let token = canary_token(&flow);
    server.lose_answers(5);
    let before = server.request_count();
    for (what, result) in all(&client, &token).await {
        let error = result.unwrap_err();
        no_secret(&error);
        assert!(
            error.is_token_request() && !error.is_grant_uncertain(),
            "{what}: {error:?}"
        );
    }
    assert_eq!(server.request_count(), before + 5);
    server.stop().await;
    for (what, result) in all(&client, &token).await {
        let error = result.unwrap_err();
        no_secret(&error);
        assert!(error.is_token_request(), "{what}: {error:?}");
    }
    server.restart().await.unwrap();
    client.push(request()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_never_answers_is_given_up_after_thirty_seconds() {
    let never = tower::service_fn(|_: Request<Full<Bytes>>| {
        std::future::pending::<Result<Response<Full<Bytes>>, tower_dpop::BoxError>>()
    });
    let dpop = DpopLayer::new(DpopKey::generate().unwrap());
    let url = |path| format!("https://as.example.com/{path}");
    let metadata = ServerMetadata::new("https://as.example.com")
        .with_authorization_endpoint(url("authorize"))
        .with_pushed_authorization_request_endpoint(url("par"))
        .with_device_authorization_endpoint(url("device"))
        .with_revocation_endpoint(url("revoke"))
        .with_introspection_endpoint(url("introspect"));
    let client = OAuthClient::new(&dpop, never, Registration::new(metadata, "app")).unwrap();
    let audience = Audience::origins(["https://api.example.com"]).unwrap();
    let token = AccessToken::new("canary-access-token", dpop.key(), audience).unwrap();
    let begin = tokio::time::Instant::now();
    for (what, result) in all(&client, &token).await {
        let error = result.unwrap_err();
        no_secret(&error);
        assert!(error.is_timeout(), "{what}: {error:?}");
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    assert_eq!(begin.elapsed(), Duration::from_secs(5 * 30));
}

/// T17: the request goes to the alias, and so does what its proof is for.
#[tokio::test]
async fn with_mutual_tls_the_aliases_are_used_and_proofs_follow() {
    let flow = Flow::start().await;
    let alias = AuthorizationServer::start().await.unwrap();
    alias.add_public_client("app");
    let aliases = json!({
        "token_endpoint": alias.token_endpoint(),
        "revocation_endpoint": alias.revocation_endpoint(),
        "pushed_authorization_request_endpoint": alias.pushed_authorization_request_endpoint(),
        "device_authorization_endpoint": alias.device_authorization_endpoint(),
    });
    let server = &flow.authorization_server;
    server.metadata_member("mtls_endpoint_aliases", Some(&aliases.to_string()));
    let metadata = flow.metadata().await;
    let before = server.request_count();
    let by_tls = Registration::new(metadata.clone(), "app").tls_client_auth();

    let request_of = |registration| TokenRequest::new(registration, Grant::client_credentials());
    let token = flow.tokens(request_of(by_tls.clone())).access_token().await;
    let client = flow.client(by_tls);
    client.push(request()).await.unwrap();
    client
        .device_authorization(&TokenParameters::new())
        .await
        .unwrap();
    client.revoke_access_token(&token.unwrap()).await.unwrap();
    assert_eq!(server.request_count(), before, "nothing went to the others");
    let asked = alias.requests();
    assert_eq!(asked.len(), 4);
    for seen in &asked {
        let htu = format!("{}{}", alias.origin(), seen.uri().path());
        assert_eq!(seen.claim("htu"), Some(htu));
        assert_eq!(parameter(seen, "client_id").as_deref(), Some("app"));
        assert_eq!(parameter(seen, "client_secret"), None);
        assert!(seen.headers().get("authorization").is_none());
        assert!(seen.refused().is_none(), "{seen:?}");
    }
    // What has no alias is where it always was.
    let error = client.introspect(&canary_token(&flow)).await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    assert_eq!(flow.to("/introspect").len(), 1);
    // And without mutual TLS they are nobody's business.
    let plain = Registration::new(metadata, "app");
    let tokens = flow.tokens(request_of(plain));
    tokens.access_token().await.unwrap();
    assert_eq!((alias.request_count(), flow.asked().len()), (4, 1));
}

/// T20: two servers with two keys in one stack over one client.
#[tokio::test]
async fn two_servers_and_two_keys_in_one_stack_keep_apart() {
    let (one, two) = (Flow::start().await, Flow::start().await);
    let http = http();
    for flow in [&one, &two] {
        flow.authorization_server.nonces(Nonces::required());
        flow.api.nonces(Nonces::required());
    }
    let tokens = async |flow: &Flow| {
        let app = flow.app().await;
        let request = TokenRequest::new(app.clone(), flow.code(&app).await);
        let audience = Audience::origins([flow.api.origin()]).unwrap();
        TokenLayer::new(&flow.dpop, http.clone(), request, audience).unwrap()
    };
    let (first, second) = (tokens(&one).await, tokens(&two).await);
    let stack = ServiceBuilder::new()
        .layer(first.clone())
        .layer(second.clone())
        .layer(one.dpop.clone())
        .service(http.clone());
    let get = async |url: String| {
        let request = Request::get(url).body(Full::default()).unwrap();
        stack.clone().oneshot(request).await.unwrap().status()
    };
    for _ in 0..3 {
        let (a, b) = tokio::join!(get(one.api.url("/a")), get(two.api.url("/b")));
        assert_eq!((a, b), (StatusCode::OK, StatusCode::OK));
        one.api.rotate_nonce();
        two.api.rotate_nonce();
        first.forget_tokens();
        second.forget_tokens();
    }
    let all = |flow: &Flow| [flow.authorization_server.requests(), flow.api.requests()].concat();
    let mut nonces = Vec::new();
    let mut given = Vec::new();
    for flow in [&one, &two] {
        let mut own = BTreeSet::new();
        for seen in all(flow) {
            let Some(proof) = seen.proof() else {
                continue;
            };
            let header = URL_SAFE_NO_PAD.decode(proof.split('.').next().unwrap());
            let header: Value = serde_json::from_slice(&header.unwrap()).unwrap();
            let public: Value = serde_json::from_str(flow.dpop.key().public_jwk()).unwrap();
            assert_eq!(header["jwk"], public, "each server sees its own key only");
            own.extend(seen.claim("nonce"));
        }
        nonces.push(own);
        let carried = flow.api.requests();
        let carried = carried
            .iter()
            .filter_map(|seen| seen.headers().get("authorization"))
            .map(|value| value.to_str().unwrap().to_owned());
        given.push(carried.collect::<BTreeSet<_>>());
    }
    assert!(nonces.iter().all(|own| own.len() >= 3), "{nonces:?}");
    assert!(nonces[0].is_disjoint(&nonces[1]), "nonces never cross");
    assert!(given.iter().all(|own| own.len() == 3), "{given:?}");
    assert!(given[0].is_disjoint(&given[1]), "tokens never cross");

    // A token of one with the key of the other is refused: by the API, and by us if it can be read.
    let token = first.access_token().await.unwrap();
    let audience = || Audience::origins([one.api.origin()]).unwrap();
    let stolen = AccessToken::new(token.secret(), two.dpop.key(), audience()).unwrap();
    assert_eq!(one.get_with(&stolen).await, StatusCode::UNAUTHORIZED);
    one.authorization_server.token_format(TokenFormat::Signed);
    first.forget_tokens();
    let token = first.access_token().await.unwrap();
    let error = AccessToken::new(token.secret(), two.dpop.key(), audience()).unwrap_err();
    assert!(error.is_other_key(), "{error:?}");
    // Nor does a token go to the other's API.
    let elsewhere = Request::get(two.api.url("/x")).extension(token.clone());
    let dpop_only = ServiceBuilder::new()
        .layer(two.dpop.clone())
        .service(http.clone());
    let before = two.api.request_count();
    let response = dpop_only
        .oneshot(elsewhere.body(Full::default()).unwrap())
        .await;
    let carried = &two.api.requests()[before..];
    assert!(
        carried
            .iter()
            .all(|seen| seen.headers().get("authorization").is_none()),
        "{response:?}"
    );
}

/// T13: whatever the method, it is made anew for each attempt.
#[tokio::test]
async fn every_method_at_the_token_endpoint_with_its_nonce_retry() {
    let flow = Flow::start().await;
    let server = &flow.authorization_server;
    let key = DpopKey::generate().unwrap();
    server.add_client_with_key("keyed", &key);
    server.strict_assertion_audience(true);
    let metadata = flow.metadata().await;
    let of = |id: &str| Registration::new(metadata.clone(), id);
    server.nonces(Nonces::one_time());
    for (registration, is_assertion) in [
        (of(CLIENT_ID).client_secret_basic(CLIENT_SECRET), false),
        (of(CLIENT_ID).client_secret_post(CLIENT_SECRET), false),
        (of(CLIENT_ID).client_secret_jwt(CLIENT_SECRET), true),
        (of("keyed").private_key_jwt(PrivateKeyJwt::new(key)), true),
    ] {
        server.rotate_nonce();
        let before = flow.asked().len();
        let shown = format!("{registration:?}");
        assert!(!shown.contains(CLIENT_SECRET), "{shown}");
        let dpop = DpopLayer::new(DpopKey::generate().unwrap());
        let audience = Audience::origins([flow.api.origin()]).unwrap();
        let request = TokenRequest::new(registration.clone(), Grant::client_credentials());
        let tokens = TokenLayer::new(&dpop, http(), request, audience).unwrap();
        let token = tokens.access_token().await.unwrap();
        assert_eq!(flow.get_with(&token).await, StatusCode::OK, "{shown}");
        let asked = &flow.asked()[before..];
        assert_eq!(asked.len(), 2, "a challenge, and an answer");
        let methods = |seen: &Recorded| {
            [
                seen.headers().contains_key("authorization"),
                parameter(seen, "client_secret").is_some(),
                parameter(seen, "client_assertion").is_some(),
            ]
        };
        for seen in asked {
            let count = methods(seen).iter().filter(|method| **method).count();
            assert_eq!(count, 1, "T3: one way only");
            assert_eq!(methods(seen)[2], is_assertion);
        }
        if is_assertion {
            assertions(asked);
            let assertion = parameter(&asked[0], "client_assertion").unwrap();
            assert_eq!(claims(&assertion)["aud"], json!(server.issuer()));
        }
    }
}

/// Asynchronous, and as good as its number says.
struct Own {
    tries: Arc<AtomicUsize>,
    fails: fn(usize) -> bool,
    panics: fn(usize) -> bool,
}

impl ClientAuthentication for Own {
    fn authenticate<'a>(&'a self, request: &'a AuthenticationContext<'a>) -> Authenticating<'a> {
        let number = self.tries.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!(self.panics)(number), "a bug in the program");
            if (self.fails)(number) {
                return Err("the key ring is locked".into());
            }
            assert!(request.endpoint().ends_with("/token"));
            let basic = format!(
                "{}:{}",
                encoded(request.client_id()),
                encoded(CLIENT_SECRET)
            );
            let basic = base64::engine::general_purpose::STANDARD.encode(basic);
            let value = HeaderValue::try_from(format!("Basic {basic}"))?;
            Ok(Credentials::new().authorization(value))
        })
    }
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn a_way_of_ones_own_may_take_its_time_fail_and_panic() {
    let never = |_| false;
    let first = |number| number == 0;
    // Which is after the challenge, for the same code.
    let second = |number| number == 1;
    type Hits = fn(usize) -> bool;
    let rows: [(Hits, Hits, usize); 5] = [
        (never, never, 0),
        (first, never, 0),
        (second, never, 1),
        (never, first, 0),
        (never, second, 1),
    ];
    for (row, (fails, panics, sent)) in rows.into_iter().enumerate() {
        let flow = Flow::start().await;
        flow.authorization_server.nonces(Nonces::required());
        let tries = Arc::new(AtomicUsize::new(0));
        let own = Own {
            tries: Arc::clone(&tries),
            fails,
            panics,
        };
        let registration = Registration::new(flow.metadata().await, CLIENT_ID);
        // The authorization needs no client authentication: it is not pushed.
        let grant = flow.code(&registration).await;
        let tokens = flow.tokens(TokenRequest::new(registration.authentication(own), grant));
        if row > 0 {
            let error = tokens.access_token().await.unwrap_err();
            no_secret(&error);
            assert!(error.is_token_request() && !error.is_grant_uncertain());
            assert_eq!(flow.asked().len(), sent, "row {row}: {error:?}");
            if row < 3 {
                let source = std::error::Error::source(&error).unwrap();
                assert_eq!(source.to_string(), "the key ring is locked");
            }
        }
        let token = timeout(LONG, at_last(&tokens)).await.unwrap();
        let token = token.unwrap_or_else(|error| panic!("row {row}: {error:?}"));
        assert_eq!(flow.get_with(&token).await, StatusCode::OK);
        // One for each attempt, sent or not.
        let attempts = flow.asked().len() + usize::from(row > 0);
        assert_eq!(tries.load(Ordering::Relaxed), attempts, "row {row}");
    }
}

#[tokio::test]
async fn wrong_credentials_are_told_and_shown_nowhere() {
    let flow = Flow::start().await;
    let metadata = flow.metadata().await;
    let of = || Registration::new(metadata.clone(), CLIENT_ID);
    let wrong = DpopKey::generate().unwrap();
    for registration in [
        of().client_secret_basic("canary+secret"),
        of().client_secret_post("canary+secret"),
        of().client_secret_jwt("canary-secret-of-32-bytes-and-more"),
        of().private_key_jwt(PrivateKeyJwt::new(wrong)),
        of(),
    ] {
        let request = TokenRequest::new(registration.clone(), Grant::client_credentials());
        let error = flow.tokens(request).access_token().await.unwrap_err();
        no_secret(&error);
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
        assert!(error.is_permanent());
        let error = flow.client(registration).push(request_plain()).await;
        let error = error.unwrap_err();
        no_secret(&error);
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
    }
}

fn request_plain() -> AuthorizationRequest {
    AuthorizationRequest::new(CALLBACK)
}
