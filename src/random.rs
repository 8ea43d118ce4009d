//! Chance: what keeps many processes from doing the same at the same moment, and is no secret; and texts that nobody
//! guesses.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use zeroize::Zeroizing;

use crate::error::{BoxError, Error, Kind};

/// `BYTES` random bytes of the operating system, in base64url.
pub(crate) fn base64url<const BYTES: usize>() -> Result<Zeroizing<String>, Error> {
    Ok(Zeroizing::new(BASE64URL.encode(bytes::<BYTES>()?.as_ref())))
}

/// The same, into a space that it fills.
pub(crate) fn fill_base64url<const BYTES: usize>(space: &mut [u8]) -> Result<(), Error> {
    let random = bytes::<BYTES>()?;
    let written = BASE64URL.encode_slice(random.as_ref(), space);
    written.map(drop).map_err(none)
}

fn bytes<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, Error> {
    let mut random = Zeroizing::new([0; BYTES]);
    getrandom::fill(random.as_mut()).map_err(none)?;
    Ok(random)
}

fn none(source: impl Into<BoxError>) -> Error {
    Error::with_source(
        Kind::Sign,
        "the operating system gave no random numbers",
        source,
    )
}

/// From 0 up to 1, drawn from the operating system. If that gives none, the middle: spreading is no reason to
/// fail.
pub(crate) fn chance() -> f64 {
    #[cfg(test)]
    if let Some(chance) = seeded::chance() {
        return chance;
    }
    getrandom::u32().map_or(0.5, |drawn| f64::from(drawn) / 2_f64.powi(32))
}

/// A simulation that failed shall fail again.
#[cfg(test)]
pub(crate) mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    /// From now on, in this thread.
    pub(crate) fn start(seed: u64) {
        STATE.set(Some(seed));
    }

    pub(super) fn chance() -> Option<f64> {
        let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
        STATE.set(Some(state));
        // SplitMix64.
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Some(((mixed ^ (mixed >> 31)) >> 11) as f64 / 2_f64.powi(53))
    }
}
