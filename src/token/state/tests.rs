//! The table in the documentation of this module, as data: what happened, when which caller comes, and what it
//! is to do. `fetch` says that the authorization server is contacted.

use super::*;
use crate::{audience::Audience, key::DpopKey};

/// What happens to a token, each at a time in seconds.
#[derive(Clone, Copy)]
enum Did {
    /// A fetch starts.
    Asks,
    /// It brings a token that lives so many seconds; by this chance.
    Brings(f64, f64),
    /// It brings a token with the text of that one.
    BringsAgain(usize),
    Fails,
    /// With `Retry-After`.
    FailsBusy(u64),
    /// It takes its time.
    Slow,
    /// Its task was dropped.
    Lost,
    /// A server refuses the token with this number, counted from 1.
    Refuses(usize),
    Forgets,
    /// The wall clock jumps by so many seconds.
    Jumps(i64),
}

use Did::*;

/// Who asks.
#[derive(Clone, Copy)]
enum Who {
    Anyone,
    /// Not for this one.
    But(usize),
    /// For one that was asked for after this.
    Since(f64),
}

use Who::*;

/// What it is about, what happened, what happened besides, when who asks, and what is to be done.
type Case = (
    &'static str,
    &'static [(f64, Did)],
    &'static [(f64, Did)],
    f64,
    Who,
    &'static str,
);

struct Life {
    start: Instant,
    state: State<()>,
    key: DpopKey,
    tokens: Vec<AccessToken>,
    asked: Vec<Now>,
    jumped: i64,
    /// How long until the next fetch, of the last failure.
    wait: Option<Duration>,
}

impl Life {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            state: State::default(),
            key: DpopKey::generate().unwrap(),
            tokens: Vec::new(),
            asked: Vec::new(),
            jumped: 0,
            wait: None,
        }
    }

    fn of(acts: &[(f64, Did)]) -> Self {
        let mut life = Self::new();
        for (at, did) in acts {
            life.act(*at, *did);
        }
        life
    }

    fn at(&self, seconds: f64) -> Now {
        let since = Duration::from_secs_f64(seconds);
        let jumped = Duration::from_secs(self.jumped.unsigned_abs());
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + since;
        Now {
            steady: self.start + since,
            wall: if self.jumped < 0 {
                wall - jumped
            } else {
                wall + jumped
            },
        }
    }

    fn token(&self, text: &str) -> AccessToken {
        AccessToken::new(text, &self.key, Audience::danger_any_https_origin()).unwrap()
    }

    fn act(&mut self, at: f64, did: Did) {
        let now = self.at(at);
        let id = self.asked.len() as u64;
        match did {
            Asks => {
                self.asked.push(now);
                self.state.take_off(());
            }
            Brings(life, chance) => {
                let token = self.token(&format!("token-{id}"));
                self.lands(now, Ok(fetched(token, life)), chance);
            }
            BringsAgain(number) => {
                let text = self.tokens[number - 1].secret().to_owned();
                let token = self.token(&text);
                self.lands(now, Ok(fetched(token, 100.0)), 0.0);
            }
            Fails => self.lands(now, Err(failure(None)), 0.0),
            FailsBusy(seconds) => self.lands(now, Err(failure(Some(seconds))), 0.0),
            Slow => drop(self.state.slow(id)),
            Lost => drop(self.state.lost(id)),
            Refuses(number) => {
                let token = self.tokens[number - 1].clone();
                self.state.refuse(&token, now, 0.0);
            }
            Forgets => drop(self.state.forget()),
            Jumps(seconds) => self.jumped += seconds,
        }
    }

    fn lands(&mut self, now: Now, outcome: Result<Fetched, Failure>, chance: f64) {
        let asked = *self.asked.last().unwrap();
        let id = self.asked.len() as u64;
        let landed = self.state.land(id, outcome, asked, now, chance);
        match landed {
            Some(((), Ok(token))) => self.tokens.push(token),
            Some(((), Err((_, wait)))) => self.wait = Some(wait),
            None => {}
        }
    }

    fn plan(&self, at: f64, who: Who) -> String {
        let mut ask = Ask::default();
        match who {
            Anyone => {}
            But(number) => ask.but = Some(self.tokens[number - 1].clone()),
            Since(since) => ask.since = Some(self.at(since).steady),
        }
        let number = |token: &AccessToken| {
            let number = self.tokens.iter().position(|other| other.is(token));
            number.unwrap() + 1
        };
        match self.state.plan(&ask, self.at(at)) {
            Step::Serve(token) => format!("serve {}", number(&token)),
            Step::ServeAndFetch(token) => format!("serve {}, fetch", number(&token)),
            Step::Wait { fetch, instead } => {
                let fetch = if fetch { "fetch, wait" } else { "wait" };
                match instead {
                    Some(token) => format!("{fetch}, else {}", number(&token)),
                    None => fetch.to_owned(),
                }
            }
            Step::Fail(error) => format!("fail: {error}"),
        }
    }
}

fn fetched(token: AccessToken, life: f64) -> Fetched {
    let life = Duration::from_secs_f64(life);
    Fetched {
        token,
        life,
        asked: None,
    }
}

fn failure(retry_after: Option<u64>) -> Failure {
    Failure {
        error: Error::new(Kind::Transport, "down"),
        retry_after: retry_after.map(Duration::from_secs),
    }
}

#[track_caller]
fn check(cases: &[Case]) {
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|(name, before, then, at, who, expected)| {
            let found = Life::of(&[*before, *then].concat()).plan(*at, *who);
            (found != *expected).then(|| format!("{name}, at {at} s: {found}, not {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const TOO_SOON: &str =
    "fail: the access token was refused again so soon that no other is asked for yet";
const OVER: &str = "fail: the access token's life of 10 s was over when it arrived: the authorization \
                    server is too slow for tokens that short";
const SAME: &str = "fail: the authorization server gave the same access token again that a resource \
                    server had refused as invalid";

/// Lives 100 s, is usable for 90 s, and due after 65 s.
const ONE: [(f64, Did); 2] = [(0.0, Asks), (0.5, Brings(100.0, 0.0))];
const REFUSED: [(f64, Did); 3] = [ONE[0], ONE[1], (20.0, Refuses(1))];
/// The renewal of a refused token failed: the gate is closed for 0.125 s.
const IN_TROUBLE: [(f64, Did); 5] = [
    ONE[0],
    ONE[1],
    (20.0, Refuses(1)),
    (20.0, Asks),
    (20.1, Fails),
];
/// The second token that was refused at once: the gate is closed for 0.125 s after it came.
const ROW: [(f64, Did); 6] = [
    ONE[0],
    ONE[1],
    (20.0, Refuses(1)),
    (20.0, Asks),
    (20.1, Brings(100.0, 0.0)),
    (20.15, Refuses(2)),
];

#[test]
#[rustfmt::skip]
fn a_token_is_served_until_it_is_due_and_while_it_is_renewed() {
    check(&[
        ("fresh", &ONE, &[], 0.5, Anyone, "serve 1"),
        ("not due", &ONE, &[], 64.9, Anyone, "serve 1"),
        ("due", &ONE, &[], 65.1, Anyone, "serve 1, fetch"),
        ("late in life", &ONE, &[], 89.9, Anyone, "serve 1, fetch"),
        ("margin", &ONE, &[], 90.1, Anyone, "fetch, wait"),
        ("by chance due later", &[], &[(0.0, Asks), (0.5, Brings(100.0, 1.0))], 84.9, Anyone, "serve 1"),
        ("but not later", &[], &[(0.0, Asks), (0.5, Brings(100.0, 1.0))], 85.1, Anyone, "serve 1, fetch"),
        ("due, a fetch under way", &ONE, &[(70.0, Asks)], 70.1, Anyone, "serve 1"),
        ("due, that fetch slow", &ONE, &[(70.0, Asks), (71.0, Slow)], 72.0, Anyone, "serve 1"),
        ("due, that fetch lost", &ONE, &[(70.0, Asks), (71.0, Lost)], 71.0, Anyone, "serve 1, fetch"),
        ("due, the fetch failed", &ONE, &[(70.0, Asks), (71.0, Fails)], 71.1, Anyone, "serve 1"),
        ("and after the back-off", &ONE, &[(70.0, Asks), (71.0, Fails)], 71.2, Anyone, "serve 1, fetch"),
        ("renewed", &ONE, &[(70.0, Asks), (71.0, Brings(100.0, 0.0))], 71.0, Anyone, "serve 2"),
    ]);
}

#[test]
#[rustfmt::skip]
fn the_wall_clock_may_end_a_token_but_not_prolong_it() {
    check(&[
        ("forward, past the end", &ONE, &[(5.0, Jumps(3600))], 10.0, Anyone, "serve 1, fetch"),
        ("forward, not past the end", &ONE, &[(5.0, Jumps(60))], 10.0, Anyone, "serve 1"),
        ("back", &ONE, &[(5.0, Jumps(-3600))], 64.9, Anyone, "serve 1"),
        ("back, past the end", &ONE, &[(5.0, Jumps(-3600))], 90.1, Anyone, "fetch, wait"),
        ("in the moment after a success", &ONE, &[(0.6, Jumps(3600))], 1.4, Anyone, "serve 1"),
    ]);
}

#[test]
#[rustfmt::skip]
fn lives_of_any_length() {
    const SHORT: [(f64, Did); 2] = [(0.0, Asks), (0.1, Brings(20.0, 0.0))];
    const NONE: [(f64, Did); 2] = [(0.0, Asks), (4.0, Brings(0.0, 0.0))];
    const DAY: [(f64, Did); 2] = [(0.0, Asks), (0.1, Brings(86_400.0, 0.0))];
    const DEAD: [(f64, Did); 2] = [(0.0, Asks), (9.1, Brings(10.0, 0.0))];
    const OLD: [(f64, Did); 2] = [(0.0, Asks), (8.0, Brings(10.0, 0.0))];
    check(&[
        ("20 s: a margin of 10 %", &SHORT, &[], 17.9, Anyone, "serve 1, fetch"),
        ("20 s: over", &SHORT, &[], 18.1, Anyone, "fetch, wait"),
        ("none: 1 s from its arrival", &NONE, &[], 4.9, Anyone, "serve 1"),
        ("none: over", &NONE, &[], 5.1, Anyone, "fetch, wait"),
        ("a day: not due", &DAY, &[], 56_159.0, Anyone, "serve 1"),
        ("a day: due", &DAY, &[], 56_161.0, Anyone, "serve 1, fetch"),
        ("a day: a margin of 10 s", &DAY, &[], 86_389.0, Anyone, "serve 1, fetch"),
        ("a day: over", &DAY, &[], 86_391.0, Anyone, "fetch, wait"),
        ("counts from before it was made", &OLD, &[], 8.9, Anyone, "serve 1"),
        ("and ends then", &OLD, &[], 9.1, Anyone, "fetch, wait"),
        ("dead on arrival", &DEAD, &[], 9.2, Anyone, OVER),
        ("dead on arrival: later", &DEAD, &[], 9.3, Anyone, "fetch, wait"),
    ]);
}

#[test]
#[rustfmt::skip]
fn between_two_successes_a_second_passes() {
    const LATE: [(f64, Did); 2] = [(0.0, Asks), (30.0, Brings(40.0, 0.0))];
    const LATER: [(f64, Did); 2] = [(0.0, Asks), (35.5, Brings(40.0, 0.0))];
    check(&[
        ("due on arrival", &LATE, &[], 30.9, Anyone, "serve 1"),
        ("a second later", &LATE, &[], 31.1, Anyone, "serve 1, fetch"),
        ("or when it is over", &LATER, &[], 36.1, Anyone, "fetch, wait"),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_refused_token_serves_where_no_better_one_comes_soon() {
    check(&[
        ("healthy", &REFUSED, &[], 20.0, Anyone, "fetch, wait, else 1"),
        ("under way", &REFUSED, &[(20.0, Asks)], 20.1, Anyone, "wait, else 1"),
        ("under way since before", &ONE, &[(19.9, Asks), REFUSED[2]], 20.1, Anyone, "wait, else 1"),
        ("slow", &REFUSED, &[(20.0, Asks), (21.0, Slow)], 21.0, Anyone, "serve 1"),
        ("lost", &REFUSED, &[(20.0, Asks), (20.1, Lost)], 20.1, Anyone, "fetch, wait, else 1"),
        ("failed", &IN_TROUBLE, &[], 20.2, Anyone, "serve 1"),
        ("after the back-off", &IN_TROUBLE, &[], 20.3, Anyone, "serve 1, fetch"),
        ("failed, under way again", &IN_TROUBLE, &[(20.3, Asks)], 20.4, Anyone, "serve 1"),
        ("over, in trouble", &IN_TROUBLE, &[], 90.1, Anyone, "fetch, wait"),
        ("over", &REFUSED, &[], 90.1, Anyone, "fetch, wait"),
        ("renewed", &REFUSED, &[(20.0, Asks), (20.1, Brings(100.0, 0.0))], 20.1, Anyone, "serve 2"),
        ("a late refusal", &REFUSED, &[(20.0, Asks), (20.1, Brings(100.0, 0.0)), (20.2, Refuses(1))],
            20.2, Anyone, "serve 2"),
        ("refused while the server is in trouble", &ONE, &[(70.0, Asks), (71.0, FailsBusy(9)), (72.0, Refuses(1))],
            73.0, Anyone, "serve 1"),
    ]);
}

#[test]
#[rustfmt::skip]
fn refused_tokens_in_a_row_are_renewed_more_and_more_rarely() {
    check(&[
        ("second, gate closed", &ROW, &[], 20.2, Anyone, "serve 2"),
        ("second, gate open", &ROW, &[], 20.3, Anyone, "fetch, wait, else 2"),
        ("third after 11 s: a row of its own", &ROW, &[(21.0, Asks), (21.1, Brings(100.0, 0.0)),
            (32.2, Refuses(3)), (32.2, Asks), (32.3, Brings(100.0, 0.0)), (32.3, Refuses(4))],
            32.44, Anyone, "fetch, wait, else 4"),
        ("third after 9 s: the same row", &ROW, &[(21.0, Asks), (21.1, Brings(100.0, 0.0)),
            (30.0, Refuses(3)), (30.0, Asks), (30.1, Brings(100.0, 0.0)), (30.1, Refuses(4))],
            30.55, Anyone, "serve 4"),
        ("third, but one before it lived its life", &ROW,
            &[(21.0, Asks), (21.1, Brings(100.0, 0.0)), (90.0, Asks), (90.1, Brings(100.0, 0.0)), (90.2, Refuses(4))],
            90.2, Anyone, "fetch, wait, else 4"),
        ("no longer than the token lasts", &REFUSED, &[ROW[3], (20.1, Brings(0.2, 0.0)), (20.12, Refuses(2))],
            20.2, Anyone, "fetch, wait"),
    ]);
    // Each is refused at once, and the next asked for as soon as it may be.
    let mut life = Life::new();
    let mut waits = Vec::new();
    let mut at = 0.0;
    for number in 1..=10 {
        life.act(at, Asks);
        life.act(at, Brings(1000.0, 0.0));
        life.act(at, Refuses(number));
        let gate = life.state.gate.unwrap_or(life.at(at).steady);
        let wait = gate - life.at(at).steady;
        waits.push(wait.as_secs_f64());
        at += wait.as_secs_f64();
    }
    assert_eq!(
        waits,
        [0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    );
}

#[test]
#[rustfmt::skip]
fn whoever_refuses_a_token_does_not_get_it() {
    check(&[
        ("healthy", &REFUSED, &[], 20.0, But(1), "fetch, wait"),
        ("under way", &REFUSED, &[(20.0, Asks)], 20.1, But(1), "wait"),
        ("slow", &REFUSED, &[(20.0, Asks), (21.0, Slow)], 21.0, But(1), "wait"),
        ("failed", &IN_TROUBLE, &[], 20.2, But(1), "fail: down"),
        ("after the back-off", &IN_TROUBLE, &[], 20.3, But(1), "fetch, wait"),
        ("renewed since", &ROW[..5], &[], 20.1, But(1), "serve 2"),
        ("refused in a row", &ROW, &[], 20.2, But(2), TOO_SOON),
        ("after the interval", &ROW, &[], 20.3, But(2), "fetch, wait"),
        ("refused by others only", &ROW, &[], 20.2, But(1), "serve 2"),
    ]);
}

#[test]
#[rustfmt::skip]
fn without_a_token_one_fetches_and_all_wait() {
    const BUSY: [(f64, Did); 2] = [(0.0, Asks), (0.0, FailsBusy(7))];
    check(&[
        ("at first", &[], &[], 0.0, Anyone, "fetch, wait"),
        ("under way", &[], &[(0.0, Asks)], 1.0, Anyone, "wait"),
        ("slow", &[], &[(0.0, Asks), (1.0, Slow)], 2.0, Anyone, "wait"),
        ("lost", &[], &[(0.0, Asks), (1.0, Lost)], 1.0, Anyone, "fetch, wait"),
        ("failed", &[], &[(0.0, Asks), (1.0, Fails)], 1.1, Anyone, "fail: down"),
        ("after the back-off", &[], &[(0.0, Asks), (1.0, Fails)], 1.2, Anyone, "fetch, wait"),
        ("busy", &BUSY, &[], 6.9, Anyone, "fail: down"),
        ("busy no more", &BUSY, &[], 7.1, Anyone, "fetch, wait"),
        ("failed, under way again", &[], &[(0.0, Asks), (1.0, Fails), (1.2, Asks)], 1.3, Anyone, "wait"),
        ("success ends the back-off", &[], &[(0.0, Asks), (1.0, Fails), (2.0, Asks), (2.1, Brings(0.0, 0.0))],
            3.2, Anyone, "fetch, wait"),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_forced_renewal_waits_for_no_interval_but_for_a_server_in_trouble() {
    const DUE_ON_ARRIVAL: [(f64, Did); 2] = [(0.0, Asks), (30.0, Brings(40.0, 0.0))];
    check(&[
        ("fresh, but older", &ONE, &[], 10.0, Since(10.0), "fetch, wait"),
        ("asked for then", &ONE, &[], 10.0, Since(0.0), "serve 1"),
        ("within the interval", &ONE, &[], 0.6, Since(0.6), "fetch, wait"),
        ("under way since before", &ONE, &[(9.0, Asks)], 10.0, Since(10.0), "wait"),
        ("failed", &ONE, &[(9.0, Asks), (10.0, Fails)], 10.1, Since(10.1), "fail: down"),
        ("after the back-off", &ONE, &[(9.0, Asks), (10.0, Fails)], 10.2, Since(10.2), "fetch, wait"),
        ("refused in a row", &ROW, &[], 20.2, Since(20.2), "fetch, wait"),
        ("satisfied by one that is due", &DUE_ON_ARRIVAL, &[], 30.5, Since(0.0), "serve 1"),
    ]);
}

#[test]
#[rustfmt::skip]
fn forgetting_leaves_nothing_but_the_servers_trouble() {
    check(&[
        ("fresh", &ONE, &[(0.6, Forgets)], 0.6, Anyone, "fetch, wait"),
        ("under way", &[], &[(0.0, Asks), (1.0, Forgets)], 1.0, Anyone, "fetch, wait"),
        ("its answer comes all the same", &[], &[(0.0, Asks), (1.0, Forgets), (1.1, Brings(100.0, 0.0))],
            1.1, Anyone, "fetch, wait"),
        ("its failure, too", &[], &[(0.0, Asks), (1.0, Forgets), (1.1, Fails)], 1.1, Anyone, "fetch, wait"),
        ("in trouble", &[], &[(0.0, Asks), (1.0, FailsBusy(9)), (2.0, Forgets)], 3.0, Anyone, "fail: down"),
        ("a row of refusals", &ROW, &[(20.2, Forgets)], 20.2, Anyone, "fetch, wait"),
    ]);
}

#[test]
#[rustfmt::skip]
fn a_refused_text_given_again_is_a_failure() {
    const AGAIN: [(f64, Did); 5] = [
        ONE[0],
        ONE[1],
        (20.0, Refuses(1)),
        (20.0, Asks),
        (20.1, BringsAgain(1)),
    ];
    check(&[
        ("others go on", &AGAIN, &[], 20.2, Anyone, "serve 1"),
        ("after the back-off", &AGAIN, &[], 20.3, Anyone, "serve 1, fetch"),
        ("who refused it hears why", &AGAIN, &[], 20.2, But(1), SAME),
        ("one that nobody refused goes on, with its new times", &ONE, &[(70.0, Asks), (70.1, BringsAgain(1))],
            130.0, Anyone, "serve 1"),
        ("and can be refused by whoever had it before", &ONE,
            &[(70.0, Asks), (70.1, BringsAgain(1)), (70.2, Refuses(1))], 70.3, But(1), "fetch, wait"),
    ]);
}

#[test]
fn failures_hold_off_longer_and_longer_and_chance_spreads_them() {
    for (chance, expected) in [
        (0.0, [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]),
        (1.0, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]),
    ] {
        let waits = (1..=9).map(|failures| wait_after(failures, None, chance).as_secs_f64());
        assert_eq!(waits.collect::<Vec<_>>(), expected);
    }
    assert_eq!(wait_after(u32::MAX, None, 1.0), MAX_BACK_OFF);
}

#[test]
fn retry_after_is_kept_within_reason() {
    for (failures, asked, chance, expected) in [
        (1, 7, 0.0, 7.0),
        (1, 7, 1.0, 7.7),
        (1, 290, 1.0, 300.0),
        (1, 86_400, 0.0, 300.0),
        (1, u64::MAX, 1.0, 300.0),
        // Shorter than the back-off.
        (1, 0, 0.0, 0.125),
        (8, 7, 0.0, 15.0),
    ] {
        let wait = wait_after(failures, Some(Duration::from_secs(asked)), chance);
        assert_eq!(
            wait.as_secs_f64(),
            expected,
            "{failures}, {asked}, {chance}"
        );
    }
    // What the event tells is when the gate opens.
    let life = Life::of(&[(0.0, Asks), (1.0, FailsBusy(7))]);
    assert_eq!(life.wait, Some(Duration::from_secs(7)));
    assert_eq!(life.state.gate, Some(life.at(8.0).steady));
}

#[test]
fn a_refusal_counts_once() {
    let mut life = Life::of(&ONE);
    let token = life.tokens[0].clone();
    let now = life.at(1.0);
    assert!(life.state.refuse(&token, now, 0.0));
    assert!(!life.state.refuse(&token, now, 0.0));
    // A token with the same text is another one.
    let twin = life.token(token.secret());
    let mut life = Life::of(&ONE);
    assert!(!life.state.refuse(&twin, now, 0.0));
}
