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
                Plan::Serve(token, Some(self.take_off(&mut state, about)))
            }
            (Step::Wait { fetch, instead }, about) => {
                let landing = match about {
                    Some(about) if fetch => Some(self.take_off(&mut state, about)),
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

    fn take_off(&self, state: &mut State<Flight<P>>, about: P) -> Landing<P> {
        let news = watch::Sender::new(News::Flying);
        let id = state.take_off(Flight { about, news });
        Landing {
            cell: self.clone(),
            id,
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
}

impl<P> Landing<P> {
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

/// All interleavings of a few threads, each step of which is a lock of the cell or a piece of news.
#[cfg(all(test, tower_dpop_loom))]
mod loom_tests {
    use std::time::{Duration, SystemTime};

    use loom::{
        sync::{Condvar, Mutex},
        thread,
    };
    use tokio::time::Instant;

    use super::*;
    use crate::{Audience, DpopKey};

    #[derive(Clone)]
    struct World {
        cell: Cell<()>,
        now: Now,
        old: AccessToken,
        new: AccessToken,
        /// Rung after each piece of news: whoever waits for one does not have to spin.
        bell: Arc<(Mutex<()>, Condvar)>,
    }

    /// A cell that holds `old`.
    fn model(test: impl Fn(World) + Send + Sync + 'static) {
        let key = DpopKey::generate().unwrap();
        let audience = Audience::origins(["https://api.example.com"]).unwrap();
        let token = |text| AccessToken::new(text, &key, audience.clone()).unwrap();
        let (old, new) = (token("old"), token("new"));
        loom::model(move || {
            let now = Now {
                steady: Instant::now(),
                wall: SystemTime::UNIX_EPOCH,
            };
            let (old, new) = (old.clone(), new.clone());
            let world = World {
                cell: Cell::default(),
                now,
                old,
                new,
                bell: Arc::new((Mutex::new(()), Condvar::new())),
            };
            let Plan::Wait(mut wait) = world.cell.plan(&Ask::default(), now, Some(())) else {
                panic!("nothing to serve yet")
            };
            world.land(wait.fetch.take().unwrap(), &world.old);
            test(world);
        });
    }

    impl World {
        fn land(&self, landing: Landing<()>, token: &AccessToken) {
            let fetched = Fetched {
                token: token.clone(),
                life: Duration::from_secs(300),
            };
            landing.land(Ok(fetched), self.now, self.now, 0.5);
            self.ring();
        }

        fn lose(&self, landing: Landing<()>) {
            drop(landing);
            self.ring();
        }

        fn ring(&self) {
            let _quiet = self.bell.0.lock().unwrap();
            self.bell.1.notify_all();
        }

        /// The end of a fetch, and its token if it brought one.
        fn heard(&self, news: &watch::Receiver<News>) -> Option<AccessToken> {
            let mut quiet = self.bell.0.lock().unwrap();
            loop {
                match &*news.borrow() {
                    News::Landed(Ok(token)) => return Some(token.clone()),
                    News::Landed(Err(_)) | News::Lost | News::Forgotten => return None,
                    News::Flying | News::Slow => {}
                }
                quiet = self.bell.1.wait(quiet).unwrap();
            }
        }

        /// As a caller whose request came back with `but` refused: the token to send instead, and how many
        /// fetches that started. Every other fetch that it starts is lost.
        fn renew(&self, but: &AccessToken, mut lose: bool) -> (AccessToken, usize) {
            self.cell.refuse(but, self.now, 0.5);
            let ask = Ask {
                but: Some(but.clone()),
                since: None,
            };
            let mut fetches = 0;
            for _ in 0..3 {
                let mut wait = match self.cell.plan(&ask, self.now, Some(())) {
                    Plan::Serve(token, _) => return (token, fetches),
                    Plan::Fail(error) => panic!("{error}"),
                    Plan::Wait(wait) => wait,
                };
                let fetch = wait.fetch.take().map(|landing| {
                    fetches += 1;
                    let world = self.clone();
                    let lost = std::mem::take(&mut lose);
                    thread::spawn(move || match lost {
                        true => world.lose(landing),
                        false => world.land(landing, &world.new),
                    })
                });
                let answer = self.heard(&wait.news);
                if let Some(fetch) = fetch {
                    fetch.join().unwrap();
                }
                if let Some(token) = answer {
                    return (token, fetches);
                }
            }
            panic!("lost more often than it was");
        }
    }

    #[test]
    fn one_refusal_that_two_saw_costs_one_fetch() {
        model(|world| {
            let other = {
                let world = world.clone();
                thread::spawn(move || world.renew(&world.old, false))
            };
            let (token, fetches) = world.renew(&world.old, false);
            let (others, more) = other.join().unwrap();
            assert!(token.is(&world.new) && others.is(&world.new));
            assert_eq!(fetches + more, 1);
        });
    }

    #[test]
    fn a_lost_fetch_leaves_nobody_waiting() {
        model(|world| {
            let other = {
                let world = world.clone();
                thread::spawn(move || world.renew(&world.old, false))
            };
            let (token, fetches) = world.renew(&world.old, true);
            let (others, more) = other.join().unwrap();
            assert!(token.is(&world.new) && others.is(&world.new));
            assert!((1..=2).contains(&(fetches + more)));
            assert!(!world.cell.is_busy());
        });
    }

    #[test]
    fn a_late_refusal_of_the_old_token_leaves_the_new_one() {
        model(|world| {
            let late = {
                let world = world.clone();
                thread::spawn(move || world.cell.refuse(&world.old, world.now, 0.5))
            };
            let (token, _) = world.renew(&world.old, false);
            late.join().unwrap();
            assert!(token.is(&world.new));
            let step = world.cell.look(&Ask::default(), world.now);
            assert!(matches!(step, Step::Serve(token) if token.is(&world.new)));
        });
    }

    #[test]
    fn what_is_forgotten_in_flight_comes_back_to_nobody() {
        model(|world| {
            world.cell.forget();
            let Plan::Wait(mut wait) = world.cell.plan(&Ask::default(), world.now, Some(())) else {
                panic!("forgotten")
            };
            let landing = wait.fetch.take().unwrap();
            let flying = {
                let world = world.clone();
                thread::spawn(move || world.land(landing, &world.new))
            };
            world.cell.forget();
            world.ring();
            // Heard as landed before it was forgotten, or as lost: never nothing.
            world.heard(&wait.news);
            flying.join().unwrap();
            assert!(!world.cell.is_busy());
            let step = world.cell.look(&Ask::default(), world.now);
            assert!(matches!(step, Step::Wait { fetch: true, .. }), "{step:?}");
        });
    }
}
