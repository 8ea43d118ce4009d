//! What the tests of the grant stores need. Each uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use tower_dpop::{BoxError, DpopKey, Error, StoredGrant};

pub(crate) const SERVER: &str = "https://as.example.com";
pub(crate) const CANARY: &str = "canary-refresh-token";

/// A directory of its own, gone with this.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tower-dpop-store-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Of a process that had the same number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn grant(&self) -> PathBuf {
        self.0.join("grant.json")
    }

    /// The names in it, but for the lock's.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.0).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "grant.json.lock").collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn grant(key: &DpopKey, refresh_token: &str) -> StoredGrant {
    StoredGrant::new(key, refresh_token, SERVER, "app", Some("a b"))
}

/// One of ours, whose texts show no secret.
#[track_caller]
pub(crate) fn ours(error: BoxError) -> Error {
    let error = *error.downcast::<Error>().expect("ours");
    no_secret(&error);
    error
}

#[track_caller]
pub(crate) fn no_secret(error: &Error) {
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        shown += &format!("{error} {error:?}");
        source = error.source();
    }
    assert!(!shown.contains("canary"), "{shown}");
    // How the base64 of every P-256 key in PKCS#8 begins.
    assert!(!shown.contains("MIGHAgEA"), "{shown}");
    assert!(!error.to_string().contains(char::is_control), "{shown}");
}
