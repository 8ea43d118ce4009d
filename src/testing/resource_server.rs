use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use super::{
    AuthorizationServer, Nonces, Profile, Recorded,
    resource_endpoint::ResourceEndpoint,
    server::{Endpoint as _, Server},
    shared::{Order, Shared},
};

/// A resource server on loopback, for the tokens of one [`AuthorizationServer`]. See the
/// [module documentation](crate::testing) for an example and for what it checks.
///
/// A cheap handle: clones are the same server, which ends when the last of them is dropped, with all its
/// connections. It does not keep the authorization server running. Whatever is set applies from the next
/// request on.
#[derive(Clone)]
pub struct ResourceServer {
    server: Arc<Server<ResourceEndpoint>>,
}

impl ResourceServer {
    /// Starts on a free port of 127.0.0.1, for HTTP/1.1 and for HTTP/2 with prior knowledge.
    ///
    /// Must be called from within a Tokio runtime with its I/O and time drivers on.
    ///
    /// # Errors
    ///
    /// There is no free port, or the operating system gives no random numbers.
    pub async fn start(authorization_server: &AuthorizationServer) -> io::Result<Self> {
        let tokens = Arc::clone(authorization_server.endpoint().tokens());
        let issuer = authorization_server.origin().to_owned();
        let endpoint = |shared| ResourceEndpoint::new(shared, tokens, issuer);
        let server = Server::start(endpoint).await?;
        Ok(Self {
            server: Arc::new(server),
        })
    }

    /// Scheme, host and port, such as `http://127.0.0.1:40123`.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.shared().origin()
    }

    /// The URL of a path, such as `/orders?page=2`. Every path is served; that of the metadata by GET
    /// without a token.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let slash = if path.starts_with('/') { "" } else { "/" };
        format!("{}{slash}{path}", self.origin())
    }

    /// Behaves as a server that is in use does, the nonces included: what was set by [`nonces`](Self::nonces)
    /// before is over, and may be set anew. Proofs that were seen so far are forgotten.
    pub fn profile(&self, profile: Profile) {
        let rules = profile.rules();
        self.shared().set_rules(rules, (rules.resource.nonces)());
    }

    /// Whether the challenge to a request without a token tells where the metadata of the resource are
    /// (`resource_metadata`; RFC 9728, section 5.1). It does not, unless set.
    pub fn resource_metadata_in_challenges(&self, told: bool) {
        self.server.endpoint().metadata().in_challenges = told;
    }

    /// Sets a member of the resource's metadata (RFC 9728) to a JSON text of whatever kind; `None` leaves the
    /// member out. They stand at `/.well-known/oauth-protected-resource`, and there with the path of a
    /// resource added. Unless set, they hold `resource`, `authorization_servers`,
    /// `dpop_signing_alg_values_supported` and `dpop_bound_access_tokens_required`.
    pub fn metadata_member(&self, name: impl Into<String>, json: Option<&str>) {
        let json = json.map(str::to_owned);
        self.server.endpoint().metadata().set(name.into(), json);
    }

    /// When a nonce is asked for: never, unless set. The authorization server's nonces are others.
    pub fn nonces(&self, nonces: Nonces) {
        self.shared().set_nonces(nonces);
    }

    /// Makes a new nonce; see [`Nonces`] for what becomes of the old one.
    pub fn rotate_nonce(&self) {
        self.shared().rotate_nonce();
    }

    /// Waits so long (by Tokio's clock) before an answer goes out. What is answered is decided before the
    /// wait, so the request has had its effect even if the client does not wait.
    pub fn delay(&self, delay: Duration) {
        self.shared().set_delay(delay);
    }

    /// Sets the clock off by so many seconds: the one that judges proofs and tokens, and writes `Date`.
    pub fn clock_offset(&self, seconds: i64) {
        self.shared().set_clock_offset(seconds);
    }

    /// Answers the next `times` requests with `status` and no body, whatever they are. Orders of `fail`,
    /// [`answer`](Self::answer), [`refuse`](Self::refuse) and [`lose_answers`](Self::lose_answers) queue up.
    pub fn fail(&self, times: usize, status: StatusCode) {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        self.answer(times, response);
    }

    /// Answers the next `times` requests with exactly `response`, whatever they are; only `Date` is added
    /// where it is missing. Nothing is checked, and no nonce given or used up.
    pub fn answer(&self, times: usize, response: Response<Bytes>) {
        self.shared().order(times, Order::Exactly(response));
    }

    /// Answers the next `times` requests with 401 and exactly this `WWW-Authenticate`, whatever they are. A
    /// `DPoP-Nonce` goes with it if [`Nonces`] ask for one. Text that no header can carry is left out.
    pub fn refuse(&self, times: usize, www_authenticate: &str) {
        let challenge = HeaderValue::try_from(www_authenticate).ok();
        self.shared().order(times, Order::Challenge(challenge));
    }

    /// Loses the answers to the next `times` requests: each has its whole effect, and then the connection is
    /// closed without an answer; of an HTTP/2 connection only the request's stream is reset. The record holds
    /// the status of the lost answer.
    pub fn lose_answers(&self, times: usize) {
        self.shared().order(times, Order::Lose);
    }

    /// Closes the port and all connections at once: requests that are under way are cut, and new connections
    /// refused, until [`restart`](Self::restart). Returns when that is done; does nothing if it was already.
    ///
    /// The runtime in which the server was started, or restarted last, must be running.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Listens again on the same port. Everything is as it was: nonces, settings, orders and the record. A server that is
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
        self.shared().requests()
    }

    /// How many requests arrived so far, whether they are still kept or not.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared().request_count()
    }

    /// Keeps only the last `n` requests for [`requests`](Self::requests), from now on: all, unless set. For
    /// runs so long that memory counts.
    pub fn keep_requests(&self, n: usize) {
        self.shared().keep_requests(n);
    }

    fn shared(&self) -> &Shared {
        self.server.endpoint().shared()
    }
}

impl fmt::Debug for ResourceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceServer")
            .field("origin", &self.origin())
            .finish_non_exhaustive()
    }
}
