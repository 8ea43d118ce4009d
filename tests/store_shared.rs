//! One file with a grant, and several who use it at a time: programs that read while others write, that wait for
//! each other, and that are stopped in the middle of it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/stores.rs"]
mod stores;

use std::{
    collections::BTreeSet,
    env, fs,
    future::Future,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::OnceLock,
    task::{Context, Waker},
    time::Duration,
};

use serde_json::Value;
use tokio::time::timeout;
use tower_dpop::{DpopKey, FileStore, GrantStore, StoredGrant};

use self::stores::{Directory, grant, ours};

/// Against a test that hangs.
const LONG: Duration = Duration::from_secs(120);

const JOB: &str = "TOWER_DPOP_STORE_JOB";
const PLACE: &str = "TOWER_DPOP_STORE_PATH";

fn key() -> DpopKey {
    static KEY: OnceLock<DpopKey> = OnceLock::new();
    KEY.get_or_init(|| DpopKey::generate().unwrap()).clone()
}

/// A grant with a number in it from the beginning to the end: 20 KiB, of which a part would show.
fn numbered(number: usize) -> StoredGrant {
    grant(&key(), &format!("{number:06}.").repeat(3000))
}

/// The number, if it is one and the same everywhere.
#[track_caller]
fn number(refresh_token: &str) -> usize {
    let numbers: BTreeSet<&str> = refresh_token.split_terminator('.').collect();
    assert_eq!((numbers.len(), refresh_token.len()), (1, 7 * 3000), "torn");
    numbers.first().unwrap().parse().unwrap()
}

async fn loaded(store: &FileStore) -> usize {
    let grant = store.load().await.unwrap();
    grant.map_or(0, |grant| number(grant.refresh_token()))
}

/// Reads, adds one and writes, as who renews a token does.
async fn add(store: &FileStore, times: usize) {
    for _ in 0..times {
        let lock = timeout(LONG, store.lock()).await.unwrap().unwrap();
        let number = loaded(store).await;
        tokio::task::yield_now().await;
        store.save(numbered(number + 1)).await.unwrap();
        drop(lock);
    }
}

/// This same program once more. What the shell does first decides what it may.
fn process(first: &str, job: &str, path: &Path) -> Child {
    let script = format!(r#"{first}; exec "$0" "$@""#);
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(script)
        .arg(env::current_exe().unwrap());
    command.args(["--exact", "another_process", "--ignored", "--nocapture"]);
    command.env(JOB, job).env(PLACE, path);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

/// What it tells, without what the test harness does.
fn told(process: &mut Child) -> impl Iterator<Item = String> + use<> {
    let output: ChildStdout = process.stdout.take().unwrap();
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    lines.filter_map(|line| Some(line.split_once("told: ")?.1.to_owned()))
}

#[tokio::test]
#[ignore = "the other process of the tests here"]
async fn another_process() {
    let Ok(job) = env::var(JOB) else { return };
    let path = PathBuf::from(env::var_os(PLACE).unwrap());
    let store = FileStore::new(&path);
    match job.split_once(' ').unwrap_or((&job, "")) {
        ("add", times) => add(&store, times.parse().unwrap()).await,
        ("write", times) => {
            let begin = loaded(&store).await + 1;
            for number in begin..begin + times.parse::<usize>().unwrap() {
                store.save(numbered(number)).await.unwrap();
                println!("told: {number}");
            }
        }
        ("hold", _) => {
            let _lock = store.lock().await.unwrap();
            println!("told: held");
            std::future::pending().await
        }
        ("too-long", _) => {
            store.save(grant(&key(), "small")).await.unwrap();
            let error = ours(store.save(numbered(1)).await.unwrap_err());
            assert!(error.is_store(), "{error:?}");
            assert!(error.to_string().contains("cannot be written"), "{error}");
        }
        ("elsewhere", _) => {
            env::set_current_dir(path.parent().unwrap()).unwrap();
            let store = FileStore::new(path.file_name().unwrap());
            env::set_current_dir("/").unwrap();
            store.save(numbered(1)).await.unwrap();
        }
        (other, _) => panic!("what is {other}?"),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn files_are_their_owners_alone_whatever_the_umask() {
    for umask in ["000", "022", "077", "177"] {
        let directory = Directory::new();
        let mut process = process(&format!("umask {umask}"), "add 1", &directory.grant());
        assert!(process.wait().unwrap().success());
        for name in ["grant.json", "grant.json.lock"] {
            assert_eq!(mode(&directory.path().join(name)), 0o600, "{umask} {name}");
        }
        assert_eq!(loaded(&FileStore::new(directory.grant())).await, 1);
    }
}

#[tokio::test]
async fn who_reads_while_another_writes_finds_one_whole_grant() {
    const ROUNDS: usize = 1000;
    let directory = Directory::new();
    let store = FileStore::new(directory.grant());
    let mut process = process("umask 000", &format!("write {ROUNDS}"), &directory.grant());
    let (mut last, mut seen, mut temporary) = (0, BTreeSet::new(), 0);
    let mut see = |number: usize| {
        assert!(number >= last, "{number} after {last}");
        last = number;
        seen.insert(number);
    };
    loop {
        let status = process.try_wait().unwrap();
        see(loaded(&store).await);
        // With eyes that are not ours.
        if let Ok(bytes) = fs::read(directory.grant()) {
            let json: Value = serde_json::from_slice(&bytes).unwrap();
            see(number(json["refresh_token"].as_str().unwrap()));
        }
        for entry in fs::read_dir(directory.path()).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            // It may be gone by now.
            if name.ends_with(".tmp")
                && let Ok(metadata) = entry.metadata()
            {
                assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{name}");
                temporary += 1;
            }
        }
        if let Some(status) = status {
            assert!(status.success());
            break;
        }
    }
    assert_eq!(last, ROUNDS);
    assert!(
        seen.len() > 2 && temporary > 0,
        "nobody read while it was written"
    );
    assert_eq!(directory.names(), ["grant.json"]);
}

#[tokio::test]
async fn a_writer_that_is_killed_leaves_the_old_grant_or_the_new_one() {
    const ROUNDS: usize = 40;
    let directory = Directory::new();
    let store = FileStore::new(directory.grant());
    let mut left = 0;
    for round in 0..ROUNDS {
        let mut process = process("umask 000", "write 1000000", &directory.grant());
        let mut numbers = told(&mut process);
        let mut last: usize = numbers.next().unwrap().parse().unwrap();
        let moment = getrandom::u32().unwrap() % 40_000;
        tokio::time::sleep(Duration::from_micros(moment.into())).await;
        process.kill().unwrap();
        process.wait().unwrap();
        if let Some(number) = numbers.last() {
            last = number.parse().unwrap();
        }
        let there = loaded(&store).await;
        assert!((last..=last + 1).contains(&there), "{there} for {last}");
        let leftovers: Vec<_> = directory.names().into_iter().skip(1).collect();
        assert!(leftovers.len() <= 1, "{leftovers:?} in round {round}");
        left += leftovers.len();
        for name in leftovers {
            assert!(name.starts_with("grant.json."), "{name}");
            assert_eq!(mode(&directory.path().join(&name)), 0o600, "{name}");
        }
    }
    assert!(left > 0, "none was killed in the middle");
    let next = loaded(&store).await + 1;
    store.save(numbered(next)).await.unwrap();
    assert_eq!(loaded(&store).await, next);
    assert_eq!(directory.names(), ["grant.json"]);
}

#[tokio::test]
async fn a_disk_that_takes_no_more_leaves_the_old_grant() {
    let directory = Directory::new();
    // Files of ten KiB, or twenty, are the longest; and one that is longer kills nobody.
    let first = "trap '' XFSZ; ulimit -f 20";
    let mut process = process(first, "too-long", &directory.grant());
    assert!(process.wait().unwrap().success());
    let there = FileStore::new(directory.grant()).load().await.unwrap();
    assert_eq!(there.unwrap().refresh_token(), "small");
    assert_eq!(directory.names(), ["grant.json"]);
}

#[tokio::test]
async fn a_path_is_taken_from_the_working_directory_of_its_making() {
    let directory = Directory::new();
    let mut process = process(":", "elsewhere", &directory.grant());
    assert!(process.wait().unwrap().success());
    assert_eq!(loaded(&FileStore::new(directory.grant())).await, 1);
}

#[tokio::test]
async fn twenty_processes_lose_no_change_under_the_lock() {
    let directory = Directory::new();
    let processes: Vec<_> = (0..20)
        .map(|_| process(":", "add 5", &directory.grant()))
        .collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(loaded(&FileStore::new(directory.grant())).await, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_the_tasks_of_one() {
    let directory = Directory::new();
    let stores = [(); 3].map(|()| FileStore::new(directory.grant()));
    let tasks: Vec<_> = (0..9)
        .map(|number| {
            // A handle's clones as well as handles of their own.
            let store = stores[number % 3].clone();
            tokio::spawn(async move { add(&store, 10).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(loaded(&stores[0]).await, 90);
}

#[tokio::test]
async fn a_lock_is_free_when_its_holder_is_killed() {
    let directory = Directory::new();
    let store = FileStore::new(directory.grant());
    let mut process = process(":", "hold", &directory.grant());
    assert_eq!(told(&mut process).next().unwrap(), "held");
    let mut waiter = store.lock();
    let waited = timeout(Duration::from_millis(300), &mut waiter).await;
    assert!(waited.is_err(), "it was held");
    process.kill().unwrap();
    let lock = timeout(LONG, waiter).await.unwrap().unwrap();
    process.wait().unwrap();
    // The file stays: who waits has it open.
    let inode =
        |()| std::os::unix::fs::MetadataExt::ino(&fs::metadata(lock_file(&directory)).unwrap());
    let before = inode(());
    drop(lock);
    drop(store.lock().await.unwrap());
    store.clear().await.unwrap();
    assert_eq!(inode(()), before);
}

fn lock_file(directory: &Directory) -> PathBuf {
    directory.path().join("grant.json.lock")
}

/// It begins, and may be through with it.
fn poll_once<F: Future + Unpin>(mut future: F) {
    let _ = std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
}

#[tokio::test]
async fn who_stops_waiting_holds_nothing() {
    let directory = Directory::new();
    let store = || FileStore::new(directory.grant());
    for round in 0..200 {
        let held = store().lock().await.unwrap();
        let (waiting, free) = (store(), store());
        // In the middle of a look at it, or between two.
        let mut waiter = waiting.lock();
        if round % 2 == 0 {
            poll_once(&mut waiter);
        } else {
            let pause = Duration::from_millis(round / 10);
            assert!(timeout(pause, &mut waiter).await.is_err());
        }
        drop(held);
        if round % 4 < 2 {
            // It would have been its turn.
            poll_once(&mut waiter);
        }
        drop(waiter);
        drop(timeout(LONG, free.lock()).await.unwrap().unwrap());
    }
}

/// Whoever renews has given up: their time was over. The disk goes on at its own pace.
#[tokio::test]
async fn changes_that_nobody_waits_for_are_made_in_their_order_and_under_the_lock() {
    const CHANGES: usize = 32;
    let directory = Directory::new();
    let (store, other) = (
        FileStore::new(directory.grant()),
        FileStore::new(directory.grant()),
    );
    for round in 0..10 {
        let lock = store.lock().await.unwrap();
        for number in 1..=CHANGES {
            poll_once(store.save(numbered(number)));
        }
        if round % 2 == 1 {
            poll_once(store.clear());
        }
        drop(lock);
        let lock = timeout(LONG, other.lock()).await.unwrap().unwrap();
        let last = if round % 2 == 1 { 0 } else { CHANGES };
        assert_eq!(loaded(&other).await, last, "round {round}");
        drop(lock);
    }
}

/// Each takes away what it finds of others who were stopped; those who were not are at work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_at_the_same_time_without_the_lock_hinders_nobody() {
    let directory = Directory::new();
    let tasks: Vec<_> = (1..=8)
        .map(|number| {
            let store = FileStore::new(directory.grant());
            tokio::spawn(async move {
                for _ in 0..50 {
                    store.save(numbered(number)).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!((1..=8).contains(&loaded(&FileStore::new(directory.grant())).await));
    assert_eq!(directory.names(), ["grant.json"]);
}
