//! How a request's body is made a second time.
//!
//! A nonce challenge and a renewed token are answered by sending the request once more. Whether that can be
//! done depends on the body; where it cannot, the caller gets the server's own answer, and what was learned
//! from it serves the next request. A body is never sent empty or half in place of itself.

use http::Request;
use http_body::Body;

/// Makes a body a second time, or says that it cannot.
///
/// Asked before the request is sent for the first time, while the body is still whole. [`CloneBody`] is the
/// default; [`DpopLayer::replay`](crate::DpopLayer::replay) sets another.
pub trait Replay<B> {
    /// The same body again, or `None` if it can be sent only once.
    fn replay(&self, body: &B) -> Option<B>;
}

/// Clones the body: for `Full<Bytes>`, `Empty<Bytes>`, `String` and whatever else is cheap to clone.
///
/// The clone must be independent of the original. A type whose clones share one stream must not be used
/// with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneBody;

impl<B: Clone> Replay<B> for CloneBody {
    fn replay(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

/// Sends requests again that have no body, and those only: for body types that cannot be cloned.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyBody;

impl<B: Body + Default> Replay<B> for EmptyBody {
    fn replay(&self, body: &B) -> Option<B> {
        body.is_end_stream().then(B::default)
    }
}

/// Sends no request again, whatever its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReplay;

impl<B> Replay<B> for NoReplay {
    fn replay(&self, _: &B) -> Option<B> {
        None
    }
}

/// The whole request again.
pub(crate) fn spare<B>(policy: &impl Replay<B>, request: &Request<B>) -> Option<Request<B>> {
    let mut spare = Request::new(policy.replay(request.body())?);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    *spare.extensions_mut() = request.extensions().clone();
    Some(spare)
}
