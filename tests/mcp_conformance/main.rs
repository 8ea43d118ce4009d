//! The scenarios `auth/dpop` and `auth/dpop-nonce` of the Model Context Protocol's conformance suite (SEP-1932), rebuilt
//! against the embedded servers: a test for each check, by its id.
//!
//! The client goes the way of `examples/mcp`: a request without a token is refused, the refusal leads to the resource's
//! metadata, those to the authorization server; a code by PKCE, bound to the key; a token for this resource; a session of
//! JSON-RPC over HTTP. In the scenario with nonces, both servers have one each, which they tell in a challenge only.
//!
//! | check | scenario | test |
//! |---|---|---|
//! | `sep-1932-client-token-request-proof` | both | [`sep_1932_client_token_request_proof`] |
//! | `sep-1932-client-dpop-auth-scheme` | both | [`sep_1932_client_dpop_auth_scheme`] |
//! | `sep-1932-client-fresh-proof` | both | [`sep_1932_client_fresh_proof`] |
//! | `sep-1932-client-as-nonce` | `auth/dpop-nonce` | [`sep_1932_client_as_nonce`] |
//! | `sep-1932-client-rs-nonce` | `auth/dpop-nonce` | [`sep_1932_client_rs_nonce`] |
//! | `sep-1932-client-dpop-jkt`, `sep-1932-client-refresh-proof` | both, not in a release yet | [`sep_1932_client_dpop_jkt`], [`sep_1932_client_refresh_proof`] |
//! | `prm-pathbased-requested`, `authorization-server-metadata`, `authorization-request`, `token-request`, `pkce-…`, `resource-parameter-…` | both | [`the_checks_that_all_scenarios_share`] |
//!
//! The suite itself is run by `interop/mcp/run`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "../support/conditions.rs"]
mod conditions;
mod session;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "../support/verifier.rs"]
mod verifier;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::StatusCode;
use sha2::{Digest as _, Sha256};
use tower_dpop::{Error, testing::Recorded};

use self::{
    conditions::{Conditions, Presented},
    session::{Scenario, World, now, parameter, query},
    support::claims,
};

/// Runs a scenario with each kind of session.
async fn run(scenario: Scenario) -> Vec<World> {
    let mut worlds = Vec::new();
    for stateless in [false, true] {
        let world = World::start(scenario).await;
        let mcp = world.connect().await.unwrap();
        world.session(&mcp, stateless).await;
        worlds.push(world);
    }
    worlds
}

async fn run_both() -> Vec<World> {
    let mut worlds = run(Scenario::Dpop).await;
    worlds.extend(run(Scenario::DpopNonce).await);
    worlds
}

/// Every proof at an endpoint keeps to the conditions, and is of the client's key.
async fn judge(world: &World, proofs: &mut Conditions, seen: &Recorded, token: Option<&str>) {
    let origin = match token {
        Some(_) => world.mcp.origin(),
        None => world.server.origin(),
    };
    let url = format!("{origin}{}", seen.uri().path());
    let shown = proofs.check(Presented {
        proof: seen.proof().expect("one proof"),
        method: seen.method().as_str(),
        url: &url,
        token,
        now: now(),
    });
    let shown = shown.await.unwrap_or_else(|broken| panic!("{broken}"));
    assert_eq!(shown.thumbprint, world.key.thumbprint());
}

#[tokio::test]
async fn sep_1932_client_token_request_proof() {
    for world in run_both().await {
        let mut proofs = Conditions::default();
        let asked = world.to("/token");
        for seen in &asked {
            judge(&world, &mut proofs, seen, None).await;
        }
        assert_eq!(asked.last().unwrap().status(), Some(StatusCode::OK));
    }
}

#[tokio::test]
async fn sep_1932_client_dpop_auth_scheme() {
    for world in run_both().await {
        let schemes: Vec<_> = world
            .authorized()
            .into_iter()
            .map(|(scheme, ..)| scheme)
            .collect();
        assert!(schemes.len() >= world.calls(), "{schemes:?}");
        assert!(schemes.iter().all(|scheme| scheme == "DPoP"), "{schemes:?}");
    }
}

#[tokio::test]
async fn sep_1932_client_fresh_proof() {
    for world in run_both().await {
        let mut proofs = Conditions::default();
        let authorized = world.authorized();
        for (_, token, seen) in &authorized {
            assert_eq!(seen.method(), "POST");
            // A proof that was seen before breaks a condition.
            judge(&world, &mut proofs, seen, Some(token)).await;
            // The key is the one that the token is bound to.
            assert_eq!(claims(token)["cnf"]["jkt"], world.key.thumbprint());
        }
        let challenges = usize::from(world.scenario == Scenario::DpopNonce);
        assert_eq!(proofs.count(), world.calls() + challenges);
    }
}

/// A challenge, and the same request with the nonce that it told.
fn honored(challenged: &Recorded, accepted: &Recorded) {
    assert_eq!(challenged.refused(), Some("the proof has no nonce"));
    assert_eq!(challenged.claim("nonce"), None);
    let offered = challenged.offered_nonce().expect("a nonce");
    assert_eq!(accepted.claim("nonce").as_deref(), Some(offered));
    assert_eq!(accepted.refused(), None);
    assert_eq!(accepted.body(), challenged.body());
    assert_ne!(accepted.claim("jti"), challenged.claim("jti"));
}

#[tokio::test]
async fn sep_1932_client_as_nonce() {
    for world in run(Scenario::DpopNonce).await {
        let [challenged, accepted] = &world.to("/token")[..] else {
            panic!("one challenge")
        };
        honored(challenged, accepted);
    }
}

#[tokio::test]
async fn sep_1932_client_rs_nonce() {
    for world in run(Scenario::DpopNonce).await {
        let authorized: Vec<_> = world
            .authorized()
            .into_iter()
            .map(|(.., seen)| seen)
            .collect();
        honored(&authorized[0], &authorized[1]);
        // Nobody is asked twice.
        let nonce = authorized[1].claim("nonce");
        for seen in &authorized[2..] {
            assert_eq!((seen.claim("nonce"), seen.refused()), (nonce.clone(), None));
        }
        let of_server = world.to("/token")[0].offered_nonce().map(str::to_owned);
        assert_ne!(nonce, of_server, "each has its own");
    }
}

#[tokio::test]
async fn no_nonce_where_none_was_told() {
    for world in run(Scenario::Dpop).await {
        let authorized = world.authorized().into_iter().map(|(.., seen)| seen);
        for seen in world.to("/token").into_iter().chain(authorized) {
            assert_eq!((seen.claim("nonce"), seen.refused()), (None, None));
        }
    }
}

#[tokio::test]
async fn sep_1932_client_dpop_jkt() {
    for world in run_both().await {
        let [asked] = &world.to("/authorize")[..] else {
            panic!("one request")
        };
        let jkt = query(asked, "dpop_jkt");
        assert_eq!(jkt.as_deref(), Some(world.key.thumbprint()));
    }
}

#[tokio::test]
async fn sep_1932_client_refresh_proof() {
    for scenario in [Scenario::Dpop, Scenario::DpopNonce] {
        let world = World::start(scenario).await;
        let mcp = world.connect().await.unwrap();
        world.session(&mcp, false).await;
        // The token is good for nothing any more.
        world.server.revoke_all();
        world.session(&mcp, false).await;
        let mut proofs = Conditions::default();
        let refreshes: Vec<_> = world
            .to("/token")
            .into_iter()
            .filter(|seen| parameter(seen, "refresh_token").is_some())
            .collect();
        for seen in &refreshes {
            judge(&world, &mut proofs, seen, None).await;
        }
        // The nonce is known by now.
        assert_eq!(proofs.count(), 1);
        assert_eq!(world.to("/authorize").len(), 1, "nobody was asked again");
    }
}

#[tokio::test]
async fn the_checks_that_all_scenarios_share() {
    for world in run_both().await {
        // prm-pathbased-requested, authorization-server-metadata
        let metadata = world.metadata_of_resource();
        assert_eq!(metadata, ["/.well-known/oauth-protected-resource/mcp"]);
        assert_eq!(world.to("/.well-known/oauth-authorization-server").len(), 1);
        // authorization-request, pkce-code-challenge-sent, pkce-s256-method-used
        let asked = world.to("/authorize").pop().unwrap();
        let method = query(&asked, "code_challenge_method");
        assert_eq!(method.as_deref(), Some("S256"));
        // token-request, pkce-code-verifier-sent, pkce-verifier-matches-challenge
        let token = world.to("/token").pop().unwrap();
        let verifier = parameter(&token, "code_verifier").expect("a verifier");
        let hash = BASE64URL.encode(Sha256::digest(verifier));
        assert_eq!(query(&asked, "code_challenge"), Some(hash));
        // resource-parameter-in-authorization, -in-token, -valid-uri, -consistency, -matches-prm
        let resource = Some(world.mcp.url("/mcp"));
        assert_eq!(query(&asked, "resource"), resource);
        assert_eq!(parameter(&token, "resource"), resource);
    }
}

/// No check of the suite: whatever the client is given, it sends no token that is bound to no key.
#[tokio::test]
async fn a_token_that_is_bound_to_no_key_is_not_sent() {
    let world = World::start(Scenario::Dpop).await;
    world.server.token_type("Bearer");
    let mcp = world.connect().await.unwrap();
    let error = world.call(&mcp, "initialize").await.unwrap_err();
    let error = Error::find(&*error).expect("ours");
    assert!(error.is_downgrade(), "{error}");
    assert!(world.authorized().is_empty());
}
