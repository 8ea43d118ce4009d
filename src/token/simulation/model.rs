//! What is promised, written without a look at how the promises are kept.

use std::{
    collections::VecDeque,
    fmt::Display,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{DEADLINE, Story};
use crate::{
    access_token::AccessToken,
    error::Error,
    token::{
        response::Failure,
        state::{Ask, Fetched},
    },
};

/// Timers count in milliseconds and round up.
const SLACK: Duration = Duration::from_millis(5);
const SECOND: Duration = Duration::from_secs(1);
const MAX_BACK_OFF: Duration = Duration::from_secs(30);
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
const MAX_HOSTILE_FETCHES: usize = 14;

/// Its times are the steady clock's.
pub(super) struct Model {
    story: Story,
    tell: bool,
    start: Instant,
    /// The wall clock's.
    offset: i64,
    fetches: Vec<Fetch>,
    /// The fetch that brought the token which is in use.
    current: Option<usize>,
    /// In a row, and when the last one was.
    failures: u32,
    last_failure: Option<(Instant, Option<Duration>)>,
    /// When a token arrived.
    last_success: Option<Instant>,
    /// Fetches that were given up.
    given_up: u32,
    insisting: Vec<Insisting>,
    /// Of the last minute.
    starts: VecDeque<Instant>,
    outage: Option<(Instant, u64)>,
    violations: Vec<String>,
    stats: Stats,
}

/// A caller that wants a token asked for after this.
struct Insisting {
    number: u64,
    since: Instant,
    left: Option<Instant>,
}

struct Fetch {
    asked: Instant,
    over: bool,
    given_up: bool,
    issued: Option<Issued>,
}

/// What a fetch brought, if it was of any use.
struct Issued {
    token: AccessToken,
    /// The times from which it is due at the earliest, and at the latest.
    due: (Instant, Instant),
    usable_until: Instant,
    end: Instant,
    wall_end: SystemTime,
    refused: bool,
    /// When another one took its place, or it was forgotten.
    gone: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) hours: f64,
    pub(super) calls: u64,
    pub(super) waits: u64,
    pub(super) errors: u64,
    pub(super) fetches: u64,
    pub(super) failures: u64,
    pub(super) aborted: u64,
    pub(super) forgotten: u64,
    pub(super) refusals: u64,
    pub(super) late_refusals: u64,
    pub(super) refused_served: u64,
    pub(super) insisted: u64,
    pub(super) most_in_outage: u64,
    pub(super) most_hostile: usize,
}

impl Stats {
    pub(super) fn add(&mut self, other: &Self) {
        self.hours += other.hours;
        self.calls += other.calls;
        self.waits += other.waits;
        self.errors += other.errors;
        self.fetches += other.fetches;
        self.failures += other.failures;
        self.aborted += other.aborted;
        self.forgotten += other.forgotten;
        self.refusals += other.refusals;
        self.late_refusals += other.late_refusals;
        self.refused_served += other.refused_served;
        self.insisted += other.insisted;
        self.most_in_outage = self.most_in_outage.max(other.most_in_outage);
        self.most_hostile = self.most_hostile.max(other.most_hostile);
    }

    /// What never happened was not tested.
    pub(super) fn saw_everything(&self) {
        let rare = [
            self.waits,
            self.errors,
            self.failures,
            self.aborted,
            self.forgotten,
            self.refusals,
            self.late_refusals,
            self.refused_served,
            self.insisted,
            self.most_in_outage,
            self.most_hostile as u64,
        ];
        assert!(rare.iter().all(|number| *number > 0), "{self:#?}");
    }
}

/// A caller that is about to ask, and what there was for it then.
pub(super) struct Caller {
    number: u64,
    ask: Ask,
    at: Instant,
    /// There is a token that nobody has refused.
    ready: bool,
    /// There is one that some server has refused: as long as this.
    makeshift: Option<Instant>,
    given_up: u32,
    aborted: u64,
    forgotten: u64,
}

/// What happens.
impl Model {
    pub(super) fn new(story: Story, tell: bool) -> Self {
        Self {
            story,
            tell,
            start: Instant::now(),
            offset: 0,
            fetches: Vec::new(),
            current: None,
            failures: 0,
            last_failure: None,
            last_success: None,
            given_up: 0,
            insisting: Vec::new(),
            starts: VecDeque::new(),
            outage: None,
            violations: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// The wall clock is set back or forward by an hour; the latter is what a suspended machine sees, too.
    pub(super) fn turn_clock(&mut self, by: i64) {
        self.offset += by;
        self.note(|| format!("the wall clock jumps by {by} s"));
    }

    pub(super) fn outage_begins(&mut self) {
        self.outage = Some((Instant::now(), 0));
    }

    pub(super) fn outage_ends(&mut self) {
        if let Some((start, fetches)) = self.outage.take() {
            self.stats.most_in_outage = fetches;
            let most = most_fetches(Instant::now() - start);
            if fetches > most {
                self.violation(
                    "5. too many fetches in an outage",
                    &format!("{fetches} > {most}"),
                );
            }
        }
    }

    /// The simulation aborts the last fetch, which may not even have been heard of yet.
    pub(super) fn aborted(&mut self) {
        self.give_up();
        self.given_up += 1;
        self.stats.aborted += 1;
        self.note(|| "the fetch is aborted".into());
    }

    /// The token is forgotten, and the fetch under way given up.
    pub(super) fn forgot(&mut self) {
        self.give_up();
        self.given_up += 1;
        self.replace(None);
        self.stats.forgotten += 1;
        self.note(|| "the token is forgotten".into());
    }

    /// A caller is about to ask for a token.
    pub(super) fn asks(&mut self, ask: &Ask) -> Caller {
        let now = Instant::now();
        self.stats.calls += 1;
        let number = self.stats.calls;
        if let Some(since) = ask.since {
            self.stats.insisted += 1;
            self.insisting.push(Insisting {
                number,
                since,
                left: None,
            });
        }
        let suits = self.suits(ask, now);
        let suitable = self.current().filter(|_| suits).map(|(_, issued)| issued);
        let refused = suitable.filter(|issued| issued.refused);
        Caller {
            number,
            ask: ask.clone(),
            at: now,
            ready: suitable.is_some_and(|issued| !issued.refused),
            makeshift: refused.map(|issued| issued.usable_until),
            given_up: self.given_up,
            aborted: self.stats.aborted,
            forgotten: self.stats.forgotten,
        }
    }

    pub(super) fn got_at_once(&mut self, caller: &Caller, token: Option<&AccessToken>, busy: bool) {
        let plain = caller.ask.but.is_none() && caller.ask.since.is_none();
        if !plain || !caller.ready {
            return;
        }
        if token.is_none() {
            self.violation("10. a caller has to wait though there is a token", &"");
        }
        if self.must_be_renewed() && !busy {
            self.violation("10. nobody renews a token that is due", &"");
        }
    }

    /// It got what it wanted, or lost its patience.
    pub(super) fn leaves(&mut self, caller: &Caller) {
        let now = Instant::now();
        // Its last act may have been to start a fetch, which is heard of in this same instant.
        self.insisting
            .retain(|other| other.left.is_none_or(|left| left == now));
        let own = self
            .insisting
            .iter_mut()
            .find(|other| other.number == caller.number);
        if let Some(own) = own {
            own.left = Some(now);
        }
    }

    pub(super) fn note(&self, text: impl FnOnce() -> String) {
        if self.tell {
            let at = (Instant::now() - self.start).as_secs_f64();
            println!("{at:10.3} {}", text());
        }
    }

    pub(super) fn violation(&mut self, promise: &str, what: &dyn Display) {
        self.note(|| format!("VIOLATION {promise} {what}"));
        // The first ones tell; the rest follows from them.
        if self.violations.len() < 2 {
            let at = (Instant::now() - self.start).as_secs_f64();
            let story = self.story;
            self.violations
                .push(format!("{story:?}, at {at:.3} s: {promise} {what}"));
        }
    }

    pub(super) fn wall(&self) -> SystemTime {
        let steady = Duration::from_secs(1_700_000_000) + (Instant::now() - self.start);
        let wall = SystemTime::UNIX_EPOCH + steady;
        let by = Duration::from_secs(self.offset.unsigned_abs());
        if self.offset < 0 {
            wall - by
        } else {
            wall + by
        }
    }

    pub(super) fn is_content(&self) -> bool {
        self.violations.is_empty()
    }

    pub(super) fn verdict(&mut self) -> Result<Stats, String> {
        if !self.is_content() {
            return Err(self.violations.join("; "));
        }
        self.stats.hours = (Instant::now() - self.start).as_secs_f64() / 3600.0;
        Ok(std::mem::take(&mut self.stats))
    }

    pub(super) fn token(&self) -> Option<AccessToken> {
        Some(self.current()?.1.token.clone())
    }

    fn current(&self) -> Option<(&Fetch, &Issued)> {
        let fetch = &self.fetches[self.current?];
        Some((fetch, fetch.issued.as_ref()?))
    }

    /// Whether there is a token for such a caller.
    fn suits(&self, ask: &Ask, now: Instant) -> bool {
        self.current().is_some_and(|(fetch, issued)| {
            now < issued.usable_until
                && !ask.but.as_ref().is_some_and(|but| but.is(&issued.token))
                && ask.since.is_none_or(|since| since <= fetch.asked)
        })
    }

    /// Not only may be: that point has passed, and nothing holds the fetch off.
    fn must_be_renewed(&self) -> bool {
        let now = Instant::now();
        self.current().is_some_and(|(_, issued)| {
            (issued.due.1 <= now || issued.wall_end <= self.wall())
                && self.failures == 0
                && self.last_success.is_none_or(|last| last + SECOND <= now)
        })
    }

    fn replace(&mut self, by: Option<usize>) {
        let now = Instant::now();
        if let Some(old) = std::mem::replace(&mut self.current, by)
            && let Some(issued) = &mut self.fetches[old].issued
        {
            issued.gone = Some(now);
        }
    }

    /// The last fetch, if it is under way.
    fn give_up(&mut self) {
        if let Some(last) = self.fetches.last_mut() {
            last.given_up |= !last.over;
        }
    }

    pub(super) fn takes_off(&mut self) -> usize {
        let now = Instant::now();
        let id = self.fetches.len();
        if self
            .fetches
            .iter()
            .any(|other| !other.over && !other.given_up)
        {
            self.violation("1. two fetches at a time", &"");
        }
        if let Some((last, retry_after)) = self.last_failure.filter(|_| self.failures > 0) {
            let pause = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
            let pause = pause.max(smallest_back_off(self.failures));
            if now < last + pause {
                self.violation(
                    "5. a fetch too soon after a failure",
                    &format!("{:?}", now - last),
                );
            }
        }
        match self.reason(now) {
            None => self.violation("6. a fetch without a reason", &""),
            Some(reason) => self.note(|| format!("fetch {id}: {reason}")),
        }
        self.starts.retain(|start| now - *start < 60 * SECOND);
        self.starts.push_back(now);
        if self.story == Story::Hostile {
            let fetches = self.starts.len();
            self.stats.most_hostile = self.stats.most_hostile.max(fetches);
            if fetches > MAX_HOSTILE_FETCHES {
                self.violation("7. too many fetches for a hostile server", &fetches);
            }
        }
        if let Some((_, fetches)) = &mut self.outage {
            *fetches += 1;
        }
        self.stats.fetches += 1;
        self.fetches.push(Fetch {
            asked: now,
            over: false,
            given_up: false,
            issued: None,
        });
        id
    }

    fn reason(&self, now: Instant) -> Option<&'static str> {
        let usable = self
            .current()
            .filter(|(_, issued)| now < issued.usable_until);
        let Some((fetch, issued)) = usable else {
            return Some("there is no token");
        };
        if issued.refused {
            return Some("the token was refused");
        }
        let insisted = self
            .insisting
            .iter()
            .any(|caller| fetch.asked < caller.since && caller.left.is_none_or(|left| left == now));
        if insisted {
            return Some("a caller insists");
        }
        let rested = self.last_success.is_none_or(|last| last + SECOND <= now);
        let due = issued.due.0 <= now || issued.wall_end <= self.wall();
        (due && rested).then_some("the token is due")
    }

    pub(super) fn lands(&mut self, id: usize, answer: &Result<Fetched, Failure>) {
        let now = Instant::now();
        let fetch = &mut self.fetches[id];
        fetch.over = true;
        if fetch.given_up {
            return;
        }
        let asked = fetch.asked;
        let fetched = match answer {
            Ok(fetched) => fetched,
            Err(failure) => return self.fails(failure.retry_after),
        };
        let life = fetched.life;
        let (due, usable_until, end) = if life.is_zero() {
            ((now + SECOND, now + SECOND), now + SECOND, now + SECOND)
        } else {
            let due = (asked + life.mul_f64(0.65), asked + life.mul_f64(0.85));
            let margin = (life / 10).min(10 * SECOND);
            (due, asked + life - margin, asked + life)
        };
        let same = self.current().map(|(_, issued)| issued);
        let same = same.filter(|issued| issued.token.secret() == fetched.token.secret());
        let refused_before = same.is_some_and(|issued| issued.refused);
        // One that is given once more stays the very same.
        let token = same.map_or(&fetched.token, |issued| &issued.token).clone();
        if usable_until <= now || refused_before {
            return self.fails(None);
        }
        self.note(|| {
            format!(
                "fetch {id} brings {}, life {life:?}",
                fetched.token.secret()
            )
        });
        self.fetches[id].issued = Some(Issued {
            token,
            due,
            usable_until,
            end,
            wall_end: self.wall() + (usable_until - now),
            refused: false,
            gone: None,
        });
        self.replace(Some(id));
        self.failures = 0;
        self.last_success = Some(now);
    }

    fn fails(&mut self, retry_after: Option<Duration>) {
        self.failures += 1;
        self.stats.failures += 1;
        self.last_failure = Some((Instant::now(), retry_after));
        self.note(|| format!("failure {}, {retry_after:?}", self.failures));
    }

    pub(super) fn dropped(&mut self, id: usize) {
        let fetch = &mut self.fetches[id];
        let was_over = std::mem::replace(&mut fetch.over, true);
        if was_over || fetch.given_up {
            return;
        }
        if fetch.asked + DEADLINE <= Instant::now() {
            self.fails(None);
        } else {
            self.violation("1. a fetch was dropped", &"");
        }
    }

    pub(super) fn refused(&mut self, token: &AccessToken) {
        self.stats.refusals += 1;
        let current = self.current.and_then(|id| self.fetches[id].issued.as_mut());
        match current {
            Some(issued) if issued.token.is(token) => {
                issued.refused = true;
                self.note(|| format!("{} is refused", token.secret()));
            }
            _ => {
                self.stats.late_refusals += 1;
                self.note(|| format!("{} is refused, too late", token.secret()));
            }
        }
    }

    pub(super) fn got(&mut self, caller: &Caller, got: &Result<AccessToken, Error>) {
        let now = Instant::now();
        let waited = now - caller.at;
        let given_up = self.given_up - caller.given_up;
        self.waited(caller, waited, given_up);
        match got {
            Ok(token) => self.served(caller, token, now),
            Err(error) => {
                self.stats.errors += 1;
                self.note(|| format!("a caller gets: {error}"));
                if self.suits(&caller.ask, now) {
                    self.violation("4. an error though there is a token", error);
                }
                let excused = self.last_failure.is_some_and(|(last, retry_after)| {
                    let pause = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
                    let pause = pause.mul_f64(1.1).clamp(MAX_BACK_OFF, MAX_RETRY_AFTER);
                    self.failures > 0 && now <= last + pause + SLACK
                });
                // Whoever refuses the only token there is may have to do without.
                let choosy = caller.ask.but.is_some();
                // It tries thrice. The first may have been doomed already when the caller joined it.
                let unlucky = self.stats.aborted - caller.aborted >= 2;
                if !excused && !choosy && !unlucky {
                    self.violation("9. an error long after the last failure", error);
                }
            }
        }
    }

    fn waited(&mut self, caller: &Caller, waited: Duration, given_up: u32) {
        if waited > Duration::ZERO {
            self.stats.waits += 1;
        }
        if waited > DEADLINE * (2 + given_up) + SLACK {
            self.violation("2. a caller waited for", &format!("{waited:?}"));
        }
        if caller.ready && waited > Duration::ZERO {
            self.violation(
                "10. a caller waited though there was a token",
                &format!("{waited:?}"),
            );
        }
        let enough = SECOND * (1 + given_up) + SLACK;
        let has_makeshift = caller.forgotten == self.stats.forgotten
            && caller
                .makeshift
                .is_some_and(|until| caller.at + enough < until);
        if has_makeshift && waited > enough {
            let waited = format!("{waited:?}");
            self.violation("2. a caller that had a refused token waited", &waited);
        }
        let first = self.stats.calls < 100;
        if self.story == Story::Calm && !first && waited > Duration::ZERO {
            self.violation(
                "10. a caller waited in calm weather",
                &format!("{waited:?}"),
            );
        }
    }

    fn served(&mut self, caller: &Caller, token: &AccessToken, now: Instant) {
        let text = token.secret();
        let found = self.fetches.iter().rev().find_map(|fetch| {
            let issued = fetch.issued.as_ref()?;
            issued.token.is(token).then_some((fetch, issued))
        });
        let Some((fetch, issued)) = found else {
            return self.violation("1. a token that should be used by nobody:", &text);
        };
        let stale = now >= issued.end;
        let gone = issued.gone.is_some_and(|gone| gone < caller.at);
        let unwanted = caller.ask.but.as_ref().is_some_and(|but| but.is(token))
            || caller.ask.since.is_some_and(|since| fetch.asked < since);
        let over = now - issued.end.min(now);
        if issued.refused {
            self.stats.refused_served += 1;
        }
        if stale {
            self.violation(
                "3. served a token past its end",
                &format!("{text}, {over:?}"),
            );
        }
        if gone {
            self.violation("1. served a token that is no more:", &text);
        }
        if unwanted {
            self.violation("4. served a token that the caller does not want:", &text);
        }
    }
}

/// Half of it is left to chance.
fn smallest_back_off(failures: u32) -> Duration {
    let full = Duration::from_millis(250) * 2_u32.pow(failures.min(10) - 1);
    full.min(MAX_BACK_OFF) / 2
}

/// As many as fit into an outage, if each back-off is the smallest that it can be.
fn most_fetches(outage: Duration) -> u64 {
    let mut fetches = 1;
    let mut time = Duration::ZERO;
    for failures in 1.. {
        time += smallest_back_off(failures);
        if time > outage {
            break;
        }
        fetches += 1;
    }
    fetches
}
