use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Wake, Waker},
};

/// The handles that wait for the body. It knows one waker only, so that is one for all.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Vec<(u64, Waker)>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, id: u64, waker: &Waker) {
        let waker = waker.clone();
        let mut waiting = self.lock();
        let before = match waiting.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => Some(mem::replace(known, waker)),
            None => {
                waiting.push((id, waker));
                None
            }
        };
        drop(waiting);
        drop(before);
    }

    pub(super) fn remove(&self, id: u64) {
        let mut waiting = self.lock();
        let index = waiting.iter().position(|(known, _)| *known == id);
        let removed = index.map(|index| waiting.swap_remove(index));
        drop(waiting);
        drop(removed);
    }

    /// Outside of the lock: what is woken is somebody else's code.
    fn wake_all(&self) {
        let waiting = mem::take(&mut *self.lock());
        for (_, waker) in waiting {
            waker.wake();
        }
    }

    /// The handle `id` needs no waking: it is awake, or waits for the body.
    pub(super) fn wake_others(&self, id: u64) {
        let mut waiting = self.lock();
        let own = waiting.iter().position(|(known, _)| *known == id);
        let own = own.map(|own| waiting.swap_remove(own));
        let others = mem::replace(&mut *waiting, own.into_iter().collect());
        drop(waiting);
        for (_, waker) in others {
            waker.wake();
        }
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}
