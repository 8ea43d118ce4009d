//! The conditions that the suite calls at its endpoints, over all that both servers recorded.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tower_dpop::testing::Recorded;

use crate::{
    conditions::{Conditions, Presented},
    suite::{ACCOUNTS, CALLBACK, CLIENT, Suite, parameter},
    support::{claims, header},
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// How far a client's clock may be off, and how far ahead an assertion may end, in seconds.
const SKEW: i64 = 300;
const DAY: i64 = 86_400;

/// How many requests of each kind there were.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Counts {
    pub(crate) metadata: usize,
    pub(crate) par: usize,
    pub(crate) authorize: usize,
    /// By `grant_type`: the first grant's, and `refresh_token`.
    pub(crate) token: usize,
    pub(crate) refresh: usize,
    pub(crate) resource: usize,
    /// Of these, how many were answered with a nonce challenge.
    pub(crate) challenged: usize,
}

/// What one server's requests have to keep to, one after another.
struct Endpoint<'a> {
    origin: &'a str,
    /// The nonce that it offered last.
    offered: Option<String>,
}

impl Suite {
    /// All conditions, and what there was.
    pub(crate) async fn judge(&self) -> Counts {
        let mut counts = Counts::default();
        let mut proofs = Conditions::default();
        let mut assertions = BTreeSet::new();
        let mut server = Endpoint::of(self.server.origin());
        for seen in &self.server.requests() {
            match seen.uri().path() {
                METADATA => {
                    counts.metadata += 1;
                    self.judge_bare(seen);
                    continue;
                }
                "/authorize" => {
                    counts.authorize += 1;
                    self.judge_browser(seen);
                    continue;
                }
                "/par" => {
                    counts.par += 1;
                    self.judge_pushed(seen);
                }
                "/token" => match parameter(seen, "grant_type").as_deref() {
                    Some("refresh_token") => counts.refresh += 1,
                    _ => counts.token += 1,
                },
                other => panic!("{self}: {other} was asked"),
            }
            counts.challenged += server.judge(self, &mut proofs, seen, None).await;
            let id = self.judge_assertion(seen);
            assert!(assertions.insert(id), "{self}: an assertion twice");
        }
        let mut api = Endpoint::of(self.api.origin());
        for seen in &self.api.requests() {
            counts.resource += 1;
            assert_eq!(
                (seen.method().as_str(), seen.uri().path()),
                ("GET", ACCOUNTS)
            );
            let token = seen.headers()["authorization"].to_str().unwrap();
            let token = token.strip_prefix("DPoP ").expect("the scheme is DPoP");
            counts.challenged += api.judge(self, &mut proofs, seen, Some(token)).await;
        }
        self.judge_exchange();
        assert_eq!(proofs.count(), counts.proofs(), "{self}");
        counts
    }

    /// A request that has no business to show who sends it.
    fn judge_bare(&self, seen: &Recorded) {
        for name in ["authorization", "dpop"] {
            assert!(!seen.headers().contains_key(name), "{self}: {seen:?}");
        }
    }

    /// Nothing but the reference to what was pushed (RFC 9126, section 4).
    fn judge_browser(&self, seen: &Recorded) {
        self.judge_bare(seen);
        let query = seen.uri().query().unwrap_or_default();
        let names: Vec<_> = form_urlencoded::parse(query.as_bytes())
            .map(|(name, _)| name.into_owned())
            .collect();
        assert_eq!(names, ["client_id", "request_uri"], "{self}");
    }

    fn judge_pushed(&self, seen: &Recorded) {
        let told = |name| parameter(seen, name);
        assert_eq!(told("request_uri"), None, "{self}");
        assert_eq!(told("request"), None, "{self}");
        assert_eq!(told("response_type").as_deref(), Some("code"), "{self}");
        assert_eq!(told("client_id").as_deref(), Some(CLIENT), "{self}");
        assert_eq!(told("redirect_uri").as_deref(), Some(CALLBACK), "{self}");
        assert_eq!(told("code_challenge_method").as_deref(), Some("S256"));
        assert!(told("state").is_some_and(|state| state.len() >= 22));
        // The same key twice, and it is the proof's: the exchange is to have it, too.
        let jkt = self.dpop.key().thumbprint();
        assert_eq!(told("dpop_jkt").as_deref(), Some(jkt), "{self}");
    }

    /// The client's authentication; its `jti`.
    fn judge_assertion(&self, seen: &Recorded) -> String {
        let told = |name| parameter(seen, name);
        self.judge_secrets(seen);
        assert_eq!(
            told("client_assertion_type").as_deref(),
            Some(JWT_BEARER),
            "{self}"
        );
        let id = told("client_id");
        assert!(id.is_none_or(|id| id == CLIENT), "{self}");
        let assertion = told("client_assertion").expect("an assertion");
        assert_eq!(header(&assertion)["alg"], "ES256", "{self}");
        self.judge_signature(&assertion);
        let claims = claims(&assertion);
        assert_eq!(claims["iss"], CLIENT, "{self}");
        assert_eq!(claims["sub"], CLIENT, "{self}");
        // The issuer, and as one string (FAPI 2.0, section 5.3.3.1).
        assert_eq!(claims["aud"], self.server.issuer(), "{self}");
        let now = i64::try_from(now()).unwrap();
        let time = |name: &str| claims[name].as_i64();
        let end = time("exp").expect("an end");
        assert!(end > now - SKEW && end < now + DAY, "{self}");
        assert!(time("iat").expect("a beginning") < now + DAY, "{self}");
        assert!(time("nbf").is_none_or(|nbf| nbf < now + SKEW), "{self}");
        claims["jti"].as_str().expect("a name").to_owned()
    }

    /// The client shows itself in no other way.
    fn judge_secrets(&self, seen: &Recorded) {
        assert!(!seen.headers().contains_key("authorization"), "{self}");
        assert_eq!(parameter(seen, "client_secret"), None, "{self}");
        assert_eq!(seen.uri().query(), None, "{self}");
    }

    /// Not by the crate.
    fn judge_signature(&self, jwt: &str) {
        let jwk: Value = serde_json::from_str(self.client_key.public_jwk()).unwrap();
        let half = |name: &str| BASE64URL.decode(jwk[name].as_str().unwrap()).unwrap();
        let point = [vec![4], half("x"), half("y")].concat();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(signed.as_bytes(), &signature)
            .unwrap_or_else(|_| panic!("{self}: the assertion's signature"));
    }

    /// The code goes with the verifier of what was pushed, and back to the same URI.
    fn judge_exchange(&self) {
        let pushed = self.to("/par").pop();
        let codes = self.to("/token").into_iter();
        for seen in codes.filter(|seen| parameter(seen, "code").is_some()) {
            let pushed = pushed.as_ref().expect("a pushed request");
            let verifier = parameter(&seen, "code_verifier").expect("a verifier");
            assert!((43..=128).contains(&verifier.len()), "{self}");
            let hash = BASE64URL.encode(Sha256::digest(verifier));
            assert_eq!(parameter(pushed, "code_challenge"), Some(hash), "{self}");
            let uri = parameter(&seen, "redirect_uri");
            assert_eq!(uri.as_deref(), Some(CALLBACK), "{self}");
        }
    }
}

impl<'a> Endpoint<'a> {
    fn of(origin: &'a str) -> Self {
        Self {
            origin,
            offered: None,
        }
    }

    /// The proof: all conditions, the one key, and the nonce that the server offered last. 1 if it was challenged.
    async fn judge(
        &mut self,
        suite: &Suite,
        proofs: &mut Conditions,
        seen: &Recorded,
        token: Option<&str>,
    ) -> usize {
        let url = format!("{}{}", self.origin, seen.uri().path());
        let shown = proofs.check(Presented {
            proof: seen.proof().expect("one proof"),
            method: seen.method().as_str(),
            url: &url,
            token,
            now: now(),
        });
        let shown = shown.await;
        let shown = shown.unwrap_or_else(|broken| panic!("{suite}: {url}: {broken}"));
        assert_eq!(shown.thumbprint, suite.dpop.key().thumbprint(), "{suite}");
        assert_eq!(shown.nonce, self.offered, "{suite}: {url}: the nonce");
        let challenged = seen.refused().is_some_and(|why| why.contains("nonce"));
        assert!(challenged || seen.refused().is_none(), "{suite}: {seen:?}");
        if let Some(nonce) = seen.offered_nonce() {
            check_nonce(nonce);
            self.offered = Some(nonce.to_owned());
        }
        usize::from(challenged)
    }
}

impl Counts {
    /// All requests that have to have one.
    fn proofs(&self) -> usize {
        self.par + self.token + self.refresh + self.resource
    }
}

/// The suite's own make, so that the module is what it says.
fn check_nonce(nonce: &str) {
    let (letters, rest) = nonce.split_at(50);
    let (digits, others) = rest.split_at(10);
    assert!(letters.bytes().all(|b| b.is_ascii_alphabetic()), "{nonce}");
    assert!(digits.bytes().all(|b| b.is_ascii_digit()), "{nonce}");
    assert_eq!(others.len(), 30, "{nonce}");
    let other = |b: u8| b.is_ascii_punctuation() && b != b'"' && b != b'\\';
    assert!(others.bytes().all(other), "{nonce}");
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}
