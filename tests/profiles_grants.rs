//! Every profile of the embedded servers, every grant that such a server gives tokens for, and every way in which a
//! client may show it who it is: the crate's own client goes through discovery, the grant and three calls of the API,
//! with a renewal that is forced between the first two. Each walk is judged by what both servers recorded.
//!
//! # What is run
//!
//! | profile | grants | clients |
//! |---|---|---|
//! | WSO2, its gateway | all | all |
//! | Keycloak | all | all |
//! | Duende | all (token exchange and JWT bearer as its extension grants) | all |
//! | node oidc-provider | all (the same, registered by the program) | all |
//! | Okta | all but one of the program's own: its list is fixed | all |
//! | Auth0 | all but JWT bearer and one of the program's own: its list is fixed | all |
//! | Bluesky | the authorization code, pushed, since it takes no other; its refresh tokens | public, and `private_key_jwt`: it gives no secrets |
//! | Spring | all (JWT bearer and one's own as converters of the program) | all |
//! | Curity | all | all |
//! | FAPI suite | client credentials; the authorization code, pushed, as FAPI 2.0 wants it; its refresh tokens | `private_key_jwt`: FAPI 2.0 knows no public clients and no secrets |
//!
//! The profiles' own tables say nothing of grants, so whatever a server is not known to forbid is run. A public client
//! has no client credentials (RFC 6749, section 4.4.2); all other grants are for all clients.
//!
//! # How often each server is asked
//!
//! It follows from when it wants nonces, as the profiles' tables tell it; here it stands a second time, in
//! [`challenges`], and not by any rule of the servers' own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "support/verifier.rs"]
mod verifier;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, header::LOCATION};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, AuthorizationRequest, Discovery, DpopKey, DpopLayer, ForceRenewal, Grant,
    OAuthClient, PrivateKeyJwt, Registration, TokenLayer, TokenParameters, TokenRequest,
    testing::{AuthorizationServer, Profile, Recorded, ResourceServer},
};

use self::{
    support::{a3_key, claims, sign_jws},
    verifier::Verifier,
};

const PROFILES: [Profile; 11] = [
    Profile::Wso2,
    Profile::Wso2Gateway,
    Profile::Keycloak,
    Profile::Duende,
    Profile::NodeOidcProvider,
    Profile::Okta,
    Profile::Auth0,
    Profile::Bluesky,
    Profile::Spring,
    Profile::Curity,
    Profile::FapiSuite,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    ClientCredentials,
    RefreshToken,
    Code,
    PushedCode,
    DeviceCode,
    TokenExchange,
    JwtBearer,
    Own,
}

const GRANTS: [By; 8] = [
    By::ClientCredentials,
    By::RefreshToken,
    By::Code,
    By::PushedCode,
    By::DeviceCode,
    By::TokenExchange,
    By::JwtBearer,
    By::Own,
];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shows {
    Nothing,
    Basic,
    Post,
    PrivateKeyJwt,
    ClientSecretJwt,
}

const CLIENTS: [Shows; 5] = [
    Shows::Nothing,
    Shows::Basic,
    Shows::Post,
    Shows::PrivateKeyJwt,
    Shows::ClientSecretJwt,
];

/// The first table above.
fn is_run(profile: Profile, by: By, shows: Shows) -> bool {
    use By::*;
    let fits = by != ClientCredentials || shows != Shows::Nothing;
    fits && match profile {
        Profile::Okta => by != Own,
        Profile::Auth0 => !matches!(by, JwtBearer | Own),
        Profile::Bluesky => {
            matches!(by, PushedCode | RefreshToken)
                && matches!(shows, Shows::Nothing | Shows::PrivateKeyJwt)
        }
        Profile::FapiSuite => {
            matches!(by, ClientCredentials | PushedCode | RefreshToken)
                && shows == Shows::PrivateKeyJwt
        }
        _ => true,
    }
}

/// When a server answers with a nonce challenge.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Challenges {
    Never,
    /// From then on the nonce is known.
    First,
    /// A nonce is good once, and the next one is told in refusals only.
    Each,
}

impl Challenges {
    /// How many there are with so many requests.
    fn of(self, requests: usize) -> usize {
        match self {
            Self::Never => 0,
            Self::First => 1,
            Self::Each => requests,
        }
    }
}

/// Of the authorization server and of the resource server.
fn challenges(profile: Profile, shows: Shows) -> (Challenges, Challenges) {
    use Challenges::*;
    match profile {
        Profile::Okta => (First, Never),
        Profile::Auth0 if shows == Shows::Nothing => (First, Never),
        Profile::Bluesky => (First, First),
        Profile::FapiSuite => (Each, Each),
        _ => (Never, Never),
    }
}

const ID: &str = "app:1 ü";
/// For HS256 it has as many bits as the hash.
const SECRET: &str = "s3cret:+/ 100%&= and some more of it";
const OWN: &str = "urn:example:grant:voucher";
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CALLBACK: &str = "http://127.0.0.1:8123/callback";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// What is good once, by the name of its parameter.
const GOOD_ONCE: [&str; 5] = [
    "code",
    "device_code",
    "refresh_token",
    "assertion",
    "client_assertion",
];

struct World {
    profile: Profile,
    by: By,
    shows: Shows,
    server: AuthorizationServer,
    api: ResourceServer,
    http: Client<HttpConnector, Full<Bytes>>,
    key: DpopKey,
    dpop: DpopLayer,
}

impl World {
    async fn start(profile: Profile, by: By, shows: Shows) -> Self {
        let server = AuthorizationServer::start().await.unwrap();
        let api = ResourceServer::start(&server).await.unwrap();
        server.profile(profile);
        api.profile(profile);
        let pushed_only = matches!(profile, Profile::Bluesky | Profile::FapiSuite);
        server.require_pushed_authorization_requests(pushed_only);
        server.strict_assertion_audience(profile == Profile::FapiSuite);
        server.approve_devices(true);
        server.accept_subject_token("somebodys.token");
        server.trust_assertions("https://idp.example", &a3_key());
        server.add_grant(OWN);
        let key = DpopKey::generate().unwrap();
        Self {
            profile,
            by,
            shows,
            server,
            api,
            http: Client::builder(TokioExecutor::new()).build_http(),
            dpop: DpopLayer::new(key.clone()),
            key,
        }
    }

    /// The client, known to the server in this way.
    fn registration(&self) -> Registration {
        let discovery = Discovery::new(self.http.clone(), self.server.issuer()).unwrap();
        let registration = Registration::new(discovery, ID);
        let server = &self.server;
        match self.shows {
            Shows::Nothing => server.add_public_client(ID),
            Shows::PrivateKeyJwt => server.add_client_with_key(ID, &a3_key()),
            _ => server.add_client(ID, SECRET),
        }
        match self.shows {
            Shows::Nothing => registration,
            Shows::Basic => registration.client_secret_basic(SECRET),
            Shows::Post => registration.client_secret_post(SECRET),
            Shows::PrivateKeyJwt => registration.private_key_jwt(PrivateKeyJwt::new(a3_key())),
            Shows::ClientSecretJwt => registration.client_secret_jwt(SECRET),
        }
    }

    async fn grant(&self, registration: &Registration) -> Grant {
        match self.by {
            By::ClientCredentials => Grant::client_credentials(),
            By::RefreshToken => {
                Grant::refresh_token(self.server.issue_refresh_token(ID, &self.key, "a b"))
            }
            By::Code | By::PushedCode => self.code(registration).await,
            By::DeviceCode => {
                let asked = TokenParameters::new().scope("a b");
                let device = self.client(registration).device_authorization(&asked).await;
                Grant::device_code(&device.unwrap())
            }
            By::TokenExchange => Grant::token_exchange("somebodys.token", ACCESS_TOKEN),
            By::JwtBearer => {
                let issuer = self.server.issuer().to_owned();
                let assertion = move || std::future::ready(Ok(assertion(&issuer)));
                Grant::other(JWT_BEARER).parameter_from("assertion", assertion)
            }
            By::Own => Grant::other(OWN).parameter("voucher", "v1"),
        }
    }

    /// What a user gave, who agreed at once.
    async fn code(&self, registration: &Registration) -> Grant {
        let client = self.client(registration);
        let request = AuthorizationRequest::new(CALLBACK).scope("a b");
        let pending = match (self.by, self.profile) {
            // It is pushed without being asked to be.
            (By::Code, _) | (_, Profile::Bluesky | Profile::FapiSuite) => {
                client.authorize(request).await
            }
            _ => client.push(request).await,
        };
        let pending = pending.unwrap();
        let page = Request::get(pending.url()).body(Full::default()).unwrap();
        let answer = self.http.request(page).await.unwrap();
        let redirect = answer.headers()[LOCATION].to_str().unwrap();
        pending.answered(redirect).unwrap()
    }

    fn client(&self, registration: &Registration) -> OAuthClient {
        OAuthClient::new(&self.dpop, self.http.clone(), registration.clone()).unwrap()
    }

    /// Three calls, before the second of which the token is renewed.
    async fn walk(&self) {
        let registration = self.registration();
        let grant = self.grant(&registration).await;
        let request = TokenRequest::new(registration, grant);
        let audience = Audience::origins([self.api.origin()]).unwrap();
        let tokens = TokenLayer::new(&self.dpop, self.http.clone(), request, audience).unwrap();
        let stack = ServiceBuilder::new()
            .layer(tokens)
            .layer(self.dpop.clone())
            .service(self.http.clone());
        for call in 0..3 {
            let mut request = Request::post(self.api.url(&format!("/orders/{call}?page=2")));
            if call == 1 {
                request = request.extension(ForceRenewal::now());
            }
            let request = request.body(Full::from("an order")).unwrap();
            let answer = stack.clone().oneshot(request).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}, call {call}: {error}", self));
            assert_eq!(answer.status(), 200, "{self}, call {call}");
        }
    }

    /// Whether a grant is renewed by a refresh token.
    fn is_refreshed(&self) -> bool {
        matches!(
            self.by,
            By::RefreshToken | By::Code | By::PushedCode | By::DeviceCode
        )
    }

    /// What the client asked the authorization server beside its metadata, by path; each with its challenges.
    fn expected(&self) -> BTreeMap<&'static str, usize> {
        let first: Option<&str> = match self.by {
            By::PushedCode => Some("/par"),
            By::DeviceCode => Some("/device"),
            _ => None,
        };
        let (asked, _) = challenges(self.profile, self.shows);
        let mut expected = BTreeMap::from([(METADATA, 1), ("/token", 2)]);
        expected.extend(first.map(|first| (first, 1)));
        match asked {
            Challenges::Never => {}
            Challenges::First => *expected.get_mut(first.unwrap_or("/token")).unwrap() += 1,
            Challenges::Each => {
                expected.extend(first.map(|first| (first, 2)));
                expected.insert("/token", 4);
            }
        }
        if matches!(self.by, By::Code | By::PushedCode) {
            expected.insert("/authorize", 1);
        }
        expected
    }

    async fn judge(&self) {
        let (asked, served) = (self.server.requests(), self.api.requests());
        let mut counted = BTreeMap::new();
        for seen in &asked {
            *counted.entry(seen.uri().path()).or_insert(0) += 1;
        }
        assert_eq!(counted, self.expected(), "{self}");

        let (by_server, by_api) = challenges(self.profile, self.shows);
        let (posts, gets): (Vec<_>, Vec<_>) =
            asked.into_iter().partition(|seen| seen.method() == "POST");
        for seen in gets {
            let headers = seen.headers();
            let shown = headers.contains_key("authorization") || headers.contains_key("dpop");
            assert!(!shown, "{self}: {seen:?}");
        }
        let good = posts.iter().filter(|seen| seen.refused().is_none()).count();
        assert_eq!(challenged(self, &posts), by_server.of(good), "{self}");
        assert_eq!(challenged(self, &served), by_api.of(3), "{self}");
        assert_eq!(served.len(), 3 + by_api.of(3), "{self}");

        self.judge_proofs(&posts, &served).await;
        self.judge_grants(&posts);
        self.judge_tokens(&served);
    }

    /// By a verifier that is not ours.
    async fn judge_proofs(&self, posts: &[Recorded], served: &[Recorded]) {
        let mut verifier = Verifier::default();
        let mut jtis = BTreeSet::new();
        let posts = posts.iter().map(|seen| (self.server.origin(), seen));
        let served = served.iter().map(|seen| (self.api.origin(), seen));
        for (origin, seen) in posts.chain(served) {
            let to_api = origin == self.api.origin();
            let url = format!("{origin}{}", seen.uri().path());
            let token = to_api.then(|| token(seen));
            let (proof, method) = (seen.proof().expect("one proof"), seen.method().as_str());
            let thumbprint = verifier.verify(proof, method, &url, token).await;
            let thumbprint = thumbprint.unwrap_or_else(|error| panic!("{self}: {url}: {error}"));
            assert_eq!(thumbprint, self.key.thumbprint(), "{self}");
            // Servers exist that compare byte by byte.
            assert_eq!(seen.claim("htu"), Some(url), "{self}");
            assert_eq!(seen.claim("ath").is_some(), to_api, "{self}");
            assert!(jtis.insert(seen.claim("jti").unwrap()), "{self}: twice");
        }
    }

    /// What is good once was looked at once.
    fn judge_grants(&self, posts: &[Recorded]) {
        let mut used = BTreeMap::<(&str, String), usize>::new();
        let mut ids = BTreeSet::new();
        for seen in posts {
            for name in GOOD_ONCE {
                let Some(value) = parameter(seen, name) else {
                    continue;
                };
                if name == "client_assertion" {
                    let id = claims(&value)["jti"].to_string();
                    assert!(ids.insert(id), "{self}: an assertion was sent twice");
                }
                *used.entry((name, value)).or_default() += usize::from(seen.refused().is_none());
            }
        }
        for ((name, _), times) in &used {
            // An assertion of a challenged request is gone.
            let may_be_lost = *name == "client_assertion" && *times == 0;
            assert!(*times == 1 || may_be_lost, "{self}: {name}: {times}");
        }
        let tokens = posts.iter().filter(|seen| seen.uri().path() == "/token");
        let good = tokens.filter(|seen| seen.refused().is_none());
        let types: Vec<_> = good
            .map(|seen| parameter(seen, "grant_type").unwrap())
            .collect();
        let first = match self.by {
            By::ClientCredentials => "client_credentials",
            By::RefreshToken => "refresh_token",
            By::Code | By::PushedCode => "authorization_code",
            By::DeviceCode => "urn:ietf:params:oauth:grant-type:device_code",
            By::TokenExchange => "urn:ietf:params:oauth:grant-type:token-exchange",
            By::JwtBearer => JWT_BEARER,
            By::Own => OWN,
        };
        let second = match self.is_refreshed() {
            true => "refresh_token",
            false => first,
        };
        assert_eq!(types, [first, second], "{self}");
        for seen in posts {
            self.judge_client(seen);
        }
    }

    /// The client shows who it is in one way, at every endpoint.
    fn judge_client(&self, seen: &Recorded) {
        let basic = seen.headers().get("authorization").is_some_and(|value| {
            let value = value.to_str().unwrap();
            assert!(value.starts_with("Basic "), "{self}: no Bearer");
            true
        });
        let has = |name| parameter(seen, name).is_some();
        let shown = [basic, has("client_secret"), has("client_assertion")];
        let expected = match self.shows {
            Shows::Nothing => [false, false, false],
            Shows::Basic => [true, false, false],
            Shows::Post => [false, true, false],
            Shows::PrivateKeyJwt | Shows::ClientSecretJwt => [false, false, true],
        };
        assert_eq!(shown, expected, "{self}");
        assert_eq!(seen.uri().query(), None, "{self}: no secret in a URL");
    }

    /// One token for the first call, another for those after the renewal.
    fn judge_tokens(&self, served: &[Recorded]) {
        let good = served.iter().filter(|seen| seen.refused().is_none());
        let tokens: Vec<_> = good.map(token).collect();
        let [first, second, third] = tokens[..] else {
            panic!("{self}: {} calls", tokens.len())
        };
        assert!(first != second && second == third, "{self}");
    }
}

impl std::fmt::Display for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}, {:?}", self.profile, self.by, self.shows)
    }
}

const METADATA: &str = "/.well-known/oauth-authorization-server";

/// How many were answered with a challenge. Nothing else was refused.
fn challenged(world: &World, seen: &[Recorded]) -> usize {
    let refused = seen.iter().filter_map(|seen| seen.refused());
    refused
        .inspect(|reason| assert!(reason.contains("nonce"), "{world}: {reason}"))
        .count()
}

fn token(seen: &Recorded) -> &str {
    let authorization = seen.headers()["authorization"].to_str().unwrap();
    authorization.strip_prefix("DPoP ").expect("no Bearer")
}

fn parameter(seen: &Recorded, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(seen.body());
    let found = pairs.find(|(known, _)| known == name);
    found.map(|(_, value)| value.into_owned())
}

/// Of somebody whom the server trusts, and with a `jti`, so that it takes it once. Not made by the crate.
fn assertion(audience: &str) -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let claims = json!({
        "iss": "https://idp.example", "sub": "somebody", "aud": audience, "exp": now.as_secs() + 60,
        "jti": format!("assertion-{}", COUNT.fetch_add(1, Ordering::Relaxed)),
    });
    sign_jws(r#"{"alg":"ES256"}"#, &claims.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_profile_every_grant_every_client() {
    let mut profiles = JoinSet::new();
    for profile in PROFILES {
        profiles.spawn(async move {
            let mut walks = 0;
            for by in GRANTS {
                for shows in CLIENTS {
                    if !is_run(profile, by, shows) {
                        continue;
                    }
                    let world = World::start(profile, by, shows).await;
                    let walk = timeout(Duration::from_secs(60), world.walk()).await;
                    walk.unwrap_or_else(|_| panic!("{world} hangs"));
                    world.judge().await;
                    walks += 1;
                }
            }
            walks
        });
    }
    let mut walks = 0;
    while let Some(done) = profiles.join_next().await {
        walks += done.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
    }
    // Seven profiles with all 39 that fit, Okta without 5 and Auth0 without 10 of them, and those of Bluesky and FAPI.
    assert_eq!(walks, 7 * 39 + 34 + 29 + 4 + 3);
}
