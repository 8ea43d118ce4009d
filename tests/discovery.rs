//! An authorization server's metadata: where they are looked for, what is accepted, and how long they are kept
//! (T15; RFC 8414).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::Full;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tower::Service;
use tower_dpop::{BoxError, Discovery, Error, ServerMetadata};
use tracing::Level;

use self::support::{Answer, Fake, NEVER, Seen, answer, told::Told};

const ISSUER: &str = "https://as.example.com";

/// What `fetches` counts by.
const HOST: &str = "as.example.com";

const KIB_256: usize = 256 * 1024;

fn document(issuer: &str, version: usize) -> String {
    json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token/{version}")}).to_string()
}

fn found(body: &str) -> Answer {
    answer(200, &[("content-type", "application/json")], body)
}

/// A server that has its metadata, the next version of them at each fetch.
fn server() -> Fake {
    Fake::new(|_, n| found(&document(ISSUER, n)))
}

fn discovery(client: &Fake) -> Discovery {
    Discovery::new(client.clone(), ISSUER).unwrap()
}

/// Which version somebody has.
fn version(metadata: &ServerMetadata) -> usize {
    let endpoint = metadata.token_endpoint().expect("a token endpoint");
    endpoint.rsplit('/').next().unwrap().parse().unwrap()
}

async fn version_of(discovery: &Discovery) -> usize {
    version(&discovery.metadata().await.unwrap())
}

async fn error_of(discovery: &Discovery) -> Error {
    let error = discovery.metadata().await.unwrap_err();
    assert_fit(&error);
    error
}

/// One line of bounded length, and nothing secret in it.
fn assert_fit(error: &Error) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(
        !error.to_string().contains(char::is_control) && error.to_string().len() < 1000,
        "{error}"
    );
}

/// Everything that is ready happens, and no time passes.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

const PLACES: [(&str, &[&str]); 6] = [
    (
        "https://as.example.com",
        &[
            "https://as.example.com/.well-known/oauth-authorization-server",
            "https://as.example.com/.well-known/openid-configuration",
        ],
    ),
    (
        "https://as.example.com/",
        &[
            "https://as.example.com/.well-known/oauth-authorization-server",
            "https://as.example.com/.well-known/openid-configuration",
        ],
    ),
    (
        "https://as.example.com/tenant",
        &[
            "https://as.example.com/.well-known/oauth-authorization-server/tenant",
            "https://as.example.com/tenant/.well-known/openid-configuration",
            "https://as.example.com/.well-known/openid-configuration/tenant",
            "https://as.example.com/tenant/.well-known/oauth-authorization-server",
        ],
    ),
    (
        "https://as.example.com/realms/A%20b/",
        &[
            "https://as.example.com/.well-known/oauth-authorization-server/realms/A%20b",
            "https://as.example.com/realms/A%20b/.well-known/openid-configuration",
            "https://as.example.com/.well-known/openid-configuration/realms/A%20b",
            "https://as.example.com/realms/A%20b/.well-known/oauth-authorization-server",
        ],
    ),
    (
        "https://AS.example.com:443/x",
        &[
            "https://as.example.com/.well-known/oauth-authorization-server/x",
            "https://as.example.com/x/.well-known/openid-configuration",
            "https://as.example.com/.well-known/openid-configuration/x",
            "https://as.example.com/x/.well-known/oauth-authorization-server",
        ],
    ),
    (
        "http://127.0.0.1:8080",
        &[
            "http://127.0.0.1:8080/.well-known/oauth-authorization-server",
            "http://127.0.0.1:8080/.well-known/openid-configuration",
        ],
    ),
];

#[tokio::test(start_paused = true)]
async fn t15_the_well_known_places_in_their_order() {
    for (issuer, places) in PLACES {
        let client = Fake::new(|_, _| answer(404, &[], "{}"));
        let error = error_of(&Discovery::new(client.clone(), issuer).unwrap()).await;
        assert!(error.is_metadata() && error.is_token_request(), "{error}");
        assert!(error.to_string().contains("404"), "{error}");

        let seen = client.seen();
        let asked: Vec<_> = seen.iter().map(|seen| seen.uri.to_string()).collect();
        assert_eq!(asked, places, "{issuer}");
        for seen in seen {
            assert_eq!(seen.method, Method::GET);
            let names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
            assert_eq!(names, ["accept"], "no proof, no token");
            assert_eq!(seen.header("accept"), Some("application/json"));
            assert!(seen.body.is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_place_that_has_them_is_the_last_that_is_asked() {
    for (issuer, places) in PLACES {
        for place in 0..places.len() {
            let client = Fake::new(move |_, n| match n == place {
                true => found(&document(issuer, n)),
                false => answer(404, &[], "not here"),
            });
            let metadata = Discovery::new(client.clone(), issuer).unwrap();
            let metadata = metadata.metadata().await.unwrap();
            assert_eq!(metadata.issuer(), Some(issuer));
            assert_eq!(
                (version(&metadata), client.seen().len()),
                (place, place + 1)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_none_is_passed_over() {
    let html = [("content-type", "Text/HTML; charset=utf-8")];
    let mut absent = vec![answer(200, &html, &document(ISSUER, 7))];
    for status in [400, 401, 403, 404, 405, 406, 410, 451] {
        // Not even if what stands in it looks like metadata.
        absent.push(answer(status, &[], &document(ISSUER, 7)));
    }
    for first in absent {
        let status = first.status();
        let client = Fake::new(move |_, n| match n {
            0 => first.clone(),
            n => found(&document(ISSUER, n)),
        });
        assert_eq!(version_of(&discovery(&client)).await, 1, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_and_nonsense_are_no_reason_to_look_elsewhere() {
    for status in [201, 204, 206, 408, 429, 500, 502, 503, 599] {
        let client = Fake::new(move |_, n| match n {
            0 => answer(status, &[], &document(ISSUER, 0)),
            n => found(&document(ISSUER, n)),
        });
        let error = error_of(&discovery(&client)).await;
        assert!(error.is_token_request() && !error.is_metadata(), "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        assert_eq!(client.seen().len(), 1, "{status}");
    }
    let broken = Fake::failing(|_, n| match n {
        0 => Err("connection refused".into()),
        n => Ok(found(&document(ISSUER, n))),
    });
    let error = error_of(&discovery(&broken)).await;
    assert!(error.is_token_request() && !error.is_metadata(), "{error}");
    let source = std::error::Error::source(&error).expect("the client's error");
    assert_eq!(source.to_string(), "connection refused");
    assert_eq!(broken.seen().len(), 1);

    let nonsense = Fake::new(|_, n| match n {
        0 => found("[]"),
        n => found(&document(ISSUER, n)),
    });
    assert!(error_of(&discovery(&nonsense)).await.is_metadata());
    assert_eq!(nonsense.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn redirects_are_not_followed() {
    for status in [300, 301, 302, 303, 304, 307, 308] {
        for (location, shown) in [
            (
                "https://other.example/as?token=s3cret#s3cret",
                Some("`https://other.example/as`"),
            ),
            ("/elsewhere", Some("`/elsewhere`")),
            ("https://user:s3cret@other.example/as", None),
            ("https://other.example/%0d\t%0a", Some("other.example")),
        ] {
            let headers = [("location", location)];
            let redirect = answer(status, &headers, &document(ISSUER, 0));
            let client = Fake::new(move |_, _| redirect.clone());
            let error = error_of(&discovery(&client)).await;
            assert!(error.is_metadata(), "{error}");
            let text = error.to_string();
            assert!(
                text.contains("redirect") && text.contains(&status.to_string()),
                "{text}"
            );
            assert_eq!(text.contains(" to `"), shown.is_some(), "{text}");
            assert!(text.contains(shown.unwrap_or_default()), "{text}");
            assert_eq!(client.seen().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn t15_an_issuer_is_the_same_to_the_letter_or_another() {
    let wanted = "https://as.example.com/tenant";
    for other in [
        json!("https://as.example.com/tenant/"),
        json!("https://as.example.com/Tenant"),
        json!("https://AS.example.com/tenant"),
        json!("HTTPS://as.example.com/tenant"),
        json!("https://as.example.com:443/tenant"),
        json!("https://as.example.com/%74enant"),
        json!("https://as.example.com/tenant "),
        json!(" https://as.example.com/tenant"),
        json!("https://as.example.com/ten\u{0430}nt"),
        json!("https://as.example.com"),
        json!("https://evil.example/tenant"),
        json!(""),
        json!(null),
        json!(["https://as.example.com/tenant"]),
        json!(1),
    ] {
        let mut document: Value = serde_json::from_str(&document(wanted, 0)).unwrap();
        document["issuer"] = other.clone();
        let body = document.to_string();
        let client = Fake::new(move |_, _| found(&body));
        let error = error_of(&Discovery::new(client.clone(), wanted).unwrap()).await;
        assert!(error.is_metadata(), "{other}: {error}");
        assert!(error.to_string().contains("issuer"), "{other}: {error}");
        assert_eq!(client.seen().len(), 1, "nothing else is asked");
    }
    // What is escaped in JSON is the same text.
    let escaped = document(wanted, 0).replace("tenant\"", "ten\\u0061nt\"");
    assert!(ServerMetadata::from_json(wanted, escaped.as_bytes()).is_ok());
    let missing = ServerMetadata::from_json(wanted, b"{}").unwrap_err();
    assert!(
        missing.is_metadata() && missing.to_string().contains("no `issuer`"),
        "{missing}"
    );
}

#[test]
fn an_issuer_is_an_https_url_without_query_and_fragment() {
    for (issuer, word) in [
        ("", "no URL"),
        ("as.example.com", "scheme"),
        ("/tenant", "scheme"),
        ("ftp://as.example.com", "scheme"),
        ("https://as.example.com?", "query"),
        ("https://as.example.com/?s3cret", "query"),
        ("https://as.example.com#", "fragment"),
        ("https://user:s3cret@as.example.com", "user information"),
        ("https://as.example.com:99999", "port"),
        ("https://as.example.com/a b", "no URL"),
        ("https://as.exämple.com", "characters"),
        ("https://as.example.com/\n", "no URL"),
    ] {
        let by_name = Discovery::new(server(), issuer).unwrap_err();
        let by_hand =
            ServerMetadata::from_json(issuer, document(issuer, 0).as_bytes()).unwrap_err();
        for error in [by_name, by_hand] {
            assert!(error.is_config(), "{issuer}: {error}");
            assert!(error.to_string().contains(word), "{issuer}: {error}");
            assert!(!error.to_string().contains(char::is_control), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
    let long = format!("https://as.example.com/{}", "a".repeat(2026));
    assert!(Discovery::new(server(), &long[..2048]).is_ok());
    assert!(Discovery::new(server(), long).unwrap_err().is_config());

    let plain = "http://as.example.com";
    assert!(
        Discovery::new(server(), plain)
            .unwrap_err()
            .is_insecure_http()
    );
    assert!(Discovery::danger_allow_plain_http(server(), plain).is_ok());
    let json = document(plain, 0);
    let error = ServerMetadata::from_json(plain, json.as_bytes()).unwrap_err();
    assert!(error.is_insecure_http(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn plain_http_to_another_machine_is_for_those_who_say_so() {
    let plain = "http://as.example.com";
    let client = Fake::new(move |_, n| found(&document(plain, n)));
    let discovery = Discovery::danger_allow_plain_http(client, plain).unwrap();
    let metadata = discovery.metadata().await.unwrap();
    assert_eq!(
        metadata.token_endpoint(),
        Some("http://as.example.com/token/0")
    );
}

/// The members that hold an endpoint, and how to ask for each.
type Getter = fn(&ServerMetadata) -> Option<&str>;
const ENDPOINTS: [(&str, Getter); 6] = [
    (
        "authorization_endpoint",
        ServerMetadata::authorization_endpoint,
    ),
    ("token_endpoint", ServerMetadata::token_endpoint),
    (
        "pushed_authorization_request_endpoint",
        ServerMetadata::pushed_authorization_request_endpoint,
    ),
    (
        "device_authorization_endpoint",
        ServerMetadata::device_authorization_endpoint,
    ),
    ("revocation_endpoint", ServerMetadata::revocation_endpoint),
    (
        "introspection_endpoint",
        ServerMetadata::introspection_endpoint,
    ),
];

fn read(members: Value) -> Result<ServerMetadata, Error> {
    let mut document = json!({"issuer": ISSUER});
    let all = document.as_object_mut().unwrap();
    all.extend(members.as_object().unwrap().clone());
    let read = ServerMetadata::from_json(ISSUER, document.to_string().as_bytes());
    if let Err(error) = &read {
        assert!(error.is_metadata(), "{error}");
        assert_fit(error);
    }
    read
}

#[test]
fn an_issuer_on_this_machine_may_name_others_there() {
    let issuer = "http://127.0.0.1:9";
    for good in [
        "http://localhost/token",
        "http://127.0.0.1:9/token",
        "http://[::1]/token",
    ] {
        let json = json!({"issuer": issuer, "token_endpoint": good}).to_string();
        let metadata = ServerMetadata::from_json(issuer, json.as_bytes()).unwrap();
        assert_eq!(metadata.token_endpoint(), Some(good));
    }
}

#[test]
fn endpoints_are_urls_that_a_secret_may_go_to() {
    let long = format!("https://as.example.com/{}", "a".repeat(2026));
    for (name, get) in ENDPOINTS {
        for good in [
            "https://as.example.com/token",
            "https://elsewhere.example:8443/a%20b?tenant=1",
            "https://as.example.com",
            "https://as.example.com/@me",
            &long[..2048],
        ] {
            let metadata = read(json!({name: good})).unwrap();
            assert_eq!(get(&metadata), Some(good));
            let aliased = json!({"mtls_endpoint_aliases": {name: good}});
            assert_eq!(get(&read(aliased).unwrap()), None, "an alias is for others");
        }
        for (bad, word) in [
            ("http://as.example.com/token", "plain http"),
            ("http://10.0.0.1/token", "plain http"),
            ("http://localhost.example.com/", "plain http"),
            (
                "https://user:s3cret@as.example.com/token",
                "user information",
            ),
            ("https://@as.example.com/token", "user information"),
            ("https://as.example.com/token#", "fragment"),
            ("/token", "scheme"),
            ("as.example.com", "scheme"),
            ("//as.example.com/token", "scheme"),
            ("ftp://as.example.com/token", "scheme"),
            ("javascript:alert(1)", "scheme"),
            ("https://", "URL"),
            ("https://as.example.com:99999/", "port"),
            ("https://as.example.com/a b", "URL"),
            ("https://as.example.com/\r\nHost: x", "URL"),
            ("https://as.exämple.com/", "characters"),
            ("", "URL"),
            (&long, "2048"),
        ] {
            let error = read(json!({name: bad})).unwrap_err().to_string();
            assert!(
                error.contains(word) && error.contains(name),
                "{bad}: {error}"
            );
            if name != "authorization_endpoint" {
                let error = read(json!({"mtls_endpoint_aliases": {name: bad}}));
                assert!(error.unwrap_err().to_string().contains(name), "{bad}");
            }
        }
        for wrong in [json!(1), json!(true), json!([good_url()]), json!({})] {
            let error = read(json!({name: wrong})).unwrap_err().to_string();
            assert!(error.contains("not a string"), "{error}");
        }
        assert_eq!(get(&read(json!({name: null})).unwrap()), None);
        assert_eq!(get(&read(json!({})).unwrap()), None);
    }
}

fn good_url() -> &'static str {
    "https://as.example.com/token"
}

#[test]
fn what_is_used_has_the_right_type_and_what_is_not_is_ignored() {
    for flag in [
        "require_pushed_authorization_requests",
        "authorization_response_iss_parameter_supported",
    ] {
        let get = match flag {
            "require_pushed_authorization_requests" => {
                ServerMetadata::require_pushed_authorization_requests
            }
            _ => ServerMetadata::authorization_response_iss_parameter_supported,
        };
        for (value, means) in [
            (json!(true), true),
            (json!(false), false),
            (json!(null), false),
        ] {
            assert_eq!(get(&read(json!({flag: value})).unwrap()), means, "{flag}");
        }
        assert!(!get(&read(json!({})).unwrap()));
        for wrong in [json!("true"), json!(1), json!([]), json!({})] {
            assert!(
                read(json!({flag: wrong}))
                    .unwrap_err()
                    .to_string()
                    .contains(flag)
            );
        }
    }
    let algorithms = "dpop_signing_alg_values_supported";
    let metadata = read(json!({algorithms: ["ES256", "EdDSA"]})).unwrap();
    let both = ["ES256".to_owned(), "EdDSA".to_owned()];
    assert_eq!(
        metadata.dpop_signing_alg_values_supported(),
        Some(&both[..])
    );
    for none in [json!({}), json!({algorithms: null})] {
        assert_eq!(
            read(none).unwrap().dpop_signing_alg_values_supported(),
            None
        );
    }
    for wrong in [
        json!("ES256"),
        json!([1]),
        json!(["ES256", null]),
        json!({"ES256": 1}),
        json!(256),
    ] {
        assert!(
            read(json!({algorithms: wrong}))
                .unwrap_err()
                .to_string()
                .contains(algorithms)
        );
    }
    assert!(read(json!({"mtls_endpoint_aliases": []})).is_err());
    let unused = json!({
        "jwks_uri": 5, "scopes_supported": "x", "userinfo_endpoint": "http://other.example", "x": [[{}]],
        "mtls_endpoint_aliases": {"userinfo_endpoint": 5, "x": null},
    });
    assert!(read(unused).is_ok());
}

#[test]
fn what_means_two_things_or_nothing_is_refused() {
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"issuer":"{ISSUER}","x":{open}{close}}}"#)
    };
    let good = document(ISSUER, 0);
    let twice = |member: &str| format!(r#"{},{member}}}"#, good.strip_suffix('}').unwrap());
    for bad in [
        String::new(),
        "null".into(),
        "5".into(),
        format!("\"{ISSUER}\""),
        format!("[{good}]"),
        good[..good.len() - 1].into(),
        format!("{good}{good}"),
        format!("{good}x"),
        format!("\u{feff}{good}"),
        good.replace('"', "'"),
        "<html>s3cret</html>".into(),
        twice(&format!(r#""issuer":"{ISSUER}""#)),
        twice(r#""\u0069ssuer":"https://evil.example""#),
        twice(r#""token_endpoint":"https://evil.example/token""#),
        twice(r#""x":{"y":1,"y":1}"#),
        twice(
            r#""mtls_endpoint_aliases":{"token_endpoint":"https://a.example","token_endpoint":"https://b.example"}"#,
        ),
        deep(200),
        deep(100_000),
    ] {
        let error = ServerMetadata::from_json(ISSUER, bad.as_bytes()).unwrap_err();
        assert!(error.is_metadata(), "{bad:.100}: {error}");
        assert_fit(&error);
    }
    assert!(ServerMetadata::from_json(ISSUER, deep(100).as_bytes()).is_ok());
    let mut bytes = twice(r#""x":"?""#).into_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert!(
        ServerMetadata::from_json(ISSUER, &bytes)
            .unwrap_err()
            .is_metadata()
    );
}

/// A document of exactly so many bytes.
fn padded(length: usize) -> String {
    let mut document: Value = serde_json::from_str(&document(ISSUER, 0)).unwrap();
    document["x"] = json!("");
    let bare = document.to_string().len();
    document["x"] = json!("x".repeat(length - bare));
    document.to_string()
}

#[tokio::test(start_paused = true)]
async fn no_more_than_256_kib() {
    for (length, fits) in [(KIB_256, true), (KIB_256 + 1, false)] {
        let body = padded(length);
        assert_eq!(body.len(), length);
        let read = ServerMetadata::from_json(ISSUER, body.as_bytes());
        assert_eq!(read.is_ok(), fits, "{length}");
        let client = Fake::new(move |_, _| found(&body));
        match discovery(&client).metadata().await {
            Ok(_) => assert!(fits),
            Err(error) => {
                assert!(!fits && error.is_metadata(), "{error}");
                assert!(error.to_string().contains("256 KiB"), "{error}");
                assert_eq!(client.seen().len(), 1);
            }
        }
    }
}

/// A body without an end; counts what was taken of it.
struct Endless(Arc<AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(1024, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b' '; 1024])))))
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_document_is_not_read_to_its_end() {
    let taken = Arc::new(AtomicUsize::new(0));
    let body = Arc::clone(&taken);
    let client = tower::service_fn(move |_: Request<Full<Bytes>>| {
        ready(Ok::<_, Infallible>(Response::new(Endless(Arc::clone(
            &body,
        )))))
    });
    let error = error_of(&Discovery::new(client, ISSUER).unwrap()).await;
    assert!(error.is_metadata(), "{error}");
    assert!(taken.load(Ordering::Relaxed) <= KIB_256 + 1024);
}

#[tokio::test(start_paused = true)]
async fn one_fetch_for_all_who_wait() {
    let client = server().delay(Duration::from_secs(3));
    let discovery = discovery(&client);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let discovery = discovery.clone();
            tokio::spawn(async move { version_of(&discovery).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 0);
    }
    assert_eq!(version_of(&discovery).await, 0, "kept");
    assert_eq!(client.hits(HOST), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shared() {
    let client = Fake::new(|_, _| answer(500, &[], "")).delay(Duration::from_secs(3));
    let discovery = discovery(&client);
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let discovery = discovery.clone();
            tokio::spawn(async move { error_of(&discovery).await })
        })
        .collect();
    for caller in callers {
        assert!(caller.await.unwrap().to_string().contains("500"));
    }
    // And whoever comes at once hears the same.
    for _ in 0..1000 {
        assert!(error_of(&discovery).await.to_string().contains("500"));
    }
    assert_eq!(client.hits(HOST), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_backed_off_from_and_got_over() {
    let up = Arc::new(AtomicBool::new(false));
    let server = Arc::clone(&up);
    let client = Fake::new(move |_, n| match server.load(Ordering::Relaxed) {
        true => found(&document(ISSUER, n)),
        false => answer(503, &[], ""),
    });
    let discovery = discovery(&client);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        error_of(&discovery).await;
        sleep(Duration::from_millis(100)).await;
    }
    let times: Vec<_> = client.seen().iter().map(|seen| seen.at).collect();
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (step, gap) in gaps.iter().enumerate() {
        let full = Duration::from_secs(30.min(1 << step.min(10)));
        let room = Duration::from_millis(101);
        assert!((full / 2..=full + room).contains(gap), "{step}: {gap:?}");
    }
    assert!(gaps.len() > 20, "it goes on: {gaps:?}");
    let late = &gaps[5..];
    assert!(late.iter().any(|gap| *gap != late[0]), "spread: {late:?}");

    up.store(true, Ordering::Relaxed);
    sleep(Duration::from_secs(31)).await;
    assert_eq!(version_of(&discovery).await, times.len());

    // The next outage begins anew.
    up.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(3600)).await;
    for fetches in [2, 3] {
        discovery.metadata().await.unwrap();
        settle().await;
        assert_eq!(client.hits(HOST), times.len() + fetches);
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_for_five_minutes_at_the_most() {
    for (asked, waits) in [("120", 120), ("100000", 300), ("nonsense", 0)] {
        for status in [429, 503] {
            let client = Fake::new(move |_, n| match n {
                0 => answer(status, &[("retry-after", asked)], ""),
                n => found(&document(ISSUER, n)),
            });
            let discovery = discovery(&client);
            error_of(&discovery).await;
            if waits > 0 {
                sleep(Duration::from_millis(waits * 1000 - 1)).await;
                error_of(&discovery).await;
                assert_eq!(client.hits(HOST), 1, "{asked}");
            }
            // Not all at the same moment: up to a tenth later.
            sleep(Duration::from_millis(1001 + waits * 100)).await;
            assert_eq!(version_of(&discovery).await, 1, "{asked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_told_the_same_time_comes_back_at_another() {
    let client = Fake::new(|_, _| answer(503, &[("retry-after", "100")], ""));
    let all: Vec<_> = (0..10).map(|_| discovery(&client)).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(111) {
        for discovery in &all {
            error_of(discovery).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let seen = client.seen();
    assert_eq!(seen.len(), 20);
    let later: Vec<_> = seen[10..].iter().map(|seen| seen.at - start).collect();
    assert!(later.iter().all(|at| at.as_secs() >= 100), "{later:?}");
    assert!(later.iter().any(|at| *at != later[0]), "{later:?}");
}

/// Whether metadata that came with these headers are fresh for so long, and no longer.
async fn assert_fresh_for(headers: &'static [(&str, &str)], seconds: u64) {
    let client = Fake::new(move |_, n| answer(200, headers, &document(ISSUER, n)));
    let discovery = discovery(&client);
    discovery.metadata().await.unwrap();
    for (after, fetches) in [
        (Duration::from_secs(seconds - 1), 1),
        (Duration::from_secs(1), 2),
    ] {
        sleep(after).await;
        assert_eq!(version_of(&discovery).await, 0, "{headers:?}");
        settle().await;
        assert_eq!(client.hits(HOST), fetches, "{headers:?}: {seconds}");
    }
    assert_eq!(version_of(&discovery).await, 1, "{headers:?}");
}

#[tokio::test(start_paused = true)]
async fn metadata_are_fresh_for_an_hour_or_as_long_as_they_say() {
    for (headers, seconds) in [
        (&[][..], 3600),
        (&[("cache-control", "max-age=120")], 120),
        (
            &[("cache-control", "public, MAX-AGE=\"300\" , must-revalidate")],
            300,
        ),
        (
            &[
                ("cache-control", "public"),
                ("cache-control", "max-age=240"),
            ],
            240,
        ),
        (&[("cache-control", "max-age=3")], 60),
        (&[("cache-control", "max-age=0")], 60),
        (&[("cache-control", "max-age=86400")], 3600),
        (
            &[("cache-control", "max-age=99999999999999999999999")],
            3600,
        ),
        (&[("cache-control", "max-age=-5")], 3600),
        (&[("cache-control", "max-age=")], 3600),
        (&[("cache-control", "s-maxage=120")], 3600),
        (&[("cache-control", "no-store")], 3600),
    ] {
        assert_fresh_for(headers, seconds).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_ones_serve_while_new_ones_are_fetched() {
    let client = server().delay(Duration::from_secs(5));
    let discovery = discovery(&client);
    assert_eq!(version_of(&discovery).await, 0);
    sleep(Duration::from_secs(3600)).await;

    let due = Instant::now();
    for _ in 0..100 {
        assert_eq!(version_of(&discovery).await, 0);
    }
    assert_eq!(Instant::now(), due, "nobody waits");
    settle().await;
    assert_eq!(
        (client.hits(HOST), client.most_open(HOST)),
        (2, 1),
        "one renewal"
    );

    sleep(Duration::from_secs(4)).await;
    assert_eq!(version_of(&discovery).await, 0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(version_of(&discovery).await, 1);
    sleep(Duration::from_secs(3500)).await;
    assert_eq!(version_of(&discovery).await, 1);
    assert_eq!(client.hits(HOST), 2, "fresh for an hour again");
}

#[tokio::test(start_paused = true)]
async fn an_outage_at_a_renewal_stops_nobody() {
    type Outage = fn(&Seen) -> Result<Answer, BoxError>;
    let outages: [Outage; 6] = [
        |_| Ok(answer(500, &[], "")),
        |_| Err("connection refused".into()),
        |_| Ok(answer(404, &[], "")),
        |_| Ok(answer(302, &[("location", "/login")], "")),
        |_| Ok(found(&document("https://evil.example", 9))),
        |_| panic!("a client's panic, as ordered"),
    ];
    for (number, outage) in outages.into_iter().enumerate() {
        let down = Arc::new(AtomicBool::new(false));
        let server = Arc::clone(&down);
        let client = Fake::failing(move |seen, n| match server.load(Ordering::Relaxed) {
            true => outage(seen),
            false => Ok(found(&document(ISSUER, n))),
        });
        let discovery = discovery(&client);
        let told = Told::default();
        let _listening = told.listen();
        assert_eq!(version_of(&discovery).await, 0);
        down.store(true, Ordering::Relaxed);
        sleep(Duration::from_secs(3600)).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(600) {
            let before = Instant::now();
            assert_eq!(version_of(&discovery).await, 0, "outage {number}");
            assert_eq!(Instant::now(), before);
            sleep(Duration::from_secs(1)).await;
        }
        // A fetch may ask at two places.
        let fetches = client.hits(HOST);
        assert!((20..120).contains(&fetches), "outage {number}: {fetches}");
        let warned = told.count(Level::WARN, "could not be renewed");
        assert!((20..60).contains(&warned), "outage {number}: {warned}");
        assert_eq!(told.len(), warned, "{}", told.all());
        down.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(31)).await;
        version_of(&discovery).await;
        settle().await;
        assert!(
            version_of(&discovery).await > 0,
            "outage {number} is got over"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_neither_ends_nor_delays_it() {
    let client = server().delay(Duration::from_secs(5));
    let discovery = discovery(&client);
    let start = Instant::now();
    for _ in 0..4 {
        let gave_up = timeout(Duration::from_secs(1), discovery.metadata()).await;
        assert!(gave_up.is_err());
    }
    assert_eq!(version_of(&discovery).await, 0);
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(client.hits(HOST), 1);

    // Nor if nobody is left.
    let alone = self::discovery(&client);
    assert!(
        timeout(Duration::from_secs(1), alone.metadata())
            .await
            .is_err()
    );
    sleep(Duration::from_secs(60)).await;
    assert_eq!(version_of(&alone).await, 1);
    assert_eq!(client.hits(HOST), 2);
}

#[tokio::test(start_paused = true)]
async fn ten_seconds_for_all_places_together() {
    let silent = server().delay(NEVER);
    let start = Instant::now();
    let error = error_of(&discovery(&silent)).await;
    assert!(error.is_timeout(), "{error}");
    assert_eq!(start.elapsed(), Duration::from_secs(10));

    let slow = Fake::new(|_, _| answer(404, &[], "")).delay(Duration::from_secs(4));
    let start = Instant::now();
    let discovery = Discovery::new(slow.clone(), "https://as.example.com/tenant").unwrap();
    assert!(error_of(&discovery).await.is_timeout());
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert_eq!(slow.hits(HOST), 3);
}

/// A client that panics where it is told to, once; `Send`, and no more.
struct Panics {
    at: &'static str,
    done: Arc<AtomicBool>,
    not_sync: Cell<u8>,
}

impl Panics {
    fn here(&self, at: &str) {
        self.not_sync.set(1);
        assert!(
            at != self.at || self.done.swap(true, Ordering::Relaxed),
            "s3cret"
        );
    }
}

impl Clone for Panics {
    fn clone(&self) -> Self {
        self.here("clone");
        Self {
            done: Arc::clone(&self.done),
            not_sync: Cell::new(0),
            ..*self
        }
    }
}

impl Service<Request<Full<Bytes>>> for Panics {
    type Response = Answer;
    type Error = BoxError;
    type Future = Ready<Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.here("poll_ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        self.here("call");
        ready(Ok(found(&document(ISSUER, 0))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_panics_is_an_error_and_no_more() {
    for at in ["clone", "poll_ready", "call"] {
        let client = Panics {
            at,
            done: Arc::default(),
            not_sync: Cell::new(0),
        };
        let discovery = Discovery::new(client, ISSUER).unwrap();
        let error = error_of(&discovery).await;
        assert!(error.is_runtime() && error.is_token_request(), "{error}");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(version_of(&discovery).await, 0, "{at}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn without_a_runtime_there_is_what_is_known() {
    let client = server();
    let discovery = discovery(&client);
    let poll = |discovery: &Discovery| {
        let discovery = discovery.clone();
        let mut asked = tokio_test::task::spawn(async move { discovery.metadata().await });
        match asked.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it waits for what cannot come"),
        }
    };
    assert!(poll(&discovery).unwrap_err().is_runtime());
    runtime().block_on(async { assert_eq!(version_of(&discovery).await, 0) });
    assert_eq!(version(&poll(&discovery).unwrap()), 0);

    // No timers: a panic in the fetch's task, not in the caller's.
    let bare = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let discovery = self::discovery(&client);
    let error = bare.block_on(discovery.metadata()).unwrap_err();
    assert!(error.is_runtime(), "{error}");
}

#[test]
fn a_fetch_that_ended_with_its_runtime_is_made_anew() {
    let client = Fake::new(|_, n| found(&document(ISSUER, n))).delay_by(|seen| match seen.number {
        0 => NEVER,
        _ => Duration::ZERO,
    });
    let discovery = discovery(&client);
    let first = runtime();
    first.block_on(async {
        let gave_up = timeout(Duration::from_secs(1), discovery.metadata()).await;
        assert!(gave_up.is_err());
    });
    drop(first);
    runtime().block_on(async {
        let start = Instant::now();
        assert_eq!(version_of(&discovery).await, 1);
        assert_eq!(Instant::now(), start, "at once");
    });
}

#[test]
fn a_fetch_in_a_runtime_that_stands_still_holds_nobody_up_for_ever() {
    let client = Fake::new(|_, n| found(&document(ISSUER, n))).delay_by(|seen| match seen.number {
        0 => NEVER,
        _ => Duration::ZERO,
    });
    let discovery = discovery(&client);
    let still = runtime();
    still.block_on(async {
        let gave_up = timeout(Duration::from_secs(1), discovery.metadata()).await;
        assert!(gave_up.is_err());
    });
    // Nobody drives `still` any more, but it lives.
    runtime().block_on(async {
        let waited = timeout(Duration::from_secs(60), version_of(&discovery)).await;
        assert_eq!(waited.expect("a fetch of its own"), 1);
    });
    drop(still);
}

#[test]
fn a_renewal_in_a_runtime_that_stands_still_is_made_anew() {
    let client = Fake::new(|_, n| found(&document(ISSUER, n))).delay_by(|seen| match seen.number {
        1 => NEVER,
        _ => Duration::ZERO,
    });
    let discovery = discovery(&client);
    let (here, still) = (runtime(), runtime());
    here.block_on(async { assert_eq!(version_of(&discovery).await, 0) });
    still.block_on(async {
        sleep(Duration::from_secs(3700)).await;
        assert_eq!(version_of(&discovery).await, 0);
        settle().await;
        assert_eq!(client.hits(HOST), 2);
    });
    here.block_on(async {
        sleep(Duration::from_secs(3800)).await;
        assert_eq!(version_of(&discovery).await, 0);
        settle().await;
        assert_eq!(version_of(&discovery).await, 2);
    });
    drop(still);
}

#[test]
fn a_fetch_that_was_given_up_brings_nothing_any_more() {
    let client = server().delay(Duration::from_secs(5));
    let discovery = discovery(&client);
    let still = runtime();
    still.block_on(async {
        let gave_up = timeout(Duration::from_secs(1), discovery.metadata()).await;
        assert!(gave_up.is_err());
    });
    let here = runtime();
    here.block_on(async {
        // Long enough to begin a fetch of its own, and no longer.
        let gave_up = timeout(Duration::from_secs(13), discovery.metadata()).await;
        assert!(gave_up.is_err());
        assert_eq!(client.hits(HOST), 2);
    });
    // It is driven again, and its answer comes.
    still.block_on(async { sleep(Duration::from_secs(60)).await });
    here.block_on(async { assert_eq!(version_of(&discovery).await, 1) });
    assert_eq!(client.hits(HOST), 2);
}

#[test]
fn what_is_written_by_hand_is_what_is_read() {
    let mut by_hand = ServerMetadata::new(ISSUER);
    for (_, get) in ENDPOINTS {
        assert_eq!(get(&by_hand), None);
    }
    by_hand = by_hand
        .with_authorization_endpoint("https://as.example.com/authorization_endpoint")
        .with_token_endpoint("https://as.example.com/token_endpoint")
        .with_pushed_authorization_request_endpoint(
            "https://as.example.com/pushed_authorization_request_endpoint",
        )
        .with_device_authorization_endpoint("https://as.example.com/device_authorization_endpoint")
        .with_revocation_endpoint("https://as.example.com/revocation_endpoint")
        .with_introspection_endpoint("https://as.example.com/introspection_endpoint")
        .with_dpop_signing_alg_values_supported(["ES256"])
        .with_authorization_response_iss_parameter();
    let mut document = json!({
        "dpop_signing_alg_values_supported": ["ES256"],
        "authorization_response_iss_parameter_supported": true,
    });
    for (name, _) in ENDPOINTS {
        document[name] = json!(format!("https://as.example.com/{name}"));
    }
    let read = read(document).unwrap();
    for metadata in [&by_hand, &read] {
        assert_eq!(metadata.issuer(), Some(ISSUER));
        for (name, get) in ENDPOINTS {
            let url = get(metadata).expect(name);
            assert_eq!(url, format!("https://as.example.com/{name}"));
        }
        assert_eq!(
            metadata.dpop_signing_alg_values_supported().unwrap(),
            ["ES256"]
        );
        assert!(metadata.authorization_response_iss_parameter_supported());
        assert!(!metadata.require_pushed_authorization_requests());
    }
}

#[test]
fn debug_shows_no_password() {
    let by_hand = ServerMetadata::new("https://u:s3cret@as.example.com")
        .with_token_endpoint("https://u:s3cret@as.example.com/token");
    assert!(!format!("{by_hand:?}").contains("s3cret"), "{by_hand:?}");
    let shown = format!("{:?} {:?}", discovery(&server()), read(json!({})).unwrap());
    assert_eq!(shown.matches(ISSUER).count(), 2, "{shown}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(ServerMetadata::from_json(ISSUER, &bytes).is_err());
    }

    #[test]
    fn no_json_panics(
        name in prop::sample::select(vec![
            "token_endpoint", "authorization_endpoint", "dpop_signing_alg_values_supported",
            "mtls_endpoint_aliases", "require_pushed_authorization_requests", "issuer", "x",
        ]),
        value in prop_oneof![
            ".{0,40}".prop_map(Value::from),
            "https?://[a-z:@/?#%.\\[\\]0-9]{0,40}".prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            proptest::collection::vec(".{0,5}", 0..4).prop_map(Value::from),
            ".{0,20}".prop_map(|url| json!({"token_endpoint": url})),
            any::<bool>().prop_map(Value::from),
        ],
    ) {
        let mut document = json!({"issuer": ISSUER, "token_endpoint": good_url()});
        document[name] = value;
        match ServerMetadata::from_json(ISSUER, document.to_string().as_bytes()) {
            Ok(metadata) => {
                let url = metadata.token_endpoint().expect("one");
                prop_assert_eq!(Some(url), document["token_endpoint"].as_str());
                // Against another reading than ours.
                let uri: http::Uri = url.parse().unwrap();
                let loopback = ["localhost", "[::1]"].contains(&uri.host().unwrap())
                    || uri.host().unwrap().starts_with("127.");
                prop_assert!(uri.scheme_str() == Some("https") || loopback, "{}", url);
            }
            Err(error) => {
                prop_assert!(error.is_metadata());
                prop_assert!(!error.to_string().contains(char::is_control), "{}", error);
            }
        }
    }

    #[test]
    fn no_issuer_panics(issuer in ".{0,60}", other in "https?://[a-zA-Z:@/?#%.\\[\\]0-9]{0,40}") {
        for issuer in [issuer, other] {
            match Discovery::new(server(), issuer.clone()) {
                Ok(discovery) => prop_assert_eq!(discovery.issuer(), issuer),
                Err(error) => prop_assert!(error.is_config() || error.is_insecure_http()),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_for_before_it_is_needed() {
    let client = server();
    let asked: Arc<Mutex<Vec<Discovery>>> = Arc::default();
    asked.lock().unwrap().push(discovery(&client));
    sleep(Duration::from_secs(7200)).await;
    assert_eq!(client.hits(HOST), 0);
}

/// Another origin than an issuer with https may name: nothing that is not https.
#[test]
fn metadata_of_an_https_issuer_do_not_lead_to_plain_http_on_this_machine() {
    let json = r#"{"issuer":"https://as.example.com","token_endpoint":"http://localhost:2375/containers"}"#;
    assert!(ServerMetadata::from_json("https://as.example.com", json.as_bytes()).is_err());
}
