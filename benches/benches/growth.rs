//! What many of anything cost: one operation is to cost the same at all sizes.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tower_dpop_benches::growth::{SIZES, SUBJECTS};

fn growth(criterion: &mut Criterion) {
    for subject in SUBJECTS {
        let mut group = criterion.benchmark_group(subject.name);
        for size in SIZES {
            let mut operations = (subject.prepare)(size);
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter_custom(&mut operations);
            });
        }
    }
}

criterion_group!(benches, growth);
criterion_main!(benches);
