//! Hears of everything that happens, and keeps the [`Model`] that judges it.

use std::sync::{Arc, Mutex, MutexGuard};

use super::{
    Story,
    model::{Caller, Model},
};
use crate::{
    access_token::AccessToken,
    error::Error,
    token::{
        response::Failure,
        state::{Ask, Fetched},
    },
};

pub(super) struct Oracle(Mutex<Model>);

impl Oracle {
    pub(super) fn new(story: Story, tell: bool) -> Self {
        Self(Mutex::new(Model::new(story, tell)))
    }

    /// Not to be held while anything else is done: the cache's clock is in there, too.
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }

    /// A fetch starts.
    pub(super) fn takes_off(self: &Arc<Self>) -> Flight {
        let id = self.model().takes_off();
        Flight {
            oracle: Arc::clone(self),
            id,
        }
    }

    /// A caller is about to ask for a token.
    pub(super) fn asks(self: &Arc<Self>, ask: &Ask) -> Call {
        let caller = self.model().asks(ask);
        Call {
            oracle: Arc::clone(self),
            caller,
        }
    }
}

/// A fetch under way.
pub(super) struct Flight {
    oracle: Arc<Oracle>,
    id: usize,
}

impl Flight {
    pub(super) fn lands(&self, answer: &Result<Fetched, Failure>) {
        self.oracle.model().lands(self.id, answer);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.oracle.model().dropped(self.id);
    }
}

/// A caller on its way to a token.
pub(super) struct Call {
    oracle: Arc<Oracle>,
    caller: Caller,
}

impl Call {
    /// What it got without waiting, and whether a fetch is under way now.
    pub(super) fn got_at_once(&self, token: Option<&AccessToken>, busy: bool) {
        let mut model = self.oracle.model();
        model.got_at_once(&self.caller, token, busy);
    }

    pub(super) fn got(self, got: &Result<AccessToken, Error>) {
        self.oracle.model().got(&self.caller, got);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.oracle.model().leaves(&self.caller);
    }
}
