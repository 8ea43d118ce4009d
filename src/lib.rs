//! OAuth 2.0 DPoP (RFC 9449) for every [tower] client: two layers, and requests are signed.
//!
//! A DPoP access token is bound to a key: whoever sends it proves, with each request, to have that key. A
//! token that was stolen is then of no use alone. The price is a signed proof for every single request,
//! nonces that servers hand out and take back, and a token that has to be fetched, shared and renewed. This
//! crate pays it:
//!
//! - [`TokenLayer`] fetches the access token, shares it between all requests, and renews it.
//! - [`DpopLayer`] proves the key: it writes `Authorization: DPoP …` and a fresh proof on every sending, and
//!   answers the servers' nonce challenges.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_dpop::{Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! # let server = tower_dpop::testing::AuthorizationServer::start().await?;
//! # let resource_server = tower_dpop::testing::ResourceServer::start(&server).await?;
//! # let (api_origin, token_endpoint) = (resource_server.origin(), server.token_endpoint());
//! # let secret = tower_dpop::testing::CLIENT_SECRET;
//! // Any tower service that sends requests; here hyper's client.
//! let http = Client::builder(TokioExecutor::new()).build_http();
//!
//! let dpop = DpopLayer::new(DpopKey::generate()?);
//! let request = TokenRequest::client_credentials(token_endpoint, "m2m.dpop")
//!     .client_secret_post(secret)
//!     .scope("api");
//! let tokens = TokenLayer::new(&dpop, http.clone(), request, Audience::origins([api_origin])?)?;
//!
//! let api = ServiceBuilder::new()
//!     .layer(tokens)   // which token?
//!     .layer(dpop)     // prove the key: innermost, so that every sending has its own proof
//!     .service(http);
//!
//! let orders = Request::get(format!("{api_origin}/orders")).body(Full::<Bytes>::default())?;
//! let response = api.oneshot(orders).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! # Which order
//!
//! From the outside in: timeout, retry, redirect → [`TokenLayer`] → [`DpopLayer`] → limits, logging → client.
//!
//! Whatever sends a request more than once belongs above [`DpopLayer`]: servers refuse a proof that they saw
//! before. Redirects belong above it too, so that each hop gets a proof for its own URL, and none if it leads
//! to an origin that is not in the [`Audience`]. The HTTP client itself must neither retry nor redirect. (That
//! hyper's client sends a request again which never left this machine does no harm.) Two [`DpopLayer`]s are an
//! error, and so is a [`TokenLayer`] without a [`DpopLayer`] below it.
//!
//! # What it does
//!
//! - One token request for any number of waiting callers, in a task of its own: a caller that gives up neither
//!   ends nor delays it, and its failure is shared. After a failure the server is spared, longer each time.
//! - A token that still works is used while the next one is fetched: nobody waits at a renewal, and an outage of
//!   the authorization server is not felt before the token really ends.
//! - A token that a server refuses as invalid is renewed, once for all that saw it, and the request sent again. A
//!   late refusal of an old token costs the new one nothing.
//! - A refresh token is used once at a time, replaced when it is rotated, and not sent again when its answer was
//!   lost, unless that is allowed.
//! - A server whose clock differs from this machine's is found out, and its proofs dated by its clock.
//! - Nonces are learned from every answer, kept for each key, origin and role, and never sent elsewhere.
//! - A body that cannot be sent twice is not: the caller gets the server's own answer, and the next request
//!   profits from what was learned. [`Replay`] says how bodies are made again.
//! - A token goes to the origins of its [`Audience`] and to no other; requests to others pass untouched.
//!
//! # What it does not do
//!
//! - Send: that is the client's part, and so are TLS, proxies, pools and timeouts.
//! - Accept less: a `Bearer` token, a token for another key, plain http to another machine are errors.
//! - Serve: to check proofs in a resource server, use a crate made for that. [`proof::Check`] is what the
//!   embedded test servers check with.
//!
//! # Security
//!
//! The private key is wiped from memory when its last handle is dropped. No secret is shown by any `Debug` or
//! error of this crate, and the headers it writes are marked sensitive. Whoever holds both a token and its key
//! holds all: a key belongs in a file that only the program may read.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `testing` | no | an authorization server and a resource server on loopback, for tests |
//! | `tracing` | no | events for nonce challenges, failed token requests, refused tokens and wrong clocks |
//!
//! # Events
//!
//! With the feature `tracing`, under the target `tower_dpop`; the fields hold no secret.
//!
//! | level | what happened | fields |
//! |---|---|---|
//! | debug | a server asks for another nonce | `server.origin` |
//! | debug | an access token arrived | |
//! | info | a server refused the access token as invalid, once for each token | |
//! | warn | no access token: once for each step of the back-off | `error`, `permanent`, `retry_in_seconds` |
//! | warn | the answer does not tell how long the token lives | `assumed_seconds` |
//! | warn | a server's clock is another than ours, and was the reason that it refused a proof (debug, if it was corrected before) | `server.origin`, `offset_seconds` |
//! | warn | a new refresh token could not be stored | `error` |
//!
//! # Debug builds
//!
//! Without optimisation a proof takes ten times as long. These lines in the program's `Cargo.toml` mend it:
//!
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 2
//! ```
//!
//! [tower]: https://docs.rs/tower
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access_token;
mod audience;
mod budget;
mod challenge;
mod clock;
pub mod dpop;
mod error;
mod event;
mod key;
mod nonce;
mod origin;
pub mod proof;
mod random;
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
    replay::{CloneBody, EmptyBody, IdempotentOnly, NoReplay, Replay},
    token::{ForceRenewal, Token, TokenLayer, TokenParameters, TokenRequest},
};

/// The README's code is compiled, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
