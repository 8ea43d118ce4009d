//! Sending, once or many times.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tower::{Service as _, ServiceExt as _, util::BoxCloneService};
use tower_dpop::{BoxError, dpop::ResponseBody};

/// The finished stack.
pub(crate) type Api =
    BoxCloneService<Request<Full<Bytes>>, Response<ResponseBody<Full<Bytes>>>, BoxError>;

/// What became of many requests.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) answers: BTreeMap<StatusCode, u64>,
    /// How many got no answer. No request is begun after that.
    pub(crate) failed: u64,
    /// Why, for the first of them.
    pub(crate) error: Option<BoxError>,
    pub(crate) elapsed: Duration,
}

/// Sends `request` so many times, `concurrency` at once at the most, on clones of one stack: they share the
/// key, the nonces and the token.
pub(crate) async fn repeat(
    api: &Api,
    request: &Request<Full<Bytes>>,
    times: u64,
    concurrency: u64,
) -> Tally {
    let started = Instant::now();
    let bar = progress_bar(times);
    let begun = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.min(times) {
        let (mut api, request, bar) = (api.clone(), request.clone(), bar.clone());
        let (begun, stop) = (Arc::clone(&begun), Arc::clone(&stop));
        workers.spawn(async move {
            let mut tally = Tally::default();
            while !stop.load(Ordering::Relaxed) && begun.fetch_add(1, Ordering::Relaxed) < times {
                let answer = async { api.ready().await?.call(request.clone()).await };
                match answer.await {
                    Ok(answer) => *tally.answers.entry(answer.status()).or_default() += 1,
                    Err(error) => {
                        stop.store(true, Ordering::Relaxed);
                        tally.failed += 1;
                        tally.error = Some(error);
                    }
                }
                bar.inc(1);
            }
            tally
        });
    }
    let mut sum = Tally::default();
    while let Some(worker) = workers.join_next().await {
        match worker {
            Ok(tally) => {
                for (status, count) in tally.answers {
                    *sum.answers.entry(status).or_default() += count;
                }
                sum.failed += tally.failed;
                sum.error = sum.error.or(tally.error);
            }
            Err(error) => sum.error = sum.error.or(Some(error.into())),
        }
    }
    bar.finish_and_clear();
    sum.elapsed = started.elapsed();
    sum
}

/// On stderr, and only where that is a terminal.
fn progress_bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template("{wide_bar} {pos}/{len}, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
