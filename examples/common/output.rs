//! An answer of the API: read, and printed.

use std::io::{self, Write as _};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use tower_dpop::BoxError;

use super::reason;

/// A longer answer is not read.
const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;

/// The whole answer. For within a stack: below its timeout, so that a body without end ends there.
pub(crate) async fn read<B>(answer: Response<B>) -> Result<Response<Bytes>, BoxError>
where
    B: Body<Error: Into<BoxError>>,
{
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

/// Prints status line and body. An error if it was no success.
pub(crate) fn answer(answer: &Response<Bytes>) -> Result<(), BoxError> {
    let mut text = format!("{:?} {}\n", answer.version(), answer.status()).into_bytes();
    text.extend_from_slice(answer.body());
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    print(&text)?;
    success(answer)
}

/// An error if the answer was no success.
pub(crate) fn success(answer: &Response<Bytes>) -> Result<(), BoxError> {
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => {
            let reason = reason(status, answer.headers());
            Err(format!("the API answered {status}{reason}").into())
        }
    }
}

/// A line on stdout.
pub(crate) fn say(line: &str) -> Result<(), BoxError> {
    print(format!("{line}\n").as_bytes())
}

/// `print!` would panic where nobody reads, as in `| head`.
fn print(text: &[u8]) -> Result<(), BoxError> {
    let mut out = io::stdout().lock();
    out.write_all(text)
        .and_then(|()| out.flush())
        .map_err(|error| format!("stdout cannot be written: {error}").into())
}
