//! Files that were to be renamed to a stored grant, of programs that were stopped before.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use super::format::HEAD;

/// Hexadecimal digits of chance in their names.
const DIGITS: usize = 16;
const EXTENSION: &[u8] = b".tmp";

/// What their names end with, after that of the grant.
pub(super) fn suffix(chance: u64) -> String {
    format!(".{chance:016x}.tmp")
}

/// Takes away what a program that was stopped in the middle has left: what begins like a grant, and nobody holds
/// locked.
pub(super) fn remove(path: &Path) {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || !is_temporary(name.as_encoded_bytes(), &entry.file_name()) {
            continue;
        }
        if File::open(entry.path()).is_ok_and(is_leftover) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_leftover(file: File) -> bool {
    let mut head = Vec::with_capacity(HEAD.len());
    let unlocked = file.try_lock().is_ok();
    let read = file.take(HEAD.len() as u64).read_to_end(&mut head);
    unlocked && read.is_ok() && HEAD.starts_with(&head)
}

fn is_temporary(name: &[u8], entry: &OsStr) -> bool {
    let rest = entry.as_encoded_bytes().strip_prefix(name);
    let digits = rest.and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(EXTENSION));
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.iter().all(digit))
}
