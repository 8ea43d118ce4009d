use serde_json::json;

use super::*;

const ISSUER: &str = "https://as.example.com";

fn read(json: serde_json::Value) -> ServerMetadata {
    ServerMetadata::from_json(ISSUER, json.to_string().as_bytes()).expect("metadata")
}

#[test]
fn t17_a_client_with_a_certificate_goes_to_the_alias_if_there_is_one() {
    // The document of RFC 8705, section 5, and an endpoint that it has no alias for.
    let metadata = read(json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://server.example.com/authz",
        "token_endpoint": "https://server.example.com/token",
        "introspection_endpoint": "https://server.example.com/introspect",
        "revocation_endpoint": "https://server.example.com/revo",
        "pushed_authorization_request_endpoint": "https://server.example.com/par",
        "tls_client_auth_subject_dn": 1,
        "mtls_endpoint_aliases": {
            "token_endpoint": "https://mtls.example.com/token",
            "revocation_endpoint": "https://mtls.example.com/revo",
            "introspection_endpoint": "https://mtls.example.com/introspect",
            "device_authorization_endpoint": "https://mtls.example.com/device",
        },
    }));
    for (endpoint, plain, mtls) in [
        (
            Endpoint::Token,
            Some("https://server.example.com/token"),
            "https://mtls.example.com/token",
        ),
        (
            Endpoint::PushedAuthorizationRequest,
            Some("https://server.example.com/par"),
            "https://server.example.com/par",
        ),
        (
            Endpoint::DeviceAuthorization,
            None,
            "https://mtls.example.com/device",
        ),
        (
            Endpoint::Revocation,
            Some("https://server.example.com/revo"),
            "https://mtls.example.com/revo",
        ),
        (
            Endpoint::Introspection,
            Some("https://server.example.com/introspect"),
            "https://mtls.example.com/introspect",
        ),
    ] {
        assert_eq!(metadata.endpoint(endpoint, false), plain);
        assert_eq!(metadata.endpoint(endpoint, true), Some(mtls));
    }
}

#[test]
fn c27_an_algorithm_that_the_server_does_not_list_is_refused() {
    let with = |list: &[&str]| {
        ServerMetadata::new(ISSUER).with_dpop_signing_alg_values_supported(list.to_vec())
    };
    let unknown = ServerMetadata::new(ISSUER);
    for fits in [unknown, with(&["ES256"]), with(&["EdDSA", "ES256", "x"])] {
        assert!(
            fits.check_algorithm(Algorithm::Es256, &[Algorithm::Es256])
                .is_ok()
        );
    }
    for (theirs, shown) in [
        (&["RS256", "EdDSA"][..], "RS256, EdDSA"),
        (&["es256"], "es256"),
        (&["ES256 "], "ES256 "),
        (&["ES256,ES384"], "ES256,ES384"),
        (&[""], "are: "),
        (&[], "none at all"),
        (&["a\r\nb"], "a??b"),
    ] {
        let error = with(theirs)
            .check_algorithm(Algorithm::Es256, &[Algorithm::Es256])
            .expect_err("refused");
        assert!(error.is_algorithm() && error.is_permanent(), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("signs with ES256") && text.contains(shown),
            "{text}"
        );
    }
    // A key with another algorithm that fits.
    let listed = with(&["EdDSA", "RS256"]);
    for (own, other) in [(Algorithm::Ed25519, "EdDSA"), (Algorithm::Ps256, "RS256")] {
        let text = listed
            .check_algorithm(own, &[own, Algorithm::named(other).unwrap()])
            .expect_err("refused")
            .to_string();
        let advice = format!("`DpopKey::with_algorithm` lets the same key sign with {other}");
        assert!(text.contains(&advice), "{text}");
    }
    let none =
        with(&["ES256"]).check_algorithm(Algorithm::EdDsa, &[Algorithm::EdDsa, Algorithm::Ed25519]);
    assert!(
        !none
            .expect_err("refused")
            .to_string()
            .contains("with_algorithm")
    );
    // A key that is for PSS alone.
    let pss = listed.check_algorithm(Algorithm::Ps256, &[Algorithm::Ps256]);
    let text = pss.expect_err("refused").to_string();
    assert!(!text.contains("with_algorithm"), "{text}");
    let many = with(&["x"; 1000]).check_algorithm(Algorithm::Es256, &[Algorithm::Es256]);
    assert!(many.expect_err("refused").to_string().len() < 600);
}

#[test]
fn what_a_program_wrote_is_checked_when_it_is_used() {
    let good = ServerMetadata::new(ISSUER).with_token_endpoint("https://as.example.com/token");
    assert!(good.check(PlainHttp::Loopback).is_ok());
    let only = ServerMetadata::token_endpoint_only("https://as.example.com/token");
    assert!(only.check(PlainHttp::Loopback).is_ok());
    assert_eq!(
        (only.issuer(), only.token_endpoint()),
        (None, good.token_endpoint())
    );

    let plain = good
        .clone()
        .with_revocation_endpoint("http://as.example.com/revoke");
    let error = plain.check(PlainHttp::Loopback).expect_err("plain");
    assert!(error.is_insecure_http(), "{error}");
    assert!(error.to_string().contains("revocation_endpoint"), "{error}");
    assert!(plain.check(PlainHttp::Anywhere).is_ok());
    let at_home = ServerMetadata::new("http://localhost:8080");
    assert!(at_home.check(PlainHttp::Loopback).is_ok());

    for bad in [
        ServerMetadata::new("https://as.example.com?x"),
        good.clone().with_authorization_endpoint("/authorize"),
        good.clone()
            .with_token_endpoint("https://u:s3cret@as.example.com/token"),
        good.clone().with_introspection_endpoint(""),
    ] {
        for plain in [PlainHttp::Loopback, PlainHttp::Anywhere] {
            let error = bad.check(plain).expect_err("refused");
            assert!(error.is_config(), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
