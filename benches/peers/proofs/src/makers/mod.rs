//! Whoever makes proofs here, by its public interface only.

mod atproto;
mod by_hand;
mod clients;
mod ours;

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use crate::case::{BoxError, Case, Maker};

pub(crate) fn all(case: &Case) -> Result<Vec<Maker>, BoxError> {
    by_hand::install()?;
    let mut makers = ours::all(case)?;
    makers.extend(clients::all(case)?);
    makers.extend(atproto::all(case)?);
    makers.extend(by_hand::all(case)?);
    Ok(makers)
}

/// The outcome of a future that waits for nothing: no runtime is measured.
fn now<F: Future>(future: F) -> Result<F::Output, BoxError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err("it waits".into()),
    }
}
