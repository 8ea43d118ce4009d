//! What must survive a restart of a grant that a user gave, and where it is kept.

mod disk;
mod file;
mod format;
mod leftovers;

use std::{
    fmt,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
};

use zeroize::Zeroizing;

pub use self::file::FileStore;
use crate::{
    error::{BoxError, Error},
    key::DpopKey,
};

/// What a [`GrantStore`] gives back: a future in a box.
pub type Storing<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// Keeps one grant past a restart: [`FileStore`] in a file, and your own one wherever you like.
///
/// A store of one's own, in a database or a key ring, keeps what [`StoredGrant::to_json`] gives, and hands it to
/// [`StoredGrant::from_json`] again:
///
/// ```
/// use std::sync::Mutex;
/// use tower_dpop::{BoxError, GrantStore, StoredGrant, token::Storing};
///
/// /// In place of this row stands your database.
/// #[derive(Default)]
/// struct Row(Mutex<Option<String>>);
///
/// impl Row {
///     async fn read(&self) -> Result<Option<String>, BoxError> {
///         Ok(self.0.lock().map_err(|_| "poisoned")?.clone())
///     }
///
///     async fn write(&self, row: Option<String>) -> Result<(), BoxError> {
///         *self.0.lock().map_err(|_| "poisoned")? = row;
///         Ok(())
///     }
/// }
///
/// impl GrantStore for Row {
///     fn load(&self) -> Storing<'_, Option<StoredGrant>> {
///         Box::pin(async {
///             let row = self.read().await?;
///             Ok(row.map(|row| StoredGrant::from_json(row.as_bytes())).transpose()?)
///         })
///     }
///
///     fn save(&self, grant: StoredGrant) -> Storing<'_, ()> {
///         // Encrypt it here, if others can read the database.
///         Box::pin(async move { self.write(Some(grant.to_json()?.to_string())).await })
///     }
///
///     fn clear(&self) -> Storing<'_, ()> {
///         Box::pin(self.write(None))
///     }
/// }
/// ```
///
/// # Security
///
/// What it keeps is the client: whoever reads it has the private key and the refresh token. The texts of its errors are
/// shown where a token is missing for their sake: they must hold nothing of what it keeps.
pub trait GrantStore: Send + Sync + 'static {
    /// The grant that was saved last; none if there never was one.
    ///
    /// # Errors
    ///
    /// What there is cannot be read. That is not the same as none: whoever took it for none would ask the user
    /// for a grant that is there.
    fn load(&self) -> Storing<'_, Option<StoredGrant>>;

    /// Takes the place of what was saved before, whole or not at all.
    ///
    /// # Errors
    ///
    /// It is not surely saved.
    fn save(&self, grant: StoredGrant) -> Storing<'_, ()>;

    /// What was saved is no longer of use: the user logged out, or the grant was revoked.
    ///
    /// # Errors
    ///
    /// It is not surely gone. That there was nothing is no error.
    fn clear(&self) -> Storing<'_, ()>;

    /// Held while the refresh token is read, sent and replaced: whoever else uses the same store, in this process
    /// or another, waits. Who stops waiting holds nothing. Who has it and asks for it again waits for ever.
    ///
    /// Unless a store does otherwise, nobody else uses it.
    ///
    /// # Errors
    ///
    /// The lock cannot be had, whoever holds it.
    fn lock(&self) -> Storing<'_, Box<dyn Send>> {
        let nothing: Box<dyn Send> = Box::new(());
        Box::pin(ready(Ok(nothing)))
    }
}

impl<S: GrantStore + ?Sized> GrantStore for Arc<S> {
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        (**self).load()
    }

    fn save(&self, grant: StoredGrant) -> Storing<'_, ()> {
        (**self).save(grant)
    }

    fn clear(&self) -> Storing<'_, ()> {
        (**self).clear()
    }

    fn lock(&self) -> Storing<'_, Box<dyn Send>> {
        (**self).lock()
    }
}

/// What must survive a restart of a grant: the refresh token, the key that it is bound to, and what it is for.
///
/// `Debug` shows neither key nor refresh token.
///
/// ```
/// use tower_dpop::{DpopKey, StoredGrant};
///
/// # fn main() -> Result<(), tower_dpop::Error> {
/// let key = DpopKey::generate()?;
/// let grant = StoredGrant::new(&key, "8xLOxBtZp8", "https://as.example.com", "app", Some("orders"));
///
/// let json = grant.to_json()?; // keep it where secrets belong
/// let again = StoredGrant::from_json(json.as_bytes())?;
///
/// assert_eq!(again.key(), Some(&key));
/// assert_eq!(again.refresh_token(), "8xLOxBtZp8");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StoredGrant {
    key: Option<DpopKey>,
    thumbprint: String,
    refresh_token: Zeroizing<String>,
    authorization_server: String,
    client_id: String,
    scope: Option<String>,
    uncertain: bool,
}

impl StoredGrant {
    /// What there is to be kept of a grant. `authorization_server` is the issuer or, if it has none, the token
    /// endpoint; `scope` is what was asked for, scopes apart by spaces (RFC 6749, section 3.3).
    #[must_use]
    pub fn new(
        key: &DpopKey,
        refresh_token: impl Into<String>,
        authorization_server: impl Into<String>,
        client_id: impl Into<String>,
        scope: Option<&str>,
    ) -> Self {
        Self {
            key: Some(key.clone()),
            thumbprint: key.thumbprint().to_owned(),
            refresh_token: Zeroizing::new(refresh_token.into()),
            authorization_server: authorization_server.into(),
            client_id: client_id.into(),
            scope: scope.map(str::to_owned),
            uncertain: false,
        }
    }

    pub(in crate::token) fn uncertain(self, uncertain: bool) -> Self {
        Self { uncertain, ..self }
    }

    /// The key that the grant is bound to, with the signer and the algorithm that it had when it was stored. (A P-256 key
    /// by `AwsLcRs` is slower in a program that is built without that, and the same; others cannot be read there.)
    ///
    /// None if it could not be kept with the grant, since it cannot leave its place, as that of
    /// [a signer of one's own](DpopKey::from_signer): then the [`thumbprint`](Self::thumbprint) says which one is needed.
    #[must_use]
    pub fn key(&self) -> Option<&DpopKey> {
        self.key.as_ref()
    }

    /// The JWK thumbprint (RFC 7638) of the key, by SHA-256, in base64url.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// The refresh token.
    ///
    /// # Security
    ///
    /// It is wiped from memory when the last clone of this grant is dropped; copies of it are not. Log it nowhere.
    #[must_use]
    pub fn refresh_token(&self) -> &str {
        &self.refresh_token
    }

    /// Who gave the grant: the issuer or, if it has none, the token endpoint.
    #[must_use]
    pub fn authorization_server(&self) -> &str {
        &self.authorization_server
    }

    /// The client that the grant was given to.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The scopes asked for, apart by spaces.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Whether the refresh token was sent and its answer lost, so that it may be used up: it is not sent again
    /// ([`Error::is_grant_uncertain`]), unless [that is allowed](crate::TokenRequest::retry_lost_refresh).
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// All of it as a JSON text of one line, at the most 256 KiB.
    ///
    /// # Errors
    ///
    /// If it could not be read again ([`Error::is_store`]): it is longer than that, or the refresh token is empty.
    ///
    /// # Security
    ///
    /// Private key and refresh token stand in it as they are. The text is wiped from memory when it is dropped;
    /// copies of it are not.
    pub fn to_json(&self) -> Result<Zeroizing<String>, Error> {
        format::write(self)
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    ///
    /// If it is something else, cut off, damaged, of a newer version or longer than 256 KiB ([`Error::is_store`]); the
    /// text says which. If the thumbprint in it is another than that of the key in it ([`Error::is_other_key`]).
    ///
    /// # Security
    ///
    /// The bytes are the caller's to wipe.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        format::read(json)
    }
}

impl fmt::Debug for StoredGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredGrant")
            .field("thumbprint", &self.thumbprint)
            .field("authorization_server", &shown(&self.authorization_server))
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// A server's URL without what may be a secret: what stands before an `@` or behind a `?`.
pub(in crate::token) fn shown(server: &str) -> &str {
    match server.contains('@') {
        true => "…",
        false => server.split(['?', '#']).next().unwrap_or_default(),
    }
}
