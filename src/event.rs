//! What the layers tell a log (feature `tracing`). No secret, no token, no proof, no nonce is told, and
//! nothing is told while a lock is held: a subscriber is somebody else's code.
#![cfg_attr(not(feature = "tracing"), allow(unused_variables))]

use std::time::Duration;

use crate::error::Error;

macro_rules! tell {
    ($level:ident, $($what:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: "tower_dpop", tracing::Level::$level, $($what)+);
    };
}

/// An everyday thing: nonces end.
pub(crate) fn nonce_challenge(origin: &str) {
    tell!(
        DEBUG,
        server.origin = origin,
        "the server asks for another nonce"
    );
}

pub(crate) fn token_fetched() {
    tell!(DEBUG, "an access token arrived");
}

/// Once for each step of the back-off, since there is one fetch for each.
pub(crate) fn token_request_failed(error: &Error, retry_in: Duration) {
    tell!(
        WARN,
        error = %error,
        permanent = error.is_permanent(),
        retry_in_seconds = retry_in.as_secs_f64(),
        "no access token"
    );
}

pub(crate) fn token_refused() {
    tell!(INFO, "a server refused the access token as invalid");
}

/// `lifetime` is what is assumed instead.
pub(crate) fn expires_in_unusable(lifetime: Duration) {
    tell!(
        WARN,
        assumed_seconds = lifetime.as_secs(),
        "the authorization server does not tell how long the access token lives, or nothing that means a time"
    );
}

/// Warned of once for each server: behind one name there may be two clocks, and each request would tell it.
pub(crate) fn clock_corrected(origin: &str, seconds: f64, first: bool) {
    if first {
        tell!(
            WARN,
            server.origin = origin,
            offset_seconds = seconds,
            "the server's clock is another than this machine's; proofs for it are dated by its clock from now on"
        );
    } else {
        tell!(
            DEBUG,
            server.origin = origin,
            offset_seconds = seconds,
            "the server's clock is another again"
        );
    }
}

pub(crate) fn refresh_token_not_stored(error: &str) {
    tell!(
        WARN,
        error,
        "the new refresh token could not be stored; until it is, a restart loses the grant"
    );
}
