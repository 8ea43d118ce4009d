//! What every chapter works with, and what it reports to.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{Result, record::Record, report::Report};

/// Where things are, and how much is to be done.
pub struct Lab {
    /// The folder of the programs: `interop/`.
    pub programs: PathBuf,
    /// Python, with what the programs need.
    pub python: PathBuf,
    /// What is written goes below it: servers' states, logs, the record.
    work: PathBuf,
    pub record: Record,
    pub report: Report,
    /// Whether the long form runs.
    pub full: bool,
    folders: AtomicU64,
}

impl Lab {
    pub fn new(programs: &Path, python: &Path, work: &Path, full: bool) -> Result<Self> {
        std::fs::create_dir_all(work)?;
        Ok(Self {
            programs: programs.to_owned(),
            python: python.to_owned(),
            record: Record::create(&work.join("record.jsonl"))?,
            work: work.to_owned(),
            report: Report::new(Duration::from_secs(if full { 1_800 } else { 120 })),
            full,
            folders: AtomicU64::new(0),
        })
    }

    /// A new folder, whose name tells what for.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        let folder = self.work.join(format!("{number:02}-{name}"));
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// The short form's number, or the long one's.
    pub fn size(&self, short: u64, full: u64) -> u64 {
        if self.full { full } else { short }
    }
}
