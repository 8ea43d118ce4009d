//! Servers that are killed under load, and connections that break in mid-answer.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use tokio::time::{Instant, sleep};
use tower::retry::{Retry, RetryLayer};
use tower::{Layer, ServiceBuilder};
use tower_dpop::{
    Discovery, DpopKey, DpopLayer, ForceRenewal, Grant, Registration, RetryPolicy, TokenRequest,
};

use crate::{
    Result,
    client::{Api, Body, Http, Outcome, answered, at_least, http, http_via, stack},
    fault_proxy::FaultProxy,
    lab::Lab,
    process::Process,
    record::Run,
    servers::glewlwyd::{self, Glewlwyd, PUBLIC},
    servers::node::{Node, Settings},
};

const CHAPTER: &str = "Restarts and resets";

const IN_FLIGHT: u64 = 16;

/// How long a caller repeats a request before it is lost to it: longer than a server is away.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a server is up before it is killed, and how long it is away at the least.
const UP: Duration = Duration::from_millis(400);
const AWAY: Duration = Duration::from_millis(200);

pub async fn run(lab: &Lab) -> Result<()> {
    let killed = format!("killed (SIGKILL) and started again, {IN_FLIGHT} in flight");
    let reset = format!("connections reset in mid-answer, {IN_FLIGHT} in flight");
    for nonces in [("off", "off"), ("required", "one-time")] {
        let server = format!("oidc-provider, nonces {}; API's {}", nonces.0, nonces.1);
        let run = format!("authorization server and API in turn {killed}");
        let work = node_killed(lab, nonces);
        lab.report.row(CHAPTER, &server, &run, work).await;
        let work = node_reset(lab, nonces);
        lab.report.row(CHAPTER, &server, &reset, work).await;
    }
    for (issuer, nonces) in [("plain", "no nonces"), ("nonce", "nonces good 26 times")] {
        let server = format!("{}, {nonces}", glewlwyd::NAME);
        let work = glewlwyd_killed(lab, issuer);
        lab.report.row(CHAPTER, &server, &killed, work).await;
        let work = glewlwyd_reset(lab, issuer);
        lab.report.row(CHAPTER, &server, &reset, work).await;
    }
    Ok(())
}

async fn node_killed(lab: &Lab, nonces: (&str, &str)) -> Result<String> {
    let mut node = start(lab, nonces).await?;
    let run = lab.record.run(format!("restarts, {nonces:?}"));
    let http = http(&run);
    let registration = node.registration(Discovery::new(http.clone(), &*node.issuer)?, "post")?;
    let (api, url) = opaque(&http, registration, &node.api)?;
    let enough = Arc::new(AtomicBool::new(false));
    let load = patient(api, url, 50, lab.size(2_000, 15_000), &enough);
    let mut servers = [&mut node.resource, &mut node.authorization];
    let (outcome, killed) = under_kills(load, &enough, &mut servers, lab.size(6, 20)).await?;
    seen(&run, &outcome, format!("{killed} restarts"))
}

async fn node_reset(lab: &Lab, nonces: (&str, &str)) -> Result<String> {
    let node = start(lab, nonces).await?;
    let run = lab.record.run(format!("resets, {nonces:?}"));
    let authorization = FaultProxy::start(node.authorization_port, 5).await?;
    let resource = FaultProxy::start(node.resource_port, 20).await?;
    let ports = HashMap::from([
        (node.authorization_port, authorization.port),
        (node.resource_port, resource.port),
    ]);
    let http = http_via(&run, ports);
    let registration = node.registration(Discovery::new(http.clone(), &*node.issuer)?, "post")?;
    let (api, url) = opaque(&http, registration, &node.api)?;
    let outcome = patient(api, url, 50, lab.size(1_000, 5_000), &at_once()).await;
    let (asked, served) = node.counts().await?;
    for counts in [&asked, &served] {
        if counts["replayed"].as_u64() != Some(0) {
            return Err(format!("a server saw a proof twice: {counts}").into());
        }
    }
    let resets = broken(&[&authorization, &resource])?;
    seen(&run, &outcome, format!("{resets} resets"))
}

/// A refresh token of this server is good once. If the answer with the next one is lost, so is the login: that is what
/// the server wants. So the token lasts, and nobody forces its renewal.
async fn glewlwyd_killed(lab: &Lab, issuer: &str) -> Result<String> {
    let mut server = Glewlwyd::start(lab, None).await?;
    let run = lab
        .record
        .run(format!("restarts, {}, {issuer}", glewlwyd::NAME));
    let api = logged_in(&server, http(&run), http(&run), issuer).await?;
    let url = server.userinfo(issuer)?.to_owned();
    let enough = Arc::new(AtomicBool::new(false));
    let load = patient(api, url, u64::MAX, lab.size(2_000, 8_000), &enough);
    let mut servers = [&mut server.process];
    let (outcome, killed) = under_kills(load, &enough, &mut servers, lab.size(6, 20)).await?;
    seen(&run, &outcome, format!("{killed} restarts"))
}

async fn glewlwyd_reset(lab: &Lab, issuer: &str) -> Result<String> {
    let server = Glewlwyd::start(lab, None).await?;
    let run = lab
        .record
        .run(format!("resets, {}, {issuer}", glewlwyd::NAME));
    let proxy = FaultProxy::start(server.port, 20).await?;
    let via = http_via(&run, HashMap::from([(server.port, proxy.port)]));
    let api = logged_in(&server, http(&run), via, issuer).await?;
    let url = server.userinfo(issuer)?.to_owned();
    let outcome = patient(api, url, u64::MAX, lab.size(1_000, 5_000), &at_once()).await;
    let resets = broken(&[&proxy])?;
    seen(&run, &outcome, format!("{resets} resets"))
}

/// The token comes by one client, the requests go by the other.
async fn logged_in(
    server: &Glewlwyd,
    asking: Http,
    calling: Http,
    issuer: &str,
) -> Result<Patient> {
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let registration = server.registration(asking.clone(), issuer, PUBLIC)?;
    let grant = server.log_in(&dpop, &asking, issuer, PUBLIC).await?;
    let request = TokenRequest::new(registration, grant);
    let (tokens, _) = stack(&asking, &dpop, request, server.base()?)?;
    tokens.access_token().await?;
    let layers = ServiceBuilder::new().layer(tokens).layer(dpop);
    Ok(RetryLayer::new(RetryPolicy::new()).layer(layers.service(calling)))
}

fn opaque(http: &Http, registration: Registration, origin: &str) -> Result<(Patient, String)> {
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let request = TokenRequest::new(registration, Grant::client_credentials())
        .scope("read")
        .resource(format!("{origin}/opaque"));
    let (_, api) = stack(http, &dpop, request, origin)?;
    let api = RetryLayer::new(RetryPolicy::new()).layer(api);
    Ok((api, format!("{origin}/opaque/orders")))
}

type Patient = Retry<RetryPolicy, Api>;

/// Nothing but their number ends these requests.
fn at_once() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

/// Callers that repeat what failed, for as long as they are patient. One request in `renewing` wants a new token.
async fn patient(
    api: Patient,
    url: String,
    renewing: u64,
    total: u64,
    enough: &Arc<AtomicBool>,
) -> Outcome {
    at_least(total, enough.clone(), IN_FLIGHT, move |number| {
        let (api, url) = (api.clone(), url.clone());
        async move {
            let end = Instant::now() + PATIENCE;
            loop {
                let mut request = Request::get(&url);
                if number % renewing == renewing - 1 {
                    request = request.extension(ForceRenewal::now());
                }
                match answered(api.clone(), request.body(Body::default())?).await {
                    Err(_) if Instant::now() < end => sleep(Duration::from_millis(20)).await,
                    done => return done.map(drop),
                }
            }
        }
    })
    .await
}

/// Kills the servers in turn while the load goes on, so many times in all. Then it is `enough`.
async fn under_kills(
    load: impl Future<Output = Outcome>,
    enough: &AtomicBool,
    servers: &mut [&mut Process],
    times: u64,
) -> Result<(Outcome, u64)> {
    tokio::pin!(load);
    let mut killed = 0;
    while killed < times {
        let server = &mut servers[killed as usize % servers.len()];
        let restart = async {
            sleep(UP).await;
            server.kill().await?;
            sleep(AWAY).await;
            server.start_again().await
        };
        tokio::select! {
            outcome = &mut load => {
                return Err(format!("the load was over after {killed} restarts: {outcome:?}").into());
            }
            restarted = restart => restarted?,
        }
        killed += 1;
    }
    enough.store(true, Ordering::Relaxed);
    Ok((load.await, killed))
}

async fn start(lab: &Lab, (token_nonces, api_nonces): (&str, &str)) -> Result<Node> {
    let settings = Settings {
        token_nonces: Some(token_nonces),
        api_nonces: Some(api_nonces),
        ..Settings::default()
    };
    Node::start(lab, settings).await
}

/// Every proxy has to have done its work.
fn broken(proxies: &[&FaultProxy]) -> Result<u64> {
    let counts: Vec<u64> = proxies.iter().map(|proxy| proxy.broken()).collect();
    match counts.contains(&0) {
        true => Err("nothing was reset".into()),
        false => Ok(counts.iter().sum()),
    }
}

fn seen(run: &Run, outcome: &Outcome, faults: String) -> Result<String> {
    outcome.all_ok()?;
    let seen = run.seen();
    Ok(format!(
        "{faults}; {} of {} requests ok in {} sends, {} token sends; {} sends without an answer",
        outcome.ok, outcome.ok, seen.api_sends, seen.token_sends, seen.lost,
    ))
}
