use std::{
    fmt,
    path::{Path, PathBuf, absolute},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::sleep};

use super::{
    GrantStore, StoredGrant, Storing,
    disk::{self, Locked},
};
use crate::{
    error::{BoxError, Error, Kind},
    random::chance,
};

/// Between two looks at a lock that somebody holds, and twice that at the most: who renews holds it for as long as
/// the token endpoint takes, which is rarely less.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Keeps a grant in a file of its own.
///
/// ```
/// use tower_dpop::{DpopKey, FileStore, GrantStore, StoredGrant};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_dpop::BoxError> {
/// # let directory = std::env::temp_dir().join(format!("tower-dpop-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// let store = FileStore::new(directory.join("grant.json"));
/// assert!(store.load().await?.is_none());
///
/// let key = DpopKey::generate()?;
/// store.save(StoredGrant::new(&key, "8xLOxBtZp8", "https://as.example.com", "app", None)).await?;
///
/// // After a restart:
/// let grant = store.load().await?.ok_or("no grant yet: ask the user")?;
/// assert_eq!(grant.key(), Some(&key));
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
///
/// The file holds [`StoredGrant::to_json`]. It is replaced as a whole: who reads it while it is written, or after the
/// program or the machine was stopped in the middle of that, finds the old grant or the new one. For that the new one
/// is written to a file beside it (`grant.json.0f3c….tmp`) and renamed; what a stopped program left of these, the next
/// one takes away. So the directory must be one that the program may write to.
///
/// Any number of programs may share it. [`lock`](GrantStore::lock) keeps them apart, with the operating system's lock
/// on the empty file `grant.json.lock`, which goes with whoever held it, even if it is killed. That file stays for
/// ever: were it deleted, who waits for it and who comes anew would hold two different ones. On a network's file
/// system the lock is worth what that makes of it.
///
/// # What it refuses
///
/// - A file of somebody else is neither read as a grant nor replaced nor removed: a mistyped path destroys nothing.
///   What is left of a damaged grant is replaced, and so is an empty file. A grant of a later format is not.
/// - A symbolic link in the place of the file: replaced would be the link, and two places would hold two grants. Give
///   the path that it leads to. (Directories may be links.)
/// - On Unix, a file that others than its owner may read or write (as ssh does): `chmod 600` mends it, and who may
///   have read it is a question for you.
///
/// # Security
///
/// The file holds the private key and the refresh token as they are, not encrypted: whoever reads it is the client.
/// What was replaced or removed may stay on the disk, and in copies and snapshots of it.
///
/// On Unix it is made with the mode 0600 from the first moment, whatever the umask; the directory must be one that
/// nobody else may write to. On Windows it gets the access list of its directory, which is not looked at: choose
/// one below the user's profile, such as `%LOCALAPPDATA%`.
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// Numbers the changes in the order in which they were asked for.
    asked: AtomicU64,
    /// The last one that was made. Held while one is made, in a thread where that may take its time.
    made: Mutex<u64>,
    /// The lock that was given out last. Who changes something holds it, too: given up by one whose time is over, it
    /// must not go to another before the change is through.
    lock: Mutex<Weak<Locked>>,
}

impl FileStore {
    /// Keeps the grant in this file. A path that does not begin at the root is taken from the working directory of
    /// now.
    ///
    /// Nothing is read or written yet, and no directory made.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        Self {
            inner: Arc::new(Inner {
                // An empty one stays what it is, and is refused when it is used.
                path: absolute(path).unwrap_or_else(|_| path.to_owned()),
                asked: AtomicU64::new(0),
                made: Mutex::new(0),
                lock: Mutex::new(Weak::new()),
            }),
        }
    }

    fn lock_held(&self) -> MutexGuard<'_, Weak<Locked>> {
        let held = self.inner.lock.lock();
        held.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change, unless a later one was made meanwhile: one that nobody waits for any more may be late.
    fn change(
        &self,
        make: impl FnOnce(&Path) -> Result<(), Error> + Send + 'static,
    ) -> Storing<'_, ()> {
        let number = self.inner.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let inner = Arc::clone(&self.inner);
        // From here on, not from when a thread is free.
        let lock = self.lock_held().upgrade();
        Box::pin(blocking(move || {
            let mut made = inner.made.lock().unwrap_or_else(PoisonError::into_inner);
            if *made < number {
                make(&inner.path)?;
                *made = number;
            }
            drop(lock);
            Ok(())
        }))
    }
}

impl GrantStore for FileStore {
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        let inner = Arc::clone(&self.inner);
        Box::pin(blocking(move || disk::load(&inner.path)))
    }

    fn save(&self, grant: StoredGrant) -> Storing<'_, ()> {
        self.change(move |path| disk::save(path, &grant))
    }

    fn clear(&self) -> Storing<'_, ()> {
        self.change(disk::clear)
    }

    fn lock(&self) -> Storing<'_, Box<dyn Send>> {
        Box::pin(async {
            loop {
                let inner = Arc::clone(&self.inner);
                // If nobody waits any more, what it gives is dropped with its task.
                let locked = blocking(move || disk::try_lock(&inner.path)).await?;
                if let Some(locked) = locked {
                    let locked = Arc::new(locked);
                    *self.lock_held() = Arc::downgrade(&locked);
                    return Ok(Box::new(locked) as Box<dyn Send>);
                }
                // By chance, so that of many who wait none is always the last.
                sleep(LOCK_PAUSE.mul_f64(1.0 + chance())).await;
            }
        })
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

/// Works where it keeps no other task waiting.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, BoxError> {
    let runtime = Handle::try_current().map_err(|_| {
        Error::new(
            Kind::Runtime,
            "a grant's file is read and written within a Tokio runtime",
        )
    })?;
    match runtime.spawn_blocking(work).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Error::new(
            Kind::Runtime,
            "the Tokio runtime ended while a grant's file was read or written",
        )
        .into()),
    }
}
