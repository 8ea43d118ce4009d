//! The token that all share, and the one fetch that all wait for.

use std::{
    future::Future,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    sync::watch,
    task::AbortHandle,
    time::Instant,
};

use crate::{
    access_token::AccessToken,
    error::{Error, Kind},
};

/// A request on its way when the token ends is refused, so the last of its life is not used: a tenth, but
/// no more than this.
const MAX_MARGIN: Duration = Duration::from_secs(10);

/// A fetch that takes longer will not end well. It is the whole of it: connecting, nonce retries, the body.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// When those who wait elsewhere give a fetch up that should have ended by itself: after its own deadline,
/// with room for a busy machine.
const OVERDUE: Duration = Duration::from_secs(11);

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
    started: Instant,
    runtime: runtime::Id,
    news: watch::Sender<News>,
}

/// What those who wait for a flight hear.
enum News {
    Flying,
    Landed(Result<AccessToken, Error>),
    /// It ended without an answer, or nobody drives it any more: plan anew.
    Lost,
}

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
            let (mut news, _watchdog) = match self.join_or_take_off()? {
                Plan::Use(token) => return Ok(token),
                Plan::Join(news, watched) => (news, watched.map(|watched| self.watch(watched))),
                Plan::TakeOff(runtime, landing, news) => {
                    runtime.spawn(landing.fly(fetch()));
                    (news, None)
                }
            };
            let news = news.wait_for(|news| !matches!(news, News::Flying)).await;
            if let Ok(news) = news
                && let News::Landed(answer) = &*news
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
        let runtime = Handle::try_current();
        let mut state = self.write();
        if let Some(token) = state.usable() {
            return Ok(Plan::Use(token));
        }
        if let Some(flight) = &state.flight {
            let watched = runtime
                .ok()
                .filter(|runtime| runtime.id() != flight.runtime);
            let watched = watched.map(|runtime| Watched {
                runtime,
                flight: flight.id,
                overdue: flight.started + OVERDUE,
            });
            return Ok(Plan::Join(flight.news.subscribe(), watched));
        }
        // The runtime of now, not that in which the layer was built: it may have been another, or none.
        let runtime = runtime.map_err(|source| {
            Error::with_source(
                Kind::Runtime,
                "no Tokio runtime to fetch the token in: call the service from within one",
                source,
            )
        })?;
        state.flights += 1;
        let (sender, news) = watch::channel(News::Flying);
        state.flight = Some(Flight {
            id: state.flights,
            started: Instant::now(),
            runtime: runtime.id(),
            news: sender,
        });
        let landing = Landing {
            cache: self.clone(),
            id: state.flights,
        };
        Ok(Plan::TakeOff(runtime, landing, news))
    }

    /// A fetch runs in the runtime of the caller that started it. That may live on and be driven by nobody,
    /// its timers included. Those who wait in another runtime have a timer of their own, in a task of their
    /// own: a runtime without timers shall not make their request panic.
    fn watch(&self, watched: Watched) -> Watchdog {
        let cache = self.clone();
        let task = watched.runtime.spawn(async move {
            tokio::time::sleep_until(watched.overdue).await;
            cache.end_flight(watched.flight, None);
        });
        Watchdog(task.abort_handle())
    }

    /// Ends this flight, if it has not ended yet; whoever still waits for it hears that it is lost.
    fn end_flight(&self, id: u64, landed: Option<Result<Current, Error>>) {
        let mut state = self.write();
        // If it has ended, the flight there is another one's, or none.
        let Some(flight) = state.flight.take_if(|flight| flight.id == id) else {
            return;
        };
        let news = match landed {
            Some(Ok(current)) => {
                let token = current.token.clone();
                state.current = Some(current);
                News::Landed(Ok(token))
            }
            Some(Err(error)) => News::Landed(Err(error)),
            None => News::Lost,
        };
        drop(state);
        flight.news.send_replace(news);
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
    Join(watch::Receiver<News>, Option<Watched>),
    TakeOff(Handle, Landing, watch::Receiver<News>),
}

/// A flight in another runtime than that of the caller.
struct Watched {
    runtime: Handle,
    flight: u64,
    overdue: Instant,
}

/// Sleeps no longer than the caller waits.
struct Watchdog(AbortHandle);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends a flight, exactly once, however it ends: by its answer, or when its task is dropped before that.
struct Landing {
    cache: Cache,
    id: u64,
}

impl Landing {
    async fn fly<F>(self, fetch: F)
    where
        F: Future<Output = Result<Fetched, Error>>,
    {
        // The life of a token counts from before the server could have made it.
        let started = Instant::now();
        let answer = match tokio::time::timeout(FETCH_TIMEOUT, fetch).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::new(
                Kind::Timeout,
                format!(
                    "no access token: the token endpoint gave no answer within {} s",
                    FETCH_TIMEOUT.as_secs()
                ),
            )),
        };
        let landed = answer.map(|fetched| {
            let margin = MAX_MARGIN.min(fetched.life / 10);
            Current {
                token: fetched.token,
                usable_until: started + (fetched.life - margin),
            }
        });
        self.cache.end_flight(self.id, Some(landed));
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.cache.end_flight(self.id, None);
    }
}
