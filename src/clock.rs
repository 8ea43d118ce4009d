//! The wall clock, as proofs need it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970, rounded down: an `iat` from the future is refused by strict servers. A clock
/// that stands before 1970 gives 0, and the server's refusal then says what is wrong.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
