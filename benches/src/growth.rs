//! What might cost more, the more there is of it. One operation is to cost the same at all [`SIZES`].

use std::{convert::Infallible, future::ready, time::Duration};

use http::{HeaderValue, Request, Response};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};
use tower::{Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::{AccessToken, Audience, DpopLayer, TokenLayer, TokenParameters};

use crate::{
    keys::Backend,
    measure,
    proofs::TOKEN,
    scene::{self, Body},
};

/// How many there are.
pub const SIZES: [usize; 5] = [1, 10, 100, 1_000, 10_000];

/// Does at least so many operations, and tells what so many cost of the processor.
pub type Operations = Box<dyn FnMut(u64) -> Duration>;

/// What there may be many of.
pub struct Subject {
    /// As the tables have it.
    pub name: &'static str,
    /// So many of them.
    pub prepare: fn(usize) -> Operations,
}

/// All that is known to hold many of anything.
pub const SUBJECTS: [Subject; 6] = [
    Subject {
        name: "origins that gave a nonce: a request to one of the last 64",
        prepare: |count| nonces(count, count.min(64)),
    },
    Subject {
        name: "origins that give nonces: a request to each in turn (256 are kept)",
        prepare: |count| nonces(count, count),
    },
    Subject {
        name: "origins in the audience: a request to each in turn",
        prepare: audience,
    },
    Subject {
        name: "sets of scopes that were asked for: a request with one of the last 64 (as many are kept)",
        prepare: scopes,
    },
    Subject {
        name: "callers that wait for a token: one caller, and its part of the fetch",
        prepare: callers,
    },
    Subject {
        name: "requests in flight: one request",
        prepare: in_flight,
    },
];

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn origin(number: usize) -> String {
    format!("https://s{number}.example.com")
}

fn requests(origins: impl Iterator<Item = usize>) -> Vec<Request<Body>> {
    let uri = |number| format!("{}/v1/orders", origin(number));
    origins
        .map(|number| scene::request(&uri(number), 3))
        .collect()
}

/// Sends these requests in turn, through a service that answers at once.
fn in_turn<S>(runtime: Runtime, mut service: S, requests: Vec<Request<Body>>) -> Operations
where
    S: Service<Request<Body>, Error: std::fmt::Debug> + 'static,
{
    let mut next = 0;
    Box::new(move |times| {
        let before = measure::thread();
        runtime.block_on(async {
            for _ in 0..times {
                let request = requests[next].clone();
                next = (next + 1) % requests.len();
                drop(service.ready().await.unwrap().call(request).await.unwrap());
            }
        });
        measure::thread() - before
    })
}

/// Each answer brings another nonce. All servers have answered before.
fn nonces(count: usize, asked: usize) -> Operations {
    let mut number = 0;
    let server = service_fn(move |_: Request<Body>| {
        number += 1;
        let mut answer = Response::<Body>::default();
        let nonce = HeaderValue::try_from(format!("nonce-{number:028}")).unwrap();
        answer.headers_mut().insert("dpop-nonce", nonce);
        ready(Ok::<_, Infallible>(answer))
    });
    let key = Backend::Null.key();
    let token = AccessToken::new(TOKEN, &key, Audience::danger_any_https_origin()).unwrap();
    let mut dpop = ServiceBuilder::new()
        .map_request(move |mut request: Request<Body>| {
            request.extensions_mut().insert(token.clone());
            request
        })
        .layer(DpopLayer::new(key))
        .service(server);
    let runtime = runtime();
    runtime.block_on(async {
        for request in requests(0..count) {
            dpop.ready().await.unwrap().call(request).await.unwrap();
        }
    });
    in_turn(runtime, dpop, requests(count - asked..count))
}

fn audience(count: usize) -> Operations {
    let runtime = runtime();
    let dpop = DpopLayer::new(Backend::Null.key());
    let tokens = runtime.block_on(scene::tokens(&dpop, (0..count).map(origin)));
    let both = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(scene::null());
    in_turn(runtime, both, requests(0..count))
}

fn scopes(count: usize) -> Operations {
    let runtime = runtime();
    let dpop = DpopLayer::new(Backend::Null.key());
    let tokens = runtime.block_on(scene::tokens(&dpop, [origin(0)]));
    let parameters =
        (0..count).map(|number| TokenParameters::new().scope(format!("scope-{number}")));
    let parameters: Vec<_> = parameters.collect();
    runtime.block_on(async {
        for parameters in &parameters {
            tokens.access_token_for(parameters).await.unwrap();
        }
    });
    let last = parameters.into_iter().skip(count.saturating_sub(64));
    let requests = last.zip(requests(std::iter::repeat_n(0, 64)));
    let requests = requests.map(|(parameters, mut request)| {
        request.extensions_mut().insert(parameters);
        request
    });
    let requests = requests.collect();
    let both = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(scene::null());
    in_turn(runtime, both, requests)
}

/// So many at a time, each in a task of its own, until there were enough.
fn together<F>(
    runtime: Runtime,
    count: usize,
    before: impl Fn() + 'static,
    one: impl Fn() -> F + 'static,
) -> Operations
where
    F: Future<Output = ()> + Send + 'static,
{
    Box::new(move |times| {
        let groups = times.div_ceil(count as u64);
        let start = measure::thread();
        for _ in 0..groups {
            before();
            let tasks: Vec<_> = (0..count).map(|_| runtime.spawn(one())).collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.unwrap();
                }
            });
        }
        measure::share(measure::thread() - start, times, groups * count as u64)
    })
}

/// The one fetch is behind them in the queue of tasks, so that all wait for it.
fn callers(count: usize) -> Operations {
    let runtime = runtime();
    let dpop = DpopLayer::new(Backend::Null.key());
    let tokens = runtime.block_on(scene::tokens(&dpop, [origin(0)]));
    let forgetting: TokenLayer = tokens.clone();
    let wait = move || {
        let tokens = tokens.clone();
        async move { drop(tokens.access_token().await.unwrap()) }
    };
    together(runtime, count, move || forgetting.forget_tokens(), wait)
}

/// A request is answered when all others have been sent.
fn in_flight(count: usize) -> Operations {
    let runtime = runtime();
    let server = service_fn(|_: Request<Body>| async {
        yield_now().await;
        Ok::<_, Infallible>(Response::<Body>::default())
    });
    let both = runtime.block_on(scene::stack(Backend::Null.key(), &origin(0), server));
    let request = requests(0..1).remove(0);
    let send = move || {
        let (both, request) = (both.clone(), request.clone());
        async move { drop(both.oneshot(request).await.unwrap()) }
    };
    together(runtime, count, || {}, send)
}
