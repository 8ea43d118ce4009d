use std::{borrow::Cow, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::store::{StoredGrant, shown};
use crate::{
    error::{BoxError, Error, Kind},
    oauth::{DeviceAuthorization, form::Form},
    origin::printable,
};

/// What an access token is asked for by (RFC 6749, section 1.3).
///
/// If the server gives a refresh token with the access token, the next one is asked for by that; once it is refused,
/// or its fate is not known, the grant is used again, if it can be. What can be used once (an authorization code, a
/// refresh token) is sent once: if its answer was lost, it is not sent again ([`Error::is_grant_uncertain`]), unless the
/// program itself was killed before it could know. (A device code is asked for until there is an answer, as RFC 8628
/// has it.) When it is used up and there is no refresh token, that is the end ([`Error::is_grant_over`]).
///
/// `Debug` shows the grant's type and nothing else.
#[derive(Clone)]
pub struct Grant {
    form: Form,
    /// Parameters that are made anew for each token request.
    sources: Vec<(Cow<'static, str>, Arc<Source>)>,
    uses: Uses,
    /// Of the only key that it is good for.
    thumbprint: Option<String>,
    /// The authorization server and the client that it is for.
    of: Option<(String, String)>,
    /// What was asked for, if that is known from before the token request.
    scope: Option<String>,
    /// It was stored as one whose answer was lost.
    uncertain: bool,
}

type Source =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>> + Send + Sync;

/// How often a grant is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Uses {
    /// Any number of times, and a refresh token would be no use (RFC 6749, section 4.4.3).
    Always,
    /// Any number of times, but a refresh token is better.
    Again,
    Once,
    /// Once, and asked for until the user has decided (RFC 8628, section 3.5).
    Polled {
        interval: Duration,
        end: Instant,
    },
}

/// What has a method of its own, or is written by this crate: a second one of these would be read by some servers and
/// not by others.
pub(super) const RESERVED: [&str; 6] = [
    "grant_type",
    "scope",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
];

impl Grant {
    fn new(grant_type: impl Into<String>, uses: Uses) -> Self {
        Self {
            form: Form::new().with("grant_type", grant_type),
            sources: Vec::new(),
            uses,
            thumbprint: None,
            of: None,
            scope: None,
            uncertain: false,
        }
    }

    fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        self.form = self.form.with(name, value);
        self
    }

    /// The client asks in its own name (RFC 6749, section 4.4). A refresh token that comes along is ignored.
    #[must_use]
    pub fn client_credentials() -> Self {
        Self::new("client_credentials", Uses::Always)
    }

    /// A refresh token (RFC 6749, section 6).
    ///
    /// That of a public client is bound to the key that it was first asked for with (RFC 9449, section 5).
    #[must_use]
    pub fn refresh_token(refresh_token: impl Into<String>) -> Self {
        Self::new("refresh_token", Uses::Once).with("refresh_token", refresh_token)
    }

    /// The refresh token of a grant that was stored: for its key, its client and its authorization server only.
    #[must_use]
    pub fn stored(grant: &StoredGrant) -> Self {
        let own = Self::refresh_token(grant.refresh_token()).bound_to(grant.thumbprint());
        Self {
            scope: grant.scope().map(str::to_owned),
            uncertain: grant.is_uncertain(),
            ..own.of(grant.authorization_server(), grant.client_id())
        }
    }

    /// An authorization code that was had in a way of one's own (RFC 6749, section 4.1.3), with the `code_verifier` of
    /// PKCE (RFC 7636). [`PendingAuthorization::answered`](crate::PendingAuthorization::answered) gives a grant that is
    /// checked and [bound](Self::bound_to) already.
    #[must_use]
    pub fn authorization_code(
        code: impl Into<String>,
        redirect_uri: impl Into<String>,
        code_verifier: impl Into<String>,
    ) -> Self {
        Self::new("authorization_code", Uses::Once)
            .with("code", code)
            .with("redirect_uri", redirect_uri)
            .with("code_verifier", code_verifier)
    }

    /// What a user grants on another device (RFC 8628). The token is there as soon as the user has agreed: the server is
    /// asked from time to time, and whoever wants a token meanwhile waits.
    #[must_use]
    pub fn device_code(device: &DeviceAuthorization) -> Self {
        let uses = Uses::Polled {
            interval: device.interval(),
            end: device.end(),
        };
        let (server, client_id) = device.of();
        Self::new("urn:ietf:params:oauth:grant-type:device_code", uses)
            .with("device_code", device.device_code())
            .for_scope(device.scope())
            .of(server, client_id)
    }

    /// Another token in place of this one (RFC 8693): for another audience, with less rights, or in the name of
    /// somebody. `subject_token_type` is a URI such as `urn:ietf:params:oauth:token-type:access_token`.
    #[must_use]
    pub fn token_exchange(
        subject_token: impl Into<String>,
        subject_token_type: impl Into<String>,
    ) -> Self {
        let name = "urn:ietf:params:oauth:grant-type:token-exchange";
        Self::new(name, Uses::Again)
            .with("subject_token", subject_token)
            .with("subject_token_type", subject_token_type)
    }

    /// A JWT of somebody whom the authorization server trusts (RFC 7523, section 2.1).
    ///
    /// It is sent as it is. Where each token request needs a new one, see
    /// [`parameter_from`](Self::parameter_from).
    #[must_use]
    pub fn jwt_bearer(assertion: impl Into<String>) -> Self {
        let name = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        Self::new(name, Uses::Again).with("assertion", assertion)
    }

    /// Any other, by its name: often a URI.
    ///
    /// It is taken for one that can be used again: [`once`](Self::once) says otherwise, and so do the names
    /// `authorization_code` and `refresh_token`.
    #[must_use]
    pub fn other(grant_type: impl Into<String>) -> Self {
        let grant_type = grant_type.into();
        let uses = match grant_type.as_str() {
            "authorization_code" | "refresh_token" => Uses::Once,
            _ => Uses::Again,
        };
        Self::new(grant_type, uses)
    }

    /// A further parameter that belongs to the grant, such as `actor_token`. Its value is taken for a secret.
    #[must_use]
    pub fn parameter(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(name.into(), value)
    }

    /// A parameter whose value is had anew for each token request: the token of a workload that the platform writes
    /// into a file, say, or an assertion that something else signs. Its value is taken for a secret.
    ///
    /// The time it takes counts as the request's. An error is the reason why there is no token then.
    ///
    /// ```
    /// use tower_dpop::Grant;
    ///
    /// // RFC 8693, with the token of a pod.
    /// let grant = Grant::other("urn:ietf:params:oauth:grant-type:token-exchange")
    ///     .parameter("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
    ///     .parameter_from("subject_token", || async {
    ///         let token = std::fs::read_to_string("/var/run/secrets/tokens/as")?;
    ///         Ok(token.trim().to_owned())
    ///     });
    /// ```
    #[must_use]
    pub fn parameter_from<S, F>(mut self, name: impl Into<String>, source: S) -> Self
    where
        S: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<String, BoxError>> + Send + 'static,
    {
        let source: Arc<Source> = Arc::new(move || Box::pin(source()));
        self.sources.push((Cow::Owned(name.into()), source));
        self
    }

    /// It is good with the key of this thumbprint alone: what was promised in `dpop_jkt` (RFC 9449, section 10), say.
    /// With another key nothing is sent ([`Error::is_other_key`]).
    #[must_use]
    pub fn bound_to(mut self, thumbprint: impl Into<String>) -> Self {
        self.thumbprint = Some(thumbprint.into());
        self
    }

    /// What it was asked for, to be stored with what comes of it.
    pub(crate) fn for_scope(mut self, scope: Option<&str>) -> Self {
        self.scope = scope.map(str::to_owned);
        self
    }

    /// For this client at this authorization server only.
    pub(crate) fn of(mut self, server: &str, client_id: &str) -> Self {
        self.of = Some((server.to_owned(), client_id.to_owned()));
        self
    }

    /// It is good for one token request.
    #[must_use]
    pub fn once(mut self) -> Self {
        // A device code is, and is asked for until then.
        if !matches!(self.uses, Uses::Polled { .. }) {
            self.uses = Uses::Once;
        }
        self
    }

    pub(super) fn grant_type(&self) -> &str {
        self.form.get("grant_type").unwrap_or_default()
    }

    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Whether it is a refresh token that comes from a store.
    pub(super) fn is_stored(&self) -> bool {
        self.as_refresh_token().is_some() && self.of.is_some()
    }

    pub(super) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn get(&self, name: &str) -> &str {
        self.form.get(name).unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn thumbprint(&self) -> Option<&str> {
        self.thumbprint.as_deref()
    }

    pub(super) fn uses(&self) -> Uses {
        self.uses
    }

    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self.uses, Uses::Always | Uses::Again)
    }

    /// The parameters of one token request.
    pub(super) async fn form(&self) -> Result<Form, Error> {
        let mut form = self.form.clone();
        for (name, source) in &self.sources {
            let value = source().await.map_err(|source| {
                Error::with_source(
                    Kind::Transport,
                    format!(
                        "there is no `{}`, so no token was asked for",
                        printable(name)
                    ),
                    source,
                )
            })?;
            form.push(name.clone(), Zeroizing::new(value));
        }
        Ok(form)
    }

    /// The parameters of a token request by a refresh token. What else belongs to the grant goes with it if it was a
    /// refresh token from the start.
    pub(super) async fn refresh_form(&self, refresh_token: &str) -> Result<Form, Error> {
        let form = Form::new().with("grant_type", "refresh_token");
        let mut form = form.with("refresh_token", refresh_token);
        if self.as_refresh_token().is_some() {
            let own = self.form().await?;
            let further = own.pairs().filter(|(name, _)| form.get(name).is_none());
            let further: Vec<_> = further.collect();
            for (name, value) in further {
                form = form.with(name.to_owned(), value);
            }
        }
        Ok(form)
    }

    /// The refresh token, if it is one from the start.
    pub(super) fn as_refresh_token(&self) -> Option<&str> {
        match self.grant_type() {
            "refresh_token" => self.form.get("refresh_token"),
            _ => None,
        }
    }

    /// Whether it can be used, by this client with this key.
    pub(super) fn check(&self, server: &str, client_id: &str, key: &str) -> Result<(), Error> {
        if self.as_refresh_token() == Some("") {
            return Err(Error::config("the refresh token is empty"));
        }
        if self.grant_type().is_empty() {
            return Err(Error::config("the grant has no name"));
        }
        let further = self.form.pairs().skip(1).map(|(name, _)| name);
        let mut names = further.chain(self.sources.iter().map(|(name, _)| &**name));
        if let Some(name) = names.find(|name| name.is_empty() || RESERVED.contains(name)) {
            return Err(Error::config(format!(
                "`{}` is no parameter of a grant",
                printable(name)
            )));
        }
        if self.thumbprint.as_ref().is_some_and(|own| own != key) {
            return Err(Error::new(
                Kind::OtherKey,
                "the grant is bound to another key than the one that would prove the token request: use the key \
                 that was promised in `dpop_jkt`, or that the refresh token was first asked for with",
            ));
        }
        if let Some((of_server, of_client)) = &self.of
            && (of_server != server || of_client != client_id)
        {
            return Err(Error::config(format!(
                "the grant is for client `{}` at `{}`, and not for the one that is configured",
                printable(of_client),
                printable(shown(of_server)),
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grant")
            .field(&printable(self.grant_type()))
            .finish()
    }
}
