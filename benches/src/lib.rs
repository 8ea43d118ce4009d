//! What the layers cost, beside the one cost that cannot be avoided: the signature.
//!
//! - `cargo bench --package tower-dpop-benches`: times, by criterion.
//! - `cargo run --release --package tower-dpop-benches --bin counted`: the rows that are counted.
//! - the same with `--bin timed`: the rows that are ratios of times.
//! - `benches/report`: all of it, into `benches/RESULTS.md`.
//!
//! A program that measures may panic: there is nobody to tell anything else.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a program that measures may panic"
)]

pub mod cache;
pub mod callgrind;
pub mod growth;
pub mod keys;
pub mod loopback;
pub mod measure;
pub mod proofs;
pub mod row;
pub mod scene;
