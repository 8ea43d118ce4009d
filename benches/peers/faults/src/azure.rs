//! The bearer token policy of `azure_core`, which the Azure clients authorize with.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::{
    Bytes,
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::{Error, ErrorKind},
    http::{
        AsyncRawResponse, ClientMethodOptions, Context, HttpClient, Method, Request, StatusCode,
        Transport,
        headers::{AUTHORIZATION, Headers, WWW_AUTHENTICATE},
        policies::{
            Policy, TransportPolicy,
            auth::{Authorizer, BearerTokenAuthorizationPolicy, OnChallenge},
        },
    },
    time::{Duration, OffsetDateTime},
};
use tower::BoxError;

use crate::{
    herd::Client,
    servers::{API, AuthorizationServer, ResourceServer, Servers},
};

const SCOPE: &str = "scope";

/// The policy over a transport in memory.
pub(crate) struct Azure {
    policy: BearerTokenAuthorizationPolicy,
    transport: Arc<dyn Policy>,
}

impl Azure {
    pub(crate) fn new(servers: &Servers) -> Result<Self, BoxError> {
        let credential = Arc::new(Credential(servers.tokens.clone()));
        let policy = BearerTokenAuthorizationPolicy::new(credential, [SCOPE])
            .with_on_challenge(Arc::new(AuthorizeAnew));
        let transport = Transport::new(Arc::new(Api(servers.api.clone())));
        Ok(Self {
            policy,
            transport: Arc::new(TransportPolicy::new(transport)),
        })
    }
}

impl Client for Azure {
    fn call(&self) -> impl Future<Output = bool> + Send + 'static {
        let (policy, transport) = (self.policy.clone(), Arc::clone(&self.transport));
        async move {
            let Ok(url) = API.parse() else { return false };
            let mut request = Request::new(url, Method::Get);
            let (context, next) = (Context::new(), [transport]);
            let answer = policy.send(&context, &mut request, &next).await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::Ok)
        }
    }
}

/// Gets a token from our authorization server.
#[derive(Debug)]
struct Credential(AuthorizationServer);

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let issued = self.0.issue().await;
        let issued = issued.map_err(|down| Error::new(ErrorKind::Credential, down))?;
        let life = i64::try_from(issued.seconds).map(Duration::seconds);
        let life = life.map_err(|error| Error::new(ErrorKind::Credential, error))?;
        let ends = OffsetDateTime::now_utc() + life;
        Ok(AccessToken::new(issued.token, ends))
    }
}

/// What the policy asks its user for before it sends a refused request once more: a token for it. Without
/// this callback a caller gets the 401 as it is, and the cache is emptied all the same.
#[derive(Debug)]
struct AuthorizeAnew;

#[expect(
    elided_lifetimes_in_paths,
    reason = "written out, it no longer matches the trait"
)]
#[async_trait]
impl OnChallenge for AuthorizeAnew {
    async fn on_challenge(
        &self,
        context: &Context,
        request: &mut Request,
        authorizer: &dyn Authorizer,
        _: &Headers,
    ) -> azure_core::Result<()> {
        let options = TokenRequestOptions {
            method_options: ClientMethodOptions {
                context: context.clone(),
            },
        };
        authorizer.authorize(request, &[SCOPE], options).await
    }
}

/// Our resource server in place of the network.
#[derive(Debug)]
struct Api(ResourceServer);

#[async_trait]
impl HttpClient for Api {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let authorization = request.headers().get_optional_str(&AUTHORIZATION);
        let token = authorization.and_then(|value| value.strip_prefix("Bearer "));
        let mut headers = Headers::new();
        let status = if self.0.accepts(token).await {
            StatusCode::Ok
        } else {
            headers.insert(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#);
            StatusCode::Unauthorized
        };
        Ok(AsyncRawResponse::from_bytes(status, headers, Bytes::new()))
    }
}
