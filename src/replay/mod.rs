//! How a request's body is made a second time.
//!
//! A nonce challenge and a renewed token are answered by sending the request once more. Whether that can be
//! done depends on the body; where it cannot, the caller gets the server's own answer, and what was learned
//! from it serves the next request. A body is never sent empty or half in place of itself.

mod body;
mod record;
mod spare;
mod waiting;

use http::Request;
use http_body::Body;

pub use self::body::ReplayBody;
pub(crate) use self::spare::Spare;
use crate::error::BoxError;

/// Makes a body a second time, or says that it cannot.
///
/// [`CloneBody`] is the default; [`DpopLayer::replay`](crate::DpopLayer::replay) sets another.
///
/// | body | policy |
/// |---|---|
/// | `Full<Bytes>`, `String`, and whatever else is cheap to clone | [`CloneBody`] |
/// | a stream, tonic's, axum's, a boxed one: in a [`ReplayBody`] | [`RecordedBody`] |
/// | any, but only requests without a body are to be sent again | [`EmptyBody`] |
/// | any, and nothing is to be sent again | [`NoReplay`] |
pub trait Replay<B> {
    /// The body of the request again, or `None` if it is to be sent only once. Asked before a request is sent, while
    /// the body is still whole; and of a spare, whether it could be sent now.
    fn replay(&self, request: &Request<B>) -> Option<B>;

    /// Asked when the spare body that [`replay`](Self::replay) made is about to be sent, since the first one may
    /// have been read meanwhile: whether it can still be sent whole. From here on it alone is read further.
    fn take_over(&self, spare: &mut B) -> bool {
        let _ = spare;
        true
    }
}

/// Clones the body: for `Full<Bytes>`, `Empty<Bytes>`, `String` and whatever else is cheap to clone.
///
/// The clone must be independent of the original. A type whose clones share one stream must not be used
/// with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CloneBody;

impl<B: Clone> Replay<B> for CloneBody {
    fn replay(&self, request: &Request<B>) -> Option<B> {
        Some(request.body().clone())
    }
}

/// Sends again what a [`ReplayBody`] has kept: for bodies that cannot be cloned. What was longer than its limit
/// is not sent again.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordedBody;

impl<B> Replay<ReplayBody<B>> for RecordedBody
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn replay(&self, request: &Request<ReplayBody<B>>) -> Option<ReplayBody<B>> {
        let body = request.body();
        body.is_whole().then(|| body.again())
    }

    fn take_over(&self, spare: &mut ReplayBody<B>) -> bool {
        spare.take_over()
    }
}

/// Sends requests again that have no body, and those only: for body types that cannot be cloned.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyBody;

impl<B: Body + Default> Replay<B> for EmptyBody {
    fn replay(&self, request: &Request<B>) -> Option<B> {
        request.body().is_end_stream().then(B::default)
    }
}

/// Sends no request again, whatever its body.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReplay;

impl<B> Replay<B> for NoReplay {
    fn replay(&self, _: &Request<B>) -> Option<B> {
        None
    }
}

/// Sends only requests again whose method is idempotent (RFC 9110, section 9.2.2), with bodies as `P` makes
/// them.
///
/// A server that refuses a proof or a token has not served the request, so the others do no harm with it.
/// This is for those who do not believe that of their server.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdempotentOnly<P = CloneBody>(pub P);

impl<B, P: Replay<B>> Replay<B> for IdempotentOnly<P> {
    fn replay(&self, request: &Request<B>) -> Option<B> {
        let idempotent = request.method().is_idempotent();
        idempotent.then(|| self.0.replay(request)).flatten()
    }

    fn take_over(&self, spare: &mut B) -> bool {
        self.0.take_over(spare)
    }
}
