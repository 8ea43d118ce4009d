//! What the layers tell a log (feature `tracing`): how often, how loud, and never a secret.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::{Duration, SystemTime};

use http::{Response, header::DATE};
use support::{
    API, ENDPOINT, Fake, a3_key, answer,
    bench::{AS, challenging},
    get, invalid_token, nonce_challenge, ok,
    saves::saves,
    token,
    told::{Span, Told},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_dpop::{Audience, DpopLayer, TokenLayer, TokenRequest};
use tracing::Level;

/// What `requests` requests make the layers tell, a second apart. Nothing of it is a secret.
async fn told(fake: &Fake, requests: usize) -> Told {
    let told = Told::default();
    let _listening = told.listen();
    let dpop = DpopLayer::new(a3_key());
    let request =
        TokenRequest::client_credentials(ENDPOINT, "m2m.dpop").client_secret_post("s3cret");
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, fake.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone());
    for _ in 0..requests {
        let _ = stack.clone().oneshot(get(API)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let all = told.all();
    for secret in ["s3cret", "t0ken", "eyJ", "n0nce"] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    told
}

#[tokio::test(start_paused = true)]
async fn an_expected_nonce_challenge_is_told_quietly() {
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.nonce()) {
        (Some(AS), None) => answer(
            400,
            &[("dpop-nonce", "n0nce-of-as")],
            r#"{"error":"use_dpop_nonce"}"#,
        ),
        (Some(AS), _) => token("t0ken", 300),
        (_, None) => nonce_challenge("n0nce-of-rs"),
        _ => ok(),
    });
    let told = told(&fake, 2).await;
    assert_eq!(
        told.count(Level::DEBUG, "asks for another nonce"),
        2,
        "{}",
        told.all()
    );
    assert_eq!(
        told.count(
            Level::DEBUG,
            r#"server.address="as.example.com" server.port=443"#
        ),
        1
    );
    assert_eq!(
        told.count(
            Level::DEBUG,
            r#"server.address="api.example.com" server.port=443"#
        ),
        1
    );
    assert_eq!(told.count(Level::DEBUG, "an access token arrived"), 1);
    assert_eq!(told.len(), 3, "{}", told.all());
}

/// T25 of `traps.rs`: others log what is expected as a failure.
#[tokio::test(start_paused = true)]
async fn t25_an_everyday_challenge_is_told_as_no_error() {
    let told = told(&challenging(), 1).await;
    assert_eq!(told.len(), told.count(Level::DEBUG, ""), "{}", told.all());
    let sends = told.spans("send");
    assert_eq!(sends.len(), 4, "two of them challenged");
    let failed = |send: &Span| send.fields.contains("error.type");
    assert!(!sends.iter().any(failed), "{sends:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_once_for_each_step_of_the_back_off() {
    let body = r#"{"error":"invalid_client","error_description":"not s3cret"}"#;
    let fake = Fake::new(move |_, _| answer(401, &[], body));
    let told = told(&fake, 60).await;
    let asked = fake.seen_by(AS).len();
    assert!((5..15).contains(&asked), "{asked} fetches in a minute");
    assert_eq!(told.count(Level::WARN, "no access token"), asked);
    assert_eq!(told.count(Level::WARN, "permanent=true"), asked);
    assert_eq!(told.len(), asked, "{}", told.all());
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_told_once() {
    let fake = Fake::new(|seen, n| match (seen.uri.host(), n) {
        (Some(AS), n) => token(&format!("t0ken{n}"), 300),
        (_, 1) => invalid_token(),
        _ => ok(),
    });
    let told = told(&fake, 3).await;
    assert_eq!(told.count(Level::INFO, "refused the access token"), 1);
    assert_eq!(told.count(Level::DEBUG, "an access token arrived"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_missing_life_and_a_wrong_clock_are_warned_of() {
    let an_hour_ahead = || {
        let time = SystemTime::now() + Duration::from_secs(3600);
        httpdate::fmt_http_date(time)
    };
    let fake = Fake::new(move |seen, _| {
        let iat = seen.claims()["iat"].as_u64().unwrap();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut answer: Response<_> = match seen.uri.host() {
            Some(AS) => answer(
                200,
                &[],
                r#"{"access_token":"t0ken","token_type":"DPoP","expires_in":null}"#,
            ),
            _ if iat < now + 3500 => answer(
                401,
                &[("www-authenticate", r#"DPoP error="invalid_dpop_proof""#)],
                "",
            ),
            _ => ok(),
        };
        answer
            .headers_mut()
            .insert(DATE, an_hour_ahead().parse().unwrap());
        answer
    });
    let told = told(&fake, 3).await;
    assert_eq!(
        told.count(Level::WARN, "assumed_seconds=300"),
        1,
        "{}",
        told.all()
    );
    assert_eq!(
        told.count(Level::WARN, "offset_seconds=3"),
        1,
        "{}",
        told.all()
    );
    assert_eq!(
        told.count(Level::WARN, r#"server.address="api.example.com""#),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_changes_again_is_told_quietly() {
    // Two nodes behind one name, an hour apart.
    let fake = Fake::new(|seen, n| {
        if seen.uri.host() == Some(AS) {
            return token("t0ken", 3600);
        }
        let iat =
            SystemTime::UNIX_EPOCH + Duration::from_secs(seen.claims()["iat"].as_u64().unwrap());
        let node = SystemTime::now() + Duration::from_secs(3600) * (n as u32 % 2);
        let off = node
            .duration_since(iat)
            .unwrap_or_else(|error| error.duration());
        if off < Duration::from_secs(60) {
            return ok();
        }
        let date = httpdate::fmt_http_date(node);
        answer(
            401,
            &[
                ("www-authenticate", r#"DPoP error="invalid_dpop_proof""#),
                ("date", &date),
            ],
            "",
        )
    });
    let told = told(&fake, 20).await;
    assert_eq!(
        told.count(Level::WARN, "offset_seconds"),
        1,
        "{}",
        told.all()
    );
    assert!(
        told.count(Level::DEBUG, "another again") > 1,
        "{}",
        told.all()
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_told_without_what_it_says_of_the_token() {
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some(AS) => answer(
            200,
            &[],
            r#"{"access_token":"a","token_type":"DPoP","expires_in":300,"refresh_token":"s3cret/+"}"#,
        ),
        _ => ok(),
    });
    let told = Told::default();
    let _listening = told.listen();
    let dpop = DpopLayer::new(a3_key());
    let request = TokenRequest::refresh_token(ENDPOINT, "app", "r0").store(saves(|token| {
        let form: String = form_urlencoded::byte_serialize(token.as_bytes()).collect();
        async move { Err(format!("PUT /{form} failed:\n{token}").into()) }
    }));
    let audience = Audience::origins([API]).unwrap();
    let tokens = TokenLayer::new(&dpop, fake, request, audience).unwrap();
    tokens.access_token().await.unwrap();
    let all = told.all();
    assert_eq!(told.count(Level::WARN, "could not be stored"), 1, "{all}");
    assert_eq!(told.count(Level::WARN, "PUT /*** failed:?***"), 1, "{all}");
    assert!(!all.contains("s3cret"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn each_sending_is_a_span_with_the_fields_of_opentelemetry() {
    let fake = Fake::failing(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), 0) => Ok(answer(
            400,
            &[("dpop-nonce", "n0nce-of-as")],
            r#"{"error":"use_dpop_nonce"}"#,
        )),
        (Some(AS), _) => Ok(token("t0ken", 300)),
        (_, 0) => Ok(nonce_challenge("n0nce-of-rs")),
        (_, 1) => Ok(ok()),
        (_, 2) => Ok(answer(404, &[], "")),
        _ => Err("gone".into()),
    });
    let told = told(&fake, 3).await;

    let fetches = told.spans("fetch_token");
    assert_eq!(fetches.len(), 1, "{}", told.all());
    assert_eq!(fetches[0].fields, r#"cause="first" "#);
    assert_eq!(fetches[0].parent, None, "it outlives the caller");

    let send = |method, address, rest: &str| {
        let fields = format!(
            "otel.kind=\"client\" http.request.method=\"{method}\" server.address=\"{address}\" \
             server.port=443 {rest} "
        );
        (Level::DEBUG, fields)
    };
    let sends = told.spans("send");
    let found: Vec<_> = sends
        .iter()
        .map(|span| (span.level, span.fields.clone()))
        .collect();
    let expected = [
        send("POST", "as.example.com", "http.response.status_code=400"),
        send("POST", "as.example.com", "http.response.status_code=200"),
        // A challenge that is answered is no error.
        send("GET", "api.example.com", "http.response.status_code=401"),
        send(
            "GET",
            "api.example.com",
            "http.request.resend_count=1 http.response.status_code=200",
        ),
        send(
            "GET",
            "api.example.com",
            "http.response.status_code=404 error.type=\"404\"",
        ),
        send("GET", "api.example.com", "error.type=\"_OTHER\""),
    ];
    assert_eq!(found, expected, "{}", told.all());
    assert_eq!(sends[0].parent, Some("fetch_token"));
    assert_eq!(sends[2].parent, None);
}

#[tokio::test]
async fn what_is_told_below_is_told_within_the_span() {
    let fake = Fake::new(|seen, _| {
        tracing::info!(target: "tower_dpop", "below");
        match seen.uri.host() {
            Some(AS) => token("t0ken", 300),
            _ => ok(),
        }
    });
    let told = told(&fake, 2).await;
    let sends = told.spans("send");
    assert_eq!(sends.len(), 3);
    assert!(sends.iter().all(|send| send.events == 1), "{sends:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_says_of_what_kind_and_a_renewal_why() {
    let fake = Fake::new(|seen, n| match (seen.uri.host(), n) {
        (Some(AS), 0) => answer(401, &[], r#"{"error":"invalid_client"}"#),
        (Some(AS), n) => token(&format!("t0ken{n}"), 300),
        (_, 2) => invalid_token(),
        _ => ok(),
    });
    let told = told(&fake, 2).await;
    let fetches: Vec<_> = told
        .spans("fetch_token")
        .into_iter()
        .map(|span| span.fields)
        .collect();
    assert_eq!(
        fetches,
        [
            "cause=\"first\" error.type=\"refused\" ",
            "cause=\"first\" ",
            "cause=\"refused\" "
        ]
    );
    let ends: Vec<_> = told
        .spans("fetch_token")
        .into_iter()
        .map(|span| span.events)
        .collect();
    assert_eq!(ends, [1, 1, 1], "its end is told within it");
    let resent = told.spans("send").pop().unwrap();
    assert!(
        resent.fields.contains("http.request.resend_count=1"),
        "{resent:?}"
    );
}
