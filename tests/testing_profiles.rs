//! The profiles of `testing`, from outside: what each server makes of proofs, credentials and requests, one table
//! for each rule; a resource's metadata; and that the crate's own client gets on with all of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tower::{ServiceBuilder, ServiceExt};
use tower_dpop::{
    Audience, DpopKey, DpopLayer, Error, TokenLayer, TokenRequest,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces, Profile, TokenFormat},
};

use self::servers::{Answer, Call, Claims, Kit, Side, proof};
use Profile::{
    Auth0, Bluesky, Curity, Duende, FapiSuite, Keycloak, NodeOidcProvider, Okta, Spring, Wso2,
    Wso2Gateway,
};
use Side::{Authorization, Resource};

const ALL: [Profile; 11] = [
    Wso2,
    Wso2Gateway,
    Keycloak,
    Duende,
    NodeOidcProvider,
    Okta,
    Auth0,
    Bluesky,
    Spring,
    Curity,
    FapiSuite,
];

const BAD: &str = "invalid_dpop_proof";
const CHALLENGE: &str = "use_dpop_nonce";
const HOUR: i64 = 60 * 60;

/// Both servers by a profile, and what it takes to try one proof after the other.
struct World {
    kit: Kit,
    profile: Profile,
    token: String,
}

impl World {
    async fn new(profile: Profile) -> Self {
        let kit = Kit {
            key: support::a3_key(),
            ..Kit::start().await
        };
        kit.authorization_server.profile(profile);
        kit.resource_server.profile(profile);
        kit.authorization_server
            .token_lifetime(Duration::from_secs(1_000_000_000));
        let mut world = Self {
            kit,
            profile,
            token: String::new(),
        };
        let answer = world.call(Authorization, Claims::default()).await;
        answer.is(200, "");
        world.token = answer.json()["access_token"].as_str().unwrap().to_owned();
        world
    }

    /// A nonce of this server, if it wants one.
    async fn nonce(&self, side: Side) -> Option<String> {
        let answer = self.kit.call(side, &self.token, Claims::default()).await;
        (answer.verdict().1 == CHALLENGE).then(|| answer.nonce().unwrap())
    }

    /// A call whose proof has a nonce where one is wanted.
    async fn call(&self, side: Side, claims: Claims<'_>) -> Answer {
        let nonce = self.nonce(side).await;
        let nonce = claims.nonce.or(nonce.as_deref());
        let claims = Claims { nonce, ..claims };
        self.kit.call(side, &self.token, claims).await
    }

    /// A call with this `htu`, as it stands, and whatever else is wanted.
    async fn raw(&self, side: Side, htu: &str, change: impl FnOnce(&mut Call)) -> Answer {
        let nonce = self.nonce(side).await;
        let mut call = self.plain(side);
        let proof = raw_proof(call.method(), htu, &self.token, side, nonce.as_deref());
        call.headers_mut().insert("dpop", proof.parse().unwrap());
        change(&mut call);
        self.kit.send(call).await
    }

    fn plain(&self, side: Side) -> Call {
        match side {
            Authorization => self.kit.token_call(Claims::default()),
            Resource => self.kit.api_call(&self.token, Claims::default()),
        }
    }

    fn url(&self, side: Side) -> String {
        match side {
            Authorization => self.kit.authorization_server.token_endpoint(),
            Resource => self.kit.resource_server.url("/orders"),
        }
    }
}

/// A proof that is signed here, since the crate writes no such `htu`.
fn raw_proof(method: &Method, htu: &str, token: &str, side: Side, nonce: Option<&str>) -> String {
    let jti = proof_id();
    let iat = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut claims = json!({ "jti": jti, "htm": method.as_str(), "htu": htu, "iat": iat });
    if matches!(side, Resource) {
        let model = self::proof(
            &support::a3_key(),
            method,
            "http://rs.example",
            Claims {
                token: Some(token),
                ..Claims::default()
            },
        );
        claims["ath"] = support::claims(&model)["ath"].clone();
    }
    if let Some(nonce) = nonce {
        claims["nonce"] = json!(nonce);
    }
    support::sign_jws(&support::a3_header().to_string(), &claims.to_string())
}

fn proof_id() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("raw-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// How the server of this side answers a proof that it takes for bad.
fn bad(profile: Profile, side: Side) -> (u16, &'static str) {
    match (profile, side) {
        (Keycloak, Authorization) => (400, "invalid_request"),
        (Bluesky, Authorization) => (401, BAD),
        (_, Authorization) => (400, BAD),
        (Wso2, Resource) => (401, ""),
        (Auth0, Resource) => (400, BAD),
        (_, Resource) => (401, BAD),
    }
}

#[track_caller]
fn is(world: &World, side: Side, what: &str, answer: &Answer, good: bool) {
    let (status, error) = if good {
        (200, "")
    } else {
        bad(world.profile, side)
    };
    assert_eq!(
        answer.verdict(),
        (status, error.to_owned()),
        "{:?} {side:?} {what}: {:?} {:?}",
        world.profile,
        answer.headers,
        answer.body
    );
}

/// The window of `iat`: seconds back and ahead.
fn window(profile: Profile, side: Side) -> (i64, i64) {
    match (profile, side) {
        (Wso2, _) | (Wso2Gateway, Authorization) => (60, 1_000_000),
        (Wso2Gateway, Resource) => (60, 60),
        (Keycloak, _) => (25, 15),
        (Duende, Authorization) => (360, 300),
        (Duende, Resource) => (30, 25),
        (NodeOidcProvider | FapiSuite, _) => (300, 300),
        (Okta, _) => (300, 10),
        (Auth0, Authorization) => (60, 10),
        (Auth0, Resource) => (300, 30),
        (Bluesky, _) => (190, 180),
        (Spring, _) => (30, 30),
        (Curity, _) => (10, 10),
        _ => panic!("no window is known of {profile:?}"),
    }
}

#[tokio::test]
async fn windows() {
    for profile in ALL {
        let world = World::new(profile).await;
        for side in Side::BOTH {
            let (back, ahead) = window(profile, side);
            // A second may end between signing and checking.
            for (offset, good) in [
                (1 - back, true),
                (-back - 1, false),
                (ahead, true),
                (ahead + 2, ahead > HOUR),
                (-10 * HOUR, false),
            ] {
                if profile == NodeOidcProvider && world.nonce(side).await.is_some() {
                    panic!("this table is for proofs without nonce");
                }
                let answer = world.call(side, Claims::ahead(offset)).await;
                is(&world, side, &offset.to_string(), &answer, good);
            }
        }
    }
}

#[tokio::test]
async fn a_nonce_in_place_of_the_time() {
    for profile in [NodeOidcProvider, Bluesky] {
        let world = World::new(profile).await;
        for side in Side::BOTH {
            world.kit.nonces(side, Nonces::required());
            for ahead in [HOUR, -HOUR] {
                // Without a nonce: told to use one, or that the time is wrong.
                let claims = Claims::ahead(ahead);
                let answer = world.kit.call(side, &world.token, claims).await;
                if profile == NodeOidcProvider {
                    answer.is(side.bad(), CHALLENGE);
                } else {
                    is(&world, side, "without nonce", &answer, false);
                }
                let answer = world.call(side, claims).await;
                let good = profile == NodeOidcProvider;
                is(&world, side, "with nonce", &answer, good);
            }
        }
    }
}

#[tokio::test]
async fn comparing_htu() {
    for profile in ALL {
        let world = World::new(profile).await;
        for side in Side::BOTH {
            let url = world.url(side);
            let (origin, path) = url.split_at(url.rfind('/').unwrap());
            // A query; a path in upper case; a slash at its end; a detour in it; the scheme in upper case.
            let verdicts = match (profile, side) {
                (Wso2, _) | (Wso2Gateway, Authorization) => [false, true, false, false, true],
                (Wso2Gateway, Resource) => [true, true, true, false, true],
                (Keycloak, _) => [true, false, false, false, true],
                (Spring, _) => [false; 5],
                (FapiSuite, _) => [true, false, false, false, false],
                _ => [true, false, false, true, true],
            };
            let same = world.raw(side, &url, |_| ()).await;
            is(&world, side, &url, &same, true);
            for (htu, good) in [
                format!("{url}?a=b"),
                format!("{origin}{}", path.to_uppercase()),
                format!("{url}/"),
                format!("{origin}/x/..{path}"),
                url.replace("http:", "HTTP:"),
            ]
            .into_iter()
            .zip(verdicts)
            {
                let answer = world.raw(side, &htu, |_| ()).await;
                is(&world, side, &htu, &answer, good);
            }
        }
    }
}

#[tokio::test]
async fn the_host_is_that_of_the_request_or_the_servers_own() {
    for profile in ALL {
        let world = World::new(profile).await;
        for side in Side::BOTH {
            let by_request = match side {
                Authorization => matches!(profile, Keycloak | Spring),
                Resource => matches!(profile, Wso2 | Wso2Gateway | Keycloak | Auth0 | Spring),
            };
            let url = world.url(side);
            let path = &url[url.rfind('/').unwrap()..];
            let host = |call: &mut Call| {
                call.headers_mut()
                    .insert("host", "public.example".parse().unwrap());
            };
            let public = format!("http://public.example{path}");
            let answer = world.raw(side, &public, host).await;
            is(&world, side, &public, &answer, by_request);
            let answer = world.raw(side, &url, host).await;
            is(&world, side, &url, &answer, !by_request);
        }
        // Byte by byte, the host counts as it was written.
        let loud = |call: &mut Call| {
            call.headers_mut()
                .insert("host", "PUBLIC.example".parse().unwrap());
        };
        if matches!(profile, Wso2 | Spring) {
            let answer = world
                .raw(Resource, "http://public.example/orders", loud)
                .await;
            is(&world, Resource, "PUBLIC", &answer, profile == Wso2);
        }
    }
}

#[tokio::test]
async fn a_jti_that_was_used_before() {
    for profile in ALL {
        let world = World::new(profile).await;
        for side in Side::BOTH {
            let remembered = match side {
                Authorization => !matches!(profile, Wso2 | Wso2Gateway),
                Resource => !matches!(profile, Wso2 | Auth0),
            };
            let first = world.call(side, Claims::jti("once")).await;
            is(&world, side, "first", &first, true);
            let again = world.call(side, Claims::jti("once")).await;
            if profile == NodeOidcProvider && matches!(side, Authorization) {
                again.is(400, "invalid_grant");
            } else {
                is(&world, side, "again", &again, !remembered);
            }
        }

        // With another key. (The token is bound to the first, so this is for the authorization server.)
        let nonce = world.nonce(Authorization).await;
        let other = Kit {
            key: DpopKey::generate().unwrap(),
            authorization_server: world.kit.authorization_server.clone(),
            resource_server: world.kit.resource_server.clone(),
            http: world.kit.http.clone(),
        };
        let claims = Claims {
            nonce: nonce.as_deref(),
            ..Claims::jti("once")
        };
        let answer = other.send(other.token_call(claims)).await;
        is(
            &world,
            Authorization,
            "other key",
            &answer,
            profile != Keycloak,
        );

        // For another URL.
        let nonce = world.nonce(Resource).await;
        let claims = Claims {
            nonce: nonce.as_deref(),
            token: Some(&world.token),
            ..Claims::jti("once")
        };
        let mut call = world.plain(Resource);
        let url = world.kit.resource_server.url("/else");
        let fresh = proof(&world.kit.key, &Method::GET, &url, claims);
        call.headers_mut().insert("dpop", fresh.parse().unwrap());
        *call.uri_mut() = url.parse().unwrap();
        let answer = world.kit.send(call).await;
        let good = matches!(profile, Wso2 | Auth0 | Keycloak);
        is(&world, Resource, "other URL", &answer, good);
    }
}

#[tokio::test]
async fn how_long_a_jti_is_remembered() {
    for (profile, seconds) in [(Wso2Gateway, 120), (NodeOidcProvider, 300)] {
        let world = World::new(profile).await;
        let at = async |seconds: i64| {
            world.kit.resource_server.clock_offset(seconds);
            let claims = Claims {
                ahead: seconds,
                ..Claims::jti("once")
            };
            world.call(Resource, claims).await
        };
        is(&world, Resource, "first", &at(0).await, true);
        is(&world, Resource, "too soon", &at(seconds - 2).await, false);
        is(&world, Resource, "late", &at(seconds + 2).await, true);
        is(
            &world,
            Resource,
            "late again",
            &at(seconds + 3).await,
            false,
        );
    }
}

#[tokio::test]
async fn spring_remembers_a_thousand_proofs_of_a_key() {
    let world = World::new(Spring).await;
    // One went before, to see whether a nonce is wanted.
    for count in 0..1000 {
        let answer = world.kit.api(&world.token, Claims::default()).await;
        is(&world, Resource, &count.to_string(), &answer, true);
    }
    let answer = world.kit.api(&world.token, Claims::default()).await;
    is(&world, Resource, "one more", &answer, false);
    let seen = world.kit.resource_server.requests();
    assert_eq!(
        seen[1000].refused(),
        Some("unable to cache the proof's `jti`")
    );

    // Another key has a thousand of its own, and so has this one later.
    let other = Kit {
        key: DpopKey::generate().unwrap(),
        authorization_server: world.kit.authorization_server.clone(),
        resource_server: world.kit.resource_server.clone(),
        http: world.kit.http.clone(),
    };
    let token = other.token().await;
    other.api(&token, Claims::default()).await.is(200, "");
    world.kit.resource_server.clock_offset(70);
    let answer = world.kit.api(&world.token, Claims::ahead(70)).await;
    is(&world, Resource, "later", &answer, true);
}

#[tokio::test]
async fn nonces() {
    for profile in ALL {
        let world = World::new(profile).await;
        for side in Side::BOTH {
            let (wanted, ignored) = match (profile, side) {
                (Bluesky | FapiSuite, _) | (Okta, Authorization) => (true, false),
                (Wso2 | Wso2Gateway | Keycloak | Spring, _) => (false, true),
                // A client with a secret is not asked, and what it sends is not looked at.
                (Auth0, _) => (false, true),
                _ => (false, false),
            };
            let call = async |nonce: Option<&str>| {
                world
                    .kit
                    .call(side, &world.token, Claims::nonce(nonce))
                    .await
            };
            let answer = call(None).await;
            if wanted {
                answer.is(side.bad(), CHALLENGE);
                let nonce = answer.nonce();
                let answer = call(nonce.as_deref()).await;
                answer.is(200, "");
                assert_eq!(
                    answer.nonce().is_some(),
                    profile != FapiSuite,
                    "{profile:?}"
                );
                let again = call(nonce.as_deref()).await;
                if profile == FapiSuite {
                    again.is(side.bad(), CHALLENGE);
                } else {
                    again.is(200, "");
                }
                call(Some("stray")).await.is(side.bad(), CHALLENGE);
            } else {
                is(&world, side, "no nonce", &answer, true);
                let answer = call(Some("stray")).await;
                is(&world, side, "a stray nonce", &answer, ignored);
            }
        }
    }
}

#[tokio::test]
async fn auth0_asks_clients_without_a_secret_for_a_nonce() {
    let world = World::new(Auth0).await;
    world.kit.authorization_server.add_public_client("public");
    let call = async |nonce: Option<&str>| {
        let parameters = [
            ("grant_type", "client_credentials"),
            ("client_id", "public"),
        ];
        let call = world.kit.token_call_of(&parameters, Claims::nonce(nonce));
        world.kit.send(call).await
    };
    let challenge = call(None).await;
    challenge.is(400, CHALLENGE);
    call(challenge.nonce().as_deref()).await.is(200, "");
    call(Some("stray")).await.is(400, CHALLENGE);
}

#[tokio::test]
async fn how_long_a_nonce_is_good() {
    for (profile, side, turn) in [
        (Bluesky, Authorization, 60),
        (Bluesky, Resource, 60),
        (Okta, Authorization, 24 * HOUR),
    ] {
        let world = World::new(profile).await;
        let first = world.nonce(side).await;
        let at = async |seconds: i64| {
            world.kit.clock_offset(side, seconds);
            let claims = Claims {
                nonce: first.as_deref(),
                ..Claims::ahead(seconds)
            };
            world.kit.call(side, &world.token, claims).await
        };
        for turns in [0, 1, 2] {
            let answer = at(turns * turn + 5).await;
            answer.is(200, "");
            assert_eq!(answer.nonce() == first, turns == 0, "{profile:?} {turns}");
        }
        at(3 * turn + 5).await.is(side.bad(), CHALLENGE);
    }
}

#[tokio::test]
async fn all_previous_nonces_are_forgotten_after_a_long_time() {
    let kit = Kit::start().await;
    let minute = Duration::from_secs(60);
    kit.authorization_server
        .nonces(Nonces::rotating(minute).previous(3));
    let call = async |nonce: Option<&str>, ahead: i64| {
        kit.authorization_server.clock_offset(ahead);
        let claims = Claims {
            nonce,
            ..Claims::ahead(ahead)
        };
        kit.send(kit.token_call(claims)).await
    };
    let first = call(None, 0).await.nonce();
    call(first.as_deref(), 3 * 60 + 5).await.is(200, "");
    let last = call(None, 3 * 60 + 5).await.nonce();
    call(last.as_deref(), 1_000_000).await.is(400, CHALLENGE);
    // None at all.
    kit.authorization_server.clock_offset(0);
    kit.authorization_server
        .nonces(Nonces::rotating(minute).previous(0));
    let first = call(None, 0).await.nonce();
    call(first.as_deref(), 5).await.is(200, "");
    call(first.as_deref(), 65).await.is(400, CHALLENGE);
}

/// A broken rule: what is sent in place of one good proof.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Broken {
    Missing,
    Two,
    Old,
    OtherMethod,
    OtherTarget,
    Used,
}

async fn broken(world: &World, side: Side, broken: Broken) -> Answer {
    let nonce = world.nonce(side).await;
    let url = world.url(side);
    let token = matches!(side, Resource).then_some(&*world.token);
    let claims = Claims {
        token,
        nonce: nonce.as_deref(),
        ..Claims::default()
    };
    let mut call = world.plain(side);
    let right = call.method().clone();
    let made = |method: &Method, url: &str, claims| proof(&world.kit.key, method, url, claims);
    let good = made(&right, &url, claims);
    let proofs = match broken {
        Broken::Missing => vec![],
        Broken::Two => vec![good.clone(), made(&right, &url, claims)],
        Broken::Old => vec![made(
            &right,
            &url,
            Claims {
                ahead: -10 * HOUR,
                ..claims
            },
        )],
        Broken::OtherMethod => vec![made(&Method::DELETE, &url, claims)],
        Broken::OtherTarget => vec![made(&right, &format!("{url}/else"), claims)],
        Broken::Used => {
            let first = Claims {
                jti: Some("used"),
                ..claims
            };
            world.kit.call(side, &world.token, first).await.is(200, "");
            // A nonce may have been used up by that.
            let nonce = world.nonce(side).await;
            let again = Claims {
                nonce: nonce.as_deref(),
                ..first
            };
            vec![made(&right, &url, again)]
        }
    };
    call.headers_mut().remove("dpop");
    for proof in proofs {
        call.headers_mut().append("dpop", proof.parse().unwrap());
    }
    world.kit.send(call).await
}

/// Status, code and text of what the token endpoint answers.
#[tokio::test]
async fn refusals_of_the_authorization_server() {
    use Broken::{Missing, Old, OtherMethod, OtherTarget, Two, Used};
    for profile in ALL {
        let world = World::new(profile).await;
        for case in [Missing, Two, Old, OtherMethod, OtherTarget, Used] {
            let (status, code, text) = match (profile, case) {
                (Wso2 | Wso2Gateway | Spring, Missing) => (200, None, None),
                (Wso2 | Wso2Gateway, Used) => (200, None, None),
                (Keycloak, Missing) => {
                    (400, Some("invalid_request"), Some("DPoP proof is missing"))
                }
                (Keycloak, Old) => (
                    400,
                    Some("invalid_request"),
                    Some("DPoP proof is not active"),
                ),
                (Keycloak, OtherTarget) => {
                    (400, Some("invalid_request"), Some("DPoP HTTP URL mismatch"))
                }
                (Keycloak, OtherMethod) => (
                    400,
                    Some("invalid_request"),
                    Some("DPoP HTTP method mismatch"),
                ),
                (Keycloak, Used) => (
                    400,
                    Some("invalid_request"),
                    Some("DPoP proof has already been used"),
                ),
                (Keycloak, Two) => (400, Some("invalid_request"), Some("")),
                (NodeOidcProvider, Missing) => (
                    400,
                    Some("invalid_grant"),
                    Some("DPoP proof JWT not provided"),
                ),
                (NodeOidcProvider, Used) => (
                    400,
                    Some("invalid_grant"),
                    Some("DPoP proof JWT Replay detected"),
                ),
                (Spring, Two) => (400, Some("invalid_request"), None),
                (Spring, _) => (400, Some(BAD), None),
                (Bluesky, _) => (401, Some(BAD), Some("")),
                _ => (400, Some(BAD), Some("")),
            };
            let answer = broken(&world, Authorization, case).await;
            let body = answer.json();
            let member = |name: &str| body[name].as_str();
            assert_eq!(
                (answer.status, member("error")),
                (status, code),
                "{profile:?} {case:?}"
            );
            // An empty text stands for any.
            let told = member("error_description");
            match text {
                Some("") => assert!(
                    told.is_some_and(|told| !told.is_empty()),
                    "{profile:?} {case:?}"
                ),
                text => assert_eq!(told, text, "{profile:?} {case:?}"),
            }
            let challenge = answer.header("www-authenticate");
            assert_eq!(challenge.is_some(), status == 401, "{profile:?} {case:?}");
            // What the record tells is the rule, whatever the server tells the client.
            let seen = world.kit.authorization_server.requests();
            let refused = seen.last().unwrap().refused();
            assert_eq!(refused.is_some(), status != 200);
            assert!(
                refused.is_none_or(|refused| !refused.contains("DPoP proof")),
                "{refused:?}"
            );
        }
    }
}

/// The challenges of a resource server to no credentials and to an old proof, as they stand in the headers.
#[tokio::test]
async fn challenges_of_the_resource_server() {
    for profile in ALL {
        let world = World::new(profile).await;
        let algs = profile.algorithms().join(" ");
        let algs = format!(r#"algs="{algs}""#);
        let none = |answer: &Answer| -> Vec<String> {
            let values = answer.headers.get_all("www-authenticate").iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        let expected = match profile {
            Wso2 => vec![r#"realm user="""#.to_owned()],
            NodeOidcProvider => vec!["Bearer".to_owned(), format!("DPoP {algs}")],
            Auth0 => vec![format!(r#"Bearer realm="api", DPoP {algs}"#)],
            Duende => vec!["DPoP".to_owned()],
            FapiSuite => vec![format!("dPoP {algs}")],
            _ => vec![format!("DPoP {algs}")],
        };
        let mut call = world.plain(Resource);
        call.headers_mut().remove("authorization");
        let answer = world.kit.send(call).await;
        assert_eq!(
            (answer.status, none(&answer)),
            (401, expected),
            "{profile:?}"
        );
        assert!(answer.body.is_empty());

        let answer = broken(&world, Resource, Broken::Old).await;
        let text = r#"error="invalid_dpop_proof", error_description="`iat` is too long ago""#;
        let expected = match profile {
            Wso2 => r#"realm user="""#.to_owned(),
            Auth0 => format!(r#"Bearer realm="api", DPoP {text}, {algs}"#),
            Duende => format!("DPoP {text}"),
            FapiSuite => format!("dPoP {text}, {algs}"),
            Spring => format!(r#"DPoP error="invalid_dpop_proof", {algs}"#),
            _ => format!("DPoP {text}, {algs}"),
        };
        let status = if profile == Auth0 { 400 } else { 401 };
        assert_eq!(
            (answer.status, none(&answer)),
            (status, vec![expected]),
            "{profile:?}"
        );
        if profile == Bluesky {
            assert_eq!(answer.json()["error"], BAD);
        } else {
            assert!(answer.body.is_empty());
        }

        let answer = broken(&world, Resource, Broken::Missing).await;
        match profile {
            Wso2Gateway => answer.is(401, "invalid_token"),
            _ => is(&world, Resource, "missing", &answer, false),
        }
        let answer = broken(&world, Resource, Broken::Two).await;
        is(&world, Resource, "two", &answer, false);
    }
}

#[tokio::test]
async fn schemes() {
    for profile in ALL {
        let world = World::new(profile).await;
        let token = &world.token;
        let exact = matches!(profile, Wso2 | Keycloak);
        for (field, good) in [
            (format!("DPoP {token}"), true),
            (format!("dpop {token}"), !exact),
            (format!("DPoP  {token}"), profile != Wso2),
            (format!("Bearer {token}"), profile == Wso2Gateway),
        ] {
            let change = |call: &mut Call| {
                call.headers_mut()
                    .insert("authorization", field.parse().unwrap());
            };
            let answer = world.raw(Resource, &world.url(Resource), change).await;
            let status = if good { 200 } else { 401 };
            assert_eq!(answer.status, status, "{profile:?} {field}");
        }
        // As Bearer, and without a proof.
        let mut call = world.plain(Resource);
        call.headers_mut().remove("dpop");
        call.headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        let error = if profile == Wso2 { "" } else { "invalid_token" };
        world.kit.send(call).await.is(401, error);
    }
}

#[tokio::test]
async fn tokens_that_are_bound_to_no_key() {
    for profile in ALL {
        let world = World::new(profile).await;
        let mut call = world.plain(Authorization);
        call.headers_mut().remove("dpop");
        let answer = world.kit.send(call).await;
        if !matches!(profile, Wso2 | Wso2Gateway | Spring) {
            assert_ne!(answer.status, 200, "{profile:?}");
            continue;
        }
        let body = answer.json();
        assert_eq!(
            (answer.status, &body["token_type"]),
            (200, &json!("Bearer"))
        );
        assert_eq!(body["expires_in"], 1_000_000_000);
        let token = body["access_token"].as_str().unwrap();
        if profile == Spring {
            assert_eq!(support::claims(token).get("cnf"), None);
        }
        let mut call = world.kit.api_call(token, Claims::default());
        let error = if profile == Wso2 { "" } else { "invalid_token" };
        world.kit.send(call.clone()).await.is(401, error);
        let seen = world.kit.resource_server.requests();
        let refused = seen.last().unwrap().refused();
        assert_eq!(refused, Some("the access token is bound to no key"));
        call.headers_mut().remove("dpop");
        call.headers_mut()
            .insert("authorization", format!("Bearer {token}").parse().unwrap());
        world.kit.send(call).await.is(200, "");
    }
}

#[tokio::test]
async fn refresh_tokens_of_clients_with_a_secret() {
    for profile in ALL {
        let world = World::new(profile).await;
        let key = DpopKey::generate().unwrap();
        let server = &world.kit.authorization_server;
        let refresh = async |token: String| {
            let parameters = [
                ("grant_type", "refresh_token"),
                ("refresh_token", &*token),
                ("client_id", CLIENT_ID),
                ("client_secret", CLIENT_SECRET),
            ];
            let nonce = world.nonce(Authorization).await;
            let claims = Claims::nonce(nonce.as_deref());
            world
                .kit
                .send(world.kit.token_call_of(&parameters, claims))
                .await
        };
        let of_other_key = server.issue_refresh_token(CLIENT_ID, &key, "a");
        let answer = refresh(of_other_key).await;
        if matches!(profile, Wso2 | Wso2Gateway) {
            answer.is(400, "invalid_grant");
        } else {
            answer.is(200, "");
        }
        let of_this_key = server.issue_refresh_token(CLIENT_ID, &world.kit.key, "a");
        refresh(of_this_key).await.is(200, "");
    }
}

#[tokio::test]
async fn duende_refuses_what_is_long() {
    for profile in [Duende, Curity] {
        let world = World::new(profile).await;
        // `DPoP ` and a token of 3994 and of 3995 characters.
        let ask = async |resource: usize| {
            let resource = format!("urn:{}", "x".repeat(resource));
            let parameters = [
                ("grant_type", "client_credentials"),
                ("client_id", CLIENT_ID),
                ("client_secret", CLIENT_SECRET),
                ("resource", &*resource),
            ];
            let call = world.kit.token_call_of(&parameters, Claims::default());
            let answer = world.kit.send(call).await;
            answer.json()["access_token"].as_str().unwrap().to_owned()
        };
        world
            .kit
            .authorization_server
            .token_format(TokenFormat::Signed);
        let mut lengths = (usize::MAX, 0);
        // Base64url: four characters for three bytes.
        let short = 2000 + (3990 - "DPoP ".len() - ask(2000).await.len()) * 3 / 4;
        for resource in short..short + 20 {
            let token = ask(resource).await;
            let length = "DPoP ".len() + token.len();
            let answer = world.kit.api(&token, Claims::default()).await;
            if length < 4000 || profile == Curity {
                answer.is(200, "");
            } else {
                answer.is(401, "invalid_token");
            }
            lengths = (lengths.0.min(length), lengths.1.max(length));
        }
        assert!(lengths.0 < 4000 && lengths.1 >= 4000, "{lengths:?}");

        for (query, good) in [(2000, true), (4000, profile == Curity)] {
            let htu = format!("{}?{}", world.url(Resource), "x".repeat(query));
            let answer = world.raw(Resource, &htu, |_| ()).await;
            is(&world, Resource, "a long proof", &answer, good);
        }
    }
}

#[tokio::test]
async fn methods_and_paths() {
    for profile in ALL {
        let world = World::new(profile).await;
        let call = async |method: &str, path: &str| {
            let nonce = world.nonce(Resource).await;
            let method: Method = method.parse().unwrap();
            let url = world.kit.resource_server.origin().to_owned() + path;
            let claims = Claims {
                nonce: nonce.as_deref(),
                token: Some(&world.token),
                ..Claims::default()
            };
            let call = Request::builder()
                .header("dpop", proof(&world.kit.key, &method, &url, claims))
                .method(method)
                .uri(url)
                .header("authorization", format!("DPoP {}", world.token));
            world.kit.send(call.body(Full::default()).unwrap()).await
        };
        for (method, good) in [("PATCH", true), ("PURGE", profile != Spring)] {
            let answer = call(method, "/orders").await;
            is(&world, Resource, method, &answer, good);
        }
        let answer = call("GET", "//orders").await;
        if profile == Auth0 {
            answer.is(400, "invalid_request");
        } else {
            answer.is(200, "");
        }
    }
}

#[tokio::test]
async fn tokens_and_algorithms() {
    for profile in ALL {
        let world = World::new(profile).await;
        let signed = matches!(profile, Keycloak | Duende | Okta | Auth0 | Bluesky | Spring);
        assert_eq!(world.token.contains('.'), signed, "{profile:?}");
        let answer = world.call(Authorization, Claims::default()).await;
        let token_type = if profile == FapiSuite { "dpOp" } else { "DPoP" };
        assert_eq!(answer.json()["token_type"], token_type);
        assert!(answer.header("date").is_some());

        let algorithms = profile.algorithms();
        assert!(algorithms.contains(&"ES256"), "{profile:?}");
        let no_eddsa = [Wso2, Wso2Gateway, Duende, Okta, Auth0, Spring, Curity];
        assert_eq!(algorithms.contains(&"EdDSA"), !no_eddsa.contains(&profile));
        assert_eq!(
            algorithms.contains(&"RS256"),
            !matches!(profile, Wso2Gateway | Auth0 | Curity | FapiSuite)
        );
        let answer = metadata(&world.kit, "").await;
        assert_eq!(
            answer.json()["dpop_signing_alg_values_supported"],
            json!(algorithms)
        );
    }
}

#[tokio::test]
async fn what_is_set_after_a_profile_counts() {
    let kit = Kit::start().await;
    let server = &kit.authorization_server;
    let ask = async |nonce: Option<&str>| kit.send(kit.token_call(Claims::nonce(nonce))).await;
    server.profile(FapiSuite);
    ask(None).await.is(400, CHALLENGE);
    server.nonces(Nonces::off());
    server.token_type("N_A");
    assert_eq!(ask(None).await.json()["token_type"], "N_A");
    // And a profile ends what was set before, and the profile before.
    server.nonces(Nonces::required());
    server.profile(Keycloak);
    let answer = ask(Some("ignored")).await;
    answer.is(200, "");
    assert_eq!(answer.json()["token_type"], "DPoP");
    server.profile(Curity);
    ask(Some("stray")).await.is(400, BAD);
    // What was seen is forgotten, on both sides.
    let once = || kit.token_call(Claims::jti("once"));
    kit.send(once()).await.is(200, "");
    kit.send(once()).await.is(400, BAD);
    server.profile(Spring);
    kit.send(once()).await.is(200, "");
    // Without a proof, the type that was set is not told.
    server.token_type("x");
    let mut call = once();
    call.headers_mut().remove("dpop");
    assert_eq!(kit.send(call).await.json()["token_type"], "Bearer");
}

/// The metadata of the resource with this path (RFC 9728), asked for without a token.
async fn metadata(kit: &Kit, path: &str) -> Answer {
    let path = format!("/.well-known/oauth-protected-resource{path}");
    let call = Request::get(kit.resource_server.url(&path));
    kit.send(call.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn metadata_of_a_resource() {
    let kit = Kit::start().await;
    let server = &kit.resource_server;
    for path in ["", "/mcp", "/a/b", "/"] {
        let answer = metadata(&kit, path).await;
        answer.is(200, "");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let expected = json!({
            "resource": format!("{}{path}", server.origin()),
            "authorization_servers": [kit.authorization_server.origin()],
            "dpop_signing_alg_values_supported": ["ES256"],
            "dpop_bound_access_tokens_required": true,
        });
        assert_eq!(answer.json(), expected);
    }
    server.metadata_member("scopes_supported", Some(r#"["a","b"]"#));
    server.metadata_member("resource", Some("7"));
    server.metadata_member("authorization_servers", None);
    let body = metadata(&kit, "/mcp").await.json();
    assert_eq!(
        (&body["scopes_supported"], &body["resource"]),
        (&json!(["a", "b"]), &json!(7))
    );
    assert_eq!(body.get("authorization_servers"), None);
    server.metadata_member("scopes_supported", Some("no json"));
    let answer = metadata(&kit, "").await;
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());

    // By another method, at another path and with a token it is a path as every other.
    let url = server.url("/.well-known/oauth-protected-resource");
    let post = Request::post(&url).body(Full::default()).unwrap();
    kit.send(post).await.is(401, "");
    metadata(&kit, "else").await.is(401, "");
    let token = kit.token().await;
    let claims = Claims {
        token: Some(&token),
        ..Claims::default()
    };
    let call = Request::get(&url)
        .header("dpop", proof(&kit.key, &Method::GET, &url, claims))
        .header("authorization", format!("DPoP {token}"));
    let answer = kit.send(call.body(Full::default()).unwrap()).await;
    assert_eq!(
        answer.json()["path"],
        "/.well-known/oauth-protected-resource"
    );
}

#[tokio::test]
async fn challenges_name_the_metadata() {
    for profile in [
        None,
        Some(Wso2),
        Some(Auth0),
        Some(Duende),
        Some(NodeOidcProvider),
    ] {
        let kit = Kit::start().await;
        let server = &kit.resource_server;
        if let Some(profile) = profile {
            server.profile(profile);
        }
        let challenges = async |path: &str| -> Vec<String> {
            let call = Request::get(server.url(path))
                .body(Full::default())
                .unwrap();
            let answer = kit.send(call).await;
            let values = answer.headers.get_all("www-authenticate").iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        let without = challenges("/mcp").await;
        assert!(!without.concat().contains("resource_metadata"));
        server.resource_metadata_in_challenges(true);
        for (path, told) in [("/mcp?q", "/mcp"), ("/", ""), ("/a\"b", "/a%22b")] {
            let with = challenges(path).await;
            let url = format!(
                "{}/.well-known/oauth-protected-resource{told}",
                server.origin()
            );
            let separator = if profile == Some(Duende) { " " } else { ", " };
            let mut expected = without.clone();
            *expected.last_mut().unwrap() += &format!(r#"{separator}resource_metadata="{url}""#);
            assert_eq!(with, expected);
            metadata(&kit, told).await.is(200, "");
        }
        // Who shows a token is told of that.
        let answer = kit.api("unknown", Claims::default()).await;
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(!challenge.contains("resource_metadata"), "{challenge}");
        server.resource_metadata_in_challenges(false);
        assert_eq!(challenges("/mcp").await, without);
    }
}

/// The crate's own client, as a user builds it. `change` is what a proxy on the way does to each request.
fn client(
    kit: &Kit,
    request: TokenRequest,
    change: fn(Call) -> Call,
) -> tower::util::BoxCloneService<Call, u16, tower_dpop::BoxError> {
    let http = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let http = ServiceBuilder::new().map_request(change).service(http);
    let dpop = DpopLayer::new(kit.key.clone());
    let localhost = kit
        .resource_server
        .origin()
        .replace("127.0.0.1", "localhost");
    let audience = Audience::origins([kit.resource_server.origin(), &*localhost]).unwrap();
    let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
    let stack = ServiceBuilder::new()
        .map_response(|answer: Response<_>| answer.status().as_u16())
        .layer(tokens)
        .layer(dpop)
        .service(http);
    tower::util::BoxCloneService::new(stack)
}

fn token_request(kit: &Kit, profile: Profile) -> TokenRequest {
    let endpoint = kit.authorization_server.token_endpoint();
    if matches!(profile, Auth0 | Bluesky) {
        kit.authorization_server.add_public_client("public");
        return TokenRequest::client_credentials(endpoint, "public");
    }
    TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_basic(CLIENT_SECRET)
}

#[tokio::test]
async fn our_client_gets_on_with_all_of_them() {
    for profile in ALL {
        let (back, ahead) = Side::BOTH
            .map(|side| window(profile, side))
            .into_iter()
            .fold((i64::MAX, i64::MAX), |least, window| {
                (least.0.min(window.0), least.1.min(window.1))
            });
        // The servers' clock, within what they forgive and beyond it.
        for offset in [0, back - 5, -(ahead - 3), back + 60, -(ahead + 60)] {
            let kit = Kit::start().await;
            kit.authorization_server.profile(profile);
            kit.resource_server.profile(profile);
            kit.clock_offset(Authorization, offset);
            kit.clock_offset(Resource, offset);
            let client = client(&kit, token_request(&kit, profile), |call| call);
            let send = async |method: Method, url: String| {
                let call = Request::builder().method(method).uri(url);
                let call = call.body(Full::from("a body")).unwrap();
                client.clone().oneshot(call).await.unwrap()
            };
            let server = &kit.resource_server;
            let loud = server.url("/orders").replace("http:", "HTTP:");
            let by_name = server.url("/orders").replace("127.0.0.1", "LOCALHOST");
            let mut urls = vec![
                server.url("/orders"),
                server.url("/orders?page=2&x=%2F#part"),
                server.url(""),
                server.url("/a%7Eb/%2f/;x=1"),
                loud,
            ];
            if matches!(profile, Wso2 | Wso2Gateway | Keycloak | Auth0 | Spring) {
                urls.push(by_name);
            }
            for method in [Method::GET, Method::POST] {
                for url in &urls {
                    let status = send(method.clone(), url.clone()).await;
                    assert_eq!(status, 200, "{profile:?} {offset} {method} {url}");
                }
                kit.rotate_nonce(Resource);
                kit.rotate_nonce(Authorization);
            }
            assert!(
                kit.authorization_server.requests().len() <= 3,
                "{profile:?}"
            );

            // A token that is revoked is renewed at once, where the server says that the token is what is wrong.
            kit.authorization_server.revoke_all();
            let status = send(Method::GET, server.url("/orders")).await;
            assert_eq!(
                status,
                if profile == Wso2 { 401 } else { 200 },
                "{profile:?}"
            );
        }
    }
}

#[tokio::test]
async fn our_client_keeps_its_token_when_springs_memory_is_full() {
    let kit = Kit::start().await;
    kit.authorization_server.profile(Spring);
    kit.resource_server.profile(Spring);
    let client = client(&kit, token_request(&kit, Spring), |call| call);
    for count in 0..1010 {
        let call = Request::get(kit.resource_server.url("/orders"));
        let call = call.body(Full::default()).unwrap();
        let status = client.clone().oneshot(call).await.unwrap();
        assert_eq!(status, if count < 1000 { 200 } else { 401 }, "{count}");
    }
    assert_eq!(kit.authorization_server.request_count(), 1);
    assert_eq!(
        kit.resource_server.request_count(),
        1010,
        "none was sent again"
    );
}

#[tokio::test]
async fn our_client_refuses_a_bearer_token() {
    for profile in [Wso2, Wso2Gateway, Spring] {
        let kit = Kit::start().await;
        kit.authorization_server.profile(profile);
        kit.resource_server.profile(profile);
        // A proxy that knows no DPoP header.
        let client = client(&kit, token_request(&kit, profile), |mut call| {
            call.headers_mut().remove("dpop");
            call
        });
        let call = Request::get(kit.resource_server.url("/orders"));
        let call = call.body(Full::default()).unwrap();
        let error = client.oneshot(call).await.unwrap_err();
        assert!(Error::find(&*error).unwrap().is_downgrade(), "{error}");
        let seen = kit.authorization_server.requests();
        assert_eq!(seen[0].status().map(|status| status.as_u16()), Some(200));
        assert_eq!(kit.resource_server.request_count(), 0);
    }
}
