//! No secret shows: not in `Debug`, not in `Display`, not in any error, not in a log at the finest level.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex, Once},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{API, ENDPOINT, Fake, answer, get, ok, token, with_token};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_dpop::{
    AccessToken, Audience, BoxError, DpopKey, DpopLayer, Error, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, Nonces, ResourceServer},
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

const SECRET: &str = "canary-client:s3cret/+%";
const TOKEN: &str = "canary.access-t0ken~x";
const PASSWORD: &str = "canary-passw0rd";
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
    let form = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let mut all = vec![
        lines[0].to_owned(),
        STANDARD.encode(scalar),
        URL_SAFE_NO_PAD.encode(scalar),
        hex,
        bytes.trim_matches(['[', ']']).to_owned(),
    ];
    for secret in [SECRET, TOKEN, PASSWORD, PLAIN, REST_OF_PARAMETER] {
        // Without its ends, so that it is found at any place in a longer base64 text.
        for start in 0..3 {
            let encoded = STANDARD.encode(&secret.as_bytes()[start..]);
            all.push(encoded[..encoded.len() - 4].to_owned());
        }
        all.extend([secret.to_owned(), form(secret)]);
    }
    all
}

#[track_caller]
fn sweep(text: &str, canaries: &[String]) {
    for canary in canaries {
        assert!(!text.contains(canary.as_str()), "{canary} in: {text}");
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
async fn debug_of_everything_shows_nothing() {
    let key = DpopKey::generate().unwrap();
    let canaries = canaries(&key);
    let audience = Audience::origins([API]).unwrap();
    let fake = Fake::new(|_, _| ok());
    let client = tower::service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, BoxError>(ok()) });
    let token = AccessToken::new(TOKEN, &key, audience.clone()).unwrap();
    let dpop = DpopLayer::new(key.clone());
    let tokens = TokenLayer::new(&dpop, fake, request(), audience.clone()).unwrap();
    let signed = with_token(get(API), &token);
    let mut service = dpop.layer(tower::util::BoxCloneService::new(client));
    let values: [&dyn Debug; 10] = [
        &key,
        &audience,
        &token,
        &dpop,
        &tokens,
        &request(),
        &request().client_secret_post(SECRET),
        &signed,
        &service,
        &tokens.layer(service.clone()),
    ];
    for value in values {
        sweep(&shown(value), &canaries);
    }
    let future = tower::Service::call(&mut service, signed);
    sweep(&shown(&future), &canaries);
    future.await.unwrap();
}

#[tokio::test]
async fn headers_that_were_stamped_do_not_show() {
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
async fn errors_show_nothing_whatever_the_server_says() {
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
async fn the_token_stands_in_no_url() {
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
async fn a_log_at_trace_level_shows_nothing() {
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
