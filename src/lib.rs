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
//! And for the ways to a token that are longer than a client id and a secret: [`Grant`], [`Registration`],
//! [`Discovery`] and [`OAuthClient`], which the module [`oauth`] shows at work.
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
//! From the outside in: timeout, redirect, retry → [`TokenLayer`] → [`DpopLayer`] → limits, logging → client.
//!
//! Whatever sends a request more than once belongs above [`DpopLayer`]: servers refuse a proof that they saw
//! before. The HTTP client itself must neither retry nor redirect. Two [`DpopLayer`]s are an error, and so is a
//! [`TokenLayer`] without a [`DpopLayer`] below it. [`which_order`] has the whole picture, and what happens otherwise.
//!
//! # What it does
//!
//! - One token request for any number of waiting callers, in a task of its own: a caller that gives up neither
//!   ends nor delays it, and its failure is shared. After a failure the server is spared, longer each time.
//! - A token that still works is used while the next one is fetched: nobody waits at a renewal, and an outage of
//!   the authorization server is not felt before the token really ends.
//! - A token that a server refuses as invalid is renewed, once for all that saw it, and the request sent again. A
//!   late refusal of an old token costs the new one nothing.
//! - Tokens are had by client credentials, refresh token, authorization code (with PKCE, pushed or not), device code,
//!   token exchange, JWT assertion, or any other [`Grant`]. Clients authenticate by secret, by assertion, by their TLS
//!   certificate or in a way of their own, anew for every attempt.
//! - What is good once, such as a code or a refresh token, is used once at a time, and not sent again when its answer was
//!   lost, unless that is allowed for a refresh token. A [`GrantStore`] keeps refresh tokens past a restart.
//! - A server whose clock differs from this machine's is found out, and its proofs dated by its clock.
//! - Nonces are learned from every answer, kept for each key, origin and role, and never sent elsewhere. Those of a server
//!   that takes each but once are used once.
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
//! The private key is wiped from memory when its last handle is dropped, and so are the client's secret, refresh
//! tokens and access tokens; what the HTTP client copies of them while it sends and reads is not. No secret is
//! shown by any `Debug` or error of this crate, and the headers it writes are marked sensitive. Whoever holds both
//! a token and its key holds all: a key belongs in a file that only the program may read.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `aws-lc-rs` | no | `AwsLcRs`: keys that sign four times as fast, and RSA and Ed25519 keys. Takes a C compiler |
//! | `fips` | no | the same with the FIPS module of AWS-LC. Takes Go and CMake |
//! | `metrics` | no | counters, for whatever recorder of the `metrics` crate the program installs |
//! | `retry` | no | a `RetryPolicy` for `tower::retry` |
//! | `testing` | no | an authorization server and a resource server on loopback, for tests |
//! | `tracing` | no | spans for each sending and each token request; events for nonce challenges, failures, refused tokens and wrong clocks |
//!
//! # Spans and events
//!
//! With the feature `tracing`, under the target `tower_dpop`. The fields are named as OpenTelemetry's conventions for
//! HTTP clients name them; they hold no secret, and of URLs nothing but host and port.
//!
//! | level | span | fields |
//! |---|---|---|
//! | debug | `send`: one sending of a signed request, of either server; what the layers below tell belongs to it | `http.request.method`, `server.address`, `server.port`, `http.request.resend_count` (of requests to a resource server), `http.response.status_code`, `error.type`, `otel.kind` |
//! | debug | `fetch_token`: a token request with all its sendings. It follows from the request that started it, and may outlive it | `cause` (see the counter `tower_dpop_renewals`), `error.type` |
//!
//! A challenge that is answered is no error.
//!
//! | level | what happened | fields |
//! |---|---|---|
//! | debug | a server asks for another nonce | `server.address`, `server.port` |
//! | debug | an access token arrived | |
//! | info | a server refused the access token as invalid, once for each token | |
//! | warn | no access token: once for each step of the back-off | `error`, `error.type`, `permanent`, `retry_in_seconds` |
//! | warn | the answer does not tell how long the token lives | `assumed_seconds` |
//! | warn | a server's clock is another than ours, and was the reason that it refused a proof (debug, if it was corrected before) | `server.address`, `server.port`, `offset_seconds` |
//! | warn | a new refresh token could not be stored | `error` |
//! | warn | an authorization server's metadata could not be renewed; the old ones go on to serve | `issuer`, `error`, `error.type`, `retry_in_seconds` |
//!
//! # Counters
//!
//! With the feature `metrics`. A nonce challenge doubles what a request costs, and nothing else makes that visible.
//!
//! | counter | label | counts |
//! |---|---|---|
//! | `tower_dpop_proofs` | `server`: `resource`, `authorization` | sendings, each with a proof of its own |
//! | `tower_dpop_nonce_challenges` | `server` | answers that asked for another nonce (those to requests that you mark [`ToAuthorizationServer`] yourself are yours to read, and not counted) |
//! | `tower_dpop_resends` | `cause`: `nonce`, `token`, `clock` | requests that the layers sent again, and why |
//! | `tower_dpop_resends_refused` | `cause` | requests that would have been, but for their body: see [`Replay`] |
//! | `tower_dpop_token_requests` | `outcome`: `token`, or what failed: `refused` (by the authorization server), `transport`, `timeout`, `bad_response`, `downgrade`, `grant_uncertain`, `grant_over`, `other_key`, `metadata`, `algorithm`, `store`, `config`, `runtime`, `sign`; `given_up` if nobody wanted it any more | token requests that ended (nonce challenges within one are counted above) |
//! | `tower_dpop_renewals` | `cause`: `first`, `due`, `over`, `refused`, `forced` | token requests that began, and why: there was no token, it will end soon, it has ended, a server refused it, a request insisted ([`ForceRenewal`]) |
//!
//! # Speed
//!
//! A signed request costs its signature, and little else: see [`performance`] for figures, for faster signers, and for the
//! lines in `Cargo.toml` that spare debug builds a millisecond for each proof.
//!
//! [tower]: https://docs.rs/tower
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access_token;
mod audience;
mod budget;
mod caught;
mod challenge;
mod clock;
pub mod dpop;
mod error;
mod event;
mod json;
mod key;
mod nonce;
pub mod oauth;
mod origin;
pub mod performance;
pub mod proof;
mod random;
mod replay;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;
pub mod which_order;

#[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
pub use self::key::AwsLcRs;
#[cfg(feature = "retry")]
pub use self::retry::RetryPolicy;
pub use self::{
    access_token::{AccessToken, ToAuthorizationServer},
    audience::Audience,
    challenge::Challenge,
    dpop::{Dpop, DpopLayer},
    error::{BoxError, Error, OAuthError},
    key::{Algorithm, DpopKey, Es256Signer},
    oauth::{
        AuthorizationRequest, ClientAuthentication, DeviceAuthorization, Discovery, OAuthClient,
        PendingAuthorization, PrivateKeyJwt, Registration, ResourceMetadata, ServerMetadata,
    },
    origin::Origin,
    replay::{CloneBody, EmptyBody, IdempotentOnly, NoReplay, RecordedBody, Replay, ReplayBody},
    token::{
        FileStore, ForceRenewal, Grant, GrantStore, StoredGrant, Token, TokenLayer,
        TokenParameters, TokenRequest,
    },
};

/// The README's code is compiled, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
