//! Authorization requests (RFC 6749, section 4.1.1), whichever way they come.

use std::time::Duration;

use http::Uri;

use super::{client::Clients, expiring::Expiring, form::Form, shared::Fault};

/// Those that were pushed, by `request_uri`.
pub(super) type Pushed = Expiring<String, PushedRequest>;

pub(super) struct PushedRequest {
    pub(super) request: AuthorizationRequest,
    /// By the server's clock, since 1970.
    pub(super) end: Duration,
}

#[derive(Clone)]
pub(super) struct AuthorizationRequest {
    pub(super) client_id: String,
    pub(super) redirect_uri: String,
    pub(super) state: Option<String>,
    /// By S256.
    pub(super) challenge: String,
    /// The thumbprint of the key that the token request must have.
    pub(super) dpop_jkt: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) resources: Vec<String>,
}

/// Where to answer to. Whoever sent a request without a good one must get no redirect (RFC 6749, section
/// 4.1.2.1).
pub(super) fn redirect_uri(
    clients: &Clients,
    client_id: &str,
    form: &Form,
) -> Result<String, Fault> {
    let uri = form.need("redirect_uri", "`redirect_uri` is missing")?;
    if !is_loopback(uri) && !clients.has_redirect_uri(client_id, uri) {
        return Err(invalid_request(
            "`redirect_uri` is neither registered nor on loopback",
        ));
    }
    Ok(uri.to_owned())
}

impl AuthorizationRequest {
    pub(super) fn read(client_id: &str, redirect_uri: String, form: &Form) -> Result<Self, Fault> {
        if form.get("request").is_some() {
            return Err(Fault {
                code: "request_not_supported",
                reason: "`request` objects are not supported",
            });
        }
        if form.need("response_type", "`response_type` is missing")? != "code" {
            return Err(Fault {
                code: "unsupported_response_type",
                reason: "`response_type` is not code",
            });
        }
        let challenge = form.need("code_challenge", "`code_challenge` is missing")?;
        // Left out, it would mean `plain` (RFC 7636, section 4.3).
        if form.get("code_challenge_method") != Some("S256") {
            return Err(invalid_request("`code_challenge_method` is not S256"));
        }
        if !is_hash(challenge) {
            return Err(invalid_request("`code_challenge` is no SHA-256 hash"));
        }
        let dpop_jkt = form.get("dpop_jkt");
        if dpop_jkt.is_some_and(|thumbprint| !is_hash(thumbprint)) {
            return Err(invalid_request("`dpop_jkt` is no SHA-256 thumbprint"));
        }
        Ok(Self {
            client_id: client_id.to_owned(),
            redirect_uri,
            state: form.get("state").map(str::to_owned),
            challenge: challenge.to_owned(),
            dpop_jkt: dpop_jkt.map(str::to_owned),
            scope: form.scope()?.map(str::to_owned),
            resources: form.resources()?,
        })
    }
}

pub(super) fn invalid_request(reason: &'static str) -> Fault {
    Fault {
        code: "invalid_request",
        reason,
    }
}

/// A native program's (RFC 8252, section 7.3), on whatever port.
fn is_loopback(uri: &str) -> bool {
    // `Uri` would drop a fragment, which a redirect URI must not have (RFC 6749, section 3.1.2).
    if uri.contains('#') {
        return false;
    }
    let Ok(uri) = uri.parse::<Uri>() else {
        return false;
    };
    uri.scheme_str() == Some("http")
        && matches!(uri.host(), Some("127.0.0.1" | "[::1]" | "localhost"))
}

/// 32 bytes in base64url.
fn is_hash(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
