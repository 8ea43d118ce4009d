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
//! and the URL of the request; it is signed with ES256, or, with the feature `aws-lc-rs`, with another of the
//! [algorithms](Profile::algorithms) of the server's [`Profile`]; it is at most 60 s old and 10 s ahead of the server's
//! clock; its `jti` was never used with this key before; its nonce is what [`Nonces`] ask for. With [`Nonces::off`] it has none.
//!
//! ## By the authorization server
//!
//! | path | what | method | proof | client |
//! |---|---|---|---|---|
//! | `/token` | the [token endpoint](AuthorizationServer::token_endpoint) | POST | needed | authenticates |
//! | `/authorize` | the [authorization endpoint](AuthorizationServer::authorization_endpoint) | GET | none | names itself |
//! | `/par` | [pushed authorization requests](AuthorizationServer::pushed_authorization_request_endpoint) | POST | checked if there | authenticates |
//! | `/device` | [device authorization](AuthorizationServer::device_authorization_endpoint) | POST | checked if there | authenticates |
//! | `/revoke` | [revocation](AuthorizationServer::revocation_endpoint) | POST | checked if there | authenticates |
//! | `/introspect` | [introspection](AuthorizationServer::introspection_endpoint) | POST | checked if there | authenticates, is not public |
//! | `/.well-known/oauth-authorization-server`, `/.well-known/openid-configuration` | metadata (RFC 8414) | GET | none | none |
//! | `/jwks` | the key of [signed](TokenFormat::Signed) tokens | GET | none | none |
//!
//! A client authenticates by `client_secret_basic`, `client_secret_post`, `client_secret_jwt` (HS256),
//! `private_key_jwt` (with the algorithm of its [key](crate::DpopKey::algorithm): ES256, or with the feature `aws-lc-rs`
//! any), or, if it is public, by its id alone. An assertion is good for one request, even if that is answered with a nonce
//! challenge; it must end within five minutes, and be for the issuer, or what else
//! [`strict_assertion_audience`](AuthorizationServer::strict_assertion_audience) leaves.
//!
//! By all endpoints that take a POST, in this order, after which their own follow:
//!
//! | request | answer |
//! |---|---|
//! | to another path than these | 404 |
//! | by another method | 405 |
//! | not form-urlencoded, a parameter twice, a secret in the URL | 400 `invalid_request` |
//! | with a proof that is missing where it is needed or wrong, or has an `ath` | 400 `invalid_dpop_proof` |
//! | without a good nonce | 400 `use_dpop_nonce` |
//! | with a `jti` that was used before | 400 `invalid_dpop_proof` |
//! | with two client authentication methods, or two client ids | 400 `invalid_request` |
//! | of an unknown client, with a wrong secret, with an assertion that is wrong or was used before | 401 `invalid_client` |
//!
//! `/token`, by the grant:
//!
//! | request | answer |
//! |---|---|
//! | without `grant_type`; with one that is unknown and not [added](AuthorizationServer::add_grant) | 400 `invalid_request`; `unsupported_grant_type` |
//! | without a parameter that the grant needs | 400 `invalid_request` |
//! | with a `scope` that is none, or more than was granted; with a `resource` that is none, or not of those that were granted | 400 `invalid_scope`; `invalid_target` |
//! | with a refresh token that is unknown, revoked, or another client's | 400 `invalid_grant` |
//! | of a public client, with a refresh token that is bound to another key | 400 `invalid_grant` |
//! | with a refresh token that was used before | 400 `invalid_grant`; all tokens of its grant are revoked |
//! | with a code that is unknown, another client's, or older than 60 s | 400 `invalid_grant` |
//! | with a code that was used before | 400 `invalid_grant`; all tokens that came of it are revoked |
//! | with another `redirect_uri`, a wrong `code_verifier`, a proof of another key than `dpop_jkt` | 400 `invalid_grant` |
//! | with a device code that is unknown, was used, or another client's | 400 `invalid_grant` |
//! | with a device code that is over; sooner than the interval; unanswered; denied | 400 `expired_token`; `slow_down`; `authorization_pending`; `access_denied` |
//! | with a `subject_token` or `actor_token` that is not good, or not of its type; with an actor's token or type alone; for a type that is not issued | 400 `invalid_request` |
//! | with an `assertion` of somebody unknown, that is wrong, or whose `jti` was used before | 400 `invalid_grant` |
//!
//! A refusal uses nothing up. An access token is bound to the key of the proof that it was asked for with.
//! The first refresh token comes with a code or a device code, with other grants if
//! [`give_refresh_tokens`](AuthorizationServer::give_refresh_tokens) says so, or from
//! [`issue_refresh_token`](AuthorizationServer::issue_refresh_token); how long one is good is for
//! [`rotate_refresh_tokens`](AuthorizationServer::rotate_refresh_tokens) and
//! [`refresh_token_grace`](AuthorizationServer::refresh_token_grace) to say.
//!
//! `/authorize` has no user to ask: it grants at once, or
//! [denies](AuthorizationServer::deny_authorizations). It refuses these without a redirect:
//!
//! | request | answer |
//! |---|---|
//! | by another method | 405 |
//! | with a parameter twice; without `client_id`, or with an unknown one | 400 `invalid_request` |
//! | with a `request_uri` that is unknown, another client's, was used, or is older than 60 s | 400 `invalid_request_uri` |
//! | without `redirect_uri`, or with one that is neither on loopback nor [registered](AuthorizationServer::add_redirect_uri) | 400 `invalid_request` |
//!
//! All else it answers by 303 to `redirect_uri`, with `state` and `iss` and a `code` or an `error`:
//!
//! | request | `error` |
//! |---|---|
//! | that must be [pushed](AuthorizationServer::require_pushed_authorization_requests) and was not | `invalid_request` |
//! | with a `request` object; with another `response_type` than `code` | `request_not_supported`; `unsupported_response_type` |
//! | without `response_type`; without `code_challenge` by S256; with a `dpop_jkt` that is none | `invalid_request` |
//! | with a `scope` that is none; with a `resource` that is none | `invalid_scope`; `invalid_target` |
//! | that the user denies | `access_denied` |
//!
//! `/par` judges a request in the same way, denials excepted, and answers all refusals by 400. It also refuses
//! one with a `request_uri`, and one with a proof of another key than `dpop_jkt` (`invalid_request`).
//! A request that was pushed with a proof is bound to its key as one with `dpop_jkt`.
//!
//! `/device` refuses a `scope` or a `resource` as the token endpoint does. `/revoke` and `/introspect` refuse a
//! request without `token` with 400 `invalid_request`; `/revoke` refuses another client's token with 400
//! `invalid_grant`, and ends the whole grant with a refresh token; `/introspect` refuses public clients with 401
//! `invalid_client`.
//!
//! ## By the resource server
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
//! and `body`. It serves any path, and does not look at a signed token's `aud`. A GET without a token to
//! `/.well-known/oauth-protected-resource`, or to a path below it, is answered with the metadata of the resource
//! (RFC 9728); see [`metadata_member`](ResourceServer::metadata_member) and
//! [`resource_metadata_in_challenges`](ResourceServer::resource_metadata_in_challenges).
//!
//! A body of more than 1 MiB is answered with 413 by either.
//!
//! # As servers in use do
//!
//! Servers differ: in how old a proof may be, how they compare `htu`, when they ask for a nonce and how they
//! refuse. With a [`Profile`], set by [`AuthorizationServer::profile`] and [`ResourceServer::profile`], these
//! behave as one that is in use.
//!
//! # Not for production
//!
//! They record all that arrives, secrets included, and keep the tokens that they gave.

mod answer;
mod assertion;
mod authorization_request;
mod authorization_server;
mod client;
mod client_assertion;
mod codes;
mod devices;
mod endpoints;
mod expiring;
mod form;
mod grants;
mod issuer;
mod nonces;
mod profile;
mod record;
mod recorded;
mod refresh_tokens;
mod resource_endpoint;
mod resource_metadata;
mod resource_server;
mod server;
mod settings;
mod shared;
mod tasks;
mod token_endpoint;
mod tokens;
mod used_proofs;

pub use self::{
    authorization_server::AuthorizationServer, nonces::Nonces, profile::Profile,
    recorded::Recorded, resource_server::ResourceServer, tokens::TokenFormat,
};

/// The id of the client that an [`AuthorizationServer`] knows from its start.
pub const CLIENT_ID: &str = "m2m.dpop";

/// Its secret. It holds what clients forget to encode: in a form, in Basic, or in both.
pub const CLIENT_SECRET: &str = "s3cret:+/ 100%&=";
