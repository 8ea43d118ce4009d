//! Tower client middleware for OAuth 2.0 DPoP (RFC 9449).
#![forbid(unsafe_code)]

mod access_token;
mod audience;
mod challenge;
mod clock;
pub mod dpop;
mod error;
mod key;
mod nonce;
mod origin;
pub mod proof;
mod replay;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;

pub use self::{
    access_token::{AccessToken, ToAuthorizationServer},
    audience::Audience,
    challenge::Challenge,
    dpop::{Dpop, DpopLayer},
    error::{BoxError, Error, OAuthError},
    key::{Algorithm, DpopKey},
    origin::Origin,
    replay::{CloneBody, EmptyBody, NoReplay, Replay},
    token::{Token, TokenLayer, TokenRequest},
};
