//! The token that all share, and the one fetch that all wait for.

use std::{
    future::Future,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, time::Instant};

use crate::{
    access_token::AccessToken,
    error::{Error, Kind},
};

/// A request on its way when the token ends is refused, so the last of its life is not used: a tenth, but
/// no more than this.
const MAX_MARGIN: Duration = Duration::from_secs(10);

/// How often a caller joins or starts a fetch that is then lost without an answer: aborted with its
/// runtime, or panicked.
const MAX_ROUNDS: usize = 3;

/// A token, and how long it may be used.
pub(super) struct Fetched {
    pub(super) token: AccessToken,
    pub(super) life: Duration,
}

/// Cheap to clone; clones share the token.
///
/// One short lock, never held across an await or somebody else's code, and valid at every step: a
/// poisoned lock is taken as it is.
#[derive(Clone, Default)]
pub(super) struct Cache(Arc<RwLock<State>>);

#[derive(Default)]
struct State {
    current: Option<Current>,
    flight: Option<Flight>,
    flights: u64,
}

impl State {
    fn usable(&self) -> Option<AccessToken> {
        let current = self.current.as_ref()?;
        (Instant::now() < current.usable_until).then(|| current.token.clone())
    }
}

struct Current {
    token: AccessToken,
    usable_until: Instant,
}

/// The fetch under way.
struct Flight {
    id: u64,
    answer: Answer,
}

/// Empty until the fetch ends; closed if it ends without an answer.
type Answer = watch::Receiver<Option<Result<AccessToken, Error>>>;

impl Cache {
    /// The token, if there is one to use now.
    pub(super) fn get(&self) -> Option<AccessToken> {
        self.read().usable()
    }

    /// Forgets this very token. A late refusal of an old one costs its successor nothing.
    pub(super) fn forget(&self, token: &AccessToken) {
        let mut state = self.write();
        if state
            .current
            .as_ref()
            .is_some_and(|current| current.token.is(token))
        {
            state.current = None;
        }
    }

    /// The token, or the one that the fetch under way brings; `fetch` starts one if there is none.
    ///
    /// The fetch runs in a task of its own. Whoever stops waiting neither ends nor delays it.
    pub(super) async fn get_or_fetch<F>(&self, fetch: impl Fn() -> F) -> Result<AccessToken, Error>
    where
        F: Future<Output = Result<Fetched, Error>> + Send + 'static,
    {
        for _ in 0..MAX_ROUNDS {
            let mut answer = match self.join_or_take_off()? {
                Plan::Use(token) => return Ok(token),
                Plan::Wait(answer) => answer,
                Plan::Fetch(runtime, landing, answer) => {
                    runtime.spawn(landing.fly(fetch()));
                    answer
                }
            };
            if let Ok(answer) = answer.wait_for(Option::is_some).await
                && let Some(answer) = &*answer
            {
                return answer.clone();
            }
        }
        Err(Error::new(
            Kind::Runtime,
            "the task that fetched the token ended without an answer, more than once: it panicked, or its \
             runtime was shut down (is the runtime's timer enabled?)",
        ))
    }

    fn join_or_take_off(&self) -> Result<Plan, Error> {
        let mut state = self.write();
        if let Some(token) = state.usable() {
            return Ok(Plan::Use(token));
        }
        if let Some(flight) = &state.flight {
            return Ok(Plan::Wait(flight.answer.clone()));
        }
        // Found now, not when the layer was built: that may have been in another runtime, or in none.
        let runtime = Handle::try_current().map_err(|source| {
            Error::with_source(
                Kind::Runtime,
                "no Tokio runtime to fetch the token in: call the service from within one",
                source,
            )
        })?;
        state.flights += 1;
        let id = state.flights;
        let (sender, answer) = watch::channel(None);
        state.flight = Some(Flight {
            id,
            answer: answer.clone(),
        });
        let landing = Landing {
            cache: self.clone(),
            id,
            sender,
        };
        Ok(Plan::Fetch(runtime, landing, answer))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Plan {
    Use(AccessToken),
    Wait(Answer),
    Fetch(Handle, Landing, Answer),
}

/// Ends a flight, exactly once, however it ends: if the task is dropped before its answer came, the
/// waiters see a closed channel and plan anew.
struct Landing {
    cache: Cache,
    id: u64,
    sender: watch::Sender<Option<Result<AccessToken, Error>>>,
}

impl Landing {
    async fn fly<F>(self, fetch: F)
    where
        F: Future<Output = Result<Fetched, Error>>,
    {
        // The life of a token counts from before the server could have made it.
        let started = Instant::now();
        let answer = fetch.await;
        let landed = answer.as_ref().ok().map(|fetched| {
            let margin = MAX_MARGIN.min(fetched.life / 10);
            let usable_until = started + (fetched.life - margin);
            Current {
                token: fetched.token.clone(),
                usable_until,
            }
        });
        self.end_flight(landed);
        self.sender
            .send_replace(Some(answer.map(|fetched| fetched.token)));
    }

    fn end_flight(&self, landed: Option<Current>) {
        let mut state = self.cache.write();
        // Once it has ended, the flight there is another one's, or none.
        if state
            .flight
            .as_ref()
            .is_some_and(|flight| flight.id == self.id)
        {
            state.flight = None;
            if landed.is_some() {
                state.current = landed;
            }
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.end_flight(None);
    }
}
