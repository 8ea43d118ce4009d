//! Who this client is at the authorization server: known there before, by a document of its own, or registered now.

use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower_dpop::{BoxError, DpopKey, PrivateKeyJwt, Registration};

use crate::{
    Http,
    find::{Found, texts},
};

/// Where the answer of the user's browser would come in. Nobody listens: the suite's server answers at once, and the
/// answer is read from its redirect.
pub(crate) const REDIRECT_URI: &str = "http://127.0.0.1:8123/callback";

/// The document that the suite knows (SEP-991). It is not fetched.
const OWN_DOCUMENT: &str = "https://conformance-test.local/client-metadata.json";

/// What the suite says that the client was given beforehand.
pub(crate) fn context() -> Result<Value, BoxError> {
    match std::env::var("MCP_CONFORMANCE_CONTEXT") {
        Ok(json) => Ok(serde_json::from_str(&json)?),
        Err(_) => Ok(Value::Null),
    }
}

pub(crate) async fn registration(http: &Http, found: &Found) -> Result<Registration, BoxError> {
    let context = context()?;
    if let Some(id) = context["client_id"].as_str() {
        return given(id, &context, found);
    }
    if found.metadata["client_id_metadata_document_supported"] == true {
        return Ok(Registration::new(found.discovery.clone(), OWN_DOCUMENT));
    }
    let endpoint = found.metadata["registration_endpoint"].as_str();
    let endpoint = endpoint.ok_or("there is no way to become a client of this server")?;
    let answer = register(http, endpoint, found).await?;
    let id = answer["client_id"]
        .as_str()
        .ok_or("no client_id came back")?;
    given(id, &answer, found)
}

/// By RFC 7591.
async fn register(http: &Http, endpoint: &str, found: &Found) -> Result<Value, BoxError> {
    let mut client = json!({
        "client_name": "tower-dpop interop",
        "application_type": "native",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method(&Value::Null, found),
        "dpop_bound_access_tokens": true,
    });
    if let Some(scope) = &found.scope {
        client["scope"] = json!(scope);
    }
    let request = Request::post(endpoint)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(client.to_string()))?;
    let (head, body) = http.request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    if !head.status.is_success() {
        return Err(format!("the registration was answered by {}", head.status).into());
    }
    Ok(serde_json::from_slice(&body)?)
}

/// How the client shows itself: what the server said of this client, else the first that it supports and this program
/// can do.
fn method<'a>(client: &'a Value, found: &'a Found) -> &'a str {
    let told = client["token_endpoint_auth_method"].as_str();
    told.unwrap_or_else(|| {
        let supported = texts(&found.metadata["token_endpoint_auth_methods_supported"]);
        let known = [
            "none",
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ];
        let first = supported.into_iter().find(|method| known.contains(method));
        // RFC 8414, section 2.
        first.unwrap_or("client_secret_basic")
    })
}

fn given(id: &str, client: &Value, found: &Found) -> Result<Registration, BoxError> {
    let registration = Registration::new(found.discovery.clone(), id);
    let secret = || client["client_secret"].as_str().ok_or("there is no secret");
    Ok(match method(client, found) {
        "client_secret_basic" => registration.client_secret_basic(secret()?),
        "client_secret_post" => registration.client_secret_post(secret()?),
        "private_key_jwt" => {
            let pem = client["private_key_pem"]
                .as_str()
                .ok_or("there is no key")?;
            let key = DpopKey::from_bytes(pem, None)?;
            registration.private_key_jwt(PrivateKeyJwt::new(key))
        }
        _ => registration,
    })
}
