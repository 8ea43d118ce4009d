//! What is answered: what is believed of it, and what a wrong answer costs.

use std::sync::{Arc, Barrier};

use proptest::prelude::*;

use super::*;

#[test]
fn an_answer_may_come_as_a_url_as_path_and_query_or_as_query() {
    let query = "?code=c%2B+%25%C3&state=st4te-st4te".replace("%C3", "x");
    for (redirect_uri, redirects) in [
        (
            REDIRECT,
            vec![
                "https://app.example.com/callback",
                "HTTPS://App.Example.com:443/callback",
                "/callback",
                "",
            ],
        ),
        (
            "https://app.example.com",
            vec![
                "https://app.example.com",
                "https://app.example.com/",
                "/",
                "",
            ],
        ),
        (
            "http://127.0.0.1:8123/cb",
            vec!["http://127.0.0.1:8123/cb", "/cb", ""],
        ),
        (
            "http://[::1]:8123/cb?own=1&own=2",
            vec!["http://[::1]:8123/cb", "/cb", ""],
        ),
        (
            "com.example.app:/callback",
            vec![
                "com.example.app:/callback",
                "COM.example.app:/callback",
                "/callback",
                "",
            ],
        ),
        (
            "com.example.app://host/callback",
            vec!["com.example.app://host/callback", "/callback", ""],
        ),
    ] {
        for redirect in redirects {
            for end in ["", "&session_state=x&session_state=y", "#_=_", "#state=x"] {
                let redirect = format!("{redirect}{query}{end}");
                let pending = begin(AuthorizationRequest::new(redirect_uri).state(STATE)).unwrap();
                let code = pending.answered(&redirect).expect(&redirect);
                assert_eq!(code.get("code"), "c+ %x");
                assert_eq!(code.get("redirect_uri"), redirect_uri);
            }
        }
    }
    still_open(&pending());
    // As a form, or what a framework has cut off already.
    assert_eq!(
        pending()
            .answered("state=st4te-st4te&iss=https://as.example.com/tenant&code=a?b:c")
            .unwrap()
            .get("code"),
        "a?b:c"
    );
    assert_eq!(
        pending()
            .answered("c%6Fde=x&%73tate=st4te%2dst4te")
            .unwrap()
            .get("code"),
        "x"
    );
}

#[test]
fn what_came_elsewhere_is_not_the_answer() {
    let pending = pending();
    let query = format!("?code={CODE}&state={STATE}");
    for place in [
        "https://app.example.com/callback/",
        "https://app.example.com/Callback",
        "https://app.example.com/",
        "https://app.example.com:8443/callback",
        "https://app.example.com.evil.example/callback",
        "https://evil.example/callback",
        "http://app.example.com/callback",
        "com.example.app:/callback",
        "app.example.com:443/callback",
        "//app.example.com/callback",
        "/",
        "/favicon.ico",
        "/callback/../callback",
        "/callbac%6b",
    ] {
        not_ours(
            &pending,
            &format!("{place}{query}"),
            "did not come to the `redirect_uri`",
        );
    }
    let app =
        begin(AuthorizationRequest::new("com.example.app://host/callback").state(STATE)).unwrap();
    for place in [
        "com.example.app://Host/callback",
        "com.example.app:/callback",
        "com.example.other://host/callback",
        "https://host/callback",
    ] {
        not_ours(
            &app,
            &format!("{place}{query}"),
            "did not come to the `redirect_uri`",
        );
    }
    still_open(&pending);
}

#[test]
fn an_answer_without_the_right_state_is_not_believed() {
    let pending = pending();
    for (query, why) in [
        ("code=c0de-c0de", "has no `state`"),
        ("", "has no `state`"),
        ("code=c0de-c0de&State=st4te-st4te", "has no `state`"),
        ("code=c0de-c0de&state", "another one"),
        ("code=c0de-c0de&state=", "another one"),
        ("code=c0de-c0de&state=wrong", "another one"),
        ("code=c0de-c0de&state=st4te-st4t", "another one"),
        ("code=c0de-c0de&state=ST4TE-ST4TE", "another one"),
        ("code=c0de-c0de&state=st4te-st4te%20", "another one"),
        (
            "code=c0de-c0de&state=wrong&state=st4te-st4te",
            "`state` stands twice",
        ),
        (
            "code=c0de-c0de&state=st4te-st4te&state=st4te-st4te",
            "`state` stands twice",
        ),
        (
            "code=c0de-c0de&st%61te=x&state=st4te-st4te",
            "`state` stands twice",
        ),
        (
            "code=c0de-c0de&code=other&state=st4te-st4te",
            "`code` stands twice",
        ),
        (
            "code=c0de-c0de&state=st4te-st4te&iss=https%3A%2F%2Fas.example.com%2Ftenant&iss=x",
            "`iss` stands twice",
        ),
        // An error in it is nobody's word.
        (
            "error=access_denied&error_description=hello",
            "has no `state`",
        ),
        ("error=access_denied&state=wrong", "another one"),
    ] {
        let error = answer(query);
        not_ours(&pending, &error, why);
        assert!(
            !refused(&pending, &error)
                .to_string()
                .contains("access_denied"),
            "{query}"
        );
    }
    still_open(&pending);
}

/// RFC 9207, section 2.4.
#[test]
fn an_answer_of_another_server_is_refused() {
    let ours = "iss=https%3A%2F%2Fas.example.com%2Ftenant";
    let promised = server().with_authorization_response_iss_parameter();
    let key = DpopKey::generate().unwrap();
    for server in [server(), promised.clone()] {
        let pending = begun(request(), &server, &key).unwrap();
        for iss in [
            "iss=https%3A%2F%2Fattacker.example",
            "iss=https%3A%2F%2Fattacker.example%2Fst4te-st4te",
            "iss=https%3A%2F%2Fas.example.com%2Ftenant%2F",
            "iss=https%3A%2F%2Fas.example.com",
            "iss=https%3A%2F%2FAS.example.com%2Ftenant",
            "iss=https%3A%2F%2Fas.example.com%3A443%2Ftenant",
            "iss=https%253A%252F%252Fas.example.com%252Ftenant",
            "iss=",
            "iss",
        ] {
            for answered in ["code=c0de-c0de", "error=access_denied"] {
                let redirect = answer(&format!("{answered}&state=st4te-st4te&{iss}"));
                not_ours(
                    &pending,
                    &redirect,
                    "not of `https://as.example.com/tenant`",
                );
            }
        }
        still_open(&pending);
    }
    let unknown =
        ServerMetadata::default().with_authorization_endpoint("https://as.example.com/authorize");
    let pending = begun(request(), &unknown, &key).unwrap();
    let redirect = answer(&format!("code=c0de-c0de&state=st4te-st4te&{ours}"));
    not_ours(&pending, &redirect, "not configured");
    let nameless = answer("code=c0de-c0de&state=st4te-st4te");
    assert!(pending.answered(&nameless).is_ok());
    let pending = begun(request(), &promised, &key).unwrap();
    not_ours(
        &pending,
        &answer("code=c0de-c0de&state=st4te-st4te"),
        "has no `iss`",
    );
    not_ours(
        &pending,
        &answer("error=access_denied&state=st4te-st4te"),
        "has no `iss`",
    );
    let refusal = refused(
        &pending,
        &answer(&format!("error=access_denied&state=st4te-st4te&{ours}")),
    );
    assert_eq!(refusal.oauth_error().unwrap().code(), "access_denied");
    still_open(&pending);
    // Not promised, it may be left out.
    let unpromised = begun(request(), &server(), &key).unwrap();
    assert!(
        unpromised
            .answered(&answer("code=c0de-c0de&state=st4te-st4te"))
            .is_ok()
    );
}

/// RFC 6749, section 4.1.2.1.
#[test]
fn a_refusal_is_the_servers_and_costs_nothing() {
    let pending = begin(request().parameter("login_hint", "h1nt é").scope("openid")).unwrap();
    let description =
        "No+st4te-st4te,+c0de-c0de+nor+h1nt%20%C3%A9+nor+h1nt%2B%25C3%25A9+for+openid%0A%1b%E9";
    let error = refused(
        &pending,
        &answer(&format!(
            "error=access_denied&error_description={description}&code={CODE}&state={STATE}"
        )),
    );
    let oauth = error.oauth_error().unwrap();
    assert_eq!((oauth.code(), oauth.status()), ("access_denied", None));
    assert_eq!(
        oauth.description(),
        Some("No ***, *** nor *** nor *** for openid???")
    );
    assert!(!error.is_authorization() && !error.is_token_request() && !error.is_permanent());
    assert!(
        error
            .to_string()
            .contains("refused the authorization: access_denied (No"),
        "{error}"
    );

    let long = format!(
        "error={}&error_description={}&state={STATE}",
        "e".repeat(9000),
        "d".repeat(9000)
    );
    let error = refused(&pending, &long);
    let oauth = error.oauth_error().unwrap();
    assert_eq!(
        (oauth.code().len(), oauth.description().unwrap().len()),
        (256, 256)
    );
    // Without a value it counts as left out.
    not_ours(
        &pending,
        &answer("error=&state=st4te-st4te"),
        "neither a code nor an error",
    );
    let none = refused(
        &pending,
        &answer("error=e&error_description=&state=st4te-st4te"),
    );
    assert_eq!(none.oauth_error().unwrap().description(), None);
    // The user goes back, and changes his mind.
    still_open(&pending);
}

#[test]
fn an_answer_of_another_kind_says_so() {
    let pending = pending();
    for (redirect, why) in [
        (answer("response=eyJ0.eyJp.c2ln"), "JARM"),
        (
            answer("response=eyJ0.eyJp.c2ln&code=c0de-c0de&state=st4te-st4te"),
            "JARM",
        ),
        (format!("{REDIRECT}#code={CODE}&state={STATE}"), "fragment"),
        (
            format!("{REDIRECT}?x=y#error=access_denied&state={STATE}"),
            "fragment",
        ),
        (answer("state=st4te-st4te"), "neither a code nor an error"),
        (
            answer("code=&state=st4te-st4te"),
            "neither a code nor an error",
        ),
        (
            answer("code=%C3%A9&state=st4te-st4te"),
            "neither a code nor an error",
        ),
        (
            answer("code=%00&state=st4te-st4te"),
            "neither a code nor an error",
        ),
        (
            answer(&format!(
                "code={CODE}&state={STATE}&x={}",
                "x".repeat(64 * 1024)
            )),
            "longer than 64 KiB",
        ),
    ] {
        not_ours(&pending, &redirect, why);
    }
    still_open(&pending);
    let long = "c".repeat(60 * 1024);
    let pending = begin(request()).unwrap();
    assert_eq!(
        pending
            .answered(&answer(&format!("code={long}&state={STATE}")))
            .unwrap()
            .get("code"),
        long
    );
}

#[test]
fn a_code_is_given_out_once_however_many_ask() {
    const THREADS: usize = 8;
    let pending = Arc::new(pending());
    let start = Arc::new(Barrier::new(THREADS));
    let asking = (0..THREADS).map(|_| {
        let (pending, start) = (Arc::clone(&pending), Arc::clone(&start));
        std::thread::spawn(move || {
            start.wait();
            pending.answered(&good()).is_ok()
        })
    });
    let asking: Vec<_> = asking.collect();
    let given = asking
        .into_iter()
        .filter_map(|thread| thread.join().ok())
        .filter(|given| *given);
    assert_eq!(given.count(), 1);
    not_ours(&pending, &good(), "answered before");
    // Nor another code, that an attacker would have it take.
    not_ours(
        &pending,
        &answer("code=other&state=st4te-st4te"),
        "answered before",
    );
}

fn is_send_and_sync<T: Send + Sync>(_: &T) {}

proptest! {
    #[test]
    fn no_answer_panics_or_is_taken_without_the_state(
        text in any::<String>(),
        query in "[a-z?&=%#+:/._ 0-9é]{0,80}",
        pairs in proptest::collection::vec(("(code|state|iss|error|response|x)", "[a-z0-9%+]{0,8}"), 0..6),
    ) {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let pairs = pairs.join("&");
        let pending = pending();
        is_send_and_sync(&pending);
        for redirect in [&text, &query, &pairs, &answer(&text), &answer(&query), &answer(&pairs)] {
            prop_assert!(pending.answered(redirect).is_err());
        }
        prop_assert!(pending.answered(&good()).is_ok());
    }
}
