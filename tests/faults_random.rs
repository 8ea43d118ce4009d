//! Where the identifiers of proofs come from, and what happens when nothing comes: F68 and F75 of the fault
//! catalogue. In a program of its own, which stands between the crate and the operating system's random
//! numbers: it defines the `getrandom` that the `getrandom` crate looks up.
#![cfg(all(
    target_os = "linux",
    target_env = "gnu",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::{Method, Uri};
use support::{
    API, Fake, a3_key,
    bench::{AS, RS, find, servers, stack},
    claims, get, invalid_token, nonce_challenge, ok, own_token, token, with_token,
};
use tower::{Layer, ServiceExt};
use tower_dpop::{DpopKey, DpopLayer, proof::Proof};

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
    fn __errno_location() -> *mut i32;
    fn fork() -> i32;
    fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
}

#[cfg(target_arch = "x86_64")]
const SYS_GETRANDOM: i64 = 318;
#[cfg(target_arch = "aarch64")]
const SYS_GETRANDOM: i64 = 278;
const EIO: i32 = 5;

thread_local! {
    /// After so many calls of this thread there are no random numbers any more.
    static CALLS_LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
    /// All that this thread was given, call by call.
    static DRAWN: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What the operating system's library has under this name; the linker prefers ours.
///
/// # Safety
///
/// As getrandom(2): `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    // Only a question whether it is there.
    if length > 0 {
        let left = CALLS_LEFT.get();
        if left == 0 {
            // SAFETY: the library's own place for this thread's error number.
            unsafe { *__errno_location() = EIO };
            return -1;
        }
        CALLS_LEFT.set(left.saturating_sub(usize::from(left != usize::MAX)));
    }
    // SAFETY: the system call that the library's function makes, with the caller's own arguments.
    let drawn = unsafe { syscall(SYS_GETRANDOM, buffer, length, flags) };
    if drawn > 0 {
        // SAFETY: so many bytes of the buffer were just written.
        let bytes = unsafe { std::slice::from_raw_parts(buffer, drawn as usize) };
        DRAWN.with_borrow_mut(|all| all.push(bytes.to_vec()));
    }
    drawn as isize
}

/// From now on, in this thread.
fn fail_after(calls: usize) {
    CALLS_LEFT.set(calls);
}

fn drawn() -> Vec<Vec<u8>> {
    DRAWN.take()
}

fn proof_for(uri: &Uri) -> Proof<'_> {
    Proof::new(&Method::GET, uri).unwrap()
}

fn jti(key: &DpopKey, proof: &Proof<'_>) -> String {
    let proof = proof.sign(key).unwrap();
    claims(&proof)["jti"].as_str().unwrap().to_owned()
}

// F68: no proof can be made.

#[tokio::test]
async fn f68_without_random_numbers_no_request_leaves() {
    let fake = Fake::new(|_, _| ok());
    let dpop = DpopLayer::new(a3_key()).layer(fake.clone());
    let request = || with_token(get(API), &own_token(&a3_key()));
    fail_after(0);
    for _ in 0..10 {
        let error = dpop.clone().oneshot(request()).await.unwrap_err();
        let error = find(&error);
        assert!(error.is_sign(), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    assert!(DpopKey::generate().unwrap_err().is_sign());
    assert_eq!(fake.seen().len(), 0);
    fail_after(usize::MAX);
    dpop.oneshot(request()).await.unwrap();
    assert_eq!(fake.seen().len(), 1);
    assert!(fake.seen()[0].header("dpop").is_some());
}

#[tokio::test]
async fn f68_nor_does_the_second_sending_of_one_that_was_challenged() {
    let fake = Fake::new(|_, _| nonce_challenge("n"));
    let dpop = DpopLayer::new(a3_key()).layer(fake.clone());
    fail_after(1);
    let request = with_token(get(API), &own_token(&a3_key()));
    let error = dpop.oneshot(request).await.unwrap_err();
    fail_after(usize::MAX);
    assert!(find(&error).is_sign(), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn f68_without_a_proof_there_is_no_token_request_either() {
    let fake = servers(300, |_| true);
    let stack = stack(&fake);
    fail_after(0);
    let error = stack.clone().oneshot(get(API)).await.unwrap_err();
    fail_after(usize::MAX);
    assert!(find(&error).is_sign(), "{error}");
    assert_eq!((fake.hits(AS), fake.hits(RS)), (0, 0));
    // It passes, and the layer with it.
    tokio::time::sleep(std::time::Duration::from_secs(30)).await;
    assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn f68_nor_is_a_renewed_token_sent_without_one() {
    // The first token is refused. When the second one comes, the random numbers are at their end.
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => token("t0", 300),
        (Some(AS), _) => {
            fail_after(0);
            token("t1", 300)
        }
        _ => invalid_token(),
    });
    let error = stack(&fake).oneshot(get(API)).await.unwrap_err();
    fail_after(usize::MAX);
    assert!(find(&error).is_sign(), "{error}");
    assert_eq!((fake.hits(AS), fake.hits(RS)), (2, 1));
}

// F75: identifiers that come twice.

#[test]
fn f75_a_jti_is_16_bytes_of_the_operating_system_and_nothing_else() {
    let (key, uri) = (a3_key(), API.parse().unwrap());
    let proof = proof_for(&uri);
    for _ in 0..1000 {
        drawn();
        let jti = jti(&key, &proof);
        let drawn = drawn();
        assert_eq!(drawn.len(), 1, "asked once for each proof");
        assert_eq!(drawn[0].len(), 16);
        assert_eq!(jti, BASE64URL.encode(&drawn[0]));
    }
}

#[tokio::test]
async fn f75_so_is_that_of_each_sending_through_the_layer() {
    let fake = Fake::new(|seen, _| match seen.nonce() {
        None => nonce_challenge("n"),
        Some(_) => ok(),
    });
    drawn();
    let request = with_token(get(API), &own_token(&a3_key()));
    let dpop = DpopLayer::new(a3_key()).layer(fake.clone());
    dpop.oneshot(request).await.unwrap();
    let sent: Vec<_> = fake
        .seen()
        .iter()
        .map(|seen| seen.claims()["jti"].clone())
        .collect();
    let drawn: Vec<_> = drawn()
        .iter()
        .map(|bytes| BASE64URL.encode(bytes))
        .collect();
    assert_eq!(drawn.len(), 2);
    assert_eq!(sent, drawn);
}

/// `FAULTS_JTIS` of them, if that is set: the catalogue asks for 10⁸.
#[test]
fn f75_none_comes_twice_and_each_of_the_128_bits_is_chance() {
    let count: usize = std::env::var("FAULTS_JTIS").map_or(20_000, |n| n.parse().unwrap());
    let (key, uri) = (a3_key(), API.parse().unwrap());
    let proof = proof_for(&uri);
    let mut seen = HashSet::with_capacity(count);
    let mut ones = [0_usize; 128];
    for _ in 0..count {
        let bytes: [u8; 16] = BASE64URL
            .decode(jti(&key, &proof))
            .unwrap()
            .try_into()
            .unwrap();
        let number = u128::from_be_bytes(bytes);
        for (bit, ones) in ones.iter_mut().enumerate() {
            *ones += usize::from(number >> bit & 1 == 1);
        }
        assert!(seen.insert(number), "{number:032x} came twice");
        drawn();
    }
    // Eight standard deviations of fair coins: one run in 10¹³ would fail by chance.
    let half = count as f64 / 2.0;
    let far = 8.0 * (count as f64).sqrt() / 2.0;
    for (bit, ones) in ones.into_iter().enumerate() {
        assert!(
            (ones as f64 - half).abs() < far,
            "bit {bit}: {ones} of {count}"
        );
    }
}

const IN_EACH: usize = 500;

fn some_jtis() -> Vec<String> {
    let (key, uri) = (a3_key(), API.parse().unwrap());
    let proof = proof_for(&uri);
    (0..IN_EACH).map(|_| jti(&key, &proof)).collect()
}

/// This same program once more: what its test prints.
fn another_process(test: &str) -> Vec<String> {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            test,
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    // The test harness talks, too.
    let jtis = lines.filter_map(|line| Some(line.unwrap().split_once("jti: ")?.1.to_owned()));
    let jtis = jtis.collect();
    assert!(process.wait().unwrap().success());
    jtis
}

fn all_differ(jtis: &[String], count: usize) {
    assert_eq!(jtis.len(), count);
    let distinct: HashSet<_> = jtis.iter().collect();
    assert_eq!(distinct.len(), count);
}

#[test]
fn f75_processes_that_start_alike_differ() {
    let mut all = some_jtis();
    for _ in 0..3 {
        all.extend(another_process("prints_some"));
    }
    all_differ(&all, 4 * IN_EACH);
}

#[test]
#[ignore = "the other process of the test above"]
fn prints_some() {
    for jti in some_jtis() {
        println!("jti: {jti}");
    }
}

/// What a fork and a virtual machine's snapshot do: two go on from the same memory.
#[test]
fn f75_a_forked_child_differs() {
    all_differ(&another_process("forks"), 3 * IN_EACH);
}

#[test]
#[ignore = "the other process of the test above, in which no other test runs"]
fn forks() {
    // So that whatever is kept for later is there before the fork.
    let mut all = some_jtis();
    let (mut ours, mut childs) = UnixStream::pair().unwrap();
    // SAFETY: no other thread of this process makes anything; the child signs, writes and ends.
    let child = unsafe { fork() };
    if child == 0 {
        let text = some_jtis().join("\n");
        let written = childs.write_all(text.as_bytes()).is_ok();
        // SAFETY: ends this process, without what the test harness would do in it once more.
        unsafe { _exit(i32::from(!written)) }
    }
    assert!(child > 0);
    all.extend(some_jtis());
    drop(childs);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    let mut status = 0;
    // SAFETY: the child's own number, and a place for its status.
    assert_eq!(unsafe { waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    all.extend(text.lines().map(str::to_owned));
    for jti in all {
        println!("jti: {jti}");
    }
}
