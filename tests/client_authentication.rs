//! How a client shows who it is: `private_key_jwt` (RFC 7523; T13), and a way of one's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::HashSet,
    future,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};
use serde_json::{Value, json};
use support::{a3_key, claims, header};
use tower_dpop::{
    BoxError, DpopKey, Error, PrivateKeyJwt,
    oauth::{Authenticating, AuthenticationContext, ClientAuthentication, Credentials},
};

const CLIENT: &str = "m2m.dpop";
const ENDPOINT: &str = "https://as.example.com/token";
const ISSUER: &str = "https://as.example.com/tenant";
const NOW: u64 = 1_752_000_000;

/// A request of which all is known, at a time that is not this machine's.
fn request() -> AuthenticationContext<'static> {
    AuthenticationContext::new(CLIENT, ENDPOINT)
        .with_issuer(ISSUER)
        .with_thumbprint("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I")
        .with_now(UNIX_EPOCH + Duration::from_secs(NOW) + Duration::from_millis(999))
}

async fn ask(
    authentication: &impl ClientAuthentication,
    request: &AuthenticationContext<'_>,
) -> Result<String, BoxError> {
    let credentials = authentication.authenticate(request).await?;
    assert_eq!(
        credentials.get("client_assertion_type"),
        Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
    );
    assert!(
        credentials.authorization_header().is_none(),
        "T3: one way only"
    );
    assert_eq!(credentials.get("client_secret"), None);
    Ok(credentials.get("client_assertion").unwrap().to_owned())
}

async fn assertion(authentication: &PrivateKeyJwt) -> String {
    ask(authentication, &request()).await.unwrap()
}

/// By the public key alone, with another crate than the one that signed.
fn verifies(jwt: &str, jwk: &str) -> bool {
    let jwk: Value = serde_json::from_str(jwk).unwrap();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (input, signature) = jwt.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(signature.len(), 64, "r and s, 32 bytes each");
    let signature = Signature::from_slice(&signature).unwrap();
    let key = VerifyingKey::from_sec1_bytes(&point).unwrap();
    key.verify(input.as_bytes(), &signature).is_ok()
}

#[tokio::test]
async fn an_assertion_says_what_rfc_7523_asks_for_and_no_more() {
    let key = a3_key();
    let jwt = assertion(&PrivateKeyJwt::new(key.clone())).await;
    assert!(verifies(&jwt, key.public_jwk()));
    assert!(!verifies(&jwt, DpopKey::generate().unwrap().public_jwk()));
    assert_eq!(header(&jwt), json!({"typ": "JWT", "alg": "ES256"}));
    let mut claims = claims(&jwt);
    let jti = URL_SAFE_NO_PAD
        .decode(claims["jti"].take().as_str().unwrap())
        .unwrap();
    assert_eq!(jti.len(), 16, "128 bits");
    // `aud` is one text, and the seconds are whole: by the server's clock, not by ours.
    let expected = json!({
        "iss": CLIENT, "sub": CLIENT, "aud": ISSUER, "iat": NOW, "exp": NOW + 60, "jti": null,
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn what_was_asked_for_is_said() {
    let key = a3_key();
    let authentication = PrivateKeyJwt::new(key.clone())
        .key_id("k\"1\\ü")
        .explicit_type()
        .confirm_key()
        .claim("org", "first")
        .claim("org", "ünïcode \"quoted\"");
    let jwt = assertion(&authentication).await;
    assert!(verifies(&jwt, key.public_jwk()));
    let expected = json!({"typ": "client-authentication+jwt", "alg": "ES256", "kid": "k\"1\\ü"});
    assert_eq!(header(&jwt), expected);
    let claims = claims(&jwt);
    assert_eq!(claims["org"], "ünïcode \"quoted\"", "the last one counts");
    // The key that proves the request, not the one that signs here.
    let jkt = request().thumbprint();
    assert_ne!(jkt, key.thumbprint());
    assert_eq!(claims["cnf"], json!({ "jkt": jkt }));
    assert_eq!(claims.as_object().unwrap().len(), 8, "{claims}");
}

#[tokio::test]
async fn an_assertion_is_for_one_server() {
    let key = a3_key();
    let nobody = AuthenticationContext::new(CLIENT, ENDPOINT);
    for (authentication, known, unknown) in [
        (PrivateKeyJwt::new(key.clone()), ISSUER, None),
        (
            PrivateKeyJwt::new(key.clone()).endpoint_as_audience(),
            ENDPOINT,
            Some(ENDPOINT),
        ),
        (
            PrivateKeyJwt::new(key).audience("urn:as"),
            "urn:as",
            Some("urn:as"),
        ),
    ] {
        assert_eq!(claims(&assertion(&authentication).await)["aud"], known);
        match (ask(&authentication, &nobody).await, unknown) {
            (Ok(jwt), Some(audience)) => assert_eq!(claims(&jwt)["aud"], audience),
            (Err(error), None) => {
                let error = Error::find(&*error).unwrap();
                assert!(error.is_config());
                assert!(
                    error.to_string().contains("`PrivateKeyJwt::audience`"),
                    "{error}"
                );
            }
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn no_two_attempts_share_an_assertion() {
    let authentication = PrivateKeyJwt::new(a3_key());
    let mut ids = HashSet::new();
    for _ in 0..1000 {
        let jwt = assertion(&authentication.clone()).await;
        assert!(ids.insert(claims(&jwt)["jti"].as_str().unwrap().to_owned()));
    }
}

#[tokio::test]
async fn claims_that_an_assertion_has_anyway_are_refused() {
    for name in ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "cnf", ""] {
        let authentication = PrivateKeyJwt::new(a3_key()).claim(name, "v4lue");
        let error = ask(&authentication, &request()).await.unwrap_err();
        let error = Error::find(&*error).unwrap();
        assert!(error.is_config(), "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("v4lue"));
    }
}

#[tokio::test]
async fn nothing_secret_shows() {
    let pem = a3_key().to_pkcs8_pem().unwrap();
    let authentication = PrivateKeyJwt::new(a3_key())
        .key_id("kid-1")
        .claim("org", "v4lue");
    let shown = format!("{authentication:?} {authentication:#?}");
    assert!(shown.contains("kid-1") && shown.contains("org"), "{shown}");
    assert!(!shown.contains("v4lue"), "{shown}");
    for line in pem.lines() {
        assert!(!shown.contains(line), "{shown}");
    }
    let credentials = authentication.authenticate(&request()).await.unwrap();
    let assertion = credentials.get("client_assertion").unwrap();
    assert!(!format!("{credentials:?} {credentials:#?}").contains(assertion));
}

/// As a KMS would do it: it knows of the request what it has to know, and may fail.
#[tokio::test]
async fn a_way_of_ones_own() {
    struct Own;

    impl ClientAuthentication for Own {
        fn authenticate<'a>(
            &'a self,
            request: &'a AuthenticationContext<'a>,
        ) -> Authenticating<'a> {
            let answer = match request.issuer() {
                Some(issuer) => Ok(Credentials::new()
                    .parameter("proof_of", format!("{} {issuer}", request.client_id()))
                    .parameter("to", request.endpoint())
                    .parameter("to", request.thumbprint())
                    .authorization(HeaderValue::from_static("Own s3cret"))),
                None => Err("no issuer".into()),
            };
            Box::pin(future::ready(answer))
        }
    }

    let credentials = Own.authenticate(&request()).await.unwrap();
    let proof_of = format!("{CLIENT} {ISSUER}");
    assert_eq!(credentials.get("proof_of"), Some(&*proof_of));
    assert_eq!(
        credentials.get("to"),
        Some(request().thumbprint()),
        "the last one"
    );
    assert!(credentials.authorization_header().unwrap().is_sensitive());
    let shown = format!("{credentials:?}");
    assert!(shown.contains("proof_of") && !shown.contains(ISSUER) && !shown.contains("s3cret"));
    let unknown = AuthenticationContext::new(CLIENT, ENDPOINT);
    let error = Own.authenticate(&unknown).await.unwrap_err();
    assert_eq!(error.to_string(), "no issuer");
}
