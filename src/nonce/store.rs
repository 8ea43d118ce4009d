//! The nonces of all servers. Bounded: what was learned longest ago goes first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use tokio::time::Instant;

use super::{
    Nonce, Role,
    server::{Offer, ServerNonces, Taken},
};
use crate::origin::Origin;

/// More servers than one client talks to. Whoever is pushed out costs one more challenge.
const MAX_NONCES: usize = 256;

/// What was learned within so many is far from being pushed out.
const YOUNG: u64 = MAX_NONCES as u64 / 2;

/// The last nonces together, so that 256 servers with long ones do not add up. Those that a server gave besides have a
/// bound of their own, so that no server pushes others out by them.
const MAX_TOTAL_BYTES: usize = 256 * 1024;

/// The nonces for each key, origin and role.
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
    learned: u64,
    nonces: ServerNonces,
}

impl Slot {
    fn is_for(&self, thumbprint: &str, role: Role) -> bool {
        self.role == role && *self.thumbprint == *thumbprint
    }
}

impl NonceStore {
    /// A nonce for a request that is sent now.
    pub(crate) fn take(&self, thumbprint: &str, origin: &str, role: Role) -> Option<Taken> {
        {
            let nonces = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let slot = nonces.slot(thumbprint, origin, role)?;
            if let Some(last) = slot.nonces.peek() {
                return Some(last);
            }
        }
        let mut nonces = self.write();
        let slot = nonces.slot_mut(thumbprint, origin, role)?;
        Some(slot.nonces.take(Instant::now()))
    }

    /// The server asked for another nonce than this.
    pub(crate) fn outdated(&self, thumbprint: &str, origin: &str, role: Role, taken: &Taken) {
        if let Some(slot) = self.write().slot_mut(thumbprint, origin, role) {
            slot.nonces.outdated(taken);
        }
    }

    /// Forgets a server's nonces, unless there is one that was learned since then.
    pub(crate) fn forget(&self, thumbprint: &str, origin: &str, role: Role, then: Instant) {
        self.write().remove(origin, |slot| {
            slot.is_for(thumbprint, role) && !slot.nonces.learned_since(then)
        });
    }

    /// Many servers say the same nonce with each answer for a while. Unless it has become one of the oldest meanwhile, that
    /// takes no lock which keeps others out.
    pub(crate) fn learn(
        &self,
        thumbprint: &str,
        origin: &Origin,
        role: Role,
        nonce: &Nonce,
        offer: Offer,
    ) {
        let is_known = {
            let nonces = self.0.read().unwrap_or_else(PoisonError::into_inner);
            let slot = nonces.slot(thumbprint, origin.as_str(), role);
            slot.is_some_and(|slot| {
                slot.nonces.knows(nonce, offer) && nonces.learned - slot.learned < YOUNG
            })
        };
        if !is_known {
            self.keep(thumbprint, origin, role, nonce.clone(), offer);
        }
    }

    fn keep(&self, thumbprint: &str, origin: &Origin, role: Role, nonce: Nonce, offer: Offer) {
        let mut guard = self.write();
        let nonces = &mut *guard;
        nonces.learned += 1;
        let (learned, now) = (nonces.learned, Instant::now());
        nonces.bytes += nonce.as_str().len();
        nonces.in_order.insert(learned, origin.clone());
        let slots = nonces.by_origin.entry(origin.clone()).or_default();
        match slots.iter_mut().find(|slot| slot.is_for(thumbprint, role)) {
            Some(slot) => {
                nonces.bytes -= slot.nonces.last().as_str().len();
                nonces.in_order.remove(&slot.learned);
                slot.nonces.learn(nonce, now, offer);
                slot.learned = learned;
            }
            None => slots.push(Slot {
                thumbprint: thumbprint.into(),
                role,
                learned,
                nonces: ServerNonces::new(nonce, now, offer),
            }),
        }
        while nonces.in_order.len() > MAX_NONCES || nonces.bytes > MAX_TOTAL_BYTES {
            nonces.forget_oldest();
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Nonces> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nonces {
    fn slot(&self, thumbprint: &str, origin: &str, role: Role) -> Option<&Slot> {
        let mut slots = self.by_origin.get(origin)?.iter();
        slots.find(|slot| slot.is_for(thumbprint, role))
    }

    fn slot_mut(&mut self, thumbprint: &str, origin: &str, role: Role) -> Option<&mut Slot> {
        let mut slots = self.by_origin.get_mut(origin)?.iter_mut();
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
            self.bytes -= slot.nonces.last().as_str().len();
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

    fn learn_many(store: &NonceStore, count: usize, bytes: usize) {
        for n in 0..count {
            let nonce = Nonce("n".repeat(bytes).into());
            let origin = format!("https://{n}.example");
            store.learn(
                "key",
                &at(&origin),
                Role::ResourceServer,
                &nonce,
                Offer::ToAll,
            );
        }
    }

    fn knows(store: &NonceStore, n: usize) -> bool {
        let origin = format!("https://{n}.example");
        let nonces = store.0.read().unwrap();
        nonces.slot("key", &origin, Role::ResourceServer).is_some()
    }

    /// Number and bytes, counted anew.
    fn size(store: &NonceStore) -> (usize, usize) {
        let nonces = store.0.read().unwrap();
        let all = nonces.by_origin.values().flatten();
        let size = (
            all.clone().count(),
            all.map(|slot| slot.nonces.last().as_str().len()).sum(),
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
            &Nonce("x".into()),
            Offer::ToAll,
        );
        assert!(knows(&store, 0) && !knows(&store, 1));
    }

    #[test]
    fn who_says_the_same_nonce_again_and_again_is_not_the_oldest() {
        let store = NonceStore::default();
        for n in 1..2_000 {
            learn_many(&store, 1, 30);
            let other = at(&format!("https://other{n}.example"));
            store.learn(
                "key",
                &other,
                Role::ResourceServer,
                &Nonce("x".into()),
                Offer::ToAll,
            );
            assert!(knows(&store, 0), "{n}");
        }
        size(&store);
    }

    #[test]
    fn key_origin_and_role_are_kept_apart() {
        let store = NonceStore::default();
        let nonce = |text: &str| Nonce(text.into());
        store.learn(
            "k1",
            &at("https://a"),
            Role::ResourceServer,
            &nonce("1"),
            Offer::ToAll,
        );
        store.learn(
            "k2",
            &at("https://a"),
            Role::ResourceServer,
            &nonce("2"),
            Offer::ToAll,
        );
        store.learn(
            "k1",
            &at("https://a"),
            Role::AuthorizationServer,
            &nonce("3"),
            Offer::ToAll,
        );
        store.learn(
            "k1",
            &at("https://a:8443"),
            Role::ResourceServer,
            &nonce("4"),
            Offer::ToAll,
        );
        let before = Instant::now();
        std::thread::sleep(std::time::Duration::from_millis(1));
        store.learn(
            "k1",
            &at("https://a"),
            Role::ResourceServer,
            &nonce("5"),
            Offer::ToAll,
        );
        let get = |key, origin, role| {
            let nonces = store.0.read().unwrap();
            let slot = nonces.slot(key, origin, role);
            slot.map(|slot| slot.nonces.last().as_str().to_owned())
        };
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

        store.forget("k1", "https://a", Role::ResourceServer, before);
        assert_eq!(
            get("k1", "https://a", Role::ResourceServer).as_deref(),
            Some("5"),
            "learned since"
        );
        let now = Instant::now();
        store.forget("k1", "https://a", Role::ResourceServer, now);
        assert_eq!(get("k1", "https://a", Role::ResourceServer), None);
        assert_eq!(
            get("k2", "https://a", Role::ResourceServer).as_deref(),
            Some("2")
        );
        store.forget("k1", "https://a:8443", Role::ResourceServer, now);
        assert_eq!(store.0.read().unwrap().by_origin.len(), 1);
        assert_eq!(store.0.read().unwrap().in_order.len(), 2);
    }
}
