//! A long run over real TCP, with revocations, restarts of both servers and nonces that rotate: every request
//! that could succeed does, and memory does not grow.
//!
//! `SOAK_SECONDS` says how long: a few seconds unless set, a minute in the project's check, ten by hand:
//!
//! ```sh
//! SOAK_SECONDS=600 cargo test --test soak -- --nocapture
//! ```
//!
//! The servers run in a process of their own: what they remember of each request is not the client's memory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_dpop::{
    Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer},
};

/// Counts what is allocated and not freed.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(30);
/// Between two disturbances.
const BEAT: Duration = Duration::from_secs(2);
/// Long enough that an outage of `DOWN` within the last third is never felt, with all its back-off.
const TOKEN_LIFE: Duration = Duration::from_secs(60);
const DOWN: Duration = Duration::from_secs(1);
/// After a restart a pooled connection may be found to be dead only when it is used.
const GRACE: Duration = Duration::from_millis(250);
/// By then all connections are made, and what else stays.
const WARM: Duration = Duration::from_secs(4);
/// For a few connections more than at that moment, and what is on its way.
const MAX_GROWTH: isize = 256 * 1024;

/// Times at which a request may fail.
#[derive(Default)]
struct Times(Mutex<Vec<(Instant, Option<Instant>)>>);

impl Times {
    fn begin(&self) {
        self.0.lock().unwrap().push((Instant::now(), None));
    }

    fn end(&self) {
        self.0.lock().unwrap().last_mut().unwrap().1 = Some(Instant::now() + GRACE);
    }

    fn excuse(&self, from: Instant, to: Instant) -> bool {
        let times = self.0.lock().unwrap();
        let overlaps = |(begin, end): &(Instant, Option<Instant>)| {
            *begin <= to && end.is_none_or(|end| from <= end)
        };
        times.iter().any(overlaps)
    }
}

#[derive(Default)]
struct Tally {
    /// The resource server was away.
    away: Times,
    /// It changed what it wants of nonces. Whoever has been challenged twice by then, where each nonce is good
    /// once, is challenged a third time, and is not sent again.
    changed: Times,
    done: AtomicUsize,
    excused: AtomicUsize,
    failed: Mutex<BTreeMap<String, usize>>,
    end: AtomicBool,
}

/// One caller: a request, its body checked, a pause.
async fn call<S, F>(number: usize, url: String, stack: S, tally: Arc<Tally>)
where
    S: tower::Service<Request<Full<Bytes>>, Response = http::Response<F>, Error = BoxError> + Clone,
    F: http_body::Body<Error: Into<BoxError>>,
{
    let mut count = 0;
    while !tally.end.load(Ordering::Relaxed) {
        count += 1;
        let text = format!("caller {number} request {count}");
        let request = match count % 2 {
            0 => Request::get(&url).body(Full::default()),
            _ => Request::post(&url).body(Full::from(text.clone())),
        };
        let begin = Instant::now();
        let outcome = async {
            let response = stack.clone().oneshot(request.unwrap()).await?;
            let status = response.status();
            let challenge = format!("{:?}", response.headers().get("www-authenticate"));
            let body = response.into_body().collect().await.map_err(Into::into)?;
            let body = body.to_bytes();
            let echoed = count % 2 == 0 || body.windows(text.len()).any(|w| w == text.as_bytes());
            match status.as_u16() {
                200 if echoed => Ok(()),
                200 => Err("another body came back".into()),
                status => Err(BoxError::from(format!("status {status}, {challenge}"))),
            }
        };
        match outcome.await {
            Ok(()) => drop(tally.done.fetch_add(1, Ordering::Relaxed)),
            Err(error)
                if tally.away.excuse(begin, Instant::now())
                    || error.to_string().contains("use_dpop_nonce")
                        && tally.changed.excuse(begin, Instant::now()) =>
            {
                tally.excused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(GRACE).await;
            }
            Err(error) => {
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(error) = source {
                    text += &format!(": {error}");
                    source = error.source();
                }
                *tally.failed.lock().unwrap().entry(text).or_default() += 1;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The servers, in this same program started once more. It reads orders, one a line, and says when they are done;
/// it ends with its input.
struct Servers {
    process: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Servers {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "servers", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            process,
            orders,
            answers,
        }
    }

    /// What the servers say to an order.
    fn order(&mut self, order: &str) -> String {
        tokio::task::block_in_place(|| {
            writeln!(self.orders, "{order}").unwrap();
            loop {
                let line = self
                    .answers
                    .next()
                    .expect("the servers are running")
                    .unwrap();
                // The test harness talks, too.
                if let Some((_, answer)) = line.split_once("done: ") {
                    return answer.to_owned();
                }
            }
        })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of the test below"]
async fn servers() {
    let authorization_server = AuthorizationServer::start().await.unwrap();
    let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
    authorization_server.nonces(Nonces::required());
    authorization_server.token_lifetime(TOKEN_LIFE);
    authorization_server.keep_requests(0);
    resource_server.nonces(Nonces::rotating(Duration::from_secs(1)));
    resource_server.keep_requests(0);
    for order in std::io::stdin().lines() {
        let mut answer = String::new();
        match &*order.unwrap() {
            "where" => {
                answer = format!(
                    "{} {}",
                    authorization_server.token_endpoint(),
                    resource_server.origin()
                );
            }
            "count" => {
                answer = format!(
                    "{} sends to the API, {} to the token endpoint",
                    resource_server.request_count(),
                    authorization_server.request_count()
                );
            }
            "revoke" => authorization_server.revoke_all(),
            "rotate AS" => authorization_server.rotate_nonce(),
            "rotate RS" => resource_server.rotate_nonce(),
            "one-time" => resource_server.nonces(Nonces::one_time()),
            "rotating" => resource_server.nonces(Nonces::rotating(Duration::from_secs(1))),
            "stop AS" => authorization_server.stop().await,
            "stop RS" => resource_server.stop().await,
            "start AS" => authorization_server.restart().await.unwrap(),
            "start RS" => resource_server.restart().await.unwrap(),
            other => panic!("what is {other}?"),
        }
        println!("done: {answer}");
    }
}

/// One disturbance after another, the same in each round of eight.
async fn disturb(beat: u32, servers: &mut Servers, tally: &Tally) {
    match beat % 8 {
        0 => drop(servers.order("revoke")),
        1 | 4 => drop(servers.order("rotate AS")),
        2 => {
            tally.away.begin();
            servers.order("stop RS");
            tokio::time::sleep(DOWN).await;
            servers.order("start RS");
            tally.away.end();
        }
        3 => drop(servers.order("rotate RS")),
        5 => {
            // Nobody may notice.
            servers.order("stop AS");
            tokio::time::sleep(DOWN).await;
            servers.order("start AS");
        }
        change => {
            tally.changed.begin();
            servers.order(if change == 6 { "one-time" } else { "rotating" });
            tally.changed.end();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_could_succeed_does_and_memory_is_flat() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(5, |text| text.parse().unwrap());
    let mut servers = Servers::start();
    let place = servers.order("where");
    let (token_endpoint, origin) = place.split_once(' ').unwrap();

    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let dpop = DpopLayer::new(DpopKey::generate().unwrap());
    let request = TokenRequest::client_credentials(token_endpoint, CLIENT_ID)
        .client_secret_post(CLIENT_SECRET);
    let audience = Audience::origins([origin]).unwrap();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(http);

    let tally = Arc::new(Tally::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let url = format!("{origin}/soak");
            tokio::spawn(call(number, url, stack.clone(), tally.clone()))
        })
        .collect();

    let begin = Instant::now();
    let mut base = None;
    let mut beat = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let next = begin + BEAT * (beat + 1);
        disturb(beat, &mut servers, &tally).await;
        tokio::time::sleep_until(next.into()).await;
        beat += 1;
        if begin.elapsed() >= WARM {
            base.get_or_insert_with(|| LIVE.load(Ordering::Relaxed));
        }
    }
    let grown = LIVE.load(Ordering::Relaxed) - base.expect("a run longer than its first beats");
    tally.end.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }

    let done = tally.done.load(Ordering::Relaxed);
    let excused = tally.excused.load(Ordering::Relaxed);
    let failed = tally.failed.lock().unwrap();
    println!(
        "{seconds} s, {beat} disturbances: {done} requests succeeded, {excused} met a server that was away or changed its ways, \
         failed without excuse: {failed:?}; {}; {grown} bytes more than after {WARM:?}",
        servers.order("count")
    );
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        done > 20 * seconds as usize,
        "too few to mean anything: {done}"
    );
    assert!(excused < done / 10, "an excuse for everything: {excused}");
    assert!(grown < MAX_GROWTH, "{grown} bytes more");
}
