//! `ReplayBody`, by itself: what is kept, what is let go, who reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

mod support;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Channel, Empty, Full, channel::Sender};
use support::bench::Dice;
use tokio_test::{assert_pending, assert_ready, task};
use tower_dpop::{RecordedBody, Replay, ReplayBody};

type Streamed = Channel<Bytes, Trouble>;

#[derive(Debug)]
struct Trouble;

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("trouble")
    }
}

impl std::error::Error for Trouble {}

/// A body that is given its frames, as a user's stream is.
fn streamed() -> (Sender<Bytes, Trouble>, Streamed) {
    Channel::new(64)
}

async fn send(sender: &mut Sender<Bytes, Trouble>, data: &'static [u8]) {
    sender.send_data(Bytes::from_static(data)).await.unwrap();
}

async fn next<B: Body + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

async fn data<B: Body<Error: fmt::Debug> + Unpin>(body: &mut B) -> Vec<u8> {
    let mut data = next(body).await.unwrap().unwrap().into_data();
    let data = data.as_mut().ok().expect("data");
    data.copy_to_bytes(data.remaining()).to_vec()
}

async fn failure<B>(body: &mut ReplayBody<B>) -> String
where
    B: Body<Error: Into<tower_dpop::BoxError>>,
{
    let frame = next(body).await.expect("an error, and not the end");
    frame.expect_err("an error").to_string()
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())])
}

#[tokio::test]
async fn it_is_the_body_it_was_made_of() {
    let body = ReplayBody::new(Full::<Bytes>::from("whole"));
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "whole");

    let body = ReplayBody::new(Empty::<Bytes>::new());
    assert!(body.is_end_stream());
    assert_eq!(body.size_hint().exact(), Some(0));
    assert!(body.is_whole());
    assert!(body.again().is_end_stream());
}

#[tokio::test]
async fn a_handle_reads_what_was_sent_and_then_what_is_left() {
    let (mut sender, body) = streamed();
    let mut first = ReplayBody::new(body);
    let mut second = first.again();
    send(&mut sender, b"one").await;
    send(&mut sender, b"two").await;
    assert_eq!(data(&mut first).await, b"one");
    drop(first);

    assert!(second.take_over());
    assert_eq!(data(&mut second).await, b"one");
    assert_eq!(data(&mut second).await, b"two");
    send(&mut sender, b"three").await;
    assert_eq!(data(&mut second).await, b"three");
    sender.send_trailers(trailers()).await.unwrap();
    drop(sender);
    let last = next(&mut second).await.unwrap().unwrap();
    assert_eq!(last.trailers_ref(), Some(&trailers()));
    assert!(next(&mut second).await.is_none());
}

#[tokio::test]
async fn trailers_and_the_end_are_kept() {
    let (mut sender, body) = streamed();
    let first = ReplayBody::new(body);
    let (second, third) = (first.again(), first.again());
    send(&mut sender, b"one").await;
    sender.send_trailers(trailers()).await.unwrap();
    drop(sender);
    for handle in [first, second, third] {
        assert!(handle.is_whole());
        let whole = handle.collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers()));
        assert_eq!(whole.to_bytes(), "one");
    }
}

#[tokio::test]
async fn data_is_shared_not_copied() {
    let data = Bytes::from(vec![7; 1024]);
    let mut first = ReplayBody::new(Full::new(data.clone()));
    let mut second = first.again();
    for handle in [&mut first, &mut second] {
        let frame = next(handle).await.unwrap().unwrap();
        let given = frame.into_data().ok().unwrap();
        assert_eq!(given.as_ptr(), data.as_ptr());
    }
}

#[tokio::test]
async fn sizes_count_down_for_each_handle() {
    let mut first = ReplayBody::new(Full::<Bytes>::from("12345"));
    let second = first.again();
    assert_eq!(data(&mut first).await, b"12345");
    assert_eq!(first.size_hint().exact(), Some(0));
    assert!(first.is_end_stream());
    assert_eq!(second.size_hint().exact(), Some(5));
    assert!(!second.is_end_stream());
}

/// A body of unknown length that yields frames of so many bytes.
struct Frames(Vec<usize>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(match self.0.is_empty() {
            true => None,
            false => Some(Ok(Frame::data(vec![1; self.0.remove(0)].into()))),
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// How often it can be read, within a limit of 1000 bytes, if it was read whole before.
async fn is_kept(frames: &[usize]) -> bool {
    let first = ReplayBody::with_limit(Frames(frames.to_vec()), 1000);
    let mut second = first.again();
    let bytes = first.collect().await.unwrap().to_bytes();
    assert_eq!(
        bytes.len(),
        frames.iter().sum::<usize>(),
        "the first is not cut"
    );
    let whole = second.is_whole();
    assert_eq!(second.take_over(), whole);
    match whole {
        true => assert_eq!(second.collect().await.unwrap().to_bytes(), bytes),
        // Never empty, never half: an error.
        false => assert!(failure(&mut second).await.contains("longer than the limit")),
    }
    whole
}

#[tokio::test]
async fn what_is_longer_than_the_limit_is_not_whole_any_more() {
    assert!(is_kept(&[1000]).await);
    assert!(is_kept(&[500, 500]).await);
    assert!(!is_kept(&[1001]).await);
    assert!(!is_kept(&[500, 501]).await);
    assert!(!is_kept(&[400, 400, 400]).await);
    assert!(is_kept(&[]).await);
    // Many short frames take memory, too.
    assert!(is_kept(&[1; 7]).await);
    assert!(!is_kept(&[1; 8]).await);
}

#[tokio::test]
async fn the_default_limit_is_64_kib() {
    for (bytes, whole) in [(65_536, true), (65_537, false)] {
        let first = ReplayBody::new(Frames(vec![bytes]));
        let second = first.again();
        first.collect().await.unwrap();
        assert_eq!(second.is_whole(), whole, "{bytes}");
    }
}

#[tokio::test]
async fn a_long_body_can_be_read_again_while_its_beginning_is_there() {
    let mut first = ReplayBody::with_limit(Frames(vec![400; 100]), 1000);
    let mut second = first.again();
    data(&mut first).await;
    data(&mut first).await;
    assert!(second.take_over());
    drop(first);
    assert_eq!(second.collect().await.unwrap().to_bytes().len(), 40_000);
}

#[tokio::test]
async fn alone_it_keeps_nothing() {
    let mut first = ReplayBody::new(Frames(vec![1, 2, 3]));
    data(&mut first).await;
    let mut late = first.again();
    assert!(!late.is_whole(), "nobody wanted to have it again");
    assert!(!late.take_over());
    assert_eq!(data(&mut first).await.len(), 2);
    assert!(failure(&mut late).await.contains("not kept"));
}

#[tokio::test]
async fn who_is_taken_over_is_told_and_not_left_with_half() {
    let (mut sender, body) = streamed();
    let mut first = task::spawn(ReplayBody::new(body));
    let mut second = first.again();
    send(&mut sender, b"one").await;
    assert!(assert_ready!(poll(&mut first)).unwrap().is_ok());
    assert_pending!(poll(&mut first));
    assert!(second.take_over());
    assert!(first.is_woken(), "or it would wait for ever");
    let error = assert_ready!(poll(&mut first)).unwrap().unwrap_err();
    assert!(error.to_string().contains("sent again"), "{error}");

    send(&mut sender, b"two").await;
    drop(sender);
    assert_eq!(second.collect().await.unwrap().to_bytes(), "onetwo");
}

fn poll<B>(
    body: &mut task::Spawn<ReplayBody<B>>,
) -> Poll<Option<Result<Frame<Bytes>, tower_dpop::BoxError>>>
where
    B: Body<Error: Into<tower_dpop::BoxError>>,
{
    body.enter(|cx, body| body.poll_frame(cx))
}

#[tokio::test]
async fn who_had_not_begun_when_it_was_taken_over_takes_nothing_away() {
    let (mut sender, body) = streamed();
    let mut first = task::spawn(ReplayBody::new(body));
    let mut second = first.again();
    assert!(second.take_over());
    let mut second = task::spawn(second);
    assert_pending!(poll(&mut second));
    // A client that asks for the body late.
    assert!(assert_ready!(poll(&mut first)).unwrap().is_err());
    send(&mut sender, b"one").await;
    assert!(second.is_woken());
    assert!(assert_ready!(poll(&mut second)).unwrap().is_ok());
}

#[tokio::test]
async fn two_may_read_at_the_same_time_until_one_takes_over() {
    let (mut sender, body) = streamed();
    let mut first = task::spawn(ReplayBody::new(body));
    let mut second = task::spawn(first.again());
    assert_pending!(poll(&mut first));
    assert_pending!(poll(&mut second));
    send(&mut sender, b"one").await;
    for body in [&mut first, &mut second] {
        assert!(body.is_woken(), "the body knows one waker only");
        assert!(assert_ready!(poll(body)).unwrap().is_ok());
        assert_pending!(poll(body));
    }
    // Whoever waits does so for the body, and not for the other.
    drop(second);
    drop(sender);
    assert!(first.is_woken());
    assert!(assert_ready!(poll(&mut first)).is_none());
}

#[tokio::test]
async fn beyond_the_limit_the_first_to_come_there_goes_on() {
    let first = ReplayBody::with_limit(Frames(vec![600, 600]), 1000);
    let mut second = first.again();
    assert_eq!(data(&mut second).await.len(), 600);
    assert_eq!(first.collect().await.unwrap().to_bytes().len(), 1200);
    assert!(failure(&mut second).await.contains("longer than the limit"));
}

/// Data of a byte, in a buffer of 64 KiB that tells when it is gone.
struct Slices(usize, Arc<AtomicUsize>);

struct Buffer(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

impl Body for Slices {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.0 = left;
        let buffer = Buffer(vec![1; 65_536], self.1.clone());
        self.1.fetch_add(buffer.0.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(buffer).slice(..1)))))
    }
}

#[tokio::test]
async fn short_data_does_not_hold_the_buffers_that_it_is_a_bit_of() {
    let held = Arc::new(AtomicUsize::new(0));
    let first = ReplayBody::new(Slices(500, held.clone()));
    let second = first.again();
    first.collect().await.unwrap();
    assert!(second.is_whole());
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_is_left_alone_lets_go_what_it_has_read() {
    let held = Arc::new(AtomicUsize::new(0));
    // Long enough to be shared.
    let mut first = ReplayBody::new(Slices(0, held.clone()));
    drop(first.again());
    assert!(next(&mut first).await.is_none());

    let body = Full::new(Bytes::from_owner(Buffer(vec![1; 65_536], held.clone())));
    held.store(65_536, Ordering::Relaxed);
    let mut first = ReplayBody::new(body);
    let mut second = first.again();
    data(&mut first).await;
    assert_eq!(held.load(Ordering::Relaxed), 65_536);
    drop(first);
    data(&mut second).await;
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_waits_alone_holds_nothing() {
    let held = Arc::new(AtomicUsize::new(65_536));
    let (mut sender, body) = streamed();
    let mut first = task::spawn(ReplayBody::new(body));
    let second = first.again();
    let buffer = Buffer(vec![1; 65_536], held.clone());
    sender.send_data(Bytes::from_owner(buffer)).await.unwrap();
    assert!(assert_ready!(poll(&mut first)).unwrap().is_ok());
    assert_pending!(poll(&mut first));
    assert_eq!(held.load(Ordering::Relaxed), 65_536);
    drop(second);
    assert_pending!(poll(&mut first));
    assert_eq!(held.load(Ordering::Relaxed), 0);
}

/// One that panics instead of its second frame, and goes on as if nothing had been.
struct Panics(usize);

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 += 1;
        match self.0 {
            1 | 3 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"part"))))),
            2 => panic!("in the middle"),
            _ => Poll::Ready(None),
        }
    }
}

#[tokio::test]
async fn a_body_that_panicked_is_not_whole() {
    let mut first = task::spawn(ReplayBody::new(Panics(0)));
    let mut second = first.again();
    assert!(assert_ready!(poll(&mut first)).unwrap().is_ok());
    let panicked = catch_unwind(AssertUnwindSafe(|| poll(&mut first).is_ready()));
    assert!(panicked.is_err());
    assert!(!second.is_whole());
    assert!(!second.take_over());
    assert_eq!(data(&mut second).await, b"part");
    assert!(failure(&mut second).await.contains("failed before"));
}

/// One whose code looks at another handle of itself, whenever it is called.
struct Nosy {
    other: Arc<Mutex<Option<ReplayBody<Self>>>>,
}

impl Nosy {
    fn look(&self) {
        if let Some(other) = &*self.other.lock().unwrap() {
            let _ = (other.is_whole(), other.is_end_stream());
        }
    }
}

impl Body for Nosy {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.look();
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.look();
        false
    }
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.look();
    }
}

#[test]
fn no_code_of_the_body_runs_under_a_lock() {
    let (done, waiting) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let other = Arc::default();
        let nosy = Nosy {
            other: Arc::clone(&other),
        };
        let mut first = task::spawn(ReplayBody::new(nosy));
        *other.lock().unwrap() = Some(first.again());
        assert!(assert_ready!(poll(&mut first)).is_none());
        done.send(()).unwrap();
    });
    waiting
        .recv_timeout(Duration::from_secs(20))
        .expect("a deadlock");
}

#[tokio::test]
async fn who_reads_on_takes_nothing_away() {
    let (mut sender, body) = streamed();
    let mut first = ReplayBody::new(body);
    let mut second = first.again();
    send(&mut sender, b"one").await;
    send(&mut sender, b"two").await;
    assert_eq!(data(&mut first).await, b"one");
    assert_eq!(data(&mut second).await, b"one");
    assert_eq!(data(&mut second).await, b"two");
    assert_eq!(data(&mut first).await, b"two");
    drop(sender);
    assert!(next(&mut second).await.is_none());
    assert!(next(&mut first).await.is_none());
}

#[tokio::test]
async fn an_error_goes_to_the_one_that_meets_it_and_the_others_do_not_pass_for_whole() {
    let (mut sender, body) = streamed();
    let mut first = ReplayBody::new(body);
    let mut second = first.again();
    send(&mut sender, b"one").await;
    sender.abort(Trouble);
    let error = loop {
        match next(&mut first).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is::<Trouble>(), "{error}");
    assert!(!second.is_whole());
    assert!(!second.take_over());
    let request = Request::new(second.again());
    assert!(RecordedBody.replay(&request).is_none());
    while let Some(frame) = next(&mut second).await {
        if let Err(error) = frame {
            assert!(error.to_string().contains("failed before"), "{error}");
            return;
        }
    }
    panic!("half a body passed for a whole one");
}

/// Tells when it is dropped.
struct Noticed(Full<Bytes>, Arc<AtomicBool>);

impl Drop for Noticed {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

impl Body for Noticed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

#[tokio::test]
async fn the_body_is_let_go_when_it_ends() {
    let dropped = Arc::new(AtomicBool::new(false));
    let first = ReplayBody::new(Noticed(Full::from("x"), dropped.clone()));
    let second = first.again();
    first.collect().await.unwrap();
    assert!(dropped.load(Ordering::Relaxed));
    assert_eq!(second.collect().await.unwrap().to_bytes(), "x");
}

#[test]
fn it_goes_where_requests_go() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    // tonic's bodies are not `Sync`, and streams may not be `Unpin`.
    check::<ReplayBody<http_body_util::combinators::UnsyncBoxBody<Bytes, Trouble>>>();
}

/// Frames of so many bytes, each of its own kind, with waits (None) between them.
struct Script {
    frames: VecDeque<Option<usize>>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            None => Poll::Ready(None),
            Some(None) => {
                *self.waker.lock().unwrap() = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Some(n)) => Poll::Ready(Some(Ok(Frame::data(vec![n as u8; n].into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.frames.iter().flatten().map(|n| *n as u64).sum())
    }
}

/// A handle, and what came of it.
struct Reader {
    body: task::Spawn<ReplayBody<Script>>,
    got: Vec<u8>,
    waits: bool,
    over: bool,
}

impl Reader {
    fn new(body: ReplayBody<Script>) -> Self {
        Self {
            body: task::spawn(body),
            got: Vec::new(),
            waits: false,
            over: false,
        }
    }

    /// Polls once. What a body says of itself holds, and what ends is `whole`.
    fn read(&mut self, whole: &[u8]) {
        let ends = self.body.is_end_stream();
        let hint = self.body.size_hint().exact();
        let polled = poll(&mut self.body);
        assert!(!ends || matches!(polled, Poll::Ready(None)));
        self.waits = polled.is_pending();
        match polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                assert_eq!(hint, Some((whole.len() - self.got.len()) as u64));
                self.got.extend_from_slice(frame.data_ref().unwrap());
            }
            Poll::Ready(None) => {
                assert_eq!(self.got, whole, "half a body passed for a whole one");
                self.over = true;
            }
            Poll::Ready(Some(Err(_))) => self.over = true,
        }
    }
}

#[test]
fn whatever_is_done_with_handles_what_ends_is_whole_and_nobody_waits_for_ever() {
    let mut ends = 0;
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let frames: VecDeque<_> = (0..dice.below(8))
            .map(|_| (dice.below(4) > 0).then(|| dice.below(200) as usize))
            .collect();
        let whole: Vec<u8> = frames
            .iter()
            .flatten()
            .flat_map(|n| vec![*n as u8; *n])
            .collect();
        let waker = Arc::default();
        let script = Script {
            frames,
            waker: Arc::clone(&waker),
        };
        let wake = || {
            let waiting = waker.lock().unwrap().take();
            waiting.into_iter().for_each(Waker::wake);
        };
        let body = ReplayBody::with_limit(script, dice.below(1000) as usize);
        let mut readers = vec![Reader::new(body)];
        for _ in 0..60 {
            let count = readers.len();
            let index = dice.below(count as u64) as usize;
            let reader = &mut readers[index];
            match dice.below(10) {
                0 => {
                    let again = reader.body.again();
                    readers.push(Reader::new(again));
                }
                1 => {
                    let is_whole = reader.body.is_whole();
                    assert_eq!(reader.body.take_over(), is_whole);
                    if is_whole {
                        reader.got.clear();
                        (reader.over, reader.waits) = (false, false);
                    }
                }
                2 if count > 1 => drop(readers.swap_remove(index)),
                3 => wake(),
                _ if reader.over => {}
                _ => reader.read(&whole),
            }
        }
        // From here on only those are polled that were woken, or have not been polled yet.
        while readers.iter().any(|reader| !reader.over) {
            wake();
            let awake =
                |reader: &&mut Reader| !reader.over && (!reader.waits || reader.body.is_woken());
            let mut any = false;
            for reader in readers.iter_mut().filter(awake) {
                reader.read(&whole);
                any = true;
            }
            assert!(any, "seed {seed}: somebody waits for ever");
        }
        ends += readers.iter().filter(|reader| reader.got == whole).count();
    }
    assert!(ends > 10_000, "most scripts end well for somebody: {ends}");
}

/// One that is ready when it is polled for the third time, and tells nobody.
struct Silent(usize);

impl Body for Silent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0 += 1;
        match self.0 {
            3 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"one"))))),
            _ => Poll::Pending,
        }
    }
}

#[test]
fn who_waits_is_told_of_a_frame_that_another_read() {
    let mut first = task::spawn(ReplayBody::new(Silent(0)));
    let mut second = task::spawn(first.again());
    assert_pending!(poll(&mut first));
    assert_pending!(poll(&mut second));
    assert!(assert_ready!(poll(&mut first)).unwrap().is_ok());
    assert!(second.is_woken(), "or it would wait for ever");
    assert!(assert_ready!(poll(&mut second)).unwrap().is_ok());
}
