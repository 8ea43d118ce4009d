//! What was kept of a body, and who may go on with it. Pure: it reads nothing.

use std::{collections::VecDeque, error::Error as StdError, fmt, mem, pin::Pin};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Frame;

/// What a frame counts for at the least: about the memory that it takes however short it is.
const MIN_FRAME_COST: usize = 128;

/// Shorter data is copied when it is kept: it might be a bit of a buffer that is a thousand times as long.
const COPIED_BELOW: usize = 1024;

/// Of one body, for all its handles.
pub(super) struct Record<B> {
    pub(super) state: State<B>,
    /// The frames that are not gone.
    pub(super) kept: VecDeque<Kept>,
    /// How many frames were let go, from the first on. The body is whole as long as it is none.
    pub(super) gone: usize,
    /// For how much more there is room.
    room: usize,
    /// The handle that took over last.
    pub(super) heir: Option<u64>,
    /// A handle came while the body was lent.
    pub(super) missed: bool,
    pub(super) handles: u64,
}

pub(super) enum State<B> {
    Streaming(Pin<Box<B>>),
    /// A handle is reading it at this moment, without the lock: the body is somebody else's code.
    Lent,
    Ended,
    Failed,
}

#[derive(Clone)]
pub(super) enum Kept {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl<B> Record<B> {
    pub(super) fn new(state: State<B>, room: usize) -> Self {
        Self {
            state,
            kept: VecDeque::new(),
            gone: 0,
            room,
            heir: None,
            missed: false,
            handles: 1,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.gone == 0 && !matches!(self.state, State::Failed)
    }

    /// The number of frames that were read.
    pub(super) fn read(&self) -> usize {
        self.gone + self.kept.len()
    }

    /// What is kept anybody may read.
    pub(super) fn may_read_on(&self, id: u64) -> bool {
        self.heir.is_none_or(|heir| heir == id)
    }

    /// Lets the frames before `at` go. They are handed back, to be dropped without the lock.
    pub(super) fn forget(&mut self, at: usize) -> VecDeque<Kept> {
        let index = at.saturating_sub(self.gone).min(self.kept.len());
        self.gone += index;
        let rest = self.kept.split_off(index);
        mem::replace(&mut self.kept, rest)
    }

    /// What becomes of a frame that the handle `id` has read: whether it may give it out; and what is let go.
    pub(super) fn keep(&mut self, frame: &Kept, id: u64, alone: bool) -> (bool, VecDeque<Kept>) {
        let wanted = !alone && self.gone == 0;
        let room = self.room.checked_sub(frame.cost());
        match room {
            Some(room) if wanted => {
                self.room = room;
                self.kept.push_back(frame.to_keep());
                (true, VecDeque::new())
            }
            // It was taken over at this moment. One frame too much, or the heir had none.
            None if wanted && !self.may_read_on(id) => {
                self.kept.push_back(frame.clone());
                (false, VecDeque::new())
            }
            _ => {
                self.gone = self.read() + 1;
                (true, mem::take(&mut self.kept))
            }
        }
    }
}

impl Kept {
    pub(super) fn new<D: Buf>(frame: Frame<D>) -> Option<Self> {
        match frame.into_data() {
            // Of `Bytes` this is a handle to the same memory.
            Ok(mut data) => Some(Self::Data(data.copy_to_bytes(data.remaining()))),
            Err(frame) => {
                let trailers = frame.into_trailers().ok()?;
                Some(Self::Trailers(Box::new(trailers)))
            }
        }
    }

    fn to_keep(&self) -> Self {
        match self {
            Self::Data(data) if data.len() < COPIED_BELOW => {
                Self::Data(Bytes::copy_from_slice(data))
            }
            other => other.clone(),
        }
    }

    fn cost(&self) -> usize {
        let bytes = match self {
            Self::Data(data) => data.len(),
            Self::Trailers(trailers) => trailers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + MIN_FRAME_COST)
                .sum(),
        };
        bytes.max(MIN_FRAME_COST)
    }
}

/// Why a handle cannot go on.
#[derive(Debug)]
pub(super) enum Lost {
    TooLong,
    TakenOver,
    Failed,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => {
                "the beginning of the request body was not kept: it is longer than the limit, or was read alone"
            }
            Self::TakenOver => {
                "the request is being sent again, so its body is not read here any more"
            }
            Self::Failed => "the request body failed before",
        })
    }
}

impl StdError for Lost {}
