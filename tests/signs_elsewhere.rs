//! A signer that takes its time, on threads of its own: the recipe of the docs (`performance`), as it stands there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use http::{Request, Response};
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use support::{API, Fake, get, nonce_challenge, ok, own_token, with_token};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tower::{BoxError, Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};
use tower_dpop::{DpopKey, DpopLayer};

/// By then, it will never end.
const HANGS: Duration = Duration::from_secs(60);

/// The whole stack runs on `pool`, with so many requests at once; `oneshot` is in there, too, so nothing of it is left
/// to the caller but to wait.
fn elsewhere<S, B, R>(
    stack: S,
    pool: Handle,
    at_once: usize,
) -> impl Service<Request<B>, Response = R, Error = BoxError, Future: Send> + Clone
where
    S: Service<Request<B>, Response = R, Error = BoxError, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
    R: Send + 'static,
{
    let send = move |request| {
        let mut task = JoinSet::new(); // when it is dropped, the task ends
        task.spawn_on(stack.clone().oneshot(request), &pool);
        async move { task.join_next().await.ok_or("no task")?? }
    };
    ServiceBuilder::new()
        .concurrency_limit(at_once)
        .service(service_fn(send))
}

/// Its threads have a name.
struct Pool(Option<Runtime>);

impl Pool {
    fn new() -> Self {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(2).thread_name("signs").enable_all();
        Self(Some(threads.build().unwrap()))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().unwrap().handle().clone()
    }
}

impl Drop for Pool {
    /// A runtime does not like to be dropped in another.
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// A key, and the names of the threads that it has signed in.
fn telling() -> (DpopKey, Arc<Mutex<Vec<String>>>) {
    let signing = SigningKey::from_slice(&[7; 32]).unwrap();
    let public = signing.verifying_key().to_sec1_point(false);
    let threads = Arc::<Mutex<Vec<_>>>::default();
    let told = Arc::clone(&threads);
    let sign = move |message: &[u8]| {
        let name = thread::current().name().unwrap_or_default().to_owned();
        told.lock().unwrap().push(name);
        let signature: Signature = signing.sign(message);
        Ok::<[u8; 64], BoxError>(signature.to_bytes().into())
    };
    let key = DpopKey::from_signer(public.as_bytes(), sign).unwrap();
    threads.lock().unwrap().clear(); // It was tried out, in this thread.
    (key, threads)
}

#[tokio::test]
async fn every_signature_is_made_in_the_pool_that_of_a_request_sent_again_too() {
    let pool = Pool::new();
    let (key, threads) = telling();
    let fake = Fake::new(|_, n| match n {
        0 => nonce_challenge("n1"),
        _ => ok(),
    });
    let stack = DpopLayer::new(key.clone()).layer(fake.clone());
    let api = elsewhere(stack, pool.handle(), 4);
    let request = with_token(get(API), &own_token(&key));
    let answer = api.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(fake.seen().len(), 2);
    assert_eq!(*threads.lock().unwrap(), ["signs", "signs"]);
}

#[tokio::test]
async fn a_caller_that_gives_up_ends_what_the_pool_does_for_it() {
    let pool = Pool::new();
    let (key, _) = telling();
    let (begun, mut begins) = mpsc::channel::<()>(1);
    // Never answers; the channel closes when the last of its futures is gone.
    let client = service_fn(move |_: Request<_>| {
        let begun = begun.clone();
        async move {
            begun.send(()).await?;
            std::future::pending::<Result<Response<()>, BoxError>>().await
        }
    });
    let stack = DpopLayer::new(key.clone()).layer(client);
    let api = elsewhere(stack, pool.handle(), 4);
    let request = with_token(get(API), &own_token(&key));
    let call = tokio::spawn(api.oneshot(request));
    begins.recv().await.unwrap();
    call.abort();
    let ended = timeout(HANGS, begins.recv()).await;
    assert_eq!(ended, Ok(None));
}
