use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    CLIENT_ID, CLIENT_SECRET, Nonces, Profile, Recorded, TokenFormat,
    issuer::{Issuer, USER},
    refresh_tokens::Family,
    server::{Endpoint as _, Server},
    settings::ExpiresIn,
    shared::Order,
    token_endpoint,
    tokens::Tokens,
};
use crate::DpopKey;

mod clients;
mod flows;

/// An authorization server on loopback, with every endpoint that a client may need. See the
/// [module documentation](crate::testing) for an example and for what it checks.
///
/// A cheap handle: clones are the same server, which ends when the last of them is dropped, with all its
/// connections. Whatever is set applies from the next request on.
#[derive(Clone)]
pub struct AuthorizationServer {
    server: Arc<Server<Issuer>>,
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
        let server = Server::start(|shared| Issuer::new(shared, tokens)).await?;
        let server = Self {
            server: Arc::new(server),
        };
        server.add_client(CLIENT_ID, CLIENT_SECRET);
        Ok(server)
    }

    /// Scheme, host and port, such as `http://127.0.0.1:40123`. It is the [`issuer`](Self::issuer), too.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.endpoint().shared().origin()
    }

    /// The issuer identifier (RFC 8414, section 2): of the metadata, of signed tokens, and of authorization
    /// responses (RFC 9207).
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.origin()
    }

    /// The URL to ask for tokens.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        self.endpoint().url(token_endpoint::PATH)
    }

    /// Behaves as a server that is in use does; nonces, token format and token type included: what was set of
    /// these before is over, and may be set anew. Proofs that were seen so far are forgotten.
    pub fn profile(&self, profile: Profile) {
        let rules = profile.rules();
        let endpoint = self.endpoint();
        endpoint.shared().set_rules(rules, (rules.token.nonces)());
        self.token_format(rules.token.format);
        self.token_type(rules.token.token_type);
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
        self.endpoint().state().settings.lifetime = lifetime;
    }

    /// How tokens look.
    pub fn token_format(&self, format: TokenFormat) {
        self.endpoint().state().settings.format = format;
    }

    /// The `token_type` that answers claim: `DPoP` unless set. The token is bound to the key in any case.
    pub fn token_type(&self, token_type: impl Into<String>) {
        self.endpoint().state().settings.token_type = token_type.into();
    }

    /// The `expires_in` that answers claim, as JSON text of whatever kind (`3600`, `"3600"`, `null`, `-1`);
    /// `None` leaves it out. Unless set, it is the real lifetime, which this does not change.
    pub fn expires_in(&self, json: Option<&str>) {
        self.endpoint().state().settings.expires_in = match json {
            Some(json) => ExpiresIn::Json(json.to_owned()),
            None => ExpiresIn::LeftOut,
        };
    }

    /// Makes every access token so far invalid, signed ones as well. Refresh tokens stay good.
    pub fn revoke_all(&self) {
        self.endpoint().tokens().revoke_all();
    }

    /// A new refresh token, as a grant with a user would end with: the first of its family.
    ///
    /// Only the client with this id may use it, and a public client only with proofs of `key`. `scope` is what
    /// was granted: scopes apart by single spaces (RFC 6749, section 3.3), or empty for none.
    #[must_use]
    pub fn issue_refresh_token(
        &self,
        client_id: impl Into<String>,
        key: &DpopKey,
        scope: &str,
    ) -> String {
        let family = Family {
            client_id: client_id.into(),
            subject: USER.to_owned(),
            scope: (!scope.is_empty()).then(|| scope.to_owned()),
            thumbprint: key.thumbprint().to_owned(),
            ..Family::default()
        };
        let endpoint = self.endpoint();
        let mut state = endpoint.state();
        state
            .refresh_tokens
            .issue(Arc::new(family), endpoint.random())
    }

    /// Whether a refresh token is good for one use, and the answer holds the next (as it is, unless set). If
    /// not, the same one stays good, and the answer holds none. One that was used before this is switched
    /// off is not good again.
    pub fn rotate_refresh_tokens(&self, rotate: bool) {
        self.endpoint().state().refresh_tokens.rotate = rotate;
    }

    /// How long after its first use a refresh token may be used again, by the server's clock: not at all,
    /// unless set. The answer to each such use holds the same next refresh token, and a new access token. Once
    /// that next one is used, the time is over.
    ///
    /// So a client that lost an answer need not begin anew, as the FAPI 2.0 Security Profile asks of servers
    /// that rotate.
    pub fn refresh_token_grace(&self, grace: Duration) {
        self.endpoint().state().refresh_tokens.grace = grace;
    }

    /// Makes every refresh token so far invalid, and the access tokens that came from one.
    pub fn revoke_refresh_tokens(&self) {
        self.endpoint().state().refresh_tokens.revoke_all();
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

    /// Answers the next `times` requests with `status` and no body, whatever they are. Orders of `fail`,
    /// [`answer`](Self::answer) and [`lose_answers`](Self::lose_answers) queue up.
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

    /// Loses the answers to the next `times` requests: each has its whole effect, tokens issued and used up
    /// included, and then the connection is closed without an answer; of an HTTP/2 connection only the
    /// request's stream is reset. The record holds the status of the lost answer.
    pub fn lose_answers(&self, times: usize) {
        self.endpoint().shared().order(times, Order::Lose);
    }

    /// Closes the port and all connections at once: requests that are under way are cut, and new connections
    /// refused, until [`restart`](Self::restart). Returns when that is done; does nothing if it was already.
    ///
    /// The runtime in which the server was started, or restarted last, must be running.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Listens again on the same port. Everything is as it was: tokens, nonces, settings, orders and
    /// the record. A server that is
    /// running is stopped first. From then on it runs in the runtime of this call.
    ///
    /// # Errors
    ///
    /// The port cannot be had again.
    pub async fn restart(&self) -> io::Result<()> {
        self.server.restart().await
    }

    /// Every request so far, in order of arrival, or the last of them after
    /// [`keep_requests`](Self::keep_requests).
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.endpoint().shared().requests()
    }

    /// How many requests arrived so far, whether they are still kept or not.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.endpoint().shared().request_count()
    }

    /// Keeps only the last `n` requests for [`requests`](Self::requests), from now on: all, unless set. For
    /// runs so long that memory counts.
    pub fn keep_requests(&self, n: usize) {
        self.endpoint().shared().keep_requests(n);
    }

    pub(super) fn endpoint(&self) -> &Issuer {
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
