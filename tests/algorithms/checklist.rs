//! Rows T19, T21 and C27 of the checklist (see `tests/checklist.rs`), and proofs of the crate's own keys: both layers and
//! both servers, over TCP.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{Method, Uri};
use serde_json::{Value, json};
use tower_dpop::{
    Algorithm::{Ed25519, EdDsa, Es256, Ps256, Rs256},
    Discovery, DpopKey, DpopLayer, Error, Grant, PrivateKeyJwt, Registration, ResourceMetadata,
    TokenRequest,
    proof::{Check, Proof},
    testing::{
        Profile::{self, Auth0, FapiSuite, Keycloak, Okta},
        Recorded, TokenFormat,
    },
};

use super::{
    by_hand::{ALL, key, public_jwk, signing},
    flows::{Flow, parameter},
    servers_tests::PROFILES,
    support::{claims, header},
};

/// Both servers by a profile, and a client with this key.
async fn flow(profile: Option<Profile>, key: DpopKey) -> Flow {
    let flow = Flow {
        dpop: DpopLayer::new(key),
        ..Flow::start().await
    };
    if let Some(profile) = profile {
        flow.authorization_server.profile(profile);
        flow.api.profile(profile);
    }
    flow
}

fn app(flow: &Flow) -> Registration {
    let issuer = flow.authorization_server.issuer();
    Registration::new(Discovery::new(flow.http.clone(), issuer).unwrap(), "app")
}

async fn get(flow: &Flow, registration: Registration) -> Result<u16, Error> {
    let by = TokenRequest::new(registration, Grant::client_credentials());
    let answer = flow.get(&flow.tokens(by)).await;
    answer.map(|status| status.as_u16())
}

#[test]
fn what_the_crate_signs_the_crate_takes() {
    let uri = Uri::from_static("https://api.example.com/orders?page=2");
    for algorithm in ALL {
        let key = signing(algorithm);
        assert_eq!(key.algorithm(), algorithm);
        let proof = Proof::new(&Method::GET, &uri)
            .unwrap()
            .access_token("token")
            .nonce("n");
        let proof = proof.sign_at(&key, 1000, "1").unwrap();
        let expected =
            json!({ "typ": "dpop+jwt", "alg": algorithm.as_str(), "jwk": public_jwk(algorithm) });
        assert_eq!(header(&proof), expected);
        let nonces = ["n".to_owned()];
        let check = Check::new(&Method::GET, "https://api.example.com/orders", 1000)
            .access_token("token", key.thumbprint())
            .nonces(&nonces);
        let valid = check
            .clone()
            .algorithms(&[algorithm])
            .unwrap()
            .verify_proof(&proof);
        assert_eq!(valid.unwrap().thumbprint(), key.thumbprint());
        assert_eq!(check.verify_proof(&proof).is_ok(), algorithm == Es256);
    }
}

#[tokio::test]
async fn checklist_t19_the_algorithms_of_fapi_and_the_servers_clock() {
    for algorithm in [Es256, Ps256, EdDsa, Ed25519] {
        for ahead in [3600, -3600] {
            let flow = flow(Some(FapiSuite), signing(algorithm)).await;
            let server = &flow.authorization_server;
            server.add_client_with_key("keyed", &signing(algorithm));
            server.strict_assertion_audience(true);
            server.clock_offset(ahead);
            flow.api.clock_offset(ahead);
            let discovery = Discovery::new(flow.http.clone(), server.issuer()).unwrap();
            let by_key = PrivateKeyJwt::new(signing(algorithm));
            let keyed = Registration::new(discovery, "keyed").private_key_jwt(by_key);
            assert_eq!(get(&flow, keyed).await.unwrap(), 200, "{algorithm} {ahead}");

            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs();
            let theirs = now.checked_add_signed(ahead).unwrap();
            let near = |time: &Value| time.as_u64().unwrap().abs_diff(theirs) < 100;
            let asked = flow.asked();
            let good = asked.last().unwrap();
            assert_eq!(good.refused(), None);
            let assertion = parameter(good, "client_assertion").unwrap();
            assert!(near(&claims(&assertion)["iat"]) && near(&claims(&assertion)["exp"]));
            assert_eq!(header(&assertion)["alg"], algorithm.as_str());
            assert!(near(&claims(good.proof().unwrap())["iat"]));
            for seen in asked.iter().chain(&flow.api.requests()) {
                assert_eq!(header(seen.proof().unwrap())["alg"], algorithm.as_str());
            }
            assert!(good.claim("nonce").is_some());
        }
    }
    // FAPI has no RS256, and no RSA key of less than 2048 bits loads (`keys_aws_lc_rs.rs`).
    let flow = flow(Some(FapiSuite), signing(Rs256)).await;
    let error = get(&flow, app(&flow)).await.unwrap_err();
    assert!(error.is_algorithm(), "{error}");
}

/// A key that the server takes by its other algorithm only: the error says what to do, and doing it is enough.
#[tokio::test]
async fn checklist_t21_chosen_from_the_servers_list() {
    for (profile, not, but) in [
        (Keycloak, Ed25519, EdDsa),
        (Okta, Ps256, Rs256),
        (FapiSuite, Rs256, Ps256),
    ] {
        // What a key signs with when nobody says anything else.
        assert!(not == Rs256 || key(not).algorithm() == not);
        let before = flow(Some(profile), signing(not)).await;
        let error = get(&before, app(&before)).await.unwrap_err();
        let text = error.to_string();
        assert!(error.is_algorithm(), "{profile:?}: {error}");
        assert!(
            text.contains(&format!(
                "`DpopKey::with_algorithm` lets the same key sign with {but}"
            )),
            "{text}"
        );
        assert_eq!(before.asked().len(), 0, "{profile:?}");

        let same = signing(not).with_algorithm(but).unwrap();
        assert_eq!(same.thumbprint(), signing(not).thumbprint());
        let after = flow(Some(profile), same).await;
        assert_eq!(get(&after, app(&after)).await.unwrap(), 200, "{profile:?}");
    }
    // By either name, where both are listed.
    for algorithm in [Ed25519, EdDsa] {
        let flow = flow(Some(FapiSuite), signing(algorithm)).await;
        assert_eq!(get(&flow, app(&flow)).await.unwrap(), 200, "{algorithm}");
    }
    // Another kind of key is no help.
    let flow = flow(Some(Auth0), signing(EdDsa)).await;
    let error = get(&flow, app(&flow)).await.unwrap_err();
    assert!(
        error.is_algorithm() && !error.to_string().contains("with_algorithm"),
        "{error}"
    );
}

/// Each key at each server, with all that the server asks for: nothing is sent that would be refused for its algorithm,
/// and all else goes through both layers.
#[tokio::test]
async fn checklist_c27_every_key_at_every_server_through_both_layers() {
    for (profile, theirs, apis) in PROFILES {
        for algorithm in ALL {
            let flow = flow(profile, signing(algorithm)).await;
            flow.authorization_server.token_format(TokenFormat::Signed);
            let result = get(&flow, app(&flow)).await;
            let url = flow.api.url("/orders");
            let metadata = ResourceMetadata::discover(flow.http.clone(), &url);
            let told = metadata.await.unwrap().check_key(flow.dpop.key());
            assert_eq!(
                told.is_ok(),
                apis.contains(&algorithm),
                "{profile:?} {algorithm}: {told:?}"
            );
            match result {
                Err(error) => {
                    assert!(
                        !theirs.contains(&algorithm),
                        "{profile:?} {algorithm}: {error}"
                    );
                    assert!(error.is_algorithm() && error.is_permanent(), "{error}");
                    assert_eq!((flow.asked().len(), api(&flow).len()), (0, 0));
                }
                // The API's own answer, since its list is the program's to look at.
                Ok(status @ (400 | 401)) => {
                    assert!(
                        !apis.contains(&algorithm),
                        "{profile:?} {algorithm}: {status}"
                    );
                }
                Ok(status) => {
                    assert_eq!(status, 200, "{profile:?} {algorithm}");
                    assert!(theirs.contains(&algorithm) && apis.contains(&algorithm));
                    for seen in flow.asked().iter().chain(&api(&flow)) {
                        let header = header(seen.proof().unwrap());
                        assert_eq!(header["alg"], algorithm.as_str());
                        assert_eq!(header["jwk"], public_jwk(algorithm));
                    }
                    let token = api(&flow).pop().unwrap();
                    let token = token.headers()["authorization"].to_str().unwrap();
                    let bound = claims(token)["cnf"]["jkt"].clone();
                    assert_eq!(bound, flow.dpop.key().thumbprint());
                }
            }
        }
    }
}

/// The requests with a token.
fn api(flow: &Flow) -> Vec<Recorded> {
    let mut requests = flow.api.requests();
    requests.retain(|seen| seen.headers().contains_key("authorization"));
    requests
}
