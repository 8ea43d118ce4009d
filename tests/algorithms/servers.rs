//! The embedded servers: which proofs they take, by their profile. The proofs are signed here, and sent without our layers.

use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tower_dpop::{
    Algorithm::{self, Ed25519, EdDsa, Es256, Ps256, Rs256},
    testing::{
        CLIENT_ID, CLIENT_SECRET, Nonces,
        Profile::{
            self, Auth0, Bluesky, Curity, Duende, FapiSuite, Keycloak, NodeOidcProvider, Okta,
            Spring, Wso2, Wso2Gateway,
        },
    },
};

use super::{
    NOT_ACCEPTED,
    by_hand::{ALL, header, jws},
    servers::{Answer, Call, FORM, Kit, form},
    support::claims,
};

/// What each server's documentation or source says: the algorithms at its authorization server, and at its resource server.
pub(crate) const PROFILES: [(Option<Profile>, &[Algorithm], &[Algorithm]); 12] = [
    (None, &[Es256], &[Es256]),
    (Some(Wso2), &[Es256, Ps256, Rs256], &[Es256, Ps256, Rs256]),
    (Some(Wso2Gateway), &[Es256, Ps256, Rs256], &[Es256, Ps256]),
    (
        Some(Keycloak),
        &[Es256, Ps256, Rs256, EdDsa],
        &[Es256, Ps256, Rs256, EdDsa],
    ),
    (Some(Duende), &[Es256, Ps256, Rs256], &[Es256, Ps256, Rs256]),
    (
        Some(NodeOidcProvider),
        &[Es256, Ps256, Rs256, EdDsa],
        &[Es256, Ps256, Rs256, EdDsa],
    ),
    (Some(Okta), &[Es256, Rs256], &[Es256, Rs256]),
    (Some(Auth0), &[Es256, Rs256], &[Es256]),
    (
        Some(Bluesky),
        &[Es256, Ps256, Rs256, EdDsa],
        &[Es256, Ps256, Rs256, EdDsa],
    ),
    (Some(Spring), &[Es256, Ps256, Rs256], &[Es256, Ps256, Rs256]),
    (Some(Curity), &[Es256], &[Es256]),
    (
        Some(FapiSuite),
        &[Es256, Ps256, Ed25519, EdDsa],
        &[Es256, Ps256, Ed25519, EdDsa],
    ),
];

async fn start(profile: Option<Profile>) -> Kit {
    let kit = Kit::start().await;
    if let Some(profile) = profile {
        kit.authorization_server.profile(profile);
        kit.resource_server.profile(profile);
    }
    kit.authorization_server.nonces(Nonces::off());
    kit.resource_server.nonces(Nonces::off());
    kit
}

fn proof(algorithm: Algorithm, method: &str, url: &str, token: Option<&str>) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut claims = json!({
        "jti": format!("by hand {}", COUNT.fetch_add(1, Ordering::Relaxed)),
        "htm": method, "htu": url, "iat": now,
    });
    if let Some(token) = token {
        claims["ath"] = json!(BASE64URL.encode(Sha256::digest(token)));
    }
    jws(algorithm, &header(algorithm), &claims)
}

async fn ask(kit: &Kit, algorithm: Algorithm) -> Answer {
    let url = kit.authorization_server.token_endpoint();
    let proof = proof(algorithm, "POST", &url, None);
    let call = Request::post(url)
        .header("content-type", FORM)
        .header("dpop", proof);
    let parameters = [
        ("grant_type", "client_credentials"),
        ("client_id", CLIENT_ID),
        ("client_secret", CLIENT_SECRET),
    ];
    let call: Call = call.body(form(&parameters).into()).unwrap();
    kit.send(call).await
}

async fn use_it(kit: &Kit, algorithm: Algorithm, token: &str) -> Answer {
    let url = kit.resource_server.url("/orders");
    let proof = proof(algorithm, "GET", &url, Some(token));
    let call = Request::get(url).header("dpop", proof);
    let call = call.header("authorization", format!("DPoP {token}"));
    kit.send(call.body(Full::default()).unwrap()).await
}

#[tokio::test]
async fn every_key_at_every_server() {
    for (profile, theirs, apis) in PROFILES {
        let kit = start(profile).await;
        let any = ask(&kit, Es256).await.text("access_token");
        for algorithm in ALL {
            let answer = ask(&kit, algorithm).await;
            let right = theirs.contains(&algorithm);
            assert_eq!(answer.status == 200, right, "{profile:?} {algorithm}");
            // Its own where there is one; the `alg` is looked at before the key.
            let token = if right {
                answer.text("access_token")
            } else {
                any.clone()
            };
            let answer = use_it(&kit, algorithm, &token).await;
            let right = apis.contains(&algorithm);
            assert_eq!(
                answer.status == 200,
                right,
                "{profile:?} {algorithm} at the API"
            );
        }
        // What is taken is what is told, as far as it can be checked.
        if let Some(profile) = profile {
            let told = |one: &&Algorithm| profile.algorithms().contains(&one.as_str());
            let told: Vec<_> = ALL.iter().filter(told).copied().collect();
            assert_eq!(told, apis, "{profile:?}");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_that_it_is_the_algorithm() {
    let kit = start(None).await;
    let token = ask(&kit, Es256).await.text("access_token");
    for algorithm in [Ps256, Rs256, Ed25519, EdDsa] {
        ask(&kit, algorithm).await.is(400, "invalid_dpop_proof");
        let answer = use_it(&kit, algorithm, &token).await;
        answer.is(401, "invalid_dpop_proof");
        let challenge = answer.header("www-authenticate").unwrap();
        assert!(challenge.contains(r#"algs="ES256""#), "{challenge}");
        let refused = [
            kit.authorization_server.requests(),
            kit.resource_server.requests(),
        ];
        for requests in refused {
            assert_eq!(requests.last().unwrap().refused(), Some(NOT_ACCEPTED));
        }
    }
}

#[tokio::test]
async fn a_token_is_bound_to_the_key_of_its_proof() {
    // Signed tokens, and all keys.
    let kit = start(Some(Keycloak)).await;
    let jkt = |algorithm: Algorithm| {
        let proof = super::vectors()["proofs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|proof| {
                let alg = &proof["alg"];
                alg == algorithm.as_str()
                    && proof["name"].as_str().unwrap().ends_with("extra_members")
            });
        proof.map(|proof| proof["jkt"].clone())
    };
    for algorithm in [Es256, Ps256, EdDsa] {
        let token = ask(&kit, algorithm).await.text("access_token");
        let bound: Value = claims(&token)["cnf"]["jkt"].clone();
        if algorithm != Es256 {
            assert_eq!(Some(bound), jkt(algorithm), "{algorithm}");
        }
        for other in [Es256, Ps256, Rs256, EdDsa] {
            let same_key = header(other)["jwk"] == header(algorithm)["jwk"];
            let answer = use_it(&kit, other, &token).await;
            match same_key {
                // A key is the same by either of its algorithms.
                true => assert_eq!(answer.status, 200, "{algorithm} {other}"),
                false => answer.is(401, "invalid_token"),
            }
        }
    }
}
