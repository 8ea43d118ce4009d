//! Which clients there are.

use super::{super::client::Credential, AuthorizationServer};
use crate::DpopKey;

impl AuthorizationServer {
    /// Adds a client with a secret, in place of any with the same id. The secret may also sign its assertions
    /// (`client_secret_jwt`, by HS256).
    pub fn add_client(&self, id: impl Into<String>, secret: impl Into<String>) {
        self.add(id.into(), Credential::Secret(secret.into()));
    }

    /// Adds a client without a secret, in place of any with the same id. RFC 6749, section 4.4 would keep
    /// it from the client credentials grant; here it may, so that its requests can be tested.
    pub fn add_public_client(&self, id: impl Into<String>) {
        self.add(id.into(), Credential::None);
    }

    /// Adds a client that shows who it is by assertions of this key (`private_key_jwt`, RFC 7523), in place of
    /// any with the same id. It must: it has no secret.
    ///
    /// The key is not the one of its proofs, though nothing keeps a client from using one for both.
    pub fn add_client_with_key(&self, id: impl Into<String>, key: &DpopKey) {
        self.add(id.into(), Credential::Key(key.clone()));
    }

    fn add(&self, id: String, credential: Credential) {
        self.endpoint().state().clients.add(id, credential);
    }

    /// Whether the `aud` of a client's assertion must be the [`issuer`](Self::issuer) as one string, as the
    /// FAPI 2.0 Security Profile and rfc7523bis ask. Unless set, it may also be the URL of the endpoint or of
    /// the token endpoint, and may stand in a list.
    pub fn strict_assertion_audience(&self, strict: bool) {
        self.endpoint().state().settings.strict_audience = strict;
    }

    /// Lets a client have its answers sent to this URI, compared character by character. To `http` on
    /// loopback, whatever the port and the path, every client may.
    pub fn add_redirect_uri(&self, client_id: impl Into<String>, uri: impl Into<String>) {
        let mut state = self.endpoint().state();
        state.clients.add_redirect_uri(client_id.into(), uri.into());
    }
}
