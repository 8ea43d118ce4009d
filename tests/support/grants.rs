//! A token endpoint in memory whose connections may break, and layers that ask it by any grant.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tower::{BoxError, ServiceExt as _, util::BoxCloneService};
use tower_dpop::{
    Audience, AuthorizationRequest, DpopKey, DpopLayer, Error, Grant, GrantStore, OAuthClient,
    PendingAuthorization, Registration, ServerMetadata, StoredGrant, TokenLayer, TokenParameters,
    TokenRequest, token::Storing,
};

use crate::support::{API, Answer, ENDPOINT, Fake, Seen, a3_key, answer, bench::AS, ok};

/// Statuses by which a fake server says what becomes of its answer.
pub(crate) const LOST: u16 = 599;
pub(crate) const NEVER: u16 = 598;
pub(crate) const UNREACHABLE: u16 = 597;

pub(crate) const CALLBACK: &str = "http://127.0.0.1:8123/callback";
pub(crate) const ISSUER: &str = "https://as.example.com";
pub(crate) const DEVICE: &str = "https://as.example.com/device";
pub(crate) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
pub(crate) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

pub(crate) type Client = BoxCloneService<Request<Full<Bytes>>, Answer, BoxError>;

/// The client over a fake server, which breaks as the server says.
pub(crate) fn client(fake: &Fake) -> Client {
    BoxCloneService::new(
        fake.clone()
            .and_then(|response: Response<Full<Bytes>>| async {
                match response.status().as_u16() {
                    LOST => Err("connection closed before the answer".into()),
                    UNREACHABLE => Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
                    NEVER => std::future::pending().await,
                    _ => Ok::<_, BoxError>(response),
                }
            }),
    )
}

pub(crate) fn metadata() -> ServerMetadata {
    ServerMetadata::new(ISSUER)
        .with_token_endpoint(ENDPOINT)
        .with_authorization_endpoint("https://as.example.com/authorize")
        .with_device_authorization_endpoint(DEVICE)
}

/// A public client.
pub(crate) fn registration() -> Registration {
    Registration::new(metadata(), "app")
}

pub(crate) fn by(grant: Grant) -> TokenRequest {
    TokenRequest::new(registration(), grant)
}

pub(crate) fn layer_of(dpop: &DpopLayer, fake: &Fake, request: TokenRequest) -> TokenLayer {
    let audience = Audience::origins([API]).unwrap();
    TokenLayer::new(dpop, client(fake), request, audience).unwrap()
}

pub(crate) fn layer(fake: &Fake, request: TokenRequest) -> TokenLayer {
    layer_of(&DpopLayer::new(a3_key()), fake, request)
}

pub(crate) async fn authorization(key: DpopKey) -> PendingAuthorization {
    let fake = Fake::new(|_, _| panic!("nothing is sent"));
    let dpop = DpopLayer::new(key);
    let client = OAuthClient::new(&dpop, client(&fake), registration()).unwrap();
    let request = AuthorizationRequest::new(CALLBACK).scope("a b");
    client.authorize(request).await.unwrap()
}

pub(crate) fn answered(pending: &PendingAuthorization) -> Grant {
    let state = pending.state();
    let redirect = format!("{CALLBACK}?code=canary-code&iss={ISSUER}&state={state}");
    pending.answered(&redirect).unwrap()
}

/// The grant of a user who agreed, for the key of `a3_key`.
pub(crate) async fn code() -> Grant {
    answered(&authorization(a3_key()).await)
}

pub(crate) fn exchange() -> Grant {
    Grant::token_exchange("canary-subject", ACCESS_TOKEN)
}

/// A token of 100 s, with a refresh token or none.
pub(crate) fn given(access_token: &str, refresh_token: impl Into<Option<&'static str>>) -> Answer {
    let mut body = json!({
        "access_token": access_token, "token_type": "DPoP", "expires_in": 100,
    });
    if let Some(refresh_token) = refresh_token.into() {
        body["refresh_token"] = refresh_token.into();
    }
    answer(200, &[], &body.to_string())
}

/// Answers token requests one after another, the last answer for ever; the API accepts everything.
pub(crate) fn server(answers: Vec<Answer>) -> Fake {
    Fake::new(move |seen, _| match seen.uri.host() {
        Some(AS) => answers[seen.number.min(answers.len() - 1)].clone(),
        _ => ok(),
    })
}

/// The parameters of a request, in order.
pub(crate) fn form(seen: &Seen) -> Vec<(String, String)> {
    form_urlencoded::parse(&seen.body).into_owned().collect()
}

/// What the token requests so far were made with: the refresh token, or the grant's type.
pub(crate) fn sent(fake: &Fake) -> Vec<String> {
    let seen = fake.seen_by(AS);
    let by = seen.iter().map(|seen| {
        let token = seen.parameter("refresh_token");
        token.unwrap_or_else(|| seen.parameter("grant_type").unwrap())
    });
    by.collect()
}

/// The access token, or an error that shows no secret.
pub(crate) async fn ask(tokens: &TokenLayer) -> Result<String, Error> {
    ask_for(tokens, &TokenParameters::new()).await
}

pub(crate) async fn ask_for(
    tokens: &TokenLayer,
    parameters: &TokenParameters,
) -> Result<String, Error> {
    let token = tokens.access_token_for(parameters).await;
    token
        .map(|token| token.secret().to_owned())
        .inspect_err(no_secret)
}

/// Neither in its texts nor in those of its sources.
#[track_caller]
pub(crate) fn no_secret(error: &Error) {
    let mut shown = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        shown += &format!(" {error} {error:?}");
        source = error.source();
    }
    assert!(!shown.contains("canary"), "{shown}");
    assert!(!error.to_string().contains(char::is_control), "{shown}");
}

/// Longer than any access token here, and than any back-off.
pub(crate) async fn later() {
    tokio::time::sleep(Duration::from_secs(120)).await;
}

/// A store that goes by functions: what is loaded, and what becomes of what is saved. There is no lock.
pub(crate) struct Scripted<L, S> {
    pub(crate) load: L,
    pub(crate) save: S,
}

impl<L, S> GrantStore for Scripted<L, S>
where
    L: Fn() -> Result<Option<StoredGrant>, BoxError> + Send + Sync + 'static,
    S: Fn(StoredGrant) -> Result<(), BoxError> + Send + Sync + 'static,
{
    fn load(&self) -> Storing<'_, Option<StoredGrant>> {
        Box::pin(async { (self.load)() })
    }

    fn save(&self, grant: StoredGrant) -> Storing<'_, ()> {
        Box::pin(async move { (self.save)(grant) })
    }

    fn clear(&self) -> Storing<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}
