//! Servers that answer before the body is through: they learn nothing from it, and close, or go on, or wait.
//!
//! What is true of all: nothing hangs, the nonce is learned if the answer arrived, and whatever counts as sent was
//! sent whole.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Channel, Either, Empty, Full, channel::Sender};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use support::{a3_key, claims};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::{AccessToken, Audience, BoxError, Dpop, DpopLayer, RecordedBody, ReplayBody};

type Upload = ReplayBody<Either<Channel<Bytes, Infallible>, Empty<Bytes>>>;
type Api = Dpop<Client<HttpConnector, Upload>, RecordedBody>;

const MIB: usize = 1024 * 1024;

/// What a server saw: the nonce, and how long the body was that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    nonce: Option<String>,
    body: Option<usize>,
}

/// What a server does about a request without a nonce, besides answering 401 at once.
#[derive(Debug, Clone, Copy)]
enum Manners {
    /// Closes, with the rest of the body unread: the client's kernel is told to reset the connection.
    Closes,
    /// Closes its own half, and lets the client go on.
    HalfCloses,
    /// Does nothing more: reads nothing, closes nothing.
    Waits,
    /// Reads the rest to its end, and keeps the connection.
    Drains,
}

const ALL: [Manners; 4] = [
    Manners::Closes,
    Manners::HalfCloses,
    Manners::Waits,
    Manners::Drains,
];

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// HTTP/1.1 by hand.
    async fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                // Whatever goes wrong on a connection the client has to see.
                tokio::spawn(async move { drop(this.serve(stream, manners).await) });
            }
        });
        server
    }

    async fn serve(&self, mut stream: TcpStream, manners: Manners) -> std::io::Result<()> {
        let mut unread = Vec::new();
        loop {
            let head = read_to(&mut stream, &mut unread, b"\r\n\r\n").await?;
            let head = String::from_utf8(head).unwrap();
            let header = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                lines
                    .find(|(found, _)| found.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value)
            };
            let nonce = claims(header("dpop").unwrap())["nonce"]
                .as_str()
                .map(str::to_owned);
            let chunked = header("transfer-encoding") == Some("chunked");
            if nonce.is_some() || !chunked {
                let body = match chunked {
                    true => read_chunks(&mut stream, &mut unread).await?,
                    false => 0,
                };
                let status = if nonce.is_some() {
                    "200 OK"
                } else {
                    "401 Unauthorized"
                };
                self.saw(nonce, Some(body));
                stream.write_all(answer(status, "").as_bytes()).await?;
                continue;
            }
            self.saw(nonce, None);
            let close = match manners {
                Manners::Closes | Manners::HalfCloses => "connection: close\r\n",
                Manners::Waits | Manners::Drains => "",
            };
            stream
                .write_all(answer("401 Unauthorized", close).as_bytes())
                .await?;
            match manners {
                Manners::Closes => return Ok(()),
                Manners::HalfCloses => {
                    stream.shutdown().await?;
                    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
                    return Ok(());
                }
                Manners::Waits => std::future::pending().await,
                Manners::Drains => {
                    read_chunks(&mut stream, &mut unread).await?;
                }
            }
        }
    }

    /// HTTP/2, by hyper, which resets the stream without an error when the body is not read.
    async fn start_http2() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let this = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                let service = service_fn(move |request| this.clone().answer(request));
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let proof = request.headers()["dpop"].to_str().unwrap();
        let nonce = claims(proof)["nonce"].as_str().map(str::to_owned);
        let status = match nonce {
            None => {
                self.saw(None, None);
                StatusCode::UNAUTHORIZED
            }
            Some(_) => {
                let body = request.into_body().collect().await;
                self.saw(nonce, body.ok().map(|body| body.to_bytes().len()));
                StatusCode::OK
            }
        };
        let response = Response::builder()
            .status(status)
            .header("www-authenticate", r#"DPoP error="use_dpop_nonce""#)
            .header("dpop-nonce", "n");
        Ok(response.body(Full::from("body")).unwrap())
    }

    fn saw(&self, nonce: Option<String>, body: Option<usize>) {
        self.seen.lock().unwrap().push(Seen { nonce, body });
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn api(&self, version: Version) -> Api {
        let http = Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            .build_http();
        DpopLayer::new(a3_key()).replay(RecordedBody).layer(http)
    }

    fn request(&self, method: &str, body: Upload) -> Request<Upload> {
        let origin = format!("http://{}", self.address);
        let audience = Audience::origins([&origin]).unwrap();
        let token = AccessToken::new("token", &a3_key(), audience).unwrap();
        let request = Request::builder().method(method).uri(origin + "/upload");
        request.extension(token).body(body).unwrap()
    }
}

fn answer(status: &str, headers: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nwww-authenticate: DPoP error=\"use_dpop_nonce\"\r\ndpop-nonce: n\r\n\
         content-length: 4\r\n{headers}\r\nbody"
    )
}

/// What comes up to `end`, which is taken too.
async fn read_to(
    stream: &mut TcpStream,
    unread: &mut Vec<u8>,
    end: &[u8],
) -> std::io::Result<Vec<u8>> {
    loop {
        if let Some(at) = unread.windows(end.len()).position(|window| window == end) {
            let rest = unread.split_off(at + end.len());
            return Ok(std::mem::replace(unread, rest));
        }
        if stream.read_buf(unread).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The length of a chunked body that arrives whole.
async fn read_chunks(stream: &mut TcpStream, unread: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut total = 0;
    loop {
        let size = String::from_utf8(read_to(stream, unread, b"\r\n").await?).unwrap();
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        while unread.len() < size + 2 {
            if stream.read_buf(unread).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        drop(unread.drain(..size + 2));
        total += size;
        if size == 0 {
            return Ok(total);
        }
    }
}

/// A body that is given its data later.
fn upload() -> (Sender<Bytes, Infallible>, Upload) {
    let (sender, body) = Channel::new(1);
    (sender, ReplayBody::new(Either::Left(body)))
}

/// Gives `bytes` bytes, as fast as they are read, and the end.
fn feed(mut sender: Sender<Bytes, Infallible>, bytes: usize) {
    tokio::spawn(async move {
        for _ in 0..bytes / 16_384 {
            if sender.send_data(vec![7; 16_384].into()).await.is_err() {
                return;
            }
        }
    });
}

/// A hang is a failure.
async fn send(api: &Api, request: Request<Upload>) -> Result<(StatusCode, Bytes), BoxError> {
    let sent = async {
        let response = api.clone().oneshot(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    let sent = timeout(Duration::from_secs(20), sent).await;
    sent.expect("it hangs")
}

fn seen(nonce: Option<&str>, body: Option<usize>) -> Seen {
    Seen {
        nonce: nonce.map(str::to_owned),
        body,
    }
}

#[tokio::test]
async fn an_upload_that_has_hardly_begun_is_answered_within_the_call() {
    for manners in ALL {
        let server = Server::start(manners).await;
        let api = server.api(Version::HTTP_11);
        let (mut sender, body) = upload();
        let call = tokio::spawn({
            let (api, request) = (api.clone(), server.request("POST", body));
            async move { send(&api, request).await }
        });
        sender.send_data(vec![7; 16_384].into()).await.unwrap();
        // The server has answered by now, or does so while the rest comes.
        while server.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        feed(sender, MIB);
        let (status, _) = call.await.unwrap().unwrap();
        assert_eq!(status, 200, "{manners:?}");
        let whole = MIB + 16_384;
        assert_eq!(
            server.seen(),
            [seen(None, None), seen(Some("n"), Some(whole))],
            "{manners:?}"
        );
    }
}

#[tokio::test]
async fn so_is_one_over_http2() {
    let server = Server::start_http2().await;
    let api = server.api(Version::HTTP_2);
    let (mut sender, body) = upload();
    let call = tokio::spawn({
        let (api, request) = (api.clone(), server.request("POST", body));
        async move { send(&api, request).await }
    });
    sender.send_data(vec![7; 16_384].into()).await.unwrap();
    while server.seen().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    feed(sender, MIB);
    assert_eq!(call.await.unwrap().unwrap().0, 200);
    let whole = MIB + 16_384;
    assert_eq!(
        server.seen(),
        [seen(None, None), seen(Some("n"), Some(whole))]
    );
}

/// More is read at once than is kept, so the caller gets the server's answer, and the next request is sent once.
///
/// Where the connection is reset, hyper's client has an error to tell of and not the answer that came before it: then
/// nothing can be learned.
async fn big_upload(server: &Server, version: Version, reset: bool, name: &str) {
    let api = server.api(version);
    let (sender, body) = upload();
    feed(sender, 10 * MIB);
    match send(&api, server.request("POST", body)).await {
        Ok(answer) => assert_eq!(answer, (StatusCode::UNAUTHORIZED, "body".into()), "{name}"),
        Err(_) if reset => return,
        Err(error) => panic!("{name}: {error}"),
    }
    let (sender, body) = upload();
    feed(sender, MIB);
    let (status, _) = send(&api, server.request("POST", body)).await.unwrap();
    assert_eq!(status, 200, "{name}");
    assert_eq!(
        server.seen(),
        [seen(None, None), seen(Some("n"), Some(MIB))],
        "{name}"
    );
}

#[tokio::test]
async fn a_big_upload_gets_the_servers_own_answer_and_the_next_is_sent_once() {
    for manners in ALL {
        let server = Server::start(manners).await;
        let reset = matches!(manners, Manners::Closes);
        big_upload(&server, Version::HTTP_11, reset, &format!("{manners:?}")).await;
    }
    let server = Server::start_http2().await;
    big_upload(&server, Version::HTTP_2, false, "HTTP/2").await;
}

#[tokio::test]
async fn whoever_asks_for_something_small_first_uploads_once() {
    for manners in ALL {
        let server = Server::start(manners).await;
        let api = server.api(Version::HTTP_11);
        let nothing = ReplayBody::new(Either::Right(Empty::new()));
        // Any request will do that has no body: its answer teaches the nonce.
        let (status, _) = send(&api, server.request("OPTIONS", nothing))
            .await
            .unwrap();
        assert_eq!(status, 200);
        let asked = server.seen().len();
        assert_eq!(asked, 2);

        let (sender, body) = upload();
        feed(sender, 10 * MIB);
        let (status, _) = send(&api, server.request("POST", body)).await.unwrap();
        assert_eq!(status, 200, "{manners:?}");
        assert_eq!(
            server.seen()[asked..],
            [seen(Some("n"), Some(10 * MIB))],
            "{manners:?}"
        );
    }
}
