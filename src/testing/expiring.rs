//! A memory that forgets what is over.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, time::Duration};

/// The memory is looked through when it has doubled, and not below this many entries.
const MIN_LOOK: usize = 1024;

/// Values that count until a time each. It holds little more than those whose time is not over.
pub(super) struct Expiring<K, V> {
    /// With the last time at which each counts.
    entries: HashMap<K, (Duration, V)>,
    next_look: usize,
}

impl<K, V> Default for Expiring<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            next_look: MIN_LOOK,
        }
    }
}

impl<K: Eq + Hash, V> Expiring<K, V> {
    /// Whether there was none by this key.
    pub(super) fn insert(&mut self, key: K, value: V, end: Duration, now: Duration) -> bool {
        if self.entries.len() >= self.next_look {
            self.entries.retain(|_, (end, _)| *end >= now);
            self.next_look = (self.entries.len() * 2).max(MIN_LOOK);
        }
        self.entries.insert(key, (end, value)).is_none()
    }

    /// It may be over: nothing is forgotten on the dot.
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(_, value)| value)
    }

    /// As [`get`](Self::get), to change it.
    pub(super) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut().map(|(_, value)| value)
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key).map(|(_, value)| value)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_forgotten_and_nothing_else() {
        let life = Duration::from_secs(100);
        let mut memory = Expiring::default();
        for second in 0..10_000_u64 {
            let now = Duration::from_secs(second);
            assert!(memory.insert(second, (), now + life, now));
            assert!(memory.entries.len() <= MIN_LOOK, "{second}");
            let oldest = second.saturating_sub(100);
            assert!(memory.get(&oldest).is_some(), "{oldest} at {second}");
        }
        assert!(!memory.insert(9_999, (), Duration::MAX, Duration::ZERO));
    }

    #[test]
    fn what_lives_is_kept_however_much_it_is() {
        let mut memory = Expiring::default();
        for key in 0..5 * MIN_LOOK {
            memory.insert(key, (), Duration::MAX, Duration::from_secs(1));
        }
        assert!((0..5 * MIN_LOOK).all(|key| memory.get(&key).is_some()));
    }
}
