//! A good line, and each thing in it broken once: who finds it, and nobody else.

mod breaks;
mod histories;
mod keys;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::keys::Key;
use super::*;

const OTHER: &str = Other::NAME;
const HUSKARL: &str = Huskarl::NAME;
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const TOKEN_ATH: &str = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo";
const SENT_MS: u64 = 1_700_000_000_400;

/// A line in its parts, still to be signed.
#[derive(Clone)]
struct Draft {
    key: Key,
    header: Value,
    claims: Value,
    sent: Sent,
}

impl Draft {
    /// A request to a resource.
    fn new(key: &Key) -> Self {
        Self {
            key: key.clone(),
            header: json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": key.jwk()}),
            claims: json!({
                "jti": "one", "htm": "GET", "htu": "https://api.example.com/a//b/../%7e",
                "iat": SENT_MS / 1000, "ath": TOKEN_ATH,
            }),
            sent: Sent {
                run: "test".to_owned(),
                sent_ms: SENT_MS,
                method: "GET".to_owned(),
                url: "https://API.example.com:443/a//b/../%7e?x=1".to_owned(),
                proof: String::new(),
                token: Some(TOKEN.to_owned()),
                clock: 0,
                status: Some(200),
                offered: None,
            },
        }
    }

    /// A request to a token endpoint.
    fn without_token(key: &Key) -> Self {
        let mut draft = Self::new(key);
        draft.sent.token = None;
        draft.remove_claim("ath");
        draft
    }

    fn claim(&mut self, name: &str, value: impl Into<Value>) {
        self.claims[name] = value.into();
    }

    fn remove_claim(&mut self, name: &str) {
        self.claims.as_object_mut().unwrap().remove(name).unwrap();
    }

    fn signed(&self) -> Sent {
        self.signed_text(&self.header.to_string(), &self.claims.to_string())
    }

    fn signed_text(&self, header: &str, claims: &str) -> Sent {
        let mut sent = self.sent.clone();
        sent.proof = self.key.sign(header, claims);
        sent
    }
}

/// Who found something in a record of these lines.
fn found_in(lines: impl IntoIterator<Item = Sent>) -> (BTreeSet<&'static str>, Findings) {
    let findings = verify(lines.into_iter());
    (findings.by.keys().copied().collect(), findings)
}

#[track_caller]
fn assert_found(what: &str, lines: impl IntoIterator<Item = Sent>, by: &[&'static str]) {
    let (found, findings) = found_in(lines);
    let expected: BTreeSet<_> = by.iter().copied().collect();
    assert_eq!(found, expected, "{what}: {:#?}", findings.first);
}

#[test]
fn good_lines_have_no_findings() {
    for key in Key::all() {
        let mut lines = [Draft::new(&key), Draft::without_token(&key)];
        lines[1].claim("jti", "two");
        lines[1].sent.url = "https://API.example.com:443/a//b/../%7e#?".to_owned();
        let findings = verify(lines.iter().map(Draft::signed));
        assert!(findings.is_clean(), "{}: {:#?}", key.alg(), findings.first);
        assert_eq!(findings.checked[HUSKARL], 2);
        let other = findings.checked.get(OTHER).copied().unwrap_or_default();
        let known = ["ES256", "EdDSA"].contains(&key.alg());
        assert_eq!(other, if known { 2 } else { 0 }, "{}", key.alg());
        assert_eq!(findings.algorithms[key.alg()], 2);
    }
}

#[test]
fn an_empty_record_is_not_clean() {
    assert!(!verify(std::iter::empty()).is_clean());
}

#[test]
fn long_records_are_read_to_the_end() {
    let key = Key::es256();
    let good = Draft::new(&key);
    // Whatever stands in its last place, across many batches.
    let lines = (0..BATCH * 3 + 7).map(|n| {
        let mut line = good.clone();
        line.claim("jti", format!("{n}"));
        if n == BATCH * 3 + 6 {
            line.claim("htm", "POST");
        }
        line.signed()
    });
    let (by, findings) = found_in(lines);
    assert_eq!(by, BTreeSet::from([OTHER, HUSKARL, "htm"]));
    assert!(findings.first.iter().all(|one| one.line == 775));
}

#[test]
fn a_library_that_panics_has_found_something() {
    assert_eq!(
        caught(&|| panic!("over a proof")),
        Err("it panicked".to_owned())
    );
    assert_eq!(caught(&|| Ok(())), Ok(()));
}

#[test]
fn all_are_counted_and_some_kept() {
    let mut line = Draft::new(&Key::es256());
    line.claim("exp", 1);
    let findings = verify((0..300).map(|_| line.signed()));
    assert_eq!(findings.by["claims"], 300);
    assert_eq!(findings.first.len(), KEPT);
    assert_eq!(findings.first[0].line, 1);
}

#[test]
fn a_record_is_read_from_files() {
    let path = std::env::temp_dir().join(format!("verify-{}.jsonl", std::process::id()));
    let line = Draft::new(&Key::es256()).signed();
    let line = serde_json::to_string(&line).unwrap();
    std::fs::write(&path, format!("{line}\n")).unwrap();
    let once = verify_files(&[&path]).unwrap();
    let twice = verify_files(&[&path, &path]).unwrap();
    std::fs::write(&path, format!("{line}\n{{}}\n")).unwrap();
    let torn = verify_files(&[&path]);
    std::fs::remove_file(&path).unwrap();
    assert!(once.is_clean());
    assert_eq!((twice.proofs, twice.by["jti"]), (2, 1));
    assert!(torn.is_err());
    assert!(verify_files(&[&path]).is_err());
}
