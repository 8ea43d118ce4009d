//! What the layers tell a log (feature `tracing`) and a meter (feature `metrics`). No secret, no token, no proof,
//! no nonce is told, and nothing is told while a lock is held: whoever listens is somebody else's code.
#![cfg_attr(
    not(all(feature = "tracing", feature = "metrics")),
    allow(unused_variables)
)]

mod span;

use std::time::Duration;

pub(crate) use self::span::{Fetching, Sending};
use crate::{error::Error, nonce::Role};

macro_rules! tell {
    ($level:ident, $($what:tt)+) => {
        #[cfg(feature = "tracing")]
        tracing::event!(target: "tower_dpop", tracing::Level::$level, $($what)+);
    };
}

macro_rules! count {
    ($name:literal $(, $label:literal => $value:expr)?) => {
        #[cfg(feature = "metrics")]
        metrics::counter!($name $(, $label => $value)?).increment(1);
    };
}

/// Why a request is sent again, or would be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause {
    Nonce,
    Token,
    Clock,
}

impl Cause {
    #[cfg_attr(not(feature = "metrics"), allow(dead_code))]
    fn name(self) -> &'static str {
        match self {
            Self::Nonce => "nonce",
            Self::Token => "token",
            Self::Clock => "clock",
        }
    }
}

/// Why a token is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// There is none.
    First,
    /// Ahead of its end.
    Due,
    /// It has ended.
    Over,
    /// A server refused it.
    Refused,
    /// A request insists on a newer one.
    Forced,
}

impl Need {
    #[cfg_attr(not(any(feature = "tracing", feature = "metrics")), allow(dead_code))]
    fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Due => "due",
            Self::Over => "over",
            Self::Refused => "refused",
            Self::Forced => "forced",
        }
    }
}

/// A request with a fresh proof goes out.
pub(crate) fn proof_made(role: Role) {
    count!("tower_dpop_proofs", "server" => server(role));
}

/// An everyday thing: nonces end.
pub(crate) fn nonce_challenge(origin: &str, role: Role) {
    tell!(
        DEBUG,
        server.address = span::address(origin),
        server.port = span::port(origin),
        "the server asks for another nonce"
    );
    count!("tower_dpop_nonce_challenges", "server" => server(role));
}

pub(crate) fn sent_again(cause: Cause) {
    count!("tower_dpop_resends", "cause" => cause.name());
}

/// Its body can be sent only once.
pub(crate) fn not_sent_again(cause: Cause) {
    count!("tower_dpop_resends_refused", "cause" => cause.name());
}

fn token_wanted(need: Need) {
    count!("tower_dpop_renewals", "cause" => need.name());
}

fn token_fetched() {
    tell!(DEBUG, "an access token arrived");
    count!("tower_dpop_token_requests", "outcome" => "token");
}

/// Once for each step of the back-off, since there is one fetch for each.
fn token_request_failed(error: &Error, retry_in: Duration) {
    tell!(
        WARN,
        error = %error,
        error.type = error.kind_name(),
        permanent = error.is_permanent(),
        retry_in_seconds = retry_in.as_secs_f64(),
        "no access token"
    );
    count!("tower_dpop_token_requests", "outcome" => error.kind_name());
}

/// Nobody wants it any more: its token was forgotten, or its runtime ended.
fn token_request_given_up() {
    count!("tower_dpop_token_requests", "outcome" => "given_up");
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
            server.address = span::address(origin),
            server.port = span::port(origin),
            offset_seconds = seconds,
            "the server's clock is another than this machine's; proofs for it are dated by its clock from now on"
        );
    } else {
        tell!(
            DEBUG,
            server.address = span::address(origin),
            server.port = span::port(origin),
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

/// Those that are known go on to serve. Once for each step of the back-off.
pub(crate) fn metadata_not_renewed(issuer: &str, error: &Error, retry_in: Duration) {
    tell!(
        WARN,
        issuer,
        error = %error,
        error.type = error.kind_name(),
        retry_in_seconds = retry_in.as_secs_f64(),
        "an authorization server's metadata could not be renewed; the old ones go on to serve"
    );
}

#[cfg_attr(not(feature = "metrics"), allow(dead_code))]
fn server(role: Role) -> &'static str {
    match role {
        Role::AuthorizationServer => "authorization",
        Role::ResourceServer => "resource",
    }
}
