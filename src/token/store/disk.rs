//! A stored grant on the disk: all that waits for it, to be called where that may take its time.

use std::{
    fmt::Display,
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::{
    StoredGrant,
    format::{self, MAX_LEN},
    leftovers,
};
use crate::error::{Error, Kind};

/// How often writing begins anew when the file that is written vanishes. Somebody who takes leftovers away can come
/// between its making and its locking, and between its unlocking and its renaming.
const ATTEMPTS: usize = 8;

/// A lock that is held until this is dropped, or its process ends.
pub(super) struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Closing it would do, but for a child that is being started and has a copy of it for a moment.
        let _ = self.0.unlock();
    }
}

pub(super) fn load(path: &Path) -> Result<Option<StoredGrant>, Error> {
    let Some((file, metadata)) = open(path)? else {
        return Ok(None);
    };
    check_private(path, &metadata)?;
    parse(path, &read(path, file)?).map(Some)
}

pub(super) fn save(path: &Path, grant: &StoredGrant) -> Result<(), Error> {
    let json = grant.to_json()?;
    check_ours(path)?;
    for _ in 1..ATTEMPTS {
        if write(path, json.as_bytes())? {
            sync_directory(path)?;
            leftovers::remove(path);
            return Ok(());
        }
    }
    Err(refuse(
        path,
        "what is written beside it is taken away at once",
    ))
}

pub(super) fn clear(path: &Path) -> Result<(), Error> {
    check_ours(path)?;
    leftovers::remove(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(path, "it cannot be removed", error)),
        Ok(()) => sync_directory(path),
    }
}

/// The lock beside the file, if nobody holds it.
pub(super) fn try_lock(path: &Path) -> Result<Option<Locked>, Error> {
    let path = &beside(path, ".lock")?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = private(&mut options).open(path);
    let file = file.map_err(|error| unwritten(path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Locked(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(path, "it cannot be locked", error)),
    }
}

/// Opens what is there, if it is a file and no link to one.
fn open(path: &Path) -> Result<Option<(File, Metadata)>, Error> {
    if path.file_name().is_none() {
        return Err(refuse(path, "this path names no file"));
    }
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| unread(path, error))?,
    };
    // Asked first: opening a pipe waits for whoever writes to it.
    if found.is_symlink() {
        let what = "it is a symbolic link: give the path that it leads to";
        return Err(refuse(path, what));
    }
    if !found.is_file() {
        let what = "it is a directory or a device, not a file: give the path of a file";
        return Err(refuse(path, what));
    }
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| unread(path, error))?,
    };
    // Of what was opened: another file may have been renamed into its place, a good one as a rule.
    let opened = file.metadata().map_err(|error| unread(path, error))?;
    Ok(Some((file, opened)))
}

fn read(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Room for more than will come: a vector that grows leaves its old content behind, unwiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_LEN));
    file.take(MAX_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unread(path, error))?;
    Ok(bytes)
}

fn parse(path: &Path, json: &[u8]) -> Result<StoredGrant, Error> {
    StoredGrant::from_json(json).map_err(|error| {
        let kind = match error.is_other_key() {
            true => Kind::OtherKey,
            false => Kind::Store,
        };
        Error::new(kind, format!("grant file {}: {error}", shown(path)))
    })
}

/// Whether what is there may be replaced or removed.
fn check_ours(path: &Path) -> Result<(), Error> {
    let Some((file, _)) = open(path)? else {
        return Ok(());
    };
    let json = read(path, file)?;
    match json.is_empty() || format::is_ours(&json) {
        true => Ok(()),
        false => parse(path, &json).map(drop),
    }
}

/// Whether it was written. If not, somebody took the new file for a leftover.
fn write(path: &Path, json: &[u8]) -> Result<bool, Error> {
    let digits = getrandom::u64()
        .map_err(|_| refuse(path, "no random numbers from the operating system"))?;
    let temporary = beside(path, &leftovers::suffix(digits))?;
    let written = write_to(&temporary, json).and_then(|()| fs::rename(&temporary, path));
    match written {
        Ok(()) => Ok(true),
        Err(error) => {
            let gone = fs::remove_file(&temporary).is_err_and(|e| e.kind() == ErrorKind::NotFound);
            // So it does if the directory is not there: then nothing was made that could be gone.
            let directory = path.parent().is_some_and(Path::is_dir);
            if gone && directory && error.kind() == ErrorKind::NotFound {
                return Ok(false);
            }
            Err(unwritten(path, error))
        }
    }
}

fn write_to(path: &Path, json: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = private(options.write(true).create_new(true)).open(path)?;
    // For `leftovers` to tell. It is let go before the renaming, lest a reader on Windows finds it locked.
    let _ = file.try_lock();
    file.write_all(json)?;
    file.sync_all()?;
    let _ = file.unlock();
    Ok(())
}

/// A path in the same directory.
fn beside(path: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let Some(name) = path.file_name() else {
        return Err(refuse(path, "this path names no file"));
    };
    let mut name = name.to_owned();
    name.push(suffix);
    Ok(path.with_file_name(name))
}

/// For its owner alone, from the moment it is made.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn check_private(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let mode = std::os::unix::fs::MetadataExt::mode(metadata) & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(refuse(
        path,
        format!(
            "others than its owner may use it (its mode is {mode:04o}), and it holds a private key: `chmod 600` it, \
             and think of who may have read it"
        ),
    ))
}

#[cfg(not(unix))]
fn check_private(_: &Path, _: &Metadata) -> Result<(), Error> {
    Ok(())
}

/// What was renamed or removed is so after a power cut, too.
#[cfg(unix)]
fn sync_directory(path: &Path) -> Result<(), Error> {
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // Some file systems have no such thing, and some directories may be written to but not read.
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::PermissionDenied
            ) =>
        {
            Err(failed(path, "its directory cannot be synced", error))
        }
        _ => Ok(()),
    }
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> Result<(), Error> {
    Ok(())
}

fn unread(path: &Path, error: io::Error) -> Error {
    let why = match error.kind() {
        ErrorKind::PermissionDenied => "no permission to read it",
        _ => "it cannot be read",
    };
    failed(path, why, error)
}

fn unwritten(path: &Path, error: io::Error) -> Error {
    let why = match error.kind() {
        ErrorKind::NotFound => {
            "its directory is not there: make it, for this user alone (`mkdir -m 700`)"
        }
        ErrorKind::PermissionDenied => "no permission to write in its directory",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "no space is left on the disk",
        ErrorKind::ReadOnlyFilesystem => "its file system is read-only",
        _ => "it cannot be written",
    };
    failed(path, why, error)
}

fn failed(path: &Path, why: impl Display, error: io::Error) -> Error {
    Error::with_source(Kind::Store, message(path, why), error)
}

fn refuse(path: &Path, why: impl Display) -> Error {
    Error::new(Kind::Store, message(path, why))
}

fn message(path: &Path, why: impl Display) -> String {
    format!("grant file {}: {why}", shown(path))
}

/// In one line. A path is not cut: its end is what tells most.
fn shown(path: &Path) -> String {
    let path = path.display().to_string();
    path.replace(char::is_control, "?")
}
