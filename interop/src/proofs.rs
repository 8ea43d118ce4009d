//! Our verifier against the proofs of other clients, as they are and broken in many ways.
//!
//! The makers are programs (`node/proofs.js`, `python/proofs.py`) that print a JSON line for each proof.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, BufReader},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use tower_dpop::{
    Algorithm,
    proof::{Check, InvalidProof, ValidProof},
};

/// How many failures are told in full. All are counted.
const KEPT: usize = 50;

const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::Es256,
    Algorithm::Ps256,
    Algorithm::Rs256,
    Algorithm::Ed25519,
    Algorithm::EdDsa,
];

/// A claim that a line breaks is the one that the refusal names, or it was refused for something else.
const NAMED: [&str; 7] = ["typ", "jti", "htm", "htu", "iat", "ath", "nonce"];

/// A proof, what it was made for, and whether a server takes it.
#[derive(Deserialize)]
struct Line {
    maker: String,
    alg: String,
    method: String,
    url: String,
    nonce: Option<String>,
    token: Option<String>,
    /// The thumbprint of the key that the token is bound to, by the maker.
    jkt: String,
    proof: String,
    /// What was changed.
    variant: String,
    /// What is wrong with it; nothing if a server takes it.
    broken: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Taken, as they should be.
    pub accepted: u64,
    /// Refused, as they should be.
    pub refused: u64,
}

/// What came of all lines.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    pub by_maker: BTreeMap<String, Counts>,
    pub by_algorithm: BTreeMap<String, Counts>,
    /// Checks of good proofs beside another request, token, nonce, key or time: all were refused.
    pub elsewhere: u64,
    /// Why broken ones were refused.
    pub reasons: BTreeMap<String, u64>,
    /// Good ones refused, broken ones accepted.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<String>,
}

impl Summary {
    /// Whether there was no failure, and each maker had proofs of both kinds.
    pub fn is_clean(&self) -> bool {
        let both = |counts: &Counts| counts.accepted > 0 && counts.refused > 0;
        self.failed == 0 && !self.by_maker.is_empty() && self.by_maker.values().all(both)
    }

    fn fail(&mut self, line: &Line, what: impl fmt::Display) {
        self.failed += 1;
        if self.failures.len() < KEPT {
            let Line {
                maker,
                alg,
                method,
                url,
                variant,
                ..
            } = line;
            let failure = format!("{maker}, {alg}, {method} {url}, {variant}: {what}");
            self.failures.push(failure);
        }
    }
}

/// Runs the programs that make proofs, one after the other, and checks each line as it comes.
///
/// Fails if one of them cannot be run, fails itself or prints something else.
pub fn run(makers: impl IntoIterator<Item = Command>) -> io::Result<Summary> {
    let mut summary = Summary::default();
    for mut maker in makers {
        let mut child = maker.stdout(Stdio::piped()).spawn()?;
        let lines = child.stdout.take().map(BufReader::new);
        let read = lines.map_or(Ok(()), |lines| judge_all(lines, &mut summary));
        if read.is_err() {
            // It may still be printing.
            child.kill()?;
        }
        let status = child.wait()?;
        read?;
        if !status.success() {
            return Err(io::Error::other(format!("{maker:?}: {status}")));
        }
    }
    Ok(summary)
}

fn judge_all(lines: impl BufRead, summary: &mut Summary) -> io::Result<()> {
    for line in lines.lines() {
        judge(&serde_json::from_str(&line?)?, now(), summary)?;
    }
    Ok(())
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// A request as a server sees it, beside what it knows.
#[derive(Clone)]
struct Request<'a> {
    method: Method,
    url: &'a str,
    now: u64,
    /// With the thumbprint of the key that it is bound to.
    token: Option<(&'a str, &'a str)>,
    nonces: Option<Vec<String>>,
    algorithms: Vec<Algorithm>,
}

impl Request<'_> {
    /// By its text and in its header, which must come to the same.
    fn check(&self, proof: &str) -> Result<Result<ValidProof, InvalidProof>, &'static str> {
        let check = Check::new(&self.method, self.url, self.now).algorithms(&self.algorithms);
        let mut check = check.map_err(|_| "the feature `aws-lc-rs` is off")?;
        if let Some((token, jkt)) = self.token {
            check = check.access_token(token, jkt);
        }
        if let Some(nonces) = &self.nonces {
            check = check.nonces(nonces);
        }
        let verdict = check.verify_proof(proof);
        let headers = |count: usize| {
            let value = HeaderValue::from_str(proof).ok()?;
            let mut headers = HeaderMap::new();
            for _ in 0..count {
                headers.append("dpop", value.clone());
            }
            Some(check.verify(&headers))
        };
        if headers(1).is_some_and(|by_header| by_header != verdict) {
            return Err("otherwise in its header than by its text");
        }
        if headers(2).is_some_and(|twice| twice.is_ok()) {
            return Err("accepted beside another DPoP header");
        }
        Ok(verdict)
    }
}

fn judge(line: &Line, now: u64, summary: &mut Summary) -> io::Result<()> {
    let request = Request {
        method: Method::from_bytes(line.method.as_bytes()).map_err(io::Error::other)?,
        url: &line.url,
        now,
        token: line.token.as_deref().map(|token| (token, &*line.jkt)),
        nonces: line.nonce.clone().map(|nonce| vec!["old".into(), nonce]),
        algorithms: ALGORITHMS.to_vec(),
    };
    let told = match (request.check(&line.proof), &line.broken) {
        (Err(what), _) => Err(what.to_owned()),
        (Ok(Ok(valid)), None) => accepted(line, &valid, &request, summary).map(|()| true),
        (Ok(Err(e)), None) => Err(format!("refused: {e}")),
        (Ok(Ok(_)), Some(broken)) => Err(format!("accepted, with {broken}")),
        (Ok(Err(e)), Some(broken)) => refused(broken, &e, summary).map(|()| false),
    };
    match told {
        Err(what) => summary.fail(line, what),
        Ok(taken) => {
            let by_maker = summary.by_maker.entry(line.maker.clone()).or_default();
            let by_algorithm = summary.by_algorithm.entry(line.alg.clone()).or_default();
            for counts in [by_maker, by_algorithm] {
                counts.accepted += u64::from(taken);
                counts.refused += u64::from(!taken);
            }
        }
    }
    Ok(())
}

fn refused(broken: &str, error: &InvalidProof, summary: &mut Summary) -> Result<(), String> {
    let reason = error.reason();
    let named = NAMED.iter().find(|name| broken.starts_with(**name));
    if named.is_some_and(|name| !reason.contains(name)) {
        return Err(format!("refused for something else: {reason}"));
    }
    *summary.reasons.entry(reason.to_owned()).or_default() += 1;
    Ok(())
}

/// What is said of a good proof is true, and it is refused wherever else it turns up.
fn accepted(
    line: &Line,
    valid: &ValidProof,
    request: &Request<'_>,
    summary: &mut Summary,
) -> Result<(), String> {
    if valid.thumbprint() != line.jkt {
        return Err(format!("its thumbprint is told as {}", valid.thumbprint()));
    }
    if valid.nonce() != line.nonce.as_deref() || valid.has_ath() != line.token.is_some() {
        return Err(format!("it is told as {valid:?}"));
    }
    for (what, elsewhere) in elsewhere(request, &line.alg, valid) {
        summary.elsewhere += 1;
        if elsewhere.check(&line.proof)?.is_ok() {
            return Err(format!("accepted {what}"));
        }
    }
    Ok(())
}

fn elsewhere<'a>(
    request: &Request<'a>,
    alg: &str,
    valid: &ValidProof,
) -> Vec<(&'static str, Request<'a>)> {
    let mut all = Vec::new();
    let mut with = |what, change: &dyn Fn(&mut Request<'a>)| {
        let mut other = request.clone();
        change(&mut other);
        all.push((what, other));
    };
    with("by another method", &|other| other.method = Method::PATCH);
    with("at another URL", &|other| {
        other.url = "https://server.example.com/elsewhere"
    });
    with("two minutes later", &|other| other.now += 120);
    with("two minutes before", &|other| other.now -= 120);
    with("where its nonce is not known", &|other| {
        other.nonces = Some(vec!["other".into()])
    });
    with("where its algorithm is not", &|other| {
        other.algorithms.retain(|one| one.to_string() != alg)
    });
    with("beside another token", &|other| {
        other.token = other
            .token
            .map_or(Some(("other", "")), |(_, jkt)| Some(("other", jkt)));
    });
    if valid.has_ath() {
        with("beside a token for another key", &|other| {
            other.token = other.token.map(|(token, _)| (token, "other"));
        });
    }
    all
}
