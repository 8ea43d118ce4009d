//! Many requests at the same time, and beside them openid-client's, on the same servers.

use std::{process::Stdio, time::Instant};

use http::Request;
use serde_json::{Value, json};
use tokio::process::Command;
use tower_dpop::{AwsLcRs, Discovery, DpopLayer, Grant, TokenRequest};

use crate::{
    Result,
    client::{Body, Outcome, echoed, http, many, stack},
    lab::Lab,
    servers::node::{Node, Settings},
};

const CHAPTER: &str = "Load";

pub async fn run(lab: &Lab) -> Result<()> {
    for nonces in ["off", "rotating", "one-time"] {
        let settings = Settings {
            api_nonces: Some(nonces),
            token_seconds: Some(3_600),
            ..Settings::default()
        };
        let node = Node::start(lab, settings).await?;
        for in_flight in [1, 8, 64] {
            let requests = lab.size(1_000, 100_000);
            let run = format!("{requests} requests, {in_flight} in flight");
            let server = format!("oidc-provider, API's nonces {nonces}");
            let work = side_by_side(lab, &node, nonces, requests, in_flight);
            lab.report.row(CHAPTER, &server, &run, work).await;
        }
    }
    Ok(())
}

/// What one of the two did.
struct Side {
    sends: u64,
    outcome: Outcome,
    seconds: f64,
}

async fn side_by_side(
    lab: &Lab,
    node: &Node,
    nonces: &str,
    requests: u64,
    in_flight: u64,
) -> Result<String> {
    let ours = ours(lab, node, nonces, requests, in_flight).await?;
    let (_, served) = node.counts().await?;
    let theirs = theirs(lab, node, requests, in_flight).await?;
    node.counts().await?;
    let told = |side: &Side| {
        format!(
            "{:.4} sends a request, {} failed, {:.0} s",
            side.sends as f64 / requests as f64,
            side.outcome.failed(),
            side.seconds,
        )
    };
    ours.outcome.all_ok()?;
    if served["replayed"].as_u64() != Some(0) || served["served"].as_u64() != Some(requests) {
        return Err(format!("the API counted {served}").into());
    }
    if (nonces == "off") != (served["challenged"].as_u64() == Some(0)) {
        return Err(format!("the API counted {served}").into());
    }
    // Who gives up sends less: a request that failed is not one that cost less.
    let (a, b) = (ours.sends, theirs.sends + theirs.outcome.failed());
    // On a machine that stands still for a moment, a rotation may fall upon one of the two alone.
    let by_chance = if nonces == "rotating" { in_flight } else { 0 };
    if a > b + by_chance {
        return Err(format!(
            "{a} sends, openid-client {b}; {}; {}",
            told(&ours),
            told(&theirs)
        )
        .into());
    }
    Ok(format!("{}; openid-client: {}", told(&ours), told(&theirs)))
}

async fn ours(lab: &Lab, node: &Node, nonces: &str, requests: u64, in_flight: u64) -> Result<Side> {
    let run = lab
        .record
        .run(format!("load, nonces {nonces}, {in_flight} in flight"));
    let http = http(&run);
    let dpop = DpopLayer::new(AwsLcRs::generate()?);
    let discovery = Discovery::new(http.clone(), &*node.issuer)?;
    let registration = node.registration(discovery, "post")?;
    let request = TokenRequest::new(registration, Grant::client_credentials())
        .scope("read")
        .resource(format!("{}/jwt", node.api));
    let (_, api) = stack(&http, &dpop, request, &node.api)?;
    let url = format!("{}/jwt/load", node.api);
    let start = Instant::now();
    let outcome = many(requests, in_flight, move |_| {
        let (api, request) = (api.clone(), Request::get(&url).body(Body::default()));
        async move { echoed(api, request?).await }
    });
    Ok(Side {
        outcome: outcome.await,
        sends: run.seen().api_sends,
        seconds: start.elapsed().as_secs_f64(),
    })
}

async fn theirs(lab: &Lab, node: &Node, requests: u64, in_flight: u64) -> Result<Side> {
    let settings = json!({
        "issuer": node.issuer,
        "client_id": node.clients["post"]["client_id"],
        "client_secret": node.clients["post"]["client_secret"],
        "api": format!("{}/jwt/load", node.api),
        "resource": format!("{}/jwt", node.api),
        "requests": requests,
        "in_flight": in_flight,
    });
    let output = Command::new(lab.programs.join("node/node_modules/.bin/node"))
        .arg(lab.programs.join("node/load.js"))
        .arg(settings.to_string())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Err(format!("openid-client's program: {}", output.status).into());
    }
    let said: Value = serde_json::from_slice(&output.stdout)?;
    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("it said {said}"));
    let mut outcome = Outcome {
        ok: number(&said["ok"])?,
        ..Outcome::default()
    };
    for (failure, count) in said["failures"].as_object().into_iter().flatten() {
        outcome.failures.insert(failure.clone(), number(count)?);
    }
    if outcome.ok + outcome.failed() != requests {
        return Err(format!("it said {said}").into());
    }
    Ok(Side {
        sends: number(&said["sends"])?,
        outcome,
        seconds: said["seconds"].as_f64().unwrap_or_default(),
    })
}
