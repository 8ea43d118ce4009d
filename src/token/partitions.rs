//! One token for each combination of what requests ask for, bounded in number.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{TokenParameters, cache::Cache};

/// Combinations beside the layer's own. Programs know theirs; more are made from their input.
const MAX_OTHERS: usize = 64;

pub(super) struct Partitions {
    own: Cache,
    others: RwLock<HashMap<TokenParameters, Partition>>,
    uses: AtomicU64,
}

struct Partition {
    cache: Cache,
    last_use: AtomicU64,
}

impl Partitions {
    /// `own` is that of requests which ask for nothing of their own.
    pub(super) fn new(own: Cache) -> Self {
        Self {
            own,
            others: RwLock::default(),
            uses: AtomicU64::new(0),
        }
    }

    pub(super) fn own(&self) -> &Cache {
        &self.own
    }

    /// `make` is somebody else's code as little as this is: it puts handles together.
    pub(super) fn get(
        &self,
        parameters: Option<&TokenParameters>,
        make: impl FnOnce(&TokenParameters) -> Cache,
    ) -> Cache {
        let Some(parameters) = parameters.filter(|parameters| !parameters.is_empty()) else {
            return self.own.clone();
        };
        let use_number = self.uses.fetch_add(1, Ordering::Relaxed);
        {
            let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(partition) = others.get(parameters) {
                partition.last_use.store(use_number, Ordering::Relaxed);
                return partition.cache.clone();
            }
        }
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if !others.contains_key(parameters) && others.len() >= MAX_OTHERS {
            remove_oldest(&mut others);
        }
        let partition = others
            .entry(parameters.clone())
            .or_insert_with(|| Partition {
                cache: make(parameters),
                last_use: AtomicU64::new(0),
            });
        partition.last_use.store(use_number, Ordering::Relaxed);
        partition.cache.clone()
    }

    pub(super) fn forget_all(&self) {
        self.own.forget();
        let others = {
            let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *others)
        };
        for partition in others.values() {
            partition.cache.forget();
        }
    }
}

/// The oldest of those that are idle; if all are fetching, the oldest. Whoever waits for it gets its token
/// all the same.
fn remove_oldest(others: &mut HashMap<TokenParameters, Partition>) {
    let oldest = others
        .iter()
        .min_by_key(|(_, partition)| {
            let last_use = partition.last_use.load(Ordering::Relaxed);
            (partition.cache.is_busy(), last_use)
        })
        .map(|(parameters, _)| parameters.clone());
    if let Some(parameters) = oldest {
        others.remove(&parameters);
    }
}
