//! The layer that proves possession of the key, on every sending of a request.
//!
//! [`Dpop`] signs a request that carries an [`AccessToken`](crate::AccessToken) in its extensions: it writes
//! `Authorization: DPoP …` and a fresh proof in `DPoP`, both in place of what stood there. It answers a
//! resource server's nonce challenge by sending the request again, where its body can be had again. Every
//! other request passes untouched.
//!
//! Usually a [`TokenLayer`](crate::TokenLayer) above it provides the token. With a token from elsewhere it
//! works alone:
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_dpop::{AccessToken, Audience, DpopKey, DpopLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! let key = DpopKey::generate()?;
//! let audience = Audience::origins(["https://api.example.com"])?;
//! let token = AccessToken::new("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU", &key, audience)?;
//!
//! // In place of this function stands your HTTP client.
//! let client = service_fn(|request: Request<Full<Bytes>>| async move {
//!     assert!(request.headers()["authorization"].to_str().unwrap().starts_with("DPoP "));
//!     assert!(request.headers().contains_key("dpop"));
//!     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//! });
//! let api = ServiceBuilder::new().layer(DpopLayer::new(key)).service(client);
//!
//! let mut request = Request::get("https://api.example.com/orders").body(Full::default())?;
//! request.extensions_mut().insert(token);
//! let response = api.oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//!
//! Whatever sends a request more than once (retry, hedge, redirect) belongs above this layer, so that each
//! sending has its own proof; a server refuses a proof that it saw before. Below it belongs what only
//! carries the request: limits, logging, the client.

mod attempt;
mod body;
mod future;
mod layer;
mod plan;
mod prover;
mod service;

pub(crate) use self::{attempt::SentProof, prover::Prover};
pub use self::{body::ResponseBody, future::ResponseFuture, layer::DpopLayer, service::Dpop};
