//! No secret shows: not in `Debug`, not in `Display`, not in any error, not in a panic, not in a log at the finest
//! level: F72 of the fault catalogue.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
    path::Path,
    sync::{Arc, Mutex, Once},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header::WWW_AUTHENTICATE,
};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{API, ENDPOINT, Fake, answer, get, nonce_challenge, ok, token, with_token};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_dpop::{
    AccessToken, Audience, AuthorizationRequest, BoxError, Challenge, CloneBody, Discovery,
    DpopKey, DpopLayer, EmptyBody, Error, FileStore, ForceRenewal, Grant, IdempotentOnly, NoReplay,
    OAuthClient, PrivateKeyJwt, RecordedBody, Registration, ReplayBody, ResourceMetadata,
    StoredGrant, ToAuthorizationServer, TokenLayer, TokenParameters, TokenRequest,
    oauth::{AuthenticationContext, Credentials, Endpoints},
    proof::{Check, Proof},
    testing::{AuthorizationServer, Nonces, Profile, ResourceServer, TokenFormat},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const SECRET: &str = "canary-client:s3cret/+%";
const TOKEN: &str = "canary.access-t0ken~x";
const PASSWORD: &str = "canary-passw0rd";
const REFRESH: &str = "canary.refresh/+t0ken";
const NONCE: &str = "canary-n0nce.of~server";
/// A client's secret that any header or media type can hold.
const PLAIN: &str = "canary1plain2secret";
/// The value of a parameter that nobody knows; the client's secret is a part of it.
const PARAMETER: &str = "canary1plain2secretANDmore4value";
const REST_OF_PARAMETER: &str = "ANDmore4value";

/// The secrets as they are, and in every form that they are sent or stored in.
fn canaries(key: &DpopKey) -> Vec<String> {
    let pem = key.to_pkcs8_pem().unwrap();
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(lines.concat()).unwrap();
    // The private scalar of a P-256 key in PKCS#8: an OCTET STRING of 32 bytes after the version.
    let at = der
        .windows(5)
        .position(|w| w == [2, 1, 1, 4, 32])
        .expect("the scalar")
        + 5;
    let scalar = &der[at..at + 32];
    let hex = scalar.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    let bytes = format!("{scalar:?}");
    let mut all = vec![
        lines[0].to_owned(),
        STANDARD.encode(scalar),
        URL_SAFE_NO_PAD.encode(scalar),
        hex,
        bytes.trim_matches(['[', ']']).to_owned(),
    ];
    for secret in [
        SECRET,
        TOKEN,
        REFRESH,
        NONCE,
        PASSWORD,
        PLAIN,
        REST_OF_PARAMETER,
    ] {
        all.extend(forms(secret));
    }
    all
}

/// In whatever form it may be written.
fn forms(secret: &str) -> Vec<String> {
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![secret.to_owned(), form.clone(), form.to_lowercase()];
    // Without its ends, so that it is found at any place in a longer base64 text.
    for start in 0..3 {
        let bytes = &secret.as_bytes()[start..];
        for encoded in [STANDARD.encode(bytes), URL_SAFE_NO_PAD.encode(bytes)] {
            forms.push(encoded[..bytes.len() / 3 * 4].to_owned());
        }
    }
    forms
}

#[track_caller]
fn sweep(text: &str, canaries: &[String]) {
    for canary in canaries {
        if let Some(at) = text.find(canary.as_str()) {
            // A log is long.
            let before: String = text[..at].chars().rev().take(200).collect();
            let before: String = before.chars().rev().collect();
            panic!("{canary} after: {before}");
        }
    }
}

fn shown(value: &dyn Debug) -> String {
    format!("{value:?} {value:#?}")
}

/// `Display` and `Debug` of an error and of all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {}", shown(&error));
    let mut next = error.source();
    while let Some(source) = next {
        write!(text, " {source} {source:?}").unwrap();
        next = source.source();
    }
    text
}

fn request() -> TokenRequest {
    TokenRequest::client_credentials(ENDPOINT, "id")
        .client_secret_basic(SECRET)
        .parameter("assertion", PARAMETER)
        .scope("api")
}

#[tokio::test]
async fn f72_debug_of_every_public_type_shows_nothing() {
    let key = DpopKey::generate().unwrap();
    let canaries = canaries(&key);
    let audience = Audience::origins([API]).unwrap();
    let fake = Fake::new(|_, _| ok());
    let client = tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(ok()) });
    let token = AccessToken::new(TOKEN, &key, audience.clone()).unwrap();
    let dpop = DpopLayer::new(key.clone());
    let tokens = TokenLayer::new(&dpop, fake, request(), audience.clone()).unwrap();
    let mut service = dpop.layer(tower::util::BoxCloneService::new(client));
    let uri = Uri::from_static(API);
    let own = Proof::new(&Method::GET, &uri).unwrap();
    let own = own.access_token(TOKEN).nonce(NONCE);
    let signed_by_hand = own.sign_at(&key, 1, "jti").unwrap();
    let nonces = [NONCE.to_owned()];
    let check = Check::new(&Method::GET, API, 1)
        .access_token(TOKEN, key.thumbprint())
        .nonces(&nonces);
    let valid = check.verify_proof(&signed_by_hand).unwrap();
    let invalid = Check::new(&Method::PUT, API, 1).verify_proof(&signed_by_hand);
    let invalid = invalid.unwrap_err();
    let header = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_static("DPoP a=b"))]);
    let refused = failure(&key, PLAIN, || {
        answer(
            400,
            &[],
            &format!(r#"{{"error":"e","error_description":"{PLAIN}"}}"#),
        )
    });
    let refused = Error::find(&*refused.await).unwrap().clone();
    let authorization_server = AuthorizationServer::start().await.unwrap();
    authorization_server.add_client("id", SECRET);
    let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
    let to_server = get(&resource_server.url("/"));
    let own_server = Audience::origins([resource_server.origin()]).unwrap();
    let for_server = AccessToken::new(TOKEN, &key, own_server).unwrap();
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    dpop.layer(http)
        .oneshot(with_token(to_server, &for_server))
        .await
        .unwrap();
    let recorded = resource_server.requests().remove(0);
    assert!(
        recorded.headers()["authorization"]
            .to_str()
            .unwrap()
            .contains(TOKEN)
    );

    let token_future = tokens
        .layer(service.clone())
        .call(get("https://other.example/"));
    let dpop_future = service.call(with_token(get(API), &token));
    let answered = service
        .clone()
        .oneshot(get("https://other.example/"))
        .await
        .unwrap();
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let mut show =
        |name, value: &dyn Debug| values.entry(name).or_default().push_str(&shown(value));
    show("AccessToken", &token);
    show("Algorithm", &key.algorithm());
    show("Audience", &audience);
    show("AuthorizationServer", &authorization_server);
    show("Challenge", &Challenge::all(&header));
    show("Check", &check);
    show("CloneBody", &CloneBody);
    show("Dpop", &service);
    show("DpopKey", &key);
    show("DpopLayer", &dpop);
    show("EmptyBody", &EmptyBody);
    show("Error", &refused);
    show("ForceRenewal", &ForceRenewal::now());
    show("IdempotentOnly", &IdempotentOnly(CloneBody));
    show("InvalidProof", &invalid);
    show("NoReplay", &NoReplay);
    show("Nonces", &Nonces::one_time());
    show("OAuthError", refused.oauth_error().unwrap());
    show("Origin", &API.parse::<tower_dpop::Origin>().unwrap());
    show("Proof", &own);
    show("Recorded", &recorded);
    show("RecordedBody", &RecordedBody);
    show("ReplayBody", &ReplayBody::new(Full::<Bytes>::from(SECRET)));
    show("ResourceServer", &resource_server);
    show("ResponseBody", answered.body());
    show("ResponseFuture", &token_future);
    show("ResponseFuture", &dpop_future);
    show("RetryPolicy", &tower_dpop::RetryPolicy::new());
    show(
        "ToAuthorizationServer",
        &ToAuthorizationServer::new(audience.clone()),
    );
    show("Token", &tokens.layer(service.clone()));
    show("TokenFormat", &TokenFormat::Opaque);
    show("TokenLayer", &tokens);
    show("TokenParameters", &TokenParameters::new().scope("api"));
    show("TokenRequest", &request());
    show("TokenRequest", &request().client_secret_post(SECRET));
    show(
        "TokenRequest",
        &TokenRequest::refresh_token(ENDPOINT, "id", REFRESH),
    );
    show("ValidProof", &valid);
    show(
        "a request that was given a token",
        &with_token(get(API), &token),
    );
    values
        .entry("Error")
        .or_default()
        .push_str(&chain(&refused));
    values
        .entry("InvalidProof")
        .or_default()
        .push_str(&invalid.to_string());
    for (name, text) in of_oauth(&key, &authorization_server, &resource_server).await {
        values.entry(name).or_default().push_str(&text);
    }
    for text in values.values() {
        sweep(text, &canaries);
    }
    let missing: Vec<_> = public_types()
        .into_iter()
        // A door, of which there is no value.
        .filter(|name| name != "AwsLcRs" && !values.contains_key(&**name))
        .collect();
    assert!(missing.is_empty(), "not looked at: {missing:?}");
    dpop_future.await.unwrap();
}

/// The types by which a client shows who it is, and what it asks for beside tokens.
async fn of_oauth(
    key: &DpopKey,
    server: &AuthorizationServer,
    resource_server: &ResourceServer,
) -> Vec<(&'static str, String)> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let discovery = Discovery::new(http.clone(), server.issuer()).unwrap();
    let metadata = discovery.metadata().await.unwrap();
    let registration = Registration::new(discovery.clone(), "id").client_secret_basic(SECRET);
    let dpop = DpopLayer::new(key.clone());
    let client = OAuthClient::new(&dpop, http.clone(), registration.clone()).unwrap();
    let request = AuthorizationRequest::new("http://127.0.0.1:1/callback?k=v")
        .state(PLAIN)
        .parameter("login_hint", SECRET);
    let pending = client.push(request.clone()).await.unwrap();
    let scope = TokenParameters::new().scope("api");
    let device = client.device_authorization(&scope).await.unwrap();
    let tokens = TokenLayer::new(
        &dpop,
        http.clone(),
        TokenRequest::new(registration.clone(), Grant::client_credentials()),
        Audience::origins([resource_server.origin()]).unwrap(),
    );
    let token = tokens.unwrap().access_token().await.unwrap();
    let introspection = client.introspect(&token).await.unwrap();
    assert!(introspection.is_active());
    let resource = ResourceMetadata::discover(http, resource_server.origin());
    let stored = StoredGrant::new(key, REFRESH, server.issuer(), "id", None);
    let context = AuthenticationContext::new("id", ENDPOINT).with_thumbprint(key.thumbprint());
    let credentials = Credentials::jwt(SECRET)
        .parameter("password", PASSWORD)
        .authorization(HeaderValue::from_static(TOKEN));
    let assertion = PrivateKeyJwt::new(key.clone()).claim("x", SECRET);
    let at = |url: String| Endpoints::from(url);
    let grants = [
        Grant::refresh_token(REFRESH),
        Grant::stored(&stored),
        Grant::token_exchange(TOKEN, "urn:x"),
        Grant::jwt_bearer(TOKEN),
        Grant::other("urn:x").parameter("password", PASSWORD),
        Grant::device_code(&device),
    ];
    vec![
        ("AuthenticationContext", shown(&context)),
        ("AuthorizationRequest", shown(&request)),
        ("Credentials", shown(&credentials)),
        ("DeviceAuthorization", shown(&device)),
        ("Discovery", shown(&discovery)),
        (
            "Endpoints",
            shown(&at(format!("https://id:{SECRET}@as.example/t"))),
        ),
        (
            "Endpoints",
            shown(&at(format!("https://as.example/t?k={SECRET}"))),
        ),
        ("FileStore", shown(&FileStore::new("grant.json"))),
        ("Grant", shown(&grants)),
        ("Introspection", shown(&introspection)),
        ("OAuthClient", shown(&client)),
        ("PendingAuthorization", shown(&pending)),
        ("PrivateKeyJwt", shown(&assertion)),
        ("Profile", shown(&Profile::Okta)),
        (
            "Registration",
            shown(&registration.client_secret_jwt(PLAIN)),
        ),
        ("ResourceMetadata", shown(&resource.await.unwrap())),
        ("ServerMetadata", shown(&metadata)),
        ("StoredGrant", shown(&stored)),
    ]
}

/// The names of all public types, by the source.
fn public_types() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let line = line.trim_start();
                let declared = line
                    .strip_prefix("pub struct ")
                    .or(line.strip_prefix("pub enum "));
                let end = |c: char| !c.is_ascii_alphanumeric();
                names.extend(declared.and_then(|rest| Some(rest.split(end).next()?.to_owned())));
            }
        }
    }
    assert!(names.len() > 30);
    names
}

#[tokio::test]
async fn f72_headers_that_were_stamped_do_not_show() {
    let key = DpopKey::generate().unwrap();
    let token = AccessToken::new(TOKEN, &key, Audience::origins([API]).unwrap()).unwrap();
    let seen = Arc::new(Mutex::new(String::new()));
    let log = seen.clone();
    let client = tower::service_fn(move |request: Request<Full<Bytes>>| {
        let text = shown(&request);
        sweep(
            &text,
            &[request.headers()["dpop"].to_str().unwrap().to_owned()],
        );
        log.lock().unwrap().push_str(&text);
        async { Ok::<_, BoxError>(ok()) }
    });
    DpopLayer::new(key.clone())
        .layer(client)
        .oneshot(with_token(get(API), &token))
        .await
        .unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.contains("authorization") && seen.contains("Sensitive"));
    sweep(&seen, &canaries(&key));
}

/// What the authorization server's `answer` makes of a request with the client's `secret`.
async fn failure(
    key: &DpopKey,
    secret: &str,
    answer: impl Fn() -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> BoxError {
    let fake = Fake::new(move |_, _| answer());
    let dpop = DpopLayer::new(key.clone());
    let audience = Audience::origins([API]).unwrap();
    let request = request().client_secret_basic(secret);
    let tokens = TokenLayer::new(&dpop, fake.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake);
    let error = stack.oneshot(get(API)).await.unwrap_err();
    assert!(
        Error::find(&*error).is_some_and(Error::is_token_request),
        "{error}"
    );
    assert!(error.source().is_none());
    error
}

#[tokio::test]
async fn f72_errors_show_nothing_whatever_the_server_says() {
    let key = DpopKey::generate().unwrap();
    let form = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    for secret in [SECRET, PLAIN] {
        let pair = STANDARD.encode(format!("id:{}", form(secret)));
        let mut canaries = canaries(&key);
        canaries.push(pair.clone());
        // Each form that the request was sent in, each in a place of its own.
        for echo in [secret, &form(secret), &pair, PARAMETER] {
            let json = |members: serde_json::Value| members.to_string();
            for (status, body) in [
                (
                    400,
                    json(serde_json::json!({"error": "invalid_client", "error_description": echo})),
                ),
                (401, json(serde_json::json!({"error": echo}))),
                (
                    200,
                    json(serde_json::json!({"access_token": TOKEN, "token_type": "Bearer"})),
                ),
                (
                    200,
                    json(serde_json::json!({"access_token": TOKEN, "token_type": echo})),
                ),
                (
                    200,
                    json(
                        serde_json::json!({"access_token": format!("{TOKEN} {echo}"), "token_type": "DPoP"}),
                    ),
                ),
                (200, format!("{TOKEN} {echo}")),
                (307, String::new()),
                (500, echo.to_owned()),
            ] {
                for (name, value) in [
                    ("content-type", format!("text/{echo}")),
                    ("content-type", format!("https://x.example/{echo}?{TOKEN}")),
                    ("location", format!("https://x.example/{echo}?{TOKEN}")),
                    ("location", format!("https://{PASSWORD}:{TOKEN}@x.example/")),
                ] {
                    let body = body.clone();
                    let answer = move || answer(status, &[(name, &value)], &body);
                    sweep(&chain(&*failure(&key, secret, answer).await), &canaries);
                }
            }
        }
    }
    let canaries = canaries(&key);
    let refused = AccessToken::new(
        &format!("{TOKEN} {SECRET}"),
        &key,
        Audience::danger_any_https_origin(),
    );
    sweep(&chain(&refused.unwrap_err()), &canaries);
    let pem = key.to_pkcs8_pem().unwrap();
    let cut = &pem[..pem.len() - 60];
    sweep(
        &chain(&DpopKey::from_bytes(cut, Some(PASSWORD)).unwrap_err()),
        &canaries,
    );
}

#[tokio::test]
async fn f72_nor_do_errors_about_a_refresh_token() {
    let key = DpopKey::generate().unwrap();
    let canaries = canaries(&key);
    let encoded: String = form_urlencoded::byte_serialize(REFRESH.as_bytes()).collect();
    for echo in [REFRESH, &encoded] {
        let refusal = |error: &str| {
            serde_json::json!({"error": error, "error_description": echo, "error_uri": echo})
                .to_string()
        };
        for (status, body) in [
            (400, refusal("invalid_grant")),
            (400, refusal(echo)),
            (200, format!("{echo} {TOKEN}")),
            (
                200,
                serde_json::json!({"access_token": TOKEN, "token_type": echo}).to_string(),
            ),
            (
                200,
                format!(r#"{{"refresh_token":"{REFRESH}","access_token":"{TOKEN}""#),
            ),
            (502, echo.to_owned()),
        ] {
            let fake = Fake::new(move |_, _| answer(status, &[("dpop-nonce", NONCE)], &body));
            let request = TokenRequest::refresh_token(ENDPOINT, "id", REFRESH);
            let audience = Audience::origins([API]).unwrap();
            let dpop = DpopLayer::new(key.clone());
            let tokens = TokenLayer::new(&dpop, fake, request, audience).unwrap();
            // The second one may say that the grant is lost.
            for _ in 0..2 {
                let error = tokens.access_token().await.unwrap_err();
                assert!(error.is_token_request(), "{error}");
                sweep(&chain(&error), &canaries);
            }
        }
    }
}

#[tokio::test]
async fn f72_what_a_server_says_is_cut_and_in_one_line() {
    let key = DpopKey::generate().unwrap();
    let long = format!(
        "first\r\nsecond\u{1b}[31m\u{202e}\u{0}{}",
        "x".repeat(10_000)
    );
    for (error, description) in [("invalid_client", &*long), (&*long, "short")] {
        let body = serde_json::json!({"error": error, "error_description": description});
        let body = body.to_string();
        let error = failure(&key, SECRET, move || answer(400, &[], &body)).await;
        let error = Error::find(&*error).unwrap();
        let refusal = error.oauth_error().unwrap();
        for text in [refusal.code(), refusal.description().unwrap()] {
            assert!(text.len() <= 256, "{} bytes", text.len());
        }
        let shown = error.to_string();
        assert!(shown.len() < 800, "{} bytes", shown.len());
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        assert!(shown.chars().all(plain), "{shown:?}");
        assert!(shown.contains("first??second"), "{shown}");
    }
}

thread_local! {
    /// What this thread's panics said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn panics(code: impl FnOnce()) -> String {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SAID.with_borrow_mut(|said| write!(said, "{info}").unwrap());
            others(info);
        }));
    });
    SAID.take();
    let code = std::panic::AssertUnwindSafe(code);
    assert!(std::panic::catch_unwind(code).is_err(), "it panics");
    SAID.take()
}

#[test]
fn f72_a_panic_shows_nothing() {
    let key = DpopKey::generate().unwrap();
    let canaries = canaries(&key);
    let audience = Audience::origins([API]).unwrap();
    let token = AccessToken::new(TOKEN, &key, audience.clone()).unwrap();
    let fake = Fake::new(|_, _| nonce_challenge(NONCE));
    let dpop = DpopLayer::new(key);
    let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop.clone())
        .service(fake.clone());
    // Ours panic only for those who poll again what is done.
    for uri in [API, "/path"] {
        let mut signed =
            tokio_test::task::spawn(dpop.layer(fake.clone()).call(with_token(get(uri), &token)));
        assert!(signed.poll().is_ready());
        sweep(&panics(|| drop(signed.poll())), &canaries);
        let mut whole = tokio_test::task::spawn(stack.clone().call(with_token(get(uri), &token)));
        assert!(whole.poll().is_ready());
        sweep(&panics(|| drop(whole.poll())), &canaries);
    }
    // Without a runtime there is no token; the future is done after that, too.
    let mut failed = tokio_test::task::spawn(stack.clone().call(get(API)));
    assert!(failed.poll().is_ready());
    let said = panics(|| drop(failed.poll()));
    assert!(said.contains("panicked"), "{said}");
    sweep(&said, &canaries);
}

#[tokio::test]
async fn f72_what_a_client_says_in_its_panic_is_not_repeated() {
    let key = DpopKey::generate().unwrap();
    let canaries = canaries(&key);
    let client = tower::service_fn(|request: Request<Full<Bytes>>| async move {
        if request.uri().host() == Some("as.example.com") {
            panic!("{SECRET} {TOKEN} {:?}", request.body());
        }
        Ok::<_, BoxError>(ok())
    });
    let dpop = DpopLayer::new(key);
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, client, request(), audience).unwrap();
    let error = tokens.access_token().await.unwrap_err();
    assert!(error.is_runtime(), "{error}");
    sweep(&chain(&error), &canaries);
}

#[tokio::test]
async fn f72_the_token_stands_in_no_url() {
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some("as.example.com") => token(TOKEN, 300),
        _ => ok(),
    });
    let dpop = DpopLayer::new(DpopKey::generate().unwrap());
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience).unwrap();
    ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone())
        .oneshot(get(API))
        .await
        .unwrap();
    for seen in fake.seen() {
        let uri = seen.uri.to_string();
        assert!(!uri.contains(TOKEN) && !uri.contains("secret"), "{uri}");
    }
}

/// Writes down every event and span of every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for &Log {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0.lock().unwrap(), " {field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        span.record(&mut &*self);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut &*self);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push('\n');
        event.record(&mut &*self);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn f72_a_log_at_trace_level_shows_nothing() {
    static ONCE: Once = Once::new();
    let log = Log::default();
    ONCE.call_once(|| tracing::subscriber::set_global_default(log.clone()).unwrap());

    let authorization_server = AuthorizationServer::start().await.unwrap();
    authorization_server.add_client("id", SECRET);
    authorization_server.nonces(Nonces::one_time());
    let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
    resource_server.nonces(Nonces::one_time());
    let key = DpopKey::generate().unwrap();
    let mut canaries = canaries(&key);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for secret_basic in [true, false] {
            let http = Client::builder(TokioExecutor::new())
                .http2_only(version == Version::HTTP_2)
                .build_http::<Full<Bytes>>();
            let request =
                TokenRequest::client_credentials(authorization_server.token_endpoint(), "id");
            let request = match secret_basic {
                true => request.client_secret_basic(SECRET),
                false => request.client_secret_post(SECRET),
            };
            let dpop = DpopLayer::new(key.clone());
            let audience = Audience::origins([resource_server.origin()]).unwrap();
            let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
            let stack = ServiceBuilder::new()
                .layer(tokens)
                .layer(dpop)
                .service(http);
            let request = Request::post(resource_server.url("/"))
                .body(Full::from("body"))
                .unwrap();
            let answer: Response<_> = stack.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
    }
    for seen in resource_server.requests() {
        let header = |name: &str| seen.headers()[name].to_str().unwrap().to_owned();
        canaries.push(
            header("authorization")
                .strip_prefix("DPoP ")
                .unwrap()
                .to_owned(),
        );
        canaries.push(header("dpop"));
        canaries.extend(seen.claim("nonce"));
    }
    assert!(canaries.len() > 20);
    let text = log.0.lock().unwrap().clone();
    assert!(
        text.contains("frame") || text.contains("HEADERS"),
        "the log works: {} bytes",
        text.len()
    );
    sweep(&text, &canaries);
}

#[test]
fn no_debug_shows_what_a_url_hides() {
    let server = tower_dpop::ServerMetadata::new("https://user:canary@as.example.com");
    let shown = format!("{:?}", Registration::new(server, "app"));
    assert!(!shown.contains("canary"), "{shown}");
}
