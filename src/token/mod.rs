//! The layer that gets an access token, and gives it to every request that is to have one.
//!
//! [`Token`] puts an [`AccessToken`](crate::AccessToken) into the extensions of each request to an origin of
//! its [`Audience`](crate::Audience), for a [`DpopLayer`](crate::DpopLayer) below it to send. The first
//! request fetches the token, and all others share it; its successor is fetched before it ends, and when a
//! resource server refuses it. A request that carries an `AccessToken` for its origin already keeps it.
//!
//! ```
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower::{ServiceExt, service_fn};
//! use tower::ServiceBuilder;
//! use tower_dpop::{Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! # // In place of this function stands your HTTP client.
//! # let client = service_fn(|request: Request<Full<Bytes>>| async move {
//! #     let token = r#"{"access_token":"abc","token_type":"DPoP","expires_in":300}"#;
//! #     let body = if request.uri().path() == "/token" { token } else { "hello" };
//! #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(body)))
//! # });
//! let dpop = DpopLayer::new(DpopKey::generate()?);
//! let request = TokenRequest::client_credentials("https://as.example.com/token", "m2m.dpop")
//!     .client_secret_post("secret")
//!     .scope("api");
//! let audience = Audience::origins(["https://api.example.com"])?;
//! let tokens = TokenLayer::new(&dpop, client.clone(), request, audience)?;
//!
//! let api = ServiceBuilder::new()
//!     .layer(tokens)   // which token?
//!     .layer(dpop)     // prove the key: innermost, so that every sending has its own proof
//!     .service(client);
//!
//! let request = Request::get("https://api.example.com/orders").body(Full::default())?;
//! let response = api.oneshot(request).await?;
//! # assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! # The life of a token
//!
//! | the token is | what a request does |
//! |---|---|
//! | fresh | takes it |
//! | due: 65 to 85 % of its life are over, drawn once for each token | takes it; the first to find it so starts a fetch that nobody waits for |
//! | refused by a resource server | waits for the fetch of the next one, for a second; the old one serves whenever the authorization server is slow or in trouble |
//! | not there, or over | waits for the fetch, whoever started it |
//!
//! A token is over 10 s before its end (a tenth of its life, for short ones), counted from the start of the
//! token request on a clock that does not jump. If the wall clock says that it has ended, as after a suspend, it
//! is due.
//!
//! **A fetch** runs in a task of its own, in the Tokio runtime of the caller that needs it, and has 10 s in
//! all ([`TokenRequest::timeout`]; 60 s for what is good once, as a refresh token is, and a
//! few times that where a store has to be waited for or a refusal asks for another try). One at a time: all that wait share its token or its error, and whoever stops
//! waiting changes nothing for it or for the others.
//!
//! **After a failure** the next fetch waits 0.25 s, then twice as long each time up to 30 s, less a random part
//! of up to a half; or as long as `Retry-After` asks, up to 300 s. Meanwhile a token that has not ended serves,
//! and who has none gets the last error at once. Refusals that will not pass by themselves
//! ([`Error::is_permanent`](crate::Error::is_permanent)) are no exception: the change that ends them may be the
//! server's.
//!
//! **A 401 with `invalid_token`**, in a `DPoP` or a `Bearer` challenge, refuses the very token that was sent, and
//! the request is sent again with the next one if its body can be: it waits for that as long as the fetch takes,
//! and gets the 401 if there is none. Whoever brings such an answer for an old token gets the current one. A
//! server that goes on refusing is shown a new token ever more seldom, every 30 s at last, and one that
//! refuses each token after a while costs about a dozen a minute; its other answers are passed on.
//!
//! **How often a request is sent**: four times at the most, by both layers together. Twice more for nonces, and
//! once for a new token or a corrected clock. [`DpopLayer::replay`](crate::DpopLayer::replay) sets which bodies are
//! sent again, and whether only those of idempotent methods ([`IdempotentOnly`](crate::IdempotentOnly)) or none
//! ([`NoReplay`](crate::NoReplay)). The outermost of the two layers counts anew in each `call`, so a retry layer
//! above them has its own say. (A layer between the two must hand on responses with their extensions, where they
//! tell each other what was sent.)
//!
//! # More than one token, and by hand
//!
//! A request with [`TokenParameters`] in its extensions gets a token of its own scope, resource or audience. Each
//! combination lives by itself: one whose fetch stalls does not slow the others. (A refresh token is the
//! exception: it is used once at a time, whatever it is used for.)
//!
//! [`ForceRenewal`] in a request's extensions insists on a new token. [`TokenLayer::access_token`] fetches the
//! token before the first request, or for other uses; [`TokenLayer::forget_tokens`] forgets them.
//!
//! ```
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower::{ServiceExt, service_fn};
//! use tower_dpop::{ForceRenewal, TokenParameters};
//! # use tower::ServiceBuilder;
//! # use tower_dpop::{Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! # let client = service_fn(|request: Request<Full<Bytes>>| async move {
//! #     let token = r#"{"access_token":"abc","token_type":"DPoP","expires_in":300}"#;
//! #     let body = if request.uri().path() == "/token" { token } else { "hello" };
//! #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(body)))
//! # });
//! # let dpop = DpopLayer::new(DpopKey::generate()?);
//! # let request = TokenRequest::client_credentials("https://as.example.com/token", "m2m.dpop");
//! # let audience = Audience::origins(["https://api.example.com"])?;
//! # let tokens = TokenLayer::new(&dpop, client.clone(), request, audience)?;
//! # let api = ServiceBuilder::new().layer(tokens.clone()).layer(dpop).service(client);
//! // At the program's start: is the authorization server there, and the secret right?
//! tokens.access_token().await?;
//!
//! let request = Request::get("https://api.example.com/orders")
//!     .extension(TokenParameters::new().scope("orders:read"))
//!     .extension(ForceRenewal::now())
//!     .body(Full::default())?;
//! let response = api.oneshot(request).await?;
//! # assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! # The client for token requests
//!
//! It is a service of its own, for requests with a `Full<Bytes>` body; the layer wraps it in the same
//! `DpopLayer`, so a token request has a proof, and the key and the nonces are those of the stack. Give it
//! the plain HTTP client, not a stack with limits that the API's requests share: they would wait for each
//! other. For the same reason it must not be one single connection that the API's requests use too: an answer
//! that refused the token is kept until the new one is there. It must not follow redirects: the request holds
//! the client's secret.

mod cache;
mod cell;
mod client;
mod extensions;
mod future;
mod grant;
mod held;
mod keeper;
mod layer;
mod partitions;
mod request;
pub(crate) mod response;
mod service;
#[cfg(test)]
mod simulation;
mod state;
mod store;

pub(crate) use self::extensions::check_resource;
pub use self::{
    extensions::{ForceRenewal, TokenParameters},
    future::ResponseFuture,
    grant::Grant,
    layer::TokenLayer,
    request::TokenRequest,
    service::Token,
    store::{FileStore, GrantStore, StoredGrant, Storing},
};
