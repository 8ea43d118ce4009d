//! The layer that gets an access token, and gives it to every request that is to have one.
//!
//! [`Token`] puts an [`AccessToken`](crate::AccessToken) into the extensions of each request to an origin of
//! its [`Audience`](crate::Audience), for a [`DpopLayer`](crate::DpopLayer) below it to send. The first
//! request fetches the token, all others share it, until it is about to end or a resource server refuses it
//! as invalid; then it is fetched anew, and the refused request sent once more. A request that carries an
//! `AccessToken` for its origin already keeps it.
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
//! # The client for token requests
//!
//! It is a service of its own, for requests with a `Full<Bytes>` body; the layer wraps it in the same
//! `DpopLayer`, so a token request has a proof, and the key and the nonces are those of the stack. Give it
//! the plain HTTP client, not a stack with limits that the API's requests share: they would wait for each
//! other. For the same reason it must not be one single connection that the API's requests use too: an answer
//! that refused the token is kept until the new one is there. It must not follow redirects: the request holds the client's secret.

mod cache;
mod client;
mod future;
mod layer;
mod request;
mod response;
mod service;

pub use self::{future::ResponseFuture, layer::TokenLayer, request::TokenRequest, service::Token};
