//! Every proof that was sent, checked by verifiers that are not ours.
//!
//! Three look at each line of the record:
//!
//! * `dpop-verifier`: signature, `typ`, `alg`, `jwk`, `htm`, `htu`, `ath`; ES256 and EdDSA;
//! * `huskarl-resource-server`: the same, all algorithms and the time; `htm`, `htu` and `ath` only beside a token, since
//!   it is a resource server's;
//! * our own rules, in [`line`] and [`history`]: what no verifier asks of a client, and the whole record.
//!
//! Where the two libraries are laxer than RFC 9449, and who sees it then (the tests say so for each break):
//!
//! | what | by | seen by |
//! |---|---|---|
//! | `htm` in small letters, or with blanks | `dpop-verifier` | `huskarl`, [`line`] |
//! | `htu` with a query or a fragment | `dpop-verifier` | `huskarl`, [`line`] |
//! | `htu` with one slash for two | `dpop-verifier` | `huskarl`, [`line`] |
//! | `htu` with dot segments resolved, a default port, or capitals in the host | both | [`line`] |
//! | `htm` and `htu` without a token | `huskarl` | `dpop-verifier`, [`line`] |
//! | `typ` as `application/dpop+jwt`, or in capitals | `huskarl` | `dpop-verifier`, [`line`] |
//! | `crit`, and names that stand twice in the header | `dpop-verifier` | `huskarl`, [`line`] |
//! | header members that nobody asked for | both | [`line`] |
//! | the members of a private RSA key but for `d` | both | [`line`] |
//! | an empty `jti` | both | [`history`] |
//! | `iat` with a fraction | `huskarl` | `dpop-verifier`, [`line`] |
//! | `ath` without a token | both | [`line`] |
//! | `exp` and `nbf` within their time, and any other claim | both | [`line`] |

mod history;
mod huskarl;
mod line;
mod other;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufRead as _, BufReader},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use serde::Serialize;

use self::{history::History, huskarl::Huskarl, line::Claims, other::Other};
use crate::record::Sent;

/// How many findings are kept in full. All are counted.
const KEPT: usize = 100;

/// Lines that change threads together.
const BATCH: usize = 256;

/// Batches that may wait, so that a long record is never in memory.
const WAITING: usize = 16;

/// A rule that a line broke.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Counted from 1, over the whole record.
    pub line: u64,
    /// Who found it: a library, or one of our own rules.
    pub by: &'static str,
    pub run: String,
    pub what: String,
}

/// What all verifiers say of a record.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    /// Lines.
    pub proofs: u64,
    /// Proofs that each library looked at.
    pub checked: BTreeMap<&'static str, u64>,
    /// Proofs by algorithm.
    pub algorithms: BTreeMap<String, u64>,
    /// All findings; one line can have several.
    pub count: u64,
    pub by: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub first: Vec<Finding>,
}

impl Findings {
    /// Whether nothing was found, in a record that holds something.
    pub fn is_clean(&self) -> bool {
        self.proofs > 0 && self.count == 0
    }

    fn found(&mut self, by: &'static str, line: u64, sent: &Sent, what: impl fmt::Display) {
        self.count += 1;
        *self.by.entry(by).or_default() += 1;
        // A thread may keep more than asked for: which come first is known at the end.
        if self.first.len() < KEPT {
            let (run, what) = (sent.run.clone(), what.to_string());
            self.first.push(Finding {
                line,
                by,
                run,
                what,
            });
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        for (by, count) in other.by {
            *self.by.entry(by).or_default() += count;
        }
        for (library, count) in other.checked {
            *self.checked.entry(library).or_default() += count;
        }
        self.first.extend(other.first);
        self.first.sort();
        self.first.truncate(KEPT);
    }
}

/// A line on its way to the libraries.
struct Read {
    line: u64,
    sent: Sent,
    /// If they could be read at all.
    claims: Option<Claims>,
}

/// Checks every proof of a record, its lines in the order in which the answers came.
pub fn verify(record: impl Iterator<Item = Sent>) -> Findings {
    let mut all = Findings::default();
    let (give, take) = sync_channel(WAITING);
    let take = Mutex::new(take);
    let bound = Mutex::default();
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| libraries(&take, &bound)))
            .collect();
        let mut history = History::default();
        let mut batch = Vec::with_capacity(BATCH);
        for (sent, line) in record.zip(1..) {
            all.proofs += 1;
            let claims = line::check(&sent, |by, what| all.found(by, line, &sent, what));
            if let Some(claims) = &claims {
                *all.algorithms.entry(claims.alg.clone()).or_default() += 1;
            }
            history.check(&sent, claims.as_ref(), |by, what| {
                all.found(by, line, &sent, what);
            });
            batch.push(Read { line, sent, claims });
            if batch.len() == BATCH {
                give.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH)))
                    .expect("the threads take until there is no more");
            }
        }
        give.send(batch)
            .expect("the threads take until there is no more");
        drop(give);
        for worker in workers {
            all.add(worker.join().expect("a verifier does not panic"));
        }
    });
    all
}

/// One thread's part.
fn libraries(take: &Mutex<Receiver<Vec<Read>>>, bound: &huskarl::Bound) -> Findings {
    let mut findings = Findings::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without any driver");
    let huskarl = runtime.block_on(Huskarl::new(bound));
    loop {
        let batch = take.lock().expect("nobody panics with it").recv();
        let Ok(batch) = batch else { break };
        for Read { line, sent, claims } in batch {
            let mut check = |library: &'static str, told: &dyn Fn() -> Result<(), String>| {
                *findings.checked.entry(library).or_default() += 1;
                if let Err(what) = caught(told) {
                    findings.found(library, line, &sent, what);
                }
            };
            if Other::knows(&sent) {
                check(Other::NAME, &|| runtime.block_on(Other::check(&sent)));
            }
            let iat = claims.map(|all| all.iat);
            check(Huskarl::NAME, &|| {
                runtime.block_on(huskarl.check(&sent, iat))
            });
        }
    }
    findings
}

/// A library that panics over a proof has found something, and goes on with the next.
fn caught(check: &dyn Fn() -> Result<(), String>) -> Result<(), String> {
    let panicked = |_| Err("it panicked".to_owned());
    catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(panicked)
}

/// [`verify`] for a record in files.
pub fn verify_files<P: AsRef<Path>>(paths: &[P]) -> io::Result<Findings> {
    let mut unread = None;
    let lines = paths.iter().flat_map(|path| lines(path.as_ref()));
    let findings = verify(lines.map_while(|line| line.map_err(|e| unread = Some(e)).ok()));
    unread.map_or(Ok(findings), Err)
}

fn lines(path: &Path) -> impl Iterator<Item = io::Result<Sent>> + use<> {
    let (file, error) = match File::open(path) {
        Ok(file) => (Some(file), None),
        Err(e) => (None, Some(Err(e))),
    };
    let lines = file
        .into_iter()
        .flat_map(|file| BufReader::new(file).lines());
    let read = |line: io::Result<String>| Ok(serde_json::from_str(&line?)?);
    error.into_iter().chain(lines.map(read))
}
