//! The device flow (RFC 8628): when the server is polled, and when no more. In memory, with time that is paused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "support/grants.rs"]
mod grants;

use std::time::Duration;

use http::Response;
use serde_json::json;
use support::{
    API, Answer, Fake, a3_key, answer,
    bench::{AS, secs},
    get, ok, plain, refusal, token_nonce_challenge,
};
use tokio::time::{Instant, timeout};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    DeviceAuthorization, DpopLayer, Error, Grant, OAuthClient, TokenLayer, TokenParameters,
    TokenRequest,
};

use self::grants::{
    DEVICE_CODE, LOST, NEVER, UNREACHABLE, ask, ask_for, client, given, later, layer_of,
    registration,
};

/// What a device is told.
struct Device {
    interval: Option<u64>,
    expires_in: u64,
}

const USUAL: Device = Device {
    interval: Some(5),
    expires_in: 600,
};

/// Polls, with the times since the first one.
struct Polled {
    fake: Fake,
    tokens: TokenLayer,
    begin: Instant,
}

impl Polled {
    /// `answers` those to the polls, the last one for ever.
    async fn new(device: Device, answers: Vec<Answer>) -> Self {
        Self::slow(device, answers, Duration::ZERO).await
    }

    async fn slow(device: Device, answers: Vec<Answer>, delay: Duration) -> Self {
        let mut body = json!({
            "device_code": "canary-device", "user_code": "WDJB-MJHT",
            "verification_uri": "https://as.example.com/verify", "expires_in": device.expires_in,
        });
        if let Some(interval) = device.interval {
            body["interval"] = interval.into();
        }
        let told = answer(200, &[], &body.to_string());
        let fake = Fake::new(move |seen, _| match (seen.uri.host(), seen.uri.path()) {
            (Some(AS), "/device") => told.clone(),
            (Some(AS), _) => answers[(seen.number - 1).min(answers.len() - 1)].clone(),
            _ => ok(),
        })
        .delay_by(move |seen| match seen.uri.path() {
            "/token" => delay,
            _ => Duration::ZERO,
        });
        let dpop = DpopLayer::new(a3_key());
        let device = authorization(&dpop, &fake).await.unwrap();
        let request = TokenRequest::new(registration(), Grant::device_code(&device)).scope("s");
        Self {
            tokens: layer_of(&dpop, &fake, request),
            fake,
            begin: Instant::now(),
        }
    }

    /// Seconds between the begin and each poll.
    fn polls(&self) -> Vec<u64> {
        let seen = self.fake.seen_by(AS);
        let polls = seen.iter().filter(|seen| {
            let is_poll = seen.parameter("grant_type").as_deref() == Some(DEVICE_CODE);
            if is_poll {
                assert_eq!(
                    seen.parameter("device_code").as_deref(),
                    Some("canary-device")
                );
            }
            is_poll
        });
        polls.map(|seen| (seen.at - self.begin).as_secs()).collect()
    }

    async fn ask(&self) -> Result<String, Error> {
        ask(&self.tokens).await
    }
}

async fn authorization(dpop: &DpopLayer, fake: &Fake) -> Result<DeviceAuthorization, Error> {
    let client = OAuthClient::new(dpop, client(fake), registration()).unwrap();
    client.device_authorization(&TokenParameters::new()).await
}

fn pending() -> Answer {
    refusal("authorization_pending")
}

fn code(result: &Result<String, Error>) -> &str {
    let error = result.as_ref().expect_err("no token");
    error.oauth_error().expect("a refusal").code()
}

#[tokio::test(start_paused = true)]
async fn the_interval_is_kept_until_the_user_has_agreed() {
    for (told, interval) in [(Some(7), 7), (None, 5), (Some(0), 1), (Some(300), 300)] {
        let device = Device {
            interval: told,
            expires_in: 3600,
        };
        let answers = vec![pending(), pending(), pending(), given("a", None)];
        let polled = Polled::new(device, answers).await;
        assert_eq!(polled.ask().await.unwrap(), "a");
        let polls = [0, 1, 2, 3].map(|n| n * interval);
        assert_eq!(polled.polls(), polls, "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_says_what_rfc_8628_asks_for_and_has_a_proof_of_its_own() {
    let polled = Polled::new(USUAL, vec![pending(), given("a", None)]).await;
    polled.ask().await.unwrap();
    let [device, first, second] = &polled.fake.seen_by(AS)[..] else {
        panic!("three requests")
    };
    assert_eq!(device.body, "client_id=app");
    let form = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code&\
                device_code=canary-device&scope=s&client_id=app";
    assert_eq!(first.body, form);
    assert_eq!(second.body, form);
    let jti = |seen: &support::Seen| seen.claims()["jti"].to_string();
    assert_ne!(jti(first), jti(second));
    assert_eq!(
        device.claims()["htu"],
        "https://as.example.com/device",
        "a proof for whom it is"
    );
}

#[tokio::test(start_paused = true)]
async fn slow_down_adds_five_seconds_from_then_on() {
    let slow = || refusal("slow_down");
    let answers = vec![
        pending(),
        slow(),
        pending(),
        slow(),
        pending(),
        given("a", None),
    ];
    let polled = Polled::new(USUAL, answers).await;
    polled.ask().await.unwrap();
    assert_eq!(polled.polls(), [0, 5, 15, 25, 40, 55]);
}

/// RFC 8628, section 3.5: on a connection timeout, the interval is to be doubled.
#[tokio::test(start_paused = true)]
async fn a_server_in_trouble_is_asked_ever_more_seldom() {
    for trouble in [
        answer(LOST, &[], ""),
        answer(UNREACHABLE, &[], ""),
        answer(503, &[], ""),
        answer(502, &[], ""),
        answer(200, &[], "<html>"),
    ] {
        let mut answers = vec![trouble; 5];
        answers.push(given("a", None));
        let polled = Polled::new(USUAL, answers).await;
        polled.ask().await.unwrap();
        assert_eq!(
            polled.polls(),
            [0, 10, 30, 70, 130, 190],
            "no longer than a minute"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_is_never_answered_is_given_up_and_the_next_one_made() {
    let polled = Polled::new(
        USUAL,
        vec![pending(), answer(NEVER, &[], ""), given("a", None)],
    )
    .await;
    polled.ask().await.unwrap();
    let polls = polled.polls();
    let [0, 5, last] = polls[..] else {
        panic!("{polls:?}")
    };
    assert!((25..=75).contains(&last), "{last}");
}

/// In trouble or not: never more often than it said.
#[tokio::test(start_paused = true)]
async fn a_long_interval_does_not_get_shorter_by_trouble() {
    let device = Device {
        interval: Some(200),
        expires_in: 3600,
    };
    let answers = vec![
        pending(),
        answer(503, &[], ""),
        pending(),
        refusal("slow_down"),
        answer(LOST, &[], ""),
        given("a", None),
    ];
    let polled = Polled::new(device, answers).await;
    polled.ask().await.unwrap();
    let polls = polled.polls();
    let gaps: Vec<_> = polls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= 200), "{gaps:?}");
    assert!(gaps[3] >= gaps[2] + 5 && gaps[4] >= gaps[3], "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let busy = answer(503, &[("retry-after", "45")], "");
    let polled = Polled::new(USUAL, vec![pending(), busy, given("a", None)]).await;
    polled.ask().await.unwrap();
    assert_eq!(polled.polls(), [0, 5, 50]);
}

#[tokio::test(start_paused = true)]
async fn what_the_user_or_time_has_decided_is_the_end() {
    for end in ["access_denied", "expired_token", "invalid_grant"] {
        let polled = Polled::new(USUAL, vec![pending(), refusal(end), given("a", None)]).await;
        for _ in 0..4 {
            assert_eq!(code(&polled.ask().await), end);
            later().await;
        }
        assert_eq!(
            polled.polls(),
            [0, 5],
            "{end}: nothing is sent for it again"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_client_is_told_and_the_device_code_kept() {
    let polled = Polled::new(
        USUAL,
        vec![pending(), refusal("invalid_client"), given("a", None)],
    )
    .await;
    assert_eq!(code(&polled.ask().await), "invalid_client");
    later().await;
    polled.ask().await.unwrap();
    assert_eq!(polled.polls().len(), 3);
}

/// Whatever the reason why a poll failed, the next one waits for the interval.
#[tokio::test(start_paused = true)]
async fn callers_that_come_again_do_not_make_the_polls_more_frequent() {
    let device = Device {
        interval: Some(20),
        expires_in: 600,
    };
    let polled = Polled::new(device, vec![refusal("invalid_client")]).await;
    for _ in 0..100 {
        assert_eq!(code(&polled.ask().await), "invalid_client");
        tokio::time::sleep(secs(1)).await;
    }
    let polls = polled.polls();
    let soon = polls.windows(2).any(|pair| pair[1] - pair[0] < 20);
    assert!(!soon && polls.len() > 2, "{polls:?}");
}

#[tokio::test(start_paused = true)]
async fn the_servers_expires_in_bounds_it() {
    for answers in [
        vec![pending()],
        vec![pending(), refusal("slow_down"), pending()],
        vec![pending(), answer(LOST, &[], "")],
        vec![answer(503, &[], "")],
    ] {
        let device = Device {
            interval: Some(5),
            expires_in: 31,
        };
        let polled = Polled::new(device, answers).await;
        let error = polled.ask().await.unwrap_err();
        assert!(polled.begin.elapsed() <= secs(31), "{error}");
        let polls = polled.polls();
        assert!(polls.len() > 1 && *polls.last().unwrap() < 31, "{polls:?}");
        // A code that has ended is no code any more.
        tokio::time::sleep(secs(31)).await;
        for _ in 0..5 {
            let error = polled.ask().await.unwrap_err();
            assert!(error.is_permanent() && error.is_grant_over(), "{error:?}");
            later().await;
        }
        assert_eq!(polled.polls(), polls, "nothing is sent for it");
    }
}

#[tokio::test(start_paused = true)]
async fn who_begins_too_late_sends_nothing() {
    let device = Device {
        interval: Some(5),
        expires_in: 31,
    };
    let polled = Polled::new(device, vec![given("a", None)]).await;
    tokio::time::sleep(secs(32)).await;
    let error = polled.ask().await.unwrap_err();
    assert!(error.is_grant_over(), "{error:?}");
    assert!(polled.polls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_neither_end_nor_double_the_polling() {
    let mut answers = vec![pending(); 20];
    answers.push(given("a", None));
    let polled = Polled::new(USUAL, answers).await;
    let mut given_up = 0;
    loop {
        // More often than the polls, and out of step with them.
        match timeout(Duration::from_millis(1300), polled.ask()).await {
            Err(_) => given_up += 1,
            Ok(result) => break assert_eq!(result.unwrap(), "a"),
        }
    }
    assert_eq!(given_up, 76);
    let every_five: Vec<_> = (0..21).map(|n| n * 5).collect();
    assert_eq!(polled.polls(), every_five);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_gone_leaves_the_polling_to_itself() {
    let polled = Polled::new(USUAL, vec![pending(), pending(), given("a", None)]).await;
    assert!(timeout(secs(1), polled.ask()).await.is_err());
    tokio::time::sleep(secs(30)).await;
    assert_eq!(polled.polls(), [0, 5, 10], "nobody waited");
    let begin = Instant::now();
    assert_eq!(polled.ask().await.unwrap(), "a");
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn many_callers_share_the_polling() {
    let answers = vec![pending(), pending(), given("a", "canary-r1")];
    let polled = Polled::slow(USUAL, answers, Duration::from_millis(700)).await;
    let asking = (0..50).map(|number| {
        let tokens = polled.tokens.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200 * number)).await;
            ask(&tokens).await
        })
    });
    for asking in asking.collect::<Vec<_>>() {
        assert_eq!(asking.await.unwrap().unwrap(), "a");
    }
    assert_eq!(polled.polls().len(), 3);
    assert_eq!(polled.fake.most_open(AS), 1);
}

#[tokio::test(start_paused = true)]
async fn then_there_is_a_refresh_token_like_any_other() {
    let answers = vec![
        pending(),
        given("a0", "canary-r1"),
        given("a1", None),
        given("a2", None),
    ];
    let polled = Polled::new(USUAL, answers).await;
    for number in 0..3 {
        assert_eq!(polled.ask().await.unwrap(), format!("a{number}"));
        later().await;
    }
    let seen = polled.fake.seen_by(AS);
    let tokens: Vec<_> = seen
        .iter()
        .filter_map(|seen| seen.parameter("refresh_token"))
        .collect();
    assert_eq!(tokens, ["canary-r1", "canary-r1"]);
    assert_eq!(polled.polls(), [0, 5]);
}

#[tokio::test(start_paused = true)]
async fn without_one_the_grant_is_over() {
    let polled = Polled::new(USUAL, vec![given("a0", None)]).await;
    polled.ask().await.unwrap();
    later().await;
    assert!(polled.ask().await.unwrap_err().is_grant_over());
    assert_eq!(polled.polls(), [0]);
}

/// RFC 8628 has none for it: the code is for what was asked at the device authorization endpoint.
#[tokio::test(start_paused = true)]
async fn own_parameters_are_for_the_refresh_token() {
    let answers = vec![pending(), given("a0", "canary-r1"), given("a1", None)];
    let polled = Polled::new(USUAL, answers).await;
    let own = TokenParameters::new().scope("own");
    assert_eq!(ask_for(&polled.tokens, &own).await.unwrap(), "a1");
    let seen = polled.fake.seen_by(AS);
    let scopes: Vec<_> = seen[1..]
        .iter()
        .map(|seen| seen.parameter("scope").unwrap())
        .collect();
    assert_eq!(scopes, ["s", "s", "own"]);
}

#[tokio::test(start_paused = true)]
async fn a_nonce_challenge_is_answered_at_once() {
    let answers = vec![token_nonce_challenge("n"), pending(), given("a", None)];
    let polled = Polled::new(USUAL, answers).await;
    polled.ask().await.unwrap();
    assert_eq!(polled.polls(), [0, 0, 5]);
}

/// It is good once anyway.
#[tokio::test(start_paused = true)]
async fn a_device_code_that_is_said_to_be_good_once_is_polled_for_all_the_same() {
    let polled = Polled::new(USUAL, vec![pending(), pending(), given("a", None)]).await;
    let dpop = DpopLayer::new(a3_key());
    let device = authorization(&dpop, &polled.fake).await.unwrap();
    let grant = Grant::device_code(&device).once();
    let request = TokenRequest::new(registration(), grant).scope("s");
    let begin = Instant::now();
    // The second device authorization was the answer's number 1.
    assert_eq!(
        ask(&layer_of(&dpop, &polled.fake, request)).await.unwrap(),
        "a"
    );
    assert_eq!(begin.elapsed(), secs(5));
}

/// A device code that was used up is refused like any other: no harm is done by asking.
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_costs_at_most_the_code() {
    let answers = vec![
        pending(),
        answer(LOST, &[], ""),
        refusal("invalid_grant"),
        given("a", None),
    ];
    let polled = Polled::new(USUAL, answers).await;
    assert_eq!(code(&polled.ask().await), "invalid_grant");
    later().await;
    assert_eq!(code(&polled.ask().await), "invalid_grant");
    assert_eq!(polled.polls(), [0, 5, 15]);
}

#[test]
fn a_runtime_that_dies_while_it_polls_leaves_the_next_one_to_go_on() {
    let runtime = |()| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap()
    };
    let first = runtime(());
    let polled = first.block_on(async {
        let polled = Polled::new(USUAL, vec![pending(), pending(), given("a", None)]).await;
        assert!(timeout(secs(7), polled.ask()).await.is_err());
        polled
    });
    drop(first);
    assert_eq!(polled.polls(), [0, 5]);
    runtime(()).block_on(async { assert_eq!(polled.ask().await.unwrap(), "a") });
    assert_eq!(polled.polls().len(), 3);
}

/// The API waits for the user, through the whole stack.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_the_user() {
    let polled = Polled::new(USUAL, vec![pending(), pending(), given("a", None)]).await;
    let api = ServiceBuilder::new()
        .map_response(plain)
        .layer(polled.tokens.clone())
        .layer(DpopLayer::new(a3_key()))
        .service(polled.fake.clone());
    let response: Result<Response<_>, BoxError> = api.oneshot(get(API)).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(polled.polls(), [0, 5, 10]);
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_to_the_user_can_be_shown() {
    let right = json!({
        "device_code": "canary-device", "user_code": "WDJB-MJHT", "expires_in": 1800,
        "verification_uri": "https://as.example.com/verify",
        "verification_uri_complete": "https://as.example.com/verify?user_code=WDJB-MJHT",
    });
    let told = |body: serde_json::Value| {
        let fake = Fake::new(move |_, _| answer(200, &[], &body.to_string()));
        async move { authorization(&DpopLayer::new(a3_key()), &fake).await }
    };
    let device = told(right.clone()).await.unwrap();
    assert_eq!(device.user_code(), "WDJB-MJHT");
    assert_eq!(device.verification_uri(), "https://as.example.com/verify");
    assert_eq!(
        device.verification_uri_complete(),
        Some("https://as.example.com/verify?user_code=WDJB-MJHT")
    );
    assert_eq!(device.expires_in(), secs(1800));
    let shown = format!("{device:?}");
    assert!(
        !shown.contains("canary") && !shown.contains("WDJB"),
        "{shown}"
    );

    let with = |name: &str, value: serde_json::Value| {
        let mut body = right.clone();
        body[name] = value;
        body
    };
    let long = "A".repeat(65);
    for (name, bad) in [
        ("user_code", json!("\u{1b}[2J\u{1b}[1;1Hyour password:")),
        ("user_code", json!("AB\nCD")),
        ("user_code", json!("ΑΒ-ΓΔ")),
        ("user_code", json!(long)),
        ("user_code", json!("")),
        ("user_code", json!(12)),
        ("device_code", json!("")),
        ("device_code", json!(null)),
        ("expires_in", json!(null)),
        ("expires_in", json!("soon")),
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("file:///etc/passwd")),
        ("verification_uri", json!("/verify")),
        (
            "verification_uri",
            json!("https://as.example.com/\u{1b}[31m"),
        ),
        // The same for a terminal that knows the control characters of ISO 6429 in one piece.
        (
            "verification_uri",
            json!("https://as.example.com/\u{9b}31m"),
        ),
        // Which some show as `https://as.example.com/moc.elpmaxe`, and others not.
        (
            "verification_uri",
            json!("https://as.example.com/\u{202e}x"),
        ),
        ("verification_uri", json!(["https://as.example.com/"])),
        ("verification_uri", json!("")),
    ] {
        let error = told(with(name, bad.clone())).await.expect_err("it is bad");
        grants::no_secret(&error);
        assert!(
            error.is_token_request() && error.to_string().contains(name),
            "{bad}: {error}"
        );
    }
    // What cannot be shown as a QR code is left out: the user can type.
    for bad in ["javascript:alert(1)", "https://as.example.com/\u{9b}31m"] {
        let body = with("verification_uri_complete", json!(bad));
        let device = told(body).await.unwrap();
        assert_eq!(device.verification_uri_complete(), None, "{bad}");
    }
    // As drafts called it.
    let mut body = with("verification_url", json!("https://as.example.com/old"));
    body["verification_uri"] = json!(null);
    let device = told(body).await.unwrap();
    assert_eq!(device.verification_uri(), "https://as.example.com/old");
    // And what is out of all proportion is cut to it.
    for (told_life, life) in [
        (json!(0), 1),
        (json!(1_000_000), 3600),
        (json!(u64::MAX), 3600),
    ] {
        let device = told(with("expires_in", told_life.clone())).await;
        let life_of = device.map(|device| device.expires_in());
        assert_eq!(life_of.unwrap(), secs(life), "{told_life}");
    }
}

/// "The server is asked from time to time, and whoever wants a token meanwhile waits."
#[tokio::test(start_paused = true)]
async fn whoever_wants_a_token_while_the_user_decides_waits() {
    let begin = tokio::time::Instant::now();
    let fake = Fake::new(move |seen, _| {
        if seen.uri.path() == "/device" {
            let device = r#"{"device_code":"canary-d","user_code":"A","verification_uri":"https://as.example.com/",
                "expires_in":3600}"#;
            return answer(200, &[], device);
        }
        match seen.parameter("refresh_token") {
            None if begin.elapsed() < secs(300) => refusal("authorization_pending"),
            _ => given("a", "canary-r1"),
        }
    });
    let dpop = DpopLayer::new(a3_key());
    let app = OAuthClient::new(&dpop, client(&fake), registration()).unwrap();
    let device = app
        .device_authorization(&TokenParameters::new())
        .await
        .unwrap();
    let tokens = layer_of(&dpop, &fake, grants::by(Grant::device_code(&device)));
    let own = TokenParameters::new().scope("own");
    let (first, second) = tokio::join!(ask(&tokens), ask_for(&tokens, &own));
    first.unwrap();
    second.unwrap();
}
