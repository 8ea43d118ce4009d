//! Both layers around a tonic `Channel`, over TCP with TLS. The server checks tokens and proofs by a crate
//! that is not ours; the authorization server is on another origin.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod calls;
mod challenges;
mod deadlines;
mod early;
mod readiness;
mod world;
