//! The nonces of each server (RFC 9449, sections 8 and 9): [`server`] knows one server's, [`store`] all servers.

mod server;
mod store;

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName};

pub(crate) use self::{
    server::{Offer, Taken},
    store::NonceStore,
};

pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// RFC 9449 sets no limit. Encrypted nonces of a few hundred bytes exist; more would only serve to fill
/// our memory and every header after it.
const MAX_NONCE_BYTES: usize = 2048;

/// A nonce as a server gave it; opaque.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Nonce(Arc<str>);

impl Nonce {
    /// The nonce that an answer offers. Two headers must not occur, so two offer nothing; nor does a value
    /// outside the grammar of RFC 9449, section 8.1 (NQCHAR).
    pub(crate) fn offered(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(DPOP_NONCE).iter();
        let field = fields.next()?;
        if fields.next().is_some() || !(1..=MAX_NONCE_BYTES).contains(&field.len()) {
            return None;
        }
        let valid = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if !field.as_bytes().iter().all(valid) {
            return None;
        }
        Some(Self(field.to_str().ok()?.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A nonce is no secret, but it tells which session a log line belongs to.
impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// What a request is to the server it goes to. One origin can be both, with nonces that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    AuthorizationServer,
    ResourceServer,
}

#[cfg(test)]
mod tests {
    use super::*;

    use http::HeaderValue;

    fn offered(value: &[u8]) -> Option<Nonce> {
        let mut headers = HeaderMap::new();
        headers.insert(DPOP_NONCE, HeaderValue::from_bytes(value).unwrap());
        Nonce::offered(&headers)
    }

    #[test]
    fn a_nonce_is_any_text_of_nqchar() {
        let all: Vec<u8> = (0x21..=0x7e)
            .filter(|b| ![b'"', b'\\'].contains(b))
            .collect();
        assert_eq!(offered(&all).unwrap().as_str().as_bytes(), all);
        assert!(offered(b"x").is_some());
        assert!(offered(&[b'x'; 2048]).is_some());
        for bad in [
            &b""[..],
            b"a b",
            b"a\"b",
            b"a\\b",
            b"a\xe9",
            b"a\tb",
            &[b'x'; 2049],
        ] {
            assert!(offered(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn two_nonces_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(DPOP_NONCE, HeaderValue::from_static("a"));
        headers.append(DPOP_NONCE, HeaderValue::from_static("a"));
        assert_eq!(Nonce::offered(&headers), None);
    }
}
