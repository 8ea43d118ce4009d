//! What a server saw.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, request::Parts};
use serde_json::Value;

use crate::proof::DPOP;

/// A request as a server received it, and what became of it.
///
/// `Debug` shows method, path and status, and nothing that could be a secret.
#[derive(Clone)]
pub struct Recorded {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) status: Option<StatusCode>,
    pub(super) offered_nonce: Option<HeaderValue>,
    pub(super) refused: Option<&'static str>,
}

impl Recorded {
    pub(super) fn new(head: &Parts) -> Self {
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            body: Bytes::new(),
            status: None,
            offered_nonce: None,
            refused: None,
        }
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The request's URI: a path with HTTP/1.1, with scheme and host with HTTP/2.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The version of HTTP it came by.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The request's headers, `Authorization` and `DPoP` among them.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The request's body; empty while it has not arrived whole, and if it was too long.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The status of the answer, once it is decided; a `delay` begins after that.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The `DPoP-Nonce` of the answer: what the next proof is to hold.
    #[must_use]
    pub fn offered_nonce(&self) -> Option<&str> {
        self.offered_nonce.as_ref()?.to_str().ok()
    }

    /// The rule that the request broke, if the server refused it. None for an answer that was ordered.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused
    }

    /// The proof in the `DPoP` header, if there is exactly one such header.
    #[must_use]
    pub fn proof(&self) -> Option<&str> {
        let mut fields = self.headers.get_all(DPOP).iter();
        let proof = fields.next()?.to_str().ok()?;
        fields.next().is_none().then_some(proof)
    }

    /// A claim of the proof, such as `jti` or `nonce`: a string as it is, anything else as JSON. The proof
    /// may be one that was refused.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<String> {
        let claims = BASE64URL.decode(self.proof()?.split('.').nth(1)?).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        Some(match claims.get(name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorded")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
