//! The grant, and the layer that makes tokens of it.

use bytes::Bytes;
use http::{Request, header::LOCATION};
use http_body_util::Full;
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, DpopLayer, Grant, OAuthClient, Registration,
    TokenLayer, TokenRequest,
};

use crate::{
    Http,
    client_id::{self, REDIRECT_URI},
    find::{Found, texts},
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

pub(crate) async fn layer(
    http: &Http,
    dpop: &DpopLayer,
    found: &Found,
    audience: Audience,
) -> Result<TokenLayer, BoxError> {
    let registration = client_id::registration(http, found).await?;
    let grants = texts(&found.metadata["grant_types_supported"]);
    let with_user = grants.is_empty() || grants.contains(&"authorization_code");
    let grant = match grants[..] {
        _ if with_user => code(http, dpop, found, &registration).await?,
        [JWT_BEARER, ..] => workload()?,
        _ => Grant::client_credentials(),
    };
    let mut request = TokenRequest::new(registration, grant).resource(found.resource.resource());
    // A user was asked for it already.
    if let Some(scope) = found.scope.as_ref().filter(|_| !with_user) {
        request = request.scope(scope);
    }
    Ok(TokenLayer::new(dpop, http.clone(), request, audience)?)
}

/// What the platform gave, on which this program runs (RFC 7523, section 2.1).
fn workload() -> Result<Grant, BoxError> {
    let context = client_id::context()?;
    let assertion = context["valid_jwt"]
        .as_str()
        .ok_or("there is no assertion")?;
    Ok(Grant::jwt_bearer(assertion))
}

/// The user grants at once, so their browser's way is one request.
async fn code(
    http: &Http,
    dpop: &DpopLayer,
    found: &Found,
    registration: &Registration,
) -> Result<Grant, BoxError> {
    let mut request = AuthorizationRequest::new(REDIRECT_URI).resource(found.resource.resource());
    if let Some(scope) = &found.scope {
        request = request.scope(scope);
    }
    let oauth = OAuthClient::new(dpop, http.clone(), registration.clone())?;
    let pending = oauth.authorize(request).await?;
    let page = Request::get(pending.url()).body(Full::<Bytes>::default())?;
    let answer = http.request(page).await?;
    let location = answer.headers().get(LOCATION);
    let location = location.ok_or("the authorization endpoint did not redirect")?;
    Ok(pending.answered(location.to_str()?)?)
}
