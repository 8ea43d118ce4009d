//! Both embedded servers, a second resource server that is none of the audience, and stacks over TCP in which
//! one middleware stands where a test wants it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod desk;
pub(crate) mod middlewares;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer as _, Service, ServiceExt as _, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, Error, TokenLayer, TokenRequest,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Recorded, ResourceServer},
};

pub(crate) type Call = Request<Full<Bytes>>;
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;
/// Whatever stands in a stack, so that middlewares can be put anywhere.
pub(crate) type Stack = BoxCloneSyncService<Call, Answer, BoxError>;

pub(crate) fn boxed<S, B>(service: S) -> Stack
where
    S: Service<Call, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service = service
        .map_response(|answer| answer.map(|body| body.map_err(Into::into).boxed_unsync()))
        .map_err(Into::into);
    BoxCloneSyncService::new(service)
}

/// Where a middleware stands, from the outside in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Above `TokenLayer`.
    Above,
    /// Below `TokenLayer` and above `DpopLayer`.
    Between,
    /// Below `DpopLayer`.
    Below,
}

impl Place {
    pub(crate) const ALL: [Self; 3] = [Self::Above, Self::Between, Self::Below];
    /// Where every sending passes through `DpopLayer`.
    pub(crate) const RE_SIGNED: [Self; 2] = [Self::Above, Self::Between];
}

pub(crate) struct World {
    pub(crate) authorization_server: AuthorizationServer,
    pub(crate) api: ResourceServer,
    /// It would take the token, if somebody sent it there.
    pub(crate) foreign: ResourceServer,
    pub(crate) dpop: DpopLayer,
    pub(crate) tokens: TokenLayer,
    pub(crate) http: Stack,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::speaking(Version::HTTP_11).await
    }

    pub(crate) async fn speaking(version: Version) -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&authorization_server).await.unwrap();
        let foreign = ResourceServer::start(&authorization_server).await.unwrap();
        let http = client(version);
        let dpop = DpopLayer::new(DpopKey::generate().unwrap());
        let audience = Audience::origins([api.origin()]).unwrap();
        let tokens = token_layer(&authorization_server, &dpop, &http, audience);
        Self {
            authorization_server,
            api,
            foreign,
            dpop,
            tokens,
            http,
        }
    }

    /// Both layers over the client, and `wrap` in its place.
    pub(crate) fn stack(&self, place: Place, wrap: impl FnOnce(Stack) -> Stack) -> Stack {
        let mut wrap = Some(wrap);
        let mut here = |now: Place, inner: Stack| match wrap.take() {
            Some(wrap) if now == place => wrap(inner),
            other => {
                wrap = other;
                inner
            }
        };
        let below = here(Place::Below, self.http.clone());
        let between = here(Place::Between, boxed(self.dpop.layer(below)));
        here(Place::Above, boxed(self.tokens.layer(between)))
    }

    /// Fetches the token, so that no test of another matter begins with that.
    pub(crate) async fn has_a_token(&self) {
        self.tokens.access_token().await.unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        get(&self.api.url(path))
    }

    /// How many requests the authorization server and the API saw.
    pub(crate) fn sendings(&self) -> (usize, usize) {
        let (asked, served) = (&self.authorization_server, &self.api);
        (asked.request_count(), served.request_count())
    }

    /// Every proof that any server saw was seen once; each request of ours has exactly one.
    #[track_caller]
    pub(crate) fn one_proof_for_each_sending(&self, what: &str) {
        let mut seen = self.authorization_server.requests();
        seen.extend(self.api.requests());
        let jtis: HashSet<_> = seen.iter().map(|seen| seen.claim("jti")).collect();
        assert!(!jtis.contains(&None), "{what}: a sending without proof");
        assert_eq!(jtis.len(), seen.len(), "{what}: a proof was sent twice");
        let reused = seen.iter().find(|seen| seen.refused() == Some(REUSED));
        assert!(reused.is_none(), "{what}: {reused:?}");
    }
}

/// Why a server refuses a proof that it saw before.
pub(crate) const REUSED: &str = "`jti` was used before";

pub(crate) fn client(version: Version) -> Stack {
    let http = Client::builder(TokioExecutor::new())
        .http2_only(version == Version::HTTP_2)
        .build_http::<Full<Bytes>>();
    boxed(http)
}

pub(crate) fn token_layer(
    server: &AuthorizationServer,
    dpop: &DpopLayer,
    http: &Stack,
    audience: Audience,
) -> TokenLayer {
    let request = TokenRequest::client_credentials(server.token_endpoint(), CLIENT_ID)
        .client_secret_post(CLIENT_SECRET)
        .scope("api");
    TokenLayer::new(dpop, http.clone(), request, audience).unwrap()
}

pub(crate) fn get(url: &str) -> Call {
    Request::get(url).body(Full::default()).unwrap()
}

/// The whole answer. Nothing here takes longer than a deadlock would.
pub(crate) async fn send(
    stack: &Stack,
    request: Call,
) -> Result<(http::response::Parts, Bytes), BoxError> {
    let answer = in_time(stack.clone().oneshot(request)).await?;
    let (head, body) = answer.into_parts();
    let body = in_time(body.collect()).await?.to_bytes();
    Ok((head, body))
}

#[track_caller]
pub(crate) fn ours(error: &BoxError) -> Error {
    let found = Error::find(&**error);
    found.unwrap_or_else(|| panic!("not ours: {error}")).clone()
}

/// A deadlock is a failure.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    let output = tokio::time::timeout(Duration::from_secs(60), future).await;
    output.expect("a deadlock")
}

/// How often a header stands in a request.
pub(crate) fn count(seen: &Recorded, header: &str) -> usize {
    seen.headers().get_all(header).iter().count()
}
