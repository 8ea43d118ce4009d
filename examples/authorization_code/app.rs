//! A program that acts for a user.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt as _, util::BoxCloneService};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, DpopKey, DpopLayer, FileStore, Grant,
    GrantStore as _, OAuthClient, Registration, StoredGrant, TokenLayer, TokenRequest,
};

use crate::common::{https::HttpsClient, login::Login, output};

/// For one request, a new token and a nonce retry included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// For another process that renews.
const LOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// What the program knows before anybody logs in.
pub(crate) struct App {
    pub(crate) http: HttpsClient,
    pub(crate) registration: Registration,
    /// Where the token may be sent.
    pub(crate) audience: Audience,
    pub(crate) scope: Option<String>,
    pub(crate) resources: Vec<String>,
    /// Whether authorization requests are pushed (RFC 9126).
    pub(crate) pushes: bool,
    /// Key and refresh token, for the next run.
    pub(crate) store: Option<FileStore>,
}

/// A user who is logged in. Clones share key, nonces and token.
#[derive(Clone)]
pub(crate) struct Session {
    api: BoxCloneService<Request<Full<Bytes>>, Response<Bytes>, BoxError>,
}

impl App {
    /// The user is asked in a browser. The code that comes back is bound to the key (`dpop_jkt`), and so will be the
    /// refresh token.
    pub(crate) async fn log_in(&self, key: DpopKey, login: Login) -> Result<Session, BoxError> {
        let dpop = DpopLayer::new(key);
        let mut request = AuthorizationRequest::new(login.redirect_uri());
        if let Some(scope) = &self.scope {
            request = request.scope(scope);
        }
        for resource in &self.resources {
            request = request.resource(resource);
        }
        let oauth = self.oauth(&dpop)?;
        let pending = match self.pushes {
            true => oauth.push(request).await?,
            false => oauth.authorize(request).await?,
        };
        let grant = login.ask(pending).await?;
        self.session(dpop, grant)
    }

    /// What an earlier run has left.
    pub(crate) async fn stored(&self) -> Result<Option<StoredGrant>, BoxError> {
        match &self.store {
            Some(store) => store.load().await,
            None => Ok(None),
        }
    }

    /// Goes on with it, and asks nobody.
    pub(crate) fn resume(
        &self,
        stored: &StoredGrant,
        key: Option<DpopKey>,
    ) -> Result<Session, BoxError> {
        self.session(dpop(stored, key)?, Grant::stored(stored))
    }

    /// The layers, from the outermost to the innermost.
    fn session(&self, dpop: DpopLayer, grant: Grant) -> Result<Session, BoxError> {
        let mut request = TokenRequest::new(self.registration.clone(), grant);
        for resource in &self.resources {
            request = request.resource(resource);
        }
        if let Some(store) = &self.store {
            request = request.store(store.clone()); // each new refresh token, before it is needed
        }
        let tokens = TokenLayer::new(&dpop, self.http.clone(), request, self.audience.clone())?;
        let api = ServiceBuilder::new()
            .boxed_clone() // only to give the stack a short name
            .timeout(TIMEOUT)
            .and_then(output::read) // within the timeout
            .layer(tokens) // which token?
            .layer(dpop) // prove the key: below all that sends a request again
            .service(self.http.clone());
        Ok(Session { api })
    }

    /// Tells the server that the refresh token is of no use any more, and with it all access tokens; then forgets it.
    /// False if nothing was stored.
    pub(crate) async fn log_out(&self, key: Option<DpopKey>) -> Result<bool, BoxError> {
        let Some(store) = &self.store else {
            return Ok(false);
        };
        let lock = timeout(LOCK_TIMEOUT, store.lock()).await; // no other process renews meanwhile
        let _lock = lock.map_err(|_| "another process is using the stored grant: try again")??;
        let Some(stored) = store.load().await? else {
            return Ok(false);
        };
        let oauth = self.oauth(&dpop(&stored, key)?)?;
        oauth.revoke_refresh_token(stored.refresh_token()).await?;
        store.clear().await?;
        Ok(true)
    }

    fn oauth(&self, dpop: &DpopLayer) -> Result<OAuthClient, tower_dpop::Error> {
        OAuthClient::new(dpop, self.http.clone(), self.registration.clone())
    }
}

impl Session {
    pub(crate) async fn call(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, BoxError> {
        self.api.clone().oneshot(request).await
    }
}

/// By the key of the stored grant: it is in the store, too, unless it is one that cannot leave its place.
fn dpop(stored: &StoredGrant, key: Option<DpopKey>) -> Result<DpopLayer, BoxError> {
    let key = key.or_else(|| stored.key().cloned());
    let key = key.ok_or("the key is not in the store: --key FILE names it")?;
    Ok(DpopLayer::new(key))
}
