//! The whole stack over hyper on loopback: what a request costs the client's process.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, criterion_group};
use tower_dpop_benches::loopback::{Loopback, Server, Way, was_server};

const IN_FLIGHT: u64 = 16;

fn stack(criterion: &mut Criterion) {
    let server = Server::start();
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2")] {
        let mut group = criterion.benchmark_group(format!("stack/{version}"));
        for way in Way::ALL {
            let mut client = Loopback::new(&server, way, IN_FLIGHT, http2);
            group.bench_function(way.name(), |bencher| {
                bencher.iter_custom(|times| client.send(times));
            });
        }
    }
}

criterion_group!(benches, stack);

fn main() {
    if was_server() {
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
