//! What a proof costs, and which signer to choose. Nothing but text.
//!
//! One cost cannot be avoided: each sending is signed. All else is made to vanish beside it: the header of the proof is
//! encoded once for a key, the token's header and hash are made once for a token, and the claims are written straight
//! into the one buffer that the header's value is made of. Nothing grows with the number of origins, scopes, waiting
//! callers and requests in flight.
//!
//! | what | figure |
//! |---|---|
//! | a proof, beside the bare signature of the same bytes: p256 | 1.014 |
//! | the same: aws-lc-rs | 1.07, of which the operating system's random numbers for the `jti` are 0.025 |
//! | instructions of a proof without its signature | 5,650 |
//! | allocations of a proof | 1 |
//! | allocations of both layers for a request | 6 |
//! | instructions of both layers for a request, without its signature | 12,650 |
//! | CPU of both layers over HTTP/1.1 on loopback, beside static headers: without signature | 3 µs |
//! | the same with aws-lc-rs, in signatures that are made there | 1.2 |
//! | reading the cached token, 8 tasks on 2 cores, beside a signature by aws-lc-rs | 0.007 |
//! | building the crate and all it needs, 2 cores | 28 s |
//!
//! The figures are from one run on one machine; ratios and counts hold elsewhere, too. `benches/report` in the repository
//! measures them again, and `benches/RESULTS.md` has more of them.
//!
//! # Which signer
//!
//! | signer | a signature | to build it | whom it suits |
//! |---|---|---|---|
//! | p256, [`DpopKey`](crate::DpopKey): the default | 1 (85 µs) | nothing more, in Rust alone | most: some hundred requests a second cost some hundredths of a core |
//! | [aws-lc-rs], `AwsLcRs` (feature `aws-lc-rs`) | 0.19 | a C compiler, 11 crates, 50 s of CPU; 2.5 MB in the program | whoever signs thousands of times a second; RSA and Ed25519 keys; programs that have it for TLS already |
//! | the same with its FIPS module (feature `fips`) | as above | CMake and Go besides, 107 s of CPU | whoever is told to use FIPS 140-3 |
//! | [graviola], as a signer of your own | 0.18 | 4 crates, 7 s of CPU, no C | who wants that speed with a short build on processors that are known (x86-64, AArch64): it panics at its first use on one without ADX, AVX2 and others, which some virtual machines hide. `graviola::util::is_cpu_supported()` tells before. It is young |
//! | a hardware token, another process | it depends | [`DpopKey::from_signer`](crate::DpopKey::from_signer) | see [below](#a-signer-that-takes-its-time) |
//!
//! The feature `aws-lc-rs` alone changes nothing: a key signs by it if it was loaded by it. Its first random number costs
//! some 25 ms in a process, so a key signs once when it is made. RSA signs by it only, because the `rsa` crate leaks keys
//! by its timing (RUSTSEC-2023-0071); an RSA signature costs 17 times as much as one of ES256, Ed25519 half as much. ES256
//! is what all servers take.
//!
//! # The program's profile
//!
//! A library cannot choose these for its users. A signature by p256 takes, beside one of a plain release build:
//!
//! | profile | |
//! |---|---|
//! | release with `lto = "fat"` and `codegen-units = 1` | 0.91 |
//! | release with `codegen-units = 1` alone | 1.17 |
//! | release with `opt-level = "s"` | 1.6 (aws-lc-rs: 5) |
//! | dev | 14 |
//! | dev with the lines below | 1.1 |
//!
//! ## Debug builds
//!
//! Without optimisation a proof takes a millisecond. These lines in the program's `Cargo.toml` mend it; none of the five
//! can be left out, and `[profile.dev.package."*"]` does the same at the price of optimising all dependencies:
//!
//! ```toml
//! [profile.dev.package]
//! crypto-bigint.opt-level = 3
//! ctutils.opt-level = 3
//! p256.opt-level = 3
//! sha2.opt-level = 3
//! tower-dpop.opt-level = 3
//! ```
//!
//! If there are two versions of one of them in the program, cargo asks for `"crypto-bigint@0.7"` and the like. With
//! aws-lc-rs nothing is needed: its C code is optimised in all profiles.
//!
//! # A signer that takes its time
//!
//! Signatures are made in the task that sends. That is right for those of the table above: to hand one to another thread
//! costs 7 to 17 µs of CPU, and requests a second. At some 200 µs (RSA) it is a draw. Beyond (a slow signer of your own)
//! the other tasks of the runtime wait too long behind signatures. Then let the whole stack work in a runtime of its own,
//! whose few threads bound what signatures may take:
//!
//! ```
//! # use http::{Request, Response};
//! # use tower::{BoxError, Service, service_fn};
//! use tokio::{runtime, task::JoinSet};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! # fn main() -> Result<(), BoxError> {
//! # let stack = service_fn(async |_: Request<()>| Ok::<_, BoxError>(Response::new(())));
//! // In `main`, before the program's own runtime: it has to outlive what it serves.
//! let pool = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
//! let handle = pool.handle().clone();
//!
//! // `stack` is the whole of it: tokens, proofs and the client.
//! let elsewhere = service_fn(move |request: Request<()>| {
//!     let mut task = JoinSet::new(); // whoever drops the future ends the task
//!     task.spawn_on(stack.clone().oneshot(request), &handle);
//!     async move { task.join_next().await.ok_or("the pool has ended")?? }
//! });
//! let api = ServiceBuilder::new().concurrency_limit(64).service(elsewhere);
//! # fn fits(_: impl Service<Request<()>, Response = Response<()>, Error = BoxError>) {}
//! # fits(api);
//! # Ok(())
//! # }
//! ```
//!
//! 16 requests at a time on a runtime of two threads, and the same with a pool of two: requests a second, the 99th
//! percentile of how late a timer's tick on that runtime is, and what a request costs more:
//!
//! | a signature takes | requests | a tick is late by | CPU |
//! |---|---|---|---|
//! | 12 µs | × 0.68 | 1.1 ms, with the pool 1.3 ms | 7 µs |
//! | 87 µs | × 0.83 | 1.6 ms, 2.0 ms | 13 µs |
//! | 200 µs | × 0.91 | 2.4 ms, 2.1 ms | 17 µs |
//! | 1 ms | × 0.98 | 8.8 ms, 1.9 ms | 14 µs |
//!
//! What does not do: `spawn_blocking` in the signer, since the task waits for it all the same, and longer; `block_in_place`,
//! which starts threads without a bound; a `Buffer` whose worker is spawned elsewhere, which signs each request there but
//! not its answer to a nonce challenge.
//!
//! A signer that asks over a network (a key management service) should not sign proofs at all: each request would wait
//! for it, and pay for it. A proof's key needs no registration, so let the program make one with
//! [`DpopKey::generate`](crate::DpopKey::generate) when it starts, and leave the service the key that the client
//! authenticates with: that one signs once for each token.
//!
//! [aws-lc-rs]: https://docs.rs/aws-lc-rs
//! [graviola]: https://docs.rs/graviola
