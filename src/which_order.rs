//! Which order: where each middleware belongs, and what happens otherwise. Nothing but text.
//!
//! Two questions decide it:
//!
//! - *Does it send a request more than once?* (retry, hedge, redirect) Then it stands above
//!   [`DpopLayer`](crate::DpopLayer): a proof is good for one sending to one URL.
//! - *Does it decide where a request goes?* (redirect) Then it stands above [`TokenLayer`](crate::TokenLayer), too, so
//!   that each hop asks anew whether it is to have a token.
//!
//! Everything else works in every place. What differs is what it counts, bounds or sees: a call of yours, or each of
//! the sendings that the two layers make of it.
//!
//! # The one to copy
//!
//! ```text
//!  your code
//!     │  one call
//!     ▼
//!  ┌───────────────────────────────────────────────────────────────┐
//!  │ Timeout           bounds the whole call, the wait for a token │
//!  │ LoadShed, Buffer                                              │  once for
//!  │ SetRequestId      one id for the call and all its sendings    │  each call
//!  │ Trace             one span for the call                       │
//!  ├───────────────────────────────────────────────────────────────┤
//!  │ FollowRedirect    each hop: another token, or none            │  once for
//!  │ Retry, Hedge      each try: a new proof                       │  each try
//!  ├───────────────────────────────────────────────────────────────┤
//!  │ TokenLayer        which token?                                │
//!  │ DpopLayer         prove the key                               │  at most four
//!  ├───────────────────────────────────────────────────────────────┤  sendings for
//!  │ RateLimit         counts what the server counts               │  each try
//!  │ ConcurrencyLimit  holds a place only while something is sent  │
//!  │ Timeout           bounds each sending                         │
//!  │ Trace             what really goes out; credentials are masked│
//!  │ Decompression                                                 │
//!  └───────────────────────────────────────────────────────────────┘
//!     │  one sending, with a proof of its own
//!     ▼
//!  the client          retries nothing, follows no redirect
//! ```
//!
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use tower::{ServiceExt, retry::RetryLayer, service_fn};
//! # use tower::ServiceBuilder;
//! # use tower_dpop::{Audience, DpopKey, DpopLayer, TokenLayer, TokenRequest};
//! # #[cfg(feature = "retry")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tower_dpop::BoxError> {
//! # use tower_dpop::RetryPolicy;
//! # let client = service_fn(|request: Request<Full<Bytes>>| async move {
//! #     let token = r#"{"access_token":"abc","token_type":"DPoP","expires_in":300}"#;
//! #     let body = if request.uri().path() == "/token" { token } else { "hello" };
//! #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(body)))
//! # });
//! # let dpop = DpopLayer::new(DpopKey::generate()?);
//! # let request = TokenRequest::client_credentials("https://as.example.com/token", "m2m.dpop");
//! # let audience = Audience::origins(["https://api.example.com"])?;
//! # let tokens = TokenLayer::new(&dpop, client.clone(), request, audience)?;
//! let api = ServiceBuilder::new()
//!     .timeout(Duration::from_secs(30))
//!     .layer(RetryLayer::new(RetryPolicy::new()))   // feature `retry`
//!     .layer(tokens)                                // which token?
//!     .layer(dpop)                                  // prove the key
//!     .concurrency_limit(64)
//!     .service(client);
//! # let request = Request::get("https://api.example.com/orders").body(Full::default())?;
//! # assert_eq!(api.oneshot(request).await?.status(), 200);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "retry"))]
//! # fn main() {}
//! ```
//!
//! The client that fetches tokens, the second argument of [`TokenLayer::new`](crate::TokenLayer::new), is the plain
//! client, or a stack of its own: not one that shares its limits with the API's requests.
//!
//! # What happens otherwise
//!
//! *Above* means above `TokenLayer`; *between*, below it and above `DpopLayer`; *below*, below `DpopLayer`.
//!
//! | middleware | belongs | elsewhere |
//! |---|---|---|
//! | `Retry` | above | Between works, with one token for all tries. **Below, it sends the same proof again**: a server that has served the first sending, and whose answer was lost, refuses the second with `invalid_dpop_proof`. |
//! | `Retry` whose `clone_request` leaves out the extensions | above | Between, the token is in the extensions, so the second try has none, and is refused. |
//! | `Hedge` | above | Between works. (A [`ReplayBody`](crate::ReplayBody) is for one sending at a time.) **Below, both sendings have the same proof**: the second is refused at once, and the refusal is the answer, while the first is still being served. |
//! | `FollowRedirect`, to the same origin | above | Between works. **Below, the proof for the old URL goes to the new one**, and is refused. |
//! | `FollowRedirect`, to another origin | above | Between, neither token nor proof goes along. **Below, a stranger sees the proof**, with your public key and the hash of the token: tower-http takes `Authorization` away there and leaves `DPoP`. With a policy of yours that keeps headers, **the stranger gets the token**: this happens after the two layers, and they cannot see it. |
//! | `FollowRedirect`, to another origin and back | above | Between, the redirect has dropped the extensions, and the token with them: 401 on the way back. Below, 401. |
//! | `FollowRedirect`, to a stranger who answers `invalid_token` | above | Between and below, `TokenLayer` takes that for an answer of the API, renews the token and sends once more. |
//! | `Timeout` | above | Between, it bounds all sendings with one token and not the wait for a token; below, each sending. In no place does it end the token request, which serves the next call. |
//! | `ConcurrencyLimit` | below | Above, calls that wait for a token hold a place, and keep others out that need none. |
//! | `LoadShed` over `ConcurrencyLimit` | below | Above, calls are shed while the authorization server is slow and the API idle. |
//! | `LoadShed` alone, `Buffer` | anywhere | |
//! | `RateLimit` | below, for a limit of the server's; above, for one of yours | Above it counts calls, below sendings. |
//! | `Trace` | anywhere | Above, a span for each call; below, for each sending. `Authorization` and `DPoP` are there below only, and shown as `Sensitive`. |
//! | `SetRequestId`, `PropagateRequestId` | above | Between, a call whose token is renewed has several ids, and below each sending; the answer has the last. |
//! | `Decompression` | anywhere | |
//! | whatever drops a request's extensions | above | Between, the token is gone: an error that says so ([`is_layer_order`](crate::Error::is_layer_order)); the request goes out without token and proof. |
//! | whatever drops an answer's extensions | above | Between, the two layers do not know of each other's sendings: seven at the worst, not four. |
//!
//! And the two layers themselves:
//!
//! | order | what happens |
//! |---|---|
//! | `DpopLayer` above `TokenLayer`, or no `DpopLayer` | Every request fails with an error that names the right order ([`is_layer_order`](crate::Error::is_layer_order)). It has gone out by then, without token and proof: a layer cannot see what stands below it. |
//! | `TokenLayer` above two `DpopLayer`s | Every request fails with such an error, and nothing is sent. |
//! | a `DpopLayer` on each side of `TokenLayer` | The upper one sees no token and does nothing. |
//!
//! # Clients that do more than send
//!
//! - **reqwest** retries and redirects by itself, below the layers: build it with `redirect::Policy::none()` and
//!   `retry::never()`. It also rewrites paths that are not in its form, such as `/a/../b` or `/{id}`, after they were
//!   signed: the server refuses the proof then.
//! - **hyper-util**'s client sends a request again only if it never left this machine. That does no harm.
//! - **tonic**'s `Channel` neither retries nor redirects. Its URIs are paths only: set
//!   [`DpopLayer::origin`](crate::DpopLayer::origin). It is the `Channel` that keeps to a call's `grpc-timeout`, anew
//!   for each sending and not while the call waits for a token: a `Timeout` above bounds both. On top belongs
//!   `map_err(tonic::Status::from_error)`: with a boxed error, the compiler takes no call of a generated client in
//!   `tokio::spawn`.
//!
//! # How this is known
//!
//! Each line of the tables is a test, over real servers that refuse a proof which they saw before: `order.rs`,
//! `redirects.rs` and their neighbours in the repository's `stacks/tests`. One goes through all orders of
//! `TokenLayer`, `DpopLayer`, `FollowRedirect` and `Retry`, with redirects to other ports, schemes and hosts: but for
//! the one case named above, no order sends a token anywhere else than to its [`Audience`](crate::Audience).
