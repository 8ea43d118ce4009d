//! An authorization server and a resource server on loopback, for tests (feature `testing`).
//!
//! They are real HTTP servers, for HTTP/1.1 and HTTP/2, and enforce every check of RFC 9449; they record
//! what arrives and can be told to fail. Anything that speaks HTTP can be tested with them.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_dpop::{
//!     Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest,
//!     testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! let authorization_server = AuthorizationServer::start().await?;
//! let resource_server = ResourceServer::start(&authorization_server).await?;
//! resource_server.nonces(Nonces::required());
//!
//! let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let dpop = DpopLayer::new(DpopKey::generate()?);
//! let request = TokenRequest::client_credentials(authorization_server.token_endpoint(), CLIENT_ID)
//!     .client_secret_basic(CLIENT_SECRET);
//! let audience = Audience::origins([resource_server.origin()])?;
//! let tokens = TokenLayer::new(&dpop, http.clone(), request, audience)?;
//! let api = ServiceBuilder::new().layer(tokens).layer(dpop).service(http);
//!
//! let request = Request::get(resource_server.url("/orders?page=2")).body(Full::default())?;
//! let response = api.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//!
//! assert_eq!(authorization_server.requests().len(), 1);
//! let [challenged, accepted] = &resource_server.requests()[..] else {
//!     panic!("one request, sent again with the nonce")
//! };
//! assert_eq!(challenged.refused(), Some("the proof has no nonce"));
//! assert_eq!(accepted.refused(), None);
//! assert_eq!(accepted.claim("htu"), Some(resource_server.url("/orders")));
//! assert_ne!(accepted.claim("jti"), challenged.claim("jti"));
//! # Ok(())
//! # }
//! ```
//!
//! # What is checked
//!
//! The URL of a request is the server's `origin`, which names `127.0.0.1`, and the path that was asked for; a
//! proof for `localhost` is one for another server.
//!
//! By both: exactly one `DPoP` header with a proof that [`Check`](crate::proof::Check) accepts for the method
//! and the URL of the request; it is at most 60 s old and 10 s ahead of the server's clock; its `jti` was
//! never used with this key before; its nonce is what [`Nonces`] ask for. With [`Nonces::off`] it has none.
//!
//! By [`AuthorizationServer`], in this order:
//!
//! | request | answer |
//! |---|---|
//! | to another path than `/token` | 404 |
//! | by another method than POST | 405 |
//! | not form-urlencoded, a parameter twice, a secret in the URL | 400 `invalid_request` |
//! | with a proof that is missing or wrong, or has an `ath` | 400 `invalid_dpop_proof` |
//! | without a good nonce | 400 `use_dpop_nonce` |
//! | with a `jti` that was used before | 400 `invalid_dpop_proof` |
//! | with two client authentication methods | 400 `invalid_request` |
//! | of an unknown client, or with a wrong secret | 401 `invalid_client` |
//! | without `grant_type`; with another than `client_credentials` and `refresh_token` | 400 `invalid_request`; `unsupported_grant_type` |
//! | to refresh without `refresh_token` | 400 `invalid_request` |
//! | with a refresh token that is unknown, revoked, or another client's | 400 `invalid_grant` |
//! | of a public client, with a refresh token that is bound to another key | 400 `invalid_grant` |
//! | with a refresh token that was used before | 400 `invalid_grant`; all tokens of its grant are revoked |
//! | with a `scope` that is none, or more than the refresh token's; with a `resource` that is none | 400 `invalid_scope`; `invalid_target` |
//!
//! The first refresh token comes from [`issue_refresh_token`](AuthorizationServer::issue_refresh_token); how
//! long one is good is for [`rotate_refresh_tokens`](AuthorizationServer::rotate_refresh_tokens) and
//! [`refresh_token_grace`](AuthorizationServer::refresh_token_grace) to say. An access token is bound to the
//! key of the proof that it was asked for with.
//!
//! By [`ResourceServer`], in this order:
//!
//! | request | answer |
//! |---|---|
//! | without `Authorization`, or with a scheme it does not know | 401, a challenge without error |
//! | with two of them, or one without a token68 | 400 `invalid_request` |
//! | with a token as `Bearer` | 401 `invalid_token` |
//! | with a token that is unknown, expired, revoked or forged | 401 `invalid_token` |
//! | with a proof that is missing or wrong, or has another token's `ath` | 401 `invalid_dpop_proof` |
//! | with a proof of another key than the token's | 401 `invalid_token` |
//! | without a good nonce | 401 `use_dpop_nonce` |
//! | with a `jti` that was used before | 401 `invalid_dpop_proof` |
//!
//! It answers all others with 200 and a JSON object of what it saw: `client_id`, `scope`, `method`, `path`
//! and `body`. It serves any path, and does not look at a signed token's `aud`.
//!
//! A body of more than 1 MiB is answered with 413 by either.
//!
//! # Not for production
//!
//! They record all that arrives, secrets included, and keep the tokens that they gave.

mod answer;
mod authorization_server;
mod client;
mod expiring;
mod nonces;
mod record;
mod recorded;
mod refresh_tokens;
mod resource_server;
mod server;
mod shared;
mod tasks;
mod token_endpoint;
mod tokens;
mod used_proofs;

pub use self::{
    authorization_server::AuthorizationServer, nonces::Nonces, recorded::Recorded,
    resource_server::ResourceServer, tokens::TokenFormat,
};

/// The id of the client that an [`AuthorizationServer`] knows from its start.
pub const CLIENT_ID: &str = "m2m.dpop";

/// Its secret. It holds what clients forget to encode: in a form, in Basic, or in both.
pub const CLIENT_SECRET: &str = "s3cret:+/ 100%&=";
