//! What was sent: a line for every sending, by whichever request.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::Result;

/// One sending of a request that carried a proof, as it left the layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sent {
    /// What was run then, for people.
    pub run: String,
    /// When it was sent, by this machine's clock, in milliseconds since 1970.
    pub sent_ms: u64,
    pub method: String,
    /// The whole URL, query included.
    pub url: String,
    /// The value of the header `DPoP`.
    pub proof: String,
    /// What followed `DPoP ` in `Authorization`, if it was there.
    pub token: Option<String>,
    /// By how many seconds the server's clock was ahead of this machine's.
    pub clock: i64,
    /// The answer's status; `None` if there was no answer.
    pub status: Option<u16>,
    /// The answer's `DPoP-Nonce`.
    pub offered: Option<String>,
}

/// The file that all runs write to.
#[derive(Clone)]
pub struct Record {
    path: Arc<PathBuf>,
    file: Arc<Mutex<BufWriter<File>>>,
}

impl Record {
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            path: Arc::new(path.to_owned()),
            file: Arc::new(Mutex::new(BufWriter::new(File::create(path)?))),
        })
    }

    /// Everything that was written so far is in the file then.
    pub fn finish(&self) -> Result<&Path> {
        self.file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()?;
        Ok(&self.path)
    }

    pub fn run(&self, name: impl Into<String>) -> Run {
        Run {
            name: Arc::new(name.into()),
            record: self.clone(),
            seen: Arc::default(),
        }
    }
}

/// One run: its lines, and what it counted.
#[derive(Clone)]
pub struct Run {
    name: Arc<String>,
    record: Record,
    seen: Arc<Mutex<Seen>>,
}

/// What was sent in a run.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Sendings with a token: to an API.
    pub api_sends: u64,
    /// Sendings without one: to an authorization server.
    pub token_sends: u64,
    /// How many got no answer.
    pub lost: u64,
    /// Answers other than success, by status, of both kinds.
    pub refused: HashMap<u16, u64>,
    /// By how much the servers' clocks are ahead, while this run goes on.
    clock: i64,
}

impl Run {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The servers' clocks are so many seconds ahead from now on.
    pub fn clock(&self, seconds: i64) {
        self.lock().clock = seconds;
    }

    /// What was sent since this was asked for the last time.
    pub fn seen(&self) -> Seen {
        let mut seen = self.lock();
        let clock = seen.clock;
        std::mem::replace(
            &mut seen,
            Seen {
                clock,
                ..Seen::default()
            },
        )
    }

    pub fn clock_now(&self) -> i64 {
        self.lock().clock
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sending is over. What cannot be written is a fault of the whole run: there would be proofs that nobody checks.
    pub fn write(&self, sent: &Sent) {
        {
            let mut seen = self.lock();
            match sent.token {
                Some(_) => seen.api_sends += 1,
                None => seen.token_sends += 1,
            }
            match sent.status {
                None => seen.lost += 1,
                Some(status) if status >= 300 => *seen.refused.entry(status).or_default() += 1,
                Some(_) => {}
            }
        }
        let mut line = serde_json::to_vec(sent).expect("a line of texts and numbers");
        line.push(b'\n');
        let mut file = self
            .record
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).expect("the record can be written");
    }
}
