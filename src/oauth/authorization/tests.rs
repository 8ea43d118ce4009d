mod answer;
mod request;

use http::Uri;

use super::*;
use crate::{DpopKey, DpopLayer};

const ENDPOINT: &str = "https://as.example.com/authorize";
const ISSUER: &str = "https://as.example.com/tenant";
const REDIRECT: &str = "https://app.example.com/callback";
const STATE: &str = "st4te-st4te";
const CODE: &str = "c0de-c0de";
const CLIENT: &str = "web app";

/// The key of RFC 9449's figures, and of RFC 7515, A.3.
const VECTORS: &str = include_str!("../../../tests/data/rfc9449_vectors.json");

fn server() -> ServerMetadata {
    ServerMetadata::new(ISSUER).with_authorization_endpoint(ENDPOINT)
}

fn request() -> AuthorizationRequest {
    AuthorizationRequest::new(REDIRECT).state(STATE)
}

fn begun(
    request: AuthorizationRequest,
    server: &ServerMetadata,
    key: &DpopKey,
) -> Result<PendingAuthorization, Error> {
    request.begin(server, CLIENT, DpopLayer::new(key.clone()).prover())
}

fn begin(request: AuthorizationRequest) -> Result<PendingAuthorization, Error> {
    begun(request, &server(), &DpopKey::generate().unwrap())
}

fn pending() -> PendingAuthorization {
    begin(request()).unwrap()
}

fn answer(query: &str) -> String {
    format!("{REDIRECT}?{query}")
}

fn good() -> String {
    answer(&format!(
        "code={CODE}&state={STATE}&iss=https%3A%2F%2Fas.example.com%2Ftenant"
    ))
}

/// Why an answer was refused: it is no answer, and it cost nothing.
#[track_caller]
fn refused(pending: &PendingAuthorization, redirect: &str) -> Error {
    let error = pending.answered(redirect).expect_err(redirect);
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(CODE) && !shown.contains(STATE), "{shown}");
    assert!(
        !error.to_string().contains(char::is_control),
        "one line: {error}"
    );
    error
}

#[track_caller]
fn not_ours(pending: &PendingAuthorization, redirect: &str, why: &str) {
    let error = refused(pending, redirect);
    assert!(
        error.is_authorization() && error.oauth_error().is_none(),
        "{redirect}: {error:?}"
    );
    assert!(error.to_string().contains(why), "{redirect}: {error}");
}

#[track_caller]
fn still_open(pending: &PendingAuthorization) {
    assert_eq!(pending.answered(&good()).unwrap().get("code"), CODE);
}

/// The parameters of a URL, by a reader that is not ours.
fn parameters(url: &str) -> Vec<(String, String)> {
    let uri: Uri = url.parse().unwrap();
    let query = uri.query().unwrap().as_bytes();
    form_urlencoded::parse(query).into_owned().collect()
}

fn parameter(url: &str, name: &str) -> String {
    let mut found: Vec<_> = parameters(url)
        .into_iter()
        .filter(|(known, _)| known == name)
        .collect();
    assert_eq!(found.len(), 1, "{name} in {url}");
    found.remove(0).1
}
