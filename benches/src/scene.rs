//! Both layers, with a token at hand and nothing behind them.

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower::{ServiceBuilder, service_fn};
use tower_dpop::{Audience, Dpop, DpopKey, DpopLayer, Token, TokenLayer, TokenRequest};

use crate::proofs::TOKEN;

/// The body of all requests and answers: clones share it.
pub type Body = Full<Bytes>;

/// What answers everything with an empty 200, at once.
pub type Null =
    tower::util::ServiceFn<fn(Request<Body>) -> Ready<Result<Response<Body>, Infallible>>>;

/// The service that does nothing.
#[must_use]
pub fn null() -> Null {
    service_fn(|_| ready(Ok(Response::default())))
}

/// A token layer for `origins` that has its token.
pub async fn tokens<I>(dpop: &DpopLayer, origins: I) -> TokenLayer
where
    I: IntoIterator<Item: AsRef<str>>,
{
    let answer = format!(r#"{{"access_token":"{TOKEN}","token_type":"DPoP","expires_in":3600}}"#);
    let answer = Bytes::from(answer);
    let server = service_fn(move |_: Request<Body>| {
        ready(Ok::<_, Infallible>(Response::new(Full::new(
            answer.clone(),
        ))))
    });
    let request = TokenRequest::client_credentials("https://as.example.com/token", "bench");
    let audience = Audience::origins(origins).unwrap();
    let tokens = TokenLayer::new(dpop, server, request, audience).unwrap();
    tokens.access_token().await.unwrap();
    tokens
}

/// Both layers around `inner`, for requests to `origin`, in the order that users have them in.
pub async fn stack<S>(key: DpopKey, origin: &str, inner: S) -> Token<Dpop<S>> {
    let dpop = DpopLayer::new(key);
    ServiceBuilder::new()
        .layer(tokens(&dpop, [origin]).await)
        .layer(dpop)
        .service(inner)
}

/// A request as a program makes it, with so many headers (three at the most).
#[must_use]
pub fn request(uri: &str, headers: usize) -> Request<Body> {
    let mut request = Request::get(uri).body(Body::default()).unwrap();
    let all = [
        ("accept", HeaderValue::from_static("application/json")),
        ("user-agent", HeaderValue::from_static("bench/1.0")),
        // Not static: a program has it from somewhere.
        (
            "x-request-id",
            HeaderValue::try_from("4711-".repeat(4)).unwrap(),
        ),
    ];
    for (name, value) in all.into_iter().take(headers) {
        request.headers_mut().insert(name, value);
    }
    request
}
