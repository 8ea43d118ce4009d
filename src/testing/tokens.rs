//! Access tokens that are bound to a key: made by the authorization server, read by the resource server.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ecdsa::signature::{Signer as _, Verifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use serde_json::{Map, Value, json};

use super::{
    answer,
    expiring::Expiring,
    refresh_tokens::Family,
    shared::{Random, lock},
};

/// The audience of a signed token that was asked for without `resource` (RFC 9068, section 3).
const DEFAULT_AUDIENCE: &str = "urn:tower-dpop:testing:resource-server";

/// How access tokens look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenFormat {
    /// A random text; the servers share what it stands for.
    #[default]
    Opaque,
    /// A JWT access token (RFC 9068), signed with ES256 by a key of the authorization server. The key it is
    /// bound to stands in `cnf.jkt` (RFC 9449, section 6.1).
    Signed,
}

/// What a token allows, and who may use it.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) client_id: String,
    /// In whose name.
    pub(super) subject: String,
    pub(super) scope: Option<String>,
    /// Of the key that the token is bound to; empty if it is bound to none.
    pub(super) thumbprint: String,
    /// The grant that it came from: it ends with that.
    pub(super) family: Arc<Family>,
    /// Times since 1970.
    pub(super) issued: Duration,
    pub(super) expires: Duration,
}

impl Grant {
    pub(super) fn is_bound(&self) -> bool {
        !self.thumbprint.is_empty()
    }
}

/// All access tokens of an authorization server that are good.
pub(super) struct Tokens {
    key: SigningKey,
    /// By the text of an opaque token, by the [name](name_of_signed) of a signed one. None is forgotten while it is good.
    valid: Mutex<Expiring<String, Grant>>,
}

impl Tokens {
    pub(super) fn new() -> io::Result<Self> {
        let mut scalar = [0; 32];
        getrandom::fill(&mut scalar).map_err(io::Error::other)?;
        // One text in 2^32 is no private key of P-256; then the server does not start.
        let key = SigningKey::from_slice(&scalar).map_err(io::Error::other)?;
        Ok(Self {
            key,
            valid: Mutex::default(),
        })
    }

    /// Of the key that signs.
    pub(super) fn public_jwk(&self) -> Value {
        let point = VerifyingKey::from(&self.key).to_sec1_point(false);
        let [x, y] =
            [point.x(), point.y()].map(|coordinate| coordinate.map(|c| BASE64URL.encode(c)));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256" })
    }

    pub(super) fn revoke_all(&self) {
        lock(&self.valid).clear();
    }

    /// Makes one that was read invalid.
    pub(super) fn revoke(&self, token: &str) {
        let claims = token.split('.').nth(1).and_then(object);
        let id = claims.as_ref().and_then(|claims| claims.get("jti"));
        let signed = id.and_then(Value::as_str).map(name_of_signed);
        let name = signed.unwrap_or_else(|| token.to_owned());
        lock(&self.valid).remove(&name);
    }

    pub(super) fn opaque(&self, grant: Grant, random: &Random) -> String {
        let token = random.text();
        self.keep(token.clone(), grant);
        token
    }

    /// None if the key does not sign.
    pub(super) fn signed(
        &self,
        grant: Grant,
        issuer: &str,
        resources: &[String],
        random: &Random,
    ) -> Option<String> {
        let id = random.text();
        let audience = match resources {
            [] => json!(DEFAULT_AUDIENCE),
            [one] => json!(one),
            all => json!(all),
        };
        let mut claims = json!({
            "iss": issuer,
            "sub": grant.subject,
            "client_id": grant.client_id,
            "aud": audience,
            "iat": grant.issued.as_secs(),
            // A signed token lives as long as an opaque one, not up to a second less.
            "exp": answer::seconds_up(grant.expires),
            "jti": id,
        });
        if grant.is_bound() {
            claims["cnf"] = json!({ "jkt": grant.thumbprint });
        }
        if let Some(scope) = &grant.scope {
            claims["scope"] = json!(scope);
        }
        let mut token = BASE64URL.encode(r#"{"typ":"at+jwt","alg":"ES256"}"#);
        token.push('.');
        BASE64URL.encode_string(claims.to_string(), &mut token);
        let signature: Signature = self.key.try_sign(token.as_bytes()).ok()?;
        token.push('.');
        BASE64URL.encode_string(signature.to_bytes(), &mut token);
        self.keep(name_of_signed(&id), grant);
        Some(token)
    }

    fn keep(&self, name: String, grant: Grant) {
        // One second more, since a signed token's end is rounded up.
        let end = grant.expires.saturating_add(Duration::from_secs(1));
        let issued = grant.issued;
        lock(&self.valid).insert(name, grant, end, issued);
    }

    /// What a token allows at `now`, or why it is none.
    pub(super) fn read(&self, token: &str, now: Duration) -> Result<Grant, &'static str> {
        let grant = if token.contains('.') {
            self.read_signed(token)
        } else {
            self.find(token)
        }?;
        if grant.expires <= now {
            return Err("the access token expired");
        }
        Ok(grant)
    }

    fn find(&self, name: &str) -> Result<Grant, &'static str> {
        lock(&self.valid)
            .get(name)
            .filter(|grant| !grant.family.is_over())
            .cloned()
            .ok_or("the access token is unknown, or was revoked")
    }

    /// Believes nothing but the signature, as a resource server does that shares no memory with the
    /// authorization server. The memory only tells which tokens were revoked.
    fn read_signed(&self, token: &str) -> Result<Grant, &'static str> {
        let no_jwt = "the access token is no JWT access token of three parts";
        let (signed, signature) = token.rsplit_once('.').ok_or(no_jwt)?;
        let (header, claims) = signed.split_once('.').ok_or(no_jwt)?;
        let header = object(header).ok_or(no_jwt)?;
        let claims = object(claims).ok_or(no_jwt)?;
        let is = |name: &str, value: &str| header.get(name).and_then(Value::as_str) == Some(value);
        if !is("typ", "at+jwt") || !is("alg", "ES256") {
            return Err("the access token's `typ` is not at+jwt, or its `alg` not ES256");
        }
        let forged = "the access token's signature is not the authorization server's";
        let signature = BASE64URL.decode(signature).map_err(|_| forged)?;
        let signature = Signature::from_slice(&signature).map_err(|_| forged)?;
        VerifyingKey::from(&self.key)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| forged)?;

        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let seconds = |name: &str| {
            claims
                .get(name)
                .and_then(Value::as_u64)
                .map(Duration::from_secs)
        };
        let thumbprint = match claims.get("cnf") {
            None => Some(""),
            Some(cnf) => cnf.get("jkt").and_then(Value::as_str),
        };
        let (
            Some(id),
            Some(client_id),
            Some(subject),
            Some(thumbprint),
            Some(issued),
            Some(expires),
        ) = (
            text("jti"),
            text("client_id"),
            text("sub"),
            thumbprint,
            seconds("iat"),
            seconds("exp"),
        )
        else {
            return Err("the access token lacks a claim");
        };
        let family = self.find(&name_of_signed(id))?.family;
        Ok(Grant {
            client_id: client_id.to_owned(),
            subject: subject.to_owned(),
            scope: text("scope").map(str::to_owned),
            thumbprint: thumbprint.to_owned(),
            family,
            issued,
            expires,
        })
    }
}

/// What a signed token with this `jti` is kept by: with a dot, so that it is no opaque token's text.
fn name_of_signed(id: &str) -> String {
    format!(".{id}")
}

/// A part of a JWT.
pub(super) fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64URL.decode(part).ok()?).ok()
}
