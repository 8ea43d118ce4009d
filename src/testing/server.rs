//! Listening and accepting; everything ends with the last handle.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header::DATE, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    answer::{self, Refusal},
    shared::{Order, Shared, lock},
};

/// Larger than any token request and than what tests send to see that it arrives whole.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How much of a body that is too large is read and thrown away, so that the client is done writing when the
/// answer comes; a connection closed before that loses the answer as often as not.
const MAX_DRAINED_BYTES: usize = 64 * MAX_BODY_BYTES;

/// Accepting fails when the process is out of file descriptors. That passes; until then do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// What answers requests. Deciding is synchronous, so no lock can be held while something waits.
pub(super) trait Endpoint: Send + Sync + 'static {
    fn shared(&self) -> &Shared;
    fn decide(&self, head: &Parts, body: &Bytes) -> Result<Response<Bytes>, Refusal>;
}

/// A running server. Handles hold it; its tasks hold the endpoint only.
pub(super) struct Server<E> {
    endpoint: Arc<E>,
    tasks: Tasks,
}

impl<E: Endpoint> Server<E> {
    pub(super) async fn start(endpoint: impl FnOnce(Shared) -> E) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let endpoint = Arc::new(endpoint(Shared::new(origin)?));
        let tasks = Tasks::new();
        tasks.spawn(accept(listener, Arc::clone(&endpoint), tasks.clone()));
        Ok(Self { endpoint, tasks })
    }
}

impl<E> Server<E> {
    pub(super) fn endpoint(&self) -> &E {
        &self.endpoint
    }
}

impl<E> Drop for Server<E> {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

/// All tasks of one server: accepting, connections, and the streams of HTTP/2 connections, which hyper
/// would otherwise leave running on their own.
#[derive(Clone)]
struct Tasks(Arc<Mutex<Option<JoinSet<()>>>>);

impl Tasks {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // None after the end: a connection that was just being accepted is dropped.
        if let Some(tasks) = &mut *lock(&self.0) {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    fn end(&self) {
        let tasks = lock(&self.0).take();
        // Aborts them all. Not under the lock: what they hold may spawn when it is dropped.
        drop(tasks);
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}

async fn accept<E: Endpoint>(listener: TcpListener, endpoint: Arc<E>, tasks: Tasks) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Without it small answers may wait for an acknowledgement; if it cannot be had, they do.
        let _ = stream.set_nodelay(true);
        let endpoint = Arc::clone(&endpoint);
        let executor = tasks.clone();
        tasks.spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&endpoint), request));
            let connections = auto::Builder::new(executor);
            // An error here is the client's going away, in one way or another.
            let _ = connections
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer<E: Endpoint>(
    endpoint: Arc<E>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let shared = endpoint.shared();
    let (head, body) = request.into_parts();
    let arrival = shared.arrived(&head);
    let body = read(body).await;
    if let Ok(body) = &body {
        shared.read(arrival.number, body.clone());
    }
    let decided = match (arrival.order, body) {
        (Some(Order::Exactly(response)), _) => Ok(response),
        (Some(Order::Challenge(challenge)), _) => {
            let mut response = answer::challenge(challenge);
            shared.offer_nonce(&mut response);
            Ok(response)
        }
        (None, Ok(body)) => {
            let mut decided = endpoint.decide(&head, &body);
            shared.offer_nonce(match &mut decided {
                Ok(response) => response,
                Err(refusal) => &mut refusal.response,
            });
            decided
        }
        (None, Err(refusal)) => Err(refusal),
    };
    let (response, refused) = match decided {
        Ok(response) => (response, None),
        Err(refusal) => (*refusal.response, Some(refusal.reason)),
    };
    shared.decided(arrival.number, response.status(), refused);
    // After the decision, not before: so a slow answer is one that can be lost after it had its effect.
    if !arrival.delay.is_zero() {
        tokio::time::sleep(arrival.delay).await;
    }
    let mut response = response.map(Full::new);
    response
        .headers_mut()
        .entry(DATE)
        .or_insert_with(|| answer::date(shared.now()));
    Ok(response)
}

async fn read(mut body: Incoming) -> Result<Bytes, Refusal> {
    let mut kept = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err(Refusal::empty(
                StatusCode::BAD_REQUEST,
                "the request's body broke off",
            ));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        length += data.len();
        if length <= MAX_BODY_BYTES {
            kept.extend_from_slice(&data);
        } else if length > MAX_DRAINED_BYTES {
            break;
        }
    }
    if length > MAX_BODY_BYTES {
        return Err(Refusal::empty(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is longer than 1 MiB",
        ));
    }
    Ok(kept.freeze())
}
