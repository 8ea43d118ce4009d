//! Both embedded servers, and what must be true of all that they saw.
// Each test file uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../tests/support/verifier.rs"]
mod verifier;

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, Error, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Recorded, ResourceServer},
};

use self::verifier::Verifier;

/// What takes longer hangs.
const HANGS: Duration = Duration::from_secs(60);

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(HANGS, future).await;
    output.expect("it hangs")
}

/// For clients that want to know whom to trust: nobody.
pub(crate) fn no_certificates() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

pub(crate) struct World {
    pub(crate) authorization_server: AuthorizationServer,
    pub(crate) api: ResourceServer,
    pub(crate) key: DpopKey,
}

impl World {
    pub(crate) async fn start() -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&authorization_server).await.unwrap();
        let key = DpopKey::generate().unwrap();
        Self {
            authorization_server,
            api,
            key,
        }
    }

    pub(crate) fn dpop(&self) -> DpopLayer {
        DpopLayer::new(self.key.clone())
    }

    pub(crate) fn token_request(&self) -> TokenRequest {
        let endpoint = self.authorization_server.token_endpoint();
        TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_basic(CLIENT_SECRET)
    }

    pub(crate) fn audience(&self) -> Audience {
        Audience::origins([self.api.origin()]).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Request<Full<Bytes>> {
        Request::get(self.api.url(path))
            .body(Full::default())
            .unwrap()
    }

    /// The status of each answer, in the order of the requests: the authorization server's, and the API's.
    pub(crate) fn statuses(&self) -> (Vec<u16>, Vec<u16>) {
        (
            statuses(&self.authorization_server.requests()),
            statuses(&self.api.requests()),
        )
    }

    /// Shows every proof that arrived to a verifier that is not ours: each must be good for the URL at which
    /// it arrived, for its token, and for this one time.
    pub(crate) async fn assert_own_proofs(&self) {
        let asked = self.authorization_server.requests().into_iter();
        let served = self.api.requests().into_iter();
        let all = asked
            .map(|seen| (self.authorization_server.token_endpoint(), seen))
            .chain(served.map(|seen| (self.api.url(seen.uri().path()), seen)));
        let mut verifier = Verifier::default();
        for (url, seen) in all {
            let proof = seen.proof().expect("one proof");
            let thumbprint = verifier
                .verify(proof, seen.method().as_str(), &url, token(&seen))
                .await
                .unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(thumbprint, self.key.thumbprint());
        }
    }
}

/// The token that a request carried as DPoP.
pub(crate) fn token(seen: &Recorded) -> Option<&str> {
    let authorization = seen.headers().get("authorization")?;
    authorization.to_str().unwrap().strip_prefix("DPoP ")
}

pub(crate) fn statuses(requests: &[Recorded]) -> Vec<u16> {
    let statuses = requests.iter().map(|seen| seen.status());
    statuses
        .map(|status| status.expect("it was answered").as_u16())
        .collect()
}

/// The error of ours in a stack's.
pub(crate) fn ours(error: &BoxError) -> &Error {
    Error::find(&**error).unwrap_or_else(|| panic!("not ours: {error}"))
}

/// An answer's body as JSON.
pub(crate) async fn json<B>(answer: http::Response<B>) -> serde_json::Value
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}
