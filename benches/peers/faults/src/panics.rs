//! Counts panics in place of printing them.

use std::{
    collections::BTreeMap,
    panic::{self, PanicHookInfo},
    path::Path,
    sync::{Mutex, PoisonError},
};

static SEEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// From now on no panic of this process prints anything.
pub(crate) fn count_silently() {
    panic::set_hook(Box::new(|info| {
        let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.entry(describe(info)).or_default() += 1;
    }));
}

/// The panics since the last call, those in tasks that nobody waits for included: each text with its count.
pub(crate) fn take() -> BTreeMap<String, usize> {
    std::mem::take(&mut *SEEN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn describe(info: &PanicHookInfo<'_>) -> String {
    let message = info.payload_as_str().unwrap_or("no text");
    // The file's name is enough to find it; its path would show where this machine keeps sources.
    let place = info.location().and_then(|place| {
        let file = Path::new(place.file()).file_name()?.to_str()?;
        Some(format!(" at {file}:{}", place.line()))
    });
    format!("“{message}”{}", place.unwrap_or_default())
}
