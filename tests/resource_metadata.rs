//! A protected resource's metadata: for a resource that the program names, and by a challenge that the program allows
//! to be followed (RFC 9728).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header::WWW_AUTHENTICATE};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower_dpop::{Audience, Error, ResourceMetadata};

use self::support::{Answer, Fake, NEVER, answer};

const RESOURCE: &str = "https://mcp.example.com/v1";

fn found(body: &str) -> Answer {
    answer(200, &[("content-type", "application/json")], body)
}

/// A server that answers whatever it is asked with this document.
fn server(document: &Value) -> Fake {
    let body = document.to_string();
    Fake::new(move |_, _| found(&body))
}

fn assert_fit(error: &Error) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
    assert!(
        !error.to_string().contains(char::is_control) && error.to_string().len() < 1000,
        "{error}"
    );
}

async fn discover(client: &Fake, resource: &str) -> Result<ResourceMetadata, Error> {
    let found = ResourceMetadata::discover(client.clone(), resource).await;
    found.inspect_err(assert_fit)
}

async fn refused(document: &Value) -> Error {
    let error = discover(&server(document), RESOURCE).await.unwrap_err();
    assert!(
        error.is_metadata() && error.is_token_request(),
        "{document}: {error}"
    );
    error
}

#[tokio::test(start_paused = true)]
async fn the_well_known_place_is_between_host_and_path() {
    for (resource, place) in [
        (
            "https://mcp.example.com",
            "https://mcp.example.com/.well-known/oauth-protected-resource",
        ),
        (
            "https://mcp.example.com/",
            "https://mcp.example.com/.well-known/oauth-protected-resource",
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/.well-known/oauth-protected-resource/v1",
        ),
        (
            "https://mcp.example.com/a%20b/",
            "https://mcp.example.com/.well-known/oauth-protected-resource/a%20b/",
        ),
        (
            "https://mcp.example.com/v1?k=v",
            "https://mcp.example.com/.well-known/oauth-protected-resource/v1?k=v",
        ),
        (
            "https://mcp.example.com?k=v",
            "https://mcp.example.com/.well-known/oauth-protected-resource?k=v",
        ),
        (
            "https://MCP.example.com:443/V1",
            "https://mcp.example.com/.well-known/oauth-protected-resource/V1",
        ),
        (
            "http://[::1]:8080/v1",
            "http://[::1]:8080/.well-known/oauth-protected-resource/v1",
        ),
    ] {
        let client = server(&json!({"resource": resource}));
        let metadata = discover(&client, resource).await.unwrap();
        assert_eq!(metadata.resource(), resource);
        let seen = client.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].uri.to_string(), place);
        assert_eq!(seen[0].method, Method::GET);
        let names: Vec<_> = seen[0]
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .collect();
        assert_eq!(names, ["accept"], "no proof, no token");
        assert_eq!(seen[0].header("accept"), Some("application/json"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_it_tells() {
    let document = json!({
        "resource": RESOURCE,
        "authorization_servers": ["https://as.example.com/tenant", "https://other.example:9"],
        "scopes_supported": ["read", "write"],
        "dpop_signing_alg_values_supported": ["ES256"],
        "dpop_bound_access_tokens_required": true,
        "bearer_methods_supported": 5, "jwks_uri": null, "signed_metadata": "ignored",
    });
    let metadata = discover(&server(&document), RESOURCE).await.unwrap();
    assert_eq!(
        metadata.authorization_servers(),
        ["https://as.example.com/tenant", "https://other.example:9"]
    );
    assert_eq!(metadata.scopes_supported(), ["read", "write"]);
    assert_eq!(
        metadata.dpop_signing_alg_values_supported().unwrap(),
        ["ES256"]
    );
    assert!(metadata.dpop_bound_access_tokens_required());
    assert!(format!("{metadata:?}").contains("https://as.example.com/tenant"));

    let metadata = discover(&server(&json!({"resource": RESOURCE})), RESOURCE)
        .await
        .unwrap();
    assert!(metadata.authorization_servers().is_empty() && metadata.scopes_supported().is_empty());
    assert_eq!(metadata.dpop_signing_alg_values_supported(), None);
    assert!(!metadata.dpop_bound_access_tokens_required());
}

#[tokio::test(start_paused = true)]
async fn another_resource_is_another_to_the_letter() {
    for other in [
        json!("https://mcp.example.com/v1/"),
        json!("https://mcp.example.com/V1"),
        json!("https://MCP.example.com/v1"),
        json!("https://mcp.example.com:443/v1"),
        json!("https://mcp.example.com"),
        json!("https://mcp.example.com/v1/tools"),
        json!("https://evil.example/v1"),
        json!(""),
        json!(null),
        json!([RESOURCE]),
    ] {
        let error = refused(&json!({"resource": other})).await;
        assert!(error.to_string().contains("resource"), "{other}: {error}");
    }
    assert!(
        refused(&json!({}))
            .await
            .to_string()
            .contains("no `resource`")
    );
}

#[tokio::test(start_paused = true)]
async fn an_authorization_server_is_named_by_an_issuer_identifier() {
    for bad in [
        json!("http://as.example.com"),
        json!("http://localhost:9"),
        json!("https://as.example.com?x=1"),
        json!("https://as.example.com#"),
        json!("https://u:s3cret@as.example.com"),
        json!("as.example.com"),
        json!(""),
        json!(1),
        json!(null),
    ] {
        let servers = json!(["https://as.example.com", bad]);
        let error = refused(&json!({"resource": RESOURCE, "authorization_servers": servers})).await;
        assert!(
            error.to_string().contains("authorization_servers"),
            "{error}"
        );
    }
    for (name, wrong) in [
        ("authorization_servers", json!("https://as.example.com")),
        ("scopes_supported", json!("read write")),
        ("dpop_signing_alg_values_supported", json!([256])),
        ("dpop_bound_access_tokens_required", json!("true")),
    ] {
        let error = refused(&json!({"resource": RESOURCE, name: wrong})).await;
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_document_is_an_error() {
    let (long, fits) = {
        let bare = json!({"resource": RESOURCE, "x": ""}).to_string().len();
        let of = |length: usize| {
            json!({"resource": RESOURCE, "x": "x".repeat(length - bare)}).to_string()
        };
        (of(256 * 1024 + 1), of(256 * 1024))
    };
    assert!(
        discover(&Fake::new(move |_, _| found(&fits)), RESOURCE)
            .await
            .is_ok()
    );
    for bad in [
        long,
        String::new(),
        "[]".into(),
        "s3cret".into(),
        format!(r#"{{"resource":"{RESOURCE}","resource":"{RESOURCE}"}}"#),
        format!(
            r#"{{"resource":"{RESOURCE}","x":{}{}}}"#,
            "[".repeat(500),
            "]".repeat(500)
        ),
    ] {
        let error = discover(&Fake::new(move |_, _| found(&bad)), RESOURCE)
            .await
            .unwrap_err();
        assert!(error.is_metadata(), "{error}");
    }
    for (answer, metadata, word) in [
        (answer(404, &[], ""), true, "404"),
        (
            answer(200, &[("content-type", "text/html")], ""),
            true,
            "page",
        ),
        (
            answer(302, &[("location", "https://x.example/?s3cret")], ""),
            true,
            "`https://x.example/`",
        ),
        (answer(500, &[], ""), false, "500"),
        (answer(429, &[], ""), false, "429"),
    ] {
        let client = Fake::new(move |_, _| answer.clone());
        let error = discover(&client, RESOURCE).await.unwrap_err();
        assert_eq!(error.is_metadata(), metadata, "{error}");
        assert!(
            error.is_token_request() && error.to_string().contains(word),
            "{error}"
        );
        assert_eq!(client.seen().len(), 1, "asked for nowhere else");
    }
    let broken = Fake::failing(|_, _| Err("connection refused".into()));
    let error = discover(&broken, RESOURCE).await.unwrap_err();
    assert!(error.is_token_request() && !error.is_metadata(), "{error}");

    let start = Instant::now();
    let silent = server(&json!({})).delay(NEVER);
    assert!(discover(&silent, RESOURCE).await.unwrap_err().is_timeout());
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn no_error_shows_a_query() {
    let resource = "https://mcp.example.com/v1?key=s3cret";
    let headers = challenge(r#"DPoP resource_metadata="https://mcp.example.com/m?key=s3cret""#);
    for (status, body) in [(200, ""), (200, "{}"), (302, ""), (404, ""), (500, "")] {
        let client = Fake::new(move |_, _| answer(status, &[], body));
        for error in [
            discover(&client, resource).await.unwrap_err(),
            from(&client, resource, &headers, &allowed())
                .await
                .unwrap_err(),
        ] {
            // `assert_fit` has looked for the query.
            let text = error.to_string();
            assert!(text.contains("https://mcp.example.com/"), "{text}");
        }
    }
    let broken = Fake::failing(|_, _| Err("connection refused".into()));
    assert!(discover(&broken, resource).await.is_err());
    assert!(discover(&broken.delay(NEVER), resource).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_is_no_url_is_asked_for_nowhere() {
    for bad in [
        "",
        "mcp.example.com",
        "/v1",
        "https://mcp.example.com/v1#x",
        "https://u:s3cret@mcp.example.com",
        "ftp://mcp.example.com",
        "https://mcp.example.com/\n",
        "https://mcp.example.com:x/?s3cret",
    ] {
        let client = server(&json!({"resource": bad}));
        let error = discover(&client, bad).await.unwrap_err();
        assert!(error.is_config(), "{bad}: {error}");
        let challenge = challenge(r#"DPoP resource_metadata="https://mcp.example.com/m""#);
        let error = from(&client, bad, &challenge, &allowed())
            .await
            .unwrap_err();
        assert!(error.is_config(), "{bad}: {error}");
        assert_eq!(client.seen().len(), 0);
    }
    let client = server(&json!({"resource": "http://mcp.example.com"}));
    let error = discover(&client, "http://mcp.example.com")
        .await
        .unwrap_err();
    assert!(error.is_insecure_http(), "{error}");
    assert_eq!(client.seen().len(), 0);
}

// By a challenge.

fn challenge(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(value).unwrap());
    headers
}

fn allowed() -> Audience {
    Audience::origins(["https://mcp.example.com", "https://meta.example.com:8443"]).unwrap()
}

async fn from(
    client: &Fake,
    request: &str,
    headers: &HeaderMap,
    allowed: &Audience,
) -> Result<Option<ResourceMetadata>, Error> {
    let found = ResourceMetadata::from_challenges(client.clone(), request, headers, allowed).await;
    found.inspect_err(assert_fit)
}

#[tokio::test(start_paused = true)]
async fn a_challenge_leads_to_where_the_program_allows() {
    for place in [
        "https://mcp.example.com/.well-known/oauth-protected-resource/v1",
        "https://MCP.example.com:443/anything?x=1",
        "https://meta.example.com:8443/mcp",
    ] {
        let client = server(&json!({"resource": RESOURCE}));
        let headers = challenge(&format!(
            r#"DPoP error="invalid_token", resource_metadata="{place}""#
        ));
        let metadata = from(&client, RESOURCE, &headers, &allowed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(metadata.resource(), RESOURCE);
        let seen = client.seen();
        assert_eq!(seen.len(), 1);
        let asked: http::Uri = place.parse().unwrap();
        assert_eq!(seen[0].uri, asked);
        let names: Vec<_> = seen[0]
            .headers
            .keys()
            .map(http::HeaderName::as_str)
            .collect();
        assert_eq!(names, ["accept"], "no proof, no token");
    }
}

#[tokio::test(start_paused = true)]
async fn f71_a_challenge_leads_nowhere_else() {
    let any_https = Audience::danger_any_https_origin();
    for (place, with_any) in [
        ("http://169.254.169.254/latest", false),
        ("https://169.254.169.254/latest", true),
        (
            "https://evil.example/.well-known/oauth-protected-resource",
            true,
        ),
        ("https://mcp.example.com.evil.example/", true),
        ("https://mcp.example.com:8443/", true),
        ("https://meta.example.com/", true),
        ("http://mcp.example.com/", false),
        ("http://localhost/", false),
        ("https://mcp.example.com@evil.example/", false),
        ("https://u:s3cret@mcp.example.com/", false),
        ("https://mcp.example.com/#x", false),
        ("/.well-known/oauth-protected-resource", false),
        ("//mcp.example.com/", false),
        ("file:///etc/passwd", false),
        ("gopher://mcp.example.com/", false),
        ("", false),
    ] {
        let client = server(&json!({"resource": RESOURCE}));
        let headers = challenge(&format!(r#"DPoP resource_metadata="{place}""#));
        let error = from(&client, RESOURCE, &headers, &allowed())
            .await
            .unwrap_err();
        assert!(error.is_metadata(), "{place}: {error}");
        assert!(
            error.to_string().contains("not followed"),
            "{place}: {error}"
        );
        assert_eq!(client.seen().len(), 0, "{place}");

        let led = from(&client, RESOURCE, &headers, &any_https).await;
        assert_eq!(
            (led.is_ok(), client.seen().len() == 1),
            (with_any, with_any),
            "{place}"
        );
    }
    // Loopback, if it is listed.
    let home = Audience::origins(["http://127.0.0.1:9"]).unwrap();
    let headers = challenge(r#"DPoP resource_metadata="http://127.0.0.1:9/m""#);
    let client = server(&json!({"resource": RESOURCE}));
    assert!(
        from(&client, RESOURCE, &headers, &home)
            .await
            .unwrap()
            .is_some()
    );
    // Plain http to another machine not even then.
    let plain = Audience::origins(["http://mcp.example.com"]).unwrap();
    let headers = challenge(r#"DPoP resource_metadata="http://mcp.example.com/m""#);
    assert!(from(&client, RESOURCE, &headers, &plain).await.is_err());
    assert_eq!(client.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_redirect_does_not_lead_further() {
    let client = Fake::new(|_, _| answer(307, &[("location", "http://169.254.169.254/")], ""));
    let headers = challenge(r#"DPoP resource_metadata="https://mcp.example.com/m""#);
    let error = from(&client, RESOURCE, &headers, &allowed())
        .await
        .unwrap_err();
    assert!(
        error.is_metadata() && error.to_string().contains("redirect"),
        "{error}"
    );
    assert_eq!(client.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn which_challenge_names_them() {
    for (value, place) in [
        (
            r#"Bearer resource_metadata="https://mcp.example.com/b""#,
            Some("/b"),
        ),
        (
            r#"Bearer resource_metadata="https://mcp.example.com/b", DPoP algs="ES256", resource_metadata="https://mcp.example.com/d""#,
            Some("/d"),
        ),
        (
            r#"DPoP algs="ES256", Bearer Resource_Metadata="https://mcp.example.com/b""#,
            Some("/b"),
        ),
        (
            r#"Basic resource_metadata="https://mcp.example.com/1", Bearer resource_metadata="https://mcp.example.com/2""#,
            Some("/1"),
        ),
        // Quoted within another parameter, and broken grammar.
        (
            r#"DPoP error_description="resource_metadata=https://mcp.example.com/x""#,
            None,
        ),
        (r#"DPoP resource_metadata="https://mcp.example.com/x"#, None),
        (r#"DPoP error="invalid_token""#, None),
        ("Negotiate", None),
    ] {
        let client = server(&json!({"resource": RESOURCE}));
        let found = from(&client, RESOURCE, &challenge(value), &allowed())
            .await
            .unwrap();
        assert_eq!(found.is_some(), place.is_some(), "{value}");
        let seen = client.seen();
        let asked = seen.iter().map(|seen| seen.uri.path());
        assert_eq!(asked.collect::<Vec<_>>(), Vec::from_iter(place), "{value}");
    }
    let client = server(&json!({"resource": RESOURCE}));
    let none = from(&client, RESOURCE, &HeaderMap::new(), &allowed())
        .await
        .unwrap();
    assert!(none.is_none() && client.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_resource_is_the_one_that_was_asked_for() {
    let headers = challenge(r#"DPoP resource_metadata="https://mcp.example.com/m""#);
    for (request, resource, fits) in [
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/v1",
            true,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com",
            true,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/",
            true,
        ),
        (
            "https://mcp.example.com/v1/tools?page=2",
            "https://mcp.example.com/v1",
            true,
        ),
        (
            "https://mcp.example.com/v1/tools",
            "https://mcp.example.com/v1/",
            true,
        ),
        (
            "https://mcp.example.com/v1?page=2",
            "https://mcp.example.com/v1",
            true,
        ),
        (
            "https://mcp.example.com/v1?page=2",
            "https://mcp.example.com/v1?page=2",
            true,
        ),
        (
            "https://MCP.example.com:443/v1/x",
            "https://mcp.example.com/v1",
            true,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.EXAMPLE.com:443/v1",
            true,
        ),
        ("https://mcp.example.com", "https://mcp.example.com/", true),
        (
            "https://mcp.example.com/v12?s3cret",
            "https://mcp.example.com/v1",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/v1/",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/v1/tools",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/v2",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/V1",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/%761",
            false,
        ),
        (
            "https://mcp.example.com/v1?page=2",
            "https://mcp.example.com/v1?page=3",
            false,
        ),
        (
            "https://mcp.example.com/v1/x?page=2",
            "https://mcp.example.com/v1?page=2",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com/v1#",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "http://mcp.example.com/v1",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com:8443/v1",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://u:s3cret@mcp.example.com/v1",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://evil.example/v1",
            false,
        ),
        (
            "https://mcp.example.com/v1",
            "https://mcp.example.com.evil.example/",
            false,
        ),
        ("https://mcp.example.com/v1", "/v1", false),
        ("https://mcp.example.com/v1", "", false),
    ] {
        let client = server(&json!({"resource": resource}));
        match from(&client, request, &headers, &allowed()).await {
            Ok(metadata) => {
                assert!(fits, "{request}: {resource}");
                assert_eq!(metadata.unwrap().resource(), resource);
            }
            Err(error) => {
                assert!(
                    !fits && error.is_metadata(),
                    "{request}: {resource}: {error}"
                );
                assert!(error.to_string().contains("resource"), "{error}");
            }
        }
    }
    for wrong in [json!({}), json!({"resource": null}), json!({"resource": 5})] {
        assert!(
            from(&server(&wrong), RESOURCE, &headers, &allowed())
                .await
                .unwrap_err()
                .is_metadata()
        );
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), place in "[!-~]{0,60}") {
        let client = Fake::new(move |_, _| {
            answer(200, &[], "").map(|_| http_body_util::Full::from(bytes.clone()))
        });
        let headers = challenge(&format!(r#"DPoP resource_metadata="https://mcp.example.com/{}""#, place.replace(['"', '\\'], "")));
        prop_assert!(block_on(discover(&client, RESOURCE)).is_err());
        prop_assert!(block_on(from(&client, RESOURCE, &headers, &allowed())).is_err());
    }

    #[test]
    fn no_challenge_leads_to_another_origin(place in prop_oneof![
        "[!-~]{0,60}",
        "https?://[a-z.:@/\\\\?#%]{0,30}mcp\\.example\\.com[a-z.:@/\\\\?#%0-9]{0,30}",
    ]) {
        let client = server(&json!({"resource": RESOURCE}));
        let escaped = place.replace('\\', "\\\\").replace('"', "\\\"");
        let headers = challenge(&format!(r#"DPoP resource_metadata="{escaped}""#));
        let _ = block_on(from(&client, RESOURCE, &headers, &allowed()));
        for seen in client.seen() {
            let origin = (seen.uri.scheme_str(), seen.uri.host(), seen.uri.port_u16().unwrap_or(443));
            prop_assert!(
                [(Some("https"), Some("mcp.example.com"), 443), (Some("https"), Some("meta.example.com"), 8443)]
                    .contains(&origin),
                "{place}"
            );
        }
    }
}
