//! The authorization server: what it does with a request is a matter of its mood.

use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use http::StatusCode;
use tokio::time::sleep;

use super::{between, log_between, oracle::Oracle, pick, seconds};
use crate::{
    access_token::AccessToken,
    audience::Audience,
    error::{Error, Kind, OAuthError},
    key::DpopKey,
    token::{cache::Fetching, response::Failure, state::Fetched},
};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mood {
    Healthy,
    /// Some answers come too late for anybody.
    Slow,
    /// No answer at all.
    BlackHole,
    Down,
    /// Down, and takes its time to say so.
    DownLate,
    /// An error of the permanent kind.
    Refusing,
    /// `Retry-After`, in seconds.
    Busy(u64),
    /// It is the client that panics.
    Panicking,
    /// The token that it gave before.
    SameAgain,
    /// Tokens that live shorter than they travel.
    DeadOnArrival,
}

impl Mood {
    pub(super) const OUTAGES: [Self; 7] = [
        Self::BlackHole,
        Self::Down,
        Self::DownLate,
        Self::Refusing,
        Self::Busy(40),
        Self::Panicking,
        Self::DeadOnArrival,
    ];

    pub(super) fn any() -> Self {
        pick(&[
            Self::Slow,
            Self::BlackHole,
            Self::Down,
            Self::DownLate,
            Self::Refusing,
            Self::Busy(2),
            Self::Busy(120),
            Self::Busy(86_400),
            Self::Panicking,
            Self::SameAgain,
            Self::DeadOnArrival,
        ])
    }
}

/// How long its tokens live.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lives {
    None,
    Tiny,
    Short,
    Usual,
    Day,
    Any,
}

pub(super) const LIVES: [Lives; 7] = [
    Lives::None,
    Lives::Tiny,
    Lives::Short,
    Lives::Usual,
    Lives::Usual,
    Lives::Day,
    Lives::Any,
];

impl Lives {
    fn draw(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Tiny => Duration::from_secs(between(1.0..4.0) as u64),
            Self::Short => Duration::from_secs(between(5.0..31.0) as u64),
            Self::Usual => Duration::from_secs(log_between(60.0..900.0) as u64),
            Self::Day => Duration::from_secs(86_400),
            Self::Any => {
                let lives = [Self::None, Self::Tiny, Self::Short, Self::Usual, Self::Day];
                pick(&lives).draw()
            }
        }
    }
}

pub(super) struct Server {
    oracle: Arc<Oracle>,
    lives: Lives,
    state: Mutex<State>,
}

struct State {
    mood: Mood,
    last: Option<AccessToken>,
    given: u64,
}

impl Server {
    pub(super) fn new(oracle: Arc<Oracle>, lives: Lives) -> Self {
        let state = State {
            mood: Mood::Healthy,
            last: None,
            given: 0,
        };
        Self {
            oracle,
            lives,
            state: Mutex::new(state),
        }
    }

    pub(super) fn set(&self, mood: Mood) {
        self.oracle
            .model()
            .note(|| format!("the server is {mood:?}"));
        self.state.lock().unwrap().mood = mood;
    }

    pub(super) fn fetch(self: Arc<Self>) -> Fetching {
        Box::pin(async move {
            let flight = self.oracle.takes_off();
            let mood = self.state.lock().unwrap().mood;
            match mood {
                Mood::BlackHole => std::future::pending().await,
                Mood::Slow => sleep(seconds(0.5..12.0)).await,
                Mood::DownLate => sleep(seconds(0.1..9.0)).await,
                Mood::DeadOnArrival => sleep(Duration::from_millis(1100)).await,
                Mood::Down | Mood::Busy(_) => {}
                _ => sleep(seconds(0.005..0.8)).await,
            }
            let answer = match mood {
                Mood::Down | Mood::DownLate | Mood::BlackHole => Err(failure(Kind::Transport)),
                Mood::Refusing => Err(failure(Kind::Refused(OAuthError {
                    status: Some(StatusCode::UNAUTHORIZED),
                    code: "invalid_client".into(),
                    description: None,
                }))),
                Mood::Busy(seconds) => Err(Failure {
                    retry_after: Some(Duration::from_secs(seconds)),
                    ..failure(Kind::Transport)
                }),
                Mood::Panicking => {
                    flight.lands(&Err(failure(Kind::Runtime)));
                    // As `panic!` does, without its report.
                    resume_unwind(Box::new("the client panics"))
                }
                Mood::Healthy | Mood::Slow => Ok(self.give(self.lives.draw(), false)),
                Mood::SameAgain => Ok(self.give(self.lives.draw(), true)),
                Mood::DeadOnArrival => Ok(self.give(Duration::from_secs(1), false)),
            };
            flight.lands(&answer);
            answer
        })
    }

    fn give(&self, life: Duration, same: bool) -> Fetched {
        let mut state = self.state.lock().unwrap();
        let text = match &state.last {
            Some(last) if same => last.secret().to_owned(),
            _ => {
                state.given += 1;
                format!("token-{}", state.given)
            }
        };
        let audience = Audience::danger_any_https_origin();
        let token = AccessToken::new(&text, key(), audience).unwrap();
        state.last = Some(token.clone());
        Fetched {
            token,
            life,
            asked: None,
        }
    }
}

/// One for all: nothing is signed.
fn key() -> &'static DpopKey {
    static KEY: OnceLock<DpopKey> = OnceLock::new();
    KEY.get_or_init(|| DpopKey::generate().unwrap())
}

fn failure(kind: Kind) -> Failure {
    Error::new(kind, "the server has a bad day").into()
}
