//! Both servers of `testing`, and a client without our layers that makes its proofs by hand.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;
use tower_dpop::{
    Challenge, DpopKey,
    proof::Proof,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, Recorded, ResourceServer},
};

pub(crate) type Call = Request<Full<Bytes>>;

pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const NEVER: Duration = Duration::from_secs(1_000_000);

/// What a proof says beyond method and URL.
#[derive(Clone, Copy, Default)]
pub(crate) struct Claims<'a> {
    pub(crate) token: Option<&'a str>,
    pub(crate) nonce: Option<&'a str>,
    pub(crate) jti: Option<&'a str>,
    /// Seconds that the client's clock is ahead.
    pub(crate) ahead: i64,
}

impl<'a> Claims<'a> {
    pub(crate) fn nonce(nonce: impl Into<Option<&'a str>>) -> Self {
        Self {
            nonce: nonce.into(),
            ..Self::default()
        }
    }

    pub(crate) fn ahead(ahead: i64) -> Self {
        Self {
            ahead,
            ..Self::default()
        }
    }

    pub(crate) fn jti(jti: &'a str) -> Self {
        Self {
            jti: Some(jti),
            ..Self::default()
        }
    }
}

pub(crate) fn proof(key: &DpopKey, method: &Method, url: &str, claims: Claims<'_>) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let unique = format!("unique-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let url: Uri = url.parse().unwrap();
    let mut proof = Proof::new(method, &url).unwrap();
    if let Some(token) = claims.token {
        proof = proof.access_token(token);
    }
    if let Some(nonce) = claims.nonce {
        proof = proof.nonce(nonce);
    }
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    proof
        .sign_at(
            key,
            now.checked_add_signed(claims.ahead).unwrap(),
            claims.jti.unwrap_or(&unique),
        )
        .unwrap()
}

pub(crate) fn form(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap();
        assert!(values.next().is_none(), "{name} stands twice");
        Some(value)
    }

    pub(crate) fn nonce(&self) -> Option<String> {
        self.header("dpop-nonce").map(str::to_owned)
    }

    /// A member of the JSON body that is a string.
    #[track_caller]
    pub(crate) fn text(&self, name: &str) -> String {
        let text = self.json()[name].as_str().map(str::to_owned);
        text.unwrap_or_else(|| panic!("no {name}: {} {:?}", self.status, self.body))
    }

    /// Status and error code, from the JSON body or from the DPoP challenge.
    pub(crate) fn verdict(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let challenges = Challenge::all(&self.headers);
        let challenge = challenges
            .iter()
            .find(|challenge| challenge.is_scheme("DPoP"));
        let error = challenge.and_then(|challenge| challenge.parameter("error"));
        (
            self.status,
            body["error"]
                .as_str()
                .or(error)
                .unwrap_or_default()
                .to_owned(),
        )
    }

    #[track_caller]
    pub(crate) fn is(&self, status: u16, error: &str) {
        assert_eq!(
            self.verdict(),
            (status, error.to_owned()),
            "{:?}",
            self.body
        );
        assert_eq!(self.header("cache-control"), Some("no-store"));
    }
}

/// Both servers, a client and its key.
pub(crate) struct Kit {
    pub(crate) authorization_server: AuthorizationServer,
    pub(crate) resource_server: ResourceServer,
    pub(crate) http: Client<HttpConnector, Full<Bytes>>,
    pub(crate) key: DpopKey,
}

impl Kit {
    pub(crate) async fn start() -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
        Self {
            authorization_server,
            resource_server,
            http: Client::builder(TokioExecutor::new()).build_http(),
            key: DpopKey::generate().unwrap(),
        }
    }

    pub(crate) async fn start_http2() -> Self {
        let http = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build_http();
        Self {
            http,
            ..Self::start().await
        }
    }

    /// The same with new connections, by HTTP/1.1: the old client's may be cut, and not know it yet.
    pub(crate) fn reconnected(self) -> Self {
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { http, ..self }
    }

    pub(crate) async fn send(&self, call: Call) -> Answer {
        let (head, body) = self.http.request(call).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            version: head.version,
            headers: head.headers,
            body,
        }
    }

    /// A token request without client authentication.
    pub(crate) fn token_call_of(&self, parameters: &[(&str, &str)], claims: Claims<'_>) -> Call {
        let url = self.authorization_server.token_endpoint();
        self.post_call(&url, parameters, Some(claims))
    }

    /// A form, with a proof or without.
    pub(crate) fn post_call(
        &self,
        url: &str,
        parameters: &[(&str, &str)],
        claims: Option<Claims<'_>>,
    ) -> Call {
        let mut call = Request::post(url).header("content-type", FORM);
        if let Some(claims) = claims {
            call = call.header("dpop", proof(&self.key, &Method::POST, url, claims));
        }
        call.body(form(parameters).into()).unwrap()
    }

    pub(crate) async fn post(
        &self,
        url: &str,
        parameters: &[(&str, &str)],
        claims: Option<Claims<'_>>,
    ) -> Answer {
        self.send(self.post_call(url, parameters, claims)).await
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.send(Request::get(url).body(Full::default()).unwrap())
            .await
    }

    pub(crate) fn token_call(&self, claims: Claims<'_>) -> Call {
        let secret = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
        self.token_call_of(
            &[&[("grant_type", "client_credentials")][..], &secret].concat(),
            claims,
        )
    }

    pub(crate) async fn token(&self) -> String {
        let answer = self.send(self.token_call(Claims::default())).await;
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn api_call(&self, token: &str, claims: Claims<'_>) -> Call {
        let url = self.resource_server.url("/orders");
        let claims = Claims {
            token: claims.token.or(Some(token)),
            ..claims
        };
        let proof = proof(&self.key, &Method::GET, &url, claims);
        let call = Request::get(url + "?page=2").header("dpop", proof);
        call.header("authorization", format!("DPoP {token}"))
            .body(Full::default())
            .unwrap()
    }

    pub(crate) async fn api(&self, token: &str, claims: Claims<'_>) -> Answer {
        self.send(self.api_call(token, claims)).await
    }

    // One server or the other, for what both do in the same way.

    pub(crate) fn nonces(&self, side: Side, nonces: Nonces) {
        match side {
            Side::Authorization => self.authorization_server.nonces(nonces),
            Side::Resource => self.resource_server.nonces(nonces),
        }
    }

    pub(crate) fn rotate_nonce(&self, side: Side) {
        match side {
            Side::Authorization => self.authorization_server.rotate_nonce(),
            Side::Resource => self.resource_server.rotate_nonce(),
        }
    }

    pub(crate) fn requests(&self, side: Side) -> Vec<Recorded> {
        match side {
            Side::Authorization => self.authorization_server.requests(),
            Side::Resource => self.resource_server.requests(),
        }
    }

    pub(crate) fn clock_offset(&self, side: Side, seconds: i64) {
        match side {
            Side::Authorization => self.authorization_server.clock_offset(seconds),
            Side::Resource => self.resource_server.clock_offset(seconds),
        }
    }

    pub(crate) async fn call(&self, side: Side, token: &str, claims: Claims<'_>) -> Answer {
        self.send(match side {
            Side::Authorization => self.token_call(claims),
            Side::Resource => self.api_call(token, claims),
        })
        .await
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    Authorization,
    Resource,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Authorization, Self::Resource];

    /// The status of its answer to a bad proof.
    pub(crate) fn bad(self) -> u16 {
        match self {
            Self::Authorization => 400,
            Self::Resource => 401,
        }
    }
}
