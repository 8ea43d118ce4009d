//! A store that only saves, and hands each refresh token to the test.

use std::future::Future;

use tower_dpop::{BoxError, GrantStore, StoredGrant, token::Storing};

pub(crate) struct Saves<S>(S);

/// Calls `save` with each refresh token that is to be stored.
pub(crate) fn saves<S, F>(save: S) -> Saves<S>
where
    S: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    Saves(save)
}

impl<S, F> GrantStore for Saves<S>
where
    S: Fn(String) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        Box::pin(async { Ok(None) })
    }

    fn save(&self, grant: StoredGrant) -> Storing<'_, ()> {
        Box::pin(async move { (self.0)(grant.refresh_token().to_owned()).await })
    }

    fn clear(&self) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
