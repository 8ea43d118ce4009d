//! What several test files need. Each uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod bench;
pub(crate) mod saves;
pub(crate) mod told;

use std::{
    collections::HashMap,
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
use tokio::time::Instant;
use tower::Service;
use tower_dpop::{
    AccessToken, Audience, BoxError, DpopKey, DpopLayer, TokenLayer, TokenRequest,
    dpop::ResponseBody,
};

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

/// A layer whose token requests go to `ENDPOINT` through `client`, for requests to `API`.
pub(crate) fn token_layer<C, R>(dpop: &DpopLayer<R>, client: C) -> TokenLayer<R>
where
    C: Service<Request<Full<Bytes>>, Response = Answer> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
    R: Clone,
{
    let request = TokenRequest::client_credentials(ENDPOINT, "m2m.dpop");
    TokenLayer::new(dpop, client, request, Audience::origins([API]).unwrap()).unwrap()
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
    /// When it came.
    pub(crate) at: Instant,
    /// How many went to the same host before it.
    pub(crate) number: usize,
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

    /// The token that it carries.
    pub(crate) fn token(&self) -> &str {
        let authorization = self.header("authorization").expect("a token");
        authorization.strip_prefix("DPoP ").expect("a DPoP token")
    }

    /// A parameter of a token request.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(&self.body);
        pairs
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }
}

pub(crate) type Answer = Response<Full<Bytes>>;
type Handler = dyn Fn(&Seen, usize) -> Result<Answer, BoxError> + Send + Sync;
type Delay = dyn Fn(&Seen) -> Duration + Send + Sync;

/// As long as a server that never answers takes: nobody waits that long, but a test that should not wait
/// for it ends.
pub(crate) const NEVER: Duration = Duration::from_secs(30 * 86_400);

/// A server in memory: answers by a function of the request and of how many came before it, and remembers
/// them all. It is the innermost service of a stack.
#[derive(Clone)]
pub(crate) struct Fake {
    answer: Arc<Handler>,
    delay: Arc<Delay>,
    seen: Arc<Mutex<Vec<Seen>>>,
    hosts: Arc<Mutex<HashMap<String, Traffic>>>,
}

#[derive(Clone, Copy, Default)]
struct Traffic {
    came: usize,
    open: usize,
    most_open: usize,
}

/// A request on its way. Over when it was answered, or given up.
struct Open {
    hosts: Arc<Mutex<HashMap<String, Traffic>>>,
    host: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut hosts = self.hosts.lock().unwrap();
        hosts.get_mut(&self.host).expect("it came").open -= 1;
    }
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::failing(move |seen, n| Ok(answer(seen, n)))
    }

    /// One whose connections may break.
    pub(crate) fn failing(
        answer: impl Fn(&Seen, usize) -> Result<Answer, BoxError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            answer: Arc::new(answer),
            delay: Arc::new(|_| Duration::ZERO),
            seen: Arc::default(),
            hosts: Arc::default(),
        }
    }

    pub(crate) fn delay(self, delay: Duration) -> Self {
        self.delay_by(move |_| delay)
    }

    /// One host takes its time.
    pub(crate) fn slow(self, host: &'static str, delay: Duration) -> Self {
        let others = Arc::clone(&self.delay);
        self.delay_by(move |seen| match seen.uri.host() == Some(host) {
            true => delay,
            false => others(seen),
        })
    }

    /// How long the answer takes is found when the request comes, what it is when it goes.
    pub(crate) fn delay_by(
        mut self,
        delay: impl Fn(&Seen) -> Duration + Send + Sync + 'static,
    ) -> Self {
        self.delay = Arc::new(delay);
        self
    }

    /// The same, of which nobody has asked anything yet.
    pub(crate) fn anew(&self) -> Self {
        Self {
            seen: Arc::default(),
            hosts: Arc::default(),
            ..self.clone()
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Those to one host.
    pub(crate) fn seen_by(&self, host: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        let to_host = seen.iter().filter(|seen| seen.uri.host() == Some(host));
        to_host.cloned().collect()
    }

    /// How many came to one host.
    pub(crate) fn hits(&self, host: &str) -> usize {
        self.traffic(host).came
    }

    /// How many of them one host had under way at the same time, at the most.
    pub(crate) fn most_open(&self, host: &str) -> usize {
        self.traffic(host).most_open
    }

    fn traffic(&self, host: &str) -> Traffic {
        let hosts = self.hosts.lock().unwrap();
        hosts.get(host).copied().unwrap_or_default()
    }

    /// A request comes: its number at its host.
    fn open(&self, host: &str) -> (usize, Open) {
        let mut hosts = self.hosts.lock().unwrap();
        let traffic = hosts.entry(host.to_owned()).or_default();
        let number = traffic.came;
        traffic.came += 1;
        traffic.open += 1;
        traffic.most_open = traffic.most_open.max(traffic.open);
        let open = Open {
            hosts: Arc::clone(&self.hosts),
            host: host.to_owned(),
        };
        (number, open)
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
            let (number, _open) = this.open(head.uri.host().unwrap_or_default());
            let seen = Seen {
                method: head.method,
                uri: head.uri,
                version: head.version,
                extensions: head.extensions,
                headers: head.headers,
                body,
                at: Instant::now(),
                number,
            };
            let count = {
                let mut all = this.seen.lock().unwrap();
                all.push(seen.clone());
                all.len() - 1
            };
            let delay = (this.delay)(&seen);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            (this.answer)(&seen, count)
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

/// An authorization server's nonce challenge (RFC 9449, figure 20).
pub(crate) fn token_nonce_challenge(nonce: &str) -> Answer {
    answer(
        400,
        &[("content-type", "application/json"), ("dpop-nonce", nonce)],
        r#"{"error":"use_dpop_nonce"}"#,
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

/// An authorization server's refusal (RFC 6749, section 5.2).
pub(crate) fn refusal(error: &str) -> Answer {
    let body = json!({"error": error});
    answer(
        400,
        &[("content-type", "application/json")],
        &body.to_string(),
    )
}

/// A header more.
pub(crate) fn and(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    answer.headers_mut().append(name, value.parse().unwrap());
    answer
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

/// A stack's answer as the server gave it.
pub(crate) fn plain(answer: Response<ResponseBody<Full<Bytes>>>) -> Answer {
    answer.map(ResponseBody::into_inner)
}

pub(crate) async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Error: std::fmt::Debug>,
{
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
