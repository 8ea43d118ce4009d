//! What only the whole record shows.

use super::*;

/// Lines with a `jti` each: a nonce in the claims, and one that was offered.
fn lines<const N: usize>(drafts: [(Draft, Option<&str>, Option<&str>); N]) -> Vec<Sent> {
    let drafts = drafts.into_iter().enumerate();
    let line = |(n, (mut draft, nonce, offered)): (usize, (Draft, Option<&str>, Option<&str>))| {
        draft.claim("jti", format!("{n}"));
        if let Some(nonce) = nonce {
            draft.claim("nonce", nonce);
        }
        draft.sent.offered = offered.map(str::to_owned);
        draft.signed()
    };
    drafts.map(line).collect()
}

#[test]
fn a_proof_sent_twice_is_found() {
    let key = Key::es256();
    let line = Draft::new(&key).signed();
    assert_found("the same proof", [line.clone(), line], &["jti"]);
    // By another key, to another server, without a token.
    let mut other = Draft::without_token(&Key::es256());
    other.sent.url = "https://example.com/".to_owned();
    other.claim("htu", "https://example.com/");
    assert_found(
        "the same jti",
        [Draft::new(&key).signed(), other.signed()],
        &["jti"],
    );
}

#[test]
fn nonces_are_those_that_were_offered() {
    let key = Key::es256();
    let here = || Draft::new(&key);
    let same_origin = || {
        let mut draft = here();
        draft.sent.url = "https://api.example.com/other".to_owned();
        draft.claim("htu", "https://api.example.com/other");
        draft
    };
    let record = lines([
        (here(), None, Some("1")),
        (here(), Some("1"), Some("2")),
        // One that is not the last is as good: requests overtake each other.
        (same_origin(), Some("1"), None),
        (same_origin(), Some("2"), None),
    ]);
    assert_found("nothing", record, &[]);
}

#[test]
fn nonces_of_elsewhere_are_found() {
    let key = Key::es256();
    let here = || Draft::new(&key);
    let mut other_port = here();
    other_port.sent.url = "https://api.example.com:8443/".to_owned();
    other_port.claim("htu", "https://api.example.com:8443/");
    let role = Draft::without_token(&key);
    let told = |record: Vec<Sent>| {
        let (by, findings) = found_in(record);
        assert_eq!(by, BTreeSet::from(["nonce"]), "{:#?}", findings.first);
        assert_eq!(findings.count, 1);
        findings.first[0].what.clone()
    };
    let nobody = told(lines([(here(), Some("1"), None)]));
    assert_eq!(nobody, "1 was offered by nobody before");
    let later = told(lines([(here(), Some("1"), Some("1"))]));
    assert_eq!(later, "1 was offered by nobody before");
    let origin = told(lines([
        (other_port, None, Some("1")),
        (here(), Some("1"), None),
    ]));
    assert_eq!(origin, "1 was offered by another origin alone");
    let role = told(lines([(role, None, Some("1")), (here(), Some("1"), None)]));
    assert_eq!(role, "1 was offered in the other role alone");
}

#[test]
fn a_token_goes_with_one_key() {
    let mut second = Draft::new(&Key::es256());
    second.claim("jti", "two");
    assert_found(
        "keys",
        [Draft::new(&Key::es256()).signed(), second.signed()],
        &[HUSKARL],
    );
}

#[test]
fn proofs_go_by_this_clock_or_the_servers() {
    let key = Key::es256();
    let dated = |clock: i64, iat: u64| {
        let mut draft = Draft::new(&key);
        draft.sent.clock = clock;
        draft.claim("iat", iat);
        [draft.signed()]
    };
    for clock in [-400, 400] {
        let servers = (SENT_MS / 1000).strict_add_signed(clock);
        for at in [SENT_MS / 1000, servers, servers - 1, servers + 2] {
            assert_found("either", dated(clock, at), &[]);
        }
        let between = (SENT_MS / 1000).strict_add_signed(clock / 2);
        assert_found("between", dated(clock, between), &[HUSKARL, "iat"]);
        let wrong = (SENT_MS / 1000).strict_add_signed(-clock);
        assert_found(
            "the wrong way",
            dated(clock, wrong),
            &[OTHER, HUSKARL, "iat"],
        );
    }
}
