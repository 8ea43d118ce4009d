//! `tower-dpop`: both layers over the servers in memory.

use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_dpop::{Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest, dpop::ResponseBody};

use crate::{
    servers::{API, Servers, TOKEN_ENDPOINT},
    stack::{Http, Stack, unlimited},
};

/// The layers over `inner`, with token requests through `client`.
pub(crate) fn stack(client: Http, inner: Http) -> Result<Stack, BoxError> {
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let request =
        TokenRequest::client_credentials(TOKEN_ENDPOINT, "client").client_secret_post("secret");
    let tokens = TokenLayer::new(&dpop, client, request, Audience::origins([API])?)?;
    let stack = ServiceBuilder::new().layer(tokens).layer(dpop);
    let service = stack.service(inner);
    Ok(Stack::new(service.map_response(|answer| {
        answer.map(ResponseBody::into_inner)
    })))
}

/// One HTTP client for all, without a limit.
pub(crate) fn plain(servers: &Servers) -> Result<Stack, BoxError> {
    let http = unlimited(servers);
    stack(http.clone(), http)
}
