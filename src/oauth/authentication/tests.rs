use std::time::{Duration, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_test::block_on;

use super::{assertion::hs256, *};
use crate::Error;

const ENDPOINT: &str = "https://as.example.com/token";
const ISSUER: &str = "https://as.example.com";

fn credentials(authentication: &impl ClientAuthentication, id: &str) -> Credentials {
    let request = AuthenticationContext::new(id, ENDPOINT);
    block_on(authentication.authenticate(&request)).unwrap()
}

/// The part of a JWT with the number `number`.
fn part(jwt: &str, number: usize) -> Vec<u8> {
    let part = jwt.split('.').nth(number).unwrap();
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// RFC 2104, written down once more.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new_with_prefix(padded(0x36)).chain_update(message);
    let outer = Sha256::new_with_prefix(padded(0x5c)).chain_update(inner.finalize());
    outer.finalize().to_vec()
}

#[test]
fn hs256_is_that_of_rfc_7515() {
    let key = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let input = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
                 Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let code = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let ours = hs256(&key, input.as_bytes()).unwrap();
    assert_eq!(URL_SAFE_NO_PAD.encode(ours), code);
    // So the formula that checks the others is right, too.
    assert_eq!(
        URL_SAFE_NO_PAD.encode(hmac_sha256(&key, input.as_bytes())),
        code
    );
}

#[test]
fn a_secret_of_any_length_signs_and_does_not_leave() {
    for secret in ["s", "a secret of 256 bits, or more…", &"long ".repeat(40)] {
        let credentials = credentials(&ClientSecretJwt::new(secret), "m2m.dpop");
        let jwt = credentials.get("client_assertion").unwrap();
        let (input, _) = jwt.rsplit_once('.').unwrap();
        assert_eq!(
            part(jwt, 2),
            hmac_sha256(secret.as_bytes(), input.as_bytes())
        );
        let header: Value = serde_json::from_slice(&part(jwt, 0)).unwrap();
        assert_eq!(header, json!({"typ": "JWT", "alg": "HS256"}));
        assert_eq!(
            credentials.parameters.len(),
            2,
            "the type and the assertion"
        );
        assert!(credentials.authorization.is_none());
    }
}

#[test]
fn an_assertion_by_the_secret_is_for_the_issuer_or_else_for_the_endpoint() {
    let now = UNIX_EPOCH + Duration::from_millis(1_000_999);
    let unknown = AuthenticationContext::new("m2m.dpop", ENDPOINT).with_now(now);
    let known = unknown.clone().with_issuer(ISSUER);
    let authentication = ClientSecretJwt::new("secret");
    let mut ids = Vec::new();
    for (request, audience) in [
        (unknown, ENDPOINT),
        (known.clone(), ISSUER),
        (known, ISSUER),
    ] {
        let credentials = block_on(authentication.authenticate(&request)).unwrap();
        let jwt = credentials.get("client_assertion").unwrap();
        let mut claims: Value = serde_json::from_slice(&part(jwt, 1)).unwrap();
        ids.push(claims["jti"].take());
        let expected = json!({
            "iss": "m2m.dpop", "sub": "m2m.dpop", "aud": audience, "jti": null, "iat": 1000, "exp": 1060,
        });
        assert_eq!(claims, expected);
    }
    assert!(
        ids.iter().all(Value::is_string) && ids[1] != ids[2],
        "{ids:?}"
    );
}

/// T2: RFC 6749, section 2.3.1 and appendix B.
#[test]
fn id_and_secret_are_form_urlencoded_before_base64() {
    for (id, secret, pair) in [
        ("m2m.dpop", "secret", "m2m.dpop:secret"),
        ("a:b", "a:b c/+%", "a%3Ab:a%3Ab+c%2F%2B%25"),
        ("ä", "€&=", "%C3%A4:%E2%82%AC%26%3D"),
    ] {
        let credentials = credentials(&ClientSecretBasic::new(secret), id);
        assert!(credentials.parameters.is_empty());
        let header = credentials.authorization_header().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header, &format!("Basic {}", STANDARD.encode(pair)));
    }
}

#[test]
fn a_secret_in_the_form_is_not_encoded_yet() {
    let credentials = credentials(&ClientSecretPost::new("a:b c/+%"), "m2m.dpop");
    assert_eq!(credentials.get("client_secret"), Some("a:b c/+%"));
    assert_eq!(credentials.parameters.len(), 1);
    assert!(credentials.authorization.is_none());
}

#[test]
fn what_is_sent_is_known_as_a_secret_and_shown_by_nobody() {
    const SECRET: &str = "s3 cret";
    let basic = ClientSecretBasic::new(SECRET);
    let post = ClientSecretPost::new(SECRET);
    let jwt = ClientSecretJwt::new(SECRET);
    let sent = STANDARD.encode("m2m.dpop:s3+cret");
    let header = credentials(&basic, "m2m.dpop");
    let hidden: Vec<_> = header.hidden().collect();
    assert!(hidden.iter().any(|known| **known == sent), "as it is sent");
    assert!(
        hidden.iter().any(|known| **known == SECRET),
        "as a server may read it"
    );
    let form = credentials(&post, "m2m.dpop");
    let assertion = credentials(&jwt, "m2m.dpop");
    assert_eq!(form.hidden().count(), 0, "all in the form");
    let hidden: Vec<_> = assertion.hidden().collect();
    assert!(
        hidden.iter().any(|known| **known == SECRET),
        "as the server knows it"
    );
    let shown = format!("{header:?} {form:?} {assertion:?} {basic:?} {post:?} {jwt:?}");
    assert!(shown.contains("client_secret"), "{shown}");
    let jwt = assertion.get("client_assertion").unwrap();
    for secret in ["s3", &sent, jwt] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[test]
fn an_empty_secret_is_none() {
    let refused = |checked: Result<(), Error>| checked.is_err_and(|error| error.is_config());
    assert!(refused(ClientSecretBasic::new("").check()));
    assert!(refused(ClientSecretPost::new("").check()));
    assert!(refused(ClientSecretJwt::new("").check()));
    assert!(ClientSecretBasic::new("s").check().is_ok());
    assert!(ClientSecretPost::new("s").check().is_ok());
    assert!(ClientSecretJwt::new("s").check().is_ok());
}

#[test]
fn what_cannot_be_used_is_refused_before_the_first_request() {
    let key = crate::DpopKey::generate().unwrap();
    let assertion = || PrivateKeyJwt::new(key.clone());
    assert!(
        assertion()
            .key_id("1")
            .audience("a")
            .claim("org", "")
            .check()
            .is_ok()
    );
    for bad in [
        assertion().key_id(""),
        assertion().audience(""),
        assertion().claim("", "x"),
        assertion().claim("aud", "x"),
    ] {
        assert!(bad.check().is_err_and(|error| error.is_config()), "{bad:?}");
    }
}
