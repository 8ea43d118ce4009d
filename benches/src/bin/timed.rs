//! What is timed, by the processor's clock: works take turns in rounds, and a figure is the median of those of the rounds.
//!
//! `timed` prints the rows of the table, `timed further` what else may be of interest, `timed growth` what many of
//! anything cost.

use std::{hint::black_box, process::ExitCode};

use tower_dpop_benches::{
    cache::Cached,
    callgrind,
    growth::{SIZES, SUBJECTS},
    keys::Backend,
    loopback::{Loopback, Server, Way, was_server},
    measure::{ROUNDS, Work, each, median, rounds, thread},
    proofs::{Floor, Subject},
    row::Row,
};

/// In a round. Takes 3 ms with the slowest backend.
const SIGNATURES: u64 = 60;

/// In a round.
const REQUESTS: u64 = 1600;

/// In a round: enough for the tasks to meet.
const READS: u64 = 160_000;

/// In a round.
const GROWING: u64 = 20_000;

/// So many times, in this thread.
fn repeated<T>(mut work: impl FnMut() -> T + 'static) -> Work<'static> {
    Box::new(move || {
        let before = thread();
        (0..SIGNATURES).for_each(|_| drop(black_box(work())));
        each(SIGNATURES, thread() - before)
    })
}

fn signatures(backend: Backend) -> Work<'static> {
    let floor = Floor::new(backend);
    repeated(move || floor.sign())
}

fn proofs(backend: Backend) -> Work<'static> {
    let subject = Subject::new(backend);
    repeated(move || subject.prove())
}

fn requests(server: &Server, way: Way, in_flight: u64, http2: bool) -> Work<'static> {
    let mut client = Loopback::new(server, way, in_flight, http2);
    Box::new(move || each(REQUESTS, client.send(REQUESTS)))
}

fn reads(tasks: u64) -> Work<'static> {
    let cached = Cached::new();
    Box::new(move || each(READS, cached.read(tasks, READS)))
}

/// Beside the bare signature of the same bytes.
fn proof(backend: Backend) -> f64 {
    // So many rounds: what is looked for is a hundredth.
    let rounds = rounds(3 * ROUNDS, &mut [proofs(backend), signatures(backend)]);
    median(&rounds, |round| round[0] / round[1])
}

/// What both layers cost beyond static headers, in bare signatures.
fn loopback() -> f64 {
    let server = Server::start();
    let layers = requests(&server, Way::Layers(Backend::AwsLcRs), 16, false);
    let headers = requests(&server, Way::Static, 16, false);
    let signatures = signatures(Backend::AwsLcRs);
    let rounds = rounds(ROUNDS, &mut [layers, headers, signatures]);
    median(&rounds, |round| (round[0] - round[1]) / round[2])
}

/// In hundredths of a bare signature.
fn cached() -> f64 {
    let rounds = rounds(ROUNDS, &mut [reads(8), signatures(Backend::AwsLcRs)]);
    median(&rounds, |round| 100.0 * round[0] / round[1])
}

fn rows() {
    // First of all: over loopback this process has but one of the processors.
    let cached = cached();
    let row = |number, name, figure, most, digits| {
        println!(
            "{}",
            Row::at_most(number, name, figure, most).digits(digits)
        );
    };
    let name = "a proof beside the bare signature, p256";
    row(1, name, proof(Backend::P256), 1.02, 3);
    let name = "a proof beside the bare signature, aws-lc-rs";
    row(2, name, proof(Backend::AwsLcRs), 1.06, 3);
    let name = "both layers over loopback beside static headers, HTTP/1.1: extra CPU in aws-lc-rs signatures";
    row(8, name, loopback(), 1.15, 2);
    let name = "reading the cached token, 8 tasks on 2 cores: % of an aws-lc-rs signature";
    row(11, name, cached, 1.0, 2);
}

fn further() {
    let layers = callgrind::instructions("layers", 1000) - callgrind::instructions("nothing", 1000);
    println!(
        "instructions of both layers without the signature, a request with three headers | {layers:.0}"
    );

    let proofs = rounds(
        ROUNDS,
        &mut [
            signatures(Backend::P256),
            signatures(Backend::AwsLcRs),
            proofs(Backend::Null),
        ],
    );
    let us = |which: usize| median(&proofs, |round| round[which] / 1e3);
    println!("bare signature, p256 | {:.1} µs", us(0));
    println!("bare signature, aws-lc-rs | {:.1} µs", us(1));
    let ratio = median(&proofs, |round| round[0] / round[1]);
    println!("bare signature, p256 beside aws-lc-rs | {ratio:.2}");
    println!("proof without the signature | {:.2} µs", us(2));

    let reads = rounds(ROUNDS / 5, &mut [reads(1), reads(2), reads(8)]);
    for (which, tasks) in [1, 2, 8].into_iter().enumerate() {
        let ns = median(&reads, |round| round[which]);
        println!("reading the cached token, {tasks} tasks on 2 cores | {ns:.0} ns of a core");
    }

    // A signature costs more between requests than in a row with others.
    let server = Server::start();
    for (http2, in_flight) in [(false, 1), (false, 16), (true, 16)] {
        let mut ways = Way::ALL.map(|way| requests(&server, way, in_flight, http2));
        let rounds = rounds(ROUNDS / 3, &mut ways);
        let version = if http2 { "HTTP/2" } else { "HTTP/1.1" };
        let told = format!("a request over loopback, {version}, {in_flight} at a time");
        for (which, way) in Way::ALL.into_iter().enumerate() {
            let us = median(&rounds, |round| round[which] / 1e3);
            println!("{told}, {} | {us:.1} µs of the client", way.name());
        }
        let of = |way| Way::ALL.iter().position(|known| *known == way).unwrap_or(0);
        let aws_lc_rs = Backend::AwsLcRs;
        let (layers, signed) = (of(Way::Layers(aws_lc_rs)), of(Way::Signed(aws_lc_rs)));
        let none = of(Way::Static);
        let beside = |round: &[f64]| (round[layers] - round[none]) / (round[signed] - round[none]);
        let ratio = median(&rounds, beside);
        println!("{told}, extra of both layers beside a bare signature made there | {ratio:.2}");
    }
}

fn growth() {
    for subject in SUBJECTS {
        print!("{}", subject.name);
        for size in SIZES {
            let mut operations = (subject.prepare)(size);
            let operations = Box::new(move || each(GROWING, operations(GROWING)));
            let rounds = rounds(ROUNDS / 10, &mut [operations]);
            print!(" | {:.0}", median(&rounds, |round| round[0]));
        }
        println!();
    }
}

fn main() -> ExitCode {
    if was_server() || callgrind::was_load() {
        return ExitCode::SUCCESS;
    }
    match std::env::args().nth(1).as_deref() {
        None => rows(),
        Some("further") => further(),
        Some("growth") => growth(),
        Some(_) => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}
