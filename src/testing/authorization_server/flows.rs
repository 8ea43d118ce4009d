//! What becomes of authorization requests and grants.

use std::time::Duration;

use super::{
    super::{
        client::Credential,
        devices::Verdict,
        endpoints::{authorize, device, introspect, par, revoke},
    },
    AuthorizationServer,
};
use crate::DpopKey;

impl AuthorizationServer {
    /// The URL to send a user to (RFC 6749, section 3.1). Here there is none: whoever asks gets the answer at
    /// once, a 303 to `redirect_uri`.
    #[must_use]
    pub fn authorization_endpoint(&self) -> String {
        self.endpoint().url(authorize::PATH)
    }

    /// The URL to push authorization requests to (RFC 9126).
    #[must_use]
    pub fn pushed_authorization_request_endpoint(&self) -> String {
        self.endpoint().url(par::PATH)
    }

    /// The URL for devices to ask for a code (RFC 8628, section 3.1). The page that its answer names for users
    /// does not exist: [`approve_device`](Self::approve_device) and [`deny_device`](Self::deny_device) speak in
    /// their place.
    #[must_use]
    pub fn device_authorization_endpoint(&self) -> String {
        self.endpoint().url(device::PATH)
    }

    /// The URL to give tokens back to (RFC 7009).
    #[must_use]
    pub fn revocation_endpoint(&self) -> String {
        self.endpoint().url(revoke::PATH)
    }

    /// The URL to ask about tokens (RFC 7662).
    #[must_use]
    pub fn introspection_endpoint(&self) -> String {
        self.endpoint().url(introspect::PATH)
    }

    /// Whether the user denies what is asked for (`access_denied`): not unless set.
    pub fn deny_authorizations(&self, deny: bool) {
        self.endpoint().state().settings.deny_authorizations = deny;
    }

    /// Whether authorization requests must be pushed: not unless set. The metadata tell it.
    pub fn require_pushed_authorization_requests(&self, require: bool) {
        self.endpoint().state().settings.require_pushed = require;
    }

    /// Whether the users of all devices approve, at the next time that the device asks: not unless set.
    pub fn approve_devices(&self, approve: bool) {
        self.endpoint().state().devices.approve = approve;
    }

    /// The user of the device with this `user_code` approves. False if there is none; case and dash do not
    /// matter.
    pub fn approve_device(&self, user_code: &str) -> bool {
        let mut state = self.endpoint().state();
        state.devices.judge(user_code, Verdict::Approved)
    }

    /// The same, but denies: the device is told `access_denied`.
    pub fn deny_device(&self, user_code: &str) -> bool {
        let mut state = self.endpoint().state();
        state.devices.judge(user_code, Verdict::Denied)
    }

    /// How long a device must wait between two requests for its token: 5 s unless set. It counts by Tokio's
    /// clock, and answers tell it in whole seconds, rounded up. Who asks sooner is told `slow_down`, and must
    /// wait 5 s longer each time from then on.
    pub fn device_interval(&self, interval: Duration) {
        self.endpoint().state().devices.interval = interval;
    }

    /// How long device codes are good, by the server's clock: 600 s unless set. Answers tell it in whole
    /// seconds.
    pub fn device_code_lifetime(&self, lifetime: Duration) {
        self.endpoint().state().devices.lifetime = lifetime;
    }

    /// Takes this token as the `subject_token` or `actor_token` of a token exchange (RFC 8693), whatever type
    /// it is said to be, as often as it comes. Access tokens of this server need not be told.
    pub fn accept_subject_token(&self, token: impl Into<String>) {
        let mut state = self.endpoint().state();
        state.subject_tokens.insert(token.into());
    }

    /// Takes assertions of this issuer as grants (RFC 7523, section 2.1), if this key signed them.
    pub fn trust_assertions(&self, issuer: impl Into<String>, key: &DpopKey) {
        let mut state = self.endpoint().state();
        let credential = Credential::Key(key.clone());
        state.trusted.insert(issuer.into(), credential);
    }

    /// Whether answers to this grant type hold a refresh token. Unless set, those to `authorization_code` and
    /// to a device code do, and no others. That a client credentials grant gives none is a rule of RFC 6749,
    /// section 4.4.3, which some servers break.
    pub fn give_refresh_tokens(&self, grant_type: impl Into<String>, give: bool) {
        let grant_type = grant_type.into();
        let refreshed = &mut self.endpoint().state().settings.refreshed;
        if give {
            refreshed.insert(grant_type);
        } else {
            refreshed.remove(&grant_type);
        }
    }

    /// Lets a grant type through that no RFC knows, with whatever parameters: its answer is that of client
    /// credentials. The metadata tell it.
    pub fn add_grant(&self, grant_type: impl Into<String>) {
        let mut state = self.endpoint().state();
        state.settings.custom_grants.insert(grant_type.into());
    }

    /// Sets a member of the metadata, as JSON text of whatever kind, right or wrong; `None` leaves it out.
    /// That changes what the server tells, not what it does.
    pub fn metadata_member(&self, name: impl Into<String>, json: Option<&str>) {
        let mut state = self.endpoint().state();
        let metadata = &mut state.settings.metadata;
        metadata.insert(name.into(), json.map(str::to_owned));
    }
}
