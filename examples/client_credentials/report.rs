//! What is printed, and when the run counts as a success.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Map, Value, json};
use tower_dpop::{BoxError, dpop::ResponseBody};

use crate::{common, run::Tally, session_log::Session};

/// Prints one answer. An error if it was not a success.
pub(crate) async fn answer(
    answer: Response<ResponseBody<Full<Bytes>>>,
    elapsed: Duration,
    session: &Session,
    json: bool,
) -> Result<(), BoxError> {
    let (head, body) = answer.into_parts();
    let (status, body) = (head.status, body.collect().await?.to_bytes());
    if json {
        print(&line(&json!({
            "status": status.as_u16(),
            "body": String::from_utf8_lossy(&body),
            "token_requests": session.token_requests(),
            "nonce_retries": session.nonce_retries(),
            "seconds": elapsed.as_secs_f64(),
        })))?;
    } else {
        let mut text = format!("{:?} {status}\n", head.version).into_bytes();
        text.extend_from_slice(&body);
        if !body.is_empty() && !body.ends_with(b"\n") {
            text.push(b'\n');
        }
        print(&text)?;
    }
    if status.is_success() {
        return Ok(());
    }
    Err(format!(
        "the API answered {status}{}",
        common::reason(status, &head.headers)
    )
    .into())
}

/// Prints the summary of many. An error if one of them was not a success.
pub(crate) fn summary(tally: Tally, session: &Session, json: bool) -> Result<(), BoxError> {
    let answers: u64 = tally.answers.values().sum();
    let seconds = tally.elapsed.as_secs_f64();
    let rate = answers as f64 / seconds.max(f64::MIN_POSITIVE);
    let (token_requests, nonce_retries) = (session.token_requests(), session.nonce_retries());
    if json {
        let by_status = tally.answers.iter();
        let by_status: Map<String, Value> = by_status
            .map(|(status, count)| (status.as_str().to_owned(), json!(count)))
            .collect();
        print(&line(&json!({
            "requests": answers + tally.failed,
            "answers": by_status,
            "token_requests": token_requests,
            "nonce_retries": nonce_retries,
            "seconds": seconds,
            "requests_per_second": rate,
        })))?;
    } else {
        let by_status = tally.answers.iter();
        let by_status: Vec<_> = by_status
            .map(|(status, count)| format!("{count} x {status}"))
            .collect();
        print(
            format!(
                "answers: {}\ntoken requests: {token_requests}\nnonce retries: {nonce_retries}\n\
                 {seconds:.3} seconds, {rate:.1} requests a second\n",
                if by_status.is_empty() {
                    "none".to_owned()
                } else {
                    by_status.join(", ")
                },
            )
            .as_bytes(),
        )?;
    }
    if let Some(error) = tally.error {
        return Err(error);
    }
    let successes = tally
        .answers
        .iter()
        .filter(|(status, _)| status.is_success());
    match answers - successes.map(|(_, count)| count).sum::<u64>() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {answers} answers were no success").into()),
    }
}

fn line(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

/// `print!` would panic where nobody reads, as in `| head`.
fn print(text: &[u8]) -> Result<(), BoxError> {
    let mut out = io::stdout().lock();
    out.write_all(text)
        .and_then(|()| out.flush())
        .map_err(|error| format!("stdout cannot be written: {error}").into())
}
