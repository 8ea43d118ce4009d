//! Redirects in every place, over TCP: F63 and F64 of the fault catalogue, and all orders of redirect and retry
//! with our two layers.
//!
//! No token reaches another origin, scheme or port, with one exception that no layer can see: a redirect below
//! `DpopLayer` by a policy that keeps `Authorization`. A test of its own shows it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod world;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use tower::{BoxError, Layer as _};
use tower_dpop::testing::{Nonces, Recorded};
use tower_http::follow_redirect::FollowRedirectLayer;
use world::{
    Place, Stack, World, boxed, count,
    desk::Desks,
    middlewares::{self, Wrap},
    ours, send,
};

const STATUSES: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];
const METHODS: [Method; 2] = [Method::GET, Method::POST];
const BODY: &str = "ten of them";

/// tower-http's own policy, and one that takes nothing away on the way to another origin.
const POLICIES: [(&str, Wrap); 2] = [
    ("standard", middlewares::redirect),
    ("keeps all", middlewares::redirect_keeping_all),
];

fn redirect(status: StatusCode, location: &str) -> Response<Bytes> {
    let answer = Response::builder().status(status);
    let answer = answer.header("location", location);
    answer.body(Bytes::new()).unwrap()
}

fn request(method: &Method, url: &str) -> world::Call {
    let body = match *method {
        Method::GET => Full::default(),
        _ => Full::from(BODY),
    };
    Request::builder()
        .method(method)
        .uri(url)
        .body(body)
        .unwrap()
}

/// What tower-http makes of a method and its body.
fn followed(method: &Method, status: StatusCode) -> (Method, &'static str) {
    let keeps = [307, 308].contains(&status.as_u16());
    match *method {
        Method::POST if keeps => (Method::POST, BODY),
        _ => (Method::GET, ""),
    }
}

#[track_caller]
fn carries(seen: &Recorded, tokens: usize, proofs: usize, what: &str) {
    assert_eq!(count(seen, "authorization"), tokens, "{what}: {seen:?}");
    assert_eq!(count(seen, "dpop"), proofs, "{what}: {seen:?}");
}

// F64: to the same origin.

#[tokio::test]
async fn f64_a_redirect_above_or_between_gets_a_new_proof_for_its_new_url() {
    for place in Place::RE_SIGNED {
        for (policy, wrap) in POLICIES {
            for (status, method) in STATUSES.iter().flat_map(|s| METHODS.map(|m| (*s, m))) {
                let what = format!("{place:?} {policy} {status} {method}");
                let world = World::new().await;
                let stack = world.stack(place, wrap);
                world.api.answer(1, redirect(status, "/new/place?page=2"));
                let (head, body) = send(&stack, request(&method, &world.api.url("/old")))
                    .await
                    .unwrap();
                assert_eq!(head.status, 200, "{what}: {body:?}");
                assert_eq!(world.sendings(), (1, 2), "{what}");
                let sent = &world.api.requests()[1];
                let (method, body) = followed(&method, status);
                assert_eq!(
                    (sent.method(), sent.body().as_ref()),
                    (&method, body.as_bytes())
                );
                assert_eq!(
                    sent.claim("htm").as_deref(),
                    Some(method.as_str()),
                    "{what}"
                );
                let url = world.api.url("/new/place");
                assert_eq!(sent.claim("htu"), Some(url), "{what}");
                world.one_proof_for_each_sending(&what);
            }
        }
    }
}

#[tokio::test]
async fn f64_so_does_one_to_the_same_origin_with_user_information_in_its_url() {
    for place in Place::RE_SIGNED {
        for (policy, wrap) in POLICIES {
            let world = World::new().await;
            let stack = world.stack(place, wrap);
            let url = world.api.url("/new").replace("//", "//user:secret@");
            world.api.answer(1, redirect(StatusCode::FOUND, &url));
            let (head, _) = send(&stack, world.get("/old")).await.unwrap();
            assert_eq!(head.status, 200, "{place:?} {policy}");
            let sent = &world.api.requests()[1];
            assert_eq!(sent.claim("htu"), Some(world.api.url("/new")));
            world.one_proof_for_each_sending(policy);
        }
    }
}

#[tokio::test]
async fn f64_a_chain_of_redirects_has_a_proof_for_each_hop_and_a_nonce_where_it_is_asked_for() {
    for place in Place::RE_SIGNED {
        let world = World::new().await;
        let stack = world.stack(place, middlewares::redirect);
        world.api.nonces(Nonces::required());
        for hop in ["/1", "/2", "/3"] {
            world.api.answer(1, redirect(StatusCode::FOUND, hop));
        }
        let (head, _) = send(&stack, world.get("/0")).await.unwrap();
        assert_eq!(head.status, 200, "{place:?}");
        assert_eq!(world.sendings(), (1, 5), "{place:?}: four, and a challenge");
        let sent = world.api.requests();
        let urls: Vec<_> = sent.iter().map(|sent| sent.claim("htu").unwrap()).collect();
        let wanted = ["/0", "/1", "/2", "/3", "/3"].map(|path| world.api.url(path));
        assert_eq!(urls, wanted, "{place:?}");
        world.one_proof_for_each_sending("a chain");
    }
}

#[tokio::test]
async fn f64_a_redirect_below_repeats_the_proof_for_the_old_url_and_the_server_refuses_it() {
    for (policy, wrap) in POLICIES {
        let world = World::new().await;
        let stack = world.stack(Place::Below, wrap);
        world.api.answer(1, redirect(StatusCode::FOUND, "/new"));
        let (head, _) = send(&stack, world.get("/old")).await.unwrap();
        assert_eq!(head.status, 401, "{policy}");
        let [first, second] = &world.api.requests()[..] else {
            panic!("{:?}", world.api.requests())
        };
        assert_eq!(first.proof(), second.proof(), "{policy}");
        assert_eq!(second.claim("htu"), Some(world.api.url("/old")));
        let reason = second.refused().unwrap();
        assert!(reason.contains("htu"), "{policy}: {reason}");
    }
}

#[tokio::test]
async fn a_redirect_of_a_body_that_no_policy_clones_is_left_to_the_caller() {
    for place in Place::ALL {
        let world = World::new().await;
        let stack = world.stack(place, |inner| {
            boxed(FollowRedirectLayer::new().layer(inner))
        });
        let status = StatusCode::TEMPORARY_REDIRECT;
        world.api.answer(1, redirect(status, "/new"));
        let call = request(&Method::POST, &world.api.url("/old"));
        let (head, _) = send(&stack, call).await.unwrap();
        assert_eq!(head.status, status, "{place:?}");
        assert_eq!(world.api.request_count(), 1, "{place:?}");
    }
}

// F63: to another origin.

#[tokio::test]
async fn f63_a_redirect_above_or_between_takes_neither_token_nor_proof_to_another_port() {
    for place in Place::RE_SIGNED {
        for (policy, wrap) in POLICIES {
            for (status, method) in STATUSES.iter().flat_map(|s| METHODS.map(|m| (*s, m))) {
                let what = format!("{place:?} {policy} {status} {method}");
                let world = World::new().await;
                let stack = world.stack(place, wrap);
                let away = redirect(status, &world.foreign.url("/away"));
                world.api.answer(1, away);
                let (head, _) = send(&stack, request(&method, &world.api.url("/")))
                    .await
                    .unwrap();
                assert_eq!(head.status, 401, "{what}: it was shown nothing");
                carries(&world.api.requests()[0], 1, 1, &what);
                let [seen] = &world.foreign.requests()[..] else {
                    panic!("{what}: {:?}", world.foreign.requests())
                };
                carries(seen, 0, 0, &what);
                // Method and body are the redirect's matter.
                let (method, body) = followed(&method, status);
                assert_eq!(
                    (seen.method(), seen.body().as_ref()),
                    (&method, body.as_bytes())
                );
            }
        }
    }
}

#[tokio::test]
async fn f63_a_redirect_below_shows_another_origin_a_proof_for_our_api_but_no_token() {
    let world = World::new().await;
    let stack = world.stack(Place::Below, middlewares::redirect);
    let away = redirect(StatusCode::FOUND, &world.foreign.url("/away"));
    world.api.answer(1, away);
    let (head, _) = send(&stack, world.get("/start")).await.unwrap();
    assert_eq!(head.status, 401);
    let (api, foreign) = (world.api.requests(), world.foreign.requests());
    let ([sent], [seen]) = (&api[..], &foreign[..]) else {
        panic!("{api:?} {foreign:?}")
    };
    carries(sent, 1, 1, "the API");
    carries(seen, 0, 1, "the foreign server");
    // The very proof that the API had: its URL, the hash of the token and the public key.
    assert_eq!(seen.proof(), sent.proof());
    assert_eq!(seen.claim("htu"), Some(world.api.url("/start")));
    assert!(seen.claim("ath").is_some());
    let token = sent.headers()["authorization"].to_str().unwrap();
    let token = token.strip_prefix("DPoP ").unwrap();
    assert!(!format!("{:?}{:?}", seen.headers(), seen.uri()).contains(token));
}

#[tokio::test]
async fn f63_forbidden_a_redirect_below_by_a_policy_that_keeps_authorization_hands_the_token_over()
{
    let world = World::new().await;
    let stack = world.stack(Place::Below, middlewares::redirect_keeping_all);
    let away = redirect(StatusCode::FOUND, &world.foreign.url("/away"));
    world.api.answer(1, away);
    let (head, _) = send(&stack, world.get("/start")).await.unwrap();
    assert_eq!(head.status, 401);
    // No layer above can see this: the docs forbid it. The proof is for another URL, and refused.
    let seen = &world.foreign.requests()[0];
    carries(seen, 1, 1, "the foreign server");
    assert!(
        seen.refused().unwrap().contains("htu"),
        "{:?}",
        seen.refused()
    );
}

#[tokio::test]
async fn f63_on_the_way_back_only_a_redirect_above_has_the_token_whatever_its_policy() {
    for (place, policy, status) in [
        (Place::Above, 0, 200),
        (Place::Above, 1, 200),
        // tower-http's policy has dropped the token from the extensions on the way out.
        (Place::Between, 0, 401),
        (Place::Between, 1, 200),
        (Place::Below, 0, 401),
    ] {
        let (policy, wrap) = POLICIES[policy];
        let what = format!("{place:?} {policy}");
        let world = World::new().await;
        let stack = world.stack(place, wrap);
        let found = StatusCode::FOUND;
        let away = redirect(found, &world.foreign.url("/away"));
        world.api.answer(1, away);
        let back = redirect(found, &world.api.url("/back"));
        world.foreign.answer(1, back);
        let (head, _) = send(&stack, world.get("/start")).await.unwrap();
        assert_eq!(head.status, status, "{what}");
        let below = usize::from(place == Place::Below);
        carries(&world.foreign.requests()[0], 0, below, &what);
        let back = &world.api.requests()[1];
        let signed = usize::from(status == 200);
        carries(back, signed, signed.max(below), &what);
        let refused = back.refused();
        match status {
            200 => assert_eq!(refused, None, "{what}"),
            _ => assert_eq!(refused, Some("there is no Authorization header"), "{what}"),
        }
    }
}

#[tokio::test]
async fn a_foreign_servers_refusal_costs_a_renewal_if_the_redirect_stands_below_token() {
    for (place, token_requests) in [(Place::Above, 1), (Place::Between, 2), (Place::Below, 2)] {
        let world = World::new().await;
        let stack = world.stack(place, middlewares::redirect);
        // Who renews the token sends again, and is led away again.
        let away = redirect(StatusCode::FOUND, &world.foreign.url("/away"));
        world.api.answer(token_requests, away);
        world.foreign.refuse(2, r#"Bearer error="invalid_token""#);
        let (head, _) = send(&stack, world.get("/")).await.unwrap();
        assert_eq!(head.status, 401, "{place:?}");
        let asked = world.authorization_server.request_count();
        assert_eq!(asked, token_requests, "{place:?}");
    }
}

// All orders.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Token,
    Dpop,
    Redirect,
    Retry,
}

use Layer::{Dpop, Redirect, Retry, Token};

/// From the outside in.
type Order = Vec<Layer>;

/// All orders of some of these layers, without repetition of what stands in the list once.
fn orders_of_some(layers: &[Layer]) -> Vec<Order> {
    let mut orders = vec![Vec::new()];
    for (n, first) in layers.iter().enumerate() {
        let mut rest = layers.to_vec();
        rest.remove(n);
        for mut order in orders_of_some(&rest) {
            order.insert(0, *first);
            if !orders.contains(&order) {
                orders.push(order);
            }
        }
    }
    orders
}

fn orders_of_all(layers: &[Layer]) -> Vec<Order> {
    let mut orders = orders_of_some(layers);
    orders.retain(|order| order.len() == layers.len());
    orders
}

/// Whether a `Dpop` signs: one that has `Token` above it.
fn signs(order: &[Layer]) -> bool {
    let token = order.iter().position(|layer| *layer == Token);
    token.is_some_and(|token| order[token..].contains(&Dpop))
}

/// Whether what `Dpop` signed is led away below it, where it sees nothing of that.
fn redirects_what_is_signed(order: &[Layer]) -> bool {
    let redirect = order.iter().position(|layer| *layer == Redirect);
    redirect.is_some_and(|redirect| signs(&order[..redirect]))
}

fn build(order: &[Layer], redirect: Wrap, desks: &Desks) -> Stack {
    let layers = order.iter().rev();
    layers.fold(desks.http.clone(), |inner, layer| match layer {
        Token => boxed(desks.tokens.layer(inner)),
        Dpop => boxed(desks.dpop.layer(inner)),
        Redirect => redirect(inner),
        Retry => middlewares::retry(inner),
    })
}

/// Every order with every policy, except what the docs forbid: see `f63_forbidden_…`.
fn with_policies(orders: Vec<Order>) -> impl Iterator<Item = (Order, &'static str, Wrap)> {
    let all = orders
        .into_iter()
        .flat_map(|order| POLICIES.map(|(policy, wrap)| (order.clone(), policy, wrap)));
    all.filter(|(order, policy, _)| !redirects_what_is_signed(order) || *policy == "standard")
}

/// Sends one request that is led away, and looks at whatever arrived there.
async fn lead_away(
    (order, stack, desks): (&[Layer], &Stack, &Desks),
    (method, status, location): (&Method, StatusCode, &str),
    what: &str,
) -> (Result<StatusCode, BoxError>, usize) {
    desks.lead(status, location);
    let answer = send(stack, request(method, &desks.url("/start"))).await;
    let mut led_away = 0;
    for seen in desks.take_seen() {
        let (token, proofs) = (
            seen.headers.contains_key("authorization"),
            seen.headers.get_all("dpop").iter().count(),
        );
        if seen.path == "/start" {
            // What there was to leak.
            assert_eq!((token, proofs > 0), (signs(order), signs(order)), "{what}");
            continue;
        }
        led_away += 1;
        assert!(!token, "a token leaked: {what}");
        // A redirect below copies what `Dpop` had written for the API.
        let copied = usize::from(redirects_what_is_signed(order));
        assert_eq!(proofs, copied, "{what}");
    }
    (answer.map(|(head, _)| head.status), led_away)
}

#[tokio::test]
async fn f63_no_order_of_token_dpop_redirect_and_retry_sends_a_token_to_another_origin() {
    let orders = orders_of_all(&[Token, Dpop, Redirect, Retry]);
    assert_eq!(orders.len(), 24);
    for (order, policy, wrap) in with_policies(orders) {
        let desks = Desks::open().await;
        let stack = build(&order, wrap, &desks);
        for location in desks.elsewhere() {
            for (status, method) in STATUSES.iter().flat_map(|s| METHODS.map(|m| (*s, m))) {
                let what = format!("{order:?} {policy} {status} {method} {location}");
                let stack = (&*order, &stack, &desks);
                let step = (&method, status, &*location);
                let (answer, led_away) = lead_away(stack, step, &what).await;
                match answer {
                    Ok(status) => {
                        assert!(signs(&order), "{what}");
                        assert_eq!(status, 200, "{what}");
                        assert_eq!(led_away, 2, "{what}: one of them is the retry's");
                    }
                    Err(error) => {
                        assert!(!signs(&order), "{what}: {error}");
                        assert!(ours(&error).is_layer_order(), "{what}: {error}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn f63_nor_does_any_order_of_some_of_them_or_of_these_and_a_second_dpop() {
    let mut all = 0;
    for (order, policy, wrap) in
        with_policies(orders_of_some(&[Token, Dpop, Dpop, Redirect, Retry]))
    {
        let desks = Desks::open().await;
        let stack = build(&order, wrap, &desks);
        for location in desks.elsewhere() {
            let what = format!("{order:?} {policy} {location}");
            let stack = (&*order, &stack, &desks);
            let step = (&Method::POST, StatusCode::TEMPORARY_REDIRECT, &*location);
            all += lead_away(stack, step, &what).await.1;
        }
    }
    assert!(all > 1000, "{all}");
}
