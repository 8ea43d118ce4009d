//! A resource that refuses tokens until the grant was refreshed twice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{ForceRenewal, TokenLayer};

use crate::{
    judge::Counts,
    suite::{ACCOUNTS, Profile, Suite, parameter},
};

/// Bearer, although the token is a bound one.
const REFUSAL: &str =
    r#"Bearer realm="accounts", error="invalid_token", error_description="refresh it, twice""#;

/// Against a test that hangs.
const LONG: Duration = Duration::from_secs(60);

/// No nonce is asked for, and none told: whatever comes is refused.
fn refusal() -> Response<Bytes> {
    let answer = Response::builder().status(StatusCode::UNAUTHORIZED);
    let answer = answer.header(WWW_AUTHENTICATE, REFUSAL);
    answer.body(Bytes::new()).unwrap()
}

impl Suite {
    /// The refresh tokens that were good for a token so far.
    fn refreshed(&self) -> Vec<String> {
        let mut asked = self.to("/token");
        asked.retain(|seen| seen.status() == Some(StatusCode::OK));
        asked
            .iter()
            .filter_map(|seen| parameter(seen, "refresh_token"))
            .collect()
    }

    /// A call of the resource, each sending of which is refused until there were two refreshes.
    async fn call_until_refreshed(&self, tokens: &TokenLayer, newer: bool) -> StatusCode {
        let suite = self.clone();
        let stack = ServiceBuilder::new()
            .layer(tokens.clone())
            .layer(self.dpop.clone())
            .map_request(move |request| {
                if suite.refreshed().len() < 2 {
                    suite.api.answer(1, refusal());
                }
                request
            })
            .service(self.http.clone());
        let mut request = Request::get(self.api.url(ACCOUNTS));
        if newer {
            request = request.extension(ForceRenewal::now());
        }
        let request = request.body(Full::default()).unwrap();
        stack.oneshot(request).await.unwrap().status()
    }

    async fn by_code(&self) -> TokenLayer {
        let registration = self.registration();
        let grant = self.grant(&registration).await.unwrap();
        self.tokens(registration, grant)
    }

    /// Each refresh token was good once, and all that the authorization server was asked was challenged once.
    async fn judge_refreshed(&self) -> Counts {
        let [first, second] = &self.refreshed()[..] else {
            panic!("{} refreshes", self.refreshed().len())
        };
        assert_ne!(first, second);
        let counts = self.judge().await;
        let asked = (counts.par, counts.token, counts.refresh);
        assert_eq!(asked, (2, 2, 4));
        counts
    }
}

/// A program that wants a newer token when it sees a refusal: the first renewal is the layer's own, before the program sees
/// any; the second is the program's.
#[tokio::test]
async fn fapi2_security_profile_final_client_refresh_token_test() {
    let suite = Suite::start(Profile::Code).await;
    let tokens = suite.by_code().await;
    assert_eq!(suite.call_until_refreshed(&tokens, false).await, 401);
    assert_eq!(suite.refreshed().len(), 1);
    assert_eq!(suite.call_until_refreshed(&tokens, true).await, 200);
    // Two refusals; then the nonce is asked for.
    let counts = suite.judge_refreshed().await;
    assert_eq!((counts.resource, counts.challenged), (4, 5));
}

/// A program that only tries again. The second renewal lets it wait for a moment: a server that refuses whatever it is
/// shown is not to cost a token request each time.
#[tokio::test]
async fn fapi2_security_profile_final_client_refresh_token_test_by_patience() {
    let suite = Suite::start(Profile::Code).await;
    let tokens = suite.by_code().await;
    let begun = Instant::now();
    while suite.call_until_refreshed(&tokens, false).await != StatusCode::OK {
        assert!(begun.elapsed() < LONG, "it was never refreshed twice");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    suite.judge_refreshed().await;
}
