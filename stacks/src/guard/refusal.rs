use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;

use super::{Fault, Rules};

/// An empty message, as it is on the wire: not compressed, no bytes.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// Where a refusal stands in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Status 401, as of any resource server.
    Unauthorized,
    /// Status 200 with `grpc-status: 16` in the headers, and no body.
    #[default]
    TrailersOnly,
    /// Status 200, a message, and `grpc-status: 16` in the trailers.
    Trailers,
}

/// The answer to a request that is refused.
pub(super) fn refusal(rules: &Rules, fault: &Fault) -> Response<Body> {
    let mut status = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            status.insert(HeaderName::from_static(name), value);
        }
    };
    set(
        "www-authenticate",
        &format!(r#"DPoP error="{}""#, fault.code),
    );
    if let Some(nonce) = &rules.nonce {
        set("dpop-nonce", nonce);
    }
    if rules.shape != Shape::Unauthorized {
        set("grpc-status", "16");
        set("grpc-message", &fault.reason);
    }

    let mut response = Response::new(Body::empty());
    match rules.shape {
        Shape::Unauthorized => {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            *response.headers_mut() = status;
        }
        Shape::TrailersOnly => *response.headers_mut() = status,
        Shape::Trailers => {
            let frames = [
                Frame::data(Bytes::from_static(EMPTY_MESSAGE)),
                Frame::trailers(status),
            ];
            let frames = frames.map(Ok::<_, Infallible>);
            *response.body_mut() = Body::new(StreamBody::new(stream::iter(frames)));
        }
    }
    if rules.shape != Shape::Unauthorized {
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
    }
    response
}
