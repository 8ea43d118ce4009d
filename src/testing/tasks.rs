//! What runs for a server.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use tokio::{sync::watch, task::JoinSet};

use super::shared::lock;

/// All tasks of a server that listens: accepting, connections, and the streams of HTTP/2 connections, which
/// hyper would otherwise leave running on their own.
#[derive(Clone)]
pub(super) struct Tasks(Arc<Inner>);

struct Inner {
    /// None after the end.
    set: Mutex<Option<JoinSet<()>>>,
    /// Each task holds a receiver, so this is closed when the last of them is gone.
    gone: watch::Sender<()>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            set: Mutex::new(Some(JoinSet::new())),
            gone: watch::Sender::new(()),
        }))
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // After the end, a connection that was just being accepted is dropped.
        if let Some(set) = &mut *lock(&self.0.set) {
            while set.try_join_next().is_some() {}
            let alive = self.0.gone.subscribe();
            set.spawn(async move {
                // An aborted task, too, drops the receiver last.
                task.await;
                drop(alive);
            });
        }
    }

    /// Aborts them all; each goes when its runtime comes to it.
    pub(super) fn end(&self) {
        let set = lock(&self.0.set).take();
        // Not under the lock: what they hold may spawn when it is dropped.
        drop(set);
    }

    pub(super) fn ended(&self) -> bool {
        lock(&self.0.set).is_none()
    }

    /// Whether none is left, and with them no socket.
    pub(super) fn are_gone(&self) -> bool {
        self.0.gone.is_closed()
    }

    /// Waits until they [are gone](Self::are_gone).
    pub(super) async fn gone(&self) {
        self.0.gone.closed().await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(task);
    }
}
