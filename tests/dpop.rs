//! `DpopLayer` from outside: what leaves it, what comes back, what is sent again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{Empty, Full};
use support::{
    API, ENDPOINT, Fake, Seen, a3_key, answer, get, nonce_challenge, ok, own_token, plain, text,
    vectors, with_token,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_dpop::{
    AccessToken, Audience, BoxError, DpopKey, DpopLayer, EmptyBody, Error, NoReplay, Origin,
    ToAuthorizationServer, proof::Check,
};
use tower_test::mock;

fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs()
}

/// Sends requests one after the other through a fresh `Dpop` over `fake`.
async fn send_all(fake: &Fake, paths: &[&str]) -> Vec<Response<Full<Bytes>>> {
    let dpop = DpopLayer::new(a3_key());
    let mut answers = Vec::new();
    for path in paths {
        let request = with_token(get(&format!("{API}{path}")), &own_token(&a3_key()));
        let answer = dpop.layer(fake.clone()).oneshot(request).await.unwrap();
        answers.push(plain(answer));
    }
    answers
}

fn find<T>(result: Result<T, BoxError>) -> Error {
    let error = result.err().expect("an error");
    Error::find(&*error)
        .unwrap_or_else(|| panic!("not ours: {error}"))
        .clone()
}

fn jtis(seen: &[Seen]) -> HashSet<String> {
    seen.iter()
        .map(|seen| seen.claims()["jti"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_request_with_a_token_is_signed() {
    let fake = Fake::new(|_, _| ok());
    let key = a3_key();
    let mut request = with_token(
        get("https://API.example.com:443/orders/%7e?page=2"),
        &own_token(&key),
    );
    *request.method_mut() = http::Method::PATCH;
    DpopLayer::new(key.clone())
        .layer(fake.clone())
        .oneshot(request)
        .await
        .unwrap();

    let seen = &fake.seen()[0];
    assert_eq!(seen.header("authorization"), Some("DPoP own.token"));
    assert_eq!(seen.claims()["htu"], "https://api.example.com/orders/%7e");
    assert_eq!(
        seen.uri, "https://api.example.com/orders/%7e?page=2",
        "the host on the wire is the signed one"
    );
    for name in ["authorization", "dpop"] {
        assert!(seen.headers[name].is_sensitive(), "{name}");
    }
    let valid = Check::new(&seen.method, "https://api.example.com/orders/%7e", now())
        .access_token("own.token", key.thumbprint())
        .verify(&seen.headers)
        .unwrap();
    assert!(valid.has_ath());
    assert_eq!(valid.nonce(), None);
}

#[tokio::test]
async fn headers_of_the_caller_are_replaced_never_doubled() {
    let fake = Fake::new(|_, _| ok());
    let mut request = with_token(get(API), &own_token(&a3_key()));
    for (name, value) in [
        ("authorization", "Basic eDp5"),
        ("dpop", "old"),
        ("DPoP", "older"),
    ] {
        request
            .headers_mut()
            .append(name, HeaderValue::from_static(value));
    }
    request.headers_mut().append(
        "proxy-authorization",
        HeaderValue::from_static("Basic eDp5"),
    );
    DpopLayer::new(a3_key())
        .layer(fake.clone())
        .oneshot(request)
        .await
        .unwrap();
    let seen = &fake.seen()[0];
    assert_eq!(seen.header("authorization"), Some("DPoP own.token"));
    assert_eq!(seen.proof().split('.').count(), 3);
    assert_eq!(seen.header("proxy-authorization"), Some("Basic eDp5"));
}

#[tokio::test]
async fn a_request_that_is_none_of_ours_passes_untouched() {
    let token = own_token(&a3_key());
    for request in [
        get(&format!("{API}/no-token")),
        with_token(get("https://api.example.com.evil.com/"), &token),
        with_token(get("https://example.com/"), &token),
        with_token(get("https://api.example.com:8443/"), &token),
        with_token(get("http://api.example.com/"), &token),
        with_token(get("https://user:pw@other.example/"), &token),
    ] {
        // An answer that would be a challenge to a signed request.
        let fake = Fake::new(|_, _| nonce_challenge("n"));
        let mut request = request;
        let own = ["Bearer own", "Basic two"].map(HeaderValue::from_static);
        for value in &own {
            request.headers_mut().append("authorization", value.clone());
        }
        let uri = request.uri().clone();
        let headers: HeaderMap = request.headers().clone();
        let answer = DpopLayer::new(a3_key())
            .layer(fake.clone())
            .oneshot(request)
            .await
            .unwrap();
        assert_eq!(answer.status(), 401);
        let seen = fake.seen();
        assert_eq!(seen.len(), 1, "{uri}");
        assert_eq!(seen[0].headers, headers, "{uri}");
        assert_eq!(seen[0].uri, uri);
    }
}

#[tokio::test]
async fn any_https_origin_is_any_https_origin() {
    let key = a3_key();
    let token = AccessToken::new("t", &key, Audience::danger_any_https_origin()).unwrap();
    let fake = Fake::new(|_, _| ok());
    let dpop = DpopLayer::new(key).layer(fake.clone());
    for uri in [
        "https://a.example/",
        "https://b.example:8443/",
        "http://127.0.0.1/",
    ] {
        dpop.clone()
            .oneshot(with_token(get(uri), &token))
            .await
            .unwrap();
    }
    let signed: Vec<bool> = fake
        .seen()
        .iter()
        .map(|seen| seen.headers.contains_key("dpop"))
        .collect();
    assert_eq!(signed, [true, true, false]);
}

#[tokio::test]
async fn plain_http_is_for_loopback() {
    let key = a3_key();
    for (origin, secure) in [
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080", true),
        ("http://localhost", true),
        ("http://api.example.com", false),
        ("http://10.0.0.1", false),
    ] {
        let token = AccessToken::new("t", &key, Audience::origins([origin]).unwrap()).unwrap();
        let fake = Fake::new(|_, _| ok());
        let dpop = DpopLayer::new(key.clone());
        let result = dpop
            .layer(fake.clone())
            .oneshot(with_token(get(origin), &token))
            .await;
        if secure {
            assert!(result.is_ok(), "{origin}");
        } else {
            let error = find(result);
            assert!(
                error.is_insecure_http() && error.to_string().contains("https"),
                "{error}"
            );
            assert_eq!(fake.seen().len(), 0, "nothing was sent to {origin}");
            let dpop = dpop.danger_allow_plain_http();
            dpop.layer(fake.clone())
                .oneshot(with_token(get(origin), &token))
                .await
                .unwrap();
            assert_eq!(fake.seen().len(), 1);
        }
    }
}

#[tokio::test]
async fn path_only_uris_need_an_origin() {
    let rows = vectors()["project_htu_emit"].clone();
    let wanted = rows
        .as_array()
        .unwrap()
        .iter()
        .find(|row| {
            row["request_uri_on_wire"]
                .as_str()
                .unwrap()
                .starts_with("/pkg.Svc/M with")
        })
        .unwrap()["emit_htu"]
        .clone();
    let key = a3_key();
    let token = AccessToken::new(
        "t",
        &key,
        Audience::origins(["https://rs.example"]).unwrap(),
    )
    .unwrap();
    let fake = Fake::new(|_, _| ok());

    let dpop = DpopLayer::new(key);
    let error = find(
        dpop.layer(fake.clone())
            .oneshot(with_token(get("/pkg.Svc/M"), &token))
            .await,
    );
    assert!(
        error.is_missing_origin() && error.to_string().contains("DpopLayer::origin"),
        "{error}"
    );
    assert_eq!(fake.seen().len(), 0);

    let origin: Origin = "https://RS.example:443".parse().unwrap();
    let dpop = dpop.origin(origin);
    dpop.layer(fake.clone())
        .oneshot(with_token(get("/pkg.Svc/M"), &token))
        .await
        .unwrap();
    assert_eq!(fake.seen()[0].claims()["htu"], wanted);
    assert_eq!(fake.seen()[0].uri, "/pkg.Svc/M");

    // A request that is none of ours needs none.
    DpopLayer::new(a3_key())
        .layer(fake.clone())
        .oneshot(get("/pkg.Svc/M"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_is_proven_by_its_own_key() {
    let (first, second) = (a3_key(), DpopKey::generate().unwrap());
    let fake = Fake::new(|seen, _| {
        if seen.nonce().is_some() {
            ok()
        } else {
            nonce_challenge("n")
        }
    });
    let dpop = DpopLayer::new(first.clone()).layer(fake.clone());
    for key in [&second, &first] {
        dpop.clone()
            .oneshot(with_token(get(API), &own_token(key)))
            .await
            .unwrap();
    }
    let seen = fake.seen();
    assert_eq!(seen.len(), 4, "each key learns the nonce for itself");
    for (seen, key) in seen.iter().zip([&second, &second, &first, &first]) {
        Check::new(&seen.method, API, now())
            .access_token("own.token", key.thumbprint())
            .verify(&seen.headers)
            .unwrap();
    }
}

#[test]
fn a_token_of_another_key_is_refused() {
    let jwt = vectors()["bound_access_token_jwt"]["jws"]
        .as_str()
        .unwrap()
        .to_owned();
    let audience = Audience::origins([API]).unwrap();
    let error = AccessToken::new(&jwt, &a3_key(), audience.clone()).unwrap_err();
    assert!(error.to_string().contains("cnf.jkt"), "{error}");

    let own = support::sign_jws(
        "{}",
        &format!(r#"{{"cnf":{{"jkt":"{}"}}}}"#, a3_key().thumbprint()),
    );
    assert!(AccessToken::new(&own, &a3_key(), audience.clone()).is_ok());
    for unbound in [
        support::sign_jws("{}", "{}"),
        "a.b.c".to_owned(),
        "a.!.c".replace('!', "~"),
    ] {
        assert!(
            AccessToken::new(&unbound, &a3_key(), audience.clone()).is_ok(),
            "{unbound}"
        );
    }
}

#[tokio::test]
async fn the_same_proof_never_leaves_twice() {
    let fake = Fake::new(|_, n| {
        if n % 3 == 2 {
            ok()
        } else {
            nonce_challenge(&n.to_string())
        }
    });
    let paths = ["/a"; 50];
    send_all(&fake, &paths).await;
    let seen = fake.seen();
    assert_eq!(seen.len(), 150);
    assert_eq!(jtis(&seen).len(), 150);
}

#[tokio::test]
async fn what_can_have_no_token_passes_untouched() {
    let fake = Fake::new(|_, _| ok());
    let dpop = DpopLayer::new(a3_key()).layer(fake.clone());
    for uri in [
        "wss://api.example.com/",
        "unix://2f746d70/x",
        "api.example.com:443",
        "https://api.example.com:99999/",
    ] {
        let request = with_token(get(uri), &own_token(&a3_key()));
        dpop.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(fake.seen().len(), 4);
    assert!(fake.seen().iter().all(|seen| seen.headers.is_empty()));
}

#[tokio::test]
async fn the_host_header_names_the_signed_host() {
    let fake = Fake::new(|_, _| ok());
    let dpop = DpopLayer::new(a3_key()).origin(API.parse().unwrap());
    for (uri, host) in [
        ("https://api.example.com/", Some("other.example.com")),
        ("/path", Some("API.example.com:443")),
        ("/path", Some("api.example.com")),
        ("/path", None),
    ] {
        let mut request = with_token(get(uri), &own_token(&a3_key()));
        if let Some(host) = host {
            request
                .headers_mut()
                .insert("host", HeaderValue::from_static(host));
        }
        dpop.layer(fake.clone()).oneshot(request).await.unwrap();
        let host = host.map(|_| "api.example.com");
        assert_eq!(fake.seen().last().unwrap().header("host"), host);
    }
    // Not even as a second one.
    let mut request = with_token(get(API), &own_token(&a3_key()));
    for host in ["api.example.com", "other.example.com"] {
        request
            .headers_mut()
            .append("host", HeaderValue::from_static(host));
    }
    dpop.layer(fake.clone()).oneshot(request).await.unwrap();
    assert_eq!(
        fake.seen().last().unwrap().header("host"),
        Some("api.example.com")
    );
    // It is the caller's own affair where we do not sign.
    let mut request = get(API);
    request
        .headers_mut()
        .insert("host", HeaderValue::from_static("other.example.com"));
    dpop.layer(fake.clone()).oneshot(request).await.unwrap();
    assert_eq!(
        fake.seen().last().unwrap().header("host"),
        Some("other.example.com")
    );
}

#[tokio::test]
async fn options_of_a_whole_server_is_signed_for_its_root() {
    let fake = Fake::new(|_, _| ok());
    let dpop = DpopLayer::new(a3_key()).origin(API.parse().unwrap());
    let mut request = with_token(get("*"), &own_token(&a3_key()));
    *request.method_mut() = http::Method::OPTIONS;
    dpop.layer(fake.clone()).oneshot(request).await.unwrap();
    assert_eq!(fake.seen()[0].claims()["htu"], "https://api.example.com/");
    assert_eq!(fake.seen()[0].uri, "*");
}

// Nonce challenges.

#[tokio::test]
async fn who_stands_below_sees_the_token_each_time_it_is_sent() {
    let fake = Fake::new(|seen, _| match seen.nonce().as_deref() {
        Some("fresh") => ok(),
        _ => nonce_challenge("fresh"),
    });
    let request = with_token(get(API), &own_token(&a3_key()));
    let dpop = DpopLayer::new(a3_key());
    dpop.layer(fake.clone()).oneshot(request).await.unwrap();
    let seen = fake.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        let token = seen.extensions.get::<AccessToken>().unwrap();
        assert_eq!(token.secret(), "own.token");
        assert_eq!(seen.header("authorization"), Some("DPoP own.token"));
    }
}

#[tokio::test]
async fn a_challenge_is_answered_with_the_nonce_it_offers() {
    let fake = Fake::new(|seen, _| match seen.nonce().as_deref() {
        Some("fresh") => ok(),
        _ => nonce_challenge("fresh"),
    });
    let dpop = DpopLayer::new(a3_key());
    for (path, sends) in [("/1", 2), ("/2", 1), ("/3?x", 1)] {
        let before = fake.seen().len();
        let mut request = with_token(get(&format!("{API}{path}")), &own_token(&a3_key()));
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = Full::from("the whole body");
        *request.version_mut() = http::Version::HTTP_2;
        request.extensions_mut().insert("an extension");
        request
            .headers_mut()
            .insert("x-own", HeaderValue::from_static("kept"));
        let answer = dpop.layer(fake.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        let seen = &fake.seen()[before..];
        assert_eq!(
            seen.len(),
            sends,
            "{path}: a nonce is for the origin, not for the path"
        );
        for seen in seen {
            assert_eq!(seen.method, "POST");
            assert_eq!(seen.claims()["htm"], "POST");
            assert_eq!(seen.uri.to_string(), format!("{API}{path}"));
            assert_eq!(seen.version, http::Version::HTTP_2);
            assert_eq!(seen.extensions.get(), Some(&"an extension"));
            assert_eq!(seen.body, "the whole body");
            assert_eq!(seen.header("x-own"), Some("kept"));
            assert_eq!(seen.header("authorization"), Some("DPoP own.token"));
        }
    }
}

#[tokio::test]
async fn only_a_nonce_challenge_is_answered() {
    let challenge = r#"DPoP error="use_dpop_nonce""#;
    let bearer = r#"Bearer error="use_dpop_nonce""#;
    let lookalike = r#"DPoP error="invalid_token", error_description="not use_dpop_nonce""#;
    // Status and headers of every answer, and how many sends the two requests cost.
    type Row<'a> = (u16, &'a [(&'a str, &'a str)], usize);
    let rows: [Row<'_>; 10] = [
        (
            401,
            &[("www-authenticate", challenge), ("dpop-nonce", "same")],
            3,
        ),
        (
            401,
            &[("www-authenticate", bearer), ("dpop-nonce", "same")],
            3,
        ),
        (
            400,
            &[("www-authenticate", challenge), ("dpop-nonce", "same")],
            3,
        ),
        (
            401,
            &[
                ("www-authenticate", "Bearer realm=\"x\""),
                ("www-authenticate", challenge),
                ("dpop-nonce", "same"),
            ],
            3,
        ),
        (
            401,
            &[
                ("www-authenticate", "Digest error=\"use_dpop_nonce\""),
                ("dpop-nonce", "same"),
            ],
            2,
        ),
        (
            401,
            &[("www-authenticate", lookalike), ("dpop-nonce", "same")],
            2,
        ),
        (401, &[("dpop-nonce", "same")], 2),
        (
            403,
            &[("www-authenticate", challenge), ("dpop-nonce", "same")],
            2,
        ),
        (
            407,
            &[("proxy-authenticate", challenge), ("dpop-nonce", "same")],
            2,
        ),
        (
            200,
            &[("www-authenticate", challenge), ("dpop-nonce", "same")],
            2,
        ),
    ];
    for (status, headers, sends) in rows {
        let owned: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let fake = Fake::new(move |_, _| {
            let headers: Vec<(&str, &str)> = owned.iter().map(|(n, v)| (&**n, &**v)).collect();
            answer(status, &headers, "as it was")
        });
        let mut answers = send_all(&fake, &["/", "/"]).await;
        assert_eq!(fake.seen().len(), sends, "{status} {headers:?}");
        assert_eq!(answers[0].status(), status);
        assert_eq!(text(answers.remove(0)).await, "as it was");
    }
}

#[tokio::test]
async fn the_second_nonce_that_is_offered_is_for_this_request_alone() {
    // A server that gives each nonce once: another request may take the first one, since it is learned at
    // once, but not the second.
    let (mut service, mut server) =
        mock::spawn_layer::<Request<Full<Bytes>>, Response<Full<Bytes>>, _>(DpopLayer::new(
            a3_key(),
        ));
    let request = || with_token(get(API), &own_token(&a3_key()));
    let nonce = |request: &Request<Full<Bytes>>| {
        let claims = support::claims(request.headers()["dpop"].to_str().unwrap());
        claims["nonce"].as_str().map(str::to_owned)
    };
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut first = tokio_test::task::spawn(service.call(request()));
    for (sent, offered) in [(None, "one"), (Some("one"), "two")] {
        let (seen, reply) = server.next_request().await.unwrap();
        assert_eq!(nonce(&seen).as_deref(), sent);
        reply.send_response(nonce_challenge(offered));
        tokio_test::assert_pending!(first.poll());
    }
    tokio_test::assert_ready_ok!(service.poll_ready());
    let second = tokio_test::task::spawn(service.call(request()));
    let (seen, reply) = server.next_request().await.unwrap();
    assert_eq!(nonce(&seen).as_deref(), Some("two"));
    reply.send_response(answer(200, &[("dpop-nonce", "three")], ""));
    let (seen, _) = server.next_request().await.unwrap();
    assert_eq!(nonce(&seen).as_deref(), Some("one"));
    drop(second);
    // What the last answer offers is learned as ever.
    assert_eq!(tokio_test::assert_ready_ok!(first.poll()).status(), 200);
    tokio_test::assert_ready_ok!(service.poll_ready());
    let _third = tokio_test::task::spawn(service.call(request()));
    let (seen, _) = server.next_request().await.unwrap();
    assert_eq!(nonce(&seen).as_deref(), Some("three"));
}

#[tokio::test]
async fn a_request_to_an_authorization_server_has_a_proof_without_ath() {
    let fake = Fake::new(|_, _| nonce_challenge("n"));
    let dpop = DpopLayer::new(a3_key());
    let mark =
        || ToAuthorizationServer::new(Audience::origins(["https://as.example.com"]).unwrap());
    for uri in [ENDPOINT, "https://elsewhere.example/token"] {
        let mut request = get(uri);
        request
            .headers_mut()
            .insert("authorization", HeaderValue::from_static("Basic eDp5"));
        request.extensions_mut().insert(mark());
        dpop.layer(fake.clone()).oneshot(request).await.unwrap();
    }
    let seen = fake.seen();
    assert_eq!(
        seen.len(),
        2,
        "its challenge stands in the body, for whoever reads that"
    );
    let valid = Check::new(&seen[0].method, ENDPOINT, now())
        .verify(&seen[0].headers)
        .unwrap();
    assert!(!valid.has_ath());
    assert_eq!(
        seen[0].header("authorization"),
        Some("Basic eDp5"),
        "the client's authentication stays"
    );
    assert!(
        !seen[1].headers.contains_key("dpop"),
        "no proof for a server that the mark does not name"
    );
}

#[tokio::test]
async fn a_server_that_gave_up_nonces_does_not_lock_us_out() {
    let stray = r#"DPoP error="invalid_dpop_proof", error_description="nonces are not supported""#;
    let fake = Fake::new(move |seen, n| match (n, seen.nonce()) {
        (0, _) => answer(200, &[("dpop-nonce", "old")], ""),
        (_, Some(_)) => answer(401, &[("www-authenticate", stray)], ""),
        (_, None) => ok(),
    });
    let answers = send_all(&fake, &["/", "/", "/", "/"]).await;
    let statuses: Vec<u16> = answers
        .iter()
        .map(|answer| answer.status().as_u16())
        .collect();
    assert_eq!(statuses, [200, 401, 200, 200]);

    // A refusal that offers a nonce, and one of a proof without any, take nothing away.
    let fake = Fake::new(move |_, n| match n {
        0 => answer(200, &[("dpop-nonce", "first")], ""),
        1 => answer(
            401,
            &[("www-authenticate", stray), ("dpop-nonce", "second")],
            "",
        ),
        _ => ok(),
    });
    send_all(&fake, &["/", "/", "/"]).await;
    assert_eq!(fake.seen()[2].nonce().as_deref(), Some("second"));
}

#[tokio::test]
async fn a_request_to_an_authorization_server_has_no_token_and_the_same_care() {
    let fake = Fake::new(|_, _| ok());
    let mark = |origin: &str| ToAuthorizationServer::new(Audience::origins([origin]).unwrap());
    // Also where it is the API's origin, and a token came along.
    let mut request = with_token(get("https://API.example.com/par"), &own_token(&a3_key()));
    request.extensions_mut().insert(mark(API));
    request
        .headers_mut()
        .insert("authorization", HeaderValue::from_static("Basic eDp5"));
    let outer = a3_key();
    let twice = ServiceBuilder::new()
        .layer(DpopLayer::new(outer.clone()))
        .layer(DpopLayer::new(DpopKey::generate().unwrap()))
        .service(fake.clone());
    twice.oneshot(request).await.unwrap();
    let seen = &fake.seen()[0];
    assert_eq!(seen.header("authorization"), Some("Basic eDp5"));
    assert_eq!(seen.uri, "https://api.example.com/par");
    let valid =
        Check::new(&seen.method, "https://api.example.com/par", now()).verify(&seen.headers);
    let valid = valid.unwrap();
    assert!(!valid.has_ath());
    assert_eq!(valid.thumbprint(), outer.thumbprint(), "signed once");

    let mut request = get("http://as.example.com/par");
    request
        .extensions_mut()
        .insert(mark("http://as.example.com"));
    let error = find(
        DpopLayer::new(outer)
            .layer(fake.clone())
            .oneshot(request)
            .await,
    );
    assert!(error.is_insecure_http(), "{error}");
    assert_eq!(fake.seen().len(), 1);
}

// Bodies.

#[tokio::test]
async fn a_body_that_cannot_be_sent_again_is_not() {
    let fake = Fake::new(|seen, _| match seen.nonce() {
        Some(_) => ok(),
        None => nonce_challenge("n"),
    });
    let dpop = DpopLayer::new(a3_key()).replay(NoReplay);
    let request = || {
        with_token(
            Request::post(API).body(Full::from("once")).unwrap(),
            &own_token(&a3_key()),
        )
    };
    let first = dpop.layer(fake.clone()).oneshot(request()).await.unwrap();
    assert_eq!(
        (first.status().as_u16(), text(first).await.as_str()),
        (401, "challenge")
    );
    let second = dpop.layer(fake.clone()).oneshot(request()).await.unwrap();
    assert_eq!(second.status(), 200, "the nonce was remembered");
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn an_empty_body_is_sent_again_though_it_cannot_be_cloned() {
    // A body that is not `Clone`.
    type Once = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;
    let nonces = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = nonces.clone();
    let server = service_fn(move |request: Request<Once>| {
        let nonce = support::claims(request.headers()["dpop"].to_str().unwrap())["nonce"].clone();
        let answer = if nonce.is_null() {
            nonce_challenge("n")
        } else {
            ok()
        };
        log.lock().unwrap().push(nonce);
        async move { Ok::<_, BoxError>(answer) }
    });
    let empty = || {
        Once::new(http_body_util::BodyExt::map_err(
            Empty::new(),
            |never| match never {},
        ))
    };
    let full = || {
        Once::new(http_body_util::BodyExt::map_err(
            Full::from("x"),
            |never| match never {},
        ))
    };
    for (body, status, sends) in [(empty(), 200, 2), (full(), 401, 1)] {
        nonces.lock().unwrap().clear();
        let request = with_token(
            Request::post(API).body(body).unwrap(),
            &own_token(&a3_key()),
        );
        let dpop = DpopLayer::new(a3_key()).replay(EmptyBody);
        let answer = dpop.layer(server.clone()).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(nonces.lock().unwrap().len(), sends);
    }
}

// Order and readiness.

#[tokio::test]
async fn two_dpop_layers_are_an_error() {
    let fake = Fake::new(|_, _| ok());
    let dpop = DpopLayer::new(a3_key());
    let twice = ServiceBuilder::new()
        .layer(dpop.clone())
        .layer(dpop)
        .service(fake.clone());
    let token = own_token(&a3_key());
    let error = find(twice.clone().oneshot(with_token(get(API), &token)).await);
    assert!(error.is_layer_order(), "{error}");
    assert_eq!(fake.seen().len(), 0);
    // What is none of ours passes both.
    twice
        .oneshot(with_token(get("https://other.example/"), &token))
        .await
        .unwrap();
}

#[tokio::test]
async fn errors_of_the_inner_service_pass_unchanged() {
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<Full<Bytes>>, Response<Full<Bytes>>, _>(DpopLayer::new(
            a3_key(),
        ));
    tokio_test::assert_ready_ok!(service.poll_ready());
    let answer = service.call(with_token(get(API), &own_token(&a3_key())));
    handle
        .next_request()
        .await
        .unwrap()
        .1
        .send_error("reset by peer");
    assert_eq!(answer.await.unwrap_err().to_string(), "reset by peer");
    handle.send_error("closed");
    let error = tokio_test::assert_ready_err!(service.poll_ready());
    assert!(error.to_string().contains("closed"), "{error}");
}

#[tokio::test]
async fn a_request_that_cannot_be_signed_never_reaches_the_service() {
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<Full<Bytes>>, Response<Full<Bytes>>, _>(DpopLayer::new(
            a3_key(),
        ));
    tokio_test::assert_ready_ok!(service.poll_ready());
    let token = own_token(&a3_key());
    let error = find(service.call(with_token(get("/path"), &token)).await);
    assert!(error.is_missing_origin());
    // What the ready service held was given back, and the next request is the first that it sees.
    tokio_test::assert_ready_ok!(service.poll_ready());
    let answer = service.call(get(API));
    let (seen, reply) = handle.next_request().await.unwrap();
    assert_eq!(seen.uri(), get(API).uri());
    reply.send_response(ok());
    answer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_holds_no_place() {
    let fake = Fake::new(|_, _| ok());
    let stack = ServiceBuilder::new()
        .layer(DpopLayer::new(a3_key()))
        .concurrency_limit(1)
        .service(fake.clone());
    let mut idle = stack.clone();
    let unsigned = with_token(get("/path"), &own_token(&a3_key()));
    idle.ready()
        .await
        .unwrap()
        .call(unsigned)
        .await
        .unwrap_err();
    let hour = Duration::from_secs(3600);
    let answer = tokio::time::timeout(hour, stack.oneshot(get(API))).await;
    answer.expect("the place is free").unwrap();
    drop(idle);
}

#[test]
fn services_and_futures_are_what_tower_needs() {
    fn service<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn future<T: Send + 'static>(_: &T) {}
    let (mock, _handle) = mock::pair::<Request<Full<Bytes>>, Response<Full<Bytes>>>();
    let mut dpop = DpopLayer::new(a3_key()).layer(mock);
    service(&dpop);
    let _ = dpop.get_ref();
    let _ = dpop.get_mut();
    let ready = tokio_test::task::spawn(std::future::poll_fn(|cx| dpop.poll_ready(cx))).poll();
    assert!(ready.is_ready());
    future(&dpop.call(get(API)));
    drop(dpop.into_inner());
}
