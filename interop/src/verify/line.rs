//! What a line has to say of itself: rules that no verifier has, since they bind the client and not the server.
//!
//! Members are read to the letter: none more, none twice, none of another type.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use url::Url;

use crate::record::Sent;

/// How far from the clock a proof may be dated, in milliseconds.
pub(super) const TOLERANCE_MS: u64 = 2000;

/// What the other rules ask of a proof.
pub(super) struct Claims {
    pub(super) alg: String,
    pub(super) jti: String,
    pub(super) iat: u64,
    pub(super) nonce: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
    jwk: Jwk,
}

/// Public keys, with what RFC 7638 takes of them and nothing else.
#[derive(Deserialize)]
#[serde(tag = "kty")]
enum Jwk {
    #[serde(rename = "EC")]
    Ec(Ec),
    #[serde(rename = "OKP")]
    Okp(Okp),
    #[serde(rename = "RSA")]
    Rsa(#[expect(dead_code, reason = "it is enough that it can be read")] Rsa),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ec {
    crv: String,
    #[serde(rename = "x")]
    _x: String,
    #[serde(rename = "y")]
    _y: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Okp {
    crv: String,
    #[serde(rename = "x")]
    _x: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rsa {
    #[serde(rename = "n")]
    _n: String,
    #[serde(rename = "e")]
    _e: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    jti: String,
    htm: String,
    htu: String,
    iat: u64,
    #[serde(default, deserialize_with = "a_string")]
    ath: Option<String>,
    #[serde(default, deserialize_with = "a_string")]
    nonce: Option<String>,
}

/// A `null` is not nothing.
fn a_string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// Tells each rule that a line breaks. Returns its claims if they can be read.
pub(super) fn check(sent: &Sent, mut found: impl FnMut(&'static str, String)) -> Option<Claims> {
    let mut parts = sent.proof.split('.');
    let header = read::<Header>(parts.next());
    let payload = read::<Payload>(parts.next());
    if parts.next().is_none() || parts.next().is_some() {
        found("parts", "not three parts".to_owned());
    }
    let header = header.map_err(|what| found("header", what)).ok();
    let payload = payload.map_err(|what| found("claims", what)).ok();
    if let Some(header) = &header {
        check_header(header, &mut found);
    }
    let payload = payload?;
    check_payload(sent, &payload, &mut found);
    Some(Claims {
        alg: header.map(|header| header.alg).unwrap_or_default(),
        jti: payload.jti,
        iat: payload.iat,
        nonce: payload.nonce,
    })
}

fn read<T: DeserializeOwned>(part: Option<&str>) -> Result<T, String> {
    let json = BASE64URL
        .decode(part.unwrap_or_default())
        .map_err(|e| e.to_string())?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

fn check_header(header: &Header, found: &mut impl FnMut(&'static str, String)) {
    if header.typ != "dpop+jwt" {
        found("header", format!("typ {}", header.typ));
    }
    let fits = match &header.jwk {
        Jwk::Ec(key) => header.alg == "ES256" && key.crv == "P-256",
        Jwk::Okp(key) => ["Ed25519", "EdDSA"].contains(&&*header.alg) && key.crv == "Ed25519",
        Jwk::Rsa(_) => ["PS256", "RS256"].contains(&&*header.alg),
    };
    if !fits {
        found("header", format!("alg {} with such a key", header.alg));
    }
}

fn check_payload(sent: &Sent, payload: &Payload, found: &mut impl FnMut(&'static str, String)) {
    if payload.htm != sent.method {
        found("htm", format!("{} for {}", payload.htm, sent.method));
    }
    let target = target(&sent.url);
    if target.as_ref() != Some(&payload.htu) {
        let htu = &payload.htu;
        found("htu", format!("{htu} for {}", sent.url));
    }
    // With a token the libraries compare it.
    if payload.ath.is_some() != sent.token.is_some() {
        let (ath, token) = (payload.ath.is_some(), sent.token.is_some());
        found("ath", format!("ath: {ath}, token: {token}"));
    }
    let off = off_ms(payload.iat, clock_ms(sent, Some(payload.iat)));
    if off > TOLERANCE_MS {
        found("iat", format!("{off} ms off"));
    }
}

/// The clock that a proof goes by, in milliseconds: this machine's, or the server's once it is known.
pub(super) fn clock_ms(sent: &Sent, iat: Option<u64>) -> u64 {
    let servers = sent.sent_ms.saturating_add_signed(sent.clock * 1000);
    let both = [sent.sent_ms, servers];
    let nearest = |iat| both.into_iter().min_by_key(|&at| off_ms(iat, at));
    iat.and_then(nearest).unwrap_or(sent.sent_ms)
}

fn off_ms(iat: u64, at: u64) -> u64 {
    iat.saturating_mul(1000).abs_diff(at)
}

/// The `htu` of a request: scheme and host in lower case, no default port, and the path byte for byte.
pub(super) fn target(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.split(['?', '#']).next()?;
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    Some(format!("{}{path}", origin(scheme, rest)?))
}

/// The library does not touch the path here: it does not see it.
fn origin(scheme: &str, rest: &str) -> Option<String> {
    let authority = rest.split('/').next()?;
    let url = Url::parse(&format!("{scheme}://{authority}")).ok()?;
    let origin = url.origin();
    origin.is_tuple().then(|| origin.ascii_serialization())
}
