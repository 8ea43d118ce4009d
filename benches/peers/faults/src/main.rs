//! Faults that break token caches in the field, run against other crates and against `tower-dpop`, side by
//! side in one run. Prints a table. It takes real time, about 50 s, since the peers have clocks of their own;
//! times are printed and never judged.

mod aws;
mod azure;
mod faults;
mod google;
mod herd;
mod naive;
mod ours;
mod panics;
mod servers;
mod stack;

use std::{pin::Pin, time::Duration};

use aws::Aws;
use azure::Azure;
use faults::Report;
use google::Google;
use stack::{limited, unlimited};
use tokio::time::{Instant, timeout_at};

/// When the run ends, whatever hangs. A row ends before, by its callers' own deadlines.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The peer's default before it was made to follow from the retries: smithy-lang/smithy-rs#4740.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The policy renews in a token's last five minutes.
const AZURE_LIFE: Duration = Duration::from_secs(120);

/// Our renewal is due after 85 % of a token's life at the latest, and the last tenth is not used: at this age,
/// 0.4 s are left.
const OUR_LIFE: Duration = Duration::from_secs(10);
const OUR_AGE: Duration = Duration::from_millis(8600);

/// One side of a row: nothing runs before it is awaited.
type Side = Pin<Box<dyn Future<Output = Report>>>;

struct Row {
    name: &'static str,
    fault: &'static str,
    peer: &'static str,
    theirs: Side,
    ours: Side,
}

#[tokio::main]
async fn main() {
    panics::count_silently();
    let end = Instant::now() + RUN_LIMIT;
    println!(
        "| row | fault | peer | peer's result | {} |",
        version("tower-dpop")
    );
    println!("|---|---|---|---|---|");
    for row in rows() {
        // One after the other: at once, they would slow each other down.
        let theirs = run(row.theirs, end).await;
        let ours = run(row.ours, end).await;
        let peer = version(row.peer);
        println!(
            "| {} | {} | {peer} | {theirs} | {ours} |",
            row.name, row.fault
        );
    }
}

fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "A1",
            fault: "100 callers, nothing cached; the AS answers after 100 ms",
            peer: "aws-smithy-runtime",
            theirs: side(faults::a1(|servers| Aws::new(servers, None))),
            ours: side(faults::a1(ours::plain)),
        },
        Row {
            name: "A2",
            fault: "100 callers, nothing cached; every token request fails after 100 ms (the peer with its \
                    default load timeout)",
            peer: "aws-smithy-runtime",
            theirs: side(faults::a2(|servers| Aws::new(servers, None))),
            ours: side(faults::a2(ours::plain)),
        },
        Row {
            name: "A2",
            fault: "the same (the peer with a load timeout of 5 s)",
            peer: "aws-smithy-runtime",
            theirs: side(faults::a2(|servers| Aws::new(servers, Some(LOAD_TIMEOUT)))),
            ours: side(faults::a2(ours::plain)),
        },
        Row {
            name: "A3",
            fault: "the AS answers after 200 ms; 100 callers, 20 ms apart, give up after 150 ms",
            peer: "aws-smithy-runtime",
            theirs: side(faults::a3(|servers| Aws::new(servers, None))),
            ours: side(faults::a3(ours::plain)),
        },
        Row {
            name: "G1",
            fault: "20 callers; `expires_in` is 18446744073709551615",
            peer: "google-cloud-auth",
            theirs: side(faults::g1(Google::new)),
            ours: side(faults::g1(ours::plain)),
        },
        Row {
            name: "Z1",
            fault: "200 requests under way when their token is revoked; answers 2 ms apart, the AS takes \
                    10 ms (best: 2, the first and one renewal)",
            peer: "azure_core",
            theirs: side(faults::z1(Azure::new)),
            ours: side(faults::z1(ours::plain)),
        },
        Row {
            name: "Z2",
            fault: "50 callers; the cached token still works, its renewal is due, and every token request fails \
                    after 100 ms",
            peer: "azure_core",
            theirs: side(faults::z2(AZURE_LIFE, Duration::ZERO, Azure::new)),
            ours: side(faults::z2(OUR_LIFE, OUR_AGE, ours::plain)),
        },
        Row {
            name: "T1",
            fault: "16 callers; token requests and API requests share one `ConcurrencyLimit` of 4, which 4 \
                    unrelated requests use for the first 20 ms; callers give up after 3 s",
            peer: "tower",
            theirs: side(faults::t1(|servers| {
                let http = limited(servers);
                Ok(naive::stack(http.clone(), http))
            })),
            ours: side(faults::t1(|servers| {
                let http = limited(servers);
                ours::stack(http.clone(), http)
            })),
        },
        Row {
            name: "T5",
            fault: "the AS takes 2 s, 8 callers wait; an unrelated request shares their \
                    `ConcurrencyLimit` of 4 (the API answers after 10 ms)",
            peer: "tower",
            theirs: side(faults::t5(|servers| {
                Ok(naive::stack(unlimited(servers), limited(servers)))
            })),
            ours: side(faults::t5(|servers| {
                ours::stack(unlimited(servers), limited(servers))
            })),
        },
    ]
}

fn side(report: impl Future<Output = Report> + 'static) -> Side {
    Box::pin(report)
}

/// A cell of the table: what the side says, and the panics that it caused.
async fn run(side: Side, end: Instant) -> String {
    let mut cell = match timeout_at(end, side).await {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => format!("not run: {error}"),
        Err(_) => "not ended in time".to_owned(),
    };
    for (panic, count) in panics::take() {
        cell.push_str(&format!("; {count} × {panic}"));
    }
    cell.replace('|', r"\|")
}

/// The crate with the version that was built, by the lock file.
fn version(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let version = lock
        .split_once(&format!("name = \"{name}\"\nversion = \""))
        .and_then(|(_, rest)| rest.split_once('"'));
    version.map_or_else(
        || name.to_owned(),
        |(version, _)| format!("{name} {version}"),
    )
}
