//! Servers whose clocks are wrong, and clocks that jump.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{Request, header::DATE};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower_dpop::{Discovery, DpopKey, DpopLayer, ForceRenewal, Grant, TokenRequest};

use crate::{
    Result,
    client::{Api, Body, answered, http, stack},
    lab::Lab,
    process::Clock,
    record::Run,
    servers::glewlwyd::{self, Glewlwyd, PUBLIC},
    servers::node::{Node, Settings},
};

const CHAPTER: &str = "Clocks";

/// By how much a server's clock is ahead, and by how much it jumps then. After ten minutes all nonces are outdated that
/// are outdated by time.
const TIMES: [(i64, i64); 4] = [(400, 0), (-400, 0), (0, 600), (0, -600)];

pub async fn run(lab: &Lab) -> Result<()> {
    for nonces in [("off", "off"), ("required", "rotating")] {
        let server = format!("oidc-provider, nonces {}; API's {}", nonces.0, nonces.1);
        for times in TIMES {
            let work = node(lab, nonces, times);
            lab.report.row(CHAPTER, &server, &what(times), work).await;
        }
    }
    for (issuer, nonces) in [("plain", "no nonces"), ("nonce", "nonces good 26 times")] {
        let server = format!("{}, {nonces}", glewlwyd::NAME);
        for times in TIMES {
            let work = glewlwyd(lab, issuer, times);
            lab.report.row(CHAPTER, &server, &what(times), work).await;
        }
    }
    Ok(())
}

fn what((ahead, jump): (i64, i64)) -> String {
    match jump {
        0 => format!("its clock {ahead:+} s from the client's"),
        _ => format!("its clock jumps by {jump:+} s"),
    }
}

async fn node(lab: &Lab, nonces: (&str, &str), times: (i64, i64)) -> Result<String> {
    let clock = Clock::new(&lab.folder("clock")?)?;
    clock.set(times.0)?;
    let settings = Settings {
        token_nonces: Some(nonces.0),
        api_nonces: Some(nonces.1),
        clock: Some(&clock),
        // Longer than the jump: a new token is another matter.
        token_seconds: Some(3_600),
    };
    let node = Node::start(lab, settings).await?;
    let run = lab.record.run(format!("clocks {times:?}, {nonces:?}"));
    run.clock(times.0);
    let http = http(&run);
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let discovery = Discovery::new(http.clone(), &*node.issuer)?;
    // An assertion has times of its own, by the server's clock.
    let registration = node.registration(discovery, "jwt")?;
    let request = TokenRequest::new(registration, Grant::client_credentials())
        .scope("read")
        .resource(format!("{}/jwt", node.api));
    let (_, api) = stack(&http, &dpop, request, &node.api)?;
    recovers(&clock, &run, api, &format!("{}/jwt/time", node.api), times).await
}

async fn glewlwyd(lab: &Lab, issuer: &str, times: (i64, i64)) -> Result<String> {
    let clock = Clock::new(&lab.folder("clock")?)?;
    clock.set(times.0)?;
    let server = Glewlwyd::start(lab, Some(&clock)).await?;
    let run = lab.record.run(format!("clocks {times:?}, {issuer}"));
    run.clock(times.0);
    let http = http(&run);
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let registration = server.registration(http.clone(), issuer, PUBLIC)?;
    let grant = server.log_in(&dpop, &http, issuer, PUBLIC).await?;
    let request = TokenRequest::new(registration, grant);
    let (_, api) = stack(&http, &dpop, request, server.base()?)?;
    recovers(&clock, &run, api, server.userinfo(issuer)?, times).await
}

/// The first request has to succeed, whatever it takes; so has the first one after a jump, with the token that is there,
/// and so has the next renewal. Then each is sent once.
async fn recovers(
    clock: &Clock,
    run: &Run,
    api: Api,
    url: &str,
    (ahead, jump): (i64, i64),
) -> Result<String> {
    let get = |renew: bool| {
        let request = Request::get(url);
        let request = match renew {
            true => request.extension(ForceRenewal::now()),
            false => request,
        };
        let api = api.clone();
        async move { answered(api, request.body(Body::default())?).await }
    };
    let mut told = Vec::new();
    for jumped in [false, true] {
        if jumped {
            if jump == 0 {
                break;
            }
            clock.set(ahead + jump)?;
            run.clock(ahead + jump);
        }
        let shown = ahead + if jumped { jump } else { 0 };
        shows(url, shown).await?;
        get(false).await?;
        let first = run.seen();
        if shown != 0 && first.refused.is_empty() {
            return Err("nobody minded the wrong time".into());
        }
        get(true).await?;
        let renewed = run.seen();
        for _ in 0..20 {
            get(false).await?;
        }
        let then = run.seen();
        // A nonce may be outdated or used up within them.
        if then.api_sends > 24 || then.token_sends > 0 {
            return Err(format!("20 requests after the recovery took {then:?}").into());
        }
        told.push(format!(
            "{}first request ok in {} sends (tokens' {}), a renewal in {} (tokens' {})",
            if jumped { "after the jump: " } else { "" },
            first.api_sends,
            first.token_sends,
            renewed.api_sends,
            renewed.token_sends
        ));
    }
    Ok(told.join("; "))
}

/// Whether a server's clock is so many seconds ahead: else all of this would go well, and mean nothing.
async fn shows(url: &str, ahead: i64) -> Result<()> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let answer = client
        .request(Request::get(url).body(Body::default())?)
        .await?;
    let date = answer.headers().get(DATE).ok_or("no Date")?.to_str()?;
    let theirs = httpdate::parse_http_date(date)?.duration_since(UNIX_EPOCH)?;
    let ours = SystemTime::now().duration_since(UNIX_EPOCH)?;
    match (theirs.as_secs() as i64 - ours.as_secs() as i64 - ahead).abs() {
        0..=2 => Ok(()),
        _ => Err(format!("the server says {date}, which is not {ahead:+} s").into()),
    }
}
