use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::{
    audience::Audience,
    budget::Budget,
    error::{Error, Kind},
    key::DpopKey,
    proof,
};

/// An access token, the key it is bound to and the origins it may go to: one thing that cannot come apart.
///
/// A request that carries it in its extensions is signed by [`Dpop`](crate::Dpop) with *this* key, if it
/// goes to one of *these* origins. [`Token`](crate::Token) puts it there; for a token that came from
/// elsewhere see the [example](crate::dpop).
///
/// # Security
///
/// `Debug` shows nothing of the token. The header value made from it is marked sensitive, and wiped from memory when
/// its last handle is dropped; the copies that HTTP clients make of it cannot be.
#[derive(Clone)]
pub struct AccessToken {
    inner: Arc<Inner>,
    /// Of a request in a stack that has a [`Token`](crate::Token).
    stack: Option<Stack>,
    /// A `Dpop` signed the request that holds this handle.
    signed: bool,
    budget: Budget,
}

/// Whom a request's handle has news for.
#[derive(Clone)]
struct Stack {
    /// Set by the first [`Dpop`](crate::Dpop) that a request of this stack passes through.
    witness: Arc<AtomicBool>,
    /// Weak: whoever keeps a request, or its extensions, does not keep the token's client with it.
    issuer: Weak<dyn Issuer>,
}

/// Where a token came from.
pub(crate) trait Issuer: Send + Sync {
    /// A server refused the token as invalid, after the head of its answer.
    fn refused(&self, token: &AccessToken);
}

/// Texts of the answer that a token came with.
pub(crate) type Further = Vec<(String, Zeroizing<String>)>;

struct Inner {
    authorization: HeaderValue,
    ath: String,
    key: DpopKey,
    audience: Audience,
    further: Further,
}

/// Bytes of a token: more fits into no answer of a token endpoint, and into no header that a server reads.
const MAX_LEN: usize = 64 * 1024;

impl AccessToken {
    /// A token that is bound to `key`, for requests to `audience`.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if the token is empty, longer than 64 KiB, or holds characters that no `Authorization`
    /// header can carry (RFC 6750, section 2.1: letters, digits, `-._~+/`, then `=`); [`Error::is_other_key`] if it
    /// is a JWT whose `cnf.jkt` names another key (RFC 9449, section 6.1).
    pub fn new(token: &str, key: &DpopKey, audience: Audience) -> Result<Self, Error> {
        Self::answered(token, key, audience, Further::new())
    }

    /// A token, and what else stood in the answer of the token endpoint.
    pub(crate) fn answered(
        token: &str,
        key: &DpopKey,
        audience: Audience,
        further: Further,
    ) -> Result<Self, Error> {
        let unpadded = token.trim_end_matches('=');
        let token68 = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b);
        if unpadded.is_empty() || !unpadded.bytes().all(token68) {
            return Err(Error::config(
                "the access token is empty or holds characters that an `Authorization` header cannot carry \
                 (allowed: letters, digits, `-._~+/`, then `=`)",
            ));
        }
        if token.len() > MAX_LEN {
            return Err(Error::config(
                "the access token is longer than 64 KiB: no server reads such a header",
            ));
        }
        if let Some(thumbprint) = bound_to(token)
            && thumbprint != key.thumbprint()
        {
            return Err(Error::new(
                Kind::OtherKey,
                "the access token is bound to another key (`cnf.jkt`) than the one that would prove it: \
                 use the key that the token was requested with",
            ));
        }
        let authorization = Zeroizing::new(["DPoP ", token].concat());
        let mut authorization = HeaderValue::from_maybe_shared(Bytes::from_owner(authorization))
            .map_err(|_| Error::config("the access token is no header value"))?;
        authorization.set_sensitive(true);
        let inner = Inner {
            authorization,
            ath: proof::ath(token),
            key: key.clone(),
            audience,
            further,
        };
        Ok(Self {
            inner: Arc::new(inner),
            stack: None,
            signed: false,
            budget: Budget::FULL,
        })
    }

    /// The token's text, as a server gave it.
    ///
    /// # Security
    ///
    /// Whoever has it and a proof of the key can use it. Keep it out of logs, errors and URLs.
    #[must_use]
    pub fn secret(&self) -> &str {
        let text = self.inner.authorization.to_str().unwrap_or_default();
        text.strip_prefix("DPoP ").unwrap_or_default()
    }

    /// A further text of the answer that the token came with (RFC 6749, section 5.1): `scope`, say, if the server gave
    /// another than was asked for; the `id_token` of OpenID Connect, which is neither read nor checked here; or `sub`,
    /// which Bluesky's clients have to compare with the account they asked for. None of a token from elsewhere.
    #[must_use]
    pub fn answer(&self, name: &str) -> Option<&str> {
        let mut further = self.inner.further.iter();
        further.find_map(|(known, text)| (known == name).then_some(text.as_str()))
    }

    /// The key that the token is bound to.
    #[must_use]
    pub fn key(&self) -> &DpopKey {
        &self.inner.key
    }

    pub(crate) fn audience(&self) -> &Audience {
        &self.inner.audience
    }

    pub(crate) fn authorization(&self) -> &HeaderValue {
        &self.inner.authorization
    }

    pub(crate) fn ath(&self) -> &str {
        &self.inner.ath
    }

    /// The very same token, not one with the same text.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Another token may have the same text: the same one, given twice.
    pub(crate) fn same_text(&self, other: &Self) -> bool {
        self.inner.authorization == other.inner.authorization
    }

    /// A handle for one request of a stack that wants to know whether a `Dpop` stands in it.
    pub(crate) fn for_request(
        &self,
        issuer: Weak<dyn Issuer>,
        witness: &Arc<AtomicBool>,
        budget: Budget,
    ) -> Self {
        let witness = Arc::clone(witness);
        Self {
            inner: Arc::clone(&self.inner),
            stack: Some(Stack { witness, issuer }),
            signed: false,
            budget,
        }
    }

    /// What may be sent again of the request that holds this handle.
    pub(crate) fn budget(&self) -> Budget {
        self.budget
    }

    /// A `Dpop` has seen the request, whether it signs it or not.
    pub(crate) fn passes_dpop(&self) {
        if let Some(stack) = &self.stack {
            // Written once: all requests of a stack share it.
            if !stack.witness.load(Ordering::Relaxed) {
                stack.witness.store(true, Ordering::Relaxed);
            }
        }
    }

    /// A server refused it in the trailers of its answer.
    pub(crate) fn refused(&self) {
        let issuer = self.stack.as_ref().and_then(|stack| stack.issuer.upgrade());
        if let Some(issuer) = issuer {
            issuer.refused(self);
        }
    }

    /// A `Dpop` is about to sign the request; a second one is a mistake.
    pub(crate) fn sign_once(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.signed, true) {
            return Err(Error::new(
                Kind::LayerOrder,
                "two `DpopLayer`s would sign the same request: leave one, the innermost, below retry and redirect",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("key", &self.inner.key)
            .field("audience", &self.inner.audience)
            .finish_non_exhaustive()
    }
}

/// The `cnf.jkt` of a token that happens to be a JWT. To the client a token is opaque otherwise: what
/// cannot be read is not judged.
fn bound_to(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1)?;
    let claims: serde_json::Value = serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()?;
    Some(claims.get("cnf")?.get("jkt")?.as_str()?.to_owned())
}

/// Marks a request as meant for an authorization server: [`Dpop`](crate::Dpop) gives it a proof of the
/// layer's key, and no token (RFC 9449, section 5).
///
/// [`TokenLayer`](crate::TokenLayer) does this for its token requests, and [`OAuthClient`](crate::OAuthClient) for
/// its own. It serves requests that neither makes. A nonce challenge of the authorization server stands in the JSON body
/// (`use_dpop_nonce`), so it is for whoever reads that to send the request again; the nonce is remembered.
#[derive(Debug, Clone)]
pub struct ToAuthorizationServer {
    audience: Audience,
}

impl ToAuthorizationServer {
    /// For requests to `audience`: a redirect to any other origin gets no proof.
    #[must_use]
    pub fn new(audience: Audience) -> Self {
        Self { audience }
    }

    pub(crate) fn audience(&self) -> &Audience {
        &self.audience
    }
}
