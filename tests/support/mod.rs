//! What several test files need. Each uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use serde_json::{Value, json};
use tower::Service;
use tower_dpop::{AccessToken, Audience, BoxError, DpopKey};

/// The published and the project's own vectors; see the file's `note` members for their sources.
pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("../data/rfc9449_vectors.json")).unwrap()
}

/// The key of RFC 7515, appendix A.3.
pub(crate) fn a3_jwk() -> Value {
    vectors()["rfc7515_A3_es256"]["jwk"].clone()
}

pub(crate) fn a3_key() -> DpopKey {
    DpopKey::from_bytes(a3_jwk().to_string(), None).unwrap()
}

/// A JWS signed here, not by the crate: whatever header and claims, with a good signature of the A.3 key.
pub(crate) fn sign_jws(header: &str, claims: &str) -> String {
    let d = BASE64URL.decode(a3_jwk()["d"].as_str().unwrap()).unwrap();
    let key = SigningKey::from_slice(&d).unwrap();
    let signed = format!("{}.{}", BASE64URL.encode(header), BASE64URL.encode(claims));
    let signature: Signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", BASE64URL.encode(signature.to_bytes()))
}

/// The header of an honest proof of the A.3 key.
pub(crate) fn a3_header() -> Value {
    let jwk = a3_jwk();
    json!({
        "typ": "dpop+jwt",
        "alg": "ES256",
        "jwk": {"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"]},
    })
}

/// One part of a proof, read with a parser that the crate does not use for it.
pub(crate) fn part(proof: &str, number: usize) -> Value {
    let part = proof.split('.').nth(number).expect("a part");
    serde_json::from_slice(&BASE64URL.decode(part).expect("base64url")).expect("JSON")
}

pub(crate) fn header(proof: &str) -> Value {
    part(proof, 0)
}

pub(crate) fn claims(proof: &str) -> Value {
    part(proof, 1)
}

pub(crate) const API: &str = "https://api.example.com";
pub(crate) const ENDPOINT: &str = "https://as.example.com/token";

/// A token for `API`, bound to `key`.
pub(crate) fn own_token(key: &DpopKey) -> AccessToken {
    AccessToken::new("own.token", key, Audience::origins([API]).unwrap()).unwrap()
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

pub(crate) fn with_token<B>(mut request: Request<B>, token: &AccessToken) -> Request<B> {
    request.extensions_mut().insert(token.clone());
    request
}

/// A request as a server in memory saw it.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) extensions: Extensions,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// The only value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?;
        assert!(values.next().is_none(), "{name} stands twice");
        Some(value.to_str().unwrap())
    }

    pub(crate) fn proof(&self) -> &str {
        self.header("dpop").expect("a proof")
    }

    pub(crate) fn claims(&self) -> Value {
        claims(self.proof())
    }

    pub(crate) fn nonce(&self) -> Option<String> {
        self.claims()["nonce"].as_str().map(str::to_owned)
    }
}

type Answer = Response<Full<Bytes>>;
type Handler = dyn Fn(&Seen, usize) -> Answer + Send + Sync;

/// A server in memory: answers by a function of the request and of how many came before it, and remembers
/// them all. It is the innermost service of a stack.
#[derive(Clone)]
pub(crate) struct Fake {
    answer: Arc<Handler>,
    delay: Duration,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            answer: Arc::new(answer),
            delay: Duration::ZERO,
            seen: Arc::default(),
        }
    }

    pub(crate) fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Those to one host.
    pub(crate) fn seen_by(&self, host: &str) -> Vec<Seen> {
        self.seen()
            .into_iter()
            .filter(|seen| seen.uri.host() == Some(host))
            .collect()
    }
}

impl Service<Request<Full<Bytes>>> for Fake {
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let seen = Seen {
                method: head.method,
                uri: head.uri,
                version: head.version,
                extensions: head.extensions,
                headers: head.headers,
                body,
            };
            let count = {
                let mut all = this.seen.lock().unwrap();
                all.push(seen.clone());
                all.len() - 1
            };
            if !this.delay.is_zero() {
                tokio::time::sleep(this.delay).await;
            }
            Ok((this.answer)(&seen, count))
        })
    }
}

pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut response = Response::new(Full::from(body.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

pub(crate) fn ok() -> Answer {
    answer(200, &[], "hello")
}

/// A resource server's nonce challenge (RFC 9449, figure 24).
pub(crate) fn nonce_challenge(nonce: &str) -> Answer {
    answer(
        401,
        &[
            ("www-authenticate", r#"DPoP error="use_dpop_nonce""#),
            ("dpop-nonce", nonce),
        ],
        "challenge",
    )
}

/// A resource server's refusal of a token (RFC 9449, figure 16).
pub(crate) fn invalid_token() -> Answer {
    answer(
        401,
        &[(
            "www-authenticate",
            r#"DPoP error="invalid_token", algs="ES256""#,
        )],
        "refused",
    )
}

/// An authorization server's answer (RFC 9449, figure 6).
pub(crate) fn token(token: &str, seconds: u64) -> Answer {
    let body = json!({"access_token": token, "token_type": "DPoP", "expires_in": seconds});
    answer(
        200,
        &[("content-type", "application/json")],
        &body.to_string(),
    )
}

pub(crate) async fn text(response: Answer) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
