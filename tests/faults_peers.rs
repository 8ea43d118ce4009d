//! Servers that are wrong or hostile: F54, F66, F67, F69 to F71 of the fault catalogue. F65 is in
//! `faults_memory.rs`, F68 in `faults_random.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header::WWW_AUTHENTICATE};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{
    API, ENDPOINT, Fake, a3_key, and, answer,
    bench::{AS, Dice, RS, audience, find, request, stack, stack_with},
    get, ok, refusal, token, with_token,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_dpop::{
    AccessToken, Audience, BoxError, Challenge, DpopLayer, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, ResourceServer},
};

// F54: challenges.

/// What challenges are made of, and what breaks them.
const PIECES: [&str; 28] = [
    "DPoP",
    "Bearer",
    "Basic",
    "Negotiate",
    "dpop",
    " ",
    "  ",
    "\t",
    ",",
    ", ",
    "=",
    "==",
    "\"",
    "\\",
    "\\\"",
    "\\\\",
    "error",
    "error=\"use_dpop_nonce\"",
    "error=invalid_token",
    "realm=\"a, b\"",
    "algs=\"ES256 PS256\"",
    "YWJj==",
    "\u{e9}",
    "\u{7f}",
    "(",
    "a",
    "use_dpop_nonce",
    "error=\"\\\"use_dpop_nonce\\\"\"",
];

const WHOLE: [&str; 6] = [
    r#"DPoP error="use_dpop_nonce", error_description="another one", algs="ES256""#,
    r#"DPoP error=invalid_token, Bearer realm="a, b""#,
    r#"Bearer realm="say \"DPoP\"", error="invalid_token", DPoP error="invalid_dpop_proof""#,
    "Negotiate YWJj==, DPoP algs=ES256",
    r#", ,Basic realm="", charset="UTF-8" ,"#,
    r#"Digest qop="auth, auth-int", nonce=dcd98b,opaque="5ccc\\""#,
];

/// Rubble, or something whole with a few faults in it.
fn anything(dice: &mut Dice) -> Option<HeaderValue> {
    let mut line = Vec::new();
    if dice.below(4) == 0 {
        for _ in 0..dice.below(24) {
            line.extend(PIECES[dice.below(PIECES.len() as u64) as usize].as_bytes());
        }
    } else {
        line.extend(WHOLE[dice.below(WHOLE.len() as u64) as usize].as_bytes());
    }
    for _ in 0..dice.below(4) {
        let at = dice.below(line.len() as u64 + 1) as usize;
        match dice.below(3) {
            0 => {
                let piece = PIECES[dice.below(PIECES.len() as u64) as usize];
                line.splice(at..at, piece.bytes());
            }
            1 => line.insert(at, dice.below(256) as u8),
            _ => drop(line.drain(at..line.len().min(at + 2))),
        }
    }
    HeaderValue::from_bytes(&line).ok()
}

fn challenges(lines: impl IntoIterator<Item = HeaderValue>) -> HeaderMap {
    let lines = lines.into_iter().map(|line| (WWW_AUTHENTICATE, line));
    lines.collect()
}

/// `FAULTS_CHALLENGES` of them, if that is set: the catalogue asks for 10⁷.
#[test]
fn f54_no_challenge_panics_and_none_says_what_it_does_not() {
    let count = std::env::var("FAULTS_CHALLENGES").map_or(100_000, |n| n.parse().unwrap());
    let mut dice = Dice(54);
    let mut found = 0;
    let good = HeaderValue::from_static("Other realm=\"last\"");
    for _ in 0..count {
        let Some(line) = anything(&mut dice) else {
            continue;
        };
        let headers = challenges([line.clone(), good.clone()]);
        let all = Challenge::all(&headers);
        let (last, others) = all.split_last().unwrap();
        assert_eq!(
            last.parameter("realm"),
            Some("last"),
            "the other line stands: {line:?}"
        );
        for challenge in others {
            let text = line.to_str().unwrap_or_default();
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            assert!(challenge.scheme().bytes().all(token) && !challenge.scheme().is_empty());
            // Nothing is made up: without escapes, names and values stand in the line.
            if !text.is_empty() && !text.contains('\\') {
                for (name, value) in challenge.parameters() {
                    assert!(text.contains(name) && text.contains(value), "{line:?}");
                }
            }
        }
        found += others.len();
    }
    assert!(found > count / 10, "{found} in {count}");
}

#[tokio::test]
async fn f54_no_answer_with_one_panics() {
    let dice = Mutex::new(Dice(540));
    let fake = Fake::new(move |seen, _| {
        if seen.uri.host() == Some(AS) {
            return token(&format!("t{}", seen.number), 300);
        }
        let dice = &mut *dice.lock().unwrap();
        let mut answer = answer(401, &[("dpop-nonce", &format!("n{}", dice.below(9)))], "");
        let lines = (0..dice.below(3)).filter_map(|_| anything(dice));
        answer
            .headers_mut()
            .extend(challenges(lines.collect::<Vec<_>>()));
        answer
    });
    let stack = stack(&fake);
    let before = fake.hits(RS);
    for _ in 0..2_000 {
        let answer = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    // Some of them were understood.
    assert!(fake.hits(RS) - before > 2_000);
    assert!(fake.hits(RS) - before <= 4 * 2_000);
}

#[test]
fn f54_a_long_challenge_takes_as_long_as_its_length() {
    // Far more than any server lets through: one that took the square of that would not end today.
    const LENGTH: usize = 4 << 20;
    let numbered = |piece: fn(usize) -> String| (0..LENGTH / 12).map(piece).collect();
    let mut lines: Vec<String> = vec![
        // No name stands twice, which would be the end of it.
        format!("DPoP a=b{}", numbered(|n| format!(",p{n:07}=1"))),
        numbered(|n| format!("S{n:07} a=b,")),
    ];
    lines.extend(
        [
            ("", ","),
            ("", "a"),
            ("", "a "),
            ("", "a,"),
            ("DPoP ", "="),
            ("DPoP a=\"", "\\\""),
            ("DPoP a=\"", "b, "),
            ("DPoP ", "YWJj"),
            ("DPoP ", "\t"),
            ("DPoP a=b", " , \t"),
            ("", "DPoP a=\"b\\\\\", "),
        ]
        .map(|(start, piece)| [start, &piece.repeat(LENGTH / piece.len())].concat()),
    );
    let count = lines.len();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines {
            let headers = challenges([HeaderValue::from_str(&line).unwrap()]);
            done.send(Challenge::all(&headers).len()).unwrap();
        }
    });
    for _ in 0..count {
        let found = ended.recv_timeout(Duration::from_secs(60));
        found.expect("in time");
    }
}

#[test]
fn f54_several_challenges_and_quoted_commas() {
    for (lines, error) in [
        (
            vec![r#"Bearer realm="DPoP error=use_dpop_nonce, x", DPoP error="invalid_token""#],
            "invalid_token",
        ),
        (
            vec![
                r#"Basic realm="a, DPoP error=\"b\"""#,
                r#"DPoP algs="ES256, PS256", error=invalid_token"#,
            ],
            "invalid_token",
        ),
        (
            vec!["Negotiate", "NTLM, DPoP error=invalid_token"],
            "invalid_token",
        ),
        (
            vec![r#", ,DPoP  error = "use_dpop_nonce" , , algs="ES256",, Basic realm="""#],
            "use_dpop_nonce",
        ),
    ] {
        let headers = challenges(lines.iter().map(|line| HeaderValue::from_static(line)));
        let all = Challenge::all(&headers);
        let dpop: Vec<_> = all.iter().filter(|c| c.is_scheme("DPoP")).collect();
        assert_eq!(dpop.len(), 1, "{lines:?}");
        assert_eq!(dpop[0].parameter("error"), Some(error), "{lines:?}");
    }
}

// F66: tokens that no header can carry.

fn bad_tokens() -> Vec<String> {
    let bad = [
        "a\r\nx-injected: 1",
        "a\nb",
        "a\rb",
        "\0",
        "a\0b",
        "é",
        "a\u{2028}b",
        "🔑",
        "a b",
        " a",
        "a ",
        "a\tb",
        "a,b",
        "a;b",
        "a\"b",
        "a=b",
        "=",
        "\u{7f}",
        "DPoP a",
    ];
    let mut all: Vec<_> = bad.map(str::to_owned).to_vec();
    all.push("x".repeat(100 << 10));
    all
}

#[tokio::test(start_paused = true)]
async fn f66_a_malformed_token_is_refused_when_it_comes() {
    for bad in bad_tokens() {
        let given = bad.clone();
        let fake = Fake::new(move |seen, _| match (seen.uri.host(), seen.number) {
            (Some(AS), 0) => token(&given, 300),
            (Some(AS), _) => token("good", 300),
            _ => ok(),
        });
        let stack = stack(&fake);
        let error = find(&stack.clone().oneshot(get(API)).await.unwrap_err());
        assert!(
            error.is_token_request() && !error.is_config(),
            "{bad:.20?}: {error}"
        );
        assert!(!error.is_permanent(), "{error}");
        assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 0), "{bad:.20?}");
        assert!(!format!("{error} {error:?}").contains("injected"));
        // It is no token that is kept: the next one is asked for as after any failure.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
        assert_eq!(fake.seen_by(RS)[0].token(), "good");
        assert!(!fake.seen_by(RS)[0].headers.contains_key("x-injected"));
    }
}

#[test]
fn f66_so_is_one_from_elsewhere() {
    for bad in bad_tokens().iter().map(String::as_str).chain([""]) {
        let error = AccessToken::new(bad, &a3_key(), audience()).unwrap_err();
        assert!(error.is_config(), "{bad:.20?}: {error}");
    }
    let long = "x".repeat(60_000);
    for good in [
        "a",
        "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU",
        "a+/-._~b==",
        &long,
    ] {
        let token = AccessToken::new(good, &a3_key(), audience()).unwrap();
        assert_eq!(token.secret(), good);
    }
}

#[tokio::test]
async fn f66_the_header_of_a_token_is_made_once_and_is_sensitive() {
    let fake = Fake::new(|seen, n| match seen.uri.host() {
        Some(AS) => token("t", 300),
        _ if n == 3 => answer(503, &[], ""),
        _ => ok(),
    });
    let stack = stack(&fake);
    for _ in 0..10 {
        stack.clone().oneshot(get(API)).await.unwrap();
    }
    let seen = fake.seen_by(RS);
    let places: HashSet<_> = seen
        .iter()
        .map(|seen| {
            let value = &seen.headers["authorization"];
            assert!(value.is_sensitive());
            value.as_bytes().as_ptr()
        })
        .collect();
    assert_eq!((seen.len(), places.len()), (10, 1), "all share one memory");
}

// F67: tokens that are bound to nothing.

#[tokio::test(start_paused = true)]
async fn f67_a_token_of_another_type_is_a_downgrade_and_never_sent() {
    let types: [Option<serde_json::Value>; 12] = [
        None,
        Some("Bearer".into()),
        Some("bearer".into()),
        Some("BEARER".into()),
        Some("mac".into()),
        Some("N_A".into()),
        Some("".into()),
        Some("DPoP ".into()),
        Some("DPoP, Bearer".into()),
        Some(serde_json::Value::Null),
        Some(serde_json::json!(["DPoP"])),
        Some(serde_json::json!({"DPoP": true})),
    ];
    for token_type in types {
        let mut members = serde_json::json!({"access_token": "unbound", "expires_in": 300});
        if let Some(token_type) = &token_type {
            members["token_type"] = token_type.clone();
        }
        let text = members.to_string();
        let fake = Fake::new(move |seen, _| match (seen.uri.host(), seen.number) {
            (Some(AS), _) => answer(200, &[("content-type", "application/json")], &text),
            _ => ok(),
        });
        let stack = stack(&fake);
        for _ in 0..10 {
            let error = find(&stack.clone().oneshot(get(API)).await.unwrap_err());
            assert!(
                error.is_downgrade() && error.is_permanent(),
                "{token_type:?}: {error}"
            );
            tokio::time::sleep(Duration::from_secs(40)).await;
        }
        assert_eq!(fake.hits(RS), 0, "{token_type:?}");
        for seen in fake.seen() {
            assert!(
                seen.header("dpop").is_some(),
                "never asked for without a proof"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn f67_a_server_that_asks_for_bearer_gets_none() {
    // At its renewal the authorization server downgrades, too.
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => token("t0", 300),
        (Some(AS), _) => answer(200, &[], r#"{"access_token":"t1","token_type":"Bearer"}"#),
        _ => answer(
            401,
            &[("www-authenticate", r#"Bearer error="invalid_token""#)],
            "no",
        ),
    });
    let stack = stack(&fake);
    for _ in 0..20 {
        let _ = stack.clone().oneshot(get(API)).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert!(fake.hits(AS) > 1 && fake.hits(RS) > 1);
    for seen in fake.seen_by(RS) {
        assert_eq!(seen.token(), "t0");
        assert!(seen.header("dpop").is_some());
    }
}

// F69 to F71 need to know who is connected to.

/// Connects to a server of this machine, whatever host is named, and notes scheme and host.
#[derive(Clone)]
struct Noting {
    http: HttpConnector,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Service<Uri> for Noting {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let origin = uri.to_string().trim_end_matches('/').to_owned();
        self.seen.lock().unwrap().push(origin);
        let port = uri.port_u16().unwrap_or(9);
        let here = format!("http://127.0.0.1:{port}/").parse().unwrap();
        let connecting = self.http.call(here);
        Box::pin(async move { Ok(connecting.await?) })
    }
}

type Http = Client<Noting, Full<Bytes>>;

/// A client, and the origins that it has connected to.
fn noting() -> (Http, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::default();
    let connector = Noting {
        http: HttpConnector::new(),
        seen: Arc::clone(&seen),
    };
    (Client::builder(TokioExecutor::new()).build(connector), seen)
}

fn connected(seen: &Mutex<Vec<String>>) -> BTreeSet<String> {
    seen.lock().unwrap().drain(..).collect()
}

fn set<const N: usize>(origins: [&str; N]) -> BTreeSet<String> {
    origins.map(str::to_owned).into()
}

async fn servers() -> (AuthorizationServer, ResourceServer) {
    let authorization_server = AuthorizationServer::start().await.unwrap();
    let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
    (authorization_server, resource_server)
}

fn port(origin: &str) -> &str {
    origin.rsplit(':').next().unwrap()
}

// F69: plain http.

#[tokio::test]
async fn f69_plain_http_is_refused_before_a_byte_is_sent() {
    let (authorization_server, resource_server) = servers().await;
    let [as_port, rs_port] = [authorization_server.origin(), resource_server.origin()]
        .map(|origin| port(origin).to_owned());
    let (http, seen) = noting();
    let dpop = DpopLayer::new(a3_key());
    for host in [
        "api.example.com",
        "10.0.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::2]",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "127.1.example",
    ] {
        // Refused when it is built, for either server.
        let (api, endpoint) = (
            format!("http://{host}:{rs_port}"),
            format!("http://{host}:{as_port}/token"),
        );
        for (endpoint, api) in [
            (endpoint.as_str(), API),
            (ENDPOINT, api.as_str()),
            (&endpoint, &api),
        ] {
            let request = TokenRequest::client_credentials(endpoint, CLIENT_ID);
            let audience = Audience::origins([api]).unwrap();
            let built = TokenLayer::new(&dpop, http.clone(), request, audience);
            assert!(built.unwrap_err().is_insecure_http(), "{endpoint} {api}");
        }
        // Refused for each request.
        let token = AccessToken::new("t", &a3_key(), Audience::origins([&api]).unwrap()).unwrap();
        let sent = dpop
            .layer(http.clone())
            .oneshot(with_token(get(&api), &token))
            .await;
        assert!(find(&sent.unwrap_err()).is_insecure_http(), "{api}");
        assert_eq!(connected(&seen), set([]));
        // And for those that a redirect leads there.
        let redirecting = Fake::new({
            let location = format!("{api}/");
            move |_, _| answer(307, &[("location", &location)], "")
        });
        let secure = format!("https://{host}");
        let both = Audience::origins([&secure, &api]).unwrap();
        let token = AccessToken::new("t", &a3_key(), both).unwrap();
        let first = dpop
            .layer(redirecting)
            .oneshot(with_token(get(&secure), &token));
        let location = first.await.unwrap().headers()["location"]
            .to_str()
            .unwrap()
            .to_owned();
        let second = dpop
            .layer(http.clone())
            .oneshot(with_token(get(&location), &token))
            .await;
        assert!(find(&second.unwrap_err()).is_insecure_http(), "{api}");
        assert_eq!(connected(&seen), set([]));
    }
    assert_eq!(resource_server.request_count(), 0);
    assert_eq!(authorization_server.request_count(), 0);
}

#[tokio::test]
async fn f69_unless_a_knob_with_an_alarming_name_is_set() {
    let (authorization_server, resource_server) = servers().await;
    let (http, seen) = noting();
    let here = |server: &str| format!("http://plain.example:{}", port(server));
    let (api, endpoint) = (
        here(resource_server.origin()),
        here(authorization_server.origin()),
    );
    let dpop = DpopLayer::new(a3_key()).danger_allow_plain_http();
    let request = TokenRequest::client_credentials(format!("{endpoint}/token"), CLIENT_ID)
        .client_secret_post(CLIENT_SECRET);
    let audience = Audience::origins([&api]).unwrap();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
    // The servers know themselves by another name, and refuse the proof; that it came is all.
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(http);
    let error = stack.oneshot(get(&api)).await.unwrap_err();
    assert_eq!(
        find(&error).oauth_error().unwrap().code(),
        "invalid_dpop_proof"
    );
    assert_eq!(connected(&seen), set([&endpoint]));
    assert_eq!(authorization_server.request_count(), 1);
}

// F70: a token endpoint that sends the client elsewhere.

#[tokio::test(start_paused = true)]
async fn f70_a_redirect_of_the_token_request_is_not_followed() {
    for status in [300, 301, 302, 303, 307, 308] {
        for location in [
            "https://evil.example/token",
            "http://169.254.169.254/",
            "//evil.example/token",
            "/token2",
            "https://as.example.com/token2",
        ] {
            let fake = Fake::new(move |seen, _| match seen.uri.host() {
                Some(AS) => answer(status, &[("location", location)], ""),
                _ => ok(),
            });
            let request = request().client_secret_basic("s3cret");
            let error = stack_with(&fake, request)
                .oneshot(get(API))
                .await
                .unwrap_err();
            let error = find(&error);
            assert!(error.is_token_request(), "{error}");
            assert!(error.to_string().contains("redirect"), "{error}");
            let seen = fake.seen();
            assert_eq!(seen.len(), 1, "{status} {location}");
            assert_eq!(seen[0].uri, ENDPOINT);
        }
    }
}

#[tokio::test]
async fn f70_nobody_else_hears_of_it_over_tcp() {
    let (authorization_server, resource_server) = servers().await;
    let (elsewhere, _) = servers().await;
    for status in [301, 302, 303, 307, 308] {
        let (http, seen) = noting();
        let response = http::Response::builder()
            .status(status)
            .header("location", elsewhere.token_endpoint());
        authorization_server.answer(1, response.body(Bytes::new()).unwrap());
        let dpop = DpopLayer::new(a3_key());
        let endpoint = authorization_server.token_endpoint();
        let request =
            TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
        let audience = Audience::origins([resource_server.origin()]).unwrap();
        let tokens = TokenLayer::new(&dpop, http, request, audience).unwrap();
        let error = tokens.access_token().await.unwrap_err();
        assert!(error.to_string().contains("redirect"), "{error}");
        assert_eq!(connected(&seen), set([authorization_server.origin()]));
    }
    assert_eq!(elsewhere.request_count(), 0);
}

// F71: an answer that names other servers.

#[tokio::test(start_paused = true)]
async fn f71_nothing_that_an_answer_names_is_asked() {
    const METADATA: &str = "http://169.254.169.254/latest/meta-data";
    let challenge = |error: &str| {
        format!(
            r#"DPoP error="{error}", resource_metadata="{METADATA}", realm="{METADATA}", authorization_uri="{METADATA}", as_uri="{METADATA}", error_uri="{METADATA}", jwks_uri="{METADATA}""#
        )
    };
    for (status, error) in [
        (401, "invalid_token"),
        (401, "use_dpop_nonce"),
        (401, "invalid_dpop_proof"),
        (401, "insufficient_user_authentication"),
        (403, "insufficient_scope"),
        (302, "invalid_token"),
    ] {
        let challenge = challenge(error);
        let fake = Fake::new(move |seen, n| {
            let mut answer = match (seen.uri.host(), seen.number % 2) {
                (Some(AS), 0) => token(&format!("t{n}"), 1),
                (Some(AS), _) => {
                    let mut answer = refusal("invalid_client");
                    let body =
                        serde_json::json!({"error": "invalid_client", "error_uri": METADATA});
                    *answer.body_mut() = Full::from(body.to_string());
                    answer
                }
                _ => answer(status, &[("www-authenticate", &challenge)], ""),
            };
            for (name, value) in [
                ("dpop-nonce", format!("n{n}")),
                ("location", METADATA.to_owned()),
                ("content-location", METADATA.to_owned()),
                ("refresh", format!("0; url={METADATA}")),
                (
                    "link",
                    format!(r#"<{METADATA}>; rel="oauth-protected-resource""#),
                ),
                ("alt-svc", r#"h2="169.254.169.254:80""#.to_owned()),
                ("date", "Thu, 01 Jan 2026 00:00:00 GMT".to_owned()),
            ] {
                answer = and(answer, name, &value);
            }
            answer
        });
        let stack = stack(&fake);
        for _ in 0..10 {
            let _ = stack.clone().oneshot(get(API)).await;
            tokio::time::sleep(Duration::from_secs(31)).await;
        }
        let seen = fake.seen();
        assert!(fake.hits(AS) > 2 && fake.hits(RS) > 2, "{error}");
        assert_eq!(seen.len(), fake.hits(AS) + fake.hits(RS), "{error}");
        let uris: BTreeSet<_> = seen.iter().map(|seen| seen.uri.to_string()).collect();
        assert_eq!(uris, set([ENDPOINT, &format!("{API}/")]), "{error}");
    }
}

#[tokio::test]
async fn f71_nor_is_it_connected_to() {
    let (authorization_server, resource_server) = servers().await;
    let (http, seen) = noting();
    let dpop = DpopLayer::new(a3_key());
    let endpoint = authorization_server.token_endpoint();
    let request =
        TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
    let audience = Audience::origins([resource_server.origin()]).unwrap();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(http);
    resource_server.refuse(
        3,
        r#"DPoP error="invalid_token", resource_metadata="http://169.254.169.254/""#,
    );
    for _ in 0..4 {
        stack
            .clone()
            .oneshot(get(&resource_server.url("/")))
            .await
            .unwrap();
    }
    assert!(resource_server.request_count() > 4);
    assert_eq!(
        connected(&seen),
        set([authorization_server.origin(), resource_server.origin()])
    );
}
