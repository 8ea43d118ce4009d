use std::{
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    record::{Kept, Lost, Record, State},
    waiting::Waiting,
};
use crate::error::BoxError;

/// What is kept of a body unless told otherwise: room for most calls and forms, and not so much that a
/// thousand requests at once could be felt.
const DEFAULT_LIMIT: usize = 64 * 1024;

/// A body that can be sent again though it cannot be cloned: it keeps what was read, up to a limit, while it
/// streams.
///
/// All handles ([`again`](Self::again)) share one body and what was kept of it. A handle reads from the
/// beginning: first what was kept, then what is left of the body. So a body of any length can be sent again as
/// long as not more than the limit was read of it. Memory is used for what was read while there are other handles;
/// when the last one reads on, it is let go. Data is shared, not copied, where the body yields [`Bytes`] of a
/// kilobyte or more. Trailers are kept, and an error is passed on to the handle that met it.
///
/// Several handles can be read at the same time as far as the limit goes; beyond it, the one that comes there first
/// goes on. If one [takes over](Self::take_over), as it does when our layers send a request again, it alone goes on,
/// and the others have what was kept. For whom that is not all, it is an error, so that what they feed is cut off and
/// not taken for whole. (A single HTTP/1.1 connection does not outlive that: whoever sends again needs another one.
/// And of two sendings at the same time, as `tower::hedge` makes them, the one that is challenged cuts the other off.)
///
/// For our layers, with the policy [`RecordedBody`](crate::RecordedBody):
///
/// ```no_run
/// use std::io;
///
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::combinators::UnsyncBoxBody;
/// use hyper_util::{client::legacy::Client, rt::TokioExecutor};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_dpop::{BoxError, DpopKey, DpopLayer, RecordedBody, ReplayBody};
///
/// /// Streams of any kind.
/// type Streamed = UnsyncBoxBody<Bytes, io::Error>;
///
/// # async fn run(body: Streamed) -> Result<(), BoxError> {
/// let http = Client::builder(TokioExecutor::new()).build_http::<ReplayBody<Streamed>>();
/// let dpop = DpopLayer::new(DpopKey::generate()?).replay(RecordedBody);
/// let api = ServiceBuilder::new()
///     .map_request(|request: Request<Streamed>| request.map(ReplayBody::new))
///     .layer(dpop)
///     // Below, for a client that takes one type of body: `.map_request(|request| request.map(Body::new))`
///     .service(http);
///
/// let upload = Request::post("https://api.example.com/orders").body(body)?;
/// let response = tokio::spawn(async move { api.oneshot(upload).await }).await??;
/// # Ok(())
/// # }
/// ```
///
/// (An error that is a `Box<dyn Error>`, of the stream or of the client, can keep such a stack out of `tokio::spawn`:
/// "not general enough" is a limit of the compiler. Errors of a type with a name do not.)
///
/// # Before a big upload
///
/// A body of which more was read than is kept cannot be sent again, and a server that challenges it with a reset of the
/// connection may not even be heard. Where nonces are asked for, send something small to the same origin first, through
/// the same stack: a `HEAD` or `OPTIONS` request, say. Its answer teaches the nonce, and the upload is sent once.
///
/// # Elsewhere
///
/// With any other layer that sends a request again, such as `tower::retry`: clone the request with
/// [`again`](Self::again), and ask [`take_over`](Self::take_over) of the clone before it is sent.
pub struct ReplayBody<B> {
    inner: Arc<Inner<B>>,
    id: u64,
    /// What the body said of its length before anything was read.
    hint: SizeHint,
    /// The number of the next frame.
    at: usize,
    /// Bytes of data that were given out.
    given: u64,
}

struct Inner<B> {
    record: Mutex<Record<B>>,
    waiting: Arc<Waiting>,
}

impl<B> ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Keeps up to 64 KiB.
    pub fn new(body: B) -> Self {
        Self::with_limit(body, DEFAULT_LIMIT)
    }

    /// Keeps up to `bytes`. (A frame of less than 128 bytes counts as 128. Of data of a kilobyte or more, the buffer is
    /// kept that it is a part of, which may be longer.)
    pub fn with_limit(body: B, bytes: usize) -> Self {
        let hint = body.size_hint();
        let state = match body.is_end_stream() {
            true => State::Ended,
            false => State::Streaming(Box::pin(body)),
        };
        Self {
            inner: Arc::new(Inner {
                record: Mutex::new(Record::new(state, bytes)),
                waiting: Arc::default(),
            }),
            id: 0,
            hint,
            at: 0,
            given: 0,
        }
    }

    /// The same body from its beginning. Make it before the body is read: what is read while there is no
    /// other handle is not kept.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut record = self.inner.lock();
        let id = record.handles;
        record.handles += 1;
        drop(record);
        Self {
            inner: Arc::clone(&self.inner),
            id,
            hint: self.hint,
            at: 0,
            given: 0,
        }
    }

    /// Whether a handle can still read the body from its beginning: not more than the limit was read, and
    /// it did not fail.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.inner.lock().is_whole()
    }

    /// Makes this handle the only one that reads the body, from the beginning: another has what was kept, and then an
    /// error if that was not all. If the body is not whole any more, nothing changes. Returns whether it is.
    pub fn take_over(&mut self) -> bool {
        let mut record = self.inner.lock();
        if !record.is_whole() {
            return false;
        }
        record.heir = Some(self.id);
        drop(record);
        (self.at, self.given) = (0, 0);
        self.inner.waiting.wake_others(self.id);
        true
    }
}

impl<B> Inner<B> {
    fn lock(&self) -> MutexGuard<'_, Record<B>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body, while a handle reads it. However that ends, it is given back.
struct Lent<'a, B> {
    inner: &'a Inner<B>,
    id: u64,
    alone: bool,
    /// None once it was given back.
    body: Option<Pin<Box<B>>>,
    returned: bool,
}

impl<B> Lent<'_, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    fn poll(mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Kept, BoxError>>> {
        let Some(body) = &mut self.body else {
            unreachable!("it was lent with the body")
        };
        let frame = loop {
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => {
                    let body = self.body.take();
                    if self.give_back(body.map_or(State::Failed, State::Streaming)) {
                        self.inner.waiting.wake_others(self.id);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(None) => {
                    self.give_back(State::Ended);
                    self.inner.waiting.wake_others(self.id);
                    return Poll::Ready(None);
                }
                // Its drop says the rest: the body has failed.
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(Some(Ok(frame))) => {
                    // Neither data nor trailers: nothing that is known could be in it.
                    if let Some(frame) = Kept::new(frame) {
                        break frame;
                    }
                }
            }
        };
        let state = match body.is_end_stream() {
            true => State::Ended,
            false => self.body.take().map_or(State::Failed, State::Streaming),
        };
        let mut record = self.inner.lock();
        let (given, gone) = record.keep(&frame, self.id, self.alone);
        drop(record);
        drop(gone);
        self.give_back(state);
        self.inner.waiting.wake_others(self.id);
        Poll::Ready(Some(match given {
            true => Ok(frame),
            false => Err(Lost::TakenOver.into()),
        }))
    }
}

impl<B> Lent<'_, B> {
    /// Whether others wanted it meanwhile.
    fn give_back(&mut self, state: State<B>) -> bool {
        self.returned = true;
        let mut record = self.inner.lock();
        record.state = state;
        mem::take(&mut record.missed)
    }
}

impl<B> Drop for Lent<'_, B> {
    /// It panicked, or met an error: nobody knows what it would say next.
    fn drop(&mut self) {
        if !self.returned {
            self.give_back(State::Failed);
            self.inner.waiting.wake_others(self.id);
        }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let alone = Arc::strong_count(&this.inner) == 1;
        let mut record = this.inner.lock();
        if this.at < record.gone {
            return Poll::Ready(Some(Err(Lost::TooLong.into())));
        }
        if let Some(kept) = record.kept.get(this.at - record.gone).cloned() {
            let gone = alone.then(|| record.forget(this.at + 1));
            drop(record);
            drop(gone);
            return Poll::Ready(Some(Ok(this.give(kept))));
        }
        match record.state {
            State::Ended => return Poll::Ready(None),
            State::Failed => return Poll::Ready(Some(Err(Lost::Failed.into()))),
            _ if !record.may_read_on(this.id) => {
                return Poll::Ready(Some(Err(Lost::TakenOver.into())));
            }
            State::Lent | State::Streaming(_) => {}
        }
        // Before the body is looked at, so that no news of it is missed.
        this.inner.waiting.add(this.id, cx.waker());
        let gone = alone.then(|| record.forget(this.at));
        let State::Streaming(body) = mem::replace(&mut record.state, State::Lent) else {
            record.missed = true;
            return Poll::Pending;
        };
        drop(record);
        drop(gone);
        let lent = Lent {
            inner: &this.inner,
            id: this.id,
            alone,
            body: Some(body),
            returned: false,
        };
        let waker = Waker::from(Arc::clone(&this.inner.waiting));
        match lent.poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => {
                let frame = frame.map(|frame| frame.map(|kept| this.give(kept)));
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let record = self.inner.lock();
        self.at == record.read() && matches!(record.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        if let Some(upper) = self.hint.upper() {
            hint.set_upper(upper.saturating_sub(self.given));
        }
        hint.set_lower(self.hint.lower().saturating_sub(self.given));
        hint
    }
}

impl<B> ReplayBody<B> {
    fn give(&mut self, frame: Kept) -> Frame<Bytes> {
        self.at += 1;
        match frame {
            Kept::Data(data) => {
                self.given += data.len() as u64;
                Frame::data(data)
            }
            Kept::Trailers(trailers) => Frame::trailers(*trailers),
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        self.inner.waiting.remove(self.id);
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").finish_non_exhaustive()
    }
}
