//! A token layer as one writes it by tower's documentation: it takes the ready service, leaves a clone in its
//! place, and then waits for the token.
//!
//! Over a client that is always ready that works. What it overlooks is that a service that is ready may hold
//! something for it: here, a permit of the limit below.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::sync::OnceCell;
use tower::{BoxError, Service, ServiceExt as _};

use crate::{
    servers::{API_HOST, TOKEN_ENDPOINT},
    stack::{Http, Stack},
};

/// The layer over `inner`, with token requests through `client`.
pub(crate) fn stack(client: Http, inner: Http) -> Stack {
    let tokens = Arc::new(Tokens {
        client,
        token: OnceCell::new(),
    });
    Stack::new(NaiveToken { inner, tokens })
}

#[derive(Clone)]
struct NaiveToken {
    inner: Http,
    tokens: Arc<Tokens>,
}

/// The token that all share.
struct Tokens {
    client: Http,
    token: OnceCell<HeaderValue>,
}

impl Tokens {
    async fn get(&self) -> Result<HeaderValue, BoxError> {
        let token = self.token.get_or_try_init(|| self.fetch()).await?;
        Ok(token.clone())
    }

    async fn fetch(&self) -> Result<HeaderValue, BoxError> {
        let request = Request::post(TOKEN_ENDPOINT).body(Full::default())?;
        let answer = self.client.clone().oneshot(request).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&body)?;
        let token = body["access_token"].as_str().ok_or("no token")?;
        Ok(format!("Bearer {token}").try_into()?)
    }
}

impl Service<Request<Full<Bytes>>> for NaiveToken {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Full<Bytes>>) -> Self::Future {
        let clone = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, clone);
        let tokens = Arc::clone(&self.tokens);
        Box::pin(async move {
            if request.uri().host() == Some(API_HOST) {
                // `ready` holds its permit all this time.
                let token = tokens.get().await?;
                request.headers_mut().insert(AUTHORIZATION, token);
            }
            ready.call(request).await
        })
    }
}
