//! Reading a token that is there.

use std::{hint::black_box, sync::Arc, time::Duration};

use tokio::runtime::{Builder, Runtime};
use tower_dpop::{DpopLayer, TokenLayer};

use crate::{keys::Backend, measure, scene};

/// A token that many tasks read at the same time.
pub struct Cached {
    runtime: Runtime,
    tokens: Arc<TokenLayer>,
}

impl Cached {
    /// With two threads for all tasks.
    #[must_use]
    pub fn new() -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build();
        let runtime = runtime.unwrap();
        let dpop = DpopLayer::new(Backend::Null.key());
        let tokens = runtime.block_on(scene::tokens(&dpop, ["https://api.example.com"]));
        Self {
            runtime,
            tokens: Arc::new(tokens),
        }
    }

    /// What so many reads cost on all processors together, shared among so many tasks.
    #[must_use]
    pub fn read(&self, tasks: u64, times: u64) -> Duration {
        let of_each = times.div_ceil(tasks);
        let before = measure::process();
        let reading: Vec<_> = (0..tasks)
            .map(|_| {
                let tokens = Arc::clone(&self.tokens);
                self.runtime.spawn(async move {
                    for _ in 0..of_each {
                        black_box(tokens.access_token().await.unwrap());
                    }
                })
            })
            .collect();
        for task in reading {
            self.runtime.block_on(task).unwrap();
        }
        measure::share(measure::process() - before, times, of_each * tasks)
    }
}

impl Default for Cached {
    fn default() -> Self {
        Self::new()
    }
}
