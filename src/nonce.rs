//! The last nonce of each server (RFC 9449, sections 8 and 9).

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use http::{HeaderMap, HeaderName};

use crate::origin::Origin;

pub(crate) const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// RFC 9449 sets no limit. Encrypted nonces of a few hundred bytes exist; more would only serve to fill
/// our memory and every header after it.
const MAX_NONCE_BYTES: usize = 2048;

/// More servers than one client talks to. Whoever is pushed out costs one more challenge.
const MAX_NONCES: usize = 256;

/// What was learned within so many is far from being pushed out.
const YOUNG: u64 = MAX_NONCES as u64 / 2;

/// All nonces together, so that 256 servers with long ones do not add up.
const MAX_TOTAL_BYTES: usize = 256 * 1024;

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

/// The last nonce for each key, origin and role. Bounded: the one that was learned longest ago goes first.
#[derive(Default)]
pub(crate) struct NonceStore(RwLock<Nonces>);

#[derive(Default)]
struct Nonces {
    by_origin: HashMap<Origin, Vec<Slot>>,
    /// Where each was learned, the oldest first.
    in_order: BTreeMap<u64, Origin>,
    bytes: usize,
    learned: u64,
}

/// Few for one origin: a role or two, a key or two.
struct Slot {
    thumbprint: Box<str>,
    role: Role,
    nonce: Nonce,
    learned: u64,
}

impl Slot {
    fn is_for(&self, thumbprint: &str, role: Role) -> bool {
        self.role == role && *self.thumbprint == *thumbprint
    }
}

impl NonceStore {
    pub(crate) fn get(&self, thumbprint: &str, origin: &str, role: Role) -> Option<Nonce> {
        let nonces = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(nonces.slot(thumbprint, origin, role)?.nonce.clone())
    }

    /// Forgets a nonce, unless it was replaced meanwhile.
    pub(crate) fn forget(&self, thumbprint: &str, origin: &str, role: Role, nonce: &Nonce) {
        let mut nonces = self.0.write().unwrap_or_else(PoisonError::into_inner);
        nonces.remove(origin, |slot| {
            slot.is_for(thumbprint, role) && slot.nonce == *nonce
        });
    }

    pub(crate) fn learn(&self, thumbprint: &str, origin: &Origin, role: Role, nonce: Nonce) {
        if self.is_news(thumbprint, origin, role, &nonce) {
            self.keep(thumbprint, origin, role, nonce);
        }
    }

    /// Many servers say the same one with each answer for a while. Unless it has become one of the oldest meanwhile, that
    /// takes no lock which keeps others out.
    fn is_news(&self, thumbprint: &str, origin: &Origin, role: Role, nonce: &Nonce) -> bool {
        let nonces = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let last = nonces.slot(thumbprint, origin.as_str(), role);
        !last.is_some_and(|slot| slot.nonce == *nonce && nonces.learned - slot.learned < YOUNG)
    }

    fn keep(&self, thumbprint: &str, origin: &Origin, role: Role, nonce: Nonce) {
        let mut guard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let nonces = &mut *guard;
        nonces.learned += 1;
        let learned = nonces.learned;
        nonces.bytes += nonce.as_str().len();
        nonces.in_order.insert(learned, origin.clone());
        let slots = nonces.by_origin.entry(origin.clone()).or_default();
        match slots.iter_mut().find(|slot| slot.is_for(thumbprint, role)) {
            Some(slot) => {
                nonces.bytes -= slot.nonce.as_str().len();
                nonces.in_order.remove(&slot.learned);
                slot.nonce = nonce;
                slot.learned = learned;
            }
            None => {
                slots.push(Slot {
                    thumbprint: thumbprint.into(),
                    role,
                    nonce,
                    learned,
                });
            }
        }
        while nonces.in_order.len() > MAX_NONCES || nonces.bytes > MAX_TOTAL_BYTES {
            nonces.forget_oldest();
        }
    }
}

impl Nonces {
    fn slot(&self, thumbprint: &str, origin: &str, role: Role) -> Option<&Slot> {
        let mut slots = self.by_origin.get(origin)?.iter();
        slots.find(|slot| slot.is_for(thumbprint, role))
    }

    fn forget_oldest(&mut self) {
        if let Some((learned, origin)) = self.in_order.pop_first() {
            self.remove(origin.as_str(), |slot| slot.learned == learned);
        }
    }

    /// Removes the slot of an origin that is meant, if it is there, and an origin without slots.
    fn remove(&mut self, origin: &str, meant: impl Fn(&Slot) -> bool) {
        let Some(slots) = self.by_origin.get_mut(origin) else {
            return;
        };
        if let Some(at) = slots.iter().position(meant) {
            let slot = slots.swap_remove(at);
            self.bytes -= slot.nonce.as_str().len();
            self.in_order.remove(&slot.learned);
        }
        if slots.is_empty() {
            self.by_origin.remove(origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(origin: &str) -> Origin {
        origin.parse().unwrap()
    }

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

    fn learn_many(store: &NonceStore, count: usize, bytes: usize) {
        for n in 0..count {
            let nonce = Nonce("n".repeat(bytes).into());
            let origin = format!("https://{n}.example");
            store.learn("key", &at(&origin), Role::ResourceServer, nonce);
        }
    }

    fn knows(store: &NonceStore, n: usize) -> bool {
        let origin = format!("https://{n}.example");
        store.get("key", &origin, Role::ResourceServer).is_some()
    }

    /// Number and bytes, counted anew.
    fn size(store: &NonceStore) -> (usize, usize) {
        let nonces = store.0.read().unwrap();
        let all = nonces.by_origin.values().flatten();
        let size = (
            all.clone().count(),
            all.map(|slot| slot.nonce.as_str().len()).sum(),
        );
        assert_eq!((nonces.in_order.len(), nonces.bytes), size);
        size
    }

    #[test]
    fn ten_thousand_origins_keep_the_last_256_nonces() {
        let store = NonceStore::default();
        learn_many(&store, 10_000, 30);
        assert_eq!(size(&store), (256, 256 * 30));
        assert!(knows(&store, 9_999) && knows(&store, 10_000 - 256));
        assert!(!knows(&store, 10_000 - 257));
    }

    #[test]
    fn long_nonces_keep_within_256_kib() {
        let store = NonceStore::default();
        learn_many(&store, 1_000, 2048);
        assert_eq!(size(&store), (128, 256 * 1024));
        // One that is replaced is not counted twice.
        for _ in 0..10 {
            learn_many(&store, 100, 2000);
        }
        assert!(size(&store).1 <= MAX_TOTAL_BYTES && (0..100).all(|n| knows(&store, n)));
    }

    #[test]
    fn who_gives_a_new_nonce_is_not_the_oldest() {
        let store = NonceStore::default();
        learn_many(&store, 256, 30);
        learn_many(&store, 1, 31);
        store.learn(
            "key",
            &at("https://new.example"),
            Role::ResourceServer,
            Nonce("x".into()),
        );
        assert!(knows(&store, 0) && !knows(&store, 1));
    }

    #[test]
    fn who_says_the_same_nonce_again_and_again_is_not_the_oldest() {
        let store = NonceStore::default();
        for n in 1..2_000 {
            learn_many(&store, 1, 30);
            let other = at(&format!("https://other{n}.example"));
            store.learn("key", &other, Role::ResourceServer, Nonce("x".into()));
            assert!(knows(&store, 0), "{n}");
        }
        size(&store);
    }

    #[test]
    fn key_origin_and_role_are_kept_apart() {
        let store = NonceStore::default();
        let nonce = |text: &str| Nonce(text.into());
        store.learn("k1", &at("https://a"), Role::ResourceServer, nonce("1"));
        store.learn("k2", &at("https://a"), Role::ResourceServer, nonce("2"));
        store.learn(
            "k1",
            &at("https://a"),
            Role::AuthorizationServer,
            nonce("3"),
        );
        store.learn(
            "k1",
            &at("https://a:8443"),
            Role::ResourceServer,
            nonce("4"),
        );
        store.learn("k1", &at("https://a"), Role::ResourceServer, nonce("5"));
        let get = |key, origin, role| store.get(key, origin, role).map(|n| n.as_str().to_owned());
        assert_eq!(
            get("k1", "https://a", Role::ResourceServer).as_deref(),
            Some("5")
        );
        assert_eq!(
            get("k2", "https://a", Role::ResourceServer).as_deref(),
            Some("2")
        );
        assert_eq!(
            get("k1", "https://a", Role::AuthorizationServer).as_deref(),
            Some("3")
        );
        assert_eq!(
            get("k1", "https://a:8443", Role::ResourceServer).as_deref(),
            Some("4")
        );
        assert_eq!(get("k2", "https://a", Role::AuthorizationServer), None);

        store.forget("k1", "https://a", Role::ResourceServer, &nonce("1"));
        assert_eq!(
            get("k1", "https://a", Role::ResourceServer).as_deref(),
            Some("5"),
            "not it"
        );
        store.forget("k1", "https://a", Role::ResourceServer, &nonce("5"));
        assert_eq!(get("k1", "https://a", Role::ResourceServer), None);
        assert_eq!(
            get("k2", "https://a", Role::ResourceServer).as_deref(),
            Some("2")
        );
        store.forget("k1", "https://a:8443", Role::ResourceServer, &nonce("4"));
        assert_eq!(store.0.read().unwrap().by_origin.len(), 1);
        assert_eq!(store.0.read().unwrap().in_order.len(), 2);
    }
}
