//! Both servers of `testing`, and clients with our layers by any grant, over TCP.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::LOCATION};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    AccessToken, Audience, AuthorizationRequest, BoxError, DpopKey, DpopLayer, Error, Grant,
    OAuthClient, Registration, ServerMetadata, TokenLayer, TokenParameters, TokenRequest,
    testing::{AuthorizationServer, Recorded, ResourceServer},
};

pub(crate) const CALLBACK: &str = "http://127.0.0.1:8123/callback";
pub(crate) const METADATA: &str = "/.well-known/oauth-authorization-server";

/// Against a test that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) type Http = legacy::Client<HttpConnector, Full<Bytes>>;

/// Both servers, a client and its key. The public client `app` is known.
pub(crate) struct Flow {
    pub(crate) authorization_server: AuthorizationServer,
    pub(crate) api: ResourceServer,
    pub(crate) http: Http,
    pub(crate) dpop: DpopLayer,
}

impl Flow {
    pub(crate) async fn start() -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        authorization_server.add_public_client("app");
        let api = ResourceServer::start(&authorization_server).await.unwrap();
        Self {
            authorization_server,
            api,
            http: http(),
            dpop: DpopLayer::new(DpopKey::generate().unwrap()),
        }
    }

    /// As the server tells them.
    pub(crate) async fn metadata(&self) -> ServerMetadata {
        let server = &self.authorization_server;
        let url = format!("{}{METADATA}", server.origin());
        let (head, json) = fetch(&http(), &url).await;
        assert_eq!(head, StatusCode::OK);
        ServerMetadata::from_json(server.issuer(), &json).unwrap()
    }

    /// A public client.
    pub(crate) async fn app(&self) -> Registration {
        Registration::new(self.metadata().await, "app")
    }

    pub(crate) fn client(&self, registration: Registration) -> OAuthClient {
        OAuthClient::new(&self.dpop, self.http.clone(), registration).unwrap()
    }

    /// What a user gave, who agreed at once.
    pub(crate) async fn code(&self, registration: &Registration) -> Grant {
        let client = self.client(registration.clone());
        let request = AuthorizationRequest::new(CALLBACK).scope("a b");
        let pending = client.authorize(request).await.unwrap();
        pending.answered(&self.user(pending.url()).await).unwrap()
    }

    /// Where the browser is sent that opens this URL.
    pub(crate) async fn user(&self, url: &str) -> String {
        let request = Request::get(url).body(Full::default()).unwrap();
        let response = self.http.request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SEE_OTHER);
        response.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    pub(crate) fn tokens(&self, request: TokenRequest) -> TokenLayer {
        let audience = Audience::origins([self.api.origin()]).unwrap();
        TokenLayer::new(&self.dpop, self.http.clone(), request, audience).unwrap()
    }

    /// The status of the API's answer, through both layers.
    pub(crate) async fn get(&self, tokens: &TokenLayer) -> Result<StatusCode, Error> {
        let stack = ServiceBuilder::new()
            .layer(tokens.clone())
            .layer(self.dpop.clone())
            .service(self.http.clone());
        let request = Request::get(self.api.url("/orders")).body(Full::default());
        status(stack.oneshot(request.unwrap()).await)
    }

    /// The same with this very token.
    pub(crate) async fn get_with(&self, token: &AccessToken) -> StatusCode {
        let stack = ServiceBuilder::new()
            .layer(self.dpop.clone())
            .service(self.http.clone());
        let request = Request::get(self.api.url("/orders")).extension(token.clone());
        let request = request.body(Full::default()).unwrap();
        status(stack.oneshot(request).await).unwrap()
    }

    /// The token requests so far.
    pub(crate) fn asked(&self) -> Vec<Recorded> {
        self.to("/token")
    }

    pub(crate) fn to(&self, path: &str) -> Vec<Recorded> {
        let mut all = self.authorization_server.requests();
        all.retain(|seen| seen.uri().path() == path);
        all
    }

    /// The values of a parameter of the token requests that have it.
    pub(crate) fn sent(&self, name: &str) -> Vec<String> {
        let asked = self.asked();
        asked
            .iter()
            .filter_map(|seen| parameter(seen, name))
            .collect()
    }
}

pub(crate) fn http() -> Http {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

fn status<B>(response: Result<Response<B>, BoxError>) -> Result<StatusCode, Error> {
    match response {
        Ok(response) => Ok(response.status()),
        Err(error) => Err(Error::find(&*error).expect("ours").clone()),
    }
}

pub(crate) async fn fetch(http: &Http, url: &str) -> (StatusCode, Bytes) {
    let request = Request::get(url).body(Full::default()).unwrap();
    let (head, body) = http.request(request).await.unwrap().into_parts();
    (head.status, body.collect().await.unwrap().to_bytes())
}

pub(crate) fn parameter(seen: &Recorded, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(seen.body());
    let found = pairs.find(|(known, _)| known == name);
    found.map(|(_, value)| value.into_owned())
}

/// Each is another: nothing was sent twice.
#[track_caller]
pub(crate) fn distinct(values: &[String]) {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), values.len(), "sent twice: {values:?}");
}

/// A token, or the last error, of a caller that comes again for some seconds.
pub(crate) async fn at_last(tokens: &TokenLayer) -> Result<AccessToken, Error> {
    let mut last = None;
    for _ in 0..40 {
        match tokens.access_token().await {
            Ok(token) => return Ok(token),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(last.expect("an error"))
}

pub(crate) fn own(scope: &str) -> TokenParameters {
    TokenParameters::new().scope(scope)
}
