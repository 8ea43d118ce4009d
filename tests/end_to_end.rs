//! Both layers over TCP, against the embedded servers and against a verifier that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/verifier.rs"]
mod verifier;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneService};
use tower_dpop::{
    Audience, BoxError, DpopKey, DpopLayer, Error, TokenLayer, TokenRequest,
    dpop::ResponseBody,
    testing::{
        AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, Recorded, ResourceServer,
        TokenFormat,
    },
};

use self::verifier::Verifier;

type Stack = BoxCloneService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;

fn client(version: Version) -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(version == Version::HTTP_2)
        .build_http()
}

struct World {
    authorization_server: AuthorizationServer,
    resource_server: ResourceServer,
    key: DpopKey,
    stack: Stack,
}

impl World {
    async fn new(version: Version) -> Self {
        let authorization_server = AuthorizationServer::start().await.unwrap();
        let endpoint = authorization_server.token_endpoint();
        let request = TokenRequest::client_credentials(endpoint, CLIENT_ID)
            .client_secret_post(CLIENT_SECRET)
            .scope("api");
        Self::with(authorization_server, version, request).await
    }

    async fn with(
        authorization_server: AuthorizationServer,
        version: Version,
        request: TokenRequest,
    ) -> Self {
        let resource_server = ResourceServer::start(&authorization_server).await.unwrap();
        let http = client(version);
        let key = DpopKey::generate().unwrap();
        let dpop = DpopLayer::new(key.clone());
        let audience = Audience::origins([resource_server.origin()]).unwrap();
        let tokens = TokenLayer::new(&dpop, http.clone(), request, audience).unwrap();
        let stack = ServiceBuilder::new()
            .map_response(|answer: Response<ResponseBody<Incoming>>| {
                answer.map(ResponseBody::into_inner)
            })
            .layer(tokens)
            .layer(dpop)
            .service(http);
        let stack = BoxCloneService::new(stack);
        Self {
            authorization_server,
            resource_server,
            key,
            stack,
        }
    }

    async fn post(&self, path: &str, body: &str) -> Result<(StatusCode, String), BoxError> {
        let request =
            Request::post(self.resource_server.url(path)).body(Full::from(body.to_owned()))?;
        let response = self.stack.clone().oneshot(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Every request that any of the two servers saw, with the URL it must have been signed for.
    fn seen(&self) -> Vec<(String, Recorded)> {
        let asked = self.authorization_server.requests().into_iter();
        let served = self.resource_server.requests().into_iter();
        asked
            .map(|seen| (self.authorization_server.token_endpoint(), seen))
            .chain(served.map(|seen| (self.resource_server.url(seen.uri().path()), seen)))
            .collect()
    }

    async fn error(&self) -> Error {
        let error = self.post("/", "").await.expect_err("an error");
        Error::find(&*error)
            .unwrap_or_else(|| panic!("not ours: {error}"))
            .clone()
    }
}

/// Shows every recorded proof to the independent verifier.
async fn verify_independently(world: &World) {
    let mut verifier = Verifier::default();
    for (url, seen) in world.seen() {
        let token = seen.headers().get("authorization").map(|value| {
            value
                .to_str()
                .unwrap()
                .strip_prefix("DPoP ")
                .expect("the scheme as the RFC writes it")
        });
        let (proof, method) = (seen.proof().unwrap(), seen.method().as_str());
        let thumbprint = verifier.verify(proof, method, &url, token).await;
        let thumbprint = thumbprint.unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(thumbprint, world.key.thumbprint());
        // Servers exist that compare byte by byte.
        assert_eq!(seen.claim("htu"), Some(url));
        assert_eq!(seen.claim("ath").is_some(), token.is_some());
        assert_eq!(seen.headers().get_all("dpop").iter().count(), 1);
    }
    assert_eq!(
        verifier.count(),
        world.seen().len(),
        "no proof was sent twice"
    );
}

#[tokio::test]
async fn every_nonce_policy_in_every_version_of_http() {
    let policies = || {
        [
            ("off", Nonces::off()),
            ("required", Nonces::required()),
            ("required, in errors", Nonces::required().only_in_errors()),
            ("one-time", Nonces::one_time()),
            ("one-time, in errors", Nonces::one_time().only_in_errors()),
            ("rotating", Nonces::rotating(Duration::from_secs(3600))),
        ]
    };
    for (version, format) in [
        (Version::HTTP_11, TokenFormat::Opaque),
        (Version::HTTP_2, TokenFormat::Signed),
    ] {
        for (name, nonces) in policies() {
            let world = World::new(version).await;
            world.authorization_server.nonces(nonces.clone());
            world.authorization_server.token_format(format);
            world.resource_server.nonces(nonces);
            for n in 0..5 {
                let (status, body) = world
                    .post(&format!("/orders/{n}?page=2"), "the whole body")
                    .await
                    .unwrap();
                assert_eq!(status, 200, "{name} {version:?}: {body}");
                assert!(body.contains("the whole body"), "{body}");
            }
            assert!(
                world
                    .seen()
                    .iter()
                    .all(|(_, seen)| seen.version() == version)
            );
            let sends = world.resource_server.requests().len();
            match name {
                "off" => assert_eq!(sends, 5),
                "required" | "required, in errors" => {
                    assert_eq!(sends, 6, "one challenge for all paths")
                }
                "one-time" => assert_eq!(sends, 6, "each answer brings the next nonce"),
                "one-time, in errors" => assert_eq!(sends, 10, "each request is challenged"),
                _ => assert_eq!(sends, 6, "the previous nonce is still good"),
            }
            let token_requests = world.authorization_server.requests().len();
            assert_eq!(token_requests, if name == "off" { 1 } else { 2 }, "{name}");
            verify_independently(&world).await;
        }
    }
}

#[tokio::test]
async fn requests_in_parallel_share_one_token_and_all_get_through() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for nonces in [
            Nonces::required(),
            Nonces::one_time(),
            Nonces::one_time().only_in_errors(),
        ] {
            let world = World::new(version).await;
            world.resource_server.nonces(nonces);
            let requests = (0..100).map(|n| {
                let url = world.resource_server.url(&format!("/{n}"));
                let request = Request::get(url).body(Full::default());
                tokio::spawn(world.stack.clone().oneshot(request.unwrap()))
            });
            for request in requests.collect::<Vec<_>>() {
                assert_eq!(request.await.unwrap().unwrap().status(), 200);
            }
            assert_eq!(world.authorization_server.requests().len(), 1);
            assert!(world.resource_server.requests().len() <= 300);
            verify_independently(&world).await;
        }
    }
}

#[tokio::test]
async fn endless_challenges_end() {
    let world = World::new(Version::HTTP_11).await;
    world.resource_server.nonces(Nonces::endless());
    let (status, _) = world.post("/", "").await.unwrap();
    assert_eq!(
        (status.as_u16(), world.resource_server.requests().len()),
        (401, 3)
    );
    verify_independently(&world).await;

    let world = World::new(Version::HTTP_11).await;
    world.authorization_server.nonces(Nonces::endless());
    assert_eq!(
        world.error().await.oauth_error().unwrap().code(),
        "use_dpop_nonce"
    );
    assert_eq!(world.authorization_server.requests().len(), 3);
}

#[tokio::test]
async fn a_revoked_token_is_renewed_within_the_request() {
    for format in [TokenFormat::Opaque, TokenFormat::Signed] {
        let world = World::new(Version::HTTP_11).await;
        world.authorization_server.token_format(format);
        assert_eq!(world.post("/", "whole").await.unwrap().0, 200);
        world.authorization_server.revoke_all();
        let (status, body) = world.post("/", "whole").await.unwrap();
        assert_eq!(status, 200);
        assert!(body.contains("whole"));
        assert_eq!(world.authorization_server.requests().len(), 2);
        verify_independently(&world).await;
    }
}

#[tokio::test]
async fn a_short_lived_token_is_fetched_again() {
    let world = World::new(Version::HTTP_11).await;
    world
        .authorization_server
        .token_lifetime(Duration::from_secs(1));
    assert_eq!(world.post("/", "").await.unwrap().0, 200);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(world.post("/", "").await.unwrap().0, 200);
    assert_eq!(world.authorization_server.requests().len(), 2);
    assert_eq!(
        world.resource_server.requests().len(),
        2,
        "no refusal was needed"
    );
}

#[tokio::test]
async fn every_client_authentication() {
    let start = async || {
        let server = AuthorizationServer::start().await.unwrap();
        server.add_client("id with:odd/ch%rs+ü", "s&=e c+r%e:t/ü");
        server.add_public_client("public");
        server
    };
    let odd = |server: &AuthorizationServer| {
        TokenRequest::client_credentials(server.token_endpoint(), "id with:odd/ch%rs+ü")
    };
    for (method, ok) in [
        ("basic", true),
        ("post", true),
        ("none", true),
        ("wrong", false),
    ] {
        let server = start().await;
        let request = match method {
            "basic" => odd(&server).client_secret_basic("s&=e c+r%e:t/ü"),
            "post" => odd(&server).client_secret_post("s&=e c+r%e:t/ü"),
            "none" => TokenRequest::client_credentials(server.token_endpoint(), "public"),
            _ => odd(&server).client_secret_basic("wr0ng"),
        };
        let world = World::with(
            server,
            Version::HTTP_11,
            request.resource("https://api.example.com/"),
        )
        .await;
        if ok {
            assert_eq!(world.post("/", "").await.unwrap().0, 200, "{method}");
        } else {
            let error = world.error().await;
            assert_eq!(error.oauth_error().unwrap().code(), "invalid_client");
            assert!(!format!("{error} {error:?}").contains("wr0ng"));
        }
    }
}

#[tokio::test]
async fn what_is_no_token_answer_is_an_error_that_says_so() {
    let response = |status: u16, headers: &[(&str, &str)], body: &'static str| {
        let mut builder = Response::builder().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(Bytes::from_static(body.as_bytes())).unwrap()
    };
    let html = [("content-type", "text/html")];
    for (answer, word) in [
        (response(200, &html, "<html>login</html>"), "text/html"),
        (response(500, &html, "<html>stack trace</html>"), "500"),
        (response(200, &[], ""), "empty body"),
        (
            response(302, &[("location", "https://sso.example/login?x")], ""),
            "redirect",
        ),
        (
            response(400, &[], r#"{"error":"invalid_scope"}"#),
            "invalid_scope",
        ),
        (
            response(200, &[], r#"{"access_token":"a","token_type":"Bearer"}"#),
            "Bearer",
        ),
        (
            response(200, &[], r#"{"access_token":"a b","token_type":"DPoP"}"#),
            "characters",
        ),
    ] {
        let world = World::new(Version::HTTP_11).await;
        world.authorization_server.answer(1, answer);
        let error = world.error().await;
        assert!(error.is_token_request(), "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
        assert_eq!(
            world.authorization_server.requests().len(),
            1,
            "nothing is tried again in silence"
        );
        assert_eq!(
            world.resource_server.requests().len(),
            0,
            "no request without a token"
        );
        tokio::time::sleep(BACK_OFF).await;
        assert_eq!(
            world.post("/", "").await.unwrap().0,
            200,
            "the next one succeeds"
        );
    }
}

/// After a failed token request, the next one waits for so long at the most.
const BACK_OFF: Duration = Duration::from_millis(250);

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    let world = World::new(Version::HTTP_11).await;
    let body = format!(
        r#"{{"access_token":"{}","token_type":"DPoP"}}"#,
        "a".repeat(65 * 1024)
    );
    world
        .authorization_server
        .answer(1, Response::new(Bytes::from(body)));
    let error = world.error().await;
    assert!(error.to_string().contains("64 KiB"), "{error}");
    tokio::time::sleep(BACK_OFF).await;
    let fits = format!(
        r#"{{"access_token":"{}","token_type":"DPoP"}}"#,
        "a".repeat(8 * 1024)
    );
    world
        .authorization_server
        .answer(1, Response::new(Bytes::from(fits)));
    assert_eq!(
        world.post("/", "").await.unwrap().0,
        200,
        "refused as unknown, then renewed"
    );
    assert_eq!(world.authorization_server.requests().len(), 3);
}

#[tokio::test]
async fn an_unreachable_authorization_server_is_named() {
    let server = AuthorizationServer::start().await.unwrap();
    let gone = server.token_endpoint();
    drop(server);
    let alive = AuthorizationServer::start().await.unwrap();
    let request =
        TokenRequest::client_credentials(gone, CLIENT_ID).client_secret_post(CLIENT_SECRET);
    let world = World::with(alive, Version::HTTP_11, request).await;
    let error = world.error().await;
    assert!(
        error.is_token_request() && error.oauth_error().is_none(),
        "{error}"
    );
    assert!(
        std::error::Error::source(&error).is_some(),
        "the client's own error is kept"
    );
}

#[tokio::test]
async fn a_signed_token_of_another_key_is_not_used() {
    // An authorization server that binds the token to a key of its choice.
    let world = World::new(Version::HTTP_11).await;
    world.authorization_server.token_format(TokenFormat::Signed);
    let other = World::new(Version::HTTP_11).await;
    other.authorization_server.token_format(TokenFormat::Signed);
    assert_eq!(other.post("/", "").await.unwrap().0, 200);
    let foreign = other.resource_server.requests()[0].headers()["authorization"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = format!(
        r#"{{"access_token":"{}","token_type":"DPoP"}}"#,
        foreign.strip_prefix("DPoP ").unwrap()
    );
    world
        .authorization_server
        .answer(1, Response::new(Bytes::from(body)));
    let error = world.error().await;
    assert!(error.to_string().contains("cnf.jkt"), "{error}");
    assert_eq!(world.resource_server.requests().len(), 0);
}
