//! All algorithms that the feature `aws-lc-rs` brings: proofs and assertions that others made, checked by `Check` and by the
//! embedded servers; and the crate's own, through both layers.
//!
//! `cargo test --features aws-lc-rs --test algorithms`
#![cfg(any(feature = "aws-lc-rs", feature = "fips"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "algorithms/assertions.rs"]
mod assertions;
#[path = "support/by_hand.rs"]
mod by_hand;
#[path = "algorithms/checklist.rs"]
mod checklist;
#[path = "algorithms/keys.rs"]
mod keys;
#[path = "algorithms/servers.rs"]
mod servers_tests;

#[path = "support/flows.rs"]
mod flows;
#[path = "support/servers.rs"]
mod servers;
mod support;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::Method;
use serde_json::Value;
use tower_dpop::{Algorithm, proof::Check};

use self::by_hand::{ALL, vectors};

const WRONG_SIGNATURE: &str = "the signature is not that of the key in `jwk`";
const NOT_ACCEPTED: &str = "`alg` is not one that is accepted";

/// What a resource server says of a proof for the vectors' request: the thumbprint of its key, or the broken rule.
fn judge(proof: &str, accepted: &[Algorithm], jkt: Option<&str>) -> Result<String, &'static str> {
    let vectors = vectors();
    let url = vectors["url"].as_str().unwrap();
    let token = vectors["token"].as_str().unwrap();
    let mut check = Check::new(&Method::GET, url, vectors["now"].as_u64().unwrap())
        .algorithms(accepted)
        .unwrap();
    if let Some(jkt) = jkt {
        check = check.access_token(token, jkt);
    }
    match check.verify_proof(proof) {
        Ok(valid) => Ok(valid.thumbprint().to_owned()),
        Err(error) => {
            assert_eq!(error.code(), "invalid_dpop_proof", "{error}");
            Err(error.reason())
        }
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn named(name: &str) -> Algorithm {
    *ALL.iter().find(|one| one.as_str() == name).unwrap()
}

#[test]
fn proofs_that_others_made_are_accepted() {
    for proof in vectors()["proofs"].as_array().unwrap() {
        let (jws, jkt) = (text(proof, "jws"), text(proof, "jkt"));
        let algorithm = named(text(proof, "alg"));
        for accepted in [&[algorithm][..], &[Algorithm::Es256, algorithm], &ALL] {
            assert_eq!(
                judge(jws, accepted, Some(jkt)),
                Ok(jkt.to_owned()),
                "{proof}"
            );
        }
    }
}

#[test]
fn what_the_server_does_not_name_is_refused() {
    for proof in vectors()["proofs"].as_array().unwrap() {
        let jws = text(proof, "jws");
        let mut others = ALL.to_vec();
        // `Ed25519` and `EdDSA` are one algorithm, and two names.
        others.retain(|one| one.as_str() != text(proof, "alg"));
        for accepted in [&others[..], &[Algorithm::Es256], &[]] {
            assert_eq!(judge(jws, accepted, None), Err(NOT_ACCEPTED), "{proof}");
        }
        // A feature adds; it never changes what is accepted.
        let check = Check::new(
            &Method::GET,
            vectors()["url"].as_str().unwrap(),
            1_562_262_618,
        );
        let error = check.verify_proof(jws).unwrap_err();
        assert_eq!(
            (error.code(), error.reason()),
            ("invalid_dpop_proof", NOT_ACCEPTED)
        );
    }
}

#[test]
fn v6_what_others_made_wrong_is_refused_for_what_is_wrong_with_it() {
    let mut kinds = std::collections::HashSet::new();
    for proof in vectors()["refused"].as_array().unwrap() {
        let because = text(proof, "because");
        assert_eq!(
            judge(text(proof, "jws"), &ALL, None),
            Err(because),
            "{}",
            proof["name"]
        );
        kinds.insert(because.to_owned());
    }
    assert_eq!(kinds.len(), 4, "{kinds:?}");
}

#[test]
fn v6_no_bit_of_a_signature_can_be_changed() {
    let mut seen = Vec::new();
    for proof in vectors()["proofs"].as_array().unwrap() {
        // One of each algorithm.
        if seen.contains(&proof["alg"]) {
            continue;
        }
        seen.push(proof["alg"].clone());
        let (signed, signature) = text(proof, "jws").rsplit_once('.').unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        for bit in 0..signature.len() * 8 {
            let mut wrong = signature.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let jws = format!("{signed}.{}", BASE64URL.encode(&wrong));
            assert_eq!(
                judge(&jws, &ALL, None),
                Err(WRONG_SIGNATURE),
                "{bit}: {proof}"
            );
        }
        let claims = signed.replacen('.', ".e30", 1);
        assert!(
            judge(
                &format!("{claims}.{}", BASE64URL.encode(&signature)),
                &ALL,
                None
            )
            .is_err()
        );
    }
    assert_eq!(seen.len(), 4);
}
