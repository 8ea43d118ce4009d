//! Authorization codes (RFC 6749, section 4.1.2).

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use sha2::{Digest as _, Sha256};

use super::{
    authorization_request::AuthorizationRequest, expiring::Expiring, refresh_tokens::Family,
    shared::Random,
};

/// How long a code is good; RFC 6749 allows ten minutes, RFC 9700 wants it short.
const LIFE: Duration = Duration::from_secs(60);

/// How long a code is remembered, so that its second use is found out even when it is no longer good. What
/// is kept for it is bounded by what is granted within that time.
const MEMORY: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct Codes(Expiring<String, Code>);

#[derive(Clone)]
pub(super) struct Code {
    pub(super) request: AuthorizationRequest,
    end: Duration,
    /// What came of it, once it is used.
    family: Option<Arc<Family>>,
}

impl Codes {
    pub(super) fn issue(
        &mut self,
        request: AuthorizationRequest,
        now: Duration,
        random: &Random,
    ) -> String {
        let text = random.text();
        let code = Code {
            request,
            end: now.saturating_add(LIFE),
            family: None,
        };
        let forget = now.saturating_add(MEMORY);
        self.0.insert(text.clone(), code, forget, now);
        text
    }

    /// A code that is good for the client, or why it is not. One that was used before costs what came of it.
    pub(super) fn read(
        &self,
        text: &str,
        client_id: &str,
        now: Duration,
    ) -> Result<Code, &'static str> {
        let code = self.0.get(text).ok_or("the code is unknown")?;
        if code.request.client_id != client_id {
            return Err("the code is another client's");
        }
        if let Some(family) = &code.family {
            family.end();
            return Err("the code was used before; all tokens that came of it are revoked");
        }
        if code.end <= now {
            return Err("the code expired");
        }
        Ok(code.clone())
    }

    pub(super) fn spend(&mut self, text: &str, family: Arc<Family>) {
        if let Some(code) = self.0.get_mut(text) {
            code.family = Some(family);
        }
    }
}

impl Code {
    /// Whether the token request fits the authorization request.
    pub(super) fn check(
        &self,
        redirect_uri: &str,
        verifier: &str,
        thumbprint: &str,
    ) -> Result<(), &'static str> {
        if self.request.redirect_uri != redirect_uri {
            return Err("`redirect_uri` is another than the authorization request's");
        }
        if !is_verifier(verifier) {
            return Err("`code_verifier` is none: 43 to 128 unreserved characters");
        }
        if BASE64URL.encode(Sha256::digest(verifier)) != self.request.challenge {
            return Err(
                "`code_verifier` does not fit the authorization request's `code_challenge`",
            );
        }
        let promised = self.request.dpop_jkt.as_ref();
        if promised.is_some_and(|promised| promised != thumbprint) {
            return Err("the proof's key is not the one of the authorization request's `dpop_jkt`");
        }
        Ok(())
    }
}

/// RFC 7636, section 4.1.
fn is_verifier(text: &str) -> bool {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    (43..=128).contains(&text.len()) && text.bytes().all(unreserved)
}
