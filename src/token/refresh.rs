//! A refresh token and what may be done with it (RFC 6749, section 6; RFC 9700, section 4.14).

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::caught::{Panicked, caught};
use crate::error::{BoxError, Error, Kind};

/// Keeps a new refresh token past a restart.
pub(super) type Store =
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>> + Send + Sync;

/// For all attempts to store one, which the callers wait for.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between the attempts.
const STORE_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// Whoever uses it holds it alone: two at a time would look like theft to the server.
pub(super) struct RefreshToken {
    value: Zeroizing<String>,
    /// It was sent, and no answer to it is known.
    in_doubt: bool,
    retry_lost: bool,
    /// That one more try was made.
    retried: bool,
    /// Both, before it was sent for the last time.
    before: (bool, bool),
    store: Option<Arc<Store>>,
    unstored: bool,
}

impl RefreshToken {
    pub(super) fn new(
        value: Zeroizing<String>,
        retry_lost: bool,
        store: Option<Arc<Store>>,
    ) -> Self {
        Self {
            value,
            in_doubt: false,
            retry_lost,
            retried: false,
            before: (false, false),
            store,
            unstored: false,
        }
    }

    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// To be called just before it is sent. From here on its fate is in doubt, even if the task that sends it
    /// ends before it can say more.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        self.before = (self.in_doubt, self.retried);
        if self.in_doubt {
            if !self.retry_lost || self.retried {
                return Err(uncertain(None));
            }
            self.retried = true;
        }
        self.in_doubt = true;
        Ok(())
    }

    /// It did not leave, or was not looked at: what was in doubt before it is so still.
    pub(super) fn kept(&mut self) {
        (self.in_doubt, self.retried) = self.before;
    }

    /// The server answered: it is good still, or a new one takes its place.
    pub(super) fn answered(&mut self, new: Option<Zeroizing<String>>) {
        self.in_doubt = false;
        self.retried = false;
        if let Some(new) = new.filter(|new| *new != self.value) {
            self.value = new;
            self.unstored = self.store.is_some();
        }
    }

    /// What to say of a failure: whether it is the end, or it will be sent again.
    pub(super) fn failed(&self, error: Error) -> Error {
        if !self.in_doubt || error.is_grant_uncertain() || self.retry_lost && !self.retried {
            return error;
        }
        uncertain(Some(error))
    }

    /// Stores it if that is still to be done. It takes `STORE_TIMEOUT` at the most.
    pub(super) async fn store(&mut self) -> Result<(), BoxError> {
        let Some(store) = self.store.clone().filter(|_| self.unstored) else {
            return Ok(());
        };
        let attempts = async {
            for pause in STORE_PAUSES {
                if attempt(&store, &self.value).await.is_ok() {
                    return Ok(());
                }
                sleep(pause).await;
            }
            attempt(&store, &self.value).await
        };
        timeout(STORE_TIMEOUT, attempts).await??;
        self.unstored = false;
        Ok(())
    }
}

async fn attempt(store: &Arc<Store>, token: &str) -> Result<(), BoxError> {
    let stored = caught(async { store(token.to_owned()).await }).await;
    stored.unwrap_or_else(|Panicked| Err("storing panicked".into()))
}

/// `source` is what became of the answer.
fn uncertain(source: Option<Error>) -> Error {
    let message = "the answer to a refresh token was lost, so it may be used up and is not sent again: the \
                   grant is uncertain, and the user has to grant anew (`retry_lost_refresh` allows one more try)";
    match source {
        Some(source) => Error::with_source(Kind::GrantUncertain, message, source),
        None => Error::new(Kind::GrantUncertain, message),
    }
}
