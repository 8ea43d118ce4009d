//! Servers that give nonces in every wrong way: F41 to F48 of the fault catalogue.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::HashSet,
    future::{Ready, ready},
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpListener},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{
    API, Answer, Fake, Seen, a3_key, answer, claims, get, invalid_token, nonce_challenge, ok,
    own_token, plain, text, token, token_layer, token_nonce_challenge, with_token,
};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneService};
use tower_dpop::{
    AccessToken, Audience, BoxError, DpopLayer, Error, ToAuthorizationServer, TokenLayer,
    TokenRequest,
};

const AS: &str = "as.example.com";
const RS: &str = "api.example.com";

/// The longest nonce that is used, and how many are kept, in number and in bytes.
const MAX_NONCE_BYTES: usize = 2048;
const MAX_NONCES: usize = 256;
const MAX_TOTAL_BYTES: usize = 256 * 1024;

type Stack = BoxCloneService<Request<Full<Bytes>>, Answer, BoxError>;

/// `Dpop` alone; `with_own_token` brings the token.
fn signing(server: &Fake) -> Stack {
    let stack = DpopLayer::new(a3_key()).layer(server.clone());
    BoxCloneService::new(stack.map_response(plain))
}

/// Both layers over `server`, which is authorization server and resource server at once.
fn both(server: &Fake) -> Stack {
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, server.clone());
    let stack = ServiceBuilder::new().layer(tokens).layer(dpop);
    BoxCloneService::new(stack.service(server.clone()).map_response(plain))
}

fn with_own_token(uri: &str) -> Request<Full<Bytes>> {
    static TOKEN: LazyLock<AccessToken> = LazyLock::new(|| own_token(&a3_key()));
    with_token(get(uri), &TOKEN)
}

fn nonces(seen: &[Seen]) -> Vec<Option<String>> {
    seen.iter().map(Seen::nonce).collect()
}

fn some(nonces: &[&str]) -> Vec<Option<String>> {
    nonces.iter().map(|nonce| Some((*nonce).into())).collect()
}

fn with_nonce(mut answer: Answer, nonce: &str) -> Answer {
    let nonce = HeaderValue::try_from(nonce).unwrap();
    answer.headers_mut().insert("dpop-nonce", nonce);
    answer
}

// F41: a server challenges every request with a new nonce.

#[tokio::test(start_paused = true)]
async fn f41_a_server_that_never_stops_asking_gets_three_sends() {
    const REQUESTS: usize = 10_000;
    // No more than what is looked at: the whole requests would fill the memory.
    #[derive(Default)]
    struct Log {
        paths: Vec<String>,
        nonces: Vec<Option<String>>,
        jtis: HashSet<String>,
    }
    let log = Arc::new(Mutex::new(Log::default()));
    let server = {
        let log = log.clone();
        service_fn(move |request: Request<Full<Bytes>>| {
            let claims = claims(request.headers()["dpop"].to_str().unwrap());
            let mut log = log.lock().unwrap();
            let challenge = nonce_challenge(&format!("n{}", log.paths.len()));
            log.paths.push(request.uri().path().to_owned());
            log.nonces.push(claims["nonce"].as_str().map(str::to_owned));
            log.jtis.insert(claims["jti"].as_str().unwrap().to_owned());
            ready(Ok::<_, BoxError>(challenge))
        })
    };
    let authorization_server = Fake::new(|_, _| token("t", 300));
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, authorization_server.clone());
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(server);
    for n in 0..REQUESTS {
        let request = get(&format!("{API}/{n}"));
        let answer = stack.clone().oneshot(request).await.unwrap();
        let last = 3 * n + 2;
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["dpop-nonce"], format!("n{last}"));
        assert_eq!(
            text(answer).await,
            "challenge",
            "the last answer, as it was"
        );
        assert_eq!(log.lock().unwrap().paths.len(), last + 1);
    }
    let log = log.lock().unwrap();
    for (n, path) in log.paths.iter().enumerate() {
        assert_eq!(*path, format!("/{}", n / 3));
    }
    // Each send has the nonce that was offered just before: none was sent a second time.
    assert_eq!(log.nonces[0], None);
    for (n, nonce) in log.nonces[1..].iter().enumerate() {
        assert_eq!(*nonce, Some(format!("n{n}")));
    }
    assert_eq!(log.jtis.len(), 3 * REQUESTS);
    assert_eq!(
        authorization_server.seen().len(),
        1,
        "a nonce challenge says nothing against the token"
    );
}

/// Why an answer is no success.
#[derive(Debug, Clone, Copy, PartialEq)]
enum No {
    Nonce,
    Token,
    Clock,
}

impl No {
    fn answer(self, n: usize) -> Answer {
        let answer = match self {
            Self::Nonce => nonce_challenge(""),
            Self::Token => invalid_token(),
            Self::Clock => {
                // Another time in each answer, or there would be nothing to correct.
                let minutes = u32::try_from(n + 1).unwrap();
                let time = SystemTime::now() + minutes * Duration::from_secs(60);
                let challenge = r#"DPoP error="invalid_dpop_proof""#;
                let date = httpdate::fmt_http_date(time);
                answer(401, &[("www-authenticate", challenge), ("date", &date)], "")
            }
        };
        with_nonce(answer, &format!("n{n}"))
    }
}

/// Two nonce retries, and one more sending for a renewed token or a corrected clock: for one request, not for
/// each of its tokens.
#[tokio::test(start_paused = true)]
async fn f41_one_request_is_sent_four_times_at_the_most() {
    const ANSWERS: u32 = 5;
    let mut most = 0;
    // All orders of refusals; the token is in the cache, or it is not.
    for (order, cached) in (0..3_usize.pow(ANSWERS)).flat_map(|n| [(n, false), (n, true)]) {
        let refusals: Vec<No> = (0..ANSWERS)
            .map(|digit| [No::Nonce, No::Token, No::Clock][order / 3_usize.pow(digit) % 3])
            .collect();
        let (mut nonces, mut corrections) = (2, 1);
        let (mut sends, mut tokens) = (1, 1);
        for refusal in &refusals {
            let budget = match refusal {
                No::Nonce => &mut nonces,
                No::Token | No::Clock => &mut corrections,
            };
            if *budget == 0 {
                break;
            }
            *budget -= 1;
            sends += 1;
            tokens += usize::from(*refusal == No::Token);
        }
        most = most.max(sends);

        let answers = refusals.clone();
        let answered = AtomicUsize::new(0);
        let server = Fake::new(move |seen, n| match (seen.uri.host(), seen.uri.path()) {
            (Some(AS), _) => token(&format!("t{n}"), 300),
            (_, "/first") => ok(),
            _ => {
                let n = answered.fetch_add(1, Ordering::Relaxed);
                answers[n.min(answers.len() - 1)].answer(n)
            }
        });
        let stack = both(&server);
        if cached {
            let request = get(&format!("{API}/first"));
            stack.clone().oneshot(request).await.unwrap();
        }
        let answer = stack.oneshot(get(API)).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(
            server.seen_by(RS).len() - usize::from(cached),
            sends,
            "{refusals:?}, cached: {cached}"
        );
        assert_eq!(
            server.seen_by(AS).len(),
            tokens,
            "{refusals:?}, cached: {cached}"
        );
    }
    assert_eq!(most, 4);
}

// F42: the nonce rotates on every answer, that to the retry included.

#[tokio::test]
async fn f42_the_answer_to_a_retry_teaches_the_next_nonce_whatever_it_is() {
    for status in [200, 204, 302, 400, 401, 403, 404, 409, 429, 500, 503] {
        let server = Fake::new(move |_, n| match n {
            0 => nonce_challenge("first"),
            1 => answer(status, &[("dpop-nonce", "second")], ""),
            _ => ok(),
        });
        let stack = signing(&server);
        for (status, sends) in [(status, 2), (200, 3)] {
            let request = with_own_token(API);
            let answer = stack.clone().oneshot(request).await.unwrap();
            assert_eq!(
                (answer.status(), server.seen().len()),
                (status_of(status), sends)
            );
        }
        let sent = nonces(&server.seen());
        assert_eq!(sent[0], None);
        assert_eq!(sent[1..], some(&["first", "second"]), "{status}");
    }
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap()
}

#[tokio::test]
async fn f42_a_nonce_that_stands_in_the_challenge_only_is_kept() {
    let server = Fake::new(|seen, _| match seen.nonce().as_deref() {
        Some("only") => ok(),
        _ => nonce_challenge("only"),
    });
    let stack = signing(&server);
    for sends in [2, 3, 4] {
        let request = with_own_token(API);
        let answer = stack.clone().oneshot(request).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), server.seen().len()),
            (200, sends)
        );
    }
}

#[tokio::test]
async fn f42_with_a_nonce_in_every_answer_only_the_first_request_is_sent_twice() {
    // Only the nonce of the last answer is good.
    const STATUSES: [u16; 11] = [200, 204, 302, 400, 401, 403, 404, 409, 429, 500, 503];
    let server = Fake::new(|seen, n| {
        let fresh = format!("n{n}");
        if n > 0 && seen.nonce() == Some(format!("n{}", n - 1)) {
            answer(STATUSES[n % STATUSES.len()], &[("dpop-nonce", &fresh)], "")
        } else {
            nonce_challenge(&fresh)
        }
    });
    let stack = signing(&server);
    for n in 1..=100 {
        let request = with_own_token(API);
        let answer = stack.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), STATUSES[n % STATUSES.len()]);
        assert_eq!(server.seen().len(), n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn f42_a_refused_token_teaches_its_nonce_to_the_renewed_request() {
    let server = Fake::new(
        |seen, _| match (seen.uri.host(), seen.header("authorization")) {
            (Some(AS), _) if seen.nonce().is_none() => {
                with_nonce(token("old", 300), "of-the-authorization-server")
            }
            (Some(AS), _) => token("new", 300),
            (_, Some("DPoP old")) if seen.nonce().is_none() => nonce_challenge("first"),
            (_, Some("DPoP old")) => with_nonce(invalid_token(), "second"),
            _ if seen.nonce().as_deref() == Some("second") => ok(),
            _ => nonce_challenge("not second"),
        },
    );
    let answer = both(&server).oneshot(get(API)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let sent = nonces(&server.seen_by(RS));
    assert_eq!(sent[0], None);
    assert_eq!(sent[1..], some(&["first", "second"]));
    let asked = nonces(&server.seen_by(AS));
    assert_eq!(asked, [None, Some("of-the-authorization-server".into())]);
}

// F43: answers carry new nonces while 64 requests are under way.

const IN_FLIGHT: usize = 64;
const ANSWER_TAKES: Duration = Duration::from_millis(10);

/// How long 64 requests took that were started at once; all must succeed.
async fn round(stack: &Stack) -> Duration {
    let started = tokio::time::Instant::now();
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(stack.clone().oneshot(with_own_token(API))))
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
    started.elapsed()
}

/// A server that takes each nonce once, and gives one with every answer.
fn one_time() -> Fake {
    let unused = Mutex::new(HashSet::new());
    Fake::new(move |seen, n| {
        let fresh = format!("n{n}");
        let mut unused = unused.lock().unwrap();
        unused.insert(fresh.clone());
        match seen.nonce() {
            Some(nonce) if unused.remove(&nonce) => with_nonce(ok(), &fresh),
            _ => nonce_challenge(&fresh),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn f43_where_each_nonce_serves_once_64_at_once_cost_one_more_send_each_at_first() {
    let server = one_time().delay(ANSWER_TAKES);
    let stack = signing(&server);
    // In the first round nobody has a nonce; in the others each has one that no other has.
    for rounds in [2, 1, 1, 1] {
        let before = server.seen().len();
        // All at once, and all that were challenged once more at once: no lock is held while one waits.
        assert_eq!(round(&stack).await, rounds * ANSWER_TAKES);
        let seen = server.seen();
        assert_eq!(seen.len() - before, rounds as usize * IN_FLIGHT);
        // One after the other costs nothing more, and the last answer's nonce is the one that is used.
        let request = with_own_token(API);
        stack.clone().oneshot(request).await.unwrap();
        let last = format!("n{}", seen.len() - 1);
        assert_eq!(nonces(&server.seen()[seen.len()..]), some(&[&last]));
    }
}

/// Callers that go on and on, so many requests each.
async fn going_on(stack: &Stack, callers: usize, requests: usize) {
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let stack = stack.clone();
            tokio::spawn(async move {
                for _ in 0..requests {
                    let request = with_own_token(API);
                    assert_eq!(stack.clone().oneshot(request).await.unwrap().status(), 200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn f43_more_callers_than_before_cost_one_more_send_each_and_not_for_ever() {
    // No two answers take the same time, so that requests overtake each other in every way.
    let count = AtomicUsize::new(0);
    let server = one_time().delay_by(move |_| {
        let n = count.fetch_add(1, Ordering::Relaxed) as u64;
        Duration::from_micros(5_000 + n.wrapping_mul(2_654_435_761) % 10_000)
    });
    let stack = signing(&server);
    for callers in [8, 64, 32, 64, 1, 64] {
        let before = server.seen().len();
        going_on(&stack, callers, 100).await;
        let extra = server.seen().len() - before - callers * 100;
        assert!(extra <= callers, "{callers} callers: {extra}");
    }
}

#[tokio::test(start_paused = true)]
async fn f43_a_rotation_costs_each_request_in_flight_one_send_and_the_next_round_none() {
    // Each answer has a nonce of its own, and all of one epoch are good.
    let epoch = Arc::new(AtomicUsize::new(0));
    let server = {
        let epoch = epoch.clone();
        Fake::new(move |seen, n| {
            let epoch = epoch.load(Ordering::Relaxed);
            let fresh = format!("e{epoch}.{n}");
            let prefix = format!("e{epoch}.");
            match seen.nonce() {
                Some(nonce) if nonce.starts_with(&prefix) => with_nonce(ok(), &fresh),
                _ => nonce_challenge(&fresh),
            }
        })
        .delay(ANSWER_TAKES)
    };
    let stack = signing(&server);
    round(&stack).await;
    for _ in 0..10 {
        let before = server.seen().len();
        assert_eq!(round(&stack).await, ANSWER_TAKES);
        assert_eq!(server.seen().len() - before, IN_FLIGHT);

        // Half-way through the next round the server turns to a new epoch.
        let before = server.seen().len();
        let (took, ()) = tokio::join!(round(&stack), async {
            tokio::time::sleep(ANSWER_TAKES / 2).await;
            epoch.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(took, 2 * ANSWER_TAKES);
        assert_eq!(server.seen().len() - before, 2 * IN_FLIGHT);
    }
}

#[tokio::test(start_paused = true)]
async fn f43_a_late_answer_with_an_old_nonce_costs_the_next_request_one_send() {
    let server = Fake::new(|seen, _| match (seen.uri.path(), seen.nonce().as_deref()) {
        ("/late", _) => with_nonce(ok(), "old"),
        (_, Some("new")) => with_nonce(ok(), "new"),
        _ => nonce_challenge("new"),
    });
    let late = {
        let server = server.clone();
        service_fn(move |request: Request<Full<Bytes>>| {
            let server = server.clone();
            async move {
                if request.uri().path() == "/late" {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                server.oneshot(request).await
            }
        })
    };
    let stack = DpopLayer::new(a3_key()).layer(late);
    let request = with_own_token(&format!("{API}/late"));
    let under_way = tokio::spawn(stack.clone().oneshot(request));
    tokio::task::yield_now().await;
    for sends in [2, 1, 1] {
        let before = server.seen().len();
        stack.clone().oneshot(with_own_token(API)).await.unwrap();
        assert_eq!(server.seen().len() - before, sends);
    }
    under_way.await.unwrap().unwrap();
    for sends in [2, 1, 1] {
        let before = server.seen().len();
        stack.clone().oneshot(with_own_token(API)).await.unwrap();
        assert_eq!(server.seen().len() - before, sends);
    }
}

// F44: a nonce challenge with no `DPoP-Nonce`.

#[tokio::test]
async fn f44_a_challenge_without_a_nonce_is_not_answered() {
    let none: &[&str] = &[];
    // Of two nonces neither is meant: a server must send one.
    for (status, offered) in [
        (401, none),
        (400, none),
        (401, &["one", "two"]),
        (401, &["same", "same"]),
    ] {
        // First without a nonce, and then with a known one, which is kept.
        for known in [None, Some("known")] {
            let server = Fake::new(move |_, n| match (n, known) {
                (0, Some(known)) => with_nonce(ok(), known),
                _ => {
                    let mut challenge = nonce_challenge("");
                    *challenge.status_mut() = status_of(status);
                    challenge.headers_mut().remove("dpop-nonce");
                    for nonce in offered {
                        let nonce = HeaderValue::from_static(nonce);
                        challenge.headers_mut().append("dpop-nonce", nonce);
                    }
                    challenge
                }
            });
            let stack = signing(&server);
            if known.is_some() {
                stack.clone().oneshot(with_own_token(API)).await.unwrap();
            }
            for _ in 0..3 {
                let before = server.seen().len();
                let answer = stack.clone().oneshot(with_own_token(API)).await.unwrap();
                assert_eq!(answer.status(), status);
                assert_eq!(text(answer).await, "challenge", "as it was");
                assert_eq!(server.seen().len() - before, 1, "{status} {offered:?}");
                assert_eq!(server.seen()[before].nonce().as_deref(), known);
            }
        }
    }
}

#[tokio::test]
async fn f44_nor_is_one_of_the_authorization_server() {
    let server = Fake::new(|_, _| answer(400, &[], r#"{"error":"use_dpop_nonce"}"#));
    let error = both(&server).oneshot(get(API)).await.unwrap_err();
    let error = Error::find(&*error).unwrap();
    assert_eq!(error.oauth_error().unwrap().code(), "use_dpop_nonce");
    assert_eq!(server.seen().len(), 1);
}

// F45: the same nonce is offered again.

#[tokio::test]
async fn f45_a_nonce_that_was_just_sent_is_not_sent_again() {
    let server = Fake::new(|_, _| nonce_challenge("same"));
    let stack = signing(&server);
    // Only the first request has something new to send.
    for (request, sends) in [2, 1, 1, 1].into_iter().enumerate() {
        let before = server.seen().len();
        let answer = stack.clone().oneshot(with_own_token(API)).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(text(answer).await, "challenge");
        assert_eq!(server.seen().len() - before, sends, "request {request}");
    }
    let sent = nonces(&server.seen());
    assert_eq!(sent[0], None);
    assert_eq!(sent[1..], some(&["same"; 4]));
}

#[tokio::test(start_paused = true)]
async fn f45_nor_is_it_to_the_authorization_server() {
    let server = Fake::new(|_, _| token_nonce_challenge("same"));
    let stack = both(&server);
    for sends in [2, 1, 1] {
        let before = server.seen().len();
        let error = stack.clone().oneshot(get(API)).await.unwrap_err();
        let error = Error::find(&*error).unwrap();
        assert_eq!(error.oauth_error().unwrap().code(), "use_dpop_nonce");
        assert_eq!(server.seen().len() - before, sends);
        // Longer than it waits after any failure.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

// F46: hostile nonces.

/// A server on loopback that answers each request with the next of `answers`, byte by byte, on a connection
/// of its own. It tells the nonce of each request.
fn raw_server(answers: Vec<Vec<u8>>) -> (String, mpsc::Receiver<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (sender, nonces) = mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut proof = None;
            for line in BufReader::new(&stream).lines() {
                let line = line.unwrap();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("dpop: ") {
                    proof = Some(value.to_owned());
                }
            }
            let claims = claims(&proof.expect("a proof"));
            let nonce = claims["nonce"].as_str().map(str::to_owned);
            sender.send(nonce).unwrap();
            // A client that has seen enough hangs up.
            let _ = stream.write_all(&answer);
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    (origin, nonces)
}

#[tokio::test]
async fn f46_a_hostile_nonce_changes_nothing() {
    let long = |bytes| vec![b'x'; bytes];
    let hostile: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b" ".to_vec(),
        b"a b".to_vec(),
        b"a\tb".to_vec(),
        b"a\"b".to_vec(),
        b"a\\b".to_vec(),
        "a\u{e9}b".into(),
        b"a\xffb".to_vec(),
        b"a\x7fb".to_vec(),
        b"a\0b".to_vec(),
        b"a\rb".to_vec(),
        b"a\nb".to_vec(),
        b"a\r\n b".to_vec(),
        b"a\r\nDPoP-Nonce: b".to_vec(),
        long(MAX_NONCE_BYTES + 1),
        long(64 * 1024),
        long(1024 * 1024),
    ];
    let with = |head: &[u8], nonce: &[u8]| {
        let end = b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        [head, b"DPoP-Nonce: ", nonce, end].concat()
    };
    let challenge =
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: DPoP error=\"use_dpop_nonce\"\r\n";
    let success = b"HTTP/1.1 200 OK\r\n";
    let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let mut answers = vec![with(success, b"good")];
    for nonce in &hostile {
        for head in [&success[..], &challenge[..]] {
            answers.extend([with(head, nonce), plain.to_vec()]);
        }
    }
    // The longest one that is taken.
    answers.extend([with(success, &long(MAX_NONCE_BYTES)), plain.to_vec()]);

    let (origin, nonces) = raw_server(answers);
    let audience = Audience::origins([&origin]).unwrap();
    let token = AccessToken::new("t", &a3_key(), audience).unwrap();
    let http = Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .build_http::<Full<Bytes>>();
    let stack = DpopLayer::new(a3_key()).layer(http);
    let send = async || {
        stack
            .clone()
            .oneshot(with_token(get(&origin), &token))
            .await
    };

    send().await.unwrap();
    assert_eq!(nonces.recv().unwrap(), None);
    for hostile in &hostile {
        let name = hostile[..hostile.len().min(20)].escape_ascii();
        for status in [200, 401] {
            match send().await {
                Ok(answer) => assert_eq!(answer.status(), status, "{name}"),
                // What is no HTTP is the client's to refuse; its error is not taken for one of ours.
                Err(error) => {
                    assert!(error.is::<hyper_util::client::legacy::Error>(), "{error}");
                }
            }
            assert_eq!(nonces.recv().unwrap().as_deref(), Some("good"), "{name}");
            // One send, and the old nonce was kept.
            assert_eq!(send().await.unwrap().status(), 200);
            assert_eq!(nonces.recv().unwrap().as_deref(), Some("good"), "{name}");
        }
    }
    for length in ["good".len(), MAX_NONCE_BYTES] {
        assert_eq!(send().await.unwrap().status(), 200);
        assert_eq!(nonces.recv().unwrap().unwrap().len(), length);
    }
    assert!(nonces.recv().is_err(), "no request more");
}

#[tokio::test(start_paused = true)]
async fn f46_nor_does_one_of_the_authorization_server() {
    let long = "x".repeat(MAX_NONCE_BYTES + 1);
    let longer = "x".repeat(1024 * 1024);
    for hostile in [
        "", "a b", "a\tb", "a\"b", "a\\b", "a\u{e9}b", &long, &longer,
    ] {
        let nonce = HeaderValue::from_bytes(hostile.as_bytes()).unwrap();
        let server = Fake::new(move |seen, n| match (seen.uri.host(), n) {
            (Some(AS), 0) => token_nonce_challenge("good"),
            (Some(AS), 1) => {
                let mut challenge = token_nonce_challenge("");
                challenge.headers_mut().insert("dpop-nonce", nonce.clone());
                challenge
            }
            (Some(AS), _) => token("t", 300),
            _ => ok(),
        });
        let stack = both(&server);
        let name = &hostile[..hostile.len().min(20)];
        let error = stack.clone().oneshot(get(API)).await.unwrap_err();
        assert!(Error::find(&*error).unwrap().is_token_request(), "{name:?}");
        assert_eq!(server.seen().len(), 2, "{name:?}");
        // Longer than it waits after any failure.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
        let asked = nonces(&server.seen_by(AS));
        assert_eq!(asked[0], None);
        assert_eq!(asked[1..], some(&["good", "good"]), "{name:?}");
    }
}

// F47: more origins than can be remembered.
//
// Nonces are bounded in number and in bytes. None is dropped for being idle: what is bounded needs no clock,
// and a nonce that has become too old costs one challenge, as one that was dropped would.

/// The nonce of the last request.
type Sent = Arc<Mutex<Option<String>>>;

/// A server that answers a request for `uri` with `nonce(uri)`, and one with a query without a nonce: so
/// looking changes nothing.
fn giving(nonce: impl Fn(&http::Uri) -> String + Clone + Send + 'static) -> (Stack, Sent) {
    let sent = Arc::new(Mutex::new(None));
    let last = sent.clone();
    let server = service_fn(move |request: Request<Full<Bytes>>| -> Ready<_> {
        let claims = claims(request.headers()["dpop"].to_str().unwrap());
        *last.lock().unwrap() = claims["nonce"].as_str().map(str::to_owned);
        ready(Ok::<_, BoxError>(if request.uri().query().is_some() {
            ok()
        } else {
            with_nonce(ok(), &nonce(request.uri()))
        }))
    });
    let stack = DpopLayer::new(a3_key()).layer(server);
    (BoxCloneService::new(stack.map_response(plain)), sent)
}

/// A token for all of them.
fn everywhere() -> AccessToken {
    AccessToken::new("t", &a3_key(), Audience::danger_any_https_origin()).unwrap()
}

#[tokio::test]
async fn f47_of_twenty_thousand_origins_the_last_256_are_remembered() {
    const ORIGINS: usize = 20_000;
    let (stack, sent) = giving(|uri| uri.host().unwrap().to_owned());
    let token = everywhere();
    let visit = async |n: usize, query: &str| {
        let request = with_token(get(&format!("https://{n}.example/{query}")), &token);
        stack.clone().oneshot(request).await.unwrap();
        sent.lock().unwrap().take()
    };
    for n in 0..ORIGINS {
        assert_eq!(visit(n, "").await, None);
    }
    let known = ORIGINS - MAX_NONCES;
    let old = (0..known).rev();
    for n in old.clone().take(1000).chain(old.step_by(100)) {
        assert_eq!(visit(n, "?").await, None, "{n}");
    }
    for n in known..ORIGINS {
        assert_eq!(visit(n, "?").await, Some(format!("{n}.example")), "{n}");
    }
}

#[tokio::test]
async fn f47_all_nonces_together_have_256_kib() {
    const ORIGINS: usize = 300;
    let (stack, sent) = giving(|uri| format!("{:x<MAX_NONCE_BYTES$}", uri.host().unwrap()));
    let token = everywhere();
    let visit = async |n: usize, query: &str| {
        let request = with_token(get(&format!("https://{n}.example/{query}")), &token);
        stack.clone().oneshot(request).await.unwrap();
        sent.lock().unwrap().take()
    };
    for n in 0..ORIGINS {
        visit(n, "").await;
    }
    let mut bytes = 0;
    for n in 0..ORIGINS {
        let nonce = visit(n, "?").await;
        assert_eq!(
            nonce.is_some(),
            n >= ORIGINS - MAX_TOTAL_BYTES / MAX_NONCE_BYTES,
            "{n}"
        );
        bytes += nonce.map_or(0, |nonce| nonce.len());
    }
    assert_eq!(bytes, MAX_TOTAL_BYTES);
}

#[tokio::test]
async fn f47_a_thousand_paths_are_one_origin() {
    let (stack, sent) = giving(|uri| format!("{}{}", uri.host().unwrap(), uri.path()));
    let token = everywhere();
    let visit = async |uri: String| {
        let request = with_token(get(&uri), &token);
        stack.clone().oneshot(request).await.unwrap();
        sent.lock().unwrap().take()
    };
    for n in 1..MAX_NONCES {
        visit(format!("https://{n}.example/")).await;
    }
    for n in 0..1000 {
        let sent = visit(format!("https://many.example/{n}")).await;
        let last = (n > 0).then(|| format!("many.example/{}", n - 1));
        assert_eq!(sent, last, "a nonce is for the origin, not for the path");
    }
    for n in 1..MAX_NONCES {
        let sent = visit(format!("https://{n}.example/?")).await;
        assert_eq!(sent, Some(format!("{n}.example/")), "nobody was pushed out");
    }
}

#[tokio::test]
async fn f47_a_nonce_is_for_scheme_host_and_port() {
    const ORIGINS: [&str; 5] = [
        "https://localhost",
        "https://localhost:8443",
        "http://localhost",
        "http://localhost:8443",
        "https://other.localhost",
    ];
    let own = |uri: &str| {
        let place = ORIGINS.iter().position(|origin| *origin == uri).unwrap();
        format!("n{place}")
    };
    let server = Fake::new(move |seen, _| {
        let uri = seen.uri.to_string();
        with_nonce(ok(), &own(uri.trim_end_matches('/')))
    });
    let audience = Audience::origins(ORIGINS).unwrap();
    let token = AccessToken::new("t", &a3_key(), audience).unwrap();
    let stack = signing(&server);
    for round in 0..2 {
        for origin in ORIGINS {
            let request = with_token(get(origin), &token);
            stack.clone().oneshot(request).await.unwrap();
            let sent = server.seen().last().unwrap().nonce();
            assert_eq!(sent, (round > 0).then(|| own(origin)), "{origin}");
        }
    }
}

// F48: authorization server and resource server at one origin.

#[tokio::test(start_paused = true)]
async fn f48_the_two_servers_of_one_origin_have_nonces_of_their_own() {
    // Each gives a new nonce with every answer, takes its own last one only, and tells of any other.
    let last = Mutex::new([None::<String>, None]);
    let foreign = Arc::new(AtomicUsize::new(0));
    let server = {
        let foreign = foreign.clone();
        Fake::new(move |seen, n| {
            let to_as = seen.uri.path() == "/token";
            let own = if to_as { "as" } else { "rs" };
            let fresh = format!("{own}.{n}");
            let sent = seen.nonce();
            if sent.as_ref().is_some_and(|nonce| !nonce.starts_with(own)) {
                foreign.fetch_add(1, Ordering::Relaxed);
            }
            let wanted = last.lock().unwrap()[usize::from(to_as)].replace(fresh.clone());
            match (to_as, sent.is_some() && sent == wanted) {
                (true, true) => with_nonce(token(&format!("t{n}"), 20), &fresh),
                (true, false) => token_nonce_challenge(&fresh),
                (false, true) => with_nonce(ok(), &fresh),
                (false, false) => nonce_challenge(&fresh),
            }
        })
    };
    let dpop = DpopLayer::new(a3_key());
    let request = TokenRequest::client_credentials(format!("{API}/token"), "m2m.dpop");
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, server.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(server.clone());
    for _ in 0..100 {
        let answer = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(answer.status(), 200);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(foreign.load(Ordering::Relaxed), 0, "never mixed");
    let (asked, served): (Vec<_>, Vec<_>) = server
        .seen()
        .into_iter()
        .partition(|seen| seen.uri.path() == "/token");
    assert!(asked.len() > 30, "a new token every now and then");
    for seen in [&asked, &served] {
        // One challenge each: what one learns, the other neither takes nor loses.
        assert_eq!(seen.iter().filter(|seen| seen.nonce().is_none()).count(), 1);
    }
    assert_eq!(served.len(), 100 + 1);
}

#[tokio::test]
async fn f48_so_has_a_request_of_ones_own_to_the_authorization_server() {
    let server = Fake::new(|seen, _| {
        let role = if seen.claims().get("ath").is_some() {
            "rs"
        } else {
            "as"
        };
        with_nonce(ok(), role)
    });
    let stack = signing(&server);
    let own = || {
        let mut request = get(API);
        let audience = Audience::origins([API]).unwrap();
        request
            .extensions_mut()
            .insert(ToAuthorizationServer::new(audience));
        request
    };
    for _ in 0..2 {
        stack.clone().oneshot(with_own_token(API)).await.unwrap();
        stack.clone().oneshot(own()).await.unwrap();
    }
    let sent = nonces(&server.seen());
    assert_eq!(sent[..2], [None, None]);
    assert_eq!(sent[2..], some(&["rs", "as"]));
}
