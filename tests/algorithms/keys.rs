//! What a `jwk` must be, and which `alg` goes with it: signed here, each time with the right key.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower_dpop::Algorithm;

use super::{
    NOT_ACCEPTED, WRONG_SIGNATURE,
    by_hand::{ALL, ed25519_jwk, header, jws, public_jwk, vectors},
    judge,
};

const NO_NUMBERS: &str = "`n` or `e` of `jwk` is missing, is not base64url or has leading zeros";
const NO_POINT: &str = "`jwk` is no point of Ed25519, or one of small order";
const PRIVATE: &str = "`jwk` holds a private key";

fn claims() -> Value {
    let vectors = vectors();
    json!({ "jti": "1", "htm": "GET", "htu": vectors["url"], "iat": vectors["now"] })
}

/// The verdict on a proof whose header has these members instead.
fn with(algorithm: Algorithm, changes: Value) -> Result<String, &'static str> {
    let mut header = header(algorithm);
    for (name, value) in changes.as_object().unwrap() {
        header[name] = value.clone();
    }
    judge(&jws(algorithm, &header, &claims()), &ALL, None)
}

/// The verdict on a proof whose `jwk` has these members instead; null takes one away.
fn with_jwk(algorithm: Algorithm, changes: Value) -> Result<String, &'static str> {
    let mut jwk = public_jwk(algorithm);
    let members = jwk.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        members.insert(name.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    with(algorithm, json!({ "jwk": jwk }))
}

fn is_ok(algorithm: Algorithm, changes: Value) {
    let verdict = with_jwk(algorithm, changes.clone());
    assert!(verdict.is_ok(), "{algorithm} {changes}: {verdict:?}");
}

fn is_not(algorithm: Algorithm, changes: Value, because: &str) {
    let verdict = with_jwk(algorithm, changes.clone());
    assert_eq!(verdict, Err(because), "{algorithm} {changes}");
}

#[test]
fn v5_the_name_is_taken_to_the_letter() {
    for algorithm in ALL {
        assert!(with(algorithm, json!({})).is_ok(), "{algorithm}");
        for name in [
            "none", "NONE", "", "HS256", "HS512", "ES384", "ES512", "ES256K", "RS384", "RS512",
            "RS1", "PS384", "PS512", "Ed448", "ed25519", "ED25519", "eddsa", "EDDSA", "EdDSA ",
            "es256", "rs256", "ps256", "RSA",
        ] {
            let verdict = with(algorithm, json!({ "alg": name }));
            assert_eq!(verdict, Err(NOT_ACCEPTED), "{name}");
        }
        for no_name in [json!(null), json!(256), json!(["PS256"]), json!({})] {
            let verdict = with(algorithm, json!({ "alg": no_name }));
            assert_eq!(verdict, Err(NOT_ACCEPTED), "{no_name}");
        }
    }
}

/// Each key under each name, and with the signature of each algorithm: the right one alone is accepted.
#[test]
fn v5_a_key_is_of_the_kind_that_its_algorithm_asks_for() {
    for signs in ALL {
        for name in ALL {
            for key in ALL {
                let same_key = public_jwk(signs) == public_jwk(key);
                let same_way = signs == name || [signs, name].iter().all(|one| is_ed25519(*one));
                let header = json!({
                    "typ": "dpop+jwt", "alg": name.as_str(), "jwk": public_jwk(key),
                });
                let verdict = judge(&jws(signs, &header, &claims()), &ALL, None);
                let fits = public_jwk(name) == public_jwk(key);
                let because = match name {
                    _ if fits => WRONG_SIGNATURE,
                    Algorithm::Es256 => "`jwk` is no P-256 key",
                    Algorithm::Ps256 | Algorithm::Rs256 => "`jwk` is no RSA key",
                    _ => "`jwk` is no Ed25519 key",
                };
                if same_key && same_way {
                    assert!(verdict.is_ok(), "{verdict:?}");
                } else {
                    assert_eq!(verdict, Err(because), "{signs} {name} {key}");
                }
            }
        }
    }
}

fn is_ed25519(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::EdDsa)
}

#[test]
fn v5_kty_and_crv() {
    for algorithm in [Algorithm::Ps256, Algorithm::Rs256] {
        for kty in [
            json!(null),
            json!("rsa"),
            json!("RSA "),
            json!("EC"),
            json!("oct"),
            json!(1),
        ] {
            is_not(algorithm, json!({ "kty": kty }), "`jwk` is no RSA key");
        }
        // Which it has no use for.
        is_ok(algorithm, json!({ "crv": "P-256", "x": "AA" }));
    }
    for algorithm in [Algorithm::Ed25519, Algorithm::EdDsa] {
        for kty in [json!(null), json!("EC"), json!("okp"), json!("RSA")] {
            is_not(algorithm, json!({ "kty": kty }), "`jwk` is no Ed25519 key");
        }
        for crv in [
            json!(null),
            json!("Ed448"),
            json!("X25519"),
            json!("ed25519"),
            json!("P-256"),
            json!(["Ed25519"]),
        ] {
            is_not(algorithm, json!({ "crv": crv }), "`jwk` is no Ed25519 key");
        }
    }
}

#[test]
fn v7_no_private_key() {
    for algorithm in ALL {
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            is_not(algorithm, json!({ name: "AQ" }), PRIVATE);
            is_not(algorithm, json!({ name: [] }), PRIVATE);
        }
    }
    is_not(Algorithm::EdDsa, ed25519_jwk(), PRIVATE);
    for jwk in [
        json!(null),
        json!("key"),
        json!([public_jwk(Algorithm::Ps256)]),
    ] {
        let verdict = with(Algorithm::Ps256, json!({ "jwk": jwk }));
        assert_eq!(verdict, Err("`jwk` is missing or no object"));
    }
}

/// The same bytes in another way: RFC 7515, section 2 knows one, and RFC 7518, section 6.3.1.1 warns of the zero.
#[test]
fn a_number_has_one_form() {
    let jwk = public_jwk(Algorithm::Rs256);
    let n = jwk["n"].as_str().unwrap();
    let with_zeros =
        |bytes: &[u8], zeros: usize| BASE64URL.encode([&vec![0; zeros][..], bytes].concat());
    let bytes = BASE64URL.decode(n).unwrap();
    for algorithm in [Algorithm::Ps256, Algorithm::Rs256] {
        is_ok(algorithm, json!({ "n": n, "e": "AQAB" }));
        for changes in [
            json!({ "n": null }),
            json!({ "e": null }),
            json!({ "n": "" }),
            json!({ "e": "" }),
            json!({ "e": 65537 }),
            json!({ "n": [n] }),
            json!({ "n": with_zeros(&bytes, 1) }),
            json!({ "n": with_zeros(&bytes, 2) }),
            json!({ "n": with_zeros(&bytes, 3000) }),
            json!({ "e": with_zeros(&[1, 0, 1], 1) }),
            json!({ "e": "AA" }),
            json!({ "n": format!("{n}==") }),
            json!({ "e": "AQAB====" }),
            json!({ "n": format!("{n} ") }),
            json!({ "e": "AQAB\n" }),
            json!({ "n": n.replace('-', "+").replace('_', "/") }),
            // Bits of the last character that stand for nothing: four, with a length of 3 n + 1.
            json!({ "n": last_changed(n) }),
        ] {
            is_not(algorithm, changes, NO_NUMBERS);
        }
    }
    let jwk = public_jwk(Algorithm::EdDsa);
    let x = jwk["x"].as_str().unwrap();
    for algorithm in [Algorithm::Ed25519, Algorithm::EdDsa] {
        for changes in [
            json!({ "x": null }),
            json!({ "x": "" }),
            json!({ "x": 1 }),
            json!({ "x": format!("{x}=") }),
            json!({ "x": x.replace('-', "+").replace('_', "/") }),
            json!({ "x": last_changed(x) }),
            json!({ "x": format!("{x}AAAA") }),
        ] {
            is_not(algorithm, changes, NO_POINT);
        }
    }
}

/// The last character, with one more bit set: the same bytes for a decoder that lets it pass.
fn last_changed(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (rest, last) = text.split_at(text.len() - 1);
    let value = ALPHABET
        .iter()
        .position(|one| last.as_bytes() == [*one])
        .unwrap();
    assert_eq!(value % 2, 0);
    format!("{rest}{}", char::from(ALPHABET[value + 1]))
}

fn bytes() -> impl Strategy<Value = String> {
    let lengths = prop_oneof![0..70_usize, 250..262_usize, 1000..1100_usize];
    lengths
        .prop_flat_map(|length| proptest::collection::vec(any::<u8>(), length))
        .prop_map(|bytes| BASE64URL.encode(bytes))
}

fn member(right: &str) -> impl Strategy<Value = Value> + use<> {
    let right = right.to_owned();
    prop_oneof![
        4 => bytes().prop_map(Value::from),
        2 => Just(Value::from(right)),
        1 => any::<String>().prop_map(Value::from),
        1 => Just(json!(null)),
        1 => any::<i64>().prop_map(Value::from),
    ]
}

fn any_jwk() -> impl Strategy<Value = Value> {
    let kinds = proptest::sample::select(vec!["EC", "RSA", "OKP", "oct"]);
    let curves = proptest::sample::select(vec!["P-256", "Ed25519", "Ed448"]);
    let rsa = public_jwk(Algorithm::Rs256);
    let okp = public_jwk(Algorithm::EdDsa);
    let [n, e, x] = [&rsa["n"], &rsa["e"], &okp["x"]].map(|one| member(one.as_str().unwrap()));
    (kinds, curves, n, e, x, bytes()).prop_map(
        |(kty, crv, n, e, x, y)| json!({ "kty": kty, "crv": crv, "n": n, "e": e, "x": x, "y": y }),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Nor accepts what nobody signed.
    #[test]
    fn no_key_and_no_signature_makes_the_verifier_panic(
        algorithm in proptest::sample::select(ALL.to_vec()),
        jwk in any_jwk(),
        signature in bytes(),
    ) {
        let header = json!({ "typ": "dpop+jwt", "alg": algorithm.as_str(), "jwk": jwk });
        let encode = |value: &Value| BASE64URL.encode(value.to_string());
        let jws = format!("{}.{}.{signature}", encode(&header), encode(&claims()));
        prop_assert!(judge(&jws, &ALL, None).is_err());
    }

    #[test]
    fn no_text_makes_the_verifier_panic(text in "[A-Za-z0-9_.=-]{0,300}", header in any::<String>(), cut in 0..1200_usize) {
        prop_assert!(judge(&text, &ALL, None).is_err());
        let long = format!("{}.e30.{text}", BASE64URL.encode(header));
        prop_assert!(judge(&long, &ALL, None).is_err());
        let right = vectors()["proofs"][0]["jws"].as_str().unwrap();
        prop_assert!(judge(&right[..cut.min(right.len() - 1)], &ALL, None).is_err());
    }
}
