//! The whole stack over hyper, to a server in a process of its own: what the client spends can be told apart then.

use std::{
    convert::Infallible,
    env,
    hint::black_box,
    io::{BufRead as _, BufReader, Read as _, stdin},
    process::{Child, ChildStdout, Command, Stdio},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc};
use tower::{Service, ServiceExt as _};
use tower_dpop::BoxError;

use crate::{
    keys::Backend,
    measure,
    proofs::Floor,
    scene::{self, Body},
};

/// The first argument of a process that is the server.
const SERVE: &str = "serve";

/// The server's process; it ends with this.
pub struct Server {
    child: Child,
    _said: BufReader<ChildStdout>,
    /// Where it listens.
    pub origin: String,
}

impl Server {
    /// Starts this very program as a server. Server and client get a processor each, if there are two.
    #[must_use]
    pub fn start() -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        said.read_line(&mut port).unwrap();
        stay_on(1);
        Self {
            child,
            _said: said,
            origin: format!("http://127.0.0.1:{}", port.trim()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Whether this program was started to serve; it has done so then.
#[must_use]
pub fn was_server() -> bool {
    let server = env::args().nth(1).is_some_and(|argument| argument == SERVE);
    if server {
        stay_on(0);
        runtime().block_on(serve());
    }
    server
}

async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    let (gone, mut client_gone) = mpsc::channel::<()>(1);
    std::thread::spawn(move || {
        let _ = stdin().read_to_end(&mut Vec::new());
        drop(gone);
    });
    let answer = async |_: Request<Incoming>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ten bytes."))))
    };
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
            _ = client_gone.recv() => return,
        }
    }
}

#[cfg(target_os = "linux")]
fn stay_on(which: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let all = sched_getaffinity(None).unwrap();
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu));
    if let Some(cpu) = allowed.nth(which) {
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_: usize) {}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// What stands between the program and hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing.
    Bare,
    /// A pair of headers that never change, of the same sizes.
    Static,
    /// The same, and a bare signature that nobody needs: what it costs between requests, when it finds nothing prepared.
    Signed(Backend),
    /// Both layers.
    Layers(Backend),
}

impl Way {
    /// From nothing to everything.
    pub const ALL: [Self; 6] = [
        Self::Bare,
        Self::Static,
        Self::Signed(Backend::AwsLcRs),
        Self::Layers(Backend::Null),
        Self::Layers(Backend::AwsLcRs),
        Self::Layers(Backend::P256),
    ];

    /// As the tables have it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Bare => "bare".to_owned(),
            Self::Static => "static headers".to_owned(),
            Self::Signed(backend) => {
                format!("static headers, bare signature by {}", backend.name())
            }
            Self::Layers(backend) => format!("layers, {}", backend.name()),
        }
    }
}

/// A client of the server, one thread with `in_flight` requests at a time.
pub struct Loopback {
    in_flight: u64,
    // So many requests, by each of those that are in flight.
    send: Box<dyn FnMut(u64)>,
}

impl Loopback {
    /// HTTP/1.1, or HTTP/2 in one connection.
    #[must_use]
    pub fn new(server: &Server, way: Way, in_flight: u64, http2: bool) -> Self {
        let runtime = Rc::new(runtime());
        let client: Client<HttpConnector, Body> = {
            let _in_it = runtime.enter();
            let mut connector = HttpConnector::new();
            connector.set_nodelay(true);
            Client::builder(TokioExecutor::new())
                .http2_only(http2)
                .build(connector)
        };
        let origin = &server.origin;
        let send: Box<dyn FnMut(u64)> = match way {
            Way::Bare => sender(runtime, client, origin, in_flight),
            Way::Static => {
                let headers = runtime.block_on(headers(origin));
                let client = client.map_request(move |request| with(&headers, request));
                sender(runtime, client, origin, in_flight)
            }
            Way::Signed(backend) => {
                let headers = runtime.block_on(headers(origin));
                let floor = Arc::new(Floor::new(backend));
                let client = client.map_request(move |request| {
                    black_box(floor.sign());
                    with(&headers, request)
                });
                sender(runtime, client, origin, in_flight)
            }
            Way::Layers(backend) => {
                let stack = runtime.block_on(scene::stack(backend.key(), origin, client));
                sender(runtime, stack, origin, in_flight)
            }
        };
        Self { in_flight, send }
    }

    /// So many requests; what they cost this process.
    pub fn send(&mut self, times: u64) -> Duration {
        let of_each = times.div_ceil(self.in_flight);
        let before = measure::process();
        (self.send)(of_each);
        measure::share(measure::process() - before, times, of_each * self.in_flight)
    }
}

fn sender<S, B>(
    runtime: Rc<Runtime>,
    service: S,
    origin: &str,
    in_flight: u64,
) -> Box<dyn FnMut(u64)>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let uri = format!("{origin}/v1/customers/4711/orders");
    Box::new(move |times| {
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let (mut service, uri) = (service.clone(), uri.clone());
                runtime.spawn(async move {
                    for _ in 0..times {
                        let request = scene::request(&uri, 3);
                        let ready = service.ready().await.map_err(Into::into).unwrap();
                        let response = ready.call(request).await.map_err(Into::into).unwrap();
                        assert_eq!(response.status(), 200);
                        let body = response
                            .into_body()
                            .collect()
                            .await
                            .map_err(Into::into)
                            .unwrap();
                        assert_eq!(body.to_bytes().len(), 10);
                    }
                })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    })
}

fn with(headers: &HeaderMap, mut request: Request<Body>) -> Request<Body> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()));
    request.headers_mut().extend(headers);
    request
}

/// What both layers write, once.
async fn headers(origin: &str) -> HeaderMap {
    let (seen, mut written) = mpsc::unbounded_channel();
    let inner = tower::service_fn(move |request: Request<Body>| {
        seen.send(request.headers().clone()).unwrap();
        std::future::ready(Ok::<_, BoxError>(Response::<Body>::default()))
    });
    let stack = scene::stack(Backend::P256.key(), origin, inner).await;
    let request = scene::request(&format!("{origin}/v1/customers/4711/orders"), 0);
    drop(stack.oneshot(request).await.unwrap());
    let written = written.recv().await.unwrap();
    assert!(written.len() == 2 && written.contains_key(AUTHORIZATION));
    written
}
