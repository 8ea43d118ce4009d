//! The lock around what is known of one token, and the news for those who wait. No async, no runtime.
//!
//! Whoever waits holds a receiver: that one stops waiting changes nothing for the others, and all hear the
//! same answer.

#[cfg(all(test, tower_dpop_loom))]
use loom::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::sync::{Arc, PoisonError};
#[cfg(not(all(test, tower_dpop_loom)))]
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::{
    response::Failure,
    state::{Ask, Fetched, Landed, State, Step},
};
use crate::{
    access_token::AccessToken,
    clock::Now,
    error::{Error, Kind},
    event::Need,
};

/// Cheap to clone; clones share the token. `P` is what is to be known of a fetch under way.
///
/// One short lock, never held across an await or somebody else's code, and what it guards is valid at every
/// step: a poisoned lock is taken as it is.
pub(super) struct Cell<P>(Arc<RwLock<State<Flight<P>>>>);

struct Flight<P> {
    about: P,
    news: watch::Sender<News>,
}

/// What those who wait for a fetch hear.
pub(super) enum News {
    Flying,
    /// It takes its time. Who has something instead does not wait for it.
    Slow,
    Landed(Result<AccessToken, Error>),
    /// It ended without an answer, or nobody drives it any more: plan anew.
    Lost,
    /// The token is not wanted any more, but whoever waits wants one: plan anew.
    Forgotten,
}

/// What a caller is to do.
pub(super) enum Plan<P> {
    /// Start the fetch, if there is one, and go on.
    Serve(AccessToken, Option<Landing<P>>),
    Wait(Wait<P>),
    Fail(Error),
}

pub(super) struct Wait<P> {
    /// A fetch to start first.
    pub(super) fetch: Option<Landing<P>>,
    pub(super) id: u64,
    pub(super) about: P,
    pub(super) news: watch::Receiver<News>,
    /// What serves if no better token comes soon.
    pub(super) instead: Option<AccessToken>,
}

impl<P: Clone> Cell<P> {
    /// What to do, without doing it.
    pub(super) fn look(&self, ask: &Ask, now: Now) -> Step {
        self.read().plan(ask, now)
    }

    /// What to do. `about` tells of the fetch that might have to be started; without it, none can be.
    pub(super) fn plan(&self, ask: &Ask, now: Now, about: Option<P>) -> Plan<P> {
        let mut state = self.write();
        match (state.plan(ask, now), about) {
            (Step::Fail(error), _) => Plan::Fail(error),
            (Step::Serve(token), _) | (Step::ServeAndFetch(token), None) => {
                Plan::Serve(token, None)
            }
            (Step::ServeAndFetch(token), Some(about)) => {
                let need = state.need(ask, now);
                Plan::Serve(token, Some(self.take_off(&mut state, about, need)))
            }
            (Step::Wait { fetch, instead }, about) => {
                let landing = match about {
                    Some(about) if fetch => {
                        let need = state.need(ask, now);
                        Some(self.take_off(&mut state, about, need))
                    }
                    _ => None,
                };
                match (state.flight(), instead) {
                    (Some((id, flight)), instead) => Plan::Wait(Wait {
                        fetch: landing,
                        id,
                        about: flight.about.clone(),
                        news: flight.news.subscribe(),
                        instead,
                    }),
                    (None, Some(token)) => Plan::Serve(token, None),
                    (None, None) => Plan::Fail(no_runtime()),
                }
            }
        }
    }

    fn take_off(&self, state: &mut State<Flight<P>>, about: P, need: Need) -> Landing<P> {
        let news = watch::Sender::new(News::Flying);
        let id = state.take_off(Flight { about, news });
        Landing {
            cell: self.clone(),
            id,
            need,
        }
    }
}

impl<P> Cell<P> {
    /// Whether a fetch is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.read().flight().is_some()
    }

    /// A server refused this very token. Whether it is the first to say so.
    pub(super) fn refuse(&self, token: &AccessToken, now: Now, chance: f64) -> bool {
        self.write().refuse(token, now, chance)
    }

    /// Forgets the token; a fetch under way brings it to nobody.
    pub(super) fn forget(&self) {
        let flight = self.write().forget();
        tell(flight, News::Forgotten);
    }

    /// Gives a fetch up that should have ended by itself.
    pub(super) fn give_up(&self, id: u64) {
        let flight = self.write().lost(id);
        tell(flight, News::Lost);
    }

    fn read(&self) -> RwLockReadGuard<'_, State<Flight<P>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<Flight<P>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not under the lock: who hears it may be woken at once.
fn tell<P>(flight: Option<Flight<P>>, news: News) {
    if let Some(flight) = flight {
        flight.news.send_replace(news);
    }
}

/// Ends a fetch, exactly once, however it ends: by its answer, or when its task is dropped before that.
pub(super) struct Landing<P> {
    cell: Cell<P>,
    id: u64,
    need: Need,
}

impl<P> Landing<P> {
    /// Why the fetch was started.
    pub(super) fn need(&self) -> Need {
        self.need
    }

    /// Those who have something instead shall wait no longer.
    pub(super) fn slow(&self) {
        let news = self
            .cell
            .write()
            .slow(self.id)
            .map(|flight| flight.news.clone());
        if let Some(news) = news {
            news.send_if_modified(|news| {
                let flying = matches!(news, News::Flying);
                if flying {
                    *news = News::Slow;
                }
                flying
            });
        }
    }

    /// None if the fetch was given up before.
    pub(super) fn land(
        &self,
        outcome: Result<Fetched, Failure>,
        asked: Now,
        now: Now,
        chance: f64,
    ) -> Option<Landed> {
        let (flight, answer) = self
            .cell
            .write()
            .land(self.id, outcome, asked, now, chance)?;
        let news = match &answer {
            Ok(token) => Ok(token.clone()),
            Err((error, _)) => Err(error.clone()),
        };
        flight.news.send_replace(News::Landed(news));
        Some(answer)
    }
}

impl<P> Drop for Landing<P> {
    fn drop(&mut self) {
        self.cell.give_up(self.id);
    }
}

impl<P> Clone for Cell<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P> Default for Cell<P> {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(State::default())))
    }
}

fn no_runtime() -> Error {
    Error::new(
        Kind::Runtime,
        "no Tokio runtime to fetch the token in: call the service from within one",
    )
}

#[cfg(all(test, tower_dpop_loom))]
mod loom_tests;
