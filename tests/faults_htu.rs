//! URLs of every form, and what their proofs name: F76 of the fault catalogue. Judged by three: the strict
//! servers of `testing`, the check that they use, and a verifier that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;
#[path = "support/verifier.rs"]
mod verifier;

use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Uri, Version};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{Fake, a3_key, get, ok, with_token};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_dpop::{
    AccessToken, Audience, DpopLayer, TokenLayer, TokenRequest,
    proof::Check,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, ResourceServer},
};

use self::verifier::Verifier;

const ORIGIN: &str = "https://api.example.com";

/// What stands after the origin, and what of it the proof names.
const PATHS: [(&str, &str); 26] = [
    ("", "/"),
    ("/", "/"),
    ("?page=2", "/"),
    ("/orders", "/orders"),
    ("/orders/", "/orders/"),
    ("/orders?", "/orders"),
    ("/orders?page=2", "/orders"),
    ("/orders?a=/b/c?d", "/orders"),
    ("/orders?x=%23%3f", "/orders"),
    ("/orders#part", "/orders"),
    ("/orders?page=2#part", "/orders"),
    ("/#part", "/"),
    ("/%7e", "/%7e"),
    ("/%7Euser", "/%7Euser"),
    ("/~user", "/~user"),
    ("/a%2Fb/c%2fd", "/a%2Fb/c%2fd"),
    ("/a%3Fb%23c", "/a%3Fb%23c"),
    ("/a//b", "/a//b"),
    ("/Upper/lower", "/Upper/lower"),
    ("/a;b=c/d@e:f/g,h", "/a;b=c/d@e:f/g,h"),
    ("/%E2%82%AC", "/%E2%82%AC"),
    ("/%20+%2B", "/%20+%2B"),
    ("/!$&'()*+,;=:@-._~", "/!$&'()*+,;=:@-._~"),
    ("/%", "/%"),
    ("/a|b", "/a|b"),
    ("//a", "//a"),
];

/// Origins as they may be written, and as they are.
const ORIGINS: [(&str, &str); 14] = [
    ("https://api.example.com", ORIGIN),
    ("https://API.Example.COM", ORIGIN),
    ("HTTPS://api.example.com", ORIGIN),
    ("https://api.example.com:443", ORIGIN),
    ("https://api.example.com:", ORIGIN),
    ("https://user@api.example.com", ORIGIN),
    ("https://user:p%40ss@API.example.com:443", ORIGIN),
    (
        "https://api.example.com:8443",
        "https://api.example.com:8443",
    ),
    ("https://api.example.com:80", "https://api.example.com:80"),
    ("http://127.0.0.1:80", "http://127.0.0.1"),
    ("http://127.0.0.1:443", "http://127.0.0.1:443"),
    ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
    (
        "https://XN--Mnchen-3ya.example",
        "https://xn--mnchen-3ya.example",
    ),
    ("https://api.example.com.", "https://api.example.com."),
];

/// The URL as a server puts it together from what arrives.
fn on_the_wire(uri: &Uri) -> String {
    let path = uri.path();
    format!(
        "{}://{}{path}",
        uri.scheme_str().unwrap(),
        uri.authority().unwrap()
    )
}

/// Sends one request, and shows its proof to both.
async fn judged(written: &str, htu: &str, verifier: &mut Verifier) {
    let key = a3_key();
    let origins = ORIGINS.iter().map(|(_, origin)| origin);
    let audience = Audience::origins(origins).unwrap();
    let token = AccessToken::new("own.token", &key, audience).unwrap();
    let fake = Fake::new(|_, _| ok());
    let request = with_token(get(written), &token);
    DpopLayer::new(key.clone())
        .layer(fake.clone())
        .oneshot(request)
        .await
        .unwrap();
    let seen = &fake.seen()[0];
    assert_eq!(seen.claims()["htu"], htu, "{written}");
    let url = on_the_wire(&seen.uri);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    Check::new(&seen.method, &url, now)
        .access_token("own.token", key.thumbprint())
        .verify(&seen.headers)
        .unwrap_or_else(|error| panic!("{written}: {error}"));
    let verified = verifier.verify(seen.proof(), "GET", &url, Some("own.token"));
    let thumbprint = verified
        .await
        .unwrap_or_else(|error| panic!("{written}: {error}"));
    assert_eq!(thumbprint, key.thumbprint());
}

#[tokio::test]
async fn f76_a_proof_names_scheme_host_and_path_of_whatever_url() {
    let mut verifier = Verifier::default();
    for (path, named) in PATHS {
        judged(
            &format!("{ORIGIN}{path}"),
            &format!("{ORIGIN}{named}"),
            &mut verifier,
        )
        .await;
    }
    for (written, origin) in ORIGINS {
        for (path, named) in [("", "/"), ("/a%7e?b#c", "/a%7e")] {
            let htu = format!("{origin}{named}");
            judged(&format!("{written}{path}"), &htu, &mut verifier).await;
        }
    }
    assert_eq!(verifier.count(), PATHS.len() + 2 * ORIGINS.len());
}

#[test]
fn f76_a_name_beyond_ascii_is_no_url() {
    // Whoever makes URLs of them writes `xn--`, as above.
    for url in ["https://münchen.example/", "https://例え.jp/"] {
        url.parse::<Uri>().unwrap_err();
    }
}

#[tokio::test]
async fn f76_the_strict_server_takes_them_all() {
    let authorization_server = AuthorizationServer::start().await.unwrap();
    let server = ResourceServer::start(&authorization_server).await.unwrap();
    let host = server.origin().strip_prefix("http://").unwrap();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let http = Client::builder(TokioExecutor::new())
            .http2_only(version == Version::HTTP_2)
            .build_http();
        let dpop = DpopLayer::new(a3_key());
        let endpoint = format!(
            "HTTP://user:pw@{}?tenant=1",
            &authorization_server.token_endpoint()[7..]
        );
        // User information in a configured URL is a mistake, a query is none.
        let request = |endpoint: &str| {
            TokenRequest::client_credentials(endpoint, CLIENT_ID).client_secret_post(CLIENT_SECRET)
        };
        let audience = Audience::origins([server.origin()]).unwrap();
        let refused = TokenLayer::new(&dpop, http.clone(), request(&endpoint), audience.clone());
        assert!(refused.unwrap_err().is_config());
        let endpoint = endpoint.replace("user:pw@", "");
        let tokens = TokenLayer::new(&dpop, http.clone(), request(&endpoint), audience).unwrap();
        let stack = ServiceBuilder::new()
            .layer(tokens)
            .layer(dpop)
            .service(http);
        for origin in [
            format!("http://{host}"),
            format!("HTTP://{host}"),
            format!("http://user:pw@{host}"),
        ] {
            for (path, named) in PATHS {
                let before = server.request_count();
                let url = format!("{origin}{path}");
                let request = Request::get(&url).body(Full::<Bytes>::default()).unwrap();
                let answer = stack.clone().oneshot(request).await.unwrap();
                let seen = server.requests().pop().unwrap();
                assert_eq!(
                    answer.status(),
                    200,
                    "{version:?} {url}: {:?}",
                    seen.refused()
                );
                assert_eq!(server.request_count(), before + 1);
                assert_eq!(
                    seen.claim("htu"),
                    Some(format!("{}{named}", server.origin()))
                );
                assert_eq!(seen.uri().path(), named);
                assert_eq!(seen.headers().get_all("authorization").iter().count(), 1);
            }
        }
    }
}
