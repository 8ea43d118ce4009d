//! A table of scenarios: what the servers do, what the user does, how often each server is to be asked and how
//! it is to end. In memory and over TCP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod verifier;
mod worlds;

use std::{collections::BTreeSet, fmt, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use tower_dpop::{BoxError, testing::Nonces};
use verifier::Verifier;
use worlds::Servers;
pub(crate) use worlds::{Embedded, World};

use crate::support::{
    Seen, a3_key,
    bench::{find, secs},
    claims,
};

// What a row is made of.

/// What the bodies of POSTs hold.
pub(crate) const BODY: &str = "an order of two halves";

pub(crate) const CHALLENGE: &str = r#"DPoP error="use_dpop_nonce""#;

pub(crate) type Answered = Result<Response<Bytes>, BoxError>;
type InMemory = Arc<dyn Fn(&Seen) -> Response<Bytes> + Send + Sync>;

/// What the embedded servers are told to do.
type Order = Box<dyn Fn(&Embedded)>;

pub(crate) struct Row {
    name: &'static str,
    calls: Calls,
    asks: InMemory,
    api: InMemory,
    /// None if the embedded servers cannot be made to do it.
    tcp: Option<Order>,
    asked: RangeInclusive<usize>,
    served: RangeInclusive<usize>,
    ends: Outcome,
    and: (&'static str, fn(&Went) -> bool),
}

/// What the user does.
#[derive(Clone, Copy)]
pub(crate) enum Calls {
    InTurn(usize),
    EachSecond(usize),
    AtOnce(usize),
    TwoOrigins,
    Path(&'static str),
    Post(Kind),
}

/// What the body is like, and how it is sent again.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Whole,
    Recorded,
    Once,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Status(u16),
    /// There is no token that is bound to the key.
    Downgrade,
    OtherError,
}

/// One call without any trouble.
pub(crate) fn row(name: &'static str) -> Row {
    Row {
        name,
        calls: Calls::InTurn(1),
        asks: Arc::new(|seen| gives(seen.number, r#""token_type":"DPoP","expires_in":300"#)),
        api: Arc::new(|_| says(200, &[], "")),
        tcp: Some(Box::new(|_| {})),
        asked: 1..=1,
        served: 1..=1,
        ends: Outcome::Status(200),
        and: ("", |_| true),
    }
}

pub(crate) fn says(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Bytes::from(body.to_owned())).unwrap()
}

pub(crate) fn challenge(www_authenticate: &str, nonce: &str) -> Response<Bytes> {
    let headers = [
        ("www-authenticate", www_authenticate),
        ("dpop-nonce", nonce),
    ];
    says(401, &headers, "the server's own words")
}

/// The n-th access token, and what else the answer holds.
pub(crate) fn gives(n: usize, members: &str) -> Response<Bytes> {
    let body = format!(r#"{{"access_token":"t{n}",{members}}}"#);
    says(200, &[("content-type", "application/json")], &body)
}

/// A number, or from a number to a number.
pub(crate) trait Count {
    fn range(self) -> RangeInclusive<usize>;
}

impl Count for usize {
    fn range(self) -> RangeInclusive<usize> {
        self..=self
    }
}

impl Count for RangeInclusive<usize> {
    fn range(self) -> Self {
        self
    }
}

impl Row {
    pub(crate) fn calls(self, calls: Calls) -> Self {
        Self { calls, ..self }
    }

    /// What the token endpoint does, in memory.
    pub(crate) fn asks(
        mut self,
        asks: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.asks = Arc::new(asks);
        self
    }

    /// What the API does, in memory.
    pub(crate) fn api(
        mut self,
        api: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        self.api = Arc::new(api);
        self
    }

    pub(crate) fn tcp(mut self, tcp: impl Fn(&Embedded) + 'static) -> Self {
        self.tcp = Some(Box::new(tcp));
        self
    }

    pub(crate) fn in_memory_only(mut self) -> Self {
        self.tcp = None;
        self
    }

    /// The API gives the first request this challenge, and a nonce.
    pub(crate) fn challenged(self, www_authenticate: &'static str) -> Self {
        self.api(move |seen| match seen.number {
            0 => challenge(www_authenticate, "n"),
            _ if seen.nonce().as_deref() == Some("n") => says(200, &[], ""),
            _ => says(500, &[], "not the nonce that was given"),
        })
        .tcp(move |servers| {
            servers.one.nonces(Nonces::required());
            servers.one.refuse(1, www_authenticate);
        })
    }

    /// The API challenges whatever has no nonce.
    pub(crate) fn challenged_always(self) -> Self {
        self.api(|seen| match seen.nonce() {
            None => challenge(CHALLENGE, "n"),
            Some(_) => says(200, &[], ""),
        })
        .tcp(|servers| servers.one.nonces(Nonces::required()))
    }

    /// How often the token endpoint is.
    pub(crate) fn asked(self, asked: impl Count) -> Self {
        Self {
            asked: asked.range(),
            ..self
        }
    }

    /// How many requests reach the APIs.
    pub(crate) fn served(self, served: impl Count) -> Self {
        Self {
            served: served.range(),
            ..self
        }
    }

    pub(crate) fn ends(self, ends: Outcome) -> Self {
        Self { ends, ..self }
    }

    pub(crate) fn and(self, what: &'static str, check: fn(&Went) -> bool) -> Self {
        Self {
            and: (what, check),
            ..self
        }
    }
}

// What a row comes to.

/// A request as a server saw it.
pub(crate) struct Sent {
    method: Method,
    pub(crate) origin: String,
    pub(crate) path: String,
    headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Sent {
    fn url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The value of a header that must not stand twice.
    fn only(&self, name: &str) -> Result<Option<&str>, String> {
        match self.headers.get_all(name).iter().count() {
            0 | 1 => Ok(self.header(name)),
            _ => Err(format!("{name} stands twice")),
        }
    }

    pub(crate) fn claim(&self, name: &str) -> Option<String> {
        let claims = claims(self.header("dpop").expect("a proof"));
        claims[name].as_str().map(str::to_owned)
    }
}

/// All that happened.
pub(crate) struct Went {
    pub(crate) origins: [String; 2],
    pub(crate) asked: Vec<Sent>,
    pub(crate) served: Vec<Sent>,
    pub(crate) answers: Vec<Answered>,
}

impl Went {
    fn outcomes(&self) -> BTreeSet<Outcome> {
        let outcome = |answer: &Answered| match answer {
            Ok(answer) => Outcome::Status(answer.status().as_u16()),
            Err(error) if find(error).is_downgrade() => Outcome::Downgrade,
            Err(_) => Outcome::OtherError,
        };
        self.answers.iter().map(outcome).collect()
    }

    /// What is to be true of every request of every row, and is said by a verifier that is not ours.
    async fn proofs(&self) -> Result<(), String> {
        let mut verifier = Verifier::default();
        for sent in self.asked.iter().chain(&self.served) {
            let url = sent.url();
            let proof = sent.only("dpop")?.ok_or("no proof")?;
            let token = match sent.only("authorization")? {
                // As the RFC writes the scheme.
                Some(value) => Some(value.strip_prefix("DPoP ").ok_or("no DPoP token")?),
                None => None,
            };
            let verified = verifier.verify(proof, sent.method.as_str(), &url, token);
            let jkt = verified.await.map_err(|error| format!("{url}: {error}"))?;
            if jkt != a3_key().thumbprint() {
                return Err(format!("{url}: of another key"));
            }
            // Servers exist that compare byte by byte.
            if sent.claim("htu").as_ref() != Some(&url) {
                return Err(format!("{url}: {:?}", sent.claim("htu")));
            }
        }
        match verifier.count() == self.asked.len() + self.served.len() {
            true => Ok(()),
            false => Err("a proof was sent twice".to_owned()),
        }
    }
}

/// A line of the printed table.
pub(crate) struct Line {
    pub(crate) right: bool,
    name: &'static str,
    expected: String,
    seen: String,
}

impl Line {
    async fn new(row: &Row, went: &Went) -> Self {
        let (what, check) = row.and;
        let (asked, served) = (went.asked.len(), went.served.len());
        let outcomes = went.outcomes();
        let proofs = went.proofs().await;
        let counts = row.asked.contains(&asked) && row.served.contains(&served);
        let and = counts && proofs.is_ok() && check(went);
        let mut seen = format!("{asked} + {served}, {}", list(&outcomes));
        let mut expected = format!("{} + {}, ", range(&row.asked), range(&row.served));
        expected += &list(&BTreeSet::from([row.ends]));
        if !what.is_empty() {
            expected += &format!(", {what}");
            seen += &format!(", {}{what}", if and { "" } else { "NOT: " });
        }
        if let Err(error) = &proofs {
            seen += &format!(", PROOF REFUSED: {error}");
        }
        Self {
            right: and && outcomes == BTreeSet::from([row.ends]),
            name: row.name,
            expected,
            seen,
        }
    }
}

fn range(range: &RangeInclusive<usize>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}..{}", range.start(), range.end()),
    }
}

fn list(outcomes: &BTreeSet<Outcome>) -> String {
    let each = outcomes.iter().map(|outcome| match outcome {
        Outcome::Status(status) => status.to_string(),
        Outcome::Downgrade => "no DPoP token".to_owned(),
        Outcome::OtherError => "an error".to_owned(),
    });
    each.collect::<Vec<_>>().join(" and ")
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = if self.right { "  " } else { "! " };
        let (name, expected, seen) = (self.name, &self.expected, &self.seen);
        write!(f, "{right}{name:<51} {expected:<50} {seen}")
    }
}

/// Walks through the rows and prints the table. No line may be wrong.
pub(crate) async fn walk(title: &str, rows: Vec<Row>, world: World) {
    let lines = lines(rows, world).await;
    let table = lines.iter().map(|line| format!("{line}\n"));
    let head = format!(
        "{title}: at the token endpoint + at the API, how each call ends\n  {:<51} {:<50} seen\n",
        "scenario", "expected"
    );
    let table = head + &table.collect::<String>();
    println!("{table}");
    let wrong = lines.iter().filter(|line| !line.right).count();
    assert_eq!(wrong, 0, "lines are wrong\n{table}");
}

pub(crate) async fn lines(rows: Vec<Row>, world: World) -> Vec<Line> {
    let mut lines = Vec::new();
    for row in rows {
        let servers = match world {
            World::InMemory => Some(Servers::in_memory(&row)),
            World::Tcp(version) => Servers::over_tcp(&row, version).await,
        };
        let Some(servers) = servers else {
            continue;
        };
        // Nothing takes so long, not even in paused time, but a hang.
        let calls = tokio::time::timeout(secs(3600), servers.call(row.calls));
        let answers = calls.await.unwrap_or_else(|_| panic!("{} hangs", row.name));
        let went = servers.went(answers);
        lines.push(Line::new(&row, &went).await);
    }
    lines
}
