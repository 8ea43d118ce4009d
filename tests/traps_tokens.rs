//! Traps of other DPoP clients around keys, proofs and tokens: the rest of the table in `traps.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::{BTreeSet, HashSet},
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::Method;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use support::{
    API, Answer, ENDPOINT, Fake, Seen, a3_jwk, a3_key, answer,
    bench::{
        AS, RS, all, api, audience, bench, call, callers, challenging, find, ms, request, runtime,
        secs, servers, stack, stack_with,
    },
    get, header, invalid_token, nonce_challenge, ok, refusal,
    saves::saves,
    token, token_nonce_challenge,
};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    AccessToken, BoxError, DpopKey, DpopLayer, TokenLayer, TokenParameters, TokenRequest,
};

#[tokio::test]
async fn t07_every_sending_is_signed_by_the_same_key() {
    let fake = Fake::new(|seen, _| match (seen.uri.host(), seen.nonce()) {
        (Some(AS), None) => token_nonce_challenge("n"),
        (Some(AS), _) => token(&format!("t{}", seen.number), 300),
        (_, None) => nonce_challenge("n"),
        _ if seen.number < 2 => invalid_token(),
        _ => ok(),
    });
    assert_eq!(stack(&fake).oneshot(get(API)).await.unwrap().status(), 200);
    let seen = fake.seen();
    assert_eq!(seen.len(), 3 + 3, "two nonces and a renewal");
    let keys = seen
        .iter()
        .map(|seen| header(seen.proof())["jwk"].to_string());
    assert_eq!(BTreeSet::from_iter(keys).len(), 1);
    let jwk = &header(seen[0].proof())["jwk"];
    assert_eq!(
        *jwk,
        serde_json::from_str::<Value>(a3_key().public_jwk()).unwrap()
    );
}

#[tokio::test]
async fn t08_a_token_request_is_made_anew_for_each_sending() {
    let fake = challenging();
    let request = TokenRequest::client_credentials(ENDPOINT, "id").client_secret_basic("s3cret");
    stack_with(&fake, request).oneshot(get(API)).await.unwrap();
    let asked = fake.seen_by(AS);
    let [first, second] = &asked[..] else {
        panic!("{} token requests", asked.len());
    };
    assert_eq!(first.body, second.body);
    assert_eq!(
        first.header("authorization"),
        second.header("authorization")
    );
    assert_ne!(first.claims()["jti"], second.claims()["jti"]);
    // Both are alive: not two handles to the same.
    assert_ne!(first.body.as_ptr(), second.body.as_ptr());
}

#[tokio::test]
async fn t13_without_a_token_that_is_bound_nothing_is_sent() {
    type Failing = fn() -> Result<Answer, BoxError>;
    let failures: [Failing; 5] = [
        || Err("no connection".into()),
        || Ok(answer(503, &[], "down")),
        || Ok(refusal("invalid_client")),
        || Ok(answer(200, &[], "<html>")),
        || {
            Ok(answer(
                200,
                &[],
                r#"{"access_token":"t","token_type":"Bearer"}"#,
            ))
        },
    ];
    for (n, failure) in failures.into_iter().enumerate() {
        let fake = Fake::failing(move |seen, _| match seen.uri.host() {
            Some(AS) => failure(),
            _ => Ok(ok()),
        });
        let error = find(&stack(&fake).oneshot(get(API)).await.unwrap_err());
        assert!(error.is_token_request(), "{n}: {error}");
        assert_eq!((fake.hits(AS), fake.hits(RS)), (1, 0), "{n}");
    }
}

#[tokio::test]
async fn t14_the_token_type_is_dpop_in_any_case() {
    for (token_type, good) in [
        (r#","token_type":"DPoP""#, true),
        (r#","token_type":"dpop""#, true),
        (r#","token_type":"DPOP""#, true),
        (r#","token_type":"Bearer""#, false),
        (r#","token_type":"DPoP ""#, false),
        (r#","token_type":"DPoP Bearer""#, false),
        (r#","token_type":"""#, false),
        (r#","token_type":null"#, false),
        ("", false),
    ] {
        let fake = Fake::new(move |seen, _| match seen.uri.host() {
            Some(AS) => answer(200, &[], &format!(r#"{{"access_token":"t"{token_type}}}"#)),
            _ => ok(),
        });
        let result = stack(&fake).oneshot(get(API)).await;
        match &result {
            Ok(_) => assert!(good, "{token_type}"),
            Err(error) => assert!(!good && find(error).is_downgrade(), "{token_type}: {error}"),
        }
        assert_eq!(fake.hits(RS), usize::from(good));
    }
}

#[tokio::test(start_paused = true)]
async fn t15_no_request_gets_the_token_of_another_scope_or_resource() {
    // A token says what it was asked for, and a path what token is expected.
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some(AS) => {
            let of = ["scope", "resource", "audience"].map(|name| seen.parameter(name));
            let of = of.map(|value| value.unwrap_or_default().replace([':', ' '], "."));
            token(&of.join("~"), 300)
        }
        _ => ok(),
    })
    .delay(ms(50));
    let stack = stack(&fake);
    let new = TokenParameters::new;
    let combinations = [
        (new(), "api~~"),
        (new().scope("read"), "read~~"),
        (new().scope("read write"), "read.write~~"),
        (new().resource("urn:a"), "api~urn.a~"),
        (new().resource("urn:b"), "api~urn.b~"),
        (new().audience("urn:a"), "api~~urn.a"),
        (new().scope("read").resource("urn:a"), "read~urn.a~"),
    ];
    // All at once, three times over.
    let calls = (0..3).flat_map(|_| &combinations).map(|(parameters, of)| {
        let mut request = get(&format!("{API}/{of}"));
        request.extensions_mut().insert(parameters.clone());
        call(&stack, request)
    });
    assert!(all(calls.collect()).await.iter().all(|call| call.is_ok()));
    let seen = fake.seen_by(RS);
    assert_eq!((fake.hits(AS), seen.len()), (7, 21));
    for seen in seen {
        assert_eq!(seen.uri.path().trim_start_matches('/'), seen.token());
    }
}

/// Whether a type can be written by serde.
macro_rules! can_be_serialised {
    ($type:ty) => {{
        struct Probe<T>(PhantomData<T>);
        // Found only if there is nothing of this name in the type's own `impl`.
        #[allow(dead_code)]
        trait Otherwise {
            const IT_CAN: bool = false;
        }
        impl<T> Otherwise for Probe<T> {}
        #[allow(dead_code)]
        impl<T: serde::Serialize> Probe<T> {
            const IT_CAN: bool = true;
        }
        Probe::<$type>::IT_CAN
    }};
}

#[tokio::test]
async fn t16_a_private_key_goes_to_no_store() {
    let probes = [
        can_be_serialised!(String),
        can_be_serialised!(DpopKey),
        can_be_serialised!(AccessToken),
        can_be_serialised!(DpopLayer),
        can_be_serialised!(TokenLayer),
        can_be_serialised!(TokenRequest),
    ];
    assert_eq!(probes, [true, false, false, false, false, false]);

    // The one thing of ours that is meant to be stored.
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = stored.clone();
    let request = TokenRequest::refresh_token(ENDPOINT, "id", "r0").store(saves(move |new| {
        store.lock().unwrap().push(new);
        async { Ok(()) }
    }));
    let fake = Fake::new(|seen, _| match seen.uri.host() {
        Some(AS) => answer(
            200,
            &[],
            r#"{"access_token":"t","token_type":"DPoP","refresh_token":"r1"}"#,
        ),
        _ => ok(),
    });
    stack_with(&fake, request).oneshot(get(API)).await.unwrap();
    assert_eq!(*stored.lock().unwrap(), ["r1"]);
    // And what is sent holds its public half alone.
    let private = a3_jwk()["d"].as_str().unwrap().to_owned();
    for seen in fake.seen() {
        assert_eq!(header(seen.proof())["jwk"].as_object().unwrap().len(), 4);
        let sent = format!("{:?} {}", seen.body, header(seen.proof()));
        assert!(!sent.contains(&private));
    }
}

#[tokio::test]
async fn t17_htu_is_the_url_on_the_wire_without_its_query() {
    for (uri, htu) in [
        (
            "https://api.example.com/orders?page=2&q=/x",
            "https://api.example.com/orders",
        ),
        (
            "https://api.example.com/orders?",
            "https://api.example.com/orders",
        ),
        (
            "https://api.example.com:443/orders",
            "https://api.example.com/orders",
        ),
        (
            "https://API.Example.com/Orders",
            "https://api.example.com/Orders",
        ),
        (
            "https://api.example.com/orders/",
            "https://api.example.com/orders/",
        ),
        (
            "https://api.example.com//orders//7",
            "https://api.example.com//orders//7",
        ),
        ("https://api.example.com", "https://api.example.com/"),
        (
            "https://api.example.com/groups/7/a%2Fb%40c",
            "https://api.example.com/groups/7/a%2Fb%40c",
        ),
        (
            "https://api.example.com/groups/8/%7e/@",
            "https://api.example.com/groups/8/%7e/@",
        ),
        (
            "https://api.example.com/a/./b/../c",
            "https://api.example.com/a/./b/../c",
        ),
    ] {
        let fake = api(|_| ok());
        stack(&fake).oneshot(get(uri)).await.unwrap();
        let seen = &fake.seen_by(RS)[0];
        assert_eq!(seen.claims()["htu"], htu, "{uri}");
        let wire = format!(
            "https://{}{}",
            seen.uri.authority().unwrap(),
            seen.uri.path()
        );
        assert_eq!(wire, htu, "{uri}");
    }
}

#[tokio::test]
async fn t18_htm_is_the_method_as_it_is_sent() {
    for name in ["GET", "POST", "PATCH", "PROPFIND", "get", "Purge"] {
        let fake = api(|_| ok());
        let mut request = get(API);
        *request.method_mut() = Method::from_bytes(name.as_bytes()).unwrap();
        stack(&fake).oneshot(request).await.unwrap();
        let seen = &fake.seen_by(RS)[0];
        assert_eq!(
            (&seen.claims()["htm"], seen.method.as_str()),
            (&name.into(), name)
        );
    }
}

#[tokio::test]
async fn t20_no_ath_at_the_token_endpoint() {
    for request in [request(), TokenRequest::refresh_token(ENDPOINT, "id", "r0")] {
        let fake = challenging();
        let (tokens, stack) = bench(&fake, DpopLayer::new(a3_key()), request);
        stack.clone().oneshot(get(API)).await.unwrap();
        // Not even when there is a token.
        tokens.forget_tokens();
        stack.oneshot(get(API)).await.unwrap();
        let ath = |seen: &Seen| seen.claims().get("ath").is_some();
        assert_eq!((fake.hits(AS), fake.hits(RS)), (3, 3));
        assert!(!fake.seen_by(AS).iter().any(ath));
        assert!(fake.seen_by(RS).iter().all(ath));
    }
}

#[tokio::test]
async fn t21_a_jti_has_128_bits_that_all_vary() {
    let fake = api(|_| ok());
    let stack = stack(&fake);
    for _ in 0..256 {
        stack.clone().oneshot(get(API)).await.unwrap();
    }
    let mut all = HashSet::new();
    for seen in fake.seen_by(RS) {
        let jti = seen.claims()["jti"].as_str().unwrap().to_owned();
        let bytes = URL_SAFE_NO_PAD.decode(jti).unwrap();
        all.insert(u128::from_be_bytes(bytes.try_into().expect("16 bytes")));
    }
    assert_eq!(all.len(), 256);
    // Each bit was set once, and was not set once.
    let ones = all.iter().fold(0, |ones, jti| ones | jti);
    let zeros = all.iter().fold(0, |zeros, jti| zeros | !jti);
    assert_eq!((ones, zeros), (u128::MAX, u128::MAX));
}

#[tokio::test(start_paused = true)]
async fn t22_ath_and_header_are_of_one_token_while_tokens_change() {
    // Challenges, and one refusal, hold requests up while the token changes every second or two.
    let sent_before = Mutex::new(HashSet::new());
    let fake = Fake::new(move |seen, _| {
        let path = seen.uri.path().trim_start_matches('/').to_owned();
        match seen.uri.host() {
            Some(AS) => token(&format!("t{}", seen.number), 2),
            _ if !sent_before.lock().unwrap().insert(path.clone()) => ok(),
            _ if path == "101" => invalid_token(),
            _ if path.ends_with('0') => nonce_challenge(&path),
            _ => ok(),
        }
    })
    .delay(ms(300));
    let stack = stack(&fake);
    let calls = callers(&stack, API, 600, ms(100)).await;
    assert!(calls.iter().all(|call| call.is_ok()));
    let mut tokens = HashSet::new();
    for seen in fake.seen_by(RS) {
        let hash = Sha256::digest(seen.token());
        assert_eq!(seen.claims()["ath"], URL_SAFE_NO_PAD.encode(hash));
        tokens.insert(seen.token().to_owned());
    }
    assert!(tokens.len() > 30, "{}", tokens.len());
    assert_eq!(fake.hits(RS), 600 + 60 + 1);
}

/// Without a runtime: nothing could be sent.
#[test]
fn t27_making_the_layers_sends_nothing() {
    let fake = api(|_| ok());
    let dpop = DpopLayer::new(a3_key());
    let tokens = TokenLayer::new(&dpop, fake.clone(), request(), audience()).unwrap();
    let stack = ServiceBuilder::new().layer(tokens).layer(dpop);
    let mut service = stack.service(fake.clone());
    let runtime = runtime();
    runtime.block_on(async {
        service.ready().await.unwrap();
        tokio::time::sleep(ms(20)).await;
    });
    assert_eq!(fake.seen().len(), 0);
    runtime.block_on(service.oneshot(get(API))).unwrap();
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn t28_a_token_is_renewed_long_before_its_end() {
    const LIFE: Duration = secs(60);
    let start = Instant::now();
    let up = Arc::new(AtomicBool::new(true));
    let fake = {
        let up = up.clone();
        Fake::new(move |seen, _| match seen.uri.host() {
            // It says when it was asked for.
            Some(AS) if up.load(Ordering::Relaxed) => {
                token(&(seen.at - start).as_millis().to_string(), LIFE.as_secs())
            }
            Some(AS) => answer(503, &[], "down"),
            _ => ok(),
        })
    };
    let fake = fake.slow(AS, secs(2));
    let stack = stack(&fake);
    stack.clone().oneshot(get(API)).await.unwrap();
    let mut ticks = tokio::time::interval(ms(100));
    for _ in 0..2000 {
        ticks.tick().await;
        let began = Instant::now();
        stack.clone().oneshot(get(API)).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
    }
    assert!(fake.hits(AS) > 3);
    // And if there is no other.
    up.store(false, Ordering::Relaxed);
    let error = loop {
        ticks.tick().await;
        if let Err(error) = stack.clone().oneshot(get(API)).await {
            break find(&error);
        }
    };
    assert!(error.is_token_request(), "{error}");

    // How much was left of the tokens that were sent.
    let seen = fake.seen_by(RS);
    let left = seen.iter().map(|seen| {
        let asked = seen.token().parse().unwrap();
        LIFE - (seen.at - start - ms(asked))
    });
    let least = left.min().unwrap();
    assert!((secs(6)..=ms(6100)).contains(&least), "{least:?}");
}

#[tokio::test]
async fn t30_basic_holds_id_and_secret_form_urlencoded() {
    let (id, secret) = ("id with:odd/ch%rs+ü", "s&=e c+r%e:t/ü");
    let fake = servers(300, |_| true);
    let request = TokenRequest::client_credentials(ENDPOINT, id).client_secret_basic(secret);
    stack_with(&fake, request).oneshot(get(API)).await.unwrap();
    let asked = &fake.seen_by(AS)[0];
    let basic = asked
        .header("authorization")
        .unwrap()
        .strip_prefix("Basic ")
        .unwrap();
    let basic = String::from_utf8(STANDARD.decode(basic).unwrap()).unwrap();
    let (before, after) = basic.split_once(':').unwrap();
    let decoded = |text: &str| {
        let pairs: Vec<_> = form_urlencoded::parse(text.as_bytes()).collect();
        assert_eq!(pairs.len(), 1, "{text}");
        pairs[0].0.clone().into_owned()
    };
    assert_eq!(
        (decoded(before).as_str(), decoded(after).as_str()),
        (id, secret)
    );
}
