//! The servers of `testing`, from outside: over TCP, with proofs made by hand and a client without our layers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;

use std::{
    collections::{BTreeSet, HashSet},
    io::ErrorKind,
    time::{Duration, SystemTime},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tower_dpop::{
    Challenge, DpopKey,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces, Recorded, ResourceServer, TokenFormat},
};

use self::servers::{Claims, Kit, NEVER, Side, proof};

#[tokio::test]
async fn a_token_and_a_request() {
    for (kit, version) in [
        (Kit::start().await, Version::HTTP_11),
        (Kit::start_http2().await, Version::HTTP_2),
    ] {
        let mut call = kit.token_call(Claims::default());
        *call.body_mut() = format!(
            "grant_type=client_credentials&scope=a+b&client_id={CLIENT_ID}&client_secret={}",
            form_urlencoded::byte_serialize(CLIENT_SECRET.as_bytes()).collect::<String>()
        )
        .into();
        let answer = kit.send(call).await;
        answer.is(200, "");
        assert_eq!(answer.version, version);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.header("date").is_some() && answer.nonce().is_none());
        let body = answer.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"], &body["scope"]),
            (&json!("DPoP"), &json!(300), &json!("a b"))
        );
        let token = body["access_token"].as_str().unwrap();

        let mut call = kit.api_call(token, Claims::default());
        *call.method_mut() = Method::PATCH;
        let url = kit.resource_server.url("orders");
        let claims = Claims {
            token: Some(token),
            ..Claims::default()
        };
        let fresh = proof(&kit.key, &Method::PATCH, &url, claims);
        call.headers_mut().insert("dpop", fresh.parse().unwrap());
        *call.body_mut() = Bytes::from_static(b"all of \xff it").into();
        let answer = kit.send(call).await;
        answer.is(200, "");
        assert!(answer.nonce().is_none());
        let echo = json!({
            "client_id": CLIENT_ID, "scope": "a b", "method": "PATCH", "path": "/orders",
            "body": "all of \u{fffd} it",
        });
        assert_eq!(answer.json(), echo);

        let seen = kit.resource_server.requests();
        let [seen] = &seen[..] else {
            panic!("{seen:?}")
        };
        assert_eq!((seen.method(), seen.version()), (&Method::PATCH, version));
        assert_eq!(
            (seen.uri().path(), seen.uri().query()),
            ("/orders", Some("page=2"))
        );
        assert_eq!(&seen.body()[..], b"all of \xff it");
        assert_eq!(
            (seen.status(), seen.refused()),
            (Some(StatusCode::OK), None)
        );
        assert_eq!(seen.proof(), seen.headers()["dpop"].to_str().ok());
        assert_eq!(seen.claim("htu"), Some(url));
        assert!(seen.claim("iat").unwrap().parse::<u64>().is_ok());
        assert_eq!(seen.claim("nonce"), None);
        let shown = format!(
            "{seen:?} {:?} {:?}",
            kit.authorization_server, kit.resource_server
        );
        assert!(shown.contains("PATCH") && shown.contains("/orders") && shown.contains("200"));
        assert!(
            !shown.contains(token) && !shown.contains("page") && !shown.contains("dpop"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn the_token_endpoint_wants_a_form_by_post() {
    let kit = Kit::start().await;
    let call = || kit.token_call(Claims::default());
    let json = || {
        let mut call = call();
        call.headers_mut()
            .insert("content-type", "application/json".parse().unwrap());
        call
    };
    let with_uri = |suffix: &str| {
        let mut call = call();
        *call.uri_mut() = (kit.authorization_server.origin().to_owned() + suffix)
            .parse()
            .unwrap();
        call
    };
    let with_body = |body: &'static str| {
        let mut call = call();
        *call.body_mut() = body.into();
        call
    };
    kit.send(with_uri("/other")).await.is(404, "");
    kit.send(json()).await.is(400, "invalid_request");
    kit.send(with_uri("/token?client_secret=x"))
        .await
        .is(400, "invalid_request");
    kit.send(with_body("grant_type=client_credentials&scope=a&scope=b"))
        .await
        .is(400, "invalid_request");
    kit.send(with_uri("/token?x=y")).await.is(200, "");

    let mut get = call();
    *get.method_mut() = Method::GET;
    let answer = kit.send(get).await;
    answer.is(405, "");
    assert_eq!(answer.header("allow"), Some("POST"));

    let refused: Vec<_> = kit
        .authorization_server
        .requests()
        .iter()
        .map(|seen| seen.refused().is_some())
        .collect();
    assert_eq!(refused, [true, true, true, true, false, true]);
}

#[tokio::test]
async fn grants_scopes_and_resources() {
    let kit = Kit::start().await;
    for (parameters, error) in [
        (&[][..], "invalid_request"),
        (&[("grant_type", "")], "invalid_request"),
        (&[("grant_type", "password")], "unsupported_grant_type"),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (
            &[("grant_type", "client_credentials"), ("scope", "a  b")],
            "invalid_scope",
        ),
        (
            &[("grant_type", "client_credentials"), ("scope", "a\"b")],
            "invalid_scope",
        ),
        (
            &[("grant_type", "client_credentials"), ("resource", "/api")],
            "invalid_target",
        ),
        (
            &[
                ("grant_type", "client_credentials"),
                ("resource", "https://a#b"),
            ],
            "invalid_target",
        ),
    ] {
        let secret = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
        let call = kit.token_call_of(&[parameters, &secret].concat(), Claims::default());
        kit.send(call).await.is(400, error);
    }
}

#[tokio::test]
async fn clients_show_who_they_are_by_one_method() {
    let kit = Kit::start().await;
    kit.authorization_server.add_client("i:d", "p&q");
    kit.authorization_server.add_public_client("public");
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic =
        |id: &str, secret: &str| format!("Basic {}", BASE64.encode(format!("{id}:{secret}")));
    let right = || basic(CLIENT_ID, &encode(CLIENT_SECRET));
    let post = [("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET)];
    let cases = [
        (vec![right()], &[][..], 200, ""),
        (vec![right()], &post[..1], 200, ""),
        (vec![basic(&encode("i:d"), &encode("p&q"))], &[], 200, ""),
        (vec![basic(&encode("i:d"), "p&q")], &[], 200, ""),
        (vec![], &post, 200, ""),
        (vec![], &[("client_id", "public")], 200, ""),
        // The secret holds `+` and `%`, which mean something else unless they are encoded.
        (
            vec![basic(CLIENT_ID, CLIENT_SECRET)],
            &[],
            401,
            "invalid_client",
        ),
        (
            vec![basic("i:d", &encode("p&q"))],
            &[],
            401,
            "invalid_client",
        ),
        (vec![basic(CLIENT_ID, "wrong")], &[], 401, "invalid_client"),
        (vec![basic("unknown", "x")], &[], 401, "invalid_client"),
        (vec!["Basic !".to_owned()], &[], 401, "invalid_client"),
        (vec!["DPoP abc".to_owned()], &[], 401, "invalid_client"),
        (vec![], &[], 401, "invalid_client"),
        (vec![], &post[..1], 401, "invalid_client"),
        (
            vec![],
            &[("client_id", CLIENT_ID), ("client_secret", "wrong")],
            401,
            "invalid_client",
        ),
        (
            vec![],
            &[("client_id", "public"), ("client_secret", "x")],
            401,
            "invalid_client",
        ),
        (vec![], &[("client_assertion", "x")], 401, "invalid_client"),
        (vec![right()], &post, 400, "invalid_request"),
        (
            vec![right()],
            &[("client_id", "public")],
            400,
            "invalid_request",
        ),
        (vec![right(), right()], &[], 400, "invalid_request"),
        (
            vec![right()],
            &[("client_assertion", "x")],
            400,
            "invalid_request",
        ),
    ];
    for (fields, parameters, status, error) in cases {
        let grant = [("grant_type", "client_credentials")];
        let mut call = kit.token_call_of(&[&grant[..], parameters].concat(), Claims::default());
        for field in &fields {
            call.headers_mut()
                .append("authorization", field.parse().unwrap());
        }
        let answer = kit.send(call).await;
        answer.is(status, error);
        let challenge = Challenge::all(&answer.headers);
        assert_eq!(
            challenge.first().is_some_and(|c| c.is_scheme("Basic")),
            status == 401,
            "{fields:?}"
        );
    }
}

#[tokio::test]
async fn bad_proofs_are_refused() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        let right = || match side {
            Side::Authorization => kit.token_call(Claims::default()),
            Side::Resource => kit.api_call(&token, Claims::default()),
        };
        let (method, url) = (right().method().clone(), right().uri().to_string());
        let bound = |ahead| {
            let claims = Claims::ahead(ahead);
            let token = matches!(side, Side::Resource).then_some(&*token);
            Claims { token, ..claims }
        };
        let made = |method: &Method, url: &str, claims| vec![proof(&kit.key, method, url, claims)];
        let one = |ahead| made(&method, &url, bound(ahead));
        for bad in [
            vec![],
            vec!["no.proof".to_owned()],
            vec!["a.b.c".to_owned()],
            [one(0), one(0)].concat(),
            vec![format!("{}, {}", one(0)[0], one(0)[0])],
            vec![one(0)[0].rsplit_once('.').unwrap().0.to_owned() + "." + &"A".repeat(86)],
            made(&Method::PUT, &url, bound(0)),
            made(
                &method,
                &format!("{}/else", url.split('?').next().unwrap()),
                bound(0),
            ),
            made(&method, &url.replace("http:", "https:"), bound(0)),
            one(-62),
            one(12),
            // An `ath` at the authorization server; another token's, and none, at the resource server.
            made(
                &method,
                &url,
                Claims {
                    token: Some("other"),
                    ..Claims::default()
                },
            ),
            match side {
                Side::Authorization => vec![],
                Side::Resource => made(&method, &url, Claims::default()),
            },
        ] {
            let mut call = right();
            call.headers_mut().remove("dpop");
            for proof in &bad {
                call.headers_mut().append("dpop", proof.parse().unwrap());
            }
            kit.send(call).await.is(side.bad(), "invalid_dpop_proof");
        }
        // On the edge of the window, and with a query and a fragment, they are right.
        for good in [
            one(-58),
            one(8),
            made(&method, &format!("{url}?other=query"), bound(0)),
        ] {
            let mut call = right();
            call.headers_mut().insert("dpop", good[0].parse().unwrap());
            kit.send(call).await.is(200, "");
        }
    }
    let refused = kit.resource_server.requests();
    assert_eq!(refused[0].refused(), Some("there is no DPoP header"));
    assert_eq!(
        refused[3].refused(),
        Some("there is more than one DPoP header")
    );
    assert_eq!(refused[3].proof(), None);
}

#[tokio::test]
async fn a_token_is_for_its_key() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let thief = Kit {
        key: DpopKey::generate().unwrap(),
        ..kit
    };
    thief
        .api(&token, Claims::default())
        .await
        .is(401, "invalid_token");
}

#[tokio::test]
async fn credentials_at_the_resource_server() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let right = format!("DPoP {token}");
    for (fields, status, error) in [
        (vec![], 401, ""),
        (vec!["Basic YTpi".to_owned()], 401, ""),
        (vec![format!("Bearer {token}")], 401, "invalid_token"),
        (vec![right.clone(), right.clone()], 400, "invalid_request"),
        (
            vec![right.clone(), format!("Bearer {token}")],
            400,
            "invalid_request",
        ),
        (vec!["DPoP".to_owned()], 400, "invalid_request"),
        (vec!["DPoP ==".to_owned()], 400, "invalid_request"),
        (vec![format!("{right}, {right}")], 400, "invalid_request"),
        (vec!["DPoP unknown".to_owned()], 401, "invalid_token"),
        (vec![format!("dpop {token}")], 200, ""),
    ] {
        let mut call = kit.api_call(&token, Claims::default());
        call.headers_mut().remove("authorization");
        for field in &fields {
            call.headers_mut()
                .append("authorization", field.parse().unwrap());
        }
        let answer = kit.send(call).await;
        answer.is(status, error);
        let challenges = Challenge::all(&answer.headers);
        if status == 200 {
            assert!(challenges.is_empty());
            continue;
        }
        let [challenge] = &challenges[..] else {
            panic!("{challenges:?}")
        };
        assert!(challenge.is_scheme("DPoP"));
        assert_eq!(challenge.parameter("algs"), Some("ES256"));
        assert_eq!(challenge.parameter("error").is_some(), !error.is_empty());
        assert_eq!(
            challenge.parameter("error_description").is_some(),
            !error.is_empty()
        );
    }
}

#[tokio::test]
async fn no_proof_is_good_twice() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        let call = || kit.call(side, &token, Claims::jti("once"));
        call().await.is(200, "");
        // Signed anew, so the text differs; the claims are what counts.
        call().await.is(side.bad(), "invalid_dpop_proof");
        call().await.is(side.bad(), "invalid_dpop_proof");
    }
    // Another key may use it.
    let other = Kit {
        key: DpopKey::generate().unwrap(),
        ..kit
    };
    other
        .call(Side::Authorization, "", Claims::jti("once"))
        .await
        .is(200, "");

    // A challenge is no leave to use it again.
    let kit = Kit {
        key: DpopKey::generate().unwrap(),
        ..other
    };
    for side in Side::BOTH {
        kit.nonces(side, Nonces::off());
        let token = kit.token().await;
        kit.nonces(side, Nonces::required());
        let challenge = kit.call(side, &token, Claims::jti("twice")).await;
        challenge.is(side.bad(), "use_dpop_nonce");
        let nonce = challenge.nonce().unwrap();
        let again = Claims {
            nonce: Some(&nonce),
            ..Claims::jti("twice")
        };
        kit.call(side, &token, again)
            .await
            .is(side.bad(), "invalid_dpop_proof");
        kit.call(side, &token, Claims::nonce(&*nonce))
            .await
            .is(200, "");
        kit.nonces(side, Nonces::off());
    }
}

#[tokio::test]
async fn nonces_off() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        let answer = kit.call(side, &token, Claims::nonce("stray")).await;
        answer.is(side.bad(), "invalid_dpop_proof");
        assert_eq!(answer.nonce(), None);
    }
}

#[tokio::test]
async fn nonces_required() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    let mut all = Vec::new();
    for side in Side::BOTH {
        kit.nonces(side, Nonces::required());
        let challenge = kit.call(side, &token, Claims::default()).await;
        challenge.is(side.bad(), "use_dpop_nonce");
        let nonce = challenge.nonce().unwrap();
        for _ in 0..3 {
            let answer = kit.call(side, &token, Claims::nonce(&*nonce)).await;
            answer.is(200, "");
            assert_eq!(answer.nonce().as_ref(), Some(&nonce), "with a success, too");
        }
        kit.rotate_nonce(side);
        let answer = kit.call(side, &token, Claims::nonce(&*nonce)).await;
        answer.is(side.bad(), "use_dpop_nonce");
        let fresh = answer.nonce().unwrap();
        kit.call(side, &token, Claims::nonce(&*fresh))
            .await
            .is(200, "");
        all.extend([nonce, fresh]);
        kit.nonces(side, Nonces::off());
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "each server has its own");
}

#[tokio::test]
async fn nonces_for_one_time() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        kit.nonces(side, Nonces::one_time());
        let first = kit.call(side, &token, Claims::default()).await;
        first.is(side.bad(), "use_dpop_nonce");
        let first = first.nonce().unwrap();
        let second = kit.call(side, &token, Claims::nonce(&*first)).await;
        second.is(200, "");
        let third = kit.call(side, &token, Claims::nonce(&*first)).await;
        third.is(side.bad(), "use_dpop_nonce");
        // Those that were given and not used are good in any order.
        let (second, third) = (second.nonce().unwrap(), third.nonce().unwrap());
        kit.call(side, &token, Claims::nonce(&*third))
            .await
            .is(200, "");
        let last = kit.call(side, &token, Claims::nonce(&*second)).await;
        last.is(200, "");
        kit.rotate_nonce(side);
        let last = last.nonce().unwrap();
        kit.call(side, &token, Claims::nonce(&*last))
            .await
            .is(side.bad(), "use_dpop_nonce");
        kit.nonces(side, Nonces::off());
    }
}

/// Fifty letters, ten digits, and thirty of what else a nonce may hold. The record tells what was offered.
#[tokio::test]
async fn nonces_of_all_characters() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        let mut all = HashSet::new();
        let mut characters = BTreeSet::new();
        for _ in 0..16 {
            for nonces in [Nonces::required(), Nonces::one_time(), Nonces::endless()] {
                kit.nonces(side, nonces.of_all_characters());
                let challenge = kit.call(side, &token, Claims::default()).await;
                challenge.is(side.bad(), "use_dpop_nonce");
                let nonce = challenge.nonce().unwrap();
                let seen = kit.requests(side).pop().unwrap();
                assert_eq!(seen.offered_nonce(), Some(&*nonce));
                let count = |is: fn(&u8) -> bool| nonce.bytes().filter(is).count();
                let letters = count(u8::is_ascii_alphabetic);
                let (digits, others) = (count(u8::is_ascii_digit), count(u8::is_ascii_punctuation));
                assert_eq!((letters, digits, others), (50, 10, 30), "{nonce}");
                characters.extend(nonce.bytes());
                all.insert(nonce);
            }
        }
        assert_eq!(all.len(), 48, "no two are the same");
        // All of NQCHAR (RFC 6749, appendix A), sooner or later.
        let nqchar: BTreeSet<_> = (b'!'..=b'~').filter(|b| !b"\"\\".contains(b)).collect();
        assert_eq!(characters, nqchar);
        kit.nonces(side, Nonces::off());
        let answer = kit.call(side, &token, Claims::default()).await;
        answer.is(200, "");
        assert_eq!(kit.requests(side).pop().unwrap().offered_nonce(), None);
    }
}

#[tokio::test]
async fn a_bad_proof_does_not_use_up_a_nonce() {
    let kit = Kit::start().await;
    kit.authorization_server.nonces(Nonces::one_time());
    let nonce = kit
        .send(kit.token_call(Claims::default()))
        .await
        .nonce()
        .unwrap();
    let old = Claims {
        nonce: Some(&nonce),
        ..Claims::ahead(-100)
    };
    kit.send(kit.token_call(old))
        .await
        .is(400, "invalid_dpop_proof");
    kit.send(kit.token_call(Claims::nonce(&*nonce)))
        .await
        .is(200, "");
}

#[tokio::test]
async fn rotating_nonces() {
    let kit = Kit::start().await;
    kit.authorization_server.token_lifetime(10 * NEVER);
    let token = kit.token().await;
    let turn = i64::try_from(NEVER.as_secs()).unwrap() + 1;
    for side in Side::BOTH {
        kit.nonces(side, Nonces::rotating(NEVER));
        let call = |nonce: Option<String>, ahead: i64| {
            let kit = &kit;
            let token = &token;
            async move {
                let claims = Claims {
                    nonce: nonce.as_deref(),
                    ..Claims::ahead(ahead)
                };
                kit.call(side, token, claims).await
            }
        };
        let challenge = call(None, 0).await;
        challenge.is(side.bad(), "use_dpop_nonce");
        let first = challenge.nonce();
        assert_eq!(call(first.clone(), 0).await.nonce(), first);

        // By the clock: the previous one is still good, and the answer gives the current one.
        kit.clock_offset(side, turn);
        let answer = call(first.clone(), turn).await;
        answer.is(200, "");
        let second = answer.nonce();
        assert_ne!(second, first);
        call(second.clone(), turn).await.is(200, "");

        // By hand.
        kit.rotate_nonce(side);
        call(first.clone(), turn)
            .await
            .is(side.bad(), "use_dpop_nonce");
        let answer = call(second.clone(), turn).await;
        answer.is(200, "");
        let third = answer.nonce();

        // Two turns at once leave none.
        kit.clock_offset(side, 4 * turn);
        call(third.clone(), 4 * turn)
            .await
            .is(side.bad(), "use_dpop_nonce");
        kit.clock_offset(side, 0);
        kit.nonces(side, Nonces::off());
    }
}

#[tokio::test]
async fn endless_nonces() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        kit.nonces(side, Nonces::endless());
        let mut nonce = None;
        for _ in 0..4 {
            let answer = kit
                .call(side, &token, Claims::nonce(nonce.as_deref()))
                .await;
            answer.is(side.bad(), "use_dpop_nonce");
            assert!(answer.nonce().is_some());
            assert_ne!(answer.nonce(), nonce);
            nonce = answer.nonce();
        }
    }
}

#[tokio::test]
async fn nonces_only_in_errors() {
    let kit = Kit::start().await;
    let token = kit.token().await;
    for side in Side::BOTH {
        for nonces in [
            Nonces::required(),
            Nonces::one_time(),
            Nonces::rotating(NEVER),
        ] {
            kit.nonces(side, nonces.only_in_errors());
            let nonce = kit
                .call(side, &token, Claims::default())
                .await
                .nonce()
                .unwrap();
            let answer = kit.call(side, &token, Claims::nonce(&*nonce)).await;
            answer.is(200, "");
            assert_eq!(answer.nonce(), None);
            // Every error, not the challenge alone.
            let answer = kit.call(side, &token, Claims::ahead(-100)).await;
            answer.is(side.bad(), "invalid_dpop_proof");
            assert!(answer.nonce().is_some());
        }
        kit.nonces(side, Nonces::off());
    }
}

#[tokio::test]
async fn a_challenge_comes_before_client_and_grant() {
    let kit = Kit::start().await;
    kit.authorization_server.nonces(Nonces::required());
    let call = kit.token_call_of(&[("grant_type", "unknown")], Claims::default());
    kit.send(call).await.is(400, "use_dpop_nonce");
}

#[tokio::test]
async fn tokens_end_and_are_revoked() {
    let kit = Kit::start().await;
    let elsewhere = Kit::start().await;
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        kit.authorization_server.token_format(format);
        elsewhere.authorization_server.token_format(format);
        let token = kit.token().await;
        assert_eq!(token.contains('.'), format == TokenFormat::Signed);
        kit.api(&token, Claims::default()).await.is(200, "");

        kit.resource_server.clock_offset(301);
        kit.api(&token, Claims::ahead(301))
            .await
            .is(401, "invalid_token");
        kit.resource_server.clock_offset(0);
        kit.api(&token, Claims::default()).await.is(200, "");

        kit.authorization_server.revoke_all();
        kit.api(&token, Claims::default())
            .await
            .is(401, "invalid_token");
        let token = kit.token().await;
        kit.api(&token, Claims::default()).await.is(200, "");

        let foreign = elsewhere.token().await;
        kit.api(&foreign, Claims::default())
            .await
            .is(401, "invalid_token");
    }
}

#[tokio::test]
async fn a_signed_token_lives_as_long_as_it_was_promised() {
    let kit = Kit::start().await;
    kit.authorization_server.token_format(TokenFormat::Signed);
    for millis in [1, 200, 999, 1_000, 1_500] {
        let life = Duration::from_millis(millis);
        kit.authorization_server.token_lifetime(life);
        let asked = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let token = kit.token().await;
        let claims = BASE64URL.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        let end = Duration::from_secs(claims["exp"].as_u64().unwrap());
        assert!(end >= asked + life, "{millis}");
    }
}

#[tokio::test]
async fn signed_tokens() {
    let kit = Kit::start().await;
    kit.authorization_server.token_format(TokenFormat::Signed);
    let ask = async |resources: &[(&str, &str)]| {
        let basics = [
            ("grant_type", "client_credentials"),
            ("client_id", CLIENT_ID),
            ("client_secret", CLIENT_SECRET),
            ("scope", "a"),
        ];
        let answer = kit
            .send(kit.token_call_of(&[&basics, resources].concat(), Claims::default()))
            .await;
        answer.json()["access_token"].as_str().unwrap().to_owned()
    };
    let decode =
        |part: &str| -> Value { serde_json::from_slice(&BASE64URL.decode(part).unwrap()).unwrap() };
    let one = ("resource", "https://a");
    assert_eq!(
        decode(ask(&[one]).await.split('.').nth(1).unwrap())["aud"],
        "https://a"
    );
    let two = ask(&[one, ("resource", "urn:b")]).await;
    assert_eq!(
        decode(two.split('.').nth(1).unwrap())["aud"],
        json!(["https://a", "urn:b"])
    );

    let token = ask(&[]).await;
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!()
    };
    assert_eq!(decode(header), json!({ "typ": "at+jwt", "alg": "ES256" }));
    let mut said = decode(claims);
    assert_eq!(said["iss"], kit.authorization_server.origin());
    assert_eq!(
        (&said["sub"], &said["client_id"]),
        (&json!(CLIENT_ID), &json!(CLIENT_ID))
    );
    assert_eq!(
        (&said["scope"], &said["cnf"]),
        (&json!("a"), &json!({ "jkt": kit.key.thumbprint() }))
    );
    // Whole seconds: the beginning rounded down, the end up.
    let life = said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap();
    assert!((300..=301).contains(&life), "{life}");
    assert!(said["jti"].is_string() && said["aud"].is_string());
    let answer = kit.api(&token, Claims::default()).await;
    answer.is(200, "");
    assert_eq!(answer.json()["scope"], "a");

    said["scope"] = json!("everything");
    let forged = BASE64URL.encode(said.to_string());
    let none = BASE64URL.encode(r#"{"typ":"at+jwt","alg":"none"}"#);
    for bad in [
        format!("{header}.{forged}.{signature}"),
        format!("{none}.{claims}."),
        format!("{none}.{claims}.{signature}"),
        format!("{header}.{claims}"),
        format!("{token}.x"),
        "..".to_owned(),
    ] {
        kit.api(&bad, Claims::default())
            .await
            .is(401, "invalid_token");
    }
}

#[tokio::test]
async fn what_the_answer_claims() {
    let kit = Kit::start().await;
    let ask = async || kit.send(kit.token_call(Claims::default())).await;
    kit.authorization_server
        .token_lifetime(Duration::from_secs(7));
    assert_eq!(ask().await.json()["expires_in"], 7);
    kit.authorization_server.expires_in(Some(r#""3600""#));
    assert_eq!(ask().await.json()["expires_in"], "3600");
    kit.authorization_server.expires_in(Some("no json"));
    assert!(ask().await.body.windows(7).any(|seven| seven == b"no json"));
    kit.authorization_server.expires_in(None);
    assert_eq!(ask().await.json().get("expires_in"), None);
    kit.authorization_server.token_type("Bearer");
    assert_eq!(ask().await.json()["token_type"], "Bearer");
    assert_eq!(ask().await.json().get("scope"), None);
}

#[tokio::test]
async fn clocks() {
    let kit = Kit::start().await;
    kit.authorization_server.token_lifetime(10 * NEVER);
    let token = kit.token().await;
    for side in Side::BOTH {
        for offset in [120, -120] {
            kit.clock_offset(side, offset);
            let answer = kit.call(side, &token, Claims::default()).await;
            answer.is(side.bad(), "invalid_dpop_proof");
            let told = time_of_day(answer.header("date").unwrap());
            let answer = kit.call(side, &token, Claims::ahead(offset)).await;
            answer.is(200, "");
            kit.clock_offset(side, 0);
            let answer = kit.call(side, &token, Claims::default()).await;
            assert_ne!(time_of_day(answer.header("date").unwrap()), told);
        }
        for offset in [i64::MAX, i64::MIN] {
            kit.clock_offset(side, offset);
            assert_eq!(
                kit.call(side, &token, Claims::default()).await.status,
                side.bad()
            );
        }
        kit.clock_offset(side, i64::MAX);
        let answer = kit.call(side, &token, Claims::default()).await;
        assert_eq!(answer.header("date"), Some("Fri, 31 Dec 9999 23:59:59 GMT"));
        kit.clock_offset(side, 0);
    }
}

/// Of a `Date`: enough to tell two minutes from none.
fn time_of_day(text: &str) -> String {
    text.split(' ').nth(4).unwrap().to_owned()
}

#[tokio::test]
async fn orders_are_carried_out_in_turn() {
    let kit = Kit::start().await;
    let html = Response::builder()
        .status(302)
        .header("location", "https://elsewhere")
        .header("date", "yesterday")
        .body(Bytes::from_static(b"<html>"))
        .unwrap();
    kit.authorization_server
        .fail(2, StatusCode::SERVICE_UNAVAILABLE);
    kit.authorization_server.fail(0, StatusCode::IM_A_TEAPOT);
    kit.authorization_server.answer(1, html.clone());
    let call = async || kit.send(kit.token_call(Claims::default())).await;
    for _ in 0..2 {
        let answer = call().await;
        assert_eq!((answer.status, &answer.body[..]), (503, &b""[..]));
        assert!(answer.header("date").is_some());
    }
    let answer = call().await;
    assert_eq!((answer.status, &answer.body[..]), (302, &b"<html>"[..]));
    assert_eq!(answer.header("location"), Some("https://elsewhere"));
    assert_eq!(answer.header("date"), Some("yesterday"));
    assert_eq!(answer.header("cache-control"), None);
    call().await.is(200, "");
    let statuses = |seen: Vec<Recorded>| -> Vec<u16> {
        assert!(seen.iter().all(|seen| seen.refused().is_none()));
        seen.iter()
            .map(|seen| seen.status().unwrap().as_u16())
            .collect()
    };
    assert_eq!(
        statuses(kit.authorization_server.requests()),
        [503, 503, 302, 200]
    );

    let token = kit.token().await;
    let challenge = r#"Bearer error="invalid_token""#;
    kit.resource_server.refuse(1, challenge);
    kit.resource_server.refuse(1, "no\nheader");
    kit.resource_server.answer(1, html);
    kit.resource_server.fail(1, StatusCode::BAD_GATEWAY);
    let answer = kit.api(&token, Claims::default()).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, Some(challenge))
    );
    assert_eq!(answer.nonce(), None);
    let answer = kit.api(&token, Claims::default()).await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, None)
    );
    assert_eq!(kit.api(&token, Claims::default()).await.status, 302);
    assert_eq!(kit.api(&token, Claims::default()).await.status, 502);
    kit.api(&token, Claims::default()).await.is(200, "");
    assert_eq!(
        statuses(kit.resource_server.requests()),
        [401, 401, 302, 502, 200]
    );

    // A refusal carries the policy's nonce, and it is a good one.
    kit.resource_server.nonces(Nonces::one_time());
    kit.resource_server
        .refuse(1, r#"Bearer error="use_dpop_nonce""#);
    let nonce = kit.api(&token, Claims::default()).await.nonce().unwrap();
    kit.api(&token, Claims::nonce(&*nonce)).await.is(200, "");
}

#[tokio::test]
async fn lost_answers_have_had_their_effect() {
    for (kit, http2) in [
        (Kit::start().await, false),
        (Kit::start_http2().await, true),
    ] {
        let token = kit.token().await;
        for side in Side::BOTH {
            let (count, lose): (&dyn Fn() -> usize, &dyn Fn(usize)) = match side {
                Side::Authorization => (&|| kit.authorization_server.request_count(), &|times| {
                    kit.authorization_server.lose_answers(times)
                }),
                Side::Resource => (&|| kit.resource_server.request_count(), &|times| {
                    kit.resource_server.lose_answers(times)
                }),
            };
            let call = |jti| match side {
                Side::Authorization => kit.token_call(Claims::jti(jti)),
                Side::Resource => kit.api_call(&token, Claims::jti(jti)),
            };
            let before = count();
            lose(2);
            for jti in ["first", "second"] {
                let error = kit.http.request(call(jti)).await.unwrap_err();
                let error = std::error::Error::source(&error)
                    .unwrap()
                    .downcast_ref::<hyper::Error>()
                    .unwrap();
                assert_eq!(error.is_incomplete_message(), !http2, "{error:?}");
            }
            // The proofs are used up, and the orders carried out.
            for jti in ["first", "second"] {
                let answer = kit.send(call(jti)).await;
                answer.is(side.bad(), "invalid_dpop_proof");
            }
            kit.send(call("third")).await.is(200, "");
            assert_eq!(count() - before, 5, "each was sent once");
        }
        for seen in [
            &kit.authorization_server.requests()[1..],
            &kit.resource_server.requests()[..],
        ] {
            let statuses: Vec<_> = seen.iter().map(|seen| seen.status().unwrap()).collect();
            assert_eq!(statuses[..2], [200, 200]);
            assert_eq!(statuses[4], 200);
        }
    }
}

#[tokio::test]
async fn only_the_stream_of_a_lost_answer_is_reset() {
    let kit = Kit::start_http2().await;
    let token = kit.token().await;
    kit.resource_server.delay(NEVER);
    let waiting = tokio::spawn(kit.http.request(kit.api_call(&token, Claims::default())));
    while kit.resource_server.request_count() < 1 {
        tokio::task::yield_now().await;
    }
    kit.resource_server.delay(Duration::ZERO);
    kit.resource_server.lose_answers(1);
    let lost = kit.http.request(kit.api_call(&token, Claims::default()));
    assert!(lost.await.is_err());
    kit.api(&token, Claims::default()).await.is(200, "");
    assert!(!waiting.is_finished(), "the others go on");
    waiting.abort();
}

#[tokio::test]
async fn lost_answers_queue_up_with_the_other_orders() {
    let kit = Kit::start().await;
    kit.authorization_server.nonces(Nonces::one_time());
    kit.authorization_server
        .fail(1, StatusCode::SERVICE_UNAVAILABLE);
    kit.authorization_server.lose_answers(1);
    let retry_later = Response::builder()
        .status(429)
        .header("retry-after", "7")
        .body(Bytes::new())
        .unwrap();
    kit.authorization_server.answer(1, retry_later);
    kit.authorization_server.lose_answers(0);
    let call = || kit.token_call(Claims::default());
    assert_eq!(kit.send(call()).await.status, 503);
    assert!(kit.http.request(call()).await.is_err());
    let answer = kit.send(call()).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("7"))
    );
    kit.send(call()).await.is(400, "use_dpop_nonce");
    let reasons: Vec<_> = kit
        .authorization_server
        .requests()
        .iter()
        .map(|seen| seen.refused().is_some())
        .collect();
    assert_eq!(reasons, [false, true, false, true], "the lost one, too");
}

#[tokio::test]
async fn a_server_stops_and_is_started_again() {
    for kit in [Kit::start().await, Kit::start_http2().await] {
        let pending = delayed(&kit).await;
        let server = kit.authorization_server.clone();
        let origin = server.origin().to_owned();
        server.nonces(Nonces::required());
        server.expires_in(Some("7"));
        server.fail(1, StatusCode::IM_A_TEAPOT);

        server.stop().await;
        assert!(!pending.await.unwrap(), "open requests fail");
        assert!(is_refused(&origin).await);
        server.stop().await;
        assert!(is_refused(&origin).await);

        server.restart().await.unwrap();
        server.delay(Duration::ZERO);
        assert_eq!(server.origin(), origin);
        assert_eq!(server.request_count(), 1, "the record is kept");
        let kit = kit.reconnected();
        let call = |claims| kit.send(kit.token_call(claims));
        assert_eq!(call(Claims::default()).await.status, 418);
        let nonce = call(Claims::default()).await.nonce().unwrap();

        // Without a stop, and from another handle.
        kit.authorization_server.restart().await.unwrap();
        let kit = kit.reconnected();
        let answer = kit.send(kit.token_call(Claims::nonce(&*nonce))).await;
        answer.is(200, "");
        assert_eq!(answer.json()["expires_in"], 7);
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(server.request_count(), 4);

        // A token outlives both servers' stops, and works while the authorization server is away.
        server.stop().await;
        kit.resource_server.stop().await;
        assert!(is_refused(kit.resource_server.origin()).await);
        kit.resource_server.restart().await.unwrap();
        kit.api(&token, Claims::default()).await.is(200, "");
        assert!(is_refused(&origin).await);
    }
}

#[tokio::test]
async fn a_restart_cuts_what_is_under_way() {
    for kit in [Kit::start().await, Kit::start_http2().await] {
        let pending = delayed(&kit).await;
        let server = &kit.authorization_server;
        // By two at once, both of which wait for the end of what runs.
        let (one, other) = tokio::join!(server.restart(), server.restart());
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        assert!(!pending.await.unwrap());
        kit.authorization_server.delay(Duration::ZERO);
        kit.reconnected().token().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_again_and_again() {
    let mut kit = Kit::start().await;
    let origin = kit.authorization_server.origin().to_owned();
    for turn in 0..50 {
        kit = kit.reconnected();
        kit.token().await;
        kit.authorization_server.stop().await;
        assert!(is_refused(&origin).await, "{turn}");
        kit.authorization_server.restart().await.unwrap();
    }
    // By many handles at once.
    let mut tasks = tokio::task::JoinSet::new();
    for turn in 0..50 {
        let server = kit.authorization_server.clone();
        tasks.spawn(async move {
            if turn % 3 == 0 {
                server.stop().await;
            } else {
                server.restart().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    kit.authorization_server.restart().await.unwrap();
    let kit = kit.reconnected();
    kit.token().await;
    assert_eq!(kit.authorization_server.request_count(), 51);
    drop(kit);
    nobody_listens(&origin).await;
}

#[tokio::test]
async fn the_record_can_be_bounded() {
    let kit = Kit::start().await;
    let server = &kit.resource_server;
    let call = async |number: u32| {
        let call = Request::get(server.url(&format!("/{number}")));
        kit.send(call.body(Full::default()).unwrap()).await;
    };
    // The path and the status: whether what became of a request is written to the right one.
    let kept = || -> Vec<(String, u16)> {
        let status = |seen: &Recorded| seen.status().unwrap().as_u16();
        server
            .requests()
            .iter()
            .map(|seen| (seen.uri().path().to_owned(), status(seen)))
            .collect()
    };
    let is = |paths: &[&str]| {
        let all: Vec<_> = paths.iter().map(|&path| (path.to_owned(), 401)).collect();
        assert_eq!(kept(), all);
    };
    for number in 0..5 {
        call(number).await;
    }
    is(&["/0", "/1", "/2", "/3", "/4"]);
    assert_eq!(server.request_count(), 5);
    server.keep_requests(2);
    is(&["/3", "/4"]);
    call(5).await;
    is(&["/4", "/5"]);
    server.keep_requests(0);
    call(6).await;
    is(&[]);
    server.keep_requests(3);
    call(7).await;
    is(&["/7"]);
    assert_eq!(server.request_count(), 8);

    kit.authorization_server.keep_requests(1);
    for _ in 0..3 {
        kit.token().await;
    }
    assert_eq!(kit.authorization_server.requests().len(), 1);
    assert_eq!(kit.authorization_server.request_count(), 3);
}

#[tokio::test]
async fn bodies_have_a_limit() {
    const MIB: usize = 1024 * 1024;
    for kit in [Kit::start().await, Kit::start_http2().await] {
        let token = kit.token().await;
        for (length, status) in [(MIB, 200), (MIB + 1, 413), (8 * MIB, 413)] {
            let mut call = kit.api_call(&token, Claims::default());
            *call.body_mut() = "x".repeat(length).into();
            let answer = kit.send(call).await;
            answer.is(status, "");
            if status == 200 {
                assert_eq!(answer.json()["body"].as_str().map(str::len), Some(length));
            }
        }
        let mut call = kit.token_call(Claims::default());
        *call.body_mut() = "x".repeat(MIB + 1).into();
        kit.send(call).await.is(413, "");
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_of_the_paused_clock() {
    let kit = Kit::start().await;
    kit.authorization_server.delay(NEVER);
    kit.resource_server.delay(NEVER);
    let token = kit.token().await;
    kit.api(&token, Claims::default()).await.is(200, "");
}

/// Whether a new connection is refused.
async fn is_refused(origin: &str) -> bool {
    let connected = TcpStream::connect(origin.trim_start_matches("http://")).await;
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Waits for it; a minute at most.
async fn nobody_listens(origin: &str) {
    let refused = async {
        while !is_refused(origin).await {
            tokio::task::yield_now().await;
        }
    };
    let minute = Duration::from_secs(60);
    tokio::time::timeout(minute, refused).await.unwrap();
}

/// Sends a call whose answer is delayed for ever, and waits until it is decided.
async fn delayed(kit: &Kit) -> tokio::task::JoinHandle<bool> {
    kit.authorization_server.delay(NEVER);
    let answer = kit.http.request(kit.token_call(Claims::default()));
    let answer = tokio::spawn(async move { answer.await.is_ok() });
    loop {
        match &kit.authorization_server.requests()[..] {
            [seen] if seen.status().is_some() => break,
            _ => tokio::task::yield_now().await,
        }
    }
    answer
}

#[tokio::test]
async fn a_delayed_answer_is_decided_before_the_delay() {
    let kit = Kit::start().await;
    let answer = delayed(&kit).await;
    let seen = kit.authorization_server.requests();
    assert_eq!((seen.len(), seen[0].status()), (1, Some(StatusCode::OK)));
    // The client goes away; the server goes on, and knows the proof.
    answer.abort();
    kit.authorization_server.delay(Duration::ZERO);
    let mut call = kit.token_call(Claims::default());
    call.headers_mut()
        .insert("dpop", seen[0].headers()["dpop"].clone());
    kit.send(call).await.is(400, "invalid_dpop_proof");
}

#[tokio::test]
async fn the_last_handle_stops_the_server() {
    for kit in [Kit::start().await, Kit::start_http2().await] {
        let pending = delayed(&kit).await;
        let Kit {
            authorization_server,
            http,
            key,
            ..
        } = kit;
        let origin = authorization_server.origin().to_owned();

        let clone = authorization_server.clone();
        drop(authorization_server);
        clone.delay(Duration::ZERO);
        let resource_server = ResourceServer::start(&clone).await.unwrap();
        let kit = Kit {
            authorization_server: clone,
            resource_server,
            http,
            key,
        };
        kit.token().await;
        assert!(!pending.is_finished());

        let Kit {
            authorization_server,
            resource_server,
            http,
            ..
        } = kit;
        drop(authorization_server);
        assert!(!pending.await.unwrap(), "open requests fail");
        nobody_listens(&origin).await;
        // The other server is still there.
        let call = Request::get(resource_server.url("/"))
            .body(Full::default())
            .unwrap();
        assert_eq!(http.request(call).await.unwrap().status(), 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once() {
    for kit in [Kit::start().await, Kit::start_http2().await] {
        let token = kit.token().await;
        kit.resource_server.nonces(Nonces::one_time());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let call = kit.http.request(kit.api_call(&token, Claims::default()));
            tasks.spawn(async move { call.await.unwrap().headers()["dpop-nonce"].clone() });
        }
        let mut nonces = Vec::new();
        while let Some(nonce) = tasks.join_next().await {
            nonces.push(nonce.unwrap());
        }
        for nonce in &nonces {
            kit.api(&token, Claims::nonce(nonce.to_str().unwrap()))
                .await
                .is(200, "");
        }
        nonces.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        nonces.dedup();
        assert_eq!(nonces.len(), 100);
        let seen = kit.resource_server.requests();
        assert_eq!(seen.len(), 200);
        assert_eq!(
            seen.iter().filter(|seen| seen.refused().is_some()).count(),
            100
        );
    }
}
