//! How often one request is sent, whatever the servers answer: four times at the most over both layers, and
//! only as far as its body may be sent again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Channel, Full};
use support::{
    API, Answer, ENDPOINT, Fake, a3_key, and, answer, bench,
    bench::{AS, RS, Wall, audience, request, secs, servers, stack},
    get, invalid_token, nonce_challenge, ok, own_token, plain, refusal, text, token, token_layer,
    with_token,
};
use tower::{BoxError, ServiceBuilder, ServiceExt, retry};
use tower_dpop::{
    CloneBody, DpopLayer, EmptyBody, ForceRenewal, IdempotentOnly, NoReplay, RecordedBody, Replay,
    ReplayBody, TokenLayer,
};

fn method(method: &Method, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(API);
    request.body(Full::from(body)).unwrap()
}

/// The layers, of which the token layer has a policy of its own.
async fn renewed_with<R>(policy: R, request: Request<Full<Bytes>>) -> (Answer, Fake)
where
    R: Replay<Full<Bytes>> + Clone + Send + Sync + 'static,
{
    // The first token is refused.
    let fake = servers(300, |number| number > 0);
    let dpop = DpopLayer::new(a3_key());
    let tokens = token_layer(&dpop.clone().replay(policy), fake.clone());
    let stack = ServiceBuilder::new()
        .map_response(plain)
        .layer(tokens)
        .layer(dpop)
        .service(fake.clone());
    let answer = stack.clone().oneshot(request).await.unwrap();
    // The token is renewed all the same, for the next request.
    assert_eq!(stack.oneshot(get(API)).await.unwrap().status(), 200);
    assert_eq!(fake.hits(AS), 2);
    (answer, fake)
}

#[tokio::test]
async fn without_replay_the_renewal_is_for_the_next_request() {
    let (answer, fake) = renewed_with(NoReplay, method(&Method::GET, "")).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(text(answer).await, "refused");
    assert_eq!(fake.hits(RS), 1 + 1);
}

#[tokio::test]
async fn idempotent_methods_are_sent_again_others_are_not() {
    for (name, sent_again) in [
        (Method::GET, true),
        (Method::HEAD, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::OPTIONS, true),
        (Method::POST, false),
        (Method::PATCH, false),
    ] {
        let policy = IdempotentOnly(CloneBody);
        let (answer, fake) = renewed_with(policy, method(&name, "the body")).await;
        assert_eq!(
            answer.status(),
            if sent_again { 200 } else { 401 },
            "{name}"
        );
        assert_eq!(fake.hits(RS), 1 + usize::from(sent_again) + 1, "{name}");
        let sent = fake.seen_by(RS);
        let of_it = &sent[..sent.len() - 1];
        assert!(
            of_it
                .iter()
                .all(|seen| seen.body == "the body" && seen.method == name)
        );
    }
}

#[tokio::test]
async fn unless_told_otherwise_any_body_that_can_be_cloned_is_sent_again() {
    let (answer, fake) = renewed_with(CloneBody, method(&Method::POST, "the body")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(fake.hits(RS), 2 + 1);
    assert!(
        fake.seen_by(RS)[..2]
            .iter()
            .all(|seen| seen.body == "the body")
    );
}

#[tokio::test]
async fn a_policy_narrows_what_the_one_within_it_allows() {
    for (body, sent_again) in [("", true), ("the body", false)] {
        let policy = IdempotentOnly(EmptyBody);
        let (answer, _) = renewed_with(policy, method(&Method::PUT, body)).await;
        assert_eq!(
            answer.status(),
            if sent_again { 200 } else { 401 },
            "`{body}`"
        );
    }
}

#[tokio::test]
async fn a_policy_of_the_lower_layer_is_for_nonces_and_clocks() {
    for (name, sent_again) in [(Method::GET, true), (Method::POST, false)] {
        let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.nonce()) {
            (Some(AS), _) => token("t", 300),
            (_, None) => nonce_challenge("n"),
            _ => ok(),
        });
        let dpop = DpopLayer::new(a3_key()).replay(IdempotentOnly(CloneBody));
        let tokens = token_layer(&dpop, fake.clone());
        let stack = ServiceBuilder::new()
            .layer(tokens)
            .layer(dpop)
            .service(fake.clone());
        let answer = stack
            .clone()
            .oneshot(method(&name, "the body"))
            .await
            .unwrap();
        assert_eq!(
            answer.status(),
            if sent_again { 200 } else { 401 },
            "{name}"
        );
        // The nonce is remembered.
        assert_eq!(
            stack.oneshot(method(&name, "")).await.unwrap().status(),
            200
        );
        assert_eq!(fake.hits(RS), 2 + usize::from(sent_again));
    }
}

/// What a server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Ok,
    OtherNonce,
    InvalidToken,
    OtherTime,
}

/// How often a request is sent to a server that answers so, and goes on with the last of it.
fn sends(says: &[Says]) -> usize {
    let (mut nonces, mut corrections) = (2, 1);
    let mut sends = 0;
    loop {
        let answer = says[sends.min(says.len() - 1)];
        sends += 1;
        let left = match answer {
            Says::Ok => return sends,
            Says::OtherNonce => &mut nonces,
            Says::InvalidToken | Says::OtherTime => &mut corrections,
        };
        if *left == 0 {
            return sends;
        }
        *left -= 1;
    }
}

/// One server answers so, the other one is well.
fn saying(host: &'static str, says: Vec<Says>, wall: &Wall) -> Fake {
    let clock = wall.clone();
    Fake::new(move |seen, _| {
        let n = seen.number;
        let nonce = format!("n{n}");
        let well = match seen.uri.host() {
            Some(AS) => token(&format!("t{n}"), 300),
            _ => ok(),
        };
        if seen.uri.host() != Some(host) || seen.uri.path() == "/warm" {
            return well;
        }
        let before = usize::from(seen.headers.contains_key("warmed"));
        match (says[(n - before).min(says.len() - 1)], host) {
            (Says::Ok, _) => well,
            (Says::InvalidToken, _) => invalid_token(),
            (Says::OtherNonce, AS) => and(refusal("use_dpop_nonce"), "dpop-nonce", &nonce),
            (Says::OtherNonce, _) => nonce_challenge(&nonce),
            (Says::OtherTime, host) => {
                // Another one each time, so that there is something to learn.
                let date = clock.now() + secs(1000 * (n as u64 + 1));
                let refused = match host {
                    AS => refusal("invalid_dpop_proof"),
                    _ => answer(
                        400,
                        &[("www-authenticate", r#"DPoP error="invalid_dpop_proof""#)],
                        "",
                    ),
                };
                and(refused, "date", &httpdate::fmt_http_date(date))
            }
        }
    })
}

/// All rows of four.
fn rows(of: &[Says]) -> Vec<Vec<Says>> {
    let mut rows = vec![Vec::new()];
    for _ in 0..4 {
        rows = rows
            .iter()
            .flat_map(|row: &Vec<Says>| {
                of.iter()
                    .map(move |says| row.iter().copied().chain([*says]).collect())
            })
            .collect();
    }
    rows
}

#[tokio::test(start_paused = true)]
async fn no_row_of_answers_brings_a_resource_server_a_fifth_send() {
    let all = [
        Says::Ok,
        Says::OtherNonce,
        Says::InvalidToken,
        Says::OtherTime,
    ];
    let mut most = 0;
    for says in rows(&all) {
        for warm in [false, true] {
            let wall = Wall::new();
            let fake = saying(RS, says.clone(), &wall);
            let (_, stack) = bench::bench(&fake, wall.layer(), request());
            let mut request = get(&format!("{API}/x"));
            if warm {
                stack
                    .clone()
                    .oneshot(get(&format!("{API}/warm")))
                    .await
                    .unwrap();
                request.headers_mut().insert("warmed", "1".parse().unwrap());
            }
            stack.oneshot(request).await.unwrap();
            let sent = fake.hits(RS) - usize::from(warm);
            assert_eq!(sent, sends(&says), "{says:?}, warm: {warm}");
            most = most.max(sent);
        }
    }
    assert_eq!(most, 4);
}

#[tokio::test(start_paused = true)]
async fn no_row_of_answers_brings_a_token_endpoint_a_fifth_send() {
    let mut most = 0;
    for says in rows(&[Says::Ok, Says::OtherNonce, Says::OtherTime]) {
        let wall = Wall::new();
        let fake = saying(AS, says.clone(), &wall);
        let (tokens, _) = bench::bench(&fake, wall.layer(), request());
        let _ = tokens.access_token().await;
        assert_eq!(fake.hits(AS), sends(&says), "{says:?}");
        most = most.max(fake.hits(AS));
    }
    assert_eq!(most, 4);
}

#[tokio::test]
async fn nonces_and_a_renewal_share_the_four_sends_over_both_layers() {
    // The first token is refused, and each answer wants another nonce, for the first three sends.
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.number) {
        (Some(AS), n) => token(&format!("t{n}"), 300),
        (_, n @ 0..2) => nonce_challenge(&format!("n{n}")),
        _ if seen.token() == "t0" => invalid_token(),
        _ => ok(),
    });
    assert_eq!(stack(&fake).oneshot(get(API)).await.unwrap().status(), 200);
    let sent = fake.seen_by(RS);
    let tokens: Vec<_> = sent.iter().map(|seen| seen.token().to_owned()).collect();
    assert_eq!(tokens, ["t0", "t0", "t0", "t1"]);
    let mut proofs: Vec<_> = sent
        .iter()
        .map(|seen| seen.claims()["jti"].to_string())
        .collect();
    proofs.sort_unstable();
    proofs.dedup();
    assert_eq!(proofs.len(), 4, "each has a proof of its own");
}

/// Sends whatever was refused once more, so many times.
#[derive(Clone)]
struct Again(usize);

impl<B> retry::Policy<Request<Full<Bytes>>, Response<B>, BoxError> for Again {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<B>, BoxError>,
    ) -> Option<Ready<()>> {
        let refused = !result.as_ref().is_ok_and(|answer| answer.status() == 200);
        self.0 = self.0.checked_sub(usize::from(refused))?;
        refused.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn an_outer_retry_begins_anew_each_time() {
    // Four sends for each try: two nonces, a wrong clock, and a nonce too many.
    let says = [
        Says::OtherNonce,
        Says::OtherNonce,
        Says::OtherTime,
        Says::OtherNonce,
    ];
    let wall = Wall::new();
    let fake = saying(RS, says.repeat(3), &wall);
    let (_, stack) = bench::bench(&fake, wall.layer(), request());
    let answer = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(Again(2)))
        .service(stack)
        .oneshot(get(API))
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(fake.hits(RS), 3 * 4);

    // The same with a token of one's own, which has no renewal: three sends for each try.
    let fake = Fake::new(|seen, _| nonce_challenge(&format!("n{}", seen.number)));
    let alone = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(Again(2)))
        .layer(DpopLayer::new(a3_key()))
        .service(fake.clone());
    let request = with_token(get(API), &own_token(&a3_key()));
    assert_eq!(alone.oneshot(request).await.unwrap().status(), 401);
    assert_eq!(fake.hits(RS), 3 * 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_again_from_outside_does_not_insist_anew() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let fake = Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => token(&format!("t{}", seen.number), 300),
        _ if count.fetch_add(1, Ordering::Relaxed) % 3 == 2 => ok(),
        _ => answer(503, &[], ""),
    })
    .delay(Duration::from_millis(5));
    let stack = ServiceBuilder::new()
        .layer(retry::RetryLayer::new(Again(2)))
        .service(stack(&fake));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut request = get(API);
    request.extensions_mut().insert(ForceRenewal::now());
    assert_eq!(stack.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(fake.hits(AS), 1);
}

#[tokio::test]
async fn a_token_layer_with_a_policy_takes_the_rest_of_its_settings_from_the_lower_one() {
    // A token layer that sends nothing again still answers the token endpoint's challenges.
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.nonce()) {
        (Some(AS), None) => and(refusal("use_dpop_nonce"), "dpop-nonce", "n"),
        (Some(AS), _) => token("t", 300),
        _ => ok(),
    });
    let dpop = DpopLayer::new(a3_key()).replay(NoReplay);
    let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience()).unwrap();
    tokens.access_token().await.unwrap();
    assert_eq!(fake.hits(AS), 2);
    assert!(fake.seen().iter().all(|seen| seen.uri == ENDPOINT));
}

type Upload = ReplayBody<Channel<Bytes, Infallible>>;

/// A kilobyte a second, of which four are kept.
fn slow_upload() -> Upload {
    let (mut sender, body) = Channel::new(1);
    tokio::spawn(async move {
        while sender.send_data(vec![1; 1024].into()).await.is_ok() {
            tokio::time::sleep(secs(1)).await;
        }
    });
    ReplayBody::with_limit(body, 4 * 1024)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_gets_too_long_while_its_token_is_renewed_leaves_the_servers_answer() {
    for (renewal, status, sent) in [(secs(2), 200, 2), (secs(8), 401, 1)] {
        let fake = servers(300, |number| number > 0);
        let authorization_server = fake.clone().delay_by(move |seen| match seen.number {
            0 => secs(0),
            _ => renewal,
        });
        let api = fake.clone();
        // Answers before the body is through, and goes on to read it.
        let api = tower::service_fn(move |request: Request<Upload>| {
            let (head, mut body) = request.into_parts();
            tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
            let head = Request::from_parts(head, Full::default());
            api.clone().oneshot(head)
        });
        let dpop = DpopLayer::new(a3_key()).replay(RecordedBody);
        let tokens = TokenLayer::new(&dpop, authorization_server, request(), audience()).unwrap();
        let layers = ServiceBuilder::new().layer(tokens).layer(dpop);
        let upload = Request::post(API).body(slow_upload()).unwrap();
        let answer = layers.service(api).oneshot(upload).await;
        let answer = answer.expect("the server's answer, and no error of the body");
        assert_eq!((answer.status().as_u16(), fake.hits(RS)), (status, sent));
    }
}
