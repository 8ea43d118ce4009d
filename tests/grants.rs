//! Every grant at work, in memory: what its first token request says, and what the next one is made with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "support/flows.rs"]
mod flows;
#[path = "support/grants.rs"]
mod grants;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use support::{
    API, ENDPOINT, Fake, a3_key, and, answer,
    bench::{AS, RS},
    refusal, token_nonce_challenge,
};
use tower_dpop::{
    Audience, ClientAuthentication as _, DpopKey, DpopLayer, Error, Grant, PrivateKeyJwt,
    Registration, ServerMetadata, StoredGrant, TokenLayer, TokenParameters, TokenRequest,
    oauth::AuthenticationContext, testing::Nonces,
};

use self::flows::Flow;
use self::grants::{
    ACCESS_TOKEN, BEARER, CALLBACK, EXCHANGE, ISSUER, LOST, answered, ask, ask_for, authorization,
    by, client, code, exchange, form, given, later, layer, registration, sent, server,
};

/// Those that can be used any number of times, by their types.
fn repeatable() -> [(&'static str, Grant); 3] {
    [
        (EXCHANGE, exchange()),
        (BEARER, Grant::jwt_bearer("canary-assertion")),
        (
            "urn:example:own",
            Grant::other("urn:example:own").parameter("p", "canary-p"),
        ),
    ]
}

/// And those that can be used once.
async fn once() -> [(&'static str, Grant); 3] {
    [
        ("authorization_code", code().await),
        ("urn:example:own", Grant::other("urn:example:own").once()),
        (EXCHANGE, exchange().once()),
    ]
}

fn pairs(form: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    form.iter().map(owned).collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_token_request_is_its_grants_own() {
    let pending = authorization(a3_key()).await;
    let rows: [(Grant, &[(&str, &str)]); 8] = [
        (
            Grant::authorization_code("c", "app:/callback", "v".repeat(43)),
            &[
                ("grant_type", "authorization_code"),
                ("code", "c"),
                ("redirect_uri", "app:/callback"),
                ("code_verifier", "?"),
            ],
        ),
        (
            Grant::client_credentials(),
            &[("grant_type", "client_credentials")],
        ),
        (
            Grant::refresh_token("r +&=%ü"),
            &[
                ("grant_type", "refresh_token"),
                ("refresh_token", "r +&=%ü"),
            ],
        ),
        (
            Grant::token_exchange("subject", ACCESS_TOKEN)
                .parameter("actor_token", "a")
                .parameter("actor_token_type", ACCESS_TOKEN),
            &[
                ("grant_type", EXCHANGE),
                ("subject_token", "subject"),
                ("subject_token_type", ACCESS_TOKEN),
                ("actor_token", "a"),
                ("actor_token_type", ACCESS_TOKEN),
            ],
        ),
        (
            Grant::jwt_bearer("a.b.c"),
            &[("grant_type", BEARER), ("assertion", "a.b.c")],
        ),
        (
            Grant::other("urn:example:own?"),
            &[("grant_type", "urn:example:own?")],
        ),
        (
            Grant::other("x")
                .parameter_from("late", || async { Ok("l".to_owned()) })
                .parameter("p", "")
                .once(),
            &[("grant_type", "x"), ("p", ""), ("late", "l")],
        ),
        (
            answered(&pending),
            &[
                ("grant_type", "authorization_code"),
                ("code", "canary-code"),
                ("redirect_uri", CALLBACK),
                ("code_verifier", "?"),
            ],
        ),
    ];
    // RFC 7636, section 4.6.
    let url = pending.url().split_once('?').unwrap().1;
    let mut query = form_urlencoded::parse(url.as_bytes());
    let (_, challenge) = query.find(|(name, _)| name == "code_challenge").unwrap();

    for (grant, expected) in rows {
        let fake = server(vec![given("a0", None)]);
        let request = by(grant).scope("s t").resource("urn:r").resource("urn:q");
        assert_eq!(ask(&layer(&fake, request)).await.unwrap(), "a0");
        let [seen] = &fake.seen_by(AS)[..] else {
            panic!("{expected:?}: one request")
        };
        assert_eq!(seen.method, "POST");
        assert_eq!(
            seen.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        assert!(seen.uri.query().is_none() && seen.claims()["ath"].is_null());
        let more = [
            ("scope", "s t"),
            ("resource", "urn:r"),
            ("resource", "urn:q"),
            ("client_id", "app"),
        ];
        let mut form = form(seen);
        if let Some(verifier) = form.iter_mut().find(|(name, _)| name == "code_verifier") {
            let verifier = std::mem::replace(&mut verifier.1, "?".to_owned());
            assert!((43..=128).contains(&verifier.len()));
            let by_hand = verifier == "v".repeat(43);
            let hashed = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
            assert!(by_hand || hashed == challenge);
        }
        assert_eq!(form, pairs(&[expected, &more].concat()));
        // T1.
        assert!(seen.body.is_ascii());
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_refresh_token_the_next_is_asked_for_by_that() {
    for (name, grant) in once().await.into_iter().chain(repeatable()) {
        let fake = server(vec![
            given("a0", "canary-r1"),
            given("a1", "canary-r2"),
            given("a2", None),
            given("a3", None),
        ]);
        let tokens = layer(&fake, by(grant).scope("s"));
        for number in 0..4 {
            assert_eq!(ask(&tokens).await.unwrap(), format!("a{number}"), "{name}");
            later().await;
        }
        assert_eq!(sent(&fake), [name, "canary-r1", "canary-r2", "canary-r2"]);
        let refresh = [
            ("grant_type", "refresh_token"),
            ("refresh_token", "canary-r1"),
            ("scope", "s"),
            ("client_id", "app"),
        ];
        // And nothing of the grant's own.
        assert_eq!(form(&fake.seen_by(AS)[1]), pairs(&refresh), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_refresh_token_what_can_be_used_again_is() {
    for (name, grant) in repeatable() {
        let fake = server(vec![given("a", None)]);
        let tokens = layer(&fake, by(grant));
        for _ in 0..3 {
            ask(&tokens).await.unwrap();
            later().await;
        }
        assert_eq!(sent(&fake), [name; 3]);
        let seen = fake.seen_by(AS);
        assert!(seen.iter().all(|one| one.body == seen[0].body), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn and_what_is_good_once_is_over() {
    for (name, grant) in once().await {
        let fake = server(vec![given("a", None)]);
        let tokens = layer(&fake, by(grant));
        ask(&tokens).await.unwrap();
        for _ in 0..4 {
            later().await;
            let error = ask(&tokens).await.unwrap_err();
            assert!(error.is_grant_over() && error.is_permanent(), "{error}");
            assert!(error.is_token_request() && !error.is_grant_uncertain());
            assert!(error.to_string().contains("grant anew"), "{error}");
        }
        assert_eq!(sent(&fake), [name], "nothing was sent for it");
    }
}

/// RFC 6749, section 4.4.3: there should be none, and it would be no use.
#[tokio::test(start_paused = true)]
async fn client_credentials_are_used_again_whatever_comes_with_them() {
    let fake = server(vec![given("a", "canary-r1")]);
    let tokens = layer(&fake, by(Grant::client_credentials()));
    for _ in 0..3 {
        ask(&tokens).await.unwrap();
        later().await;
    }
    assert_eq!(sent(&fake), ["client_credentials"; 3]);
    assert!(!String::from_utf8_lossy(&fake.seen_by(AS)[2].body).contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_that_is_refused_gives_way_to_the_grant_within_the_same_fetch() {
    for (name, grant) in repeatable() {
        let fake = server(vec![
            given("a0", "canary-r1"),
            refusal("invalid_grant"),
            given("a1", "canary-r2"),
            given("a2", None),
        ]);
        let tokens = layer(&fake, by(grant));
        for number in 0..3 {
            let token = ask(&tokens).await.expect("nobody notices");
            assert_eq!(token, format!("a{number}"), "{name}");
            later().await;
        }
        assert_eq!(sent(&fake), [name, "canary-r1", name, "canary-r2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn but_not_without_end() {
    // A server that gives refresh tokens and takes none, nor the grant any more.
    let fake = Fake::new(|seen, _| match seen.number {
        0 => given("a0", "canary-r1"),
        _ => refusal("invalid_grant"),
    });
    let tokens = layer(&fake, by(exchange()));
    ask(&tokens).await.unwrap();
    later().await;
    let error = ask(&tokens).await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
    assert_eq!(sent(&fake), [EXCHANGE, "canary-r1", EXCHANGE]);
    // The subject token may be good again: the layer asks as after any other refusal.
    later().await;
    ask(&tokens).await.unwrap_err();
    assert_eq!(sent(&fake)[3..], [EXCHANGE]);
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_be_used_again_the_refusal_is_told() {
    for (name, grant) in once().await {
        let fake = server(vec![given("a0", "canary-r1"), refusal("invalid_grant")]);
        let tokens = layer(&fake, by(grant));
        ask(&tokens).await.unwrap();
        later().await;
        let error = ask(&tokens).await.unwrap_err();
        assert_eq!(error.oauth_error().unwrap().code(), "invalid_grant");
        assert!(error.is_permanent() && !error.is_grant_uncertain());
        assert_eq!(sent(&fake), [name, "canary-r1"], "the grant is used up");
    }
}

#[tokio::test(start_paused = true)]
async fn another_refusal_of_a_refresh_token_costs_it_not() {
    for (name, grant) in repeatable() {
        let fake = server(vec![
            given("a0", "canary-r1"),
            refusal("invalid_scope"),
            answer(503, &[], ""),
            given("a1", None),
        ]);
        let tokens = layer(&fake, by(grant));
        ask(&tokens).await.unwrap();
        for _ in 0..2 {
            later().await;
            ask(&tokens).await.unwrap_err();
        }
        later().await;
        ask(&tokens).await.unwrap();
        assert_eq!(
            sent(&fake),
            [name, "canary-r1", "canary-r1", "canary-r1"],
            "no second grant for a hiccup"
        );
    }
}

/// What cannot be used up need not be in doubt.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_whose_answer_was_lost_gives_way_to_the_grant() {
    for (name, grant) in repeatable() {
        for lost in [answer(LOST, &[], ""), answer(504, &[], "")] {
            let fake = server(vec![given("a0", "canary-r1"), lost, given("a1", None)]);
            let tokens = layer(&fake, by(grant.clone()));
            ask(&tokens).await.unwrap();
            later().await;
            let error = ask(&tokens).await.unwrap_err();
            assert!(!error.is_grant_uncertain() && !error.is_permanent());
            later().await;
            assert_eq!(ask(&tokens).await.unwrap(), "a1");
            assert_eq!(sent(&fake), [name, "canary-r1", name], "F77: sent once");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_can_be_used_again_is_after_whatever_failure() {
    for (name, grant) in repeatable() {
        let fake = server(vec![
            answer(LOST, &[], ""),
            answer(502, &[], ""),
            answer(200, &[], "<html>"),
            refusal("invalid_grant"),
            given("a", None),
        ]);
        let tokens = layer(&fake, by(grant));
        for _ in 0..4 {
            let error = ask(&tokens).await.unwrap_err();
            assert!(!error.is_grant_uncertain() && !error.is_grant_over());
            later().await;
        }
        ask(&tokens).await.unwrap();
        assert_eq!(sent(&fake), [name; 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_ends_a_grant_ends_it_for_good() {
    for code in ["invalid_grant", "access_denied", "expired_token"] {
        for (name, grant) in once().await {
            let fake = server(vec![refusal(code), given("a", None)]);
            let tokens = layer(&fake, by(grant));
            for _ in 0..3 {
                let error = ask(&tokens).await.unwrap_err();
                assert_eq!(error.oauth_error().unwrap().code(), code);
                later().await;
            }
            assert_eq!(sent(&fake), [name], "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_client_does_not_use_a_grant_up() {
    for (name, grant) in once().await {
        let fake = server(vec![
            refusal("invalid_client"),
            refusal("invalid_dpop_proof"),
            answer(503, &[], ""),
            answer(429, &[("retry-after", "7")], ""),
            given("a", None),
        ]);
        let tokens = layer(&fake, by(grant));
        for _ in 0..4 {
            let error = ask(&tokens).await.unwrap_err();
            assert!(!error.is_grant_over() && !error.is_grant_uncertain());
            later().await;
        }
        ask(&tokens).await.unwrap();
        assert_eq!(sent(&fake), [name; 5]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_use_uses_a_grant_up_and_may_bring_its_refresh_token() {
    let bearer = |more: &str| {
        let body = format!(r#"{{"access_token":"canary-a","token_type":"Bearer"{more}}}"#);
        answer(200, &[], &body)
    };
    let fake = server(vec![
        bearer(r#","refresh_token":"canary-r1""#),
        given("a", None),
    ]);
    let tokens = layer(&fake, by(code().await));
    assert!(ask(&tokens).await.unwrap_err().is_downgrade());
    later().await;
    ask(&tokens).await.unwrap();
    assert_eq!(sent(&fake), ["authorization_code", "canary-r1"]);

    let fake = server(vec![bearer(""), given("a", None)]);
    let tokens = layer(&fake, by(code().await));
    assert!(ask(&tokens).await.unwrap_err().is_downgrade());
    later().await;
    assert!(ask(&tokens).await.unwrap_err().is_grant_over());
    assert_eq!(sent(&fake), ["authorization_code"]);
}

fn own() -> TokenParameters {
    TokenParameters::new().scope("own")
}

/// What a request's own parameters were asked for with: type or refresh token, and scope.
fn scopes(fake: &Fake) -> Vec<(String, String)> {
    let seen = fake.seen_by(AS);
    let scopes = seen.iter().map(|seen| seen.parameter("scope").unwrap());
    sent(fake).into_iter().zip(scopes).collect()
}

#[tokio::test(start_paused = true)]
async fn own_parameters_never_use_the_refresh_token_of_what_can_be_asked_for_anew() {
    for (name, grant) in repeatable() {
        // Each answer brings a refresh token of its own.
        let fake = Fake::new(|seen, _| match seen.number {
            0 => given("a0", "canary-r1"),
            1 => given("a1", "canary-r-own"),
            2 => given("a2", "canary-r2"),
            3 => given("a3", "canary-r-own-2"),
            _ => given("a4", None),
        });
        let tokens = layer(&fake, by(grant).scope("s"));
        for _ in 0..2 {
            ask(&tokens).await.unwrap();
            ask_for(&tokens, &own()).await.unwrap();
            later().await;
        }
        ask(&tokens).await.unwrap();
        let expected = [
            (name, "s"),
            (name, "own"),
            ("canary-r1", "s"),
            (name, "own"),
            ("canary-r2", "s"),
        ];
        assert_eq!(scopes(&fake), pairs(&expected));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_good_once_is_exchanged_with_the_layers_own_parameters_and_then_refreshed() {
    for (name, grant) in once().await {
        let fake = server(vec![
            given("a0", "canary-r1"),
            given("a1", "canary-r2"),
            given("a2", None),
        ]);
        let tokens = layer(&fake, by(grant).scope("s"));
        assert_eq!(ask_for(&tokens, &own()).await.unwrap(), "a1");
        assert_eq!(ask(&tokens).await.unwrap(), "a2");
        let expected = [(name, "s"), ("canary-r1", "own"), ("canary-r2", "s")];
        assert_eq!(scopes(&fake), pairs(&expected));
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_refresh_token_comes_there_is_but_the_one_token() {
    let fake = server(vec![given("a0", None)]);
    let tokens = layer(&fake, by(code().await).scope("s"));
    assert_eq!(ask_for(&tokens, &own()).await.unwrap(), "a0");
    assert!(ask(&tokens).await.unwrap_err().is_grant_over());
    assert_eq!(scopes(&fake), pairs(&[("authorization_code", "s")]));
}

#[tokio::test(start_paused = true)]
async fn all_that_want_something_else_share_one_refresh_token_one_after_another() {
    // Each refresh token is good once: two at a time would be seen.
    let fake = Fake::new(|seen, _| {
        let token = seen.parameter("refresh_token");
        let expected = match seen.number {
            0 => None,
            number => Some(format!("r{number}")),
        };
        assert_eq!(token, expected);
        let body = serde_json::json!({
            "access_token": format!("a{}", seen.number), "token_type": "DPoP", "expires_in": 100,
            "refresh_token": format!("r{}", seen.number + 1),
        });
        answer(200, &[], &body.to_string())
    })
    .delay(Duration::from_millis(100));
    let tokens = layer(&fake, by(code().await));
    let asking = (0..12).map(|number| {
        let tokens = tokens.clone();
        let parameters = TokenParameters::new().scope(format!("s{}", number % 6));
        tokio::spawn(async move { ask_for(&tokens, &parameters).await })
    });
    for asking in asking.collect::<Vec<_>>() {
        asking.await.unwrap().unwrap();
    }
    assert_eq!(fake.hits(AS), 7, "the code, and one refresh for each scope");
    assert_eq!(fake.most_open(AS), 1);
    assert_eq!(fake.hits(RS), 0);
}

/// A value that is made anew, and how often it was.
fn counted(value: &'static str) -> (Arc<AtomicUsize>, Grant) {
    let count = Arc::new(AtomicUsize::new(0));
    let made = Arc::clone(&count);
    let grant = Grant::other("x").parameter_from("p", move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        async move { Ok(format!("{value}{number}")) }
    });
    (count, grant)
}

#[tokio::test(start_paused = true)]
async fn a_parameter_with_a_source_is_made_anew_for_each_token_request() {
    let (count, grant) = counted("canary-");
    let fake = server(vec![
        given("a", None),
        refusal("invalid_grant"),
        answer(LOST, &[], ""),
        given("a", "canary-r"),
        given("a", None),
    ]);
    let tokens = layer(&fake, by(grant));
    for _ in 0..5 {
        let _ = ask(&tokens).await;
        later().await;
    }
    let seen = fake.seen_by(AS);
    let values: Vec<_> = seen.iter().map(|seen| seen.parameter("p")).collect();
    let made = |n| Some(format!("canary-{n}"));
    assert_eq!(values, [made(0), made(1), made(2), made(3), None]);
    assert_eq!(
        count.load(Ordering::Relaxed),
        4,
        "not for the refresh token"
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_is_why_there_is_no_token() {
    let tries = Arc::new(AtomicUsize::new(0));
    let grant = Grant::other("x").parameter_from("p", {
        let tries = Arc::clone(&tries);
        move || {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                match number {
                    0 => Err("no such file".into()),
                    1 => panic!("a bug in the program"),
                    _ => Ok("v".to_owned()),
                }
            }
        }
    });
    for grant in [grant.clone(), grant.once()] {
        tries.store(0, Ordering::Relaxed);
        let fake = server(vec![given("a", "r")]);
        let tokens = layer(&fake, by(grant));
        let error = ask(&tokens).await.unwrap_err();
        assert!(
            error.is_token_request() && !error.is_permanent(),
            "{error:?}"
        );
        assert!(error.to_string().contains("`p`"), "{error}");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "no such file");
        later().await;
        assert!(ask(&tokens).await.unwrap_err().is_runtime());
        assert_eq!(fake.hits(AS), 0, "nothing was sent");
        later().await;
        ask(&tokens).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_source_takes_counts_as_the_requests() {
    let hangs = || Grant::other("x").parameter_from("p", std::future::pending);
    for (grant, parameters) in [
        (hangs(), TokenParameters::new()),
        (hangs(), own()),
        (hangs().once(), TokenParameters::new()),
    ] {
        let fake = server(vec![given("a", None)]);
        let request = by(grant).timeout(Duration::from_secs(7));
        let tokens = layer(&fake, request);
        let begin = tokio::time::Instant::now();
        let error = ask_for(&tokens, &parameters).await.unwrap_err();
        assert!(
            error.is_timeout() && !error.is_grant_uncertain(),
            "{error:?}"
        );
        assert_eq!(begin.elapsed(), Duration::from_secs(7));
        assert_eq!(fake.hits(AS), 0);
    }
}

/// What a program gives as one token request's time is that, whatever else the request asks for.
#[tokio::test(start_paused = true)]
async fn own_parameters_have_no_more_time_than_the_layers() {
    for (_, grant) in repeatable() {
        for parameters in [TokenParameters::new(), own()] {
            let fake = server(vec![given("a", None)]).delay(support::NEVER);
            let request = by(grant.clone()).timeout(Duration::from_secs(7));
            let tokens = layer(&fake, request);
            let begin = tokio::time::Instant::now();
            let error = ask_for(&tokens, &parameters).await.unwrap_err();
            assert!(error.is_timeout(), "{error:?}");
            assert_eq!(begin.elapsed(), Duration::from_secs(7), "{parameters:?}");
        }
    }
}

/// Giving an answer up costs the grant, so it has the time that a refresh token has.
#[tokio::test(start_paused = true)]
async fn what_is_good_once_has_sixty_seconds_and_so_has_its_refresh_token() {
    for (name, grant) in once().await {
        let fake = server(vec![given("a0", "canary-r1"), given("a1", None)])
            .delay(Duration::from_secs(59));
        let tokens = layer(&fake, by(grant));
        for number in 0..2 {
            assert_eq!(ask(&tokens).await.unwrap(), format!("a{number}"), "{name}");
            later().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn further_parameters_of_a_refresh_token_are_sent_with_it() {
    let grant = Grant::refresh_token("canary-r0")
        .parameter("tenant", "t")
        .parameter_from("late", || async { Ok("l".to_owned()) });
    let fake = server(vec![given("a0", "canary-r1"), given("a1", None)]);
    let tokens = layer(&fake, by(grant));
    for _ in 0..2 {
        ask(&tokens).await.unwrap();
        later().await;
    }
    assert_eq!(sent(&fake), ["canary-r0", "canary-r1"]);
    for seen in fake.seen_by(AS) {
        let further = ["tenant", "late"].map(|name| seen.parameter(name).unwrap_or_default());
        assert_eq!(further, ["t", "l"]);
    }
}

/// By whichever constructor: what these are for is known.
#[tokio::test(start_paused = true)]
async fn grants_that_are_good_once_are_so_under_their_names_too() {
    for grant in [
        Grant::other("refresh_token").parameter("refresh_token", "canary-r0"),
        Grant::other("authorization_code").parameter("code", "canary-code"),
    ] {
        let fake = server(vec![answer(LOST, &[], ""), given("a", None)]);
        let tokens = layer(&fake, by(grant));
        for _ in 0..3 {
            let error = ask(&tokens).await.unwrap_err();
            assert!(error.is_grant_uncertain(), "{error}");
            later().await;
        }
        assert_eq!(fake.hits(AS), 1, "sent once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nonce_challenge_does_not_use_a_grant_up() {
    for (name, grant) in once().await {
        let fake = Fake::new(|seen, _| match seen.nonce() {
            None => token_nonce_challenge("n"),
            Some(_) => given("a", None),
        });
        ask(&layer(&fake, by(grant))).await.unwrap();
        assert_eq!(sent(&fake), [name; 2]);
        let seen = fake.seen_by(AS);
        assert_eq!(seen[0].body, seen[1].body);
        assert_ne!(seen[0].claims()["jti"], seen[1].claims()["jti"]);
    }
    // One that does not end.
    let fake = Fake::new(|seen, _| match seen.number {
        0..5 => and(
            refusal("use_dpop_nonce"),
            "dpop-nonce",
            &format!("n{}", seen.number),
        ),
        _ => given("a", None),
    });
    let tokens = layer(&fake, by(code().await));
    let error = ask(&tokens).await.unwrap_err();
    assert_eq!(error.oauth_error().unwrap().code(), "use_dpop_nonce");
    assert_eq!(fake.hits(AS), 3);
    later().await;
    ask(&tokens).await.unwrap();
}

#[track_caller]
fn refused(request: TokenRequest, key: DpopKey) -> Error {
    let fake = Fake::new(|_, _| panic!("nothing is sent"));
    let audience = Audience::origins([API]).unwrap();
    let error = TokenLayer::new(&DpopLayer::new(key), fake, request, audience).unwrap_err();
    grants::no_secret(&error);
    error
}

#[tokio::test]
async fn another_key_than_the_promised_one_is_found_before_anything_is_sent() {
    let other = || DpopKey::generate().unwrap();
    let error = refused(by(code().await), other());
    assert!(error.is_other_key(), "{error:?}");
    let stored = StoredGrant::new(&a3_key(), "canary-r", ISSUER, "app", None);
    for grant in [
        Grant::stored(&stored),
        exchange().bound_to(a3_key().thumbprint()),
        Grant::authorization_code("canary", CALLBACK, "canary").bound_to(a3_key().thumbprint()),
    ] {
        let error = refused(by(grant), other());
        assert!(error.is_other_key(), "{error:?}");
    }
    // And with the right one all is well.
    let fake = server(vec![given("a", None)]);
    ask(&layer(&fake, by(Grant::stored(&stored))))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stored_grant_is_for_its_client_and_its_server() {
    for (server, client) in [(ISSUER, "other"), ("https://as.example.com/", "app")] {
        let stored = StoredGrant::new(&a3_key(), "canary-r", server, client, None);
        let error = refused(by(Grant::stored(&stored)), a3_key());
        assert!(error.is_config() && error.to_string().contains(client));
    }
}

#[tokio::test]
async fn grants_that_cannot_be_are_refused_at_once() {
    for bad in [
        Grant::other(""),
        Grant::refresh_token(""),
        exchange().parameter("", "canary"),
        exchange().parameter("grant_type", "canary"),
        exchange().parameter("client_id", "canary"),
        exchange().parameter("client_assertion", "canary"),
        exchange().parameter_from("client_assertion_type", || async { Ok(String::new()) }),
        exchange().parameter_from("", || async { Ok(String::new()) }),
    ] {
        let error = refused(by(bad), a3_key());
        assert!(error.is_config(), "{error:?}");
    }
    // Client credentials have no refresh token, whatever the way to them.
    for bad in [
        by(Grant::client_credentials()).retry_lost_refresh(),
        TokenRequest::new(registration(), Grant::client_credentials())
            .store(support::saves::saves(|_| async { Ok(()) })),
    ] {
        assert!(refused(bad, a3_key()).is_config());
    }
}

#[tokio::test]
async fn grants_show_their_types_and_nothing_else() {
    let grants = once().await.into_iter().chain(repeatable());
    for (name, grant) in grants {
        assert_eq!(format!("{grant:?}"), format!("Grant({name:?})"));
        let shown = format!("{:?}", by(grant));
        assert!(shown.contains(name) && !shown.contains("canary"), "{shown}");
    }
    assert_eq!(
        format!("{:?}", Grant::other("\u{1b}[31m")),
        r#"Grant("?[31m")"#
    );
}

/// By assertions that are each made for one token request.
fn vouched(issuer: &str, key: &DpopKey) -> Grant {
    let (authentication, issuer) = (PrivateKeyJwt::new(key.clone()), issuer.to_owned());
    Grant::other(BEARER).parameter_from("assertion", move || {
        let (authentication, issuer) = (authentication.clone(), issuer.clone());
        async move {
            let context = AuthenticationContext::new("partner", "https://as.example/token");
            let context = context.with_issuer(&issuer);
            let credentials = authentication.authenticate(&context).await?;
            Ok(credentials.get("client_assertion").unwrap().to_owned())
        }
    })
}

/// Over TCP, with all of its refreshes, rotation included.
#[tokio::test]
async fn every_grant_is_taken_by_a_server_that_checks_it() {
    for nonces in [Nonces::off(), Nonces::one_time()] {
        for refreshed in [false, true] {
            let flow = Flow::start().await;
            let server = &flow.authorization_server;
            server.nonces(nonces.clone());
            server.accept_subject_token("subject");
            server.add_grant("urn:example:own");
            let partner = DpopKey::generate().unwrap();
            server.trust_assertions("partner", &partner);
            for name in [EXCHANGE, BEARER, "urn:example:own", "client_credentials"] {
                server.give_refresh_tokens(name, refreshed);
            }
            let app = flow.app().await;
            for (name, grant) in [
                ("client_credentials", Grant::client_credentials()),
                (EXCHANGE, Grant::token_exchange("subject", ACCESS_TOKEN)),
                (BEARER, vouched(server.issuer(), &partner)),
                ("urn:example:own", Grant::other("urn:example:own")),
            ] {
                let before = flow.asked().len();
                let tokens = flow.tokens(TokenRequest::new(app.clone(), grant));
                for _ in 0..3 {
                    assert_eq!(flow.get(&tokens).await.unwrap(), 200, "{name}");
                    tokens.forget_tokens();
                }
                let asked = flow.asked();
                let asked = asked[before..]
                    .iter()
                    .filter(|seen| seen.refused().is_none());
                let by = asked.map(|seen| flows::parameter(seen, "grant_type").unwrap());
                let next = match refreshed && name != "client_credentials" {
                    true => "refresh_token",
                    false => name,
                };
                assert_eq!(by.collect::<Vec<_>>(), [name, next, next]);
            }
            let asked = flow.asked();
            let mut refused = asked.iter().filter_map(|seen| seen.refused());
            assert!(refused.all(|why| why.contains("nonce")));
        }
    }
}

/// A program with two servers mixes up its own registrations: the code of one goes to the other.
#[tokio::test(start_paused = true)]
async fn a_code_goes_to_the_server_and_client_that_it_is_of() {
    let fake = server(vec![given("a", None)]);
    let attacker = ServerMetadata::new("https://attacker.example")
        .with_token_endpoint("https://attacker.example/token");
    for other in [
        Registration::new(attacker, "app"),
        Registration::new(grants::metadata(), "another"),
    ] {
        let request = TokenRequest::new(other, code().await);
        let audience = Audience::origins([API]).unwrap();
        let dpop = DpopLayer::new(a3_key());
        let layer = TokenLayer::new(&dpop, client(&fake), request, audience);
        assert!(layer.is_err(), "code and verifier would be sent there");
    }
}

/// T3: one method of authentication, one value for each parameter.
#[tokio::test(start_paused = true)]
async fn a_grant_takes_the_place_of_no_credentials() {
    for name in ["client_secret", "scope"] {
        let fake = server(vec![given("a", None)]);
        let grant = Grant::other("urn:x").parameter(name, "canary-own");
        let registration = Registration::new(ENDPOINT, "app").client_secret_post("canary-s");
        let request = TokenRequest::new(registration, grant).scope("s");
        let audience = Audience::origins([API]).unwrap();
        let dpop = DpopLayer::new(a3_key());
        let layer = TokenLayer::new(&dpop, client(&fake), request, audience);
        if let Ok(layer) = layer {
            let _ = ask(&layer).await;
            panic!("{name}: {:?}", grants::form(&fake.seen_by(AS)[0]));
        }
    }
}
