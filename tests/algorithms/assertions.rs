//! Assertions at the embedded authorization server: a client shows who it is by a key of each kind. Signed here.

use std::time::SystemTime;

use serde_json::{Value, json};
use tower_dpop::Algorithm::{self, Ed25519, EdDsa, Ps256};

use super::{
    by_hand::{ALL, jws, signing},
    servers::{Answer, Claims, Kit},
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn claims(kit: &Kit) -> Value {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    json!({
        "iss": "keyed", "sub": "keyed", "aud": kit.authorization_server.issuer(),
        "exp": SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 60,
        "jti": COUNT.fetch_add(1, Ordering::Relaxed).to_string(),
    })
}

/// By a key, with a name for how it signs.
fn assertion(kit: &Kit, algorithm: Algorithm, name: &str) -> String {
    jws(algorithm, &json!({ "alg": name }), &claims(kit))
}

async fn ask(kit: &Kit, assertion: &str) -> Answer {
    let parameters = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion),
    ];
    kit.send(kit.token_call_of(&parameters, Claims::default()))
        .await
}

#[tokio::test]
async fn a_client_shows_who_it_is_by_a_key_of_each_kind() {
    let kit = Kit::start().await;
    let server = &kit.authorization_server;
    for algorithm in ALL {
        server.add_client_with_key("keyed", &signing(algorithm));
        let right = assertion(&kit, algorithm, algorithm.as_str());
        ask(&kit, &right).await.is(200, "");
        ask(&kit, &right).await.is(401, "invalid_client");

        // One key has one algorithm, and one name of it (RFC 8725, section 3.1).
        for other in ALL {
            for name in ALL {
                if other != algorithm || name != algorithm {
                    let wrong = assertion(&kit, other, name.as_str());
                    let is_right =
                        name == algorithm && [other, algorithm].iter().all(|one| is_ed25519(*one));
                    let answer = ask(&kit, &wrong).await;
                    assert_eq!(answer.status == 200, is_right, "{algorithm} {other} {name}");
                }
            }
        }
        for name in ["none", "HS256", "RS512", "", "ed25519"] {
            let wrong = assertion(&kit, algorithm, name);
            ask(&kit, &wrong).await.is(401, "invalid_client");
        }
        let mut cut = assertion(&kit, algorithm, algorithm.as_str());
        cut.pop();
        ask(&kit, &cut).await.is(401, "invalid_client");
    }
}

fn is_ed25519(algorithm: Algorithm) -> bool {
    matches!(algorithm, Ed25519 | EdDsa)
}

#[tokio::test]
async fn a_grant_is_vouched_for_by_a_key_of_each_kind() {
    let kit = Kit::start().await;
    kit.authorization_server.add_public_client("public");
    for algorithm in ALL {
        kit.authorization_server
            .trust_assertions("keyed", &signing(algorithm));
        for (signs, status) in [
            (algorithm, 200),
            (if is_ed25519(algorithm) { Ps256 } else { EdDsa }, 400),
        ] {
            let by = assertion(&kit, signs, algorithm.as_str());
            let parameters = [
                ("grant_type", JWT_BEARER),
                ("client_id", "public"),
                ("assertion", &*by),
            ];
            let answer = kit
                .send(kit.token_call_of(&parameters, Claims::default()))
                .await;
            assert_eq!(answer.status, status, "{signs} for {algorithm}");
        }
    }
}

#[tokio::test]
async fn the_metadata_tell_which() {
    let kit = Kit::start().await;
    let url = format!(
        "{}/.well-known/oauth-authorization-server",
        kit.authorization_server.origin()
    );
    let metadata = kit.get(&url).await.json();
    let told = &metadata["token_endpoint_auth_signing_alg_values_supported"];
    for algorithm in ALL.map(|one| one.as_str()).into_iter().chain(["HS256"]) {
        assert!(
            told.as_array().unwrap().contains(&json!(algorithm)),
            "{told}"
        );
    }
    // Of proofs it takes ES256 alone, unless a profile says otherwise.
    assert_eq!(
        metadata["dpop_signing_alg_values_supported"],
        json!(["ES256"])
    );
}
