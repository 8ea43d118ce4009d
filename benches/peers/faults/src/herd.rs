//! Many callers at once, and what became of them.

use std::{fmt, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// One side of a comparison: a token cache, with whatever it stands in.
pub(crate) trait Client {
    /// One call that needs a token. Says whether it got one and, if there is an API, was let in.
    fn call(&self) -> impl Future<Output = bool> + Send + 'static;
}

/// Callers, each in a task of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Herd {
    pub(crate) callers: u32,
    /// How long after one the next one starts.
    pub(crate) apart: Duration,
    /// After this a caller gives up.
    pub(crate) deadline: Duration,
}

impl Herd {
    /// All at once, with `deadline`.
    pub(crate) const fn at_once(callers: u32, deadline: Duration) -> Self {
        Self {
            callers,
            apart: Duration::ZERO,
            deadline,
        }
    }

    /// Lets them call, and waits until the last one has an answer or has given up.
    pub(crate) async fn run(self, client: &impl Client) -> Callers {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..self.callers {
            let call = client.call();
            tasks.spawn(async move {
                sleep_until(start + self.apart * number).await;
                let began = Instant::now();
                let answer = timeout(self.deadline, call).await;
                (answer, began.elapsed())
            });
        }
        let mut callers = Callers {
            all: self.callers,
            ..Callers::default()
        };
        while let Some(ended) = tasks.join_next().await {
            match ended {
                Ok((answer, took)) => {
                    callers.slowest = callers.slowest.max(took);
                    match answer {
                        Ok(true) => callers.ok += 1,
                        Ok(false) => callers.failed += 1,
                        Err(_) => callers.gave_up += 1,
                    }
                }
                // Nobody aborts them.
                Err(_) => callers.panicked += 1,
            }
        }
        callers
    }
}

/// What became of a herd.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Callers {
    all: u32,
    ok: u32,
    failed: u32,
    gave_up: u32,
    panicked: u32,
    /// Of those that did not panic.
    slowest: Duration,
}

impl Callers {
    pub(crate) fn all_ok(&self) -> bool {
        self.ok == self.all
    }
}

impl fmt::Display for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ok", self.ok, self.all)?;
        for (count, what) in [
            (self.failed, "got an error"),
            (self.gave_up, "gave up"),
            (self.panicked, "panicked"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.panicked < self.all {
            write!(f, ", slowest {}", Seconds(self.slowest))?;
        }
        Ok(())
    }
}

/// Milliseconds below one second, else seconds.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            short if short < 1.0 => write!(f, "{:.0} ms", short * 1e3),
            long => write!(f, "{long:.2} s"),
        }
    }
}
