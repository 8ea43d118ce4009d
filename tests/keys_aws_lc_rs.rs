//! Keys by `AwsLcRs`: what loads, what it signs and under which name, and what is refused.
//!
//! The files are made by `tests/data/keys/make`, with openssl. What is signed is verified by other crates: `p256` and
//! `ring`.
#![cfg(any(feature = "aws-lc-rs", feature = "fips"))]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/stores.rs"]
mod stores;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use p256::ecdsa::{VerifyingKey, signature::Verifier as _};
use ring::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::{Value, json};
use stores::grant;
use support::{API, Fake, get, header, ok, own_token, with_token};
use tower::{Layer as _, ServiceExt as _};
use tower_dpop::{
    Algorithm, AwsLcRs, DpopKey, DpopLayer, Error, FileStore, GrantStore as _, PrivateKeyJwt,
    StoredGrant,
    oauth::{AuthenticationContext, ClientAuthentication as _},
    proof::Proof,
};

const PASSWORD: &str = "correct horse";

/// Names of algorithms, of which the first is that of a key that is told nothing else.
const RSA: [Algorithm; 2] = [Algorithm::Ps256, Algorithm::Rs256];
const OKP: [Algorithm; 2] = [Algorithm::Ed25519, Algorithm::EdDsa];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/keys")
        .join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    fs::read(data(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn text(name: &str) -> String {
    String::from_utf8(bytes(name)).unwrap()
}

/// The files in a folder, as `folder/file`.
fn files(folder: &str) -> Vec<String> {
    let names = fs::read_dir(data(folder)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| !name.starts_with("thumbprint"));
    let mut names: Vec<_> = names.map(|name| format!("{folder}/{name}")).collect();
    names.sort();
    assert!(names.len() > 5);
    names
}

/// Loads both ways, which must agree.
fn load(name: &str) -> Result<DpopKey, Error> {
    let from_file = AwsLcRs::from_file(data(name), Some(PASSWORD));
    let from_bytes = AwsLcRs::from_bytes(bytes(name), Some(PASSWORD));
    match (&from_file, &from_bytes) {
        (Ok(file), Ok(bytes)) => assert_eq!(file, bytes),
        (Err(file), Err(bytes)) => {
            let path = data(name);
            let text = format!("key file {}: {bytes}", path.display());
            assert_eq!(file.to_string(), text);
        }
        _ => panic!("{name}: {from_file:?}, but {from_bytes:?}"),
    }
    from_bytes
}

/// Whether this JWS is signed by this public key, with the algorithm that its header names.
fn verifies(jws: &str, jwk: &str) -> bool {
    let jwk: Value = serde_json::from_str(jwk).unwrap();
    let member = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let (input, signature) = jws.rsplit_once('.').unwrap();
    let (input, signature) = (input.as_bytes(), URL_SAFE_NO_PAD.decode(signature).unwrap());
    let rsa = |parameters| {
        let (n, e) = (member("n"), member("e"));
        assert_eq!(signature.len(), n.len());
        let public = RsaPublicKeyComponents { n, e };
        public.verify(parameters, input, &signature).is_ok()
    };
    match header(jws)["alg"].as_str().unwrap() {
        "ES256" => {
            let point = [vec![4], member("x"), member("y")].concat();
            let public = VerifyingKey::from_sec1_bytes(&point).unwrap();
            let signature = p256::ecdsa::Signature::from_slice(&signature);
            signature.is_ok_and(|signature| public.verify(input, &signature).is_ok())
        }
        "PS256" => rsa(&RSA_PSS_2048_8192_SHA256),
        "RS256" => rsa(&RSA_PKCS1_2048_8192_SHA256),
        "Ed25519" | "EdDSA" => {
            let public = UnparsedPublicKey::new(&ED25519, member("x"));
            public.verify(input, &signature).is_ok()
        }
        other => panic!("{other}"),
    }
}

/// A proof of this key, whose header says what it should.
fn proof(key: &DpopKey) -> String {
    let uri = API.parse().unwrap();
    let proof = Proof::new(&Method::GET, &uri).unwrap().sign(key).unwrap();
    let jwk: Value = serde_json::from_str(key.public_jwk()).unwrap();
    let alg = key.algorithm().as_str();
    assert_eq!(
        header(&proof),
        json!({"typ": "dpop+jwt", "alg": alg, "jwk": jwk})
    );
    proof
}

fn assert_signs(key: &DpopKey, algorithm: Algorithm) {
    assert_eq!(key.algorithm(), algorithm);
    let proof = proof(key);
    assert!(verifies(&proof, key.public_jwk()), "{key:?}");
    // And it is seen if it is not signed so.
    let (input, signature) = proof.rsplit_once('.').unwrap();
    assert!(!verifies(
        &format!("{input}A.{signature}"),
        key.public_jwk()
    ));
}

/// Signs with all of these, is the same key with each, and refuses the others.
fn assert_signs_with(key: &DpopKey, able: &[Algorithm]) {
    use Algorithm::{Ed25519, EdDsa, Es256, Ps256, Rs256};
    for algorithm in [Es256, Ps256, Rs256, Ed25519, EdDsa] {
        let other = key.clone().with_algorithm(algorithm);
        if able.contains(&algorithm) {
            let other = other.unwrap();
            assert_eq!(&other, key);
            assert_signs(&other, algorithm);
        } else {
            let error = other.unwrap_err();
            assert!(error.is_key(), "{error:?}");
            let able: Vec<&str> = able.iter().map(|able| able.as_str()).collect();
            let able = able.join(" or ");
            let text = format!("this key cannot sign with {algorithm}: it signs with {able}");
            assert_eq!(error.to_string(), text);
        }
    }
}

#[test]
fn p256_keys_are_the_same_through_both_doors() {
    let more = files("more");
    for name in [files("good"), files("opened"), more].concat() {
        let key = load(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let other = DpopKey::from_file(data(&name), Some(PASSWORD)).unwrap();
        assert_eq!(key, other, "{name}");
        assert_eq!(key.public_jwk(), other.public_jwk());
        assert_eq!(key.to_pkcs8_pem().unwrap(), other.to_pkcs8_pem().unwrap());
        assert_signs(&key, Algorithm::Es256);
    }
    assert_signs_with(&load("good/pkcs8.pem").unwrap(), &[Algorithm::Es256]);
}

#[test]
fn generated_keys_survive_pem() {
    let key = AwsLcRs::generate().unwrap();
    assert_signs(&key, Algorithm::Es256);
    let pem = key.to_pkcs8_pem().unwrap();
    assert_eq!(AwsLcRs::from_bytes(pem.as_str(), None).unwrap(), key);
    assert_eq!(DpopKey::from_bytes(pem.as_str(), None).unwrap(), key);
    assert_ne!(AwsLcRs::generate().unwrap(), key);
}

#[test]
fn rsa_keys_of_every_format_sign() {
    let thumbprints = text("rsa/thumbprints");
    let mut left = files("rsa");
    for line in thumbprints.lines() {
        let (name, thumbprint) = line.split_once(' ').unwrap();
        let name = format!("rsa/{name}");
        left.retain(|left| *left != name);
        let key = load(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(key.thumbprint(), thumbprint, "{name}");
        let first = match &*name {
            "rsa/jwk-rs256.json" => Algorithm::Rs256,
            _ => Algorithm::Ps256,
        };
        assert_signs(&key, first);
        match name.contains("pss") {
            true => assert_signs_with(&key, &[Algorithm::Ps256]),
            false => assert_signs_with(&key, &RSA),
        }
    }
    assert!(left.is_empty(), "not tested: {left:?}");
}

/// RFC 7518, section 6.3.1.1 tells of implementations that write one.
#[test]
fn a_zero_before_a_number_changes_nothing() {
    let mut jwk: Value = serde_json::from_slice(&bytes("rsa/jwk.json")).unwrap();
    for name in ["n", "d", "qi"] {
        let number = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        jwk[name] = URL_SAFE_NO_PAD.encode([vec![0], number].concat()).into();
    }
    let key = AwsLcRs::from_bytes(jwk.to_string(), None).unwrap();
    assert_eq!(key.public_jwk(), load("rsa/jwk.json").unwrap().public_jwk());
    assert_signs(&key, Algorithm::Ps256);
}

/// RFC 8037, A.1 to A.3.
#[test]
fn the_jwk_of_rfc_8037() {
    let key = AwsLcRs::from_bytes(
        r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
            "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        None,
    )
    .unwrap();
    assert_eq!(
        key.public_jwk(),
        r#"{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
    );
    assert_eq!(
        key.thumbprint(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

#[test]
fn ed25519_keys_of_every_format_sign() {
    for name in files("ed25519") {
        let key = load(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            key.thumbprint(),
            text("ed25519/thumbprint").trim(),
            "{name}"
        );
        let first = match &*name {
            "ed25519/jwk-eddsa.json" => Algorithm::EdDsa,
            _ => Algorithm::Ed25519,
        };
        assert_signs(&key, first);
        assert_signs_with(&key, &OKP);
    }
}

/// Byte for byte what openssl writes, and what it wrote is read again.
#[test]
fn pem_is_what_openssl_writes() {
    for (name, written) in [
        ("good/sec1.pem", "good/pkcs8.pem"),
        ("rsa/pkcs1.der", "rsa/pkcs8.pem"),
        ("rsa/jwk.json", "rsa/pkcs8.pem"),
        ("rsa/3072.pem", "rsa/3072.pem"),
        ("ed25519/version-2.der", "ed25519/pkcs8.pem"),
        // What it is for is kept.
        ("rsa/pss.pem", "rsa/pss.pem"),
        ("rsa/pss-sha256.pem", "rsa/pss-sha256.pem"),
    ] {
        let key = load(name).unwrap();
        let pem = key.to_pkcs8_pem().unwrap();
        assert_eq!(*pem, text(written), "{name}");
        assert_eq!(AwsLcRs::from_bytes(pem.as_str(), None).unwrap(), key);
    }
}

#[test]
fn encrypted_files_ask_for_their_password() {
    for name in [
        "rsa/encrypted.pem",
        "rsa/encrypted.der",
        "ed25519/encrypted.der",
    ] {
        let error = AwsLcRs::from_bytes(bytes(name), None).unwrap_err();
        assert!(error.is_password_missing(), "{name}: {error:?}");
        let error = AwsLcRs::from_file(data(name), Some("horse")).unwrap_err();
        assert!(error.is_password_wrong(), "{name}: {error:?}");
    }
}

const NOT_TOGETHER: &str = "an RSA key whose numbers do not belong together";
const NOT_ITS_OWN: &str = "a private key beside a public key that is not its own";

const BAD: &[(&str, &str)] = &[
    ("ed25519-bad/bare.der", "PKCS#8 that is damaged"),
    ("ed25519-bad/empty-public.der", NOT_ITS_OWN),
    ("ed25519-bad/mixed.der", NOT_ITS_OWN),
    ("ed25519-bad/mixed.json", NOT_ITS_OWN),
    (
        "ed25519-bad/other-alg.json",
        "another \"alg\" than Ed25519 and EdDSA",
    ),
    ("ed25519-bad/public.json", "a public JWK, without \"d\""),
    ("ed25519-bad/short.der", "PKCS#8 that is damaged"),
    ("ed25519-bad/short.json", "\"d\" is not 32 bytes"),
    ("ed25519-bad/without-x.json", "without \"x\""),
    ("ed25519-bad/x25519.json", "another curve: X25519"),
    (
        "rsa-bad/2047.pem",
        "an RSA key of 2047 bits: needed are 2048 to 8192",
    ),
    (
        "rsa-bad/8200.der",
        "an RSA key of 8200 bits: needed are 2048 to 8192",
    ),
    (
        "rsa-bad/exponent-3.pem",
        "an RSA key whose public exponent is less than 65537",
    ),
    ("rsa-bad/mixed.der", NOT_TOGETHER),
    ("rsa-bad/negative.der", "an RSA key that is damaged"),
    (
        "rsa-bad/not-base64url.json",
        "\"dp\" is no number in base64url",
    ),
    (
        "rsa-bad/other-alg.json",
        "another \"alg\" than PS256 and RS256",
    ),
    ("rsa-bad/other-primes.json", "more than two primes"),
    (
        "rsa-bad/pss-mask.pem",
        "for PSS alone, and not with SHA-256",
    ),
    (
        "rsa-bad/pss-hash.pem",
        "for PSS alone, and not with SHA-256",
    ),
    (
        "rsa-bad/pss-mask-sha1.pem",
        "for PSS alone, and not with SHA-256",
    ),
    (
        "rsa-bad/pss-salt.pem",
        "for PSS alone, and not with SHA-256",
    ),
    (
        "rsa-bad/pss-sha512.pem",
        "for PSS alone, and not with SHA-256",
    ),
    ("rsa-bad/public.json", "a public JWK, without \"d\""),
    ("rsa-bad/short.der", "an RSA key that is damaged"),
    ("rsa-bad/three-primes.pem", "more than two primes"),
    (
        "rsa-bad/without-primes.json",
        "without \"p\", which is needed",
    ),
    ("rsa-bad/wrong-d.json", NOT_TOGETHER),
    ("rsa-bad/wrong-dp.json", NOT_TOGETHER),
    ("rsa-bad/wrong-dq.json", NOT_TOGETHER),
    ("rsa-bad/wrong-e.json", NOT_TOGETHER),
    ("rsa-bad/wrong-n.json", NOT_TOGETHER),
    ("rsa-bad/wrong-p.json", NOT_TOGETHER),
    ("rsa-bad/wrong-q.json", NOT_TOGETHER),
    ("rsa-bad/wrong-qi.json", NOT_TOGETHER),
];

#[test]
fn bad_files_say_what_they_are() {
    let mut left = [files("rsa-bad"), files("ed25519-bad")].concat();
    for (name, words) in BAD {
        left.retain(|left| left != name);
        let error = load(name).expect_err(name);
        let shown = error.to_string();
        assert!(error.is_key() && shown.contains(words), "{name}: {shown:?}");
        assert!(!shown.contains('\n') && shown.len() < 320, "{shown:?}");
        // Nothing of the key: not even ten characters in a row.
        let file = String::from_utf8_lossy(&bytes(name)).into_owned();
        let lines = file.lines().filter(|line| !line.starts_with("-----"));
        for piece in lines.flat_map(|line| line.as_bytes().windows(10)) {
            let piece = String::from_utf8_lossy(piece);
            let base64 = piece
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+/-_".contains(c));
            assert!(
                !base64 || !shown.contains(&*piece),
                "{piece:?} is in {shown:?}"
            );
        }
    }
    assert!(left.is_empty(), "not tested: {left:?}");
}

/// What no door opens has the same error at both.
#[test]
fn both_doors_refuse_alike() {
    for name in files("bad") {
        let other = DpopKey::from_bytes(bytes(&name), Some(PASSWORD)).unwrap_err();
        if name == "bad/Ed25519.pem" {
            load(&name).expect(&name);
            continue;
        }
        let error = load(&name).expect_err(&name);
        match other.to_string().contains("AwsLcRs::from_file") {
            true => assert!(error.to_string().contains("1024 bits"), "{name}: {error}"),
            false => assert_eq!(error.to_string(), other.to_string(), "{name}"),
        }
    }
}

/// Cut off or damaged anywhere, a file is an error or still the key, and no reason to panic.
#[test]
fn cut_off_or_damaged_anywhere() {
    for name in [
        "rsa/pkcs8.der",
        "ed25519/version-2.der",
        "rsa/pss-sha256.pem",
    ] {
        let mut file = bytes(name);
        let whole = AwsLcRs::from_bytes(&file, None).unwrap();
        let step = file.len() / 100 + 1;
        for at in (0..file.len()).step_by(step).chain(0..40) {
            if let Ok(key) = AwsLcRs::from_bytes(&file[..at], None) {
                assert_eq!(key, whole, "{name}, {at}");
            }
            for bits in [0x01, 0x20, 0x80] {
                file[at] ^= bits;
                if let Err(error) = AwsLcRs::from_bytes(&file, None) {
                    assert!(error.is_key(), "{error:?}");
                }
                file[at] ^= bits;
            }
        }
    }
}

#[test]
fn debug_shows_nothing_private() {
    let key = load("rsa/jwk.json").unwrap();
    let thumbprint = key.thumbprint();
    assert_eq!(
        format!("{key:?}"),
        format!("DpopKey {{ algorithm: Ps256, thumbprint: {thumbprint:?}, .. }}")
    );
}

#[tokio::test]
async fn requests_carry_proofs_of_all_algorithms() {
    for (name, able) in [("rsa/pkcs8.pem", RSA), ("ed25519/pkcs8.pem", OKP)] {
        for algorithm in able {
            let key = load(name).unwrap().with_algorithm(algorithm).unwrap();
            let fake = Fake::new(|_, _| ok());
            let stack = DpopLayer::new(key.clone()).layer(fake.clone());
            let request: Request<Full<Bytes>> = with_token(get(API), &own_token(&key));
            stack.oneshot(request).await.unwrap();
            let seen = fake.seen();
            assert_eq!(header(seen[0].proof())["alg"], algorithm.as_str());
            assert!(verifies(seen[0].proof(), key.public_jwk()));
        }
    }
}

/// `private_key_jwt` with the same keys (RFC 7523).
#[tokio::test]
async fn client_assertions_are_signed_with_all_algorithms() {
    let p256 = load("good/pkcs8.pem").unwrap();
    let rsa = load("rsa/pkcs8.pem").unwrap();
    let okp = load("ed25519/pkcs8.pem").unwrap();
    let keys = [
        p256,
        rsa.clone(),
        rsa.with_algorithm(Algorithm::Rs256).unwrap(),
        okp.clone(),
        okp.with_algorithm(Algorithm::EdDsa).unwrap(),
    ];
    for key in keys {
        let request = AuthenticationContext::new("app", "https://as.example.com/token")
            .with_issuer("https://as.example.com");
        let authentication = PrivateKeyJwt::new(key.clone()).key_id("1");
        let credentials = authentication.authenticate(&request).await.unwrap();
        let jwt = credentials.get("client_assertion").unwrap();
        let alg = key.algorithm().as_str();
        assert_eq!(header(jwt), json!({"typ": "JWT", "alg": alg, "kid": "1"}));
        assert!(verifies(jwt, key.public_jwk()), "{key:?}");
    }
}

/// A stored key has the signer and the algorithm again that it had.
#[tokio::test]
async fn stored_keys_come_back_as_they_were() {
    let directory = stores::Directory::new();
    let store = FileStore::new(directory.grant());
    for (name, algorithm) in [
        ("good/pkcs8.pem", Algorithm::Es256),
        ("rsa/pkcs8.pem", Algorithm::Ps256),
        ("rsa/pkcs8.pem", Algorithm::Rs256),
        ("rsa/pss.pem", Algorithm::Ps256),
        ("ed25519/pkcs8.pem", Algorithm::Ed25519),
        ("ed25519/pkcs8.pem", Algorithm::EdDsa),
    ] {
        let key = load(name).unwrap().with_algorithm(algorithm).unwrap();
        store.save(grant(&key, "refresh")).await.unwrap();
        let stored = store.load().await.unwrap().unwrap();
        let again = stored.key().unwrap();
        assert_eq!(again, &key);
        assert_signs(again, algorithm);
        // The signer shows in what is stored again, and nowhere else.
        let json: Value = serde_json::from_str(&stored.to_json().unwrap()).unwrap();
        assert_eq!(json["signer"], "aws-lc-rs");
        let alg = (algorithm != Algorithm::Es256).then(|| algorithm.as_str());
        assert_eq!(json.get("alg").and_then(Value::as_str), alg);
    }
}

#[test]
fn a_stored_key_of_the_crates_own_signer_stays_with_it() {
    let key = DpopKey::from_file(data("good/pkcs8.pem"), None).unwrap();
    let json = grant(&key, "refresh").to_json().unwrap();
    let stored = StoredGrant::from_json(json.as_bytes()).unwrap();
    assert_eq!(*stored.to_json().unwrap(), *json);
    assert!(!json.contains("signer"));
}

#[test]
fn a_stored_key_for_what_it_cannot_is_refused() {
    let key = load("rsa/pkcs8.pem").unwrap();
    let json = grant(&key, "refresh").to_json().unwrap();
    for (alg, words) in [("EdDSA", "cannot sign with EdDSA"), ("?", "not known")] {
        let json = json.replace("PS256", alg);
        let error = StoredGrant::from_json(json.as_bytes()).unwrap_err();
        assert!(
            error.is_store() && error.to_string().contains(words),
            "{error}"
        );
        assert!(!error.to_string().contains("damaged"), "{error}");
    }
}
