//! A grant in use: what the next token request is made with, and what may be done with it (RFC 6749, section 6;
//! RFC 9700, section 4.14).

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    grant::{Grant, Uses},
    keeper::Keeper,
    response,
    state::MAX_RETRY_AFTER,
};
use crate::{
    error::{BoxError, Error, Kind},
    oauth::{ask::Fate, form::Form},
};

/// By which a server that is asked too often wants to be asked more seldom (RFC 8628, section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// Between two polls, however often the last ones failed.
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// Whoever uses it holds it alone: two at a time would look like theft to the server.
pub(super) struct Held {
    grant: Grant,
    refresh_token: Option<Zeroizing<String>>,
    /// The one that the user gave, as long as it was not sent.
    unsent: Option<Zeroizing<String>>,
    /// It was sent, and no answer to it is known.
    in_doubt: bool,
    retry_lost: bool,
    /// That one more try was made.
    retried: bool,
    /// Both, before it was sent for the last time.
    before: (bool, bool),
    /// What was good once is used up, and why.
    over: Option<Error>,
    /// Between two polls.
    interval: Duration,
    /// No poll before this.
    next_poll: Option<Instant>,
    keeper: Option<Keeper>,
}

/// What to do after a failure.
pub(super) enum Next {
    Fail,
    Again,
    /// Once more, as soon as it may be polled.
    Poll,
}

impl Held {
    pub(super) fn new(grant: Grant, retry_lost: bool, keeper: Option<Keeper>) -> Self {
        let refresh_token = grant.as_refresh_token();
        let refresh_token = refresh_token.map(|token| Zeroizing::new(token.to_owned()));
        let interval = match grant.uses() {
            Uses::Polled { interval, .. } => interval,
            _ => Duration::ZERO,
        };
        Self {
            in_doubt: grant.is_uncertain(),
            // One that was stored may be used up by another process, which has put a newer one there since.
            unsent: refresh_token.clone().filter(|_| !grant.is_stored()),
            grant,
            refresh_token,
            retry_lost,
            retried: false,
            before: (false, false),
            over: None,
            interval,
            next_poll: None,
            keeper,
        }
    }

    /// Whether the next token request is the grant's own, though it can be used but once.
    pub(super) fn is_unused(&self) -> bool {
        self.refresh_token.is_none() && !self.can_begin_anew()
    }

    /// The next token request's own parameters.
    pub(super) async fn form(&mut self) -> Result<Form, Error> {
        if self.in_doubt && self.refresh_token.is_some() && self.can_begin_anew() {
            self.begin_anew();
        }
        if self.in_doubt && (!self.retry_lost || self.retried) {
            self.fall_back();
        }
        match &self.refresh_token {
            Some(token) => self.grant.refresh_form(token).await,
            None => match self.ended() {
                Some(error) => Err(error),
                None => self.grant.form().await,
            },
        }
    }

    /// Why nothing is sent for the grant any more.
    fn ended(&self) -> Option<Error> {
        let late = match self.grant.uses() {
            Uses::Polled { end, .. } => end <= Instant::now(),
            Uses::Always | Uses::Again | Uses::Once => false,
        };
        self.over.clone().or_else(|| late.then(too_late))
    }

    /// Until it may be polled.
    pub(super) fn pause(&self) -> Option<Instant> {
        let polls = self.refresh_token.is_none() && self.over.is_none();
        self.next_poll.filter(|_| polls)
    }

    /// What was stored is of no use, so nothing is at stake: to the grant's own, which a user may have given since.
    fn fall_back(&mut self) -> bool {
        let Some(own) = self.unsent.take() else {
            return false;
        };
        self.refresh_token = Some(own);
        self.in_doubt = false;
        self.retried = false;
        if let Some(keeper) = &mut self.keeper {
            keeper.replaced();
        }
        true
    }

    fn can_begin_anew(&self) -> bool {
        self.grant.is_repeatable()
    }

    fn begin_anew(&mut self) {
        self.refresh_token = None;
        self.in_doubt = false;
        self.retried = false;
    }

    /// Sent more than once, it would be good or be refused, and no harm be done.
    fn is_harmless(&self) -> bool {
        self.refresh_token.is_none() && !matches!(self.grant.uses(), Uses::Once)
    }

    /// What to say of a failure: whether it is the end, or it will be sent again.
    pub(super) fn failed(&self, error: Error) -> Error {
        let again = self.retry_lost && !self.retried && self.refresh_token.is_some();
        if !self.in_doubt || error.is_grant_uncertain() || again || self.can_begin_anew() {
            return error;
        }
        self.uncertain(Some(error))
    }

    /// `source` is what became of the answer.
    fn uncertain(&self, source: Option<Error>) -> Error {
        let message = match self.refresh_token {
            Some(_) => {
                "the answer to a refresh token was lost, so it may be used up and is not sent again: the grant is \
                 uncertain, and the user has to grant anew (`retry_lost_refresh` allows one more try)"
            }
            None => {
                "the answer to a grant that is good once was lost, so it may be used up and is not sent again: the \
                 user has to grant anew"
            }
        };
        match source {
            Some(source) => Error::with_source(Kind::GrantUncertain, message, source),
            None => Error::new(Kind::GrantUncertain, message),
        }
    }

    /// The server refused the token request, or there was no answer at all.
    pub(super) fn next(&mut self, error: &Error, retry_after: Option<Duration>) -> Next {
        let code = error.oauth_error().map(|error| error.code());
        if self.refresh_token.is_some() {
            if code == Some("invalid_grant") && self.can_begin_anew() {
                self.begin_anew();
                return Next::Again;
            }
            if code == Some("invalid_grant") && self.fall_back() {
                return Next::Again;
            }
            return Next::Fail;
        }
        if let Uses::Polled { end, .. } = self.grant.uses()
            && self.over.is_none()
        {
            let polls = match code {
                Some("authorization_pending") => true,
                Some("slow_down") => {
                    self.interval += SLOW_DOWN;
                    true
                }
                // RFC 8628, section 3.5: a server that does not answer is asked ever more seldom.
                None if error.is_passing() => {
                    self.interval = self.interval.max((self.interval * 2).min(MAX_INTERVAL));
                    true
                }
                _ => false,
            };
            let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
            let next = Instant::now() + self.interval.max(asked);
            self.next_poll = Some(next);
            if polls && next >= end {
                self.over = Some(too_late());
            }
            if polls {
                return Next::Poll;
            }
        }
        let refused = ["invalid_grant", "access_denied", "expired_token"];
        if !self.can_begin_anew() && code.is_some_and(|code| refused.contains(&code)) {
            self.over = Some(error.clone());
        }
        Next::Fail
    }

    pub(super) fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_ref().map(|token| token.as_str())
    }

    pub(super) fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// Stores the refresh token, if that is still to be done.
    pub(super) async fn save(&mut self, locked: bool) -> Result<(), BoxError> {
        match (&mut self.keeper, &self.refresh_token) {
            (Some(keeper), Some(token)) => keeper.save(token, self.in_doubt, locked).await,
            _ => Ok(()),
        }
    }

    /// Takes from the store what another process has put there, which shares it. False if that is nothing newer.
    pub(super) async fn adopt(&mut self) -> Result<bool, Error> {
        let (Some(keeper), Some(known)) = (&mut self.keeper, &self.refresh_token) else {
            return Ok(false);
        };
        let Some(stored) = keeper.newer(known, self.in_doubt).await? else {
            return Ok(false);
        };
        let newer = Zeroizing::new(stored.refresh_token().to_owned());
        self.unsent.take_if(|own| *own == newer);
        self.refresh_token = Some(newer);
        self.in_doubt = stored.is_uncertain();
        self.retried = false;
        Ok(true)
    }
}

fn too_late() -> Error {
    Error::new(
        Kind::GrantOver,
        "the user has not agreed within the time that the server gives for it (`expires_in` of the device \
         authorization): begin a new one",
    )
}

impl Fate for Held {
    /// To be called just before it is sent. From here on its fate is in doubt, even if the task that sends it
    /// ends before it can say more.
    fn begin(&mut self) -> Result<(), Error> {
        if self.is_harmless() {
            return Ok(());
        }
        if self.unsent == self.refresh_token {
            self.unsent = None;
        }
        self.before = (self.in_doubt, self.retried);
        if self.in_doubt {
            if !self.retry_lost || self.retried || self.refresh_token.is_none() {
                return Err(self.uncertain(None));
            }
            self.retried = true;
        }
        self.in_doubt = true;
        Ok(())
    }

    /// It did not leave, or was not looked at: what was in doubt before it is so still.
    fn kept(&mut self) {
        (self.in_doubt, self.retried) = self.before;
    }

    /// The server answered: it is good still, or a new one takes its place.
    fn answered(&mut self, status: StatusCode, body: &[u8]) {
        let Some(new) = response::refresh_token(status, body) else {
            return;
        };
        self.unsent = None;
        self.in_doubt = false;
        self.retried = false;
        if self.refresh_token.is_none() && !self.can_begin_anew() {
            self.over = Some(Error::new(
                Kind::GrantOver,
                "the grant was good for one access token, and no refresh token came with that: the user has to \
                 grant anew",
            ));
        }
        let new = new.filter(|new| Some(new) != self.refresh_token.as_ref());
        if let Some(keeper) = &mut self.keeper {
            keeper.answered(new.is_some());
        }
        if new.is_some() {
            self.refresh_token = new;
        }
    }
}
