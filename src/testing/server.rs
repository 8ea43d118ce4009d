//! Listening and accepting; everything ends with the last handle.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header::DATE, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::net::{TcpListener, TcpSocket};

use super::{
    answer::{self, Refusal},
    shared::{Order, Shared, lock},
    tasks::Tasks,
};

/// Larger than any token request and than what tests send to see that it arrives whole.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// How much of a body that is too large is read and thrown away, so that the client is done writing when the
/// answer comes; a connection closed before that loses the answer as often as not.
const MAX_DRAINED_BYTES: usize = 64 * MAX_BODY_BYTES;

/// Accepting fails when the process is out of file descriptors. That passes; until then do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Connections that wait to be accepted; as many as Tokio's own listeners let wait.
const BACKLOG: u32 = 1024;

/// What answers requests. Deciding is synchronous, so no lock can be held while something waits.
pub(super) trait Endpoint: Send + Sync + 'static {
    fn shared(&self) -> &Shared;
    fn decide(&self, head: &Parts, body: &Bytes) -> Result<Response<Bytes>, Refusal>;
}

/// Handles hold it; its tasks hold the endpoint only, which outlives them.
pub(super) struct Server<E> {
    endpoint: Arc<E>,
    address: SocketAddr,
    port: Mutex<Port>,
}

struct Port {
    /// Ended while the server is stopped.
    tasks: Tasks,
    /// Keeps the port while the server is stopped: bound, but it does not listen.
    reserved: Option<TcpSocket>,
}

impl<E: Endpoint> Server<E> {
    pub(super) async fn start(endpoint: impl FnOnce(Shared) -> E) -> io::Result<Self> {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into())?.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let endpoint = Arc::new(endpoint(Shared::new(format!("http://{address}"))?));
        let port = Port {
            tasks: serve(listener, &endpoint),
            reserved: None,
        };
        Ok(Self {
            endpoint,
            address,
            port: Mutex::new(port),
        })
    }

    /// Returns when all sockets are closed.
    pub(super) async fn stop(&self) {
        let tasks = lock(&self.port).tasks.clone();
        tasks.end();
        tasks.gone().await;
        let mut port = lock(&self.port);
        // Another handle may have restarted it in the meantime.
        if port.tasks.ended() && port.reserved.is_none() {
            // If the port cannot be had, a restart tries again, and tells.
            port.reserved = bind(self.address).ok();
        }
    }

    pub(super) async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        while let Some(ending) = self.listen()? {
            ending.gone().await;
        }
        Ok(())
    }

    /// Listens, unless it does already. Returns what must be gone before: another handle may have restarted
    /// the server in the meantime, and stopped it again.
    fn listen(&self) -> io::Result<Option<Tasks>> {
        let mut port = lock(&self.port);
        if !port.tasks.ended() {
            return Ok(None);
        }
        if !port.tasks.are_gone() {
            return Ok(Some(port.tasks.clone()));
        }
        let socket = match port.reserved.take() {
            Some(socket) => socket,
            None => bind(self.address)?,
        };
        port.tasks = serve(socket.listen(BACKLOG)?, &self.endpoint);
        Ok(None)
    }
}

impl<E> Server<E> {
    pub(super) fn endpoint(&self) -> &E {
        &self.endpoint
    }
}

impl<E> Drop for Server<E> {
    fn drop(&mut self) {
        lock(&self.port).tasks.end();
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // A port is free for us even while old connections of it linger. On Windows it is so without this, which
    // there means something else.
    socket.set_reuseaddr(cfg!(not(windows)))?;
    socket.bind(address)?;
    Ok(socket)
}

fn serve<E: Endpoint>(listener: TcpListener, endpoint: &Arc<E>) -> Tasks {
    let tasks = Tasks::new();
    tasks.spawn(accept(listener, Arc::clone(endpoint), tasks.clone()));
    tasks
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

/// An error is an answer that gets lost: hyper then closes the connection, or resets the stream of HTTP/2.
async fn answer<E: Endpoint>(
    endpoint: Arc<E>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let shared = endpoint.shared();
    let (head, body) = request.into_parts();
    let arrival = shared.arrived(&head);
    let body = read(body).await;
    if let Ok(body) = &body {
        shared.read(arrival.number, body.clone());
    }
    let lost = matches!(arrival.order, Some(Order::Lose));
    let decided = match (arrival.order, body) {
        (Some(Order::Exactly(response)), _) => Ok(response),
        (Some(Order::Challenge(challenge)), _) => {
            let mut response = answer::challenge(challenge);
            shared.offer_nonce(&mut response);
            Ok(response)
        }
        (None | Some(Order::Lose), Ok(body)) => {
            let mut decided = endpoint.decide(&head, &body);
            shared.offer_nonce(match &mut decided {
                Ok(response) => response,
                Err(refusal) => &mut refusal.response,
            });
            decided
        }
        (None | Some(Order::Lose), Err(refusal)) => Err(refusal),
    };
    let (response, refused) = match decided {
        Ok(response) => (response, None),
        Err(refusal) => (*refusal.response, Some(refusal.reason)),
    };
    shared.decided(arrival.number, &response, refused);
    // After the decision, not before: so a slow answer is one that can be lost after it had its effect.
    if !arrival.delay.is_zero() {
        tokio::time::sleep(arrival.delay).await;
    }
    if lost {
        return Err(io::ErrorKind::ConnectionAborted.into());
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
