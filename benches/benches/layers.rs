//! The layers around a service that does nothing, with a key that does not sign: what is left is their own work.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a program that measures may panic")]

use std::fmt::Debug;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::Request;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _};
use tower_dpop::{AccessToken, Audience, DpopLayer};
use tower_dpop_benches::{
    keys::Backend,
    proofs::{TOKEN, URI},
    scene::{self, Body},
};

/// Its token, for those that have no layer which gives them one.
type WithToken = Option<AccessToken>;

fn bench<S>(
    criterion: &mut Criterion,
    name: &str,
    runtime: &Runtime,
    mut service: S,
    token: &WithToken,
) where
    S: Service<Request<Body>, Error: Debug>,
{
    let mut group = criterion.benchmark_group("layers");
    for headers in [0, 3] {
        let request = || {
            let mut request = scene::request(URI, headers);
            if let Some(token) = token {
                request.extensions_mut().insert(token.clone());
            }
            request
        };
        group.bench_function(format!("{name}/{headers} headers"), |bencher| {
            bencher.iter_batched(
                request,
                |request| {
                    let answer = async { service.ready().await.unwrap().call(request).await };
                    runtime.block_on(answer).unwrap()
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn layers(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let key = Backend::Null.key();
    let token = AccessToken::new(TOKEN, &key, Audience::danger_any_https_origin()).unwrap();
    let dpop = DpopLayer::new(key);
    let tokens = runtime.block_on(scene::tokens(&dpop, ["https://api.example.com"]));

    bench(criterion, "none", &runtime, scene::null(), &None);
    bench(
        criterion,
        "Dpop",
        &runtime,
        dpop.layer(scene::null()),
        &Some(token),
    );
    let both = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(scene::null());
    bench(criterion, "Token and Dpop", &runtime, both, &None);
}

criterion_group!(benches, layers);
criterion_main!(benches);
