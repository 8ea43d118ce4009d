//! A failure of either kind is told, so that none is only because nothing was looked at.

use tower_dpop::{DpopKey, proof::Proof};

use super::*;

const URL: &str = "https://server.example.com/a?b";

/// A good line beside a token, and with a nonce.
fn line(key: &DpopKey) -> Line {
    let url = URL.parse().unwrap();
    let proof = Proof::new(&Method::GET, &url).unwrap();
    let proof = proof.access_token("token").nonce("nonce");
    Line {
        maker: "us".to_owned(),
        alg: "ES256".to_owned(),
        method: "GET".to_owned(),
        url: URL.to_owned(),
        nonce: Some("nonce".to_owned()),
        token: Some("token".to_owned()),
        jkt: key.thumbprint().to_owned(),
        proof: proof.sign_at(key, 1_700_000_000, "jti").unwrap(),
        variant: "as it is".to_owned(),
        broken: None,
    }
}

fn judged(change: impl FnOnce(&mut Line)) -> Summary {
    let mut line = line(&DpopKey::generate().unwrap());
    change(&mut line);
    let mut summary = Summary::default();
    judge(&line, 1_700_000_001, &mut summary).unwrap();
    summary
}

#[track_caller]
fn assert_fails(what: &str, change: impl FnOnce(&mut Line)) {
    let summary = judged(change);
    assert_eq!(summary.failed, 1);
    assert!(
        summary.failures[0].ends_with(what),
        "{:?}",
        summary.failures
    );
    assert!(!summary.is_clean());
}

#[test]
fn a_good_one_is_accepted_and_nowhere_else() {
    let summary = judged(|_| ());
    assert_eq!(summary.failures, [""; 0]);
    let counts = summary.by_maker["us"];
    assert_eq!((counts.accepted, counts.refused), (1, 0));
    assert_eq!(summary.elsewhere, 8);
    assert!(!summary.is_clean(), "without any broken one");
}

#[test]
fn a_broken_one_is_refused() {
    let summary = judged(|line| {
        line.broken = Some("htm of another method".to_owned());
        line.method = "POST".to_owned();
    });
    assert_eq!(summary.failures, [""; 0]);
    let counts = summary.by_algorithm["ES256"];
    assert_eq!((counts.accepted, counts.refused), (0, 1));
    assert_eq!(
        summary.reasons["`htm` is not the method of this request"],
        1
    );
}

#[test]
fn failures_are_told() {
    assert_fails("accepted, with nothing wrong", |line| {
        line.broken = Some("nothing wrong".to_owned())
    });
    assert_fails(
        "refused: the signature is not that of the key in `jwk`",
        |line| {
            let signature = line.proof.rsplit_once('.').unwrap().1.len();
            line.proof.truncate(line.proof.len() - signature);
        },
    );
    assert_fails("refused: `htu` is not the target of this request", |line| {
        line.url.insert(URL.len() - 2, 'x')
    });
    assert_fails(
        "refused for something else: `htm` is not the method of this request",
        |line| {
            line.broken = Some("ath of another token".to_owned());
            line.method = "POST".to_owned();
        },
    );
    // Without a token the key is not compared, but it is told.
    let told = judged(|line| line.token = None);
    assert!(told.failures[0].contains("it is told as"), "{told:?}");
    let key = DpopKey::generate().unwrap();
    let told = format!("its thumbprint is told as {}", key.thumbprint());
    let mut line = line(&key);
    let url = URL.parse().unwrap();
    let proof = Proof::new(&Method::GET, &url).unwrap();
    line.proof = proof.sign_at(&key, 1_700_000_000, "jti").unwrap();
    (line.token, line.nonce, line.jkt) = (None, None, "other".to_owned());
    let mut summary = Summary::default();
    judge(&line, 1_700_000_001, &mut summary).unwrap();
    assert!(
        summary.failures[0].ends_with(&told),
        "{:?}",
        summary.failures
    );
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn makers_that_fail_are_failures() {
    assert!(run([shell("exit 1")]).is_err());
    assert!(run([shell("echo no JSON; exec sleep 60")]).is_err());
    assert!(run([Command::new("/no/such/program")]).is_err());
    let nothing = run([shell("exit 0")]).unwrap();
    assert!(!nothing.is_clean(), "since nothing was looked at");
}
