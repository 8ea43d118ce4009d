//! The rows that are counted, not timed: the same on every machine, so `.ci/run` checks them. Fails if one is short.
#![allow(clippy::unwrap_used, reason = "a program that measures may panic")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    process::ExitCode,
};

use http::Request;
use tower::{Service, ServiceExt as _};
use tower_dpop_benches::{
    callgrind,
    keys::Backend,
    proofs::{Subject, URI},
    row::Row,
    scene::{self, Body},
};

/// Counts the allocations of the current thread; one that is made larger counts again.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call goes to the system's allocator, as it came. Counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Gone while the thread ends.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often everything is done.
const TIMES: u64 = 1000;

fn each(total: u64) -> f64 {
    total as f64 / TIMES as f64
}

/// Allocations of a proof without its signature.
fn of_a_proof() -> f64 {
    let subject = Subject::new(Backend::Null);
    let before = ALLOCATIONS.get();
    (0..TIMES).for_each(|_| drop(subject.prove()));
    each(ALLOCATIONS.get() - before)
}

/// Allocations of a request with so many headers. The requests are made before, by their sender.
async fn of_requests<S>(mut service: S, headers: usize) -> f64
where
    S: Service<Request<Body>, Error: std::fmt::Debug>,
{
    // The first request has things to make that last.
    let first = service.ready().await.unwrap();
    first.call(scene::request(URI, headers)).await.unwrap();
    let requests: Vec<_> = (0..TIMES).map(|_| scene::request(URI, headers)).collect();
    let before = ALLOCATIONS.get();
    for request in requests {
        let ready = service.ready().await.unwrap();
        drop(ready.call(request).await.unwrap());
    }
    each(ALLOCATIONS.get() - before)
}

/// What both layers add to that.
async fn of_both_layers(headers: usize) -> f64 {
    let both = scene::stack(
        Backend::Null.key(),
        "https://api.example.com",
        scene::null(),
    )
    .await;
    of_requests(both, headers).await - of_requests(scene::null(), headers).await
}

fn main() -> ExitCode {
    if callgrind::was_load() {
        return ExitCode::SUCCESS;
    }
    let mut all_ok = true;
    let mut tell = |row: Row| {
        println!("{row}");
        all_ok &= row.is_ok();
    };

    let of_nothing = callgrind::instructions("null-proof", 1000);
    tell(Row::at_most(
        3,
        "instructions of a proof without the signature",
        of_nothing,
        6000.0,
    ));
    let (proof, signature) = ("p256-proof", "p256-signature");
    let ratio = callgrind::instructions(proof, 50) / callgrind::instructions(signature, 50);
    tell(
        Row::at_most(
            4,
            "instructions of a proof beside the bare signature, p256",
            ratio,
            1.007,
        )
        .digits(4),
    );
    tell(Row::at_most(
        5,
        "allocations of a proof without the signature",
        of_a_proof(),
        1.0,
    ));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let three = runtime.block_on(of_both_layers(3));
    tell(Row::at_most(
        6,
        "allocations of both layers, a request with three headers",
        three,
        10.0,
    ));
    let none = runtime.block_on(of_both_layers(0));
    tell(Row::at_most(
        7,
        "allocations of both layers, a request without headers",
        none,
        8.0,
    ));
    ExitCode::from(u8::from(!all_ok))
}
