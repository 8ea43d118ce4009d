use std::{fmt, sync::Arc, time::Duration};

use super::{
    TokenParameters,
    extensions::check_resource,
    grant::{Grant, RESERVED, Uses},
    held::Held,
    keeper::Keeper,
    store::GrantStore,
};
use crate::{
    dpop::Prover,
    error::Error,
    oauth::{Endpoint, Endpoints, Registration, form::Form},
    origin::printable,
};

/// A healthy server answers within a second; one that has not after this will not.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is good once is sent once. Giving its answer up may cost the grant, so it has more time.
const ONCE_TIMEOUT: Duration = Duration::from_secs(60);

/// What is outside of these is a mistake of units.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3600);

/// How a token is asked for: the grant, the client and how it shows who it is (RFC 6749).
///
/// ```
/// use tower_dpop::TokenRequest;
///
/// let request = TokenRequest::client_credentials("https://as.example.com/token", "m2m.dpop")
///     .client_secret_post("secret")
///     .scope("api");
/// ```
///
/// For other grants, other client authentication and servers that are found by discovery see
/// [`new`](Self::new).
///
/// Whether the values can be used is checked by [`TokenLayer::new`](crate::TokenLayer::new).
#[derive(Clone)]
pub struct TokenRequest {
    registration: Registration,
    grant: Grant,
    retry_lost_refresh: bool,
    store: Option<Arc<dyn GrantStore>>,
    timeout: Duration,
    /// `resource` may stand more than once (RFC 8707, section 2).
    parameters: Vec<(String, String)>,
}

impl TokenRequest {
    /// A request of the client by a grant.
    #[must_use]
    pub fn new(registration: Registration, grant: Grant) -> Self {
        let timeout = match grant.is_repeatable() {
            true => TIMEOUT,
            false => ONCE_TIMEOUT,
        };
        Self {
            registration,
            grant,
            retry_lost_refresh: false,
            store: None,
            timeout,
            parameters: Vec::new(),
        }
    }

    /// The client credentials grant (RFC 6749, section 4.4), without client authentication unless one of
    /// the `client_secret_*` methods adds it.
    ///
    /// `server` is the token endpoint's URL, or what else [`Endpoints`] can be made from.
    #[must_use]
    pub fn client_credentials(server: impl Into<Endpoints>, client_id: impl Into<String>) -> Self {
        let registration = Registration::new(server, client_id);
        Self::new(registration, Grant::client_credentials())
    }

    /// The refresh token grant (RFC 6749, section 6), without client authentication unless one of the
    /// `client_secret_*` methods adds it.
    ///
    /// A refresh token that comes with an answer takes the place of the last one; where none comes, the last
    /// one stays. It is sent once at a time. If an answer is lost on its way, it is not sent again, since it
    /// may have been used up: [`Error::is_grant_uncertain`]. What failed before there was a connection counts
    /// as not sent, as hyper's client tells it. Give the client a timeout for connecting that is shorter than
    /// this request's, or nobody can tell.
    ///
    /// The refresh token of a public client is bound to the key that it was first asked for with (RFC 9449,
    /// section 5): load that key.
    #[must_use]
    pub fn refresh_token(
        server: impl Into<Endpoints>,
        client_id: impl Into<String>,
        refresh_token: impl Into<String>,
    ) -> Self {
        let registration = Registration::new(server, client_id);
        Self::new(registration, Grant::refresh_token(refresh_token))
    }

    /// Keeps what must survive a restart in `store`: each new refresh token, with its key and what it is for.
    ///
    /// It is saved before the access token that came along is used: for 10 s at the most, which
    /// [`timeout`](Self::timeout) does not count. If that fails, it is tried twice more, and then again before the
    /// next refresh; the access token is used all the same.
    ///
    /// Several processes may share a store: its [`lock`](GrantStore::lock) is held while a refresh token is used, for two
    /// minutes' wait of the others at the most, and a newer one that another process has saved is taken from it. What
    /// cannot be read is not used ([`Error::is_store`]).
    ///
    /// A renewal runs in the background, with the lock. A program whose runtime stands still meanwhile, as one of a single
    /// thread does between two calls of `block_on`, keeps the lock from the others for so long: let it wait for its
    /// token by [`access_token`](crate::TokenLayer::access_token), or let a thread of its own drive the runtime.
    #[must_use]
    pub fn store(mut self, store: impl GrantStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// After an answer that was lost, sends the same refresh token once more. Whether one was lost is kept in the
    /// [`store`](Self::store), too, unless the program was killed before it could be.
    ///
    /// # Security
    ///
    /// For servers that accept a refresh token again for a while, as FAPI 2.0 (section 5.3.2.1) has them. Others
    /// take it for theft and revoke the grant, with all of its tokens (RFC 9700, section 4.14.2).
    #[must_use]
    pub fn retry_lost_refresh(mut self) -> Self {
        self.retry_lost_refresh = true;
        self
    }

    /// How long a token request may take, with all it needs: waiting for the client to be ready, connecting,
    /// nonce retries, reading the answer. 10 s unless set, 60 s for a grant that is good once, such as a refresh
    /// token or an authorization code, and for the refresh tokens that come of it; from 1 ms to 1 h.
    /// A refresh token that is in use for another combination of [`TokenParameters`] is waited for as long
    /// again.
    ///
    /// It has nothing to do with how long a request to the API may take: a caller that gives up does not end
    /// the token request.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Authenticates by the secret in the request's body: [`Registration::client_secret_post`].
    #[must_use]
    pub fn client_secret_post(mut self, secret: impl Into<String>) -> Self {
        self.registration = self.registration.client_secret_post(secret);
        self
    }

    /// Authenticates by HTTP Basic: [`Registration::client_secret_basic`].
    #[must_use]
    pub fn client_secret_basic(mut self, secret: impl Into<String>) -> Self {
        self.registration = self.registration.client_secret_basic(secret);
        self
    }

    /// The scopes asked for, separated by spaces (RFC 6749, section 3.3). The last call counts.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.parameters.retain(|(name, _)| name != "scope");
        self.parameters.push(("scope".to_owned(), scope.into()));
        self
    }

    /// A resource that the token is for: an absolute URI without fragment (RFC 8707). Call it again for a
    /// further one.
    #[must_use]
    pub fn resource(self, resource: impl Into<String>) -> Self {
        self.parameter("resource", resource)
    }

    /// A further parameter of the token request, such as `audience`.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        // A reserved name is kept as it is, for `check` to refuse.
        self.parameters.push((name.into(), value.into()));
        self
    }

    /// All that can be checked before the first request.
    pub(super) fn check(&self, prover: &Prover) -> Result<(), Error> {
        self.registration.check_for(Endpoint::Token, prover)?;
        let server = self.registration.endpoints().name();
        let client_id = self.registration.client_id();
        self.grant
            .check(server, client_id, prover.key.thumbprint())?;
        if self.held(prover).is_none() && (self.store.is_some() || self.retry_lost_refresh) {
            return Err(Error::config(
                "`store` and `retry_lost_refresh` are for grants that have a refresh token",
            ));
        }
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(Error::config(
                "the timeout of token requests is less than a millisecond or more than an hour",
            ));
        }
        let scopes = self.parameters.iter().filter(|(name, _)| name == "scope");
        let scopes = scopes.count();
        for (name, value) in &self.parameters {
            let reserved = RESERVED.contains(&name.as_str()) || name == "refresh_token";
            let reserved = reserved && (name != "scope" || scopes > 1);
            if name.is_empty() || reserved {
                return Err(Error::config(format!(
                    "`{}` is no further parameter of a token request: it has a method of its own",
                    printable(name)
                )));
            }
            if name == "resource" {
                check_resource(value)?;
            }
        }
        Ok(())
    }

    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    pub(super) fn time_limit(&self) -> Duration {
        self.timeout
    }

    /// The grant in use; none, if each token request is as good as any other.
    pub(super) fn held(&self, prover: &Prover) -> Option<Held> {
        if self.grant.uses() == Uses::Always {
            return None;
        }
        let scope = self.parameters.iter().find(|(name, _)| name == "scope");
        // A refresh may ask for less than the grant holds (RFC 6749, section 6).
        let scope = self.grant.scope().or(scope.map(|(_, scope)| &**scope));
        let keeper = self.store.clone().map(|store| {
            Keeper::new(
                store,
                prover.key.clone(),
                self.registration.endpoints().name(),
                self.registration.client_id(),
                scope,
            )
        });
        Some(Held::new(
            self.grant.clone(),
            self.retry_lost_refresh,
            keeper,
        ))
    }

    /// All parameters of a token request but those by which the client shows who it is.
    pub(super) fn form(&self, mut grant: Form, parameters: &TokenParameters) -> Form {
        for (name, value) in &self.parameters {
            if !parameters.replace(name) {
                grant = grant.with(name.clone(), value.as_str());
            }
        }
        for (name, value) in parameters.pairs() {
            grant = grant.with(name.to_owned(), value);
        }
        grant
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values of further parameters may be secrets.
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("TokenRequest")
            .field("grant_type", &self.grant.grant_type())
            .field("client_id", &self.registration.client_id())
            .field("client_authentication", &self.registration.method())
            .field("parameters", &names)
            .finish_non_exhaustive()
    }
}
