//! `TokenLayer` from outside: how often it asks for a token, who gets it, and what happens when it is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use support::{
    API, ENDPOINT, Fake, a3_key, answer,
    bench::{AS, RS, find, request, servers, stack, stack_with},
    get, invalid_token, nonce_challenge, ok, own_token, plain, token, token_layer, with_token,
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_dpop::{
    AccessToken, Audience, DpopKey, DpopLayer, ToAuthorizationServer, TokenLayer, TokenRequest,
};
use tower_test::mock;

#[tokio::test]
async fn the_first_request_fetches_the_token_and_all_share_it() {
    let fake = servers(300, |_| true);
    let stack = stack(&fake);
    for path in ["/1", "/2", "/3"] {
        let answer = stack
            .clone()
            .oneshot(get(&format!("{API}{path}")))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    let asked = fake.seen_by(AS);
    assert_eq!(asked.len(), 1);
    let asked = &asked[0];
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.uri, ENDPOINT);
    assert_eq!(
        asked.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(asked.header("accept"), Some("application/json"));
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(
        asked.body,
        "grant_type=client_credentials&scope=api&client_id=m2m.dpop&client_secret=s3cret"
    );
    assert_eq!(asked.claims()["htu"], ENDPOINT);
    assert_eq!(asked.claims()["htm"], "POST");
    assert!(asked.claims().get("ath").is_none());
    let served = fake.seen_by(RS);
    assert_eq!(served.len(), 3);
    assert!(
        served
            .iter()
            .all(|seen| seen.header("authorization") == Some("DPoP t0"))
    );
}

#[tokio::test]
async fn requests_to_other_origins_pass_without_token() {
    let fake = servers(300, |_| true);
    let stack = stack(&fake);
    for uri in [
        "https://other.example/",
        "https://api.example.com:444/",
        "http://api.example.com/",
        "wss://api.example.com/",
        "api.example.com:443",
        "https://api.example.com:99999/",
    ] {
        let mut request = get(uri);
        request
            .headers_mut()
            .insert("authorization", "DPoP t9".parse().unwrap());
        stack.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(fake.seen_by(AS).len(), 0, "no token is needed");
    for seen in fake.seen() {
        assert_eq!(seen.header("authorization"), Some("DPoP t9"));
        assert_eq!(seen.header("dpop"), None);
    }
}

// Client authentication and parameters.

#[tokio::test]
async fn client_secret_basic_encodes_before_it_joins() {
    let fake = servers(300, |_| true);
    let request = TokenRequest::client_credentials(ENDPOINT, "id:ü")
        .client_secret_basic("a:b c/+%&")
        .scope("read write")
        .resource("https://api.example.com/a?b=c")
        .resource("urn:example:two")
        .parameter("audience", "ä&=+");
    stack_with(&fake, request).oneshot(get(API)).await.unwrap();
    let asked = &fake.seen_by(AS)[0];
    // base64("id%3A%C3%BC:a%3Ab+c%2F%2B%25%26")
    assert_eq!(
        asked.header("authorization"),
        Some("Basic aWQlM0ElQzMlQkM6YSUzQWIrYyUyRiUyQiUyNSUyNg==")
    );
    assert!(asked.headers["authorization"].is_sensitive());
    assert_eq!(
        asked.body,
        "grant_type=client_credentials&scope=read+write&resource=https%3A%2F%2Fapi.example.com%2Fa%3Fb%3Dc\
         &resource=urn%3Aexample%3Atwo&audience=%C3%A4%26%3D%2B"
    );
}

#[tokio::test]
async fn a_client_without_secret_says_who_it_is() {
    let fake = servers(300, |_| true);
    stack_with(&fake, TokenRequest::client_credentials(ENDPOINT, "public"))
        .oneshot(get(API))
        .await
        .unwrap();
    let asked = &fake.seen_by(AS)[0];
    assert_eq!(asked.body, "grant_type=client_credentials&client_id=public");
    assert_eq!(asked.header("authorization"), None);
}

#[test]
fn values_that_cannot_be_used_are_refused_before_the_first_request() {
    let fake = servers(300, |_| true);
    let audience = || Audience::origins([API]).unwrap();
    let new = |request| {
        TokenLayer::new(&DpopLayer::new(a3_key()), fake.clone(), request, audience()).map(drop)
    };
    let at = |endpoint: &str| {
        TokenRequest::client_credentials(endpoint, "id").client_secret_post("s3cret")
    };
    for (request, word) in [
        (at(""), "URL"),
        (at("as.example.com/token"), "no URL"),
        (at("/token"), "scheme"),
        (at("https://"), "URL"),
        (at("https://as.example.com/token#x"), "fragment"),
        (
            at("https://user:s3cret@as.example.com/token"),
            "user information",
        ),
        (at("https://user:s3cret#1@as.example.com/token"), "fragment"),
        (at("https://user:s3 cret@as.example.com/token"), "no URL"),
        (at("https://user:s3cret@as.example.com/token#x"), "fragment"),
        (at("https://as.example.com:99999/token"), "port"),
        (at("ftp://as.example.com/token"), "scheme"),
        (TokenRequest::client_credentials(ENDPOINT, ""), "client id"),
        (
            at(ENDPOINT).parameter("client_secret", "s3cret"),
            "method of its own",
        ),
        (
            at(ENDPOINT).parameter("grant_type", "password"),
            "method of its own",
        ),
        (
            at(ENDPOINT).parameter("scope", "x").parameter("scope", "y"),
            "method of its own",
        ),
        (at(ENDPOINT).parameter("", "x"), "parameter"),
        (at(ENDPOINT).resource("api"), "RFC 8707"),
        (at(ENDPOINT).resource("https://a/#f"), "RFC 8707"),
    ] {
        let error = new(request).unwrap_err();
        assert!(error.is_config(), "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
        assert!(
            !format!("{error} {error:?}").contains("s3cret"),
            "{error:?}"
        );
    }
    let insecure = new(at("http://as.example.com/token")).unwrap_err();
    assert!(insecure.is_insecure_http(), "{insecure}");
    new(at("http://127.0.0.1:8080/token")).unwrap();
    let plain = Audience::origins([API, "http://api.example.com"]).unwrap();
    let dpop = DpopLayer::new(a3_key());
    let insecure = TokenLayer::new(&dpop, fake.clone(), at(ENDPOINT), plain.clone()).unwrap_err();
    assert!(
        insecure.is_insecure_http() && insecure.to_string().contains("http://api"),
        "{insecure}"
    );
    TokenLayer::new(
        &dpop.danger_allow_plain_http(),
        fake.clone(),
        at(ENDPOINT),
        plain,
    )
    .unwrap();
    assert!(
        Audience::origins(Vec::<String>::new())
            .unwrap_err()
            .is_config()
    );
    assert_eq!(fake.seen().len(), 0);
}

// One fetch.

#[test]
fn a_runtime_that_nobody_drives_does_not_keep_the_others_waiting() {
    let fake = servers(300, |_| true).delay(Duration::from_millis(50));
    let stack = stack(&fake);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let idle = runtime.enable_all().build().unwrap();
    idle.block_on(async {
        let request =
            tokio::time::timeout(Duration::from_millis(5), stack.clone().oneshot(get(API)));
        request.await.unwrap_err();
    });
    // The fetch is under way in `idle`, which lives.
    let busy = runtime.start_paused(true).build().unwrap();
    let answers = busy.block_on(async {
        let started = tokio::time::Instant::now();
        let requests: Vec<_> = (0..20)
            .map(|_| tokio::spawn(stack.clone().oneshot(get(API))))
            .collect();
        let mut answers = Vec::new();
        for request in requests {
            answers.push(request.await.unwrap().unwrap().status());
        }
        assert!(
            started.elapsed() < Duration::from_secs(12),
            "its deadline, and a little"
        );
        answers
    });
    assert_eq!(answers, [200; 20]);
    assert_eq!(
        fake.seen_by(AS).len(),
        2,
        "one fetch was lost, one served all"
    );
    // The lost one ends after all, with t1, and changes nothing.
    idle.block_on(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stack.oneshot(get(API)).await.unwrap();
    });
    let served = fake.seen_by(RS);
    assert_eq!(
        served.last().unwrap().header("authorization"),
        Some("DPoP t0")
    );
    assert_eq!(fake.seen_by(AS).len(), 2);
}

#[test]
fn a_fetch_that_was_given_up_does_not_land_in_the_place_of_the_next() {
    let fake = servers(300, |_| true);
    let gate = Arc::new(tokio::sync::Notify::new());
    // The first token request takes a moment, the second one waits for the gate.
    let calls = Arc::new(AtomicUsize::new(0));
    let client = {
        let (fake, gate, calls) = (fake.clone(), gate.clone(), calls.clone());
        tower::service_fn(move |request: Request<Full<Bytes>>| {
            let (fake, gate) = (fake.clone(), gate.clone());
            let call = calls.fetch_add(1, Ordering::Relaxed);
            async move {
                match call {
                    0 => tokio::time::sleep(Duration::from_millis(50)).await,
                    _ => gate.notified().await,
                }
                fake.oneshot(request).await
            }
        })
    };
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, client);
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let idle = runtime.enable_all().build().unwrap();
    idle.block_on(async {
        let request =
            tokio::time::timeout(Duration::from_millis(5), stack.clone().oneshot(get(API)));
        request.await.unwrap_err();
    });
    let busy = runtime.start_paused(true).build().unwrap();
    let request = busy.spawn(stack.clone().oneshot(get(API)));
    busy.block_on(async {
        while calls.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::resume();
    });
    // Now the first one lands, with t0, while the second is under way.
    idle.block_on(async { tokio::time::sleep(Duration::from_millis(100)).await });
    assert_eq!(fake.seen_by(AS).len(), 1);
    gate.notify_one();
    assert_eq!(busy.block_on(request).unwrap().unwrap().status(), 200);
    assert_eq!(fake.seen_by(RS)[0].header("authorization"), Some("DPoP t1"));
}

#[tokio::test]
async fn errors_of_ours_stay_what_they_are() {
    let client = tower::service_fn(|_: Request<Full<Bytes>>| async {
        Err::<Response<Full<Bytes>>, BoxError>(
            DpopKey::from_bytes("none", None).unwrap_err().into(),
        )
    });
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, client);
    let fake = servers(300, |_| true);
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake);
    let error = find(&stack.oneshot(get(API)).await.unwrap_err());
    assert!(error.is_key() && !error.is_token_request(), "{error}");
}

// Expiry.

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_ends() {
    // Life in seconds, and when it is no longer used.
    for (life, usable) in [(300, 290), (60, 54), (10, 9)] {
        let fake = servers(life, |_| true);
        let stack = stack(&fake);
        stack.clone().oneshot(get(API)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(usable) - Duration::from_millis(100)).await;
        stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(fake.seen_by(AS).len(), 1, "{life}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(fake.seen_by(AS).len(), 2, "{life}");
        assert_eq!(fake.seen_by(RS)[2].header("authorization"), Some("DPoP t1"));
    }
}

#[tokio::test(start_paused = true)]
async fn life_is_counted_from_before_the_token_was_made() {
    let fake = servers(60, |_| true).delay(Duration::from_secs(9));
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap(); // 9 s for the token, 9 s for the request
    tokio::time::sleep(Duration::from_secs(54 - 18)).await;
    stack.clone().oneshot(get(API)).await.unwrap();
    assert_eq!(fake.seen_by(AS).len(), 2);
}

// Refused tokens.

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_request_sent_again() {
    let fake = servers(300, |number| number > 0);
    let stack = stack(&fake);
    let request = Request::patch("https://api.example.com/orders?page=2")
        .version(http::Version::HTTP_2)
        .header("x-own", "kept")
        .extension("an extension")
        .body(Full::from("the whole body"))
        .unwrap();
    assert_eq!(stack.clone().oneshot(request).await.unwrap().status(), 200);
    assert_eq!(fake.seen_by(AS).len(), 2);
    let served = fake.seen_by(RS);
    assert_eq!(served.len(), 2);
    for seen in &served {
        assert_eq!(seen.method, "PATCH");
        assert_eq!(seen.uri, "https://api.example.com/orders?page=2");
        assert_eq!(seen.version, http::Version::HTTP_2);
        assert_eq!(seen.header("x-own"), Some("kept"));
        assert_eq!(seen.extensions.get(), Some(&"an extension"));
        assert_eq!(seen.body, "the whole body");
    }
    assert_ne!(served[0].claims()["ath"], served[1].claims()["ath"]);
    assert_ne!(served[0].claims()["jti"], served[1].claims()["jti"]);
    // The same with a token from the cache.
    assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
    assert_eq!(fake.seen_by(AS).len(), 2);
}

// Nonces at the authorization server.

fn as_challenge(nonce: &str) -> Response<Full<Bytes>> {
    let body = r#"{"error":"use_dpop_nonce","error_description":"nonce"}"#;
    answer(
        400,
        &[("content-type", "application/json"), ("dpop-nonce", nonce)],
        body,
    )
}

#[tokio::test]
async fn the_authorization_servers_challenge_is_answered() {
    let header_only = |nonce: &str| nonce_challenge(nonce);
    for challenge in [as_challenge as fn(&str) -> _, header_only] {
        let fake = Fake::new(
            move |seen, _| match (seen.uri.host(), seen.nonce().as_deref()) {
                (Some(AS), Some("fresh")) => {
                    let mut answer = token("t", 1);
                    answer
                        .headers_mut()
                        .insert("dpop-nonce", "next".parse().unwrap());
                    answer
                }
                (Some(AS), Some("next")) => token("t", 1),
                (Some(AS), _) => challenge("fresh"),
                _ => ok(),
            },
        );
        let stack = stack(&fake);
        stack.clone().oneshot(get(API)).await.unwrap();
        let asked = fake.seen_by(AS);
        assert_eq!(asked.len(), 2);
        assert_eq!(asked[0].body, asked[1].body);
        assert_ne!(asked[0].claims()["jti"], asked[1].claims()["jti"]);
        assert_eq!(
            fake.seen_by(RS)[0].nonce(),
            None,
            "the nonce is the authorization server's"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_nonce_in_a_successful_answer_is_for_the_next_token_request() {
    let fake = Fake::new(|seen, n| {
        let mut answer = if seen.uri.host() == Some(AS) {
            token("t", 10)
        } else {
            ok()
        };
        answer
            .headers_mut()
            .insert("dpop-nonce", format!("n{n}").parse().unwrap());
        answer
    });
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    stack.clone().oneshot(get(API)).await.unwrap();
    let nonces: Vec<_> = fake.seen().iter().map(support::Seen::nonce).collect();
    assert_eq!(nonces, [None, None, Some("n0".into()), Some("n1".into())]);
}

#[tokio::test]
async fn endless_nonces_at_the_token_endpoint_cost_three_sends() {
    let fake = Fake::new(|_, n| as_challenge(&format!("n{n}")));
    let error = find(&stack(&fake).oneshot(get(API)).await.unwrap_err());
    assert_eq!(error.oauth_error().unwrap().code(), "use_dpop_nonce");
    assert_eq!(fake.seen().len(), 3);

    // A challenge is a refusal.
    let odd = Fake::new(|_, _| {
        let mut answer = nonce_challenge("n");
        *answer.status_mut() = StatusCode::OK;
        answer
    });
    stack(&odd).oneshot(get(API)).await.unwrap_err();
    assert_eq!(odd.seen().len(), 1);

    let same = Fake::new(|_, _| as_challenge("same"));
    stack(&same).oneshot(get(API)).await.unwrap_err();
    assert_eq!(
        same.seen().len(),
        2,
        "no progress with the nonce that was just sent"
    );

    let none = Fake::new(|_, _| answer(400, &[], r#"{"error":"use_dpop_nonce"}"#));
    stack(&none).oneshot(get(API)).await.unwrap_err();
    assert_eq!(none.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_gave_up_nonces_does_not_lock_us_out() {
    let refused =
        r#"{"error":"invalid_dpop_proof","error_description":"nonces are not supported"}"#;
    let fake = Fake::new(move |seen, n| match (seen.uri.host(), n, seen.nonce()) {
        (Some(AS), 0, _) => answer(503, &[("dpop-nonce", "old")], ""),
        (Some(AS), _, Some(_)) => answer(400, &[], refused),
        (Some(AS), _, None) => token("t", 300),
        _ => ok(),
    });
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap_err();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let error = find(&stack.clone().oneshot(get(API)).await.unwrap_err());
    assert_eq!(error.oauth_error().unwrap().code(), "invalid_dpop_proof");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
}

#[tokio::test]
async fn both_servers_may_give_each_nonce_once() {
    let used = std::sync::Mutex::new(std::collections::HashSet::new());
    let fake = Fake::new(move |seen, n| {
        let fresh = format!("n{n}");
        let good = seen
            .nonce()
            .is_some_and(|nonce| used.lock().unwrap().insert(nonce));
        match (seen.uri.host(), good) {
            (Some(AS), true) => token("t", 300),
            (Some(AS), false) => as_challenge(&fresh),
            (_, true) => ok(),
            (_, false) => nonce_challenge(&fresh),
        }
    });
    let stack = stack(&fake);
    let tasks: Vec<_> = (0..20)
        .map(|_| tokio::spawn(stack.clone().oneshot(get(API))))
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
}

// Order and readiness.

#[tokio::test]
async fn a_token_layer_without_dpop_below_is_an_error() {
    let fake = Fake::new(|seen, _| {
        if seen.uri.host() == Some(AS) {
            token("t", 300)
        } else {
            ok()
        }
    });
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, fake.clone());
    let alone = ServiceBuilder::new()
        .layer(tokens.clone())
        .service(fake.clone());
    let inside_out = ServiceBuilder::new()
        .layer(dpop.clone())
        .layer(tokens.clone())
        .service(fake.clone());
    // Another stack of the same layers that is right proves nothing for these.
    let right = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone());
    right.oneshot(get(API)).await.unwrap();
    for _ in 0..2 {
        for result in [
            alone.clone().oneshot(get(API)).await,
            inside_out.clone().oneshot(get(API)).await.map(plain),
        ] {
            let error = find(&result.unwrap_err());
            assert!(error.is_layer_order(), "{error}");
            assert!(
                error.to_string().contains(".layer(tokens).layer(dpop)"),
                "{error}"
            );
        }
    }
    // The first one of a stack, without a token in the cache.
    let tokens = TokenLayer::new(
        &DpopLayer::new(a3_key()),
        fake.clone(),
        request(),
        Audience::origins([API]).unwrap(),
    );
    let error = tokens
        .unwrap()
        .layer(fake)
        .oneshot(get(API))
        .await
        .unwrap_err();
    assert!(find(&error).is_layer_order());
}

#[tokio::test]
async fn path_only_uris_need_an_origin() {
    let fake = servers(300, |_| true);
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, fake.clone());
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop.clone())
        .service(fake.clone());
    let error = find(&stack.oneshot(get("/pkg.Svc/M")).await.unwrap_err());
    assert!(error.is_missing_origin(), "{error}");

    let dpop = dpop.origin(API.parse().unwrap());
    let tokens = token_layer(&dpop, fake.clone());
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone());
    stack.oneshot(get("/pkg.Svc/M")).await.unwrap();
    assert_eq!(
        fake.seen().last().unwrap().claims()["htu"],
        "https://api.example.com/pkg.Svc/M"
    );
}

#[tokio::test]
async fn two_issuers_and_two_keys_share_a_stack() {
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some("as1.example") => token("one", 300),
        Some("as2.example") => token("two", 300),
        _ => ok(),
    });
    let keys = [a3_key(), DpopKey::generate().unwrap()];
    let tokens = |n: usize| {
        TokenLayer::new(
            &DpopLayer::new(keys[n].clone()),
            fake.clone(),
            TokenRequest::client_credentials(format!("https://as{}.example/token", n + 1), "id"),
            Audience::origins([format!("https://api{}.example", n + 1)]).unwrap(),
        )
        .unwrap()
    };
    let stack = ServiceBuilder::new()
        .layer(tokens(0))
        .layer(tokens(1))
        .layer(DpopLayer::new(keys[0].clone()))
        .service(fake.clone());
    for n in [1, 2] {
        stack
            .clone()
            .oneshot(get(&format!("https://api{n}.example/")))
            .await
            .unwrap();
        let asked = &fake.seen_by(&format!("as{n}.example"))[0];
        let served = &fake.seen_by(&format!("api{n}.example"))[0];
        let jwk = |seen: &support::Seen| support::header(seen.proof())["jwk"].to_string();
        assert_eq!(
            jwk(asked),
            jwk(served),
            "the key that the token was asked for with"
        );
        assert_eq!(
            jwk(asked),
            serde_json::from_str::<serde_json::Value>(keys[n - 1].public_jwk())
                .unwrap()
                .to_string()
        );
    }
}

#[tokio::test]
async fn a_token_that_the_caller_brings_is_the_one_that_is_sent() {
    let fake = Fake::new(|_, _| invalid_token());
    let own = DpopKey::generate().unwrap();
    let answer = stack(&fake)
        .oneshot(with_token(get(API), &own_token(&own)))
        .await
        .unwrap();
    assert_eq!(answer.status(), 401, "it is the caller's to renew");
    let seen = fake.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), Some("DPoP own.token"));
}

#[tokio::test]
async fn a_token_for_elsewhere_does_not_stand_in_for_ours() {
    let fake = servers(300, |_| true);
    let elsewhere = Audience::origins(["https://other.example"]).unwrap();
    let token = AccessToken::new("own.token", &a3_key(), elsewhere).unwrap();
    stack(&fake)
        .oneshot(with_token(get(API), &token))
        .await
        .unwrap();
    assert_eq!(fake.seen_by(RS)[0].header("authorization"), Some("DPoP t0"));
}

#[tokio::test]
async fn a_request_to_an_authorization_server_gets_no_token() {
    let fake = Fake::new(|_, _| ok());
    let mut request = get("https://api.example.com/par");
    request.extensions_mut().insert(ToAuthorizationServer::new(
        Audience::origins([API]).unwrap(),
    ));
    request
        .headers_mut()
        .insert("authorization", "Basic eDp5".parse().unwrap());
    stack(&fake).oneshot(request).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), Some("Basic eDp5"));
    assert!(seen[0].claims().get("ath").is_none());
}

#[test]
fn services_and_futures_are_what_tower_needs() {
    fn service<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn future<T: Send + 'static>(_: &T) {}
    let (mock, _handle) = mock::pair::<Request<Full<Bytes>>, Response<Full<Bytes>>>();
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, mock.clone());
    service(&tokens);
    let mut token = tokens.layer(dpop.layer(mock));
    service(&token);
    let _ = (token.get_ref(), format!("{token:?} {tokens:?}"));
    let _ = token.get_mut();
    let ready = tokio_test::task::spawn(std::future::poll_fn(|cx| token.poll_ready(cx))).poll();
    assert!(ready.is_ready());
    future(&token.call(get(API)));
    drop(token.into_inner());
}

#[tokio::test]
async fn a_client_that_is_not_sync_will_do() {
    let fake = servers(300, |_| true);
    let only_send: BoxCloneService<_, _, BoxError> = BoxCloneService::new(fake.clone());
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, only_send);
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake);
    assert_eq!(
        stack.oneshot(get(API)).await.unwrap().status(),
        StatusCode::OK
    );
}

/// A client that remembers what it was sent, as a cache or a recorder does.
#[derive(Clone, Default)]
struct Remembers(Arc<Mutex<Vec<http::Extensions>>>);

#[tokio::test]
async fn a_client_that_remembers_requests_is_let_go_with_its_stack() {
    let client = Remembers::default();
    let memory = Arc::downgrade(&client.0);
    let service = tower::service_fn(move |request: Request<Full<Bytes>>| {
        client.0.lock().unwrap().push(request.extensions().clone());
        let to_as = request.uri().host() == Some(AS);
        async move { Ok::<_, BoxError>(if to_as { token("t", 300) } else { ok() }) }
    });
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop, service.clone());
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(service);
    stack.oneshot(get(API)).await.unwrap();
    // The task of the fetch ends soon.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(
        memory.upgrade().is_none(),
        "the requests hold the client that holds them"
    );
}
