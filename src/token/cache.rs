//! The token that all share, and the one fetch that all wait for: the tasks and timers around a [`Cell`].

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

use super::{
    cell::{Cell, Landing, News, Plan, Wait},
    response::Failure,
    state::{Ask, Fetched, Step},
};
use crate::{
    access_token::{AccessToken, Issuer},
    caught::{Panicked, caught},
    clock::Clock,
    error::{Error, Kind},
    event,
    random::chance,
};

/// A server that answers answers sooner. After it, whoever has a token that most servers still accept goes
/// on with that one.
const PATIENCE: Duration = Duration::from_secs(1);

/// When those who wait elsewhere give a fetch up that should have ended by itself: so long after its own
/// deadline, as room for a busy machine.
const OVERDUE: Duration = Duration::from_secs(1);

/// How often a caller joins or starts a fetch that is then lost without an answer: aborted with its runtime,
/// or given up.
const MAX_ROUNDS: usize = 3;

/// A token on its way.
pub(super) type Fetching = Pin<Box<dyn Future<Output = Result<Fetched, Failure>> + Send>>;

/// Cheap to clone; clones share the token.
#[derive(Clone)]
pub(super) struct Cache(Arc<Inner>);

struct Inner {
    cell: Cell<About>,
    clock: Arc<Clock>,
    /// For the whole of a fetch: waiting for the client, connecting, nonce retries, the body.
    timeout: Duration,
    fetch: Box<dyn Fn() -> Fetching + Send + Sync>,
}

/// What is to be known of a fetch under way.
#[derive(Clone)]
struct About {
    runtime: runtime::Id,
    deadline: Instant,
}

impl Cache {
    /// `fetch` must do nothing but make a future: it is called in callers' tasks.
    pub(super) fn new(
        clock: Arc<Clock>,
        timeout: Duration,
        fetch: impl Fn() -> Fetching + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            cell: Cell::default(),
            clock,
            timeout,
            fetch: Box::new(fetch),
        }))
    }

    /// The token, if there is one to use now: nobody waits for the successor of one that is due.
    pub(super) fn get(&self) -> Option<AccessToken> {
        let ask = Ask::default();
        match self.0.cell.look(&ask, self.0.clock.now()) {
            Step::Serve(token) => Some(token),
            Step::ServeAndFetch(_) => match self.plan(&ask) {
                (Plan::Serve(token, landing), runtime) => {
                    self.start(landing, runtime);
                    Some(token)
                }
                // It changed since.
                (Plan::Wait(wait), runtime) => {
                    self.start(wait.fetch, runtime);
                    None
                }
                (Plan::Fail(_), _) => None,
            },
            Step::Wait { .. } | Step::Fail(_) => None,
        }
    }

    /// The token, or the one that the fetch under way brings; starts one if there is none.
    ///
    /// The fetch runs in a task of its own. Whoever stops waiting neither ends nor delays it.
    pub(super) async fn wait(&self, ask: &Ask) -> Result<AccessToken, Error> {
        // Mostly there is one, and it takes no lock that keeps others out to see it.
        if let Step::Serve(token) = self.0.cell.look(ask, self.0.clock.now()) {
            return Ok(token);
        }
        let (mut lost, mut too_old) = (0, 0);
        while lost < MAX_ROUNDS && too_old < MAX_ROUNDS {
            let (plan, runtime) = self.plan(ask);
            let mut wait = match plan {
                Plan::Fail(error) => return Err(error),
                Plan::Serve(token, landing) => {
                    self.start(landing, runtime);
                    return Ok(token);
                }
                Plan::Wait(wait) => wait,
            };
            let _watchdog = self.watch(&wait, runtime.as_ref());
            self.start(wait.fetch.take(), runtime);
            let instead = wait.instead.is_some();
            let news = wait.news.wait_for(|news| match news {
                News::Flying => false,
                News::Slow => instead,
                News::Landed(_) | News::Lost | News::Forgotten => true,
            });
            match news.await.as_deref() {
                // It may have been asked for too early: plan anew.
                Ok(News::Landed(Ok(_))) if ask.since.is_some() => too_old += 1,
                Ok(News::Landed(Ok(token))) => return Ok(token.clone()),
                Ok(News::Landed(Err(error))) if !instead => return Err(error.clone()),
                // No better token soon. What there was instead may have ended meanwhile: plan anew.
                Ok(News::Landed(Err(_)) | News::Slow | News::Forgotten) => {}
                Ok(News::Flying | News::Lost) | Err(_) => lost += 1,
            }
        }
        // Nobody waits any more, but there may be a token all the same.
        if let Step::Serve(token)
        | Step::ServeAndFetch(token)
        | Step::Wait {
            instead: Some(token),
            ..
        } = self.0.cell.look(ask, self.0.clock.now())
        {
            return Ok(token);
        }
        Err(Error::new(
            Kind::Runtime,
            "there is no token after several fetches: each ended without an answer (is the runtime being shut \
             down?), or its token was forgotten",
        ))
    }

    /// A server refused this very token.
    pub(super) fn refuse(&self, token: &AccessToken) {
        self.0.refused(token);
    }

    /// Who is told when a server refuses it later.
    pub(super) fn issuer(&self) -> Weak<dyn Issuer> {
        let issuer: Weak<Inner> = Arc::downgrade(&self.0);
        issuer
    }

    /// Forgets the token; a fetch under way brings it to nobody.
    pub(super) fn forget(&self) {
        self.0.cell.forget();
    }

    pub(super) fn is_busy(&self) -> bool {
        self.0.cell.is_busy()
    }

    /// The runtime is that of now, not that in which the layer was built: it may have been another, or none.
    fn plan(&self, ask: &Ask) -> (Plan<About>, Option<Handle>) {
        let runtime = Handle::try_current().ok();
        let now = self.0.clock.now();
        let about = runtime.as_ref().map(|runtime| About {
            runtime: runtime.id(),
            deadline: now.steady + self.0.timeout,
        });
        (self.0.cell.plan(ask, now, about), runtime)
    }

    fn start(&self, landing: Option<Landing<About>>, runtime: Option<Handle>) {
        if let (Some(landing), Some(runtime)) = (landing, runtime) {
            let fetching = event::Fetching::new(landing.need());
            let flight = runtime.spawn(self.clone().fly(landing, fetching));
            #[cfg(test)]
            super::simulation::took_off(&flight);
            drop(flight);
        }
    }

    /// A fetch runs in the runtime of the caller that started it. That may live on and be driven by nobody,
    /// its timers included. Those who wait in another runtime have a timer of their own, in a task of their
    /// own: a runtime without timers shall not make their request panic.
    fn watch(&self, wait: &Wait<About>, runtime: Option<&Handle>) -> Option<Watchdog> {
        let runtime = runtime.filter(|runtime| runtime.id() != wait.about.runtime)?;
        let (cell, id) = (self.0.cell.clone(), wait.id);
        let overdue = wait.about.deadline + OVERDUE;
        let task = runtime.spawn(async move {
            tokio::time::sleep_until(overdue).await;
            cell.give_up(id);
        });
        Some(Watchdog(task.abort_handle()))
    }

    /// The whole of a fetch, in its own task.
    async fn fly(self, landing: Landing<About>, mut fetching: event::Fetching) {
        let asked = self.0.clock.now();
        // Timers included: they panic in a runtime that has none.
        let outcome = fetching.within(caught(self.timed(&landing))).await;
        let outcome = outcome.unwrap_or_else(|Panicked| Err(panicked().into()));
        match landing.land(outcome, asked, self.0.clock.now(), chance()) {
            Some(Ok(_)) => fetching.ended(Ok(())),
            Some(Err((error, retry_in))) => fetching.ended(Err((&error, retry_in))),
            None => {}
        }
    }

    async fn timed(&self, landing: &Landing<About>) -> Result<Fetched, Failure> {
        let limit = self.0.timeout;
        let deadline = Instant::now() + limit;
        let mut fetching = (self.0.fetch)();
        if let Ok(outcome) = timeout(PATIENCE.min(limit), &mut fetching).await {
            return outcome;
        }
        landing.slow();
        match timeout_at(deadline, fetching).await {
            Ok(outcome) => outcome,
            Err(_) => Err(no_answer_within(limit).into()),
        }
    }
}

impl Issuer for Inner {
    fn refused(&self, token: &AccessToken) {
        let first = self.cell.refuse(token, self.clock.now(), chance());
        if first {
            event::token_refused();
        }
    }
}

fn panicked() -> Error {
    Error::new(
        Kind::Runtime,
        "fetching the token panicked: in the client for token requests, or because the runtime has no timers \
         (`enable_time`)",
    )
}

pub(super) fn no_answer_within(limit: Duration) -> Error {
    Error::new(
        Kind::Timeout,
        format!(
            "no access token: the token endpoint gave no answer within {} s",
            limit.as_secs_f64()
        ),
    )
}

/// Sleeps no longer than the caller waits.
struct Watchdog(AbortHandle);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
