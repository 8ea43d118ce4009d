//! `tower-dpop` against servers, clients and verifiers that others wrote. See `README.md`.

mod browser;
mod chapters;
mod client;
mod fault_proxy;
mod lab;
mod process;
mod proofs;
mod record;
mod recorder;
mod report;
mod servers;
mod verify;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    chapters::{clocks, glewlwyd, load, mcp, replays, requests, restarts, verifiers},
    lab::Lab,
};

type Result<T> = std::result::Result<T, tower_dpop::BoxError>;

#[derive(Parser)]
struct Arguments {
    /// The long form.
    #[arg(long)]
    full: bool,
    /// The folder of this program's sources.
    #[arg(long)]
    programs: PathBuf,
    /// Python, with what `python/requirements.txt` names.
    #[arg(long)]
    python: PathBuf,
    /// What the servers keep, their logs and the record go there.
    #[arg(long)]
    work: PathBuf,
    /// Only these.
    chapters: Vec<Chapter>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Chapter {
    Requests,
    Clocks,
    Restarts,
    Load,
    Mcp,
    Proofs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut terminated = match signal(SignalKind::terminate()) {
        Ok(terminated) => terminated,
        Err(error) => {
            eprintln!("could not run: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Whoever ends this ends its servers with it: they are killed when they are dropped.
    let done = tokio::select! {
        done = run(Arguments::parse()) => done,
        _ = terminated.recv() => Err("terminated".into()),
    };
    match done {
        Ok((passed, 0)) if passed > 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("could not run: {}", client::whole(&*error));
            ExitCode::FAILURE
        }
    }
}

/// How many rows passed, and how many failed.
async fn run(arguments: Arguments) -> Result<(usize, usize)> {
    let Arguments {
        programs,
        python,
        work,
        full,
        chapters,
    } = arguments;
    let lab = Lab::new(&programs, &python, &work, full)?;
    let wanted = |chapter| chapters.is_empty() || chapters.contains(&chapter);
    if wanted(Chapter::Requests) {
        replays::run(&lab).await?;
        requests::run(&lab).await?;
        glewlwyd::run(&lab).await?;
    }
    if wanted(Chapter::Clocks) {
        clocks::run(&lab).await?;
    }
    if wanted(Chapter::Restarts) {
        restarts::run(&lab).await?;
    }
    if wanted(Chapter::Load) {
        load::run(&lab).await?;
    }
    if wanted(Chapter::Mcp) {
        mcp::run(&lab).await?;
    }
    if wanted(Chapter::Proofs) {
        verifiers::others(&lab).await?;
    }
    // Whatever was run, all that it sent.
    use Chapter::{Clocks, Load, Requests, Restarts};
    if [Requests, Clocks, Restarts, Load].into_iter().any(wanted) {
        verifiers::record(&lab).await?;
    }
    let (passed, failed) = lab.report.counts();
    println!("{passed} passed, {failed} failed");
    std::fs::write(work.join("results.md"), lab.report.markdown())?;
    Ok((passed, failed))
}
