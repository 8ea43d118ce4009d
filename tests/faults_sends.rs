//! What is sent more than once, and how often: F49 and F51 to F53 of the fault catalogue. F50 is in the stacks'
//! own tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::HashSet,
    future::{Ready, ready},
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Body, Frame, Incoming},
    service::service_fn as hyper_service,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use support::{
    API, ENDPOINT, Fake, a3_key, answer,
    bench::{AS, Dice, RS, Wall, secs, stack},
    get, invalid_token, nonce_challenge, ok, own_token, token, with_token,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::{
    Service, ServiceBuilder, ServiceExt, retry, service_fn, timeout::error::Elapsed,
    util::BoxCloneSyncService,
};
use tower_dpop::{
    AccessToken, Audience, BoxError, DpopLayer, EmptyBody, NoReplay, RecordedBody, Replay,
    ReplayBody, TokenLayer, TokenRequest,
    dpop::ResponseBody,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, ResourceServer},
};

type Call = Request<Full<Bytes>>;

/// How much is done: little unless the variable says otherwise.
fn rounds(variable: &str, unless_set: usize) -> usize {
    std::env::var(variable).map_or(unless_set, |number| number.parse().unwrap())
}

// F49: a retry above the layers.

/// Sends again what has not succeeded, so many times.
#[derive(Clone)]
struct Stubborn(usize);

impl<B> retry::Policy<Call, Response<B>, BoxError> for Stubborn {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Call,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Ready<()>> {
        let done = result.as_ref().is_ok_and(|answer| answer.status() == 200);
        self.0 = self.0.checked_sub(1)?;
        (!done).then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Call) -> Option<Call> {
        Some(request.clone())
    }
}

/// What goes wrong with a sending.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    Busy,
    Unavailable,
    /// The request has its effect, and its answer is lost.
    Lost,
    /// The same, and the caller gives it up.
    TimedOut,
}

/// One sending, with whatever goes wrong.
async fn send<S>(
    mut stack: S,
    request: Call,
    wrong: Wrong,
    server: &ResourceServer,
) -> Result<S::Response, BoxError>
where
    S: Service<Call, Error = BoxError>,
{
    match wrong {
        Wrong::Nothing | Wrong::TimedOut => {}
        Wrong::Busy => server.fail(1, StatusCode::TOO_MANY_REQUESTS),
        Wrong::Unavailable => server.fail(1, StatusCode::SERVICE_UNAVAILABLE),
        Wrong::Lost => server.lose_answers(1),
    }
    let before = server.request_count();
    let mut answer = pin!(stack.ready().await?.call(request));
    if wrong == Wrong::TimedOut {
        // A timeout at the worst moment: when the request has arrived, and its answer has not.
        std::future::poll_fn(|cx| {
            if server.request_count() > before {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            assert!(answer.as_mut().poll(cx).is_pending());
            Poll::Pending
        })
        .await;
        return Err(Elapsed::new().into());
    }
    answer.await
}

/// `FAULTS_REQUESTS` of them, if that is set: the catalogue asks for 10⁵.
#[tokio::test]
async fn f49_a_retry_sends_a_proof_of_its_own_each_time() {
    let requests = rounds("FAULTS_REQUESTS", 1_000);
    let authorization_server = AuthorizationServer::start().await.unwrap();
    // Longer than the longest run.
    authorization_server.token_lifetime(secs(86_400));
    let server = ResourceServer::start(&authorization_server).await.unwrap();
    let http = Client::builder(TokioExecutor::new()).build_http();
    let dpop = DpopLayer::new(a3_key());
    let endpoint = authorization_server.token_endpoint();
    let request =
        TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
    let audience = Audience::origins([server.origin()]).unwrap();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(http);

    let sends = Arc::new(AtomicUsize::new(0));
    let dice = Arc::new(Mutex::new(Dice(49)));
    let world = (server.clone(), sends.clone(), stack);
    let mut retrying = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(Stubborn(20)))
        .service(service_fn(move |request: Call| {
            let (server, sends, stack) = world.clone();
            sends.fetch_add(1, Ordering::Relaxed);
            // One sending in six goes wrong, so that for five requests there is one retry.
            let wrong = match dice.lock().unwrap().below(24) {
                0 => Wrong::Busy,
                1 => Wrong::Unavailable,
                2 => Wrong::Lost,
                3 => Wrong::TimedOut,
                _ => Wrong::Nothing,
            };
            async move { send(stack, request, wrong, &server).await }
        }));

    let mut jtis = HashSet::new();
    let mut known = 0;
    server.keep_requests(1_000);
    for number in 0..requests {
        let body = format!("request {number}");
        let request = Request::post(server.url("/orders")).body(Full::from(body.clone()));
        let answer = retrying.ready().await.unwrap().call(request.unwrap());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let echo = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&echo).contains(&body));
        if number % 100 == 99 || number + 1 == requests {
            let count = server.request_count();
            let kept = server.requests();
            for seen in &kept[kept.len() - (count - known)..] {
                assert!(jtis.insert(seen.claim("jti").unwrap()), "{seen:?}");
                assert_eq!(seen.refused(), None);
            }
            known = count;
        }
    }
    assert_eq!(jtis.len(), server.request_count());
    assert_eq!(sends.load(Ordering::Relaxed), server.request_count());
    let retries = sends.load(Ordering::Relaxed) - requests;
    assert!(retries * 100 >= requests * 15, "{retries} retries");
    assert_eq!(authorization_server.request_count(), 1);
}

/// Waits for so long before it sends again.
#[derive(Clone)]
struct Patient(Duration);

impl<B> retry::Policy<Call, Response<B>, BoxError> for Patient {
    type Future = tokio::time::Sleep;

    fn retry(
        &mut self,
        _: &mut Call,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Self::Future> {
        let done = result.as_ref().is_ok_and(|answer| answer.status() == 200);
        (!done).then(|| tokio::time::sleep(self.0))
    }

    fn clone_request(&mut self, request: &Call) -> Option<Call> {
        Some(request.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn f49_each_proof_is_dated_when_it_is_sent() {
    let wall = Wall::new();
    let began = wall.unix();
    let fake = Fake::failing(|_, n| match n {
        0 => Ok(answer(503, &[], "")),
        1 => Ok(answer(429, &[], "")),
        2 => Err(Elapsed::new().into()),
        3 => Err("reset by peer".into()),
        _ => Ok(ok()),
    });
    let stack = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(Patient(secs(300))))
        .layer(wall.layer())
        .service(fake.clone());
    let request = with_token(get(API), &own_token(&a3_key()));
    assert_eq!(stack.oneshot(request).await.unwrap().status(), 200);
    let seen = fake.seen();
    let jtis: HashSet<_> = seen
        .iter()
        .map(|seen| seen.claims()["jti"].to_string())
        .collect();
    assert_eq!(jtis.len(), 5);
    let dates: Vec<_> = seen
        .iter()
        .map(|seen| seen.claims()["iat"].as_i64().unwrap() - began)
        .collect();
    assert_eq!(dates, [0, 300, 600, 900, 1200]);
    assert!(seen.iter().all(|seen| seen.token() == "own.token"));
}

// F51: connections that break while they are reused.

/// When a connection that has served a request is reset.
#[derive(Debug, Clone, Copy)]
enum Reset {
    /// With the answer, so that it is found dead when it is used, or while it is.
    AfterTheAnswer,
    /// When the next request begins to come.
    AtTheFirstBytes,
    /// When the next request is there.
    AtTheWholeRequest,
}

/// Serves connections one after the other, and notes the `jti` of each request that comes as far as its end.
async fn resetting(listener: TcpListener, seen: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    let mut dice = Dice(51);
    loop {
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let reset = match dice.below(3) {
            0 => Reset::AfterTheAnswer,
            1 => Reset::AtTheFirstBytes,
            _ => Reset::AtTheWholeRequest,
        };
        let seen = seen.clone();
        tokio::spawn(async move {
            // An error here is the client's hanging up.
            let _ = one_connection(&mut stream, reset, &seen).await;
            // No good-bye: what is on its way is answered with a reset.
            let _ = stream.set_zero_linger();
        });
    }
}

async fn one_connection(
    stream: &mut TcpStream,
    reset: Reset,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut received = Vec::new();
    head(stream, &mut received, seen).await?;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await?;
    received.clear();
    match reset {
        Reset::AfterTheAnswer => return Ok(()),
        Reset::AtTheFirstBytes => drop(stream.read_buf(&mut received).await?),
        Reset::AtTheWholeRequest => return head(stream, &mut received, seen).await,
    }
    note(&received, seen);
    Ok(())
}

/// Reads up to the end of a request, which has no body.
async fn head(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    while !note(received, seen) {
        if stream.read_buf(received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Notes the `jti` of a request, if that is there as far as its end.
fn note(received: &[u8], seen: &Mutex<Vec<String>>) -> bool {
    if !received.ends_with(b"\r\n\r\n") {
        return false;
    }
    let text = String::from_utf8_lossy(received);
    let mut lines = text.lines();
    let proof = lines.find_map(|line| line.strip_prefix("dpop: "));
    let jti = support::claims(proof.expect("a proof"))["jti"].clone();
    seen.lock().unwrap().push(jti.as_str().unwrap().to_owned());
    true
}

/// `FAULTS_RESETS` of them, if that is set: the catalogue asks for 10⁴.
#[tokio::test]
async fn f51_what_hypers_client_sends_again_by_itself_never_arrived() {
    let resets = rounds("FAULTS_RESETS", 1_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let server = tokio::spawn(resetting(listener, seen.clone()));

    // What goes through here is what the layer signed: once for each request, unless hyper's client did more.
    let signed = Arc::new(AtomicUsize::new(0));
    let count = signed.clone();
    let http: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let key = a3_key();
    let dpop = ServiceBuilder::new()
        .layer(DpopLayer::new(key.clone()))
        .map_request(move |request: Call| {
            count.fetch_add(1, Ordering::Relaxed);
            request
        })
        .service(http);
    let token = AccessToken::new("t", &key, Audience::origins([&origin]).unwrap()).unwrap();
    let (mut answered, mut failed) = (0, 0);
    while answered < resets {
        let request = with_token(get(&origin), &token);
        match dpop.clone().oneshot(request).await {
            Ok(answer) => {
                let body = answer.into_body().collect().await;
                // The reset may overtake the answer.
                if body.is_ok_and(|body| body.to_bytes() == "ok") {
                    answered += 1;
                }
            }
            Err(_) => failed += 1,
        }
    }
    server.abort();
    let seen = seen.lock().unwrap();
    let distinct: HashSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a proof arrived twice");
    assert!(seen.len() <= signed.load(Ordering::Relaxed));
    assert!(failed * 10 > resets, "{failed} resets were felt");
}

// F52: a body that is a stream.

const LARGE: usize = 10 << 20;

/// What a program streams.
struct Source {
    left: usize,
    given: Arc<AtomicUsize>,
}

impl Body for Source {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        static CHUNK: [u8; 16 << 10] = [b'x'; 16 << 10];
        let size = self.left.min(CHUNK.len());
        if size == 0 {
            return Poll::Ready(None);
        }
        self.left -= size;
        self.given.fetch_add(size, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..size])))))
    }
}

type Streamed = UnsyncBoxBody<Bytes, BoxError>;

/// A request with so many bytes, and how much of it was taken.
fn upload(origin: &str, length: usize) -> (Request<Streamed>, Arc<AtomicUsize>) {
    let given = Arc::new(AtomicUsize::new(0));
    let source = Source {
        left: length,
        given: given.clone(),
    };
    let body = Streamed::new(StreamBody::new(BodyStream::new(source)));
    (Request::post(origin).body(body).unwrap(), given)
}

/// What a server says to the first request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refusal {
    Nonce,
    Token,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Self::Nonce => "challenge",
            Self::Token => "refused",
        }
    }
}

/// A server that takes only proofs with its nonce, or only the second token. It says so when it has read the
/// whole body, or at once. It notes how long each request's body was.
async fn picky(refusal: Refusal, reads: bool) -> (String, Arc<Mutex<Vec<usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let log = lengths.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = log.clone();
            let service = hyper_service(move |request: Request<Incoming>| {
                let log = log.clone();
                async move {
                    let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
                    let (proof, token) = (header("dpop"), header("authorization"));
                    let wrong = match refusal {
                        Refusal::Nonce => support::claims(&proof)["nonce"] != "n",
                        Refusal::Token => token != "DPoP t1",
                    };
                    if wrong && !reads {
                        log.lock().unwrap().push(0);
                    } else {
                        let body = request.into_body().collect().await?.to_bytes();
                        log.lock().unwrap().push(body.len());
                    }
                    Ok::<_, hyper::Error>(match (wrong, refusal) {
                        (false, _) => ok(),
                        (true, Refusal::Nonce) => nonce_challenge("n"),
                        (true, Refusal::Token) => invalid_token(),
                    })
                }
            });
            tokio::spawn(async move {
                // An error here is the client's hanging up.
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (origin, lengths)
}

type Upload = BoxCloneSyncService<Request<Streamed>, Response<ResponseBody<Incoming>>, BoxError>;

/// A server that is picky, and an authorization server beside it.
struct World {
    origin: String,
    lengths: Arc<Mutex<Vec<usize>>>,
    authorization_server: Fake,
    http: Client<HttpConnector, Streamed>,
}

impl World {
    async fn new(refusal: Refusal, version: Version, reads: bool) -> Self {
        let (origin, lengths) = picky(refusal, reads).await;
        let http = Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            .build_http();
        Self {
            origin,
            lengths,
            authorization_server: Fake::new(|_, n| token(&format!("t{n}"), 300)),
            http,
        }
    }

    fn tokens<P: Clone>(&self, dpop: &DpopLayer<P>) -> TokenLayer<P> {
        let request = TokenRequest::client_credentials(ENDPOINT, "m2m.dpop");
        let audience = Audience::origins([&self.origin]).unwrap();
        TokenLayer::new(dpop, self.authorization_server.clone(), request, audience).unwrap()
    }

    fn stack<P>(&self, policy: P) -> Upload
    where
        P: Replay<Streamed> + Clone + Send + Sync + 'static,
    {
        let dpop = DpopLayer::new(a3_key()).replay(policy);
        let layers = ServiceBuilder::new().layer(self.tokens(&dpop)).layer(dpop);
        BoxCloneSyncService::new(layers.service(self.http.clone()))
    }

    fn recording(&self) -> Upload {
        let dpop = DpopLayer::new(a3_key()).replay(RecordedBody);
        let stack = ServiceBuilder::new()
            .map_request(|request: Request<Streamed>| request.map(ReplayBody::new))
            .layer(self.tokens(&dpop))
            .layer(dpop)
            .map_request(|request: Request<ReplayBody<Streamed>>| request.map(Streamed::new))
            .service(self.http.clone());
        BoxCloneSyncService::new(stack)
    }

    /// The answer to one upload: its status and its text, and how much of the upload was taken.
    async fn upload(&self, stack: &Upload, length: usize) -> (u16, Bytes, usize) {
        let (request, given) = upload(&self.origin, length);
        let sent = timeout(Duration::from_secs(60), stack.clone().oneshot(request));
        let answer = sent.await.expect("no standstill").unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, body, given.load(Ordering::Relaxed))
    }
}

const REFUSALS: [Refusal; 2] = [Refusal::Nonce, Refusal::Token];
const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Two uploads: the first is refused and not sent again, the second is taken at once.
async fn two_uploads(stack: impl Fn(&World) -> Upload, version: Version, reads: bool) {
    for refusal in REFUSALS {
        let world = World::new(refusal, version, reads).await;
        let stack = stack(&world);
        let (status, text, given) = world.upload(&stack, LARGE).await;
        assert_eq!(status, 401, "{refusal:?} {version:?}");
        assert_eq!(text, refusal.text(), "the server's own answer");
        if reads {
            assert_eq!(given, LARGE);
        }
        let (status, _, given) = world.upload(&stack, LARGE).await;
        assert_eq!((status, given), (200, LARGE), "{refusal:?} {version:?}");
        let first = if reads { LARGE } else { 0 };
        assert_eq!(*world.lengths.lock().unwrap(), [first, LARGE]);
        let token_requests = world.authorization_server.hits(AS);
        assert_eq!(token_requests, 1 + refusal as usize);
    }
}

#[tokio::test]
async fn f52_a_stream_is_sent_once_and_the_next_one_passes() {
    for version in VERSIONS {
        two_uploads(|world| world.stack(NoReplay), version, true).await;
        two_uploads(|world| world.stack(EmptyBody), version, true).await;
        two_uploads(World::recording, version, true).await;
    }
}

#[tokio::test]
async fn f52_so_it_is_where_the_server_does_not_wait_for_its_end() {
    // HTTP/1.1 has no way to end a request but by its connection, and with it the answer may be lost.
    two_uploads(|world| world.stack(NoReplay), Version::HTTP_2, false).await;
    two_uploads(|world| world.stack(EmptyBody), Version::HTTP_2, false).await;
}

#[tokio::test]
async fn f52_a_stream_that_was_kept_is_sent_again() {
    const SHORT: usize = 60 << 10;
    for version in VERSIONS {
        for refusal in REFUSALS {
            let world = World::new(refusal, version, true).await;
            let stack = world.recording();
            for _ in 0..2 {
                let (status, _, given) = world.upload(&stack, SHORT).await;
                assert_eq!((status, given), (200, SHORT), "{refusal:?} {version:?}");
            }
            assert_eq!(*world.lengths.lock().unwrap(), [SHORT; 3]);
        }
    }
}

// F53: refusals that are not about the token.

#[tokio::test]
async fn f53_only_a_token_that_is_refused_as_invalid_is_renewed() {
    const NAME: &str = "www-authenticate";
    type Row = (u16, &'static [(&'static str, &'static str)], bool);
    let rows: [Row; 14] = [
        (401, &[(NAME, r#"DPoP error="invalid_token""#)], true),
        (401, &[(NAME, r#"Bearer error="invalid_token""#)], true),
        (
            401,
            &[
                (NAME, r#"Basic realm="x""#),
                (NAME, "DPoP error=invalid_token"),
            ],
            true,
        ),
        (401, &[], false),
        (401, &[(NAME, r#"Basic realm="x""#)], false),
        (401, &[(NAME, "Negotiate")], false),
        (401, &[(NAME, r#"DPoP algs="ES256""#)], false),
        (401, &[(NAME, r#"DPoP error="invalid_dpop_proof""#)], false),
        (401, &[(NAME, r#"DPoP error="insufficient_scope""#)], false),
        (
            401,
            &[(NAME, r#"DPoP error_description="invalid_token""#)],
            false,
        ),
        (401, &[(NAME, r#"Basic error="invalid_token""#)], false),
        (403, &[(NAME, r#"DPoP error="invalid_token""#)], false),
        (
            403,
            &[(NAME, r#"DPoP error="insufficient_scope", scope="x""#)],
            false,
        ),
        (500, &[(NAME, r#"DPoP error="invalid_token""#)], false),
    ];
    for (status, headers, renewed) in rows {
        let fake = Fake::new(move |seen, n| match seen.uri.host() {
            Some(AS) => token(&format!("t{n}"), 300),
            _ => answer(status, headers, ""),
        });
        let stack = stack(&fake);
        let first = stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(first.status(), status);
        let sends = 1 + usize::from(renewed);
        assert_eq!(fake.hits(AS), sends, "{status} {headers:?}");
        assert_eq!(fake.hits(RS), sends, "{status} {headers:?}");
        if renewed {
            continue;
        }
        for _ in 0..20 {
            let answer = stack.clone().oneshot(get(API)).await.unwrap();
            assert_eq!(answer.status(), status);
        }
        assert_eq!(fake.hits(AS), 1, "{status} {headers:?}");
        assert_eq!(fake.hits(RS), 1 + 20, "{status} {headers:?}");
    }
}
