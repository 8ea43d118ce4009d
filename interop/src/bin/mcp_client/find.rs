//! From a refusal to the authorization server.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tower::ServiceExt as _;
use tower_dpop::{Audience, BoxError, Challenge, Discovery, ResourceMetadata};

use crate::Http;

/// What the refusal led to.
pub(crate) struct Found {
    pub(crate) resource: ResourceMetadata,
    pub(crate) discovery: Discovery,
    /// The authorization server's metadata as it wrote them: they tell how to register, which the crate does not read.
    pub(crate) metadata: Value,
    /// What to ask for: what the refusal names; else all that the resource knows.
    pub(crate) scope: Option<String>,
}

pub(crate) async fn find(
    http: &Http,
    url: &str,
    origin: &str,
    refusal: &HeaderMap,
    allowed: &Audience,
) -> Result<Found, BoxError> {
    let named = ResourceMetadata::from_challenges(http.clone(), url, refusal, allowed);
    let resource = match named.await? {
        Some(resource) => resource,
        // The protocol's order: those of the path, then those of the whole host.
        None => match ResourceMetadata::discover(http.clone(), url).await {
            Ok(resource) => resource,
            Err(_) => ResourceMetadata::discover(http.clone(), origin).await?,
        },
    };
    let issuer = resource.authorization_servers().first();
    let issuer = issuer.ok_or("the resource names no authorization server")?;

    let seen: Arc<Mutex<Bytes>> = Arc::default();
    let discovery = Discovery::new(tapped(http.clone(), &seen), issuer)?;
    let known = discovery.metadata().await?;
    // The protocol's rule: who does not tell of PKCE is taken for a server without it.
    let json = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let metadata: Value = serde_json::from_slice(&json)?;
    let grants = texts(&metadata["grant_types_supported"]);
    if grants.contains(&"authorization_code") && known.code_challenge_methods_supported().is_none()
    {
        return Err("the authorization server does not tell that it knows PKCE".into());
    }
    let asked = Challenge::all(refusal)
        .iter()
        .find_map(|challenge| challenge.parameter("scope").map(str::to_owned));
    let all = resource.scopes_supported();
    let scope = asked.or((!all.is_empty()).then(|| all.join(" ")));
    Ok(Found {
        resource,
        discovery,
        metadata,
        scope,
    })
}

/// The strings of a JSON array.
pub(crate) fn texts(value: &Value) -> Vec<&str> {
    let members = value.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(Value::as_str).collect()
}

/// A client whose last answer's body is kept beside it.
fn tapped(
    http: Http,
    seen: &Arc<Mutex<Bytes>>,
) -> impl tower::Service<
    Request<Full<Bytes>>,
    Response = Response<Full<Bytes>>,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send
+ 'static {
    let seen = Arc::clone(seen);
    tower::service_fn(move |request| {
        let (http, seen) = (http.clone(), Arc::clone(&seen));
        async move {
            let (head, body) = http.oneshot(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = body.clone();
            Ok(Response::from_parts(head, Full::new(body)))
        }
    })
}
