//! Reading a token that is there: time of all processors together for one read.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{Criterion, criterion_group, criterion_main};
use tower_dpop_benches::cache::Cached;

fn cache(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cache");
    let cached = Cached::new();
    for tasks in [1, 2, 8] {
        group.bench_function(format!("{tasks} tasks"), |bencher| {
            bencher.iter_custom(|times| cached.read(tasks, times));
        });
    }
}

criterion_group!(benches, cache);
criterion_main!(benches);
