//! An axum handler that calls an API through one shared stack, as the example has it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
#[allow(dead_code)]
#[path = "../examples/axum.rs"]
mod example;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{self, Handle, Runtime},
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};
use tower::{Service, ServiceBuilder, service_fn};
use tower_dpop::{BoxError, TokenLayer, TokenRequest, testing::Nonces};

use self::{
    clients::{World, in_time},
    example::Api,
};

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// Both servers in a runtime of their own, so that their tasks are not among those that are counted.
struct Elsewhere {
    world: World,
    runtime: Option<Runtime>,
}

impl Elsewhere {
    async fn start() -> Self {
        let mut runtime = runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let world = runtime.spawn(World::start()).await.unwrap();
        Self {
            world,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Counts requests, and holds them back until it is opened.
#[derive(Clone)]
struct Gate {
    open: watch::Sender<bool>,
    came: Arc<AtomicUsize>,
}

impl Gate {
    fn open() -> Self {
        Self {
            open: watch::Sender::new(true),
            came: Arc::default(),
        }
    }

    fn closed() -> Self {
        Self {
            open: watch::Sender::new(false),
            ..Self::open()
        }
    }

    async fn pass(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.expect("it is held here");
    }

    async fn came(&self, requests: usize) {
        let came = async {
            while self.came.load(Ordering::Relaxed) < requests {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        in_time(came).await;
    }
}

type Call = Request<Full<Bytes>>;

/// hyper's client behind a gate.
fn http(
    gate: &Gate,
) -> impl Service<Call, Response = Response<Incoming>, Error = BoxError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let gate = gate.clone();
    service_fn(move |request: Call| {
        let (gate, http) = (gate.clone(), http.clone());
        async move {
            gate.pass().await;
            Ok(http.request(request).await?)
        }
    })
}

/// The stack of the example, with what may hold it up.
struct Stack<'a> {
    world: &'a World,
    token_gate: Gate,
    api_gate: Gate,
    token_request: TokenRequest,
    timeout: Duration,
}

impl<'a> Stack<'a> {
    fn of(world: &'a World) -> Self {
        Self {
            world,
            token_gate: Gate::open(),
            api_gate: Gate::open(),
            token_request: world.token_request(),
            timeout: NEVER,
        }
    }

    fn build(self) -> Api {
        let dpop = self.world.dpop();
        let audience = self.world.audience();
        let client = http(&self.token_gate);
        let tokens = TokenLayer::new(&dpop, client, self.token_request, audience).unwrap();
        Api::new(
            ServiceBuilder::new()
                .timeout(self.timeout)
                .map_response(|answer: Response<_>| answer.map(Body::new))
                .layer(tokens)
                .layer(dpop)
                .service(http(&self.api_gate)),
        )
    }

    async fn serve(self) -> Server {
        let url = self.world.api.url("/orders").parse().unwrap();
        let router = example::router(self.build(), url);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, router).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        Server {
            address,
            stop: Some(stop),
            task: tokio::spawn(server.into_future()),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }
}

/// An axum server with the example's router, and a client of it.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<io::Result<()>>,
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
}

impl Server {
    fn ask(&self) -> impl Future<Output = Response<Incoming>> + Send + 'static + use<> {
        let request = Request::get(format!("http://{}/orders", self.address));
        let answer = self.client.request(request.body(Full::default()).unwrap());
        async { in_time(answer).await.unwrap() }
    }

    async fn status(&self) -> u16 {
        let answer = self.ask().await;
        let status = answer.status().as_u16();
        in_time(answer.into_body().collect()).await.unwrap();
        status
    }

    /// So many requests at once, each in a task of its own.
    fn ask_often(&self, requests: usize) -> JoinSet<StatusCode> {
        let asked = (0..requests).map(|_| self.ask());
        asked
            .map(|answer| async {
                let answer = answer.await;
                let status = answer.status();
                in_time(answer.into_body().collect()).await.unwrap();
                status
            })
            .collect()
    }

    /// Begins to shut it down: from then on nobody can connect.
    async fn shut_down(&mut self) {
        drop(self.stop.take());
        let closed = async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        in_time(closed).await;
    }
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn no_task_is_left(before: usize) {
    let gone = async {
        while alive_tasks() != before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(gone).await;
}

#[tokio::test]
async fn many_requests_at_once_share_one_token() {
    let elsewhere = Elsewhere::start().await;
    let world = &elsewhere.world;
    world.authorization_server.nonces(Nonces::required());
    let server = Stack::of(world).serve().await;
    for status in server.ask_often(100).join_all().await {
        assert_eq!(status, 200);
    }
    let (asked, served) = world.statuses();
    assert_eq!(asked, [400, 200], "for want of a nonce, and with it");
    assert_eq!(served, [200; 100]);
    world.assert_own_proofs().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_api_is_a_502_and_what_it_says_stays_here() {
    let elsewhere = Elsewhere::start().await;
    let world = &elsewhere.world;
    let server = Stack::of(world).serve().await;
    world.api.nonces(Nonces::required());
    assert_eq!(server.status().await, 200);

    for status in [500, 401, 403, 404, 307] {
        world.api.fail(1, StatusCode::from_u16(status).unwrap());
        assert_eq!(server.status().await, 502, "{status}");
    }
    for busy in [429, 503] {
        world.api.fail(1, StatusCode::from_u16(busy).unwrap());
        assert_eq!(server.status().await, 503, "{busy}");
    }
    world.api.refuse(1, r#"DPoP error="insufficient_scope""#);
    let answer = server.ask().await;
    assert_eq!(answer.status(), 502);
    for ours in ["www-authenticate", "dpop-nonce"] {
        assert!(!answer.headers().contains_key(ours), "{ours}");
    }
    let answer = server.ask().await;
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("dpop-nonce"));
    assert_eq!(answer.headers()["content-type"], "application/json");

    world.api.lose_answers(1);
    assert_eq!(server.status().await, 502);
    world.api.stop().await;
    assert_eq!(server.status().await, 502);
    let restart = world.api.clone();
    let runtime = elsewhere.runtime.as_ref().unwrap();
    let restarted = runtime.spawn(async move { restart.restart().await });
    restarted.await.unwrap().unwrap();
    assert_eq!(server.status().await, 200);
    assert_eq!(world.authorization_server.request_count(), 1, "one token");
    world.assert_own_proofs().await;
}

#[tokio::test]
async fn an_api_that_takes_too_long_is_a_504() {
    let elsewhere = Elsewhere::start().await;
    let world = &elsewhere.world;
    world.api.delay(NEVER);
    let mut stack = Stack::of(world);
    stack.timeout = Duration::from_secs(3);
    let server = stack.serve().await;
    assert_eq!(server.status().await, 504);
    world.api.delay(Duration::ZERO);
    assert_eq!(server.status().await, 200);
}

#[tokio::test]
async fn without_a_token_there_is_a_503_for_each_and_the_api_is_not_asked() {
    for bearer in [false, true] {
        let elsewhere = Elsewhere::start().await;
        let world = &elsewhere.world;
        let authorization_server = &world.authorization_server;
        match bearer {
            true => authorization_server.token_type("Bearer"),
            false => authorization_server.fail(1, StatusCode::INTERNAL_SERVER_ERROR),
        }
        let server = Stack::of(world).serve().await;
        for status in server.ask_often(20).join_all().await {
            assert_eq!(status, 503);
        }
        assert_eq!(authorization_server.request_count(), 1, "one for all");
        assert_eq!(world.api.request_count(), 0);

        authorization_server.token_type("DPoP");
        let back = async {
            while server.status().await == 503 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            server.status().await
        };
        assert_eq!(in_time(back).await, 200);
    }
}

/// Shuts a server down while so many requests are held back by one of the gates, and sees them all answered.
async fn shuts_down_with_requests_under_way(token: bool) {
    const REQUESTS: usize = 8;
    let elsewhere = Elsewhere::start().await;
    let before = alive_tasks();
    let gate = Gate::closed();
    let mut stack = Stack::of(&elsewhere.world);
    match token {
        true => stack.token_gate = gate.clone(),
        false => stack.api_gate = gate.clone(),
    }
    let mut server = stack.serve().await;
    let answers = server.ask_often(REQUESTS);
    gate.came(if token { 1 } else { REQUESTS }).await;
    server.shut_down().await;
    assert!(!server.task.is_finished(), "it waits for them");

    gate.open.send_replace(true);
    assert_eq!(answers.join_all().await, [200; REQUESTS]);
    in_time(server.task).await.unwrap().unwrap();
    drop(server.client);
    no_task_is_left(before).await;
    let world = &elsewhere.world;
    assert_eq!(world.statuses(), (vec![200], vec![200; REQUESTS]));
}

#[tokio::test]
async fn a_graceful_shutdown_completes_requests_to_the_api_and_leaves_no_task() {
    shuts_down_with_requests_under_way(false).await;
}

#[tokio::test]
async fn so_it_does_with_requests_that_wait_for_a_token() {
    shuts_down_with_requests_under_way(true).await;
}

/// A server whose one client went away while the token was fetched, shut down; and the fetch's gate.
async fn shut_down_while_only_the_fetch_is_left(
    world: &World,
    token_request: TokenRequest,
    before: usize,
) -> Gate {
    let gate = Gate::closed();
    let mut stack = Stack::of(world);
    stack.token_gate = gate.clone();
    stack.token_request = token_request;
    let mut server = stack.serve().await;
    let mut answers = server.ask_often(1);
    gate.came(1).await;
    answers.shutdown().await;
    drop(server.client);
    drop(server.stop.take());
    in_time(server.task).await.unwrap().unwrap();
    // The fetch waits for nobody, and nobody for it.
    no_task_is_left(before + 1).await;
    gate
}

#[tokio::test]
async fn a_client_that_stops_waiting_for_a_token_leaves_no_task_but_the_fetch_and_that_ends() {
    let elsewhere = Elsewhere::start().await;
    let world = &elsewhere.world;
    let before = alive_tasks();
    let token_request = world.token_request().timeout(Duration::from_secs(3600));
    let gate = shut_down_while_only_the_fetch_is_left(world, token_request, before).await;
    gate.open.send_replace(true);
    no_task_is_left(before).await;
    assert_eq!(world.statuses(), (vec![200], vec![]));
}

#[tokio::test]
async fn a_fetch_that_is_left_and_gets_no_answer_ends_by_itself() {
    let elsewhere = Elsewhere::start().await;
    let world = &elsewhere.world;
    let before = alive_tasks();
    let token_request = world.token_request().timeout(Duration::from_secs(3));
    let gate = shut_down_while_only_the_fetch_is_left(world, token_request, before).await;
    no_task_is_left(before).await;
    assert!(!*gate.open.borrow());
    assert_eq!(world.statuses(), (vec![], vec![]));
}
