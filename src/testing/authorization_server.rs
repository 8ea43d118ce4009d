use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    CLIENT_ID, CLIENT_SECRET, Nonces, Recorded, TokenFormat,
    server::{Endpoint as _, Server},
    shared::Order,
    token_endpoint::{ExpiresIn, TokenEndpoint},
    tokens::Tokens,
};

/// An authorization server on loopback, with a token endpoint. See the [module documentation](crate::testing)
/// for an example and for what it checks.
///
/// A cheap handle: clones are the same server, which ends when the last of them is dropped, with all its
/// connections. Whatever is set applies from the next request on.
#[derive(Clone)]
pub struct AuthorizationServer {
    server: Arc<Server<TokenEndpoint>>,
}

impl AuthorizationServer {
    /// Starts on a free port of 127.0.0.1, for HTTP/1.1 and for HTTP/2 with prior knowledge. It knows one
    /// client, [`CLIENT_ID`] with [`CLIENT_SECRET`].
    ///
    /// Must be called from within a Tokio runtime with its I/O and time drivers on.
    ///
    /// # Errors
    ///
    /// There is no free port, or the operating system gives no random numbers.
    pub async fn start() -> io::Result<Self> {
        let tokens = Arc::new(Tokens::new()?);
        let server = Server::start(|shared| TokenEndpoint::new(shared, tokens)).await?;
        let server = Self {
            server: Arc::new(server),
        };
        server.add_client(CLIENT_ID, CLIENT_SECRET);
        Ok(server)
    }

    /// Scheme, host and port, such as `http://127.0.0.1:40123`. It is the issuer of signed tokens, too.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.endpoint().shared().origin()
    }

    /// The URL to ask for tokens.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        self.endpoint().url()
    }

    /// Adds a client with a secret, in place of any with the same id.
    pub fn add_client(&self, id: impl Into<String>, secret: impl Into<String>) {
        self.endpoint().add_client(id.into(), Some(secret.into()));
    }

    /// Adds a client without a secret, in place of any with the same id. RFC 6749, section 4.4 would keep
    /// it from the client credentials grant; here it may, so that its requests can be tested.
    pub fn add_public_client(&self, id: impl Into<String>) {
        self.endpoint().add_client(id.into(), None);
    }

    /// When a nonce is asked for: never, unless set.
    pub fn nonces(&self, nonces: Nonces) {
        self.endpoint().shared().set_nonces(nonces);
    }

    /// Makes a new nonce; see [`Nonces`] for what becomes of the old one.
    pub fn rotate_nonce(&self) {
        self.endpoint().shared().rotate_nonce();
    }

    /// How long tokens live: 300 s unless set. `expires_in` tells it in whole seconds.
    pub fn token_lifetime(&self, lifetime: Duration) {
        self.endpoint().settings().lifetime = lifetime;
    }

    /// How tokens look.
    pub fn token_format(&self, format: TokenFormat) {
        self.endpoint().settings().format = format;
    }

    /// The `token_type` that answers claim: `DPoP` unless set. The token is bound to the key in any case.
    pub fn token_type(&self, token_type: impl Into<String>) {
        self.endpoint().settings().token_type = token_type.into();
    }

    /// The `expires_in` that answers claim, as JSON text of whatever kind (`3600`, `"3600"`, `null`, `-1`);
    /// `None` leaves it out. Unless set, it is the real lifetime, which this does not change.
    pub fn expires_in(&self, json: Option<&str>) {
        self.endpoint().settings().expires_in = match json {
            Some(json) => ExpiresIn::Json(json.to_owned()),
            None => ExpiresIn::LeftOut,
        };
    }

    /// Makes every token so far invalid, signed ones as well.
    pub fn revoke_all(&self) {
        self.endpoint().tokens().revoke_all();
    }

    /// Waits so long (by Tokio's clock) before an answer goes out. What is answered is decided before the
    /// wait, so the request has had its effect even if the client does not wait.
    pub fn delay(&self, delay: Duration) {
        self.endpoint().shared().set_delay(delay);
    }

    /// Sets the clock off by so many seconds: the one that judges proofs, dates tokens and writes `Date`.
    pub fn clock_offset(&self, seconds: i64) {
        self.endpoint().shared().set_clock_offset(seconds);
    }

    /// Answers the next `times` requests with `status` and no body, whatever they are. Orders of `fail` and
    /// [`answer`](Self::answer) queue up.
    pub fn fail(&self, times: usize, status: StatusCode) {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        self.answer(times, response);
    }

    /// Answers the next `times` requests with exactly `response`, whatever they are; only `Date` is added
    /// where it is missing. Nothing is checked, and no nonce given or used up.
    pub fn answer(&self, times: usize, response: Response<Bytes>) {
        self.endpoint()
            .shared()
            .order(times, Order::Exactly(response));
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.endpoint().shared().requests()
    }

    pub(super) fn endpoint(&self) -> &TokenEndpoint {
        self.server.endpoint()
    }
}

impl fmt::Debug for AuthorizationServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationServer")
            .field("origin", &self.origin())
            .finish_non_exhaustive()
    }
}
