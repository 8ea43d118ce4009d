//! What the layers count, and what a nonce challenge costs: `cargo run -p tower-dpop-stacks --example metrics`
//!
//! The servers are embedded. One gives each nonce once, so that requests in parallel overtake each other; after a
//! while all tokens are revoked. Any recorder of the `metrics` crate will do, such as one for Prometheus.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer},
};

const ROUNDS: usize = 10;
const AT_ONCE: usize = 4;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let recorder = DebuggingRecorder::new();
    let counters = recorder.snapshotter();
    recorder.install()?;

    let authorization_server = AuthorizationServer::start().await?;
    let api = ResourceServer::start(&authorization_server).await?;
    api.nonces(Nonces::one_time());

    let http = Client::builder(TokioExecutor::new()).build_http();
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let endpoint = authorization_server.token_endpoint();
    let request =
        TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET);
    let audience = Audience::origins([api.origin()])?;
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience)?;
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(http);

    let mut failed = 0;
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            authorization_server.revoke_all();
        }
        let requests = (0..AT_ONCE).map(|_| async {
            let request = Request::get(api.url("/orders")).body(Full::<Bytes>::default())?;
            let response = stack.clone().oneshot(request).await?;
            let status = response.status();
            response.into_body().collect().await?;
            Ok::<_, BoxError>(status)
        });
        for status in join_all(requests).await {
            failed += usize::from(!status?.is_success());
        }
    }

    let counts: BTreeMap<String, u64> = counters
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) => Some((name(key.key()), count)),
            _ => None,
        })
        .collect();
    println!("{} requests, {failed} of them failed", ROUNDS * AT_ONCE);
    for (name, count) in &counts {
        println!("{count:5}  {name}");
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or_default();
    let sent = count("tower_dpop_proofs{server=resource}");
    println!(
        "{:.2} sends for each request",
        sent as f64 / (ROUNDS * AT_ONCE) as f64
    );
    // What the API saw is what was counted.
    let seen = api.request_count() as u64;
    if sent != seen || count("tower_dpop_token_requests{outcome=token}") != 2 {
        return Err(format!("the API saw {seen} requests, and the counters are wrong").into());
    }
    Ok(())
}

fn name(key: &metrics::Key) -> String {
    let labels: Vec<_> = key
        .labels()
        .map(|label| format!("{}={}", label.key(), label.value()))
        .collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}
