//! Large answers: F62 and F65 of the fault catalogue. In a program of its own, since it counts what is allocated.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    rt::{Read, ReadBufCursor, Write},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use support::{a3_key, get};
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceBuilder, ServiceExt as _, util::BoxCloneService};
use tower_dpop::{
    Audience, BoxError, DpopLayer, TokenLayer, TokenRequest,
    dpop::ResponseBody,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET},
};

/// Counts what the current thread has allocated: the client's side of a test, since its server runs in
/// another thread.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Gone while the thread ends.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator, as it came. Counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// The most that was allocated at one time since `measure`, beyond what was there then.
struct Measure(isize);

impl Measure {
    fn start() -> Self {
        let live = LIVE.get();
        PEAK.set(live);
        Self(live)
    }

    fn peak(&self) -> isize {
        PEAK.get() - self.0
    }
}

#[test]
fn the_measure_measures() {
    let measure = Measure::start();
    let first = vec![1_u8; 3 << 20];
    drop(std::hint::black_box(first));
    assert!((3 << 20..4 << 20).contains(&measure.peak()));
    let measure = Measure::start();
    std::thread::spawn(|| drop(std::hint::black_box(vec![1_u8; 3 << 20])))
        .join()
        .unwrap();
    assert!(measure.peak() < 1 << 20, "another thread's");
}

const LARGE: usize = 10 << 20;

/// Ten MiB, or as many as are asked for, out of thin air.
struct Large(usize);

impl Body for Large {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static CHUNK: [u8; 16 << 10] = [b'x'; 16 << 10];
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let size = self.0.min(CHUNK.len());
        self.0 -= size;
        let chunk = Bytes::from_static(&CHUNK[..size]);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0 as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }
}

/// Status, headers and length of an answer.
type Answer = (u16, &'static [(&'static str, &'static str)], usize);

const OK: Answer = (200, &[], 5);
const CHALLENGE: Answer = (
    401,
    &[
        ("www-authenticate", "DPoP error=\"use_dpop_nonce\""),
        ("dpop-nonce", "n"),
    ],
    LARGE,
);
const REFUSED: Answer = (
    401,
    &[("www-authenticate", "DPoP error=\"invalid_token\"")],
    LARGE,
);

/// A server in a thread of its own, so that its memory does not count.
struct Server {
    origin: String,
    requests: Arc<AtomicUsize>,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Server {
    fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        let answer = Arc::new(answer);
        let (end, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let accept = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        stream.set_nodelay(true).unwrap();
                        let (answer, count) = (answer.clone(), count.clone());
                        let service = service_fn(move |_: Request<Incoming>| {
                            let number = count.fetch_add(1, Ordering::Relaxed);
                            let (status, headers, length) = answer(number);
                            let mut response = Response::builder().status(status);
                            for (name, value) in headers {
                                response = response.header(*name, *value);
                            }
                            std::future::ready(response.body(Large(length)))
                        });
                        tokio::spawn(async move {
                            // An error here is the client's hanging up.
                            let _ = auto::Builder::new(TokioExecutor::new())
                                .serve_connection(TokioIo::new(stream), service)
                                .await;
                        });
                    }
                };
                tokio::select! {
                    () = accept => {}
                    _ = ended => {}
                }
            });
        });
        Self {
            origin,
            requests,
            _end: end,
        }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// The client's connections: how many there were, are, and were at one time.
#[derive(Clone, Default)]
struct Connections(Arc<Mutex<[usize; 3]>>);

impl Connections {
    fn opened(&self) -> usize {
        self.0.lock().unwrap()[0]
    }

    fn open(&self) -> usize {
        self.0.lock().unwrap()[1]
    }

    fn most(&self) -> usize {
        self.0.lock().unwrap()[2]
    }
}

/// An `HttpConnector` that counts.
#[derive(Clone)]
struct Connector(HttpConnector, Connections);

impl Service<Uri> for Connector {
    type Response = Counted;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, connections) = (self.0.call(uri), self.1.clone());
        Box::pin(async move {
            let stream = connecting.await?;
            let mut counts = connections.0.lock().unwrap();
            counts[0] += 1;
            counts[1] += 1;
            counts[2] = counts[2].max(counts[1]);
            drop(counts);
            Ok(Counted(stream, connections))
        })
    }
}

struct Counted(TokioIo<TcpStream>, Connections);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.0.lock().unwrap()[1] -= 1;
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.0.connected()
    }
}

impl Read for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn client(version: Version, connections: &Connections) -> Client<Connector, Full<Bytes>> {
    let connector = Connector(HttpConnector::new(), connections.clone());
    // What HTTP/2 lets a server send unasked is the client's to hold, and not what is measured: hyper's
    // default is two MiB for each stream. It is less than the answer, and all answers together are more than
    // the connection's: one that is never given back would be the last.
    Client::builder(TokioExecutor::new())
        .http2_only(version == Version::HTTP_2)
        .http2_initial_stream_window_size(256 << 10)
        .http2_initial_connection_window_size(1 << 20)
        .build(connector)
}

type Stack = BoxCloneService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;

struct World {
    authorization_server: AuthorizationServer,
    http: Client<Connector, Full<Bytes>>,
    connections: Connections,
    origin: String,
}

impl World {
    async fn new(version: Version, server: &Server) -> Self {
        let connections = Connections::default();
        Self {
            authorization_server: AuthorizationServer::start().await.unwrap(),
            http: client(version, &connections),
            connections,
            origin: server.origin.clone(),
        }
    }

    /// A stack with no token and no nonce yet. Its token requests have connections of their own, which do not count.
    fn stack(&self) -> Stack {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let endpoint = self.authorization_server.token_endpoint();
        let request =
            TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
        let audience = Audience::origins([&self.origin]).unwrap();
        let dpop = DpopLayer::new(a3_key());
        let tokens = TokenLayer::new(&dpop, http, request, audience).unwrap();
        let stack = ServiceBuilder::new().layer(tokens).layer(dpop);
        let stack = stack.service(self.http.clone());
        BoxCloneService::new(stack.map_response(|answer| answer.map(ResponseBody::into_inner)))
    }

    /// Sends one request that must succeed.
    async fn get(&self, stack: &Stack) {
        let request = stack.clone().oneshot(get(&self.origin));
        // A connection whose window is used up waits for ever.
        let answer = tokio::time::timeout(Duration::from_secs(60), request).await;
        let answer = answer.expect("no standstill").unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(
            answer.into_body().collect().await.unwrap().to_bytes(),
            "xxxxx"
        );
    }

    /// HTTP/1.1 can end an answer that nobody reads only by ending its connection: the next one may be open
    /// before that is done, and never more. HTTP/2 ends the one answer.
    async fn connections_are_stable(&self, version: Version) {
        let connections = &self.connections;
        if version == Version::HTTP_2 {
            assert_eq!(connections.opened(), 1);
            return;
        }
        // One for each answer that was given up, and one for all others.
        assert!(connections.opened() <= REQUESTS + 1);
        assert!(
            connections.most() <= 2,
            "{} at one time",
            connections.most()
        );
        for _ in 0..1000 {
            if connections.open() <= 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("{} are still open", connections.open());
    }
}

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];
const REQUESTS: usize = 20;
const ONE_MIB: isize = 1 << 20;

/// Requests whose first sending is answered with a 401 of ten MiB, and the second one with 200.
async fn large(refusal: Answer, token_requests: usize) {
    for version in VERSIONS {
        let server = Server::start(move |number| if number % 2 == 0 { refusal } else { OK });
        let world = World::new(version, &server).await;
        world.get(&world.stack()).await;
        let measure = Measure::start();
        for _ in 1..REQUESTS {
            world.get(&world.stack()).await;
        }
        let peak = measure.peak();
        assert!(peak <= ONE_MIB, "{version:?}: {peak} bytes");
        assert_eq!(server.requests(), 2 * REQUESTS);
        let asked = world.authorization_server.requests().len();
        assert_eq!(asked, token_requests * REQUESTS);
        world.connections_are_stable(version).await;
    }
}

#[tokio::test]
async fn f62_a_challenge_with_ten_mib_costs_no_memory_and_no_connection() {
    large(CHALLENGE, 1).await;
}

#[tokio::test]
async fn f62_nor_does_a_refused_token_with_ten_mib() {
    large(REFUSED, 2).await;
}

// F65: a token endpoint that never stops talking.

/// How a server says how long its answer is.
#[derive(Debug, Clone, Copy)]
enum Framing {
    /// A gibibyte.
    Length,
    Chunks,
    UntilClosed,
    /// The first bytes of something that gets a thousand times as large when it is unpacked; nobody asked for it.
    Packed,
}

const GIBIBYTE: usize = 1 << 30;

/// A token endpoint that answers one request for as long as anybody listens, in a thread of its own. Returns how
/// much it got rid of.
fn endless(framing: Framing) -> (String, std::thread::JoinHandle<usize>) {
    use std::io::{Read as _, Write as _};

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 8 << 10];
        assert!(stream.read(&mut request).unwrap() > 0);
        let head = match framing {
            Framing::Length | Framing::Packed => format!("content-length: {GIBIBYTE}\r\n"),
            Framing::Chunks => "transfer-encoding: chunked\r\n".to_owned(),
            Framing::UntilClosed => "connection: close\r\n".to_owned(),
        };
        let encoding = match framing {
            Framing::Packed => "content-encoding: gzip\r\n",
            _ => "",
        };
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{encoding}{head}\r\n");
        let text = [b' '; 16 << 10];
        let part = match framing {
            Framing::Chunks => [b"4000\r\n".as_slice(), &text, b"\r\n"].concat(),
            _ => text.to_vec(),
        };
        let mut written = 0;
        if stream.write_all(head.as_bytes()).is_err() {
            return written;
        }
        while written < GIBIBYTE && stream.write_all(&part).is_ok() {
            written += part.len();
        }
        written
    });
    (endpoint, server)
}

fn token_layer<C, B>(endpoint: &str, client: C) -> TokenLayer
where
    C: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    C::Future: Send,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let request = TokenRequest::client_credentials(endpoint, CLIENT_ID);
    let audience = Audience::origins(["https://api.example.com"]).unwrap();
    TokenLayer::new(&DpopLayer::new(a3_key()), client, request, audience).unwrap()
}

fn too_long(error: &tower_dpop::Error) {
    assert!(error.is_token_request() && !error.is_permanent(), "{error}");
    assert!(error.to_string().contains("longer than 64 KiB"), "{error}");
}

#[tokio::test]
async fn f65_an_endless_answer_is_given_up_after_64_kib() {
    for framing in [
        Framing::Length,
        Framing::Chunks,
        Framing::UntilClosed,
        Framing::Packed,
    ] {
        let (endpoint, server) = endless(framing);
        let connections = Connections::default();
        let http = client(Version::HTTP_11, &connections);
        let tokens = token_layer(&endpoint, http);
        let measure = Measure::start();
        let token = tokio::time::timeout(Duration::from_secs(60), tokens.access_token());
        too_long(
            &token
                .await
                .expect("it ends before the answer does")
                .unwrap_err(),
        );
        let peak = measure.peak();
        assert!(peak <= ONE_MIB, "{framing:?}: {peak} bytes");
        // The connection is dropped, so that the server hears of it: what it wrote until then is in the buffers of
        // the operating system.
        let ended = async {
            while !server.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        ended.expect("the connection is dropped");
        let written = server.join().unwrap();
        assert!(written < GIBIBYTE / 8, "{framing:?}: {written} bytes");
        assert_eq!(connections.open(), 0, "{framing:?}");
    }
}

/// What a layer makes that unpacks answers: so much, then nothing more, and no end.
struct Unpacked {
    left: usize,
    given: Arc<AtomicUsize>,
}

impl Body for Unpacked {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static CHUNK: [u8; 4 << 10] = [b' '; 4 << 10];
        let size = self.left.min(CHUNK.len());
        if size == 0 {
            return Poll::Pending;
        }
        self.left -= size;
        self.given.fetch_add(size, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..size])))))
    }
}

#[tokio::test(start_paused = true)]
async fn f65_what_counts_is_what_was_unpacked() {
    const LIMIT: usize = 64 << 10;
    for (length, refused_after) in [
        // One byte too many is enough: whatever comes later, or does not, is not waited for.
        (LIMIT + 1, Duration::ZERO),
        (GIBIBYTE, Duration::ZERO),
        // The deadline of a token request.
        (LIMIT, Duration::from_secs(10)),
    ] {
        let given = Arc::new(AtomicUsize::new(0));
        let count = given.clone();
        let bomb = tower::service_fn(move |_: Request<Full<Bytes>>| {
            let body = Unpacked {
                left: length,
                given: count.clone(),
            };
            std::future::ready(Ok::<_, BoxError>(Response::new(body)))
        });
        let tokens = token_layer("https://as.example.com/token", bomb);
        let began = tokio::time::Instant::now();
        let measure = Measure::start();
        let error = tokens.access_token().await.unwrap_err();
        assert!(measure.peak() <= ONE_MIB);
        assert_eq!(began.elapsed(), refused_after);
        match refused_after.is_zero() {
            true => too_long(&error),
            false => assert!(error.is_timeout(), "{error}"),
        }
        assert!(given.load(Ordering::Relaxed) <= LIMIT + (4 << 10));
    }
}
