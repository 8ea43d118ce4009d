//! One grant in one file, and twenty programs that renew with it: F80 of the fault catalogue.
//!
//! The server ends the whole grant when a refresh token comes twice, so one that two of them sent would be the end
//! of all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/flows.rs"]
mod flows;
#[path = "support/stores.rs"]
mod stores;

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead as _, BufReader, Lines, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_dpop::{
    Audience, DpopKey, DpopLayer, FileStore, Grant, GrantStore, Registration, StoredGrant,
    TokenLayer, TokenRequest,
    testing::{AuthorizationServer, Nonces, ResourceServer},
};

use self::{flows::Flow, stores::Directory};

const PROCESSES: usize = 20;
const RENEWALS: usize = 5;
const CLIENT: &str = "app";

const PLACE: &str = "TOWER_DPOP_GRANT";
const ENDPOINT: &str = "TOWER_DPOP_ENDPOINT";
const API: &str = "TOWER_DPOP_API";

/// Both servers, and a file with the first refresh token of a grant.
struct World {
    authorization_server: AuthorizationServer,
    resource_server: ResourceServer,
    directory: Directory,
}

impl World {
    async fn new() -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        authorization_server.add_public_client(CLIENT);
        authorization_server.keep_requests(100_000);
        let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
        let directory = Directory::new();
        let key = DpopKey::generate().unwrap();
        let token = authorization_server.issue_refresh_token(CLIENT, &key, "");
        let endpoint = authorization_server.token_endpoint();
        let grant = StoredGrant::new(&key, token, endpoint, CLIENT, None);
        let store = FileStore::new(directory.grant());
        store.save(grant).await.unwrap();
        Self {
            authorization_server,
            resource_server,
            directory,
        }
    }

    fn process(&self, renewals: usize) -> Process {
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", "another_process", "--ignored", "--nocapture"])
            .env(PLACE, self.directory.grant())
            .env(ENDPOINT, self.authorization_server.token_endpoint())
            .env(API, self.resource_server.origin())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut process = Process {
            process,
            lines,
            renewals,
        };
        assert_eq!(process.told().unwrap(), "ready");
        process
    }

    /// The refresh tokens that were sent and looked at, and how many of them were refused.
    fn sent(&self) -> (Vec<String>, Vec<String>) {
        let (mut good, mut refused) = (Vec::new(), Vec::new());
        for request in self.authorization_server.requests() {
            let mut pairs = form_urlencoded::parse(request.body());
            let (_, token) = pairs.find(|(name, _)| name == "refresh_token").unwrap();
            match request.refused() {
                None => good.push(token.into_owned()),
                // A challenge is no verdict on the refresh token.
                Some(why) if why.contains("nonce") => {}
                Some(why) => refused.push(why.to_owned()),
            }
        }
        (good, refused)
    }
}

/// This same program once more.
struct Process {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    renewals: usize,
}

impl Process {
    /// What it tells, without what the test harness does.
    fn told(&mut self) -> Option<String> {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("told: ")?.1.to_owned()))
    }

    fn begin(&mut self) {
        let orders = self.process.stdin.as_mut().unwrap();
        writeln!(orders, "{}", self.renewals).unwrap();
    }
}

/// Renews, and uses what it got, so many times.
async fn renew(place: &Path, endpoint: &str, api: &str, begin: impl FnOnce() -> usize) {
    let store = FileStore::new(place);
    // By the time that it is used it is an old one.
    let grant = store.load().await.unwrap().unwrap();
    let request = TokenRequest::refresh_token(endpoint, CLIENT, grant.refresh_token()).store(store);
    let dpop = DpopLayer::new(grant.key().unwrap().clone());
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let audience = Audience::origins([api]).unwrap();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens.clone())
        .layer(dpop)
        .service(http);
    for _ in 0..begin() {
        let request = Request::get(format!("{api}/orders")).body(Full::default());
        let response: Response<_> = stack.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        println!("told: renewed");
        tokens.forget_tokens();
    }
}

#[tokio::test]
#[ignore = "the other process of the tests here"]
async fn another_process() {
    let Some(place) = env::var_os(PLACE).map(PathBuf::from) else {
        return;
    };
    let begin = || {
        println!("told: ready");
        let mut order = String::new();
        std::io::stdin().read_line(&mut order).unwrap();
        order.trim().parse().unwrap()
    };
    let (endpoint, api) = (env::var(ENDPOINT).unwrap(), env::var(API).unwrap());
    renew(&place, &endpoint, &api, begin).await;
}

async fn f80_shared(nonces: Nonces) {
    let world = World::new().await;
    world.authorization_server.nonces(nonces);
    // All of them know the first refresh token before the first of them sends it.
    let mut processes: Vec<_> = (0..PROCESSES).map(|_| world.process(RENEWALS)).collect();
    for process in &mut processes {
        process.begin();
    }
    let outcomes = tokio::task::spawn_blocking(move || {
        let wait = |mut process: Process| {
            let renewed = std::iter::from_fn(|| process.told()).count();
            (renewed, process.process.wait().unwrap().success())
        };
        processes.into_iter().map(wait).collect::<Vec<_>>()
    });
    for outcome in outcomes.await.unwrap() {
        assert_eq!(outcome, (RENEWALS, true));
    }

    let (good, refused) = world.sent();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(good.len(), PROCESSES * RENEWALS, "one for each rotation");
    let distinct: BTreeSet<_> = good.iter().collect();
    assert_eq!(distinct.len(), good.len(), "one came twice");

    // The last of the family is in the file, and good.
    let place = world.directory.grant();
    let last = FileStore::new(&place).load().await.unwrap().unwrap();
    assert!(!good.iter().any(|token| token == last.refresh_token()));
    let endpoint = world.authorization_server.token_endpoint();
    renew(&place, &endpoint, world.resource_server.origin(), || 1).await;
    assert_eq!(world.sent().0.last().unwrap(), last.refresh_token());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f80_twenty_processes_share_one_refresh_token() {
    f80_shared(Nonces::off()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f80_and_with_nonces_that_are_good_once() {
    f80_shared(Nonces::one_time()).await;
}

/// At a server that accepts a refresh token again for a while (FAPI 2.0, section 5.3.2.1), a program that is killed
/// with an answer on its way costs the others nothing. Elsewhere the next refresh token went with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f80_who_is_killed_costs_the_others_nothing() {
    const KILLED: usize = 10;
    let world = World::new().await;
    let server = &world.authorization_server;
    server.refresh_token_grace(Duration::from_secs(600));
    // So that a kill meets a token request more often than not.
    server.delay(Duration::from_millis(20));
    for _ in 0..KILLED {
        let mut both = [(); 2].map(|()| world.process(1_000_000));
        for process in &mut both {
            process.begin();
        }
        assert_eq!(both[0].told().unwrap(), "renewed");
        let moment = getrandom::u32().unwrap() % 60_000;
        tokio::time::sleep(Duration::from_micros(moment.into())).await;
        both[0].process.kill().unwrap();
        // The lock is free, and the grant is good: once for a renewal that had begun before, and once for one after.
        for _ in 0..3 {
            assert_eq!(both[1].told().unwrap(), "renewed");
        }
        for mut process in both {
            process.process.kill().unwrap();
            process.process.wait().unwrap();
        }
    }
    let (_, refused) = world.sent();
    assert!(refused.is_empty(), "{refused:?}");
}

/// F78: a user logs in, the program ends, and begins again with nothing but the file.
#[tokio::test]
async fn f78_a_grant_survives_the_program() {
    let directory = Directory::new();
    let flow = Flow::start().await;
    let app = flow.app().await;
    let server = &flow.authorization_server;
    let request = TokenRequest::new(app.clone(), flow.code(&app).await).scope("a b");
    let tokens = flow.tokens(request.store(FileStore::new(directory.grant())));
    tokens.access_token().await.unwrap();
    drop(tokens);
    for round in 0..3 {
        let store = FileStore::new(directory.grant());
        let grant = store.load().await.unwrap().unwrap();
        assert_eq!(grant.authorization_server(), server.issuer());
        assert_eq!((grant.client_id(), grant.scope()), ("app", Some("a b")));
        let flow = Flow {
            authorization_server: server.clone(),
            api: flow.api.clone(),
            http: flows::http(),
            dpop: DpopLayer::new(grant.key().unwrap().clone()),
        };
        let app = Registration::new(flow.metadata().await, grant.client_id());
        let request = TokenRequest::new(app, Grant::stored(&grant)).store(store);
        let tokens = flow.tokens(request);
        assert_eq!(flow.get(&tokens).await.unwrap(), http::StatusCode::OK);
        let sent = flow.sent("refresh_token");
        assert_eq!(sent.len(), round + 1);
        flows::distinct(&sent);
    }
    assert!(flow.asked().iter().all(|seen| seen.refused().is_none()));
}
