//! Servers' answers that a client must not go on after.

use tower_dpop::{Audience, DpopKey, DpopLayer, Error, PrivateKeyJwt, TokenLayer, TokenRequest};

use crate::{
    judge::Counts,
    suite::{Profile, Suite},
};

/// A flow up to the authorization response, which is read after this was done to it: to its parameters, by name.
async fn response(change: impl Fn(&mut Vec<(String, String)>)) -> (Suite, Error) {
    let suite = Suite::start(Profile::Code).await;
    let pending = suite.authorize(&suite.registration()).await.unwrap();
    let redirect = suite.browser(pending.url()).await;
    let (place, query) = redirect.split_once('?').unwrap();
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    change(&mut pairs);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish();
    let refused = pending.answered(&format!("{place}?{query}")).unwrap_err();
    // Nothing was wrong but that.
    pending.answered(&redirect).unwrap();
    (suite, refused)
}

/// The client went no further than the response.
async fn goes_no_further(suite: &Suite) {
    let stopped = Counts {
        metadata: 1,
        par: 2,
        authorize: 1,
        challenged: 1,
        ..Counts::default()
    };
    assert_eq!(suite.judge().await, stopped);
}

fn value<'a>(pairs: &'a mut [(String, String)], name: &str) -> &'a mut String {
    let pair = pairs.iter_mut().find(|(known, _)| known == name);
    &mut pair.expect("it is there").1
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_discovery_issuer_mismatch() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        let issuer = serde_json::json!(format!("{}INVALID", suite.server.issuer()));
        let issuer = issuer.to_string();
        suite.server.metadata_member("issuer", Some(&issuer));
        let registration = suite.registration();
        let error = match suite.grant(&registration).await {
            Err(error) => error,
            Ok(grant) => {
                let tokens = suite.tokens(registration, grant);
                let error = suite.call(&tokens).await.unwrap_err();
                Error::find(&*error).expect("ours").clone()
            }
        };
        assert!(error.is_metadata(), "{suite}: {error}");
        // Whatever was asked for, it was metadata.
        let paths = suite.server.requests().into_iter();
        let paths: Vec<_> = paths.map(|seen| seen.uri().path().to_owned()).collect();
        assert!(
            paths.iter().all(|path| path.starts_with("/.well-known/")),
            "{suite}: {paths:?}"
        );
        assert!(!paths.is_empty(), "{suite}");
        assert_eq!(suite.api.request_count(), 0, "{suite}");
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_invalid_authorization_response_iss() {
    let (suite, error) = response(|pairs| value(pairs, "iss").push('1')).await;
    assert!(error.is_authorization(), "{error}");
    assert!(error.to_string().contains("RFC 9207"), "{error}");
    goes_no_further(&suite).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_remove_authorization_response_iss() {
    let (suite, error) = response(|pairs| pairs.retain(|(name, _)| name != "iss")).await;
    assert!(error.is_authorization(), "{error}");
    assert!(error.to_string().contains("RFC 9207"), "{error}");
    goes_no_further(&suite).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_ensure_authorization_response_with_invalid_state_fails()
 {
    let (suite, error) = response(|pairs| value(pairs, "state").push('1')).await;
    assert!(error.is_authorization(), "{error}");
    assert!(error.to_string().contains("`state`"), "{error}");
    goes_no_further(&suite).await;
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_ensure_authorization_response_with_invalid_missing_state_fails()
 {
    let (suite, error) = response(|pairs| pairs.retain(|(name, _)| name != "state")).await;
    assert!(error.is_authorization(), "{error}");
    assert!(error.to_string().contains("`state`"), "{error}");
    goes_no_further(&suite).await;
}

/// Not one of its modules, but what they come to for a client that reads no JARM: it takes none of it.
#[tokio::test]
async fn a_response_that_is_a_jwt_is_refused() {
    let change = |pairs: &mut Vec<(String, String)>| {
        *pairs = vec![("response".to_owned(), "eyJ0.eyJp.c2ln".to_owned())];
    };
    let (suite, error) = response(change).await;
    assert!(error.is_authorization(), "{error}");
    assert!(error.to_string().contains("JARM"), "{error}");
    goes_no_further(&suite).await;
}

/// The suite's condition on the key of the code's exchange, from the other side: with another key than the one that the
/// request was pushed with, the code is not sent at all.
#[tokio::test]
async fn a_code_is_exchanged_with_the_key_of_its_authorization() {
    let suite = Suite::start(Profile::Code).await;
    let registration = suite.registration();
    let grant = suite.grant(&registration).await.unwrap();
    let request = TokenRequest::new(registration, grant);
    let audience = Audience::origins([suite.api.origin()]).unwrap();
    let other = DpopLayer::new(DpopKey::generate().unwrap());
    let refused = TokenLayer::new(&other, suite.http.clone(), request, audience);
    let error = refused.expect_err("another key");
    assert!(error.is_other_key(), "{error}");
    goes_no_further(&suite).await;
}

/// The suite's condition on the audience of assertions is the embedded server's, too: one for the endpoint is refused.
#[tokio::test]
async fn an_assertion_for_the_endpoint_is_refused() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        let assertion = PrivateKeyJwt::new(suite.client_key.clone()).endpoint_as_audience();
        let registration = suite.registration_with(assertion);
        let error = match suite.grant(&registration).await {
            Err(error) => error,
            Ok(grant) => {
                let tokens = suite.tokens(registration, grant);
                tokens.access_token().await.unwrap_err()
            }
        };
        let refusal = error.oauth_error().expect("the server's");
        assert_eq!(refusal.code(), "invalid_client", "{suite}");
    }
}
