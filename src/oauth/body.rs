//! Reading a server's answer, no further than it may be long.

use bytes::{Buf as _, BufMut as _};
use http_body::Body;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use zeroize::Zeroizing;

use crate::error::BoxError;

/// Why there is no whole answer.
pub(super) enum Unread {
    TooLong,
    Broken(BoxError),
}

pub(super) async fn read<B>(body: B, limit: usize) -> Result<Zeroizing<Vec<u8>>, Unread>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(Limited::new(body, limit));
    let mut parts = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
            true => Unread::TooLong,
            false => Unread::Broken(error),
        })?;
        // Empty ones cost nothing to send, and are not counted.
        parts.extend(frame.into_data().ok().filter(|data| data.has_remaining()));
    }
    // All the room from the start: a vector that grows leaves copies of tokens behind.
    let length = parts.iter().map(|part| part.remaining()).sum();
    let mut read = Zeroizing::new(Vec::with_capacity(length));
    for part in parts {
        read.put(part);
    }
    Ok(read)
}
