//! Who the client is at an authorization server, and what it asks there beside tokens.
//!
//! [`Registration`] says which client it is and how it authenticates; [`Discovery`] finds the server's endpoints;
//! [`OAuthClient`] begins authorizations, revokes and introspects tokens; what it gets to begin with is a
//! [`Grant`](crate::Grant), for a [`TokenRequest`](crate::TokenRequest). From then on the
//! [`TokenLayer`](crate::TokenLayer) does the rest.
//!
//! The authorization code grant (RFC 6749, section 4.1), with discovery, a pushed authorization request, PKCE, and the
//! key's thumbprint promised in `dpop_jkt`:
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::Full;
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_dpop::{
//!     Audience, AuthorizationRequest, Discovery, DpopKey, DpopLayer, OAuthClient, Registration, TokenLayer, TokenRequest,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! # let server = tower_dpop::testing::AuthorizationServer::start().await?;
//! # let resource_server = tower_dpop::testing::ResourceServer::start(&server).await?;
//! # server.add_public_client("app");
//! # let (issuer, api_origin) = (server.issuer(), resource_server.origin());
//! let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let dpop = DpopLayer::new(DpopKey::generate()?);
//! let registration = Registration::new(Discovery::new(http.clone(), issuer)?, "app");
//! let client = OAuthClient::new(&dpop, http.clone(), registration.clone())?;
//!
//! let request = AuthorizationRequest::new("http://127.0.0.1:8123/callback").scope("orders");
//! let pending = client.push(request).await?;
//! println!("Open {}", pending.url());
//! // The browser comes back to the redirect URI, with the code.
//! # let page = Request::get(pending.url()).body(Full::<Bytes>::default())?;
//! # let redirect = http.request(page).await?.headers()["location"].to_str()?.to_owned();
//! let grant = pending.answered(&redirect)?;
//!
//! let audience = Audience::origins([api_origin])?;
//! let tokens = TokenLayer::new(&dpop, http.clone(), TokenRequest::new(registration, grant), audience)?;
//! let api = ServiceBuilder::new().layer(tokens).layer(dpop).service(http);
//! let orders = Request::get(format!("{api_origin}/orders")).body(Full::default())?;
//! assert_eq!(api.oneshot(orders).await?.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! To survive a restart, give the token request a [`store`](crate::TokenRequest::store).
//!
//! # Several servers, several keys
//!
//! Use a key for each authorization server (FAPI 2.0: a server could else pass on a token of another, which the client
//! would prove with the same key). Each has its own [`DpopLayer`](crate::DpopLayer), for its
//! [`TokenLayer`](crate::TokenLayer) and its [`OAuthClient`]; all token layers may stand in one stack, above any one of
//! the DPoP layers, since a token is proved with the key that it is bound to:
//!
//! ```text
//! ServiceBuilder::new().layer(tokens_of_a).layer(tokens_of_b).layer(dpop_of_a).service(http)
//! ```
//!
//! # What it does not do
//!
//! It registers no client (RFC 7591), reads no ID token, keeps no sessions of users, and opens no browser.

pub(crate) mod answer;
pub(crate) mod ask;
mod authentication;
mod authorization;
mod body;
mod client;
mod device;
mod discovery;
mod document;
mod endpoints;
pub(crate) mod form;
mod get;
mod introspection;
mod metadata;
mod registration;
mod resource_metadata;
mod url;

pub use self::{
    authentication::{
        Authenticating, AuthenticationContext, ClientAuthentication, Credentials, PrivateKeyJwt,
    },
    authorization::{AuthorizationRequest, PendingAuthorization},
    client::OAuthClient,
    device::DeviceAuthorization,
    discovery::Discovery,
    endpoints::Endpoints,
    introspection::Introspection,
    metadata::ServerMetadata,
    registration::Registration,
    resource_metadata::ResourceMetadata,
};
pub(crate) use self::{endpoints::Endpoint, url::PlainHttp};
