//! The client under test: the layers as a program would stack them, over hyper-util's client.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::GaiResolver},
    },
    rt::TokioExecutor,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_dpop::{Audience, BoxError, Dpop, DpopLayer, Token, TokenLayer, TokenRequest};

use crate::{
    Result,
    record::Run,
    recorder::{Recorder, RecorderLayer},
};

pub type Body = Full<Bytes>;
pub type Http = Recorder<Client<Via, Body>>;

/// A client that records what it sends.
pub fn http(run: &Run) -> Http {
    http_via(run, HashMap::new())
}

/// The same, which connects to other ports than the URI says: to a proxy that nobody else knows of.
pub fn http_via(run: &Run, ports: HashMap<u16, u16>) -> Http {
    let via = Via {
        inner: HttpConnector::new(),
        ports: Arc::new(ports),
    };
    let client = Client::builder(TokioExecutor::new())
        // What is sent again below the recorder would be in no record.
        .retry_canceled_requests(false)
        .build(via);
    RecorderLayer(run.clone()).layer(client)
}

#[derive(Clone)]
pub struct Via {
    inner: HttpConnector,
    ports: Arc<HashMap<u16, u16>>,
}

impl Service<Uri> for Via {
    type Response = <HttpConnector<GaiResolver> as Service<Uri>>::Response;
    type Error = <HttpConnector<GaiResolver> as Service<Uri>>::Error;
    type Future = <HttpConnector<GaiResolver> as Service<Uri>>::Future;

    fn poll_ready(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<std::result::Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let port = uri.port_u16().and_then(|port| self.ports.get(&port));
        let uri = match port {
            Some(port) => format!("http://127.0.0.1:{port}/").parse().unwrap_or(uri),
            None => uri,
        };
        self.inner.call(uri)
    }
}

pub type Api = Token<Dpop<Http>>;

/// Both layers as most programs have them, with tokens for `origin` and no other.
pub fn stack(
    http: &Http,
    dpop: &DpopLayer,
    request: TokenRequest,
    origin: &str,
) -> Result<(TokenLayer, Api)> {
    let audience = Audience::origins([origin])?;
    let tokens = TokenLayer::new(dpop, http.clone(), request, audience)?;
    let layers = ServiceBuilder::new()
        .layer(tokens.clone())
        .layer(dpop.clone());
    Ok((tokens, layers.service(http.clone())))
}

/// Asks a server something beside the matter: its counters, its clients.
pub async fn get_json(url: &str) -> Result<Value> {
    beside(Method::GET, url).await
}

/// The same with an effect: counters set to nothing.
pub async fn post(url: &str) -> Result<Value> {
    beside(Method::POST, url).await
}

async fn beside(method: Method, url: &str) -> Result<Value> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let request = Request::builder()
        .method(method)
        .uri(url)
        .body(Body::default())?;
    let (status, bytes) = read(client.request(request).await?).await?;
    if !status.is_success() {
        return Err(format!("{url}: {status}").into());
    }
    Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

pub async fn read<B>(answer: Response<B>) -> Result<(StatusCode, Bytes)>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(Into::into)?;
    Ok((status, body.to_bytes()))
}

/// Sends a request and reads its answer, which has to be a good one.
pub async fn answered<S, B>(api: S, request: Request<Body>) -> Result<Value>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let (status, answer) = read(api.oneshot(request).await?).await?;
    if status != StatusCode::OK {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into());
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// The same, of an API that says what it was asked: that has to be this very request.
pub async fn echoed<S, B>(api: S, request: Request<Body>) -> Result<()>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let body = request.body().clone().collect().await?.to_bytes();
    let path = request.uri().path_and_query();
    let path = path.map_or("/", |path| path.as_str()).to_owned();
    let method = request.method().to_string();
    let answer = answered(api, request).await?;
    let hash: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for (name, expected) in [("method", method), ("path", path), ("sha256", hash)] {
        if answer[name] != *expected {
            return Err(format!("{name}: {} in place of {expected}", answer[name]).into());
        }
    }
    Ok(())
}

/// What became of many requests.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub ok: u64,
    pub failures: BTreeMap<String, u64>,
}

impl Outcome {
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub fn all_ok(&self) -> Result<()> {
        match self.failed() {
            0 => Ok(()),
            failed => Err(format!(
                "{failed} of {} failed: {:?}",
                failed + self.ok,
                self.failures
            )
            .into()),
        }
    }
}

/// Does something so many times, so many of them at the same time.
pub async fn many<W, F>(total: u64, in_flight: u64, work: W) -> Outcome
where
    W: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = Result<()>> + Send,
{
    at_least(total, Arc::new(AtomicBool::new(true)), in_flight, work).await
}

/// The same, and on until it is `enough`.
pub async fn at_least<W, F>(total: u64, enough: Arc<AtomicBool>, in_flight: u64, work: W) -> Outcome
where
    W: Fn(u64) -> F + Send + Sync + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let (work, next) = (Arc::new(work), Arc::new(AtomicU64::new(0)));
    let outcome: Arc<Mutex<Outcome>> = Arc::default();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..in_flight {
        let (work, next, outcome) = (work.clone(), next.clone(), outcome.clone());
        let enough = enough.clone();
        tasks.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= total && enough.load(Ordering::Relaxed) {
                    return;
                }
                let done = work(number).await;
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                match done {
                    Ok(()) => outcome.ok += 1,
                    Err(error) => *outcome.failures.entry(whole(&*error)).or_default() += 1,
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(panic) = ended {
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            *outcome.failures.entry(panic.to_string()).or_default() += 1;
        }
    }
    let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.clone()
}

/// An error with all that caused it.
pub fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
