//! The crate `huskarl-resource-server`.
//!
//! It is a resource server's, so a request with a token goes through the whole of it. It asks for the token's key by
//! introspection: here it hears of the key that the first proof beside this token was signed with.

use std::{
    collections::HashMap,
    error::Error,
    future::ready,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header::AUTHORIZATION};
use huskarl_resource_server::{
    DefaultJwsVerifierPlatform,
    core::{
        Error as HuskarlError,
        client_auth::NoAuth,
        http::{HttpClient, HttpResponse, Idempotency},
        jwt::{JtiUniquenessChecker, validator::ClaimCheck},
        platform::MaybeSendBoxFuture,
        time::Clock,
    },
    validator::{dpop_proof::DPoPProofValidator, introspection::IntrospectionValidator},
};
use jiff::Timestamp;

use super::line::{TOLERANCE_MS, clock_ms};
use crate::record::Sent;

/// The thumbprint of the key for each token.
pub(super) type Bound = Mutex<HashMap<String, String>>;

pub(super) struct Huskarl<'a> {
    proofs: DPoPProofValidator,
    requests: IntrospectionValidator,
    world: World,
    bound: &'a Bound,
}

/// What the library asks the world for: the time, and about a token.
#[derive(Clone, Debug, Default)]
struct World {
    now_ms: Arc<AtomicI64>,
    introspected: Arc<Mutex<Bytes>>,
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms.load(Ordering::Relaxed)).unwrap_or_default()
    }
}

impl HttpClient for World {
    fn execute(
        &self,
        _: Request<Bytes>,
        _: Idempotency,
    ) -> MaybeSendBoxFuture<'_, Result<HttpResponse, HuskarlError>> {
        let body = self.introspected.lock().expect("nobody panics with it");
        let json = HeaderValue::from_static("application/json");
        let answer = HttpResponse {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]),
            body: body.clone(),
        };
        Box::pin(ready(Ok(answer)))
    }
}

/// Only so that the library asks for a `jti`: those of the whole record are compared elsewhere.
impl JtiUniquenessChecker for World {
    fn check_and_mark_seen(&self, _: &str) -> MaybeSendBoxFuture<'_, Result<bool, HuskarlError>> {
        Box::pin(ready(Ok(false)))
    }
}

impl<'a> Huskarl<'a> {
    pub(super) const NAME: &'static str = "huskarl-resource-server";

    pub(super) async fn new(bound: &'a Bound) -> Self {
        let world = World::default();
        // The leeway is added on both sides.
        let leeway = Duration::from_millis(TOLERANCE_MS);
        let proofs = DPoPProofValidator::builder()
            .jws_verifier_platform(DefaultJwsVerifierPlatform::default().into())
            .clock(world.clone())
            .max_proof_age(Duration::ZERO)
            .clock_leeway(leeway)
            .jti_checker(world.clone())
            .build();
        let endpoint = "https://server.invalid/introspect";
        let requests = IntrospectionValidator::builder()
            .client_id("verifier")
            .introspection_endpoint(endpoint.parse().expect("a URL"))
            .aud(ClaimCheck::NoCheck)
            .client_auth(NoAuth)
            .http_client(world.clone())
            .max_dpop_proof_age(Duration::ZERO)
            .clock(world.clone())
            .clock_leeway(leeway)
            .require_dpop(true)
            .dpop_jti_checker(world.clone())
            .build()
            .await
            .expect("nothing is fetched for it");
        Self {
            proofs,
            requests,
            world,
            bound,
        }
    }

    pub(super) async fn check(&self, sent: &Sent, iat: Option<u64>) -> Result<(), String> {
        let now = i64::try_from(clock_ms(sent, iat)).unwrap_or(i64::MAX);
        self.world.now_ms.store(now, Ordering::Relaxed);
        let Some(token) = &sent.token else {
            return self
                .proofs
                .validate(&sent.proof)
                .await
                .map(drop)
                .map_err(told);
        };
        let thumbprint = self.thumbprint(token, &sent.proof).await?;
        let introspected = format!(r#"{{"active":true,"cnf":{{"jkt":"{thumbprint}"}}}}"#);
        *self
            .world
            .introspected
            .lock()
            .expect("nobody panics with it") = introspected.into();

        let mut headers = HeaderMap::new();
        let value = |text: &str| HeaderValue::from_str(text).map_err(told);
        headers.insert(AUTHORIZATION, value(&format!("DPoP {token}"))?);
        headers.insert("dpop", value(&sent.proof)?);
        let method = Method::from_bytes(sent.method.as_bytes()).map_err(told)?;
        let uri: Uri = sent.url.parse().map_err(told)?;
        let result = self
            .requests
            .validate_request(&headers, &method, &uri, None);
        match result.await.outcome {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("there is no token".to_owned()),
            Err(e) => Err(told(e)),
        }
    }

    /// Of the key that this token goes with. At its first sight that is this proof's, if the proof is good.
    async fn thumbprint(&self, token: &str, proof: &str) -> Result<String, String> {
        let known = |bound: &Bound| {
            bound
                .lock()
                .expect("nobody panics with it")
                .get(token)
                .cloned()
        };
        if let Some(thumbprint) = known(self.bound) {
            return Ok(thumbprint);
        }
        let valid = self.proofs.validate(proof).await.map_err(told)?;
        let thumbprint = valid.thumbprint.ok_or("a key without a thumbprint")?;
        let mut bound = self.bound.lock().expect("nobody panics with it");
        Ok(bound.entry(token.to_owned()).or_insert(thumbprint).clone())
    }
}

/// An error and all its causes.
fn told(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
