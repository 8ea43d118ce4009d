//! The scenario's servers, and a client that finds its way.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode, header::LOCATION};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, Discovery, DpopKey, DpopLayer, OAuthClient,
    Registration, ResourceMetadata, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, Nonces, Recorded, ResourceServer, TokenFormat},
};

const CLIENT: &str = "mcp-client";
const CALLBACK: &str = "http://127.0.0.1:8123/callback";

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    Dpop,
    DpopNonce,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) server: AuthorizationServer,
    pub(crate) mcp: ResourceServer,
    pub(crate) key: DpopKey,
    http: Client<HttpConnector, Full<Bytes>>,
    dpop: DpopLayer,
    /// Calls with a token.
    calls: Cell<usize>,
}

impl World {
    pub(crate) async fn start(scenario: Scenario) -> Self {
        let server = AuthorizationServer::start().await.unwrap();
        let mcp = ResourceServer::start(&server).await.unwrap();
        server.add_public_client(CLIENT);
        server.token_format(TokenFormat::Signed);
        mcp.resource_metadata_in_challenges(true);
        if scenario == Scenario::DpopNonce {
            server.nonces(Nonces::required().only_in_errors());
            mcp.nonces(Nonces::required().only_in_errors());
        }
        let key = DpopKey::generate().unwrap();
        Self {
            scenario,
            server,
            mcp,
            dpop: DpopLayer::new(key.clone()),
            key,
            http: Client::builder(TokioExecutor::new()).build_http(),
            calls: Cell::new(0),
        }
    }

    /// From a refusal to a layer that has tokens.
    pub(crate) async fn connect(&self) -> Result<TokenLayer, BoxError> {
        let url = self.mcp.url("/mcp");
        let audience = Audience::origins([self.mcp.origin()])?;
        let refusal = self.http.request(message(&url, "initialize")).await?;
        assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
        let headers = refusal.headers();
        let named =
            ResourceMetadata::from_challenges(self.http.clone(), &url, headers, &audience).await?;
        let resource = named.expect("the refusal names the metadata");
        resource.check_key(&self.key)?;
        let issuer = resource.authorization_servers().first().expect("a server");
        let discovery = Discovery::new(self.http.clone(), issuer)?;

        let registration = Registration::new(discovery, CLIENT);
        let oauth = OAuthClient::new(&self.dpop, self.http.clone(), registration.clone())?;
        let request = AuthorizationRequest::new(CALLBACK).resource(resource.resource());
        let pending = oauth.authorize(request).await?;
        let page = Request::get(pending.url()).body(Full::default())?;
        let answer = self.http.request(page).await?;
        let grant = pending.answered(answer.headers()[LOCATION].to_str()?)?;

        let request = TokenRequest::new(registration, grant).resource(resource.resource());
        Ok(TokenLayer::new(
            &self.dpop,
            self.http.clone(),
            request,
            audience,
        )?)
    }

    /// All calls of a session: since 2026-07-28, one begins with no `initialize`.
    pub(crate) async fn session(&self, mcp: &TokenLayer, stateless: bool) {
        let begin = ["initialize", "notifications/initialized"];
        let begin = begin.into_iter().filter(|_| !stateless);
        for method in begin.chain(["tools/list", "tools/call"]) {
            assert_eq!(self.call(mcp, method).await.unwrap(), StatusCode::OK);
        }
    }

    pub(crate) async fn call(
        &self,
        mcp: &TokenLayer,
        method: &str,
    ) -> Result<StatusCode, BoxError> {
        let stack = ServiceBuilder::new()
            .layer(mcp.clone())
            .layer(self.dpop.clone())
            .service(self.http.clone());
        self.calls.set(self.calls.get() + 1);
        let answer = stack
            .oneshot(message(&self.mcp.url("/mcp"), method))
            .await?;
        Ok(answer.status())
    }

    /// How many calls there were so far.
    pub(crate) fn calls(&self) -> usize {
        self.calls.get()
    }

    /// What the authorization server saw at a path.
    pub(crate) fn to(&self, path: &str) -> Vec<Recorded> {
        let mut all = self.server.requests();
        all.retain(|seen| seen.uri().path() == path);
        all
    }

    /// What the MCP server saw with a token: the scheme, the token, and the rest.
    pub(crate) fn authorized(&self) -> Vec<(String, String, Recorded)> {
        let all = self.mcp.requests().into_iter();
        let all = all.filter_map(|seen| {
            let authorization = seen.headers().get("authorization")?.to_str().unwrap();
            let (scheme, token) = authorization.split_once(' ').expect("a token");
            Some((scheme.to_owned(), token.to_owned(), seen))
        });
        all.collect()
    }

    /// The paths at which the MCP server was asked for its metadata.
    pub(crate) fn metadata_of_resource(&self) -> Vec<String> {
        let paths = self.mcp.requests().into_iter();
        let paths = paths.map(|seen| seen.uri().path().to_owned());
        paths.filter(|path| path != "/mcp").collect()
    }
}

fn message(url: &str, method: &str) -> Request<Full<Bytes>> {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}});
    Request::post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .body(Full::from(message.to_string()))
        .unwrap()
}

/// Of a form.
pub(crate) fn parameter(seen: &Recorded, name: &str) -> Option<String> {
    find(seen.body(), name)
}

/// Of a URL.
pub(crate) fn query(seen: &Recorded, name: &str) -> Option<String> {
    find(seen.uri().query()?.as_bytes(), name)
}

fn find(form: &[u8], name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(form);
    let found = pairs.find(|(known, _)| known == name);
    found.map(|(_, value)| value.into_owned())
}

pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}
