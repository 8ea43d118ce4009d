//! The suite's server, and the client that is tested.

use std::fmt;

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
    Audience, AuthorizationRequest, BoxError, Discovery, DpopKey, DpopLayer, Error, Grant,
    OAuthClient, PendingAuthorization, PrivateKeyJwt, Registration, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, Nonces, Recorded, ResourceServer},
};

pub(crate) const CLIENT: &str = "conformance-client";
pub(crate) const CALLBACK: &str = "http://127.0.0.1:8123/callback";
pub(crate) const ACCOUNTS: &str = "/open-banking/v1.1/accounts";

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// The profile of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Profile {
    ClientCredentials,
    Code,
}

impl Profile {
    pub(crate) const BOTH: [Self; 2] = [Self::ClientCredentials, Self::Code];
}

#[derive(Clone)]
pub(crate) struct Suite {
    pub(crate) profile: Profile,
    pub(crate) server: AuthorizationServer,
    pub(crate) api: ResourceServer,
    pub(crate) http: Http,
    /// Of the client's assertions.
    pub(crate) client_key: DpopKey,
    pub(crate) dpop: DpopLayer,
}

impl Suite {
    /// As every module begins: nonces are asked for at each endpoint, and told only to whoever comes without the right
    /// one; it is another after each success.
    pub(crate) async fn start(profile: Profile) -> Self {
        let server = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&server).await.unwrap();
        let client_key = DpopKey::generate().unwrap();
        server.add_client_with_key(CLIENT, &client_key);
        server.strict_assertion_audience(true);
        server.require_pushed_authorization_requests(true);
        let set = |name: &str, value: serde_json::Value| {
            server.metadata_member(name, Some(&value.to_string()));
        };
        set(
            "dpop_signing_alg_values_supported",
            json!(["PS256", "ES256", "EdDSA"]),
        );
        set(
            "token_endpoint_auth_methods_supported",
            json!(["private_key_jwt"]),
        );
        // Those of a host that nobody may ask: the client shows no certificate.
        set(
            "mtls_endpoint_aliases",
            json!({
                "token_endpoint": "http://127.0.0.1:1/token",
                "pushed_authorization_request_endpoint": "http://127.0.0.1:1/par",
            }),
        );
        if profile == Profile::ClientCredentials {
            set("grant_types_supported", json!(["client_credentials"]));
            server.metadata_member("authorization_endpoint", None);
            server.metadata_member("pushed_authorization_request_endpoint", None);
            server.metadata_member("require_pushed_authorization_requests", None);
        }
        server.nonces(nonces());
        api.nonces(nonces());
        Self {
            profile,
            server,
            api,
            http: Client::builder(TokioExecutor::new()).build_http(),
            client_key,
            dpop: DpopLayer::new(DpopKey::generate().unwrap()),
        }
    }

    /// The client knows the issuer, and its key there.
    pub(crate) fn registration(&self) -> Registration {
        let assertion = PrivateKeyJwt::new(self.client_key.clone());
        self.registration_with(assertion)
    }

    pub(crate) fn registration_with(&self, assertion: PrivateKeyJwt) -> Registration {
        let discovery = Discovery::new(self.http.clone(), self.server.issuer()).unwrap();
        Registration::new(discovery, CLIENT).private_key_jwt(assertion)
    }

    /// A pushed authorization request.
    pub(crate) async fn authorize(
        &self,
        registration: &Registration,
    ) -> Result<PendingAuthorization, Error> {
        let oauth = OAuthClient::new(&self.dpop, self.http.clone(), registration.clone())?;
        let request = AuthorizationRequest::new(CALLBACK).scope("accounts");
        oauth.authorize(request).await
    }

    /// Where the user's browser is sent at once that opens this URL.
    pub(crate) async fn browser(&self, url: &str) -> String {
        let page = Request::get(url).body(Full::default()).unwrap();
        let answer = self.http.request(page).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        answer.headers()[LOCATION].to_str().unwrap().to_owned()
    }

    pub(crate) async fn grant(&self, registration: &Registration) -> Result<Grant, Error> {
        if self.profile == Profile::ClientCredentials {
            return Ok(Grant::client_credentials());
        }
        let pending = self.authorize(registration).await?;
        pending.answered(&self.browser(pending.url()).await)
    }

    pub(crate) fn tokens(&self, registration: Registration, grant: Grant) -> TokenLayer {
        let mut request = TokenRequest::new(registration, grant);
        if self.profile == Profile::ClientCredentials {
            request = request.scope("accounts");
        }
        let audience = Audience::origins([self.api.origin()]).unwrap();
        TokenLayer::new(&self.dpop, self.http.clone(), request, audience).unwrap()
    }

    /// A call of the resource, through both layers.
    pub(crate) async fn call(&self, tokens: &TokenLayer) -> Result<StatusCode, BoxError> {
        let stack = ServiceBuilder::new()
            .layer(tokens.clone())
            .layer(self.dpop.clone())
            .service(self.http.clone());
        let request = Request::get(self.api.url(ACCOUNTS)).body(Full::default())?;
        Ok(stack.oneshot(request).await?.status())
    }

    /// The whole flow, and so many calls of the resource.
    pub(crate) async fn walk(&self, calls: usize) {
        let registration = self.registration();
        let grant = self.grant(&registration).await.unwrap();
        let tokens = self.tokens(registration, grant);
        for call in 0..calls {
            let status = self.call(&tokens).await;
            assert_eq!(status.unwrap(), StatusCode::OK, "{self}, call {call}");
        }
    }

    /// What the authorization server saw at a path.
    pub(crate) fn to(&self, path: &str) -> Vec<Recorded> {
        let mut all = self.server.requests();
        all.retain(|seen| seen.uri().path() == path);
        all
    }
}

/// As the suite makes them.
pub(crate) fn nonces() -> Nonces {
    Nonces::one_time().only_in_errors().of_all_characters()
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.profile)
    }
}

pub(crate) fn parameter(seen: &Recorded, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(seen.body());
    let found = pairs.find(|(known, _)| known == name);
    found.map(|(_, value)| value.into_owned())
}
