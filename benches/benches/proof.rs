//! A bare signature, and a whole proof.
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tower_dpop_benches::{
    keys::Backend,
    proofs::{Floor, Subject},
};

fn proof(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proof");
    for backend in Backend::ALL {
        let name = backend.name();
        if backend != Backend::Null {
            let floor = Floor::new(backend);
            group.bench_function(format!("signature/{name}"), |bencher| {
                bencher.iter(|| black_box(floor.sign()));
            });
        }
        let subject = Subject::new(backend);
        group.bench_function(format!("proof/{name}"), |bencher| {
            bencher.iter(|| black_box(subject.prove()));
        });
    }
}

criterion_group!(benches, proof);
criterion_main!(benches);
