//! What was run and what was seen: printed as it comes, and kept for the table.

use std::{
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::{Result, client::whole};

/// A line of the table.
struct Row {
    chapter: &'static str,
    server: String,
    run: String,
    seen: std::result::Result<String, String>,
    took: Duration,
}

pub struct Report {
    rows: Mutex<Vec<Row>>,
    /// Longer than any row takes. One that hangs has failed.
    limit: Duration,
}

impl Report {
    pub fn new(limit: Duration) -> Self {
        Self {
            rows: Mutex::default(),
            limit,
        }
    }

    /// Does one thing and notes what was seen of it. An error is noted, too, and the next thing done all the same.
    pub async fn row<F>(&self, chapter: &'static str, server: &str, run: &str, work: F)
    where
        F: Future<Output = Result<String>>,
    {
        let start = Instant::now();
        let seen = timeout(self.limit, work).await;
        let seen = seen.unwrap_or_else(|_| Err("it took too long".into()));
        let seen = seen.map_err(|error| whole(&*error));
        let row = Row {
            chapter,
            server: server.to_owned(),
            run: run.to_owned(),
            seen,
            took: start.elapsed(),
        };
        let (mark, text) = match &row.seen {
            Ok(text) => ("ok    ", text),
            Err(text) => ("FAILED", text),
        };
        println!(
            "{mark} {chapter}: {server}: {run}: {text} ({:.1?})",
            row.took
        );
        self.lock().push(row);
    }

    /// How many went well, and how many did not.
    pub fn counts(&self) -> (usize, usize) {
        let rows = self.lock();
        let passed = rows.iter().filter(|row| row.seen.is_ok()).count();
        (passed, rows.len() - passed)
    }

    /// The tables, one for each chapter, in Markdown.
    pub fn markdown(&self) -> String {
        let (rows, mut text, mut chapter) = (self.lock(), String::new(), "");
        for row in rows.iter() {
            if row.chapter != chapter {
                chapter = row.chapter;
                let _ = write!(
                    text,
                    "\n## {chapter}\n\n| server | what was run | what was seen | seconds |\n|---|---|---|---|\n"
                );
            }
            let seen = match &row.seen {
                Ok(seen) => seen.clone(),
                Err(error) => format!("**failed**: {error}"),
            };
            let cells = [&row.server, &row.run, &seen].map(|cell| cell.replace('|', "\\|"));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.0} |",
                cells[0],
                cells[1],
                cells[2],
                row.took.as_secs_f64().ceil()
            );
        }
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
