//! The conditions themselves: each proof that breaks one is found, for that reason.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    conditions::{Conditions, Presented},
    support::{a3_header, a3_jwk, sign_jws},
};

const URL: &str = "https://rs.example/accounts";
const TOKEN: &str = "a.token";

/// Header and claims of a proof, and whether it is shown to a resource.
struct Case {
    header: Value,
    claims: Value,
    at_resource: bool,
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// With nothing wrong.
fn good(at_resource: bool) -> Case {
    let mut claims = json!({"jti": "j", "htm": "GET", "htu": URL, "iat": now()});
    if at_resource {
        claims["ath"] = BASE64URL.encode(Sha256::digest(TOKEN)).into();
    }
    Case {
        header: a3_header(),
        claims,
        at_resource,
    }
}

async fn check(conditions: &mut Conditions, case: &Case) -> Result<(), String> {
    let proof = sign_jws(&case.header.to_string(), &case.claims.to_string());
    check_signed(conditions, case, &proof).await
}

async fn check_signed(conditions: &mut Conditions, case: &Case, proof: &str) -> Result<(), String> {
    let presented = Presented {
        proof,
        method: "GET",
        url: URL,
        token: case.at_resource.then_some(TOKEN),
        now: now(),
    };
    conditions.check(presented).await.map(drop)
}

/// What the conditions say of a proof that was changed, at the resource and elsewhere.
async fn verdicts(change: impl Fn(&mut Case)) -> [String; 2] {
    let mut verdicts = [String::new(), String::new()];
    for (verdict, at_resource) in verdicts.iter_mut().zip([false, true]) {
        let mut case = good(at_resource);
        change(&mut case);
        let broken = check(&mut Conditions::default(), &case).await;
        *verdict = broken.err().unwrap_or_else(|| "good".to_owned());
    }
    verdicts
}

#[track_caller]
fn both(verdicts: &[String; 2], reason: &str) {
    let found = verdicts.iter().all(|verdict| verdict.starts_with(reason));
    assert!(found, "{reason}: {verdicts:?}");
}

#[tokio::test]
async fn a_good_proof_is_good() {
    both(&verdicts(|_| {}).await, "good");
    let sane = |case: &mut Case| {
        case.claims["nbf"] = now().into();
        case.claims["exp"] = (now() + 60).into();
        case.claims["nonce"] = "n".into();
    };
    both(&verdicts(sane).await, "good");
}

#[tokio::test]
async fn the_header_is_looked_at() {
    for typ in [json!("DPoP+JWT"), json!("JWT"), Value::Null] {
        both(
            &verdicts(|case| case.header["typ"] = typ.clone()).await,
            "typ",
        );
    }
    for alg in ["RS256", "ES384", "HS256", "none", "es256"] {
        both(
            &verdicts(|case| case.header["alg"] = alg.into()).await,
            "alg",
        );
    }
    both(
        &verdicts(|case| case.header["jwk"] = Value::Null).await,
        "jwk",
    );
    let private = |case: &mut Case| case.header["jwk"]["d"] = a3_jwk()["d"].clone();
    both(&verdicts(private).await, "jwk holds the private d");
    let curve = json!({"kty": "OKP", "crv": "Ed448", "x": "AA"});
    both(
        &verdicts(|case| case.header["jwk"] = curve.clone()).await,
        "crv",
    );
}

#[tokio::test]
async fn the_claims_are_looked_at() {
    for name in ["jti", "htm", "htu", "iat"] {
        let without = |case: &mut Case| case.claims[name] = Value::Null;
        both(&verdicts(without).await, &format!("{name} is missing"));
    }
    both(
        &verdicts(|case| case.claims["jti"] = "".into()).await,
        "jti",
    );
    both(
        &verdicts(|case| case.claims["htm"] = "get".into()).await,
        "htm",
    );
    for htu in [
        "https://rs.example/accounts/",
        "https://rs.example/accounts?a=b",
        "https://rs.example:443/accounts",
        "https://RS.example/accounts",
        "https://rs.example/",
    ] {
        both(
            &verdicts(|case| case.claims["htu"] = htu.into()).await,
            "htu",
        );
    }
    for iat in [now() - 400, now() + 400] {
        both(
            &verdicts(|case| case.claims["iat"] = iat.into()).await,
            "iat",
        );
    }
    let nbf = |case: &mut Case| case.claims["nbf"] = (now() + 400).into();
    both(&verdicts(nbf).await, "nbf");
    let exp = |case: &mut Case| case.claims["exp"] = (now() - 400).into();
    both(&verdicts(exp).await, "exp");
}

#[tokio::test]
async fn the_token_hash_has_its_place() {
    let other = BASE64URL.encode(Sha256::digest("another.token"));
    let [elsewhere, resource] = verdicts(|case| case.claims["ath"] = other.clone().into()).await;
    assert_eq!(elsewhere, "ath has no place at an authorization server");
    assert!(resource.starts_with("ath is "), "{resource}");
    let [elsewhere, resource] = verdicts(|case| {
        case.claims.as_object_mut().unwrap().remove("ath");
    })
    .await;
    assert_eq!((&*elsewhere, &*resource), ("good", "ath is missing"));
}

#[tokio::test]
async fn the_signature_is_looked_at() {
    let case = good(true);
    let proof = sign_jws(&case.header.to_string(), &case.claims.to_string());
    let (signed, signature) = proof.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{first}{}", &signature[1..]);
    let verdict = check_signed(&mut Conditions::default(), &case, &forged).await;
    let verdict = verdict.unwrap_err();
    assert!(verdict.starts_with("the verifier says"), "{verdict}");
}

#[tokio::test]
async fn a_jti_is_good_once_in_256() {
    let mut conditions = Conditions::default();
    let mut case = good(false);
    check(&mut conditions, &case).await.unwrap();
    for other in 0..255 {
        case.claims["jti"] = format!("other {other}").into();
        check(&mut conditions, &case).await.unwrap();
    }
    case.claims["jti"] = "j".into();
    let again = check(&mut conditions, &case).await.unwrap_err();
    assert_eq!(again, "jti was used before: j");
}
