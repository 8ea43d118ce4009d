//! What is asked: URL, form, and what cannot be asked for.

use proptest::prelude::*;

use super::*;

/// RFC 7636, appendix B.
#[test]
fn pkce_is_that_of_the_rfc() {
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(
        pkce::challenge(verifier),
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
}

#[test]
fn what_must_not_be_guessed_is_new_each_time_and_long() {
    let (one, other) = (
        begin(AuthorizationRequest::new(REDIRECT).openid_nonce()),
        begin(AuthorizationRequest::new(REDIRECT).openid_nonce()),
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(parameter(one.url(), name), parameter(other.url(), name));
    }
    assert_eq!(
        (one.state().len(), one.nonce().unwrap().len()),
        (22, 22),
        "128 bits"
    );
    assert_eq!(one.state(), parameter(one.url(), "state"));
    assert_eq!(one.nonce().unwrap(), parameter(one.url(), "nonce"));
    let verifier = |pending: &PendingAuthorization| {
        let answer = answer(&format!("code=c&state={}", pending.state()));
        pending
            .answered(&answer)
            .unwrap()
            .get("code_verifier")
            .to_owned()
    };
    let challenge = parameter(one.url(), "code_challenge");
    let (one, other) = (verifier(&one), verifier(&other));
    assert_ne!(one, other);
    assert_eq!(one.len(), 43, "256 bits");
    assert!(
        one.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    );
    assert_eq!(
        pkce::challenge(&one),
        challenge,
        "the challenge is that of the verifier"
    );
    assert_eq!(pending().nonce(), None);
}

/// C28: `dpop_jkt` is the thumbprint of RFC 7638, in the URL and in what is pushed.
#[test]
fn c28_the_key_is_promised_in_dpop_jkt() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let key = &vectors["rfc7515_A3_es256"];
    let jkt = key["jkt"].as_str().unwrap();
    let key = DpopKey::from_bytes(key["jwk"].to_string(), None).unwrap();
    let pending = begun(request(), &server(), &key).unwrap();
    assert_eq!(parameter(pending.url(), "dpop_jkt"), jkt);
    assert_eq!(pending.pushed_form().get("dpop_jkt"), Some(jkt));
    assert_eq!(
        pending.answered(&good()).unwrap().thumbprint().unwrap(),
        jkt
    );
}

#[test]
fn the_url_is_what_rfc_6749_asks_for() {
    let request = request()
        .scope("first")
        .scope("openid orders:read")
        .resource("https://api.example.com/a?b=c&d")
        .resource("urn:example:api")
        .parameter("login_hint", "a+b @é%2B&=#")
        .parameter("prompt", "");
    let pending = begin(request).unwrap();
    let challenge = parameter(pending.url(), "code_challenge");
    let jkt = parameter(pending.url(), "dpop_jkt");
    let expected = format!(
        "https://as.example.com/authorize?response_type=code&client_id=web%20app\
         &redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback&state=st4te-st4te&code_challenge={challenge}\
         &code_challenge_method=S256&dpop_jkt={jkt}&scope=openid%20orders%3Aread\
         &resource=https%3A%2F%2Fapi.example.com%2Fa%3Fb%3Dc%26d&resource=urn%3Aexample%3Aapi\
         &login_hint=a%2Bb%20%40%C3%A9%252B%26%3D%23&prompt="
    );
    assert_eq!(pending.url(), expected);
    assert_eq!(parameter(pending.url(), "login_hint"), "a+b @é%2B&=#");
    // What is pushed is the same.
    let pushed = pending.pushed_form();
    let pushed: Vec<_> = pushed
        .pairs()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(parameters(pending.url()), pushed);
}

/// RFC 6749, section 3.1.
#[test]
fn an_endpoints_query_is_kept() {
    for (endpoint, start) in [
        (
            "https://as.example.com/authorize?p=B2C_1%20x",
            "https://as.example.com/authorize?p=B2C_1%20x&response_type=code&",
        ),
        (
            "https://as.example.com/authorize?p=1&",
            "https://as.example.com/authorize?p=1&response_type=code&",
        ),
        (
            "https://as.example.com/authorize?",
            "https://as.example.com/authorize?response_type=code&",
        ),
        (
            "https://as.example.com",
            "https://as.example.com?response_type=code&",
        ),
    ] {
        let server = ServerMetadata::new(ISSUER).with_authorization_endpoint(endpoint);
        let mut pending = begun(request(), &server, &DpopKey::generate().unwrap()).unwrap();
        assert!(pending.url().starts_with(start), "{}", pending.url());
        pending.was_pushed(CLIENT, "urn:ietf:params:oauth:request_uri:6esc+11&%");
        let pushed = format!(
            "{}client_id=web%20app&request_uri=urn%3Aietf%3Aparams%3Aoauth%3Arequest_uri%3A6esc%2B11%26%25",
            start.trim_end_matches("response_type=code&")
        );
        assert_eq!(pending.url(), pushed, "after it was pushed, nothing else");
        assert_eq!(pending.state(), STATE);
        still_open(&pending);
    }
}

#[test]
fn an_endpoint_that_cannot_be_used_is_refused() {
    for (endpoint, why) in [
        ("https://as.example.com/authorize#x", "fragment"),
        (
            "https://user:pw@as.example.com/authorize",
            "user information",
        ),
        (
            "https://as.example.com:99999/authorize?pw=1",
            "check scheme, host and port",
        ),
        ("as.example.com/authorize", "the authorization endpoint"),
        ("ftp://as.example.com/authorize", "HTTP"),
        (
            "https://as.example.com/authorize?client_id=x",
            "`client_id` already",
        ),
        (
            "https://as.example.com/authorize?st%61te=x",
            "`state` already",
        ),
        (
            "https://as.example.com/authorize?request_uri=x",
            "`request_uri` already",
        ),
    ] {
        let server = ServerMetadata::new(ISSUER).with_authorization_endpoint(endpoint);
        let error = begun(request(), &server, &DpopKey::generate().unwrap()).unwrap_err();
        assert!(
            error.is_config() && error.to_string().contains(why),
            "{endpoint}: {error}"
        );
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    let error = begun(
        request(),
        &ServerMetadata::new(ISSUER),
        &DpopKey::generate().unwrap(),
    )
    .unwrap_err();
    assert!(
        error.is_config() && error.to_string().contains("`authorization_endpoint`"),
        "{error}"
    );

    let plain =
        ServerMetadata::new(ISSUER).with_authorization_endpoint("http://as.example.com/authorize");
    assert!(
        begun(request(), &plain, &DpopKey::generate().unwrap())
            .unwrap_err()
            .is_insecure_http()
    );
    let allowed = DpopLayer::new(DpopKey::generate().unwrap()).danger_allow_plain_http();
    assert!(request().begin(&plain, CLIENT, allowed.prover()).is_ok());
}

#[test]
fn a_redirect_uri_is_absolute_and_has_no_fragment() {
    for good in [
        "https://app.example.com",
        "https://app.example.com/cb?tenant=1",
        "http://127.0.0.1:8123/cb",
        "http://[::1]:8123/cb",
        "http://localhost/cb",
        "com.example.app:/callback",
        "com.example.app://callback",
    ] {
        assert!(begin(AuthorizationRequest::new(good)).is_ok(), "{good}");
    }
    for bad in [
        "",
        "/callback",
        "app.example.com/callback",
        "https:/callback",
        "https://",
        "https://app.example.com:99999/",
        "https://app.example.com/#",
        "https://app.example.com/#fragment",
        "https://app.example.com/a b",
        "https://app.example.com/é",
        "https://user:pw@app.example.com/cb",
        "https://app.example.com/cb?code=x",
        "https://app.example.com/cb?a=b&st%61te=x",
        "com.example.app:/callback?iss",
    ] {
        let error = begin(AuthorizationRequest::new(bad)).expect_err(bad);
        assert!(
            error.is_config() && error.to_string().contains("redirect URI"),
            "{bad}: {error}"
        );
        assert!(!error.to_string().contains("pw"), "{error}");
    }
    let plain = AuthorizationRequest::new("HTTP://app.example.com/cb");
    assert!(begin(plain).unwrap_err().is_insecure_http());
}

#[test]
fn what_this_crate_writes_itself_is_refused() {
    for name in RESERVED.into_iter().chain([""]) {
        let error = begin(request().parameter(name, "v4lue")).expect_err(name);
        assert!(error.is_config(), "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("v4lue"), "{error}");
    }
    for (bad, why) in [
        (
            request().parameter("prompt", "a").parameter("prompt", "b"),
            "twice",
        ),
        (
            request().openid_nonce().parameter("nonce", "n"),
            "`nonce` stands twice",
        ),
        (
            request().parameter("scope", "a").parameter("scope", "b"),
            "twice",
        ),
        (request().resource("/api"), "RFC 8707"),
        (
            request().parameter("resource", "https://a.example#b"),
            "RFC 8707",
        ),
        (
            request().parameter("response_mode", "fragment"),
            "response_mode",
        ),
        (
            request().parameter("response_mode", "query.jwt"),
            "response_mode",
        ),
        (request().state(""), "`state` is empty"),
        (request().state("é"), "`state`"),
        (request().state("a\nb"), "`state`"),
    ] {
        let error = begin(bad).unwrap_err();
        assert!(
            error.is_config() && error.to_string().contains(why),
            "{error}"
        );
    }
    let own = begin(
        request()
            .parameter("nonce", "my own")
            .parameter("response_mode", "form_post"),
    )
    .unwrap();
    assert_eq!((own.nonce(), own.state()), (Some("my own"), STATE));
}

#[test]
fn nothing_secret_shows() {
    let request = AuthorizationRequest::new("https://app.example.com/callback?s3cret=1")
        .state(STATE)
        .parameter("login_hint", "h1nt");
    let pending = begin(request.clone()).unwrap();
    let challenge = parameter(pending.url(), "code_challenge");
    let code = pending
        .answered(&answer(&format!("code={CODE}&state={STATE}")))
        .unwrap();
    let shown = format!("{request:?} {request:#?} {pending:?} {pending:#?} {code:?}");
    assert!(
        shown.contains("login_hint") && shown.contains(REDIRECT) && shown.contains(ISSUER),
        "{shown}"
    );
    for secret in [
        STATE,
        CODE,
        code.get("code_verifier"),
        &challenge,
        "h1nt\"",
        "s3cret",
    ] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
    }
}

proptest! {
    /// Against another reader of forms than ours.
    #[test]
    fn any_value_reaches_the_server_and_comes_back(value in any::<String>(), visible in "[ -~]{1,40}") {
        let pending = begin(AuthorizationRequest::new(REDIRECT).state(visible.as_str()).parameter("x", value.as_str())).unwrap();
        prop_assert!(pending.url().bytes().all(|b| b.is_ascii_graphic()));
        prop_assert_eq!(parameter(pending.url(), "x"), value);
        prop_assert_eq!(parameter(pending.url(), "state"), visible.as_str());
        let pairs = [("code", visible.as_str()), ("state", visible.as_str())];
        let as_form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let code = pending.answered(&answer(&as_form)).unwrap();
        prop_assert_eq!(code.get("code"), visible);
    }

    /// Whatever another program takes for the same redirect URI.
    #[test]
    fn no_request_panics(redirect_uri in any::<String>(), name in any::<String>(), value in any::<String>()) {
        let _ = begin(AuthorizationRequest::new(redirect_uri.as_str()));
        let _ = begin(AuthorizationRequest::new(format!("https://{redirect_uri}")));
        let _ = begin(request().parameter(name.as_str(), value.as_str()).state(value));
    }
}

#[test]
fn a_server_that_does_not_know_s256_is_not_asked() {
    for (methods, known) in [
        (r#"["plain","S256"]"#, true),
        (r#"["plain"]"#, false),
        ("[]", false),
        ("null", true),
    ] {
        let json = format!(
            r#"{{"issuer":"https://as.example.com","authorization_endpoint":"https://as.example.com/authorize",
                "code_challenge_methods_supported":{methods}}}"#
        );
        let server = ServerMetadata::from_json("https://as.example.com", json.as_bytes()).unwrap();
        match begun(request(), &server, &DpopKey::generate().unwrap()) {
            Ok(_) => assert!(known, "{methods}"),
            Err(error) => assert!(!known && error.is_metadata(), "{methods}: {error}"),
        }
    }
}
