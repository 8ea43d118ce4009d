//! `google-cloud-auth` with the credentials of a user account, whose refresh token it trades for access tokens.

use std::{convert::Infallible, net::TcpListener as StdListener};

use google_cloud_auth::credentials::{Credentials, user_account};
use http::Extensions;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
};
use tower::BoxError;

use crate::{
    herd::Client,
    servers::{AuthorizationServer, Servers},
};

pub(crate) struct Google {
    credentials: Credentials,
    server: AbortHandle,
}

impl Google {
    /// The crate sends by its own HTTP client, so our authorization server listens on loopback for it.
    pub(crate) fn new(servers: &Servers) -> Result<Self, BoxError> {
        // Its HTTP client wants TLS, also where it is not used, and leaves the choice to the program. The
        // second time the provider stands already, which is what is wanted.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let listener = StdListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let server = tokio::spawn(serve(listener, servers.tokens.clone()));
        let account = json!({
            "type": "authorized_user",
            "client_id": "client",
            "client_secret": "secret",
            "refresh_token": "refresh",
            "token_uri": format!("http://{address}/token"),
        });
        Ok(Self {
            credentials: user_account::Builder::new(account).build()?,
            server: server.abort_handle(),
        })
    }
}

impl Client for Google {
    fn call(&self) -> impl Future<Output = bool> + Send + 'static {
        let credentials = self.credentials.clone();
        async move { credentials.headers(Extensions::new()).await.is_ok() }
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Until it is aborted, its connections with it.
async fn serve(listener: TcpListener, tokens: AuthorizationServer) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let tokens = tokens.clone();
        let service = service_fn(move |_| {
            let tokens = tokens.clone();
            async move { Ok::<_, Infallible>(tokens.answer("Bearer").await) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
