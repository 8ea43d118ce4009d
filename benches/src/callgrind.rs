//! Instructions, counted by callgrind.

use std::{env, fmt::Debug, hint::black_box, process::Command};

use http::Request;
use tokio::runtime::{Builder, Runtime};
use tower::{Service, ServiceExt as _};

use crate::{
    keys::Backend,
    proofs::{Floor, Subject, URI},
    scene::{self, Body},
};

/// The first argument of a run that is counted.
const LOAD: &str = "load";

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// Whole proofs.
    Proof(Backend),
    /// Bare signatures of the same bytes.
    Signature(Backend),
    /// Requests through both layers, to a service that does nothing, with a key that does not sign.
    Layers,
    /// The same requests to that service alone.
    Nothing,
}

impl Load {
    const ALL: [(&'static str, Self); 5] = [
        ("layers", Self::Layers),
        ("nothing", Self::Nothing),
        ("null-proof", Self::Proof(Backend::Null)),
        ("p256-proof", Self::Proof(Backend::P256)),
        ("p256-signature", Self::Signature(Backend::P256)),
    ];

    fn run(self, times: u64) {
        match self {
            Self::Proof(backend) => {
                let subject = Subject::new(backend);
                (0..times).for_each(|_| drop(black_box(subject.prove())));
            }
            Self::Signature(backend) => {
                let floor = Floor::new(backend);
                (0..times).for_each(|_| _ = black_box(floor.sign()));
            }
            Self::Layers => runtime().block_on(async {
                let stack = scene::stack(Backend::Null.key(), ORIGIN, scene::null()).await;
                send(stack, times).await;
            }),
            Self::Nothing => runtime().block_on(send(scene::null(), times)),
        }
    }
}

const ORIGIN: &str = "https://api.example.com";

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

async fn send<S>(mut service: S, times: u64)
where
    S: Service<Request<Body>, Error: Debug>,
{
    for _ in 0..times {
        let ready = service.ready().await.unwrap();
        drop(black_box(ready.call(scene::request(URI, 3)).await.unwrap()));
    }
}

/// Whether this program was started to be counted; it has done so then.
#[must_use]
pub fn was_load() -> bool {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [command, name, times] = arguments.as_slice() else {
        return false;
    };
    let load = Load::ALL.iter().find(|(known, _)| known == name);
    match load {
        Some((_, load)) if command == LOAD => load.run(times.parse().unwrap()),
        _ => return false,
    }
    true
}

/// Instructions of one proof or signature: what twice as many need more, so that nothing of a program's start counts.
#[must_use]
pub fn instructions(name: &str, times: u64) -> f64 {
    (collected(name, 2 * times) - collected(name, times)) as f64 / times as f64
}

fn collected(name: &str, times: u64) -> u64 {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().unwrap())
        .args([LOAD, name, &times.to_string()])
        .output()
        .expect("valgrind is installed");
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    let collected = told
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.expect("callgrind tells what it collected");
    collected.trim().parse().unwrap()
}
