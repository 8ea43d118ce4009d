//! Proofs against every vector, made and checked (RFC 9449, section 4).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue, Method, Uri};
use serde_json::{Value, json};
use support::{a3_header, a3_jwk, a3_key, claims, header, sign_jws, vectors};
use tower_dpop::{
    Algorithm, DpopKey,
    proof::{Check, Proof},
};

const URL: &str = "https://resource.example.org/protectedresource";
const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const NOW: u64 = 1_562_262_618;

fn a3_jkt() -> String {
    vectors()["rfc7515_A3_es256"]["jkt"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The claims of an honest proof for `URL`, with `change` merged in; `null` takes a member away.
fn honest(change: Value) -> String {
    let mut claims = json!({
        "jti": "e1j3V_bKic8-LAEB",
        "htm": "GET",
        "htu": URL,
        "iat": NOW,
        "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
    });
    merge(&mut claims, change);
    sign_jws(&a3_header().to_string(), &claims.to_string())
}

fn with_header(change: Value) -> String {
    let mut header = a3_header();
    merge(&mut header, change);
    sign_jws(&header.to_string(), &claims(&honest(json!({}))).to_string())
}

fn merge(members: &mut Value, change: Value) {
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(members.as_object_mut().unwrap().remove(name)),
            value => members[name] = value.clone(),
        }
    }
}

/// What a resource server says of a proof: the error code, or nothing.
fn verdict(proof: &str) -> Result<(), &'static str> {
    let jkt = a3_jkt();
    Check::new(&Method::GET, URL, NOW)
        .access_token(TOKEN, &jkt)
        .verify_proof(proof)
        .map(drop)
        .map_err(|error| error.code())
}

#[test]
fn published_proofs_are_accepted_in_both_signature_forms() {
    for proof in vectors()["proofs"].as_array().unwrap() {
        let name = &proof["name"];
        let method = Method::from_bytes(proof["htm"].as_str().unwrap().as_bytes()).unwrap();
        let jkt = proof["jkt"].as_str().unwrap();
        let check = Check::new(
            &method,
            proof["htu"].as_str().unwrap(),
            proof["verify_at_unix"].as_u64().unwrap(),
        );
        let check = match proof["access_token"].as_str() {
            Some(token) => check.access_token(token, jkt),
            None => check,
        };
        for form in ["jws", "malleated_jws_also_valid"] {
            let valid = check
                .verify_proof(proof[form].as_str().unwrap())
                .expect(form);
            assert_eq!(valid.thumbprint(), jkt, "{name} {form}");
            assert_eq!(valid.jti(), proof["payload"]["jti"], "{name} {form}");
        }
    }
}

#[test]
fn broken_published_proofs_are_refused() {
    // They were made from figure 13: checked against its request, only the named fault can refuse.
    let vectors = vectors();
    let figure = vectors["proofs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "fig13")
        .unwrap();
    let check =
        Check::new(&Method::GET, URL, NOW).access_token(TOKEN, figure["jkt"].as_str().unwrap());
    check
        .verify_proof(figure["jws"].as_str().unwrap())
        .expect("the original fits");
    for negative in vectors["negatives_from_published"].as_array().unwrap() {
        let error = check
            .verify_proof(negative["jws"].as_str().unwrap())
            .expect_err("refused");
        assert_eq!(error.code(), "invalid_dpop_proof", "{}", negative["name"]);
    }
}

#[test]
fn project_vectors_get_their_verdict() {
    let vectors = vectors();
    let rfc_jkt = vectors["jkt"]["jkt"].as_str().unwrap();
    for vector in vectors["project_vectors"]["vectors"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let request = &vector["request"];
        let method = Method::from_bytes(request["method"].as_str().unwrap().as_bytes()).unwrap();
        let now = vector["now"].as_u64().unwrap();
        let own_jkt = a3_jkt();
        let jkt = if name == "wrong_key_for_bound_token" {
            rfc_jkt
        } else {
            &own_jkt
        };
        let result = Check::new(&method, request["url"].as_str().unwrap(), now)
            .access_token(request["access_token"].as_str().unwrap(), jkt)
            .verify_proof(vector["jws"].as_str().unwrap());
        match vector["expect"].as_str().unwrap() {
            accept if accept.starts_with("accept") => {
                assert!(result.is_ok(), "{name}: {result:?}");
            }
            reject if reject.starts_with("reject") => {
                let code = match name {
                    "wrong_key_for_bound_token" => "invalid_token",
                    _ => "invalid_dpop_proof",
                };
                assert_eq!(result.expect_err(name).code(), code, "{name}");
            }
            // Ours: the letter of RFC 9449, section 4.2.
            "policy" => assert!(result.is_err(), "{name}"),
            other => panic!("{name}: unknown expectation {other}"),
        }
    }
}

#[test]
fn htu_is_compared_after_normalisation() {
    for row in vectors()["project_htu_compare"].as_array().unwrap() {
        let proof = sign_jws(
            &a3_header().to_string(),
            &json!({"jti": "1", "htm": "GET", "htu": row["htu"], "iat": NOW}).to_string(),
        );
        let result = Check::new(&Method::GET, row["request_url"].as_str().unwrap(), NOW)
            .verify_proof(&proof);
        assert_eq!(
            result.is_ok(),
            row["match_after_6_2_2_and_6_2_3"] == true,
            "{row}: {result:?}"
        );
    }
}

#[test]
fn equivalent_uris_are_the_same_target() {
    for group in ["rfc3986_6_2_3_equivalent", "rfc9110_4_2_3_equivalent"] {
        let vectors = vectors();
        let uris = vectors[group].as_array().unwrap();
        for (url, htu) in uris
            .iter()
            .flat_map(|url| uris.iter().map(move |htu| (url, htu)))
        {
            let proof = sign_jws(
                &a3_header().to_string(),
                &json!({"jti": "1", "htm": "GET", "htu": htu, "iat": NOW}).to_string(),
            );
            let result = Check::new(&Method::GET, url.as_str().unwrap(), NOW).verify_proof(&proof);
            assert!(result.is_ok(), "{url} {htu}: {result:?}");
        }
    }
}

#[test]
fn what_is_emitted_is_canonical() {
    let key = a3_key();
    for row in vectors()["project_htu_emit"].as_array().unwrap() {
        // The rows with a path-only URI are about the layer; see tests/dpop.rs.
        let on_wire = row["request_uri_on_wire"].as_str().unwrap();
        let Some(uri) = on_wire
            .starts_with("https")
            .then(|| on_wire.parse::<Uri>().unwrap())
        else {
            continue;
        };
        let proof = Proof::new(&Method::GET, &uri).unwrap().sign(&key).unwrap();
        assert_eq!(claims(&proof)["htu"], row["emit_htu"], "{row}");
    }
}

#[test]
fn a_proof_says_what_section_4_2_asks_for_and_no_more() {
    let key = a3_key();
    let uri: Uri = URL.parse().unwrap();
    let bare = Proof::new(&Method::GET, &uri)
        .unwrap()
        .sign_at(&key, NOW, "unique")
        .unwrap();
    assert_eq!(header(&bare), a3_header());
    assert_eq!(
        claims(&bare),
        json!({"jti": "unique", "htm": "GET", "htu": URL, "iat": NOW})
    );

    let full = Proof::new(&Method::GET, &uri)
        .unwrap()
        .access_token(TOKEN)
        .nonce("eyJ7S_zG.eyJH0-Z.HX4w-7v")
        .sign_at(&key, NOW, "e1j3V_bKic8-LAEB")
        .unwrap();
    let vectors = vectors();
    let published = &vectors["project_vectors"]["vectors"];
    let with_nonce = published
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "ok_with_nonce")
        .unwrap();
    assert_eq!(claims(&full), with_nonce["payload"]);
    assert!(!full.contains('=') && full.split('.').count() == 3);
}

#[test]
fn every_character_survives_the_way_into_json() {
    let key = a3_key();
    let uri: Uri = "https://rs.example/q\"uote/back\\slash/é".parse().unwrap();
    let nqchar: String = (0x21..=0x7e_u8)
        .filter(|b| ![b'"', b'\\'].contains(b))
        .map(char::from)
        .collect();
    let long = nqchar.repeat(22);
    for nonce in ["x", &nqchar, &long] {
        let method = Method::from_bytes(b"purge").unwrap();
        let proof = Proof::new(&method, &uri)
            .unwrap()
            .nonce(nonce)
            .sign_at(&key, NOW, "\u{1}\"é")
            .unwrap();
        let claims = claims(&proof);
        assert_eq!(claims["nonce"], *nonce);
        assert_eq!(claims["htm"], "purge", "methods keep their case");
        assert_eq!(claims["htu"], "https://rs.example/q\"uote/back\\slash/é");
        assert_eq!(claims["jti"], "\u{1}\"é");
    }
}

#[test]
fn each_character_alone_survives_the_way_into_json() {
    let key = a3_key();
    let uri = Uri::from_static(URL);
    for byte in 0..=0x7f_u8 {
        let text = format!("a{}b", char::from(byte));
        let proof = Proof::new(&Method::GET, &uri).unwrap().nonce(&text);
        let claims = claims(&proof.sign_at(&key, NOW, &text).unwrap());
        assert_eq!(claims["jti"], text);
        assert_eq!(claims["nonce"], text);
        if let Ok(uri) = Uri::try_from(format!("{URL}/{text}"))
            && uri.path().ends_with(&text)
        {
            let proof = Proof::new(&Method::GET, &uri).unwrap();
            let claims = self::claims(&proof.sign_at(&key, NOW, "1").unwrap());
            assert_eq!(claims["htu"], uri.to_string());
        }
    }
}

#[test]
fn what_is_not_escaped_never_has_to_be() {
    let key = a3_key();
    let claims_of = |method: &Method, uri: &Uri| {
        let proof = Proof::new(method, uri).unwrap();
        claims(&proof.sign_at(&key, NOW, "1").unwrap())
    };
    for byte in 0..=0xff_u8 {
        if let Ok(method) = Method::from_bytes(&[b'a', byte]) {
            let uri = Uri::from_static(URL);
            assert_eq!(claims_of(&method, &uri)["htm"], method.as_str());
        }
        for host in [&[b'a', byte, b'b'][..], &[b'[', byte, b']']] {
            let url = [b"https://", host, b":8443/"].concat();
            if let Ok(uri) = Uri::try_from(url)
                && uri
                    .authority()
                    .is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.port_u16() == Some(8443)
            {
                let htu = claims_of(&Method::GET, &uri)["htu"].clone();
                assert_eq!(htu, uri.to_string().to_lowercase());
            }
        }
    }
}

#[test]
fn a_jti_is_128_bits_and_never_comes_twice() {
    let key = a3_key();
    let uri: Uri = URL.parse().unwrap();
    let proof = Proof::new(&Method::GET, &uri).unwrap();
    let mut seen = HashSet::new();
    for _ in 0..2_000 {
        let signed = proof.sign(&key).unwrap();
        let jti = claims(&signed)["jti"].as_str().unwrap().to_owned();
        assert_eq!(jti.len(), 22, "16 bytes in base64url");
        assert!(seen.insert(jti));
        assert_eq!(
            signed.rsplit('.').next().unwrap().len(),
            86,
            "64 bytes in base64url"
        );
    }
}

#[test]
fn iat_is_the_second_of_the_signature() {
    let now = || {
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs()
    };
    let before = now();
    let proof = Proof::new(&Method::GET, &URL.parse().unwrap())
        .unwrap()
        .sign(&a3_key())
        .unwrap();
    let iat = claims(&proof)["iat"].as_u64().expect("an integer");
    assert!((before..=now()).contains(&iat));
}

#[test]
fn a_uri_without_server_has_no_proof() {
    for uri in ["/pkg.Svc/M", "*"] {
        let error = Proof::new(&Method::POST, &uri.parse().unwrap()).unwrap_err();
        assert!(error.is_missing_origin(), "{uri}: {error}");
    }
    assert!(
        Proof::new(&Method::GET, &"ftp://rs.example/".parse().unwrap())
            .unwrap_err()
            .is_config()
    );
    assert!(
        Proof::new(&Method::GET, &"rs.example:443".parse().unwrap())
            .unwrap_err()
            .is_config()
    );
}

#[test]
fn thumbprint_and_ath_are_the_published_ones() {
    let vectors = vectors();
    assert_eq!(a3_key().thumbprint(), a3_jkt());
    let ath = &vectors["ath"];
    let proof = Proof::new(&Method::GET, &URL.parse().unwrap())
        .unwrap()
        .access_token(ath["access_token"].as_str().unwrap())
        .sign(&a3_key())
        .unwrap();
    assert_eq!(claims(&proof)["ath"], ath["ath"]);
    // The key of the published proofs is known by its public half alone.
    let figure = &vectors["proofs"][0];
    let valid = Check::new(
        &Method::POST,
        "https://server.example.com/token",
        1_562_262_616,
    )
    .verify_proof(figure["jws"].as_str().unwrap())
    .unwrap();
    assert_eq!(valid.thumbprint(), vectors["jkt"]["jkt"]);
}

// What the vectors do not hold, by the numbers of section 4.3 of the RFC.

#[test]
fn v1_exactly_one_header() {
    let proof = honest(json!({}));
    let check = Check::new(&Method::GET, URL, NOW);
    let mut headers = HeaderMap::new();
    assert!(check.verify(&headers).is_err());
    headers.append("dpop", HeaderValue::from_str(&proof).unwrap());
    assert!(check.verify(&headers).is_ok());
    headers.append("DPoP", HeaderValue::from_str(&proof).unwrap());
    assert_eq!(
        check.verify(&headers).unwrap_err().reason(),
        "there is more than one DPoP header"
    );
    headers.insert(
        "dpop",
        HeaderValue::from_str(&format!("{proof}, {proof}")).unwrap(),
    );
    assert!(check.verify(&headers).is_err());
}

#[test]
fn v2_one_well_formed_jwt() {
    assert_eq!(verdict(&honest(json!({}))), Ok(()));
    let good = honest(json!({}));
    let claims_text = claims(&good).to_string();
    let repeated = claims_text.replacen('{', r#"{"htm":"GET","#, 1);
    let nested = a3_header()
        .to_string()
        .replacen(r#""kty""#, r#""kty":"EC","kty""#, 1);
    for bad in [
        String::new(),
        "..".to_owned(),
        format!("{good}.x"),
        format!("{good}.x.y"),
        format!(" {good}"),
        good.replacen('.', "=.", 1),
        sign_jws("[]", &claims_text),
        sign_jws("{", &claims_text),
        sign_jws(&a3_header().to_string(), "\"text\""),
        sign_jws(&a3_header().to_string(), &repeated),
        sign_jws(&nested, &claims_text),
        format!("{good}{}", "A".repeat(20_000)),
    ] {
        assert_eq!(verdict(&bad), Err("invalid_dpop_proof"), "{bad}");
    }
}

#[test]
fn v2_a_proof_has_an_end() {
    let padded = |bytes: usize| honest(json!({"pad": "x".repeat(bytes)}));
    assert_eq!(verdict(&padded(11_000)), Ok(()));
    let long = padded(13_000);
    assert!(long.len() > 16 * 1024);
    let error = Check::new(&Method::GET, URL, NOW)
        .verify_proof(&long)
        .unwrap_err();
    assert_eq!(error.reason(), "the proof is too long");
}

#[test]
fn v3_claims_have_their_types() {
    for change in [
        json!({"jti": 1}),
        json!({"jti": "x".repeat(513)}),
        json!({"htm": ["GET"]}),
        json!({"htu": {}}),
        json!({"iat": null}),
        json!({"iat": true}),
        json!({"nonce": 1}),
        json!({"ath": 1}),
    ] {
        assert_eq!(
            verdict(&honest(change.clone())),
            Err("invalid_dpop_proof"),
            "{change}"
        );
    }
    assert_eq!(verdict(&honest(json!({"jti": "x".repeat(512)}))), Ok(()));
}

#[test]
fn v5_v6_v7_algorithm_key_and_signature_fit() {
    let jwk = a3_jwk();
    let (x, y) = (&jwk["x"], &jwk["y"]);
    for change in [
        json!({"alg": "ES384"}),
        json!({"alg": "RS256"}),
        json!({"alg": "none"}),
        json!({"alg": "es256"}),
        json!({"jwk": {"kty": "EC", "crv": "P-384", "x": x, "y": y}}),
        json!({"jwk": {"kty": "RSA", "crv": "P-256", "x": x, "y": y}}),
        json!({"jwk": {"kty": "EC", "crv": "P-256", "x": x}}),
        json!({"jwk": {"kty": "EC", "crv": "P-256", "x": y, "y": x}}),
        json!({"jwk": {"kty": "EC", "crv": "P-256", "x": format!("{}=", x.as_str().unwrap()), "y": y}}),
        json!({"jwk": {"kty": "EC", "crv": "P-256", "x": x, "y": y, "k": "AA"}}),
        json!({"jwk": "key"}),
        json!({"crit": []}),
    ] {
        assert_eq!(
            verdict(&with_header(change.clone())),
            Err("invalid_dpop_proof"),
            "{change}"
        );
    }
    let other = Proof::new(&Method::GET, &URL.parse().unwrap())
        .unwrap()
        .access_token(TOKEN)
        .sign_at(&DpopKey::generate().unwrap(), NOW, "1")
        .unwrap();
    assert_eq!(
        verdict(&other),
        Err("invalid_token"),
        "a good proof of another key"
    );
}

/// A feature adds algorithms, and changes nothing: who names none has ES256 alone. Those that a feature brings are in
/// `algorithms.rs`.
#[test]
fn v5_the_server_chooses_among_what_can_be_checked() {
    let check = Check::new(&Method::GET, URL, NOW);
    for (accepted, ok) in [(&[Algorithm::Es256][..], true), (&[], false)] {
        let check = check.clone().algorithms(accepted).unwrap();
        assert_eq!(check.verify_proof(&honest(json!({}))).is_ok(), ok);
    }
    let by_feature = [
        Algorithm::Ps256,
        Algorithm::Rs256,
        Algorithm::Ed25519,
        Algorithm::EdDsa,
    ];
    for algorithm in by_feature {
        let accepted = [Algorithm::Es256, algorithm];
        let named = check.clone().algorithms(&accepted);
        if cfg!(any(feature = "aws-lc-rs", feature = "fips")) {
            assert!(named.unwrap().verify_proof(&honest(json!({}))).is_ok());
            continue;
        }
        // Not an API that refuses its clients' proofs for what it lacks itself, and never one that takes them unseen.
        let error = named.unwrap_err();
        assert!(error.is_config(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(algorithm.as_str()) && text.contains("`aws-lc-rs`"),
            "{text}"
        );
        let verdict = verdict(&with_header(json!({"alg": algorithm.as_str()})));
        assert_eq!(verdict, Err("invalid_dpop_proof"));
    }
}

#[test]
fn v10_nonces() {
    let known = ["one".to_owned(), "two".to_owned()];
    let check = Check::new(&Method::GET, URL, NOW).nonces(&known);
    for (nonce, ok) in [
        (json!("one"), true),
        (json!("two"), true),
        (json!("three"), false),
        (Value::Null, false),
    ] {
        let result = check.verify_proof(&honest(json!({"nonce": nonce})));
        assert_eq!(result.is_ok(), ok, "{nonce}");
        if let Err(error) = result {
            assert_eq!(error.code(), "use_dpop_nonce");
        }
    }
    let valid = Check::new(&Method::GET, URL, NOW).verify_proof(&honest(json!({"nonce": "any"})));
    assert_eq!(valid.unwrap().nonce(), Some("any"));
}

#[test]
fn v11_time_window() {
    for (iat, ok) in [
        (json!(NOW), true),
        (json!(NOW - 60), true),
        (json!(NOW - 61), false),
        (json!(NOW + 8), true),
        (json!(NOW + 10), true),
        (json!(NOW + 11), false),
        (json!(-1), false),
        (json!(1e300), false),
        (json!(u64::MAX), false),
    ] {
        assert_eq!(verdict(&honest(json!({"iat": iat}))).is_ok(), ok, "{iat}");
    }
    let minute = std::time::Duration::from_secs(60);
    let wide = Check::new(&Method::GET, URL, NOW).window(minute * 5, minute * 5);
    assert!(
        wide.verify_proof(&honest(json!({"iat": NOW + 299})))
            .is_ok()
    );
    assert!(
        wide.verify_proof(&honest(json!({"iat": NOW - 301})))
            .is_err()
    );
}

#[test]
fn whether_a_token_was_meant_shows() {
    let check = Check::new(&Method::GET, URL, NOW);
    assert!(check.verify_proof(&honest(json!({}))).unwrap().has_ath());
    assert!(
        !check
            .verify_proof(&honest(json!({"ath": null})))
            .unwrap()
            .has_ath()
    );
}
