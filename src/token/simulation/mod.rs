//! The life of a token, simulated: hours of it in milliseconds, on paused time, with every chance drawn from
//! one seed. No HTTP and no signatures: what is tested is the [`Cache`] and what it is made of.
//!
//! An authorization server with moods ([`server`]), callers and resource servers ([`callers`]), and mishaps:
//! fetches aborted, tokens forgotten, wall clocks that jump. An [`oracle`] hears of everything that happens,
//! and a [`model`] checks that this holds:
//!
//!  1. There is at most one fetch at a time. One that was given up (aborted, or its token forgotten) does not
//!     count, and its answer is used by nobody.
//!  2. Nobody waits longer than twice the fetch's deadline, and once more for each fetch that was given up
//!     meanwhile. Whoever could do with a refused token waits 1 s for a better one.
//!  3. No token is served past its end: the start of its request and its life, by the steady clock. One with
//!     no life at all is served for 1 s.
//!  4. Nobody gets an error while there is a token that is usable and not the one the caller refuses.
//!  5. Fetches that fail are no closer together than the smallest back-off, nor than `Retry-After`. So an
//!     outage has a bounded number of them.
//!  6. No fetch without a reason: no usable token, one that is due or refused, or a caller that insists. So a
//!     revocation costs one renewal, however many callers saw it.
//!  7. A server that refuses whatever it is shown costs at most 14 fetches in 60 s.
//!  8. A refusal of an old token causes no fetch and costs the new one nothing.
//!  9. No error without a failure within the last 30 s, or 300 s after a `Retry-After`: so tokens flow again
//!     that soon after the server healed, permanent errors included.
//! 10. Nobody waits while there is a token that nobody has refused. A due one is renewed meanwhile; with a
//!     healthy server and steady demand nobody but the first ever waits.
//! 11. No caller panics, and when all is over no task is left.
//!
//! `cargo test` runs a few seeds, `SIMULATION_SEEDS=3000 cargo test --lib simulation` many. A failure names its
//! seed; `SIMULATION_SEED=n cargo test --lib simulation` runs that one again, and tells what happens.
//!
//! A simulation that finds nothing proves little. `.ci/mutants` breaks the code in many ways, and demands that
//! each is found.

use std::{
    cell::RefCell,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    callers::{Caller, ResourceServers},
    model::Stats,
    oracle::Oracle,
    server::{LIVES, Lives, Mood, Server},
};
use super::cache::Cache;
use crate::{
    clock::Clock,
    random::{chance, seeded},
};

mod callers;
mod model;
mod oracle;
mod server;

/// So many that `cargo test` stays quick without optimisation.
const SEEDS: u64 = 40;

/// For one fetch.
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn whatever_happens_the_promises_hold() {
    let number = |name| env::var(name).ok().map(|text| text.parse().unwrap());
    let (seeds, tell) = match number("SIMULATION_SEED") {
        Some(seed) => (seed..seed + 1, true),
        None => (0..number("SIMULATION_SEEDS").unwrap_or(SEEDS), false),
    };
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Stats::default());
    let failures = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            // Each in a thread of its own, since chance is the thread's.
            let life = thread::spawn(move || simulate(seed, tell));
            match life.join() {
                Ok(Ok(stats)) => total.lock().unwrap().add(&stats),
                Ok(Err(violations)) => failures.lock().unwrap().push((seed, violations)),
                Err(_) => failures.lock().unwrap().push((seed, "panicked".into())),
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    let first: Vec<_> = failures.iter().take(5).collect();
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed; each runs again by `SIMULATION_SEED=n cargo test --lib simulation`. The \
         first: {first:#?}",
        failures.len(),
        seeds.end - seeds.start
    );
    let total = total.into_inner().unwrap();
    println!("{total:#?}");
    if seeds.end - seeds.start >= SEEDS {
        total.saw_everything();
    }
}

/// What a seed tells.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Story {
    /// A healthy server, steady demand, clocks that jump.
    Calm,
    /// Half an hour without the authorization server.
    Outage,
    /// A resource server that refuses whatever it is shown, beside good ones.
    Hostile,
    /// All that can go wrong, at once and in turns.
    Mixed,
}

struct Simulation {
    story: Story,
    end: Instant,
    server: Arc<Server>,
    servers: Arc<ResourceServers>,
    oracle: Arc<Oracle>,
    cache: Cache,
}

fn simulate(seed: u64, tell: bool) -> Result<Stats, String> {
    seeded::start(seed);
    let mut runtime = Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { Simulation::new(seed, tell).run().await })
}

impl Simulation {
    fn new(seed: u64, tell: bool) -> Self {
        let story = match seed % 8 {
            0 => Story::Calm,
            1 => Story::Outage,
            2 => Story::Hostile,
            _ => Story::Mixed,
        };
        let minutes = match story {
            Story::Outage => 40,
            _ => 30,
        };
        let oracle = Arc::new(Oracle::new(story, tell));
        let lives = match story {
            Story::Mixed => pick(&LIVES),
            Story::Outage => Lives::Usual,
            Story::Calm => pick(&[Lives::Usual, Lives::Day]),
            // Not short ones: they are renewed often anyway.
            Story::Hostile => pick(&[Lives::Usual, Lives::Day]),
        };
        let server = Arc::new(Server::new(Arc::clone(&oracle), lives));
        let clock = {
            let oracle = Arc::clone(&oracle);
            Arc::new(Clock::new(move || oracle.model().wall()))
        };
        let fetch = {
            let server = Arc::clone(&server);
            move || Arc::clone(&server).fetch()
        };
        oracle
            .model()
            .note(|| format!("seed {seed}: {story:?}, lives {lives:?}"));
        Self {
            story,
            end: Instant::now() + Duration::from_secs(minutes * 60),
            server,
            servers: Arc::new(ResourceServers::new(seconds(0.05..30.0))),
            oracle,
            cache: Cache::new(clock, DEADLINE, fetch),
        }
    }

    async fn run(self) -> Result<Stats, String> {
        let ((), (), callers) = tokio::join!(self.weather(), self.mishaps(), self.demand());
        self.servers.heal();
        self.finish(callers).await;
        self.oracle.model().verdict()
    }

    fn is_on(&self) -> bool {
        Instant::now() < self.end && self.oracle.model().is_content()
    }

    /// The moods of the authorization server.
    async fn weather(&self) {
        match self.story {
            Story::Calm | Story::Hostile => self.server.set(Mood::Healthy),
            Story::Outage => {
                sleep(seconds(60.0..300.0)).await;
                self.server.set(pick(&Mood::OUTAGES));
                self.oracle.model().outage_begins();
                sleep(Duration::from_secs(30 * 60)).await;
                self.oracle.model().outage_ends();
                self.server.set(Mood::Healthy);
            }
            Story::Mixed => {
                while self.is_on() {
                    let mood = if one_in(2) {
                        Mood::Healthy
                    } else {
                        Mood::any()
                    };
                    self.server.set(mood);
                    sleep(seconds(0.5..400.0)).await;
                }
                self.server.set(Mood::Healthy);
            }
        }
    }

    /// What happens besides.
    async fn mishaps(&self) {
        while self.is_on() {
            match self.story {
                Story::Calm => {
                    sleep(seconds(30.0..600.0)).await;
                    self.oracle.model().turn_clock(pick(&[-3600, 3600]));
                }
                Story::Outage | Story::Hostile => {
                    sleep_until(self.end).await;
                }
                Story::Mixed => {
                    sleep(seconds(0.05..100.0)).await;
                    match between(0.0..10.0) as u32 {
                        0 => self.oracle.model().turn_clock(pick(&[-3600, 3600])),
                        1 => {
                            for _ in 0..pick(&[1, 1, 10]) {
                                self.forget();
                                sleep(seconds(0.002..0.1)).await;
                            }
                        }
                        2..4 => self.abort_flight(),
                        // Whoever waits meets more than one that is lost.
                        4 => {
                            for _ in 0..10 {
                                self.abort_flight();
                                sleep(seconds(0.002..0.1)).await;
                            }
                        }
                        5 => self.servers.set_hostile(true),
                        6 => self.servers.set_hostile(false),
                        _ => self.servers.revoke(self.oracle.model().token()),
                    }
                }
            }
        }
    }

    fn abort_flight(&self) {
        if let Some(flight) = LAST_FLIGHT.take().filter(|flight| !flight.is_finished()) {
            flight.abort();
            self.oracle.model().aborted();
        }
    }

    fn forget(&self) {
        self.oracle.model().forgot();
        self.cache.forget();
    }

    /// Callers come, now in crowds, now one by one, now for a while not at all.
    async fn demand(&self) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        // Each second.
        let usual_rate = match self.story {
            Story::Calm => between(2.0..10.0),
            Story::Outage => log_between(0.5..10.0),
            Story::Hostile => log_between(0.05..20.0),
            Story::Mixed => log_between(0.1..10.0),
        };
        while self.is_on() {
            let crowd = match self.story {
                Story::Mixed if one_in(100) => 50,
                _ => 1,
            };
            for _ in 0..crowd {
                let patience = self.impatience();
                let caller = self.caller();
                callers.spawn(async move {
                    match patience {
                        // Whoever runs out of time is dropped wherever it is.
                        Some(patience) => drop(timeout(patience, caller.run()).await),
                        None => caller.run().await,
                    }
                });
            }
            // Else the servers lose their memory of a crowd that came together.
            if crowd > 1 && one_in(2) {
                self.servers.revoke(self.oracle.model().token());
            }
            let pause = match self.story {
                Story::Mixed if one_in(400) => seconds(10.0..1000.0),
                Story::Calm => Duration::from_secs_f64(1.0 / usual_rate),
                _ => Duration::from_secs_f64(between(0.0..2.0) / usual_rate),
            };
            sleep(pause).await;
            while let Some(done) = callers.try_join_next() {
                self.check(done);
            }
        }
        callers
    }

    fn caller(&self) -> Caller {
        let hostile = match self.story {
            Story::Hostile => self.servers.is_next_hostile(),
            Story::Mixed => self.servers.is_hostile() && one_in(4),
            Story::Calm | Story::Outage => false,
        };
        Caller {
            cache: self.cache.clone(),
            oracle: Arc::clone(&self.oracle),
            servers: Arc::clone(&self.servers),
            insists: self.story == Story::Mixed && one_in(60),
            hostile,
            // Some requests take so long that the token is an old one when they are answered.
            travel: match self.story {
                Story::Mixed if one_in(20) => seconds(1.0..120.0),
                _ => seconds(0.001..0.3),
            },
        }
    }

    fn impatience(&self) -> Option<Duration> {
        (self.story == Story::Mixed && one_in(2)).then(|| seconds(0.15..5.0))
    }

    fn check(&self, done: Result<(), tokio::task::JoinError>) {
        if let Err(error) = done {
            self.oracle
                .model()
                .violation("11. a caller panicked", &error);
        }
    }

    /// The server is healthy by now: all tasks end.
    async fn finish(&self, mut callers: JoinSet<()>) {
        self.oracle.model().note(|| "the end is near".into());
        let all = async {
            while let Some(done) = callers.join_next().await {
                self.check(done);
            }
        };
        if timeout(DEADLINE * 30, all).await.is_err() {
            self.oracle
                .model()
                .violation("11. callers wait for ever", &"");
        }
        // A fetch that nobody waits for has its deadline, too.
        sleep(DEADLINE + Duration::from_secs(1)).await;
        let left = Handle::current().metrics().num_alive_tasks();
        if left > 0 && self.oracle.model().is_content() {
            self.oracle.model().violation("11. tasks are left", &left);
        }
    }
}

thread_local! {
    static LAST_FLIGHT: RefCell<Option<AbortHandle>> = const { RefCell::new(None) };
}

/// The cache tells of each fetch that it starts, so that a simulation can abort it: as a runtime does that is
/// shut down.
pub(super) fn took_off(flight: &JoinHandle<()>) {
    LAST_FLIGHT.set(Some(flight.abort_handle()));
}

fn between(range: std::ops::Range<f64>) -> f64 {
    range.start + (range.end - range.start) * chance()
}

/// As many small ones as large ones.
fn log_between(range: std::ops::Range<f64>) -> f64 {
    between(range.start.ln()..range.end.ln()).exp()
}

fn seconds(range: std::ops::Range<f64>) -> Duration {
    Duration::from_secs_f64(log_between(range))
}

fn one_in(number: u32) -> bool {
    chance() * f64::from(number) < 1.0
}

fn pick<T: Copy>(from: &[T]) -> T {
    from[(chance() * from.len() as f64) as usize]
}
