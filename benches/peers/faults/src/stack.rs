//! A tower stack as a side of a comparison: it sends requests, to the API or elsewhere.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{
    BoxError, Service, ServiceExt as _, limit::ConcurrencyLimit, util::BoxCloneSyncService,
};

use crate::{
    herd::Client,
    servers::{API, ELSEWHERE, Servers},
};

/// How many requests the limited client below has under way at once.
pub(crate) const LIMIT: usize = 4;

/// Any HTTP client.
pub(crate) type Http = BoxCloneSyncService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;

/// The HTTP client to the servers.
pub(crate) fn unlimited(servers: &Servers) -> Http {
    boxed(servers.clone())
}

/// The same with a limit, which clones share.
pub(crate) fn limited(servers: &Servers) -> Http {
    boxed(ConcurrencyLimit::new(servers.clone(), LIMIT))
}

fn boxed<S>(service: S) -> Http
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    BoxCloneSyncService::new(service.map_err(Into::into))
}

/// The whole stack, token layer and all.
pub(crate) struct Stack(Http);

impl Stack {
    pub(crate) fn new<S>(service: S) -> Self
    where
        S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = BoxError>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send,
    {
        Self(boxed(service))
    }

    /// One request to a server that wants no token.
    pub(crate) fn call_elsewhere(&self) -> impl Future<Output = bool> + Send + 'static {
        self.send(ELSEWHERE)
    }

    fn send(&self, uri: &'static str) -> impl Future<Output = bool> + Send + 'static {
        let service = self.0.clone();
        async move {
            let Ok(request) = Request::get(uri).body(Full::default()) else {
                return false;
            };
            let answer = service.oneshot(request).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        }
    }
}

impl Client for Stack {
    fn call(&self) -> impl Future<Output = bool> + Send + 'static {
        self.send(API)
    }
}
