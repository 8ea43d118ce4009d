//! Those who need tokens, and the servers that they show them to.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{DEADLINE, oracle::Oracle};
use crate::{
    access_token::AccessToken,
    token::{cache::Cache, state::Ask},
};

/// Nobody should ever wait so long, whatever happens.
const FOR_EVER: Duration = Duration::from_secs(20 * DEADLINE.as_secs());

/// They know tokens by their texts, as servers do.
pub(super) struct ResourceServers {
    revoked: Mutex<HashSet<String>>,
    one_is_hostile: Mutex<bool>,
    /// A request goes to the hostile one so often, and when the next one does.
    hostile_every: Duration,
    next_hostile: Mutex<Instant>,
}

impl ResourceServers {
    pub(super) fn new(hostile_every: Duration) -> Self {
        Self {
            revoked: Mutex::default(),
            one_is_hostile: Mutex::default(),
            hostile_every,
            next_hostile: Mutex::new(Instant::now()),
        }
    }

    /// Regularly: a row of refusals is the harder to see the longer each token lives.
    pub(super) fn is_next_hostile(&self) -> bool {
        let now = Instant::now();
        let mut next = self.next_hostile.lock().unwrap();
        let is_next = *next <= now;
        if is_next {
            *next = now + self.hostile_every;
        }
        is_next
    }

    pub(super) fn revoke(&self, token: Option<AccessToken>) {
        if let Some(token) = token {
            self.revoked.lock().unwrap().insert(token.secret().into());
        }
    }

    pub(super) fn set_hostile(&self, hostile: bool) {
        *self.one_is_hostile.lock().unwrap() = hostile;
    }

    pub(super) fn is_hostile(&self) -> bool {
        *self.one_is_hostile.lock().unwrap()
    }

    pub(super) fn heal(&self) {
        self.revoked.lock().unwrap().clear();
        self.set_hostile(false);
    }

    fn refuse(&self, token: &AccessToken) -> bool {
        self.revoked.lock().unwrap().contains(token.secret())
    }
}

/// One request's way, as `Token` goes it.
pub(super) struct Caller {
    pub(super) cache: Cache,
    pub(super) oracle: Arc<Oracle>,
    pub(super) servers: Arc<ResourceServers>,
    /// On a new token.
    pub(super) insists: bool,
    /// Its server refuses whatever it is shown.
    pub(super) hostile: bool,
    /// To the server and back.
    pub(super) travel: Duration,
}

impl Caller {
    pub(super) async fn run(self) {
        let ask = Ask {
            but: None,
            since: self.insists.then(Instant::now),
        };
        let Some(token) = self.token(&ask).await else {
            return;
        };
        if self.accepted(&token).await {
            return;
        }
        let ask = Ask {
            but: Some(token),
            since: None,
        };
        if let Some(token) = self.token(&ask).await {
            self.accepted(&token).await;
        }
    }

    async fn token(&self, ask: &Ask) -> Option<AccessToken> {
        let call = self.oracle.asks(ask);
        let at_once = match ask {
            Ask {
                but: None,
                since: None,
            } => self.cache.get(),
            _ => None,
        };
        call.got_at_once(at_once.as_ref(), self.cache.is_busy());
        let got = match at_once {
            Some(token) => Ok(token),
            None => match timeout(FOR_EVER, self.cache.wait(ask)).await {
                Ok(got) => got,
                Err(_) => {
                    self.oracle
                        .model()
                        .violation("2. a caller waits for ever", &"");
                    return None;
                }
            },
        };
        call.got(&got);
        got.ok()
    }

    async fn accepted(&self, token: &AccessToken) -> bool {
        sleep(self.travel).await;
        let refused = self.hostile || self.servers.refuse(token);
        if refused {
            self.oracle.model().refused(token);
            self.cache.refuse(token);
        }
        !refused
    }
}
