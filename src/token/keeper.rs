//! What keeps a refresh token past a restart, at work: a store that may be slow, fail or panic.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::store::{GrantStore, StoredGrant};
use crate::{
    caught::{Panicked, caught},
    error::{BoxError, Error, Kind},
    key::DpopKey,
};

/// For all attempts to store a grant, which the callers wait for; and for reading it.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// For another process to be done with the refresh token.
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_secs(120);

/// Between the attempts.
const STORE_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

pub(super) struct Keeper {
    store: Arc<dyn GrantStore>,
    key: DpopKey,
    server: String,
    client_id: String,
    scope: Option<String>,
    /// There is something to be stored.
    due: bool,
    /// Something of this grant is stored.
    kept: bool,
    /// The store says that the refresh token was sent, and its answer lost.
    stored_uncertain: bool,
}

/// While it lives, nobody else uses the store.
pub(super) struct Lease(#[expect(dead_code, reason = "it is held, not read")] Box<dyn Send>);

impl Keeper {
    pub(super) fn new(
        store: Arc<dyn GrantStore>,
        key: DpopKey,
        server: &str,
        client_id: &str,
        scope: Option<&str>,
    ) -> Self {
        Self {
            store,
            key,
            server: server.to_owned(),
            client_id: client_id.to_owned(),
            scope: scope.map(str::to_owned),
            due: false,
            kept: false,
            stored_uncertain: false,
        }
    }

    /// The refresh token is good, and may be a new one.
    pub(super) fn answered(&mut self, new: bool) {
        self.due |= new || !self.kept;
    }

    pub(super) async fn lock(&self) -> Result<Lease, Error> {
        self.locked(LOCK_TIMEOUT).await.map_err(|source| {
            Error::with_source(
                Kind::Store,
                "the stored grant could not be locked, so its refresh token was not used: another process might \
                 use it at the same time",
                source,
            )
        })
    }

    async fn locked(&self, limit: Duration) -> Result<Lease, BoxError> {
        let store = Arc::clone(&self.store);
        let lease = within(limit, async move { store.lock().await }).await?;
        Ok(Lease(lease))
    }

    /// The refresh token that is stored, if it is another one than this: another process that shares the store has
    /// used this one up. So what cannot be read is an error: the one that is known here may be used up long since, and
    /// a server that sees it again takes it for theft. So is what is somebody else's.
    pub(super) async fn newer(
        &mut self,
        than: &str,
        in_doubt: bool,
    ) -> Result<Option<StoredGrant>, Error> {
        if self.due {
            return Ok(None);
        }
        let store = Arc::clone(&self.store);
        let loaded = within(STORE_TIMEOUT, async move { store.load().await }).await;
        let loaded = loaded.map_err(|source| {
            Error::with_source(
                Kind::Store,
                "the stored grant could not be read, so no refresh token was used: another process may have used up \
                 the one that is known here",
                source,
            )
        })?;
        let Some(stored) = loaded else {
            return Ok(None);
        };
        if stored.thumbprint() != self.key.thumbprint() {
            return Err(Error::new(
                Kind::OtherKey,
                "the stored refresh token is bound to another key than this one: load the key that is stored with it",
            ));
        }
        if stored.authorization_server() != self.server || stored.client_id() != self.client_id {
            return Err(Error::new(
                Kind::Store,
                "the store holds the grant of another client or authorization server: give each a store of its own",
            ));
        }
        self.kept = true;
        // That there is no doubt any more is not believed: a store may keep the refresh token alone.
        let news = stored.is_uncertain() && !in_doubt;
        self.stored_uncertain = stored.is_uncertain();
        Ok(Some(stored).filter(|stored| news || stored.refresh_token() != than))
    }

    /// Stores it if that is still to be done, under the lock. It takes `STORE_TIMEOUT` at the most, and as long again
    /// for the lock if it is not `locked` yet.
    pub(super) async fn save(
        &mut self,
        refresh_token: &str,
        uncertain: bool,
        locked: bool,
    ) -> Result<(), BoxError> {
        if !self.due && uncertain == self.stored_uncertain {
            return Ok(());
        }
        let _lease = match locked {
            true => None,
            false => Some(self.locked(STORE_TIMEOUT).await?),
        };
        let scope = self.scope.as_deref();
        let grant = StoredGrant::new(
            &self.key,
            refresh_token,
            &self.server,
            &self.client_id,
            scope,
        )
        .uncertain(uncertain);
        let attempts = async {
            for pause in STORE_PAUSES {
                if self.attempt(&grant).await.is_ok() {
                    return Ok(());
                }
                sleep(pause).await;
            }
            self.attempt(&grant).await
        };
        timeout(STORE_TIMEOUT, attempts).await??;
        self.due = false;
        self.kept = true;
        self.stored_uncertain = uncertain;
        Ok(())
    }

    /// What is stored is of no use any more, and is not to be taken from there again: another one takes its place.
    pub(super) fn replaced(&mut self) {
        self.due = true;
    }

    async fn attempt(&self, grant: &StoredGrant) -> Result<(), BoxError> {
        let saved = caught(async { self.store.save(grant.clone()).await }).await;
        saved.unwrap_or_else(|Panicked| Err("storing panicked".into()))
    }
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let done = timeout(limit, caught(work)).await?;
    done.unwrap_or_else(|Panicked| Err("the store panicked".into()))
}
