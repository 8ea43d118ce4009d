//! Flows that go to their end.

use tower_dpop::testing::{Nonces, Profile as Server};

use crate::{
    judge::Counts,
    suite::{Profile, Suite, nonces},
};

/// What a whole flow with so many calls of the resource takes, if each nonce is good for one success, and told only to
/// whoever comes without it.
fn challenged_each_time(profile: Profile, calls: usize) -> Counts {
    let code = usize::from(profile == Profile::Code);
    Counts {
        metadata: 1,
        par: 2 * code,
        authorize: code,
        token: 2,
        refresh: 0,
        resource: 2 * calls,
        challenged: code + 1 + calls,
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_happy_path() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        suite.walk(3).await;
        assert_eq!(suite.judge().await, challenged_each_time(profile, 3));
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_happy_path_no_dpop_nonce() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        suite.server.nonces(Nonces::off());
        suite.api.nonces(Nonces::off());
        suite.walk(3).await;
        let code = usize::from(profile == Profile::Code);
        let expected = Counts {
            metadata: 1,
            par: code,
            authorize: code,
            token: 1,
            refresh: 0,
            resource: 3,
            challenged: 0,
        };
        assert_eq!(suite.judge().await, expected);
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_happy_path_no_mtls_endpoint_aliases() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        suite.server.metadata_member("mtls_endpoint_aliases", None);
        suite.walk(1).await;
        assert_eq!(suite.judge().await, challenged_each_time(profile, 1));
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_token_type_case_insensitivity() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        suite.server.token_type("dpOp");
        suite.walk(1).await;
        assert_eq!(suite.judge().await, challenged_each_time(profile, 1));
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_rs_dpop_auth_scheme_case_insensitivity() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        // Its challenges are of the scheme `dPoP`.
        suite.api.profile(Server::FapiSuite);
        suite.api.nonces(nonces());
        suite.walk(2).await;
        assert_eq!(suite.judge().await, challenged_each_time(profile, 2));
    }
}

#[tokio::test]
async fn fapi2_security_profile_final_client_test_token_endpoint_response_without_expires_in() {
    for profile in Profile::BOTH {
        let suite = Suite::start(profile).await;
        suite.server.expires_in(None);
        suite.walk(3).await;
        // One token for all of them.
        assert_eq!(suite.judge().await, challenged_each_time(profile, 3));
    }
}
