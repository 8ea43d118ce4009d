//! The `oauth2` crate's token requests through `Dpop`, by the lines of the example.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod clients;
#[allow(dead_code)]
#[path = "../examples/oauth2.rs"]
mod example;

use std::{future::Future, io};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use oauth2::{
    AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse,
    RefreshToken, RequestTokenError, Scope, TokenResponse as _, TokenUrl,
    basic::{BasicClient, BasicTokenResponse},
};
use tower::{ServiceBuilder, ServiceExt as _, util::BoxCloneSyncService};
use tower_dpop::{
    Audience, BoxError, ToAuthorizationServer,
    dpop::ResponseBody,
    testing::{CLIENT_ID, CLIENT_SECRET, Nonces},
};

use self::clients::{World, in_time, statuses};

type Service =
    BoxCloneSyncService<Request<Full<Bytes>>, Response<ResponseBody<Incoming>>, BoxError>;

/// `Dpop` alone.
fn service(world: &World) -> Service {
    let http = Client::builder(TokioExecutor::new()).build_http();
    BoxCloneSyncService::new(ServiceBuilder::new().layer(world.dpop()).service(http))
}

/// What the `oauth2` crate sends its requests by.
fn http<'a>(
    world: &'a World,
    service: &'a Service,
) -> impl Fn(HttpRequest) -> BoxFuture<'a> + Sync + 'a {
    let audience = Audience::origins([world.authorization_server.origin()]).unwrap();
    let to = ToAuthorizationServer::new(audience);
    move |request| Box::pin(example::ask(service.clone(), to.clone(), request))
}

type BoxFuture<'a> =
    std::pin::Pin<Box<dyn Future<Output = Result<HttpResponse, io::Error>> + Send + 'a>>;

type OauthClient =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

fn client(world: &World) -> OauthClient {
    let endpoint = world.authorization_server.token_endpoint();
    BasicClient::new(ClientId::new(CLIENT_ID.to_owned()))
        .set_client_secret(ClientSecret::new(CLIENT_SECRET.to_owned()))
        .set_token_uri(TokenUrl::new(endpoint).unwrap())
}

/// The status of an API call with the token of an answer.
async fn call_api(world: &World, service: &Service, answer: &BasicTokenResponse) -> u16 {
    let token = example::dpop_token(answer, &world.key, world.audience()).unwrap();
    let mut request = world.get("/orders");
    request.extensions_mut().insert(token);
    let answer = in_time(service.clone().oneshot(request)).await.unwrap();
    answer.status().as_u16()
}

#[tokio::test]
async fn client_credentials() {
    for (nonces, sends) in [
        (Nonces::off(), vec![200, 200]),
        (Nonces::required(), vec![400, 200, 200]),
        (Nonces::one_time(), vec![400, 200, 200]),
        (
            Nonces::one_time().only_in_errors(),
            vec![400, 200, 400, 200],
        ),
    ] {
        let world = World::start().await;
        world.authorization_server.nonces(nonces.clone());
        world.api.nonces(nonces.clone());
        let (service, client) = (service(&world), client(&world));
        // The secret in a header, and in the body: what is sent again has it, too.
        for auth_type in [AuthType::BasicAuth, AuthType::RequestBody] {
            let client = client.clone().set_auth_type(auth_type);
            let http = http(&world, &service);
            let answer = client
                .exchange_client_credentials()
                .add_scope(Scope::new("api".to_owned()))
                .request_async(&http);
            let answer = in_time(answer).await.unwrap();
            assert_eq!(call_api(&world, &service, &answer).await, 200);
        }
        let (asked, _) = world.statuses();
        assert_eq!(asked, sends, "{nonces:?}");
        for seen in world.authorization_server.requests() {
            assert_eq!(seen.claim("ath"), None);
        }
        world.assert_own_proofs().await;
    }
}

#[tokio::test]
async fn refresh_tokens() {
    for (nonces, sends) in [
        (Nonces::off(), vec![200, 200]),
        (Nonces::required(), vec![400, 200, 200]),
        (Nonces::one_time(), vec![400, 200, 200]),
        (
            Nonces::one_time().only_in_errors(),
            vec![400, 200, 400, 200],
        ),
    ] {
        let world = World::start().await;
        world.authorization_server.nonces(nonces.clone());
        world.api.nonces(nonces.clone());
        let (service, client) = (service(&world), client(&world));
        let issued = world
            .authorization_server
            .issue_refresh_token(CLIENT_ID, &world.key, "api");
        let mut refresh = RefreshToken::new(issued);
        // The server takes each of them once.
        for _ in 0..2 {
            let http = http(&world, &service);
            let answer = client.exchange_refresh_token(&refresh).request_async(&http);
            let answer = in_time(answer).await.unwrap();
            assert_eq!(call_api(&world, &service, &answer).await, 200);
            let next = answer.refresh_token().expect("the next one").clone();
            assert_ne!(next.secret(), refresh.secret());
            refresh = next;
        }
        let (asked, _) = world.statuses();
        assert_eq!(asked, sends, "{nonces:?}");
        world.assert_own_proofs().await;
    }
}

/// What a token request ends with that is no token.
async fn refused(world: &World) -> (String, Vec<u16>) {
    let service = service(world);
    let http = http(world, &service);
    let client = client(world);
    let answer = client.exchange_client_credentials().request_async(&http);
    let code = match in_time(answer).await.unwrap_err() {
        RequestTokenError::ServerResponse(refused) => refused.error().as_ref().to_owned(),
        other => panic!("{other}"),
    };
    (code, statuses(&world.authorization_server.requests()))
}

#[tokio::test]
async fn a_server_that_takes_no_nonce_is_asked_three_times() {
    let world = World::start().await;
    world.authorization_server.nonces(Nonces::endless());
    let code = "use_dpop_nonce".to_owned();
    assert_eq!(refused(&world).await, (code, vec![400, 400, 400]));
    world.assert_own_proofs().await;
}

#[tokio::test]
async fn any_other_refusal_is_passed_on() {
    let world = World::start().await;
    world.authorization_server.add_client(CLIENT_ID, "changed");
    let code = "invalid_client".to_owned();
    assert_eq!(refused(&world).await, (code, vec![401]));
}

#[tokio::test]
async fn what_has_no_answer_is_an_error_and_not_sent_again() {
    let world = World::start().await;
    let (service, client) = (service(&world), client(&world));
    let http = http(&world, &service);
    world.authorization_server.lose_answers(1);
    let answer = client.exchange_client_credentials().request_async(&http);
    let error = in_time(answer).await.unwrap_err();
    assert!(matches!(error, RequestTokenError::Request(_)), "{error}");
    assert_eq!(world.authorization_server.request_count(), 1);
}

#[tokio::test]
async fn only_dpop_tokens_are_taken() {
    let world = World::start().await;
    let (service, client) = (service(&world), client(&world));
    let http = http(&world, &service);
    for (token_type, taken) in [
        ("DPoP", true),
        ("dpop", true),
        ("dPOP", true),
        ("Bearer", false),
        ("bearer", false),
        ("N_A", false),
    ] {
        world.authorization_server.token_type(token_type);
        let answer = client.exchange_client_credentials().request_async(&http);
        let answer = in_time(answer).await.unwrap();
        let token = example::dpop_token(&answer, &world.key, world.audience());
        assert_eq!(token.is_ok(), taken, "{token_type}");
        if let Err(error) = token {
            let secret = answer.access_token().secret();
            assert!(!error.to_string().contains(secret));
        }
    }
    assert_eq!(world.api.request_count(), 0);
}

#[tokio::test]
async fn a_token_endpoint_elsewhere_gets_no_proof() {
    let world = World::start().await;
    let foreign = World::start().await;
    let service = service(&world);
    let http = http(&world, &service);
    let client = client(&foreign);
    let answer = client.exchange_client_credentials().request_async(&http);
    in_time(answer).await.unwrap_err();
    let [seen] = &foreign.authorization_server.requests()[..] else {
        panic!("one token request")
    };
    assert!(!seen.headers().contains_key("dpop"));
}
