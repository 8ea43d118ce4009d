//! A protected resource's metadata (RFC 9728).

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tokio::time::timeout;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    document::Document,
    get::{Got, get},
    metadata::check_algorithm,
    url::{self, Flaw, PlainHttp, place, shown},
};
use crate::{
    audience::Audience,
    challenge::Challenge,
    error::{BoxError, Error, Kind},
    key::DpopKey,
    origin::{self, Origin, Target},
};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

const RESOURCE: &str = "resource";

/// Waiting for the client, connecting, the document.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a resource server tells of itself: which authorization servers it trusts, and what tokens it takes (RFC 9728).
///
/// Nothing in this crate asks for it by itself: it is for a program that is given a resource's URL and has to find
/// out where a token for it is had, as clients of the Model Context Protocol do.
///
/// ```
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use tower_dpop::ResourceMetadata;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_dpop::Error> {
/// # let http = service_fn(|request: Request<Full<Bytes>>| async move {
/// #     assert_eq!(request.uri(), "https://mcp.example.com/.well-known/oauth-protected-resource/v1");
/// #     let json = r#"{"resource":"https://mcp.example.com/v1","authorization_servers":["https://as.example.com"]}"#;
/// #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(json)))
/// # });
/// let metadata = ResourceMetadata::discover(http, "https://mcp.example.com/v1").await?;
///
/// assert_eq!(metadata.authorization_servers(), ["https://as.example.com"]);
/// # Ok(())
/// # }
/// ```
///
/// Whether to trust an authorization server that a resource names is the program's to decide: whoever writes the
/// document could name one of theirs, and have the user grant there (RFC 9728, section 7.6). A client that is
/// registered at one server only has its answer in that.
///
/// Cheap to clone. `signed_metadata` are ignored, as RFC 9728, section 2.2 allows.
#[derive(Clone)]
pub struct ResourceMetadata(Arc<Inner>);

struct Inner {
    resource: String,
    authorization_servers: Vec<String>,
    scopes_supported: Vec<String>,
    dpop_signing_alg_values_supported: Option<Vec<String>>,
    dpop_bound_access_tokens_required: bool,
}

impl ResourceMetadata {
    /// Fetches the metadata of `resource`, from where its URL puts them: `https://mcp.example.com/v1` has them at
    /// `https://mcp.example.com/.well-known/oauth-protected-resource/v1` (RFC 9728, section 3.1).
    ///
    /// `client` is the plain HTTP client. The request carries neither proof nor token, and no redirect is followed. It
    /// may take 10 s. Nothing is kept, and nothing asked for elsewhere: a resource that publishes them for its whole
    /// host has to be asked for by that, such as `https://mcp.example.com`.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if `resource` is no URL with https and without fragment and user information, and
    /// [`Error::is_insecure_http`] if it is plain http and not to loopback; nothing is sent then.
    /// [`Error::is_metadata`] if there are no metadata, or those of another: their `resource` must be the same, code
    /// point by code point (section 3.3), without exception; or if they are no JSON object of 256 KiB at the most, hold
    /// a name twice, a member of the wrong type, or an authorization server that is no issuer identifier.
    /// Otherwise [`Error::is_token_request`]: the server could not be reached, is in trouble, or took too long.
    pub async fn discover<C, ResBody>(client: C, resource: &str) -> Result<Self, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>>,
        C::Error: Into<BoxError>,
        ResBody: Body,
        ResBody::Error: Into<BoxError>,
    {
        let (uri, origin) = resource_url("the resource", resource)?;
        let json = fetch(client, &well_known(&uri, &origin)?).await?;
        Self::read(Document::read(resource, RESOURCE, &json)?)
    }

    /// Fetches the metadata that a resource server's answer names: by the parameter `resource_metadata` of a challenge
    /// in its `WWW-Authenticate` header (RFC 9728, section 5.1). None if no challenge names them.
    ///
    /// `request` is the URL that was asked for, and `headers` are those of the answer to it. A `DPoP` challenge goes
    /// before others, and of several the first.
    ///
    /// The document's `resource` must be the URL that the client used (section 3.3), read as the Model Context
    /// Protocol does: `request` itself, to the letter; or, if it has no query, a URL of the same origin whose path is
    /// that of `request` or begins it, segment by segment. `https://mcp.example.com/v1` is the resource of
    /// `https://mcp.example.com/v1/tools?page=2`, and not that of `https://mcp.example.com/v12`.
    ///
    /// `client` and the request are as for [`discover`](Self::discover).
    ///
    /// # Errors
    ///
    /// [`Error::is_metadata`] if the URL that a challenge names is of an origin that is not `allowed`, or none that
    /// could be followed; nothing is sent then. Otherwise those of [`discover`](Self::discover).
    ///
    /// # Security
    ///
    /// Whoever answers a request chooses this URL, which may be that of a server in your own network that others
    /// cannot reach (section 7.7). So it is followed to the origins in `allowed` only, which should be the resource's
    /// own or such as you know: with [`Audience::danger_any_https_origin`] it may lead anywhere.
    pub async fn from_challenges<C, ResBody>(
        client: C,
        request: &str,
        headers: &HeaderMap,
        allowed: &Audience,
    ) -> Result<Option<Self>, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>>,
        C::Error: Into<BoxError>,
        ResBody: Body,
        ResBody::Error: Into<BoxError>,
    {
        let (asked, _) = resource_url("the URL that was asked for", request)?;
        let Some(leads) = named(headers) else {
            return Ok(None);
        };
        let uri = follow(&leads, allowed)?;
        let json = fetch(client, &uri).await?;
        let document = Document::of_any(request, &json)?;
        match document.text(RESOURCE)? {
            Some(found) if found == request || begins(found, &asked) => {}
            found => {
                let rule = "is not the URL that was asked for, nor begins it";
                return Err(document.is_of_another(RESOURCE, found, rule));
            }
        }
        Self::read(document).map(Some)
    }

    fn read(document: Document) -> Result<Self, Error> {
        let resource = document.text(RESOURCE)?.unwrap_or_default().to_owned();
        let plain = PlainHttp::Loopback.named_by(&resource);
        Ok(Self(Arc::new(Inner {
            resource,
            authorization_servers: document.issuers("authorization_servers", plain)?,
            scopes_supported: document.texts("scopes_supported")?.unwrap_or_default(),
            dpop_signing_alg_values_supported: document
                .texts("dpop_signing_alg_values_supported")?,
            dpop_bound_access_tokens_required: document
                .flag("dpop_bound_access_tokens_required")?,
        })))
    }

    /// The resource's identifier: the `resource` of token requests (RFC 8707).
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.0.resource
    }

    /// The issuer identifiers of the authorization servers that it trusts, each checked to be one. It may name none.
    #[must_use]
    pub fn authorization_servers(&self) -> &[String] {
        &self.0.authorization_servers
    }

    /// The scopes that its tokens may have. It may name none, or not all.
    #[must_use]
    pub fn scopes_supported(&self) -> &[String] {
        &self.0.scopes_supported
    }

    /// The algorithms of proofs that it accepts, if it tells them.
    #[must_use]
    pub fn dpop_signing_alg_values_supported(&self) -> Option<&[String]> {
        self.0.dpop_signing_alg_values_supported.as_deref()
    }

    /// Whether it accepts proofs of this key, as far as it tells: before a token for it is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::is_algorithm`] if it does not.
    pub fn check_key(&self, key: &DpopKey) -> Result<(), Error> {
        let theirs = self.dpop_signing_alg_values_supported();
        check_algorithm(
            "the resource server",
            theirs,
            key.algorithm(),
            key.algorithms(),
        )
    }

    /// Whether it accepts no tokens but such as are bound to a key.
    #[must_use]
    pub fn dpop_bound_access_tokens_required(&self) -> bool {
        self.0.dpop_bound_access_tokens_required
    }
}

impl fmt::Debug for ResourceMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceMetadata")
            .field("resource", &self.resource())
            .field("authorization_servers", &self.authorization_servers())
            .finish_non_exhaustive()
    }
}

fn resource_url(name: &str, resource: &str) -> Result<(Uri, Origin), Error> {
    url::endpoint(resource, PlainHttp::Loopback).map_err(|flaw| flaw.config(name, resource))
}

/// Between host and path; of the path, nothing but a slash that stands alone is left out.
fn well_known(resource: &Uri, origin: &Origin) -> Result<Uri, Error> {
    let path = Some(origin::path(resource)).filter(|path| *path != "/");
    let query = resource.query().map(|query| format!("?{query}"));
    let (path, query) = (path.unwrap_or_default(), query.unwrap_or_default());
    format!("{origin}{WELL_KNOWN}{path}{query}")
        .parse()
        .map_err(|_| Error::config("the resource is too long"))
}

/// The URL that a challenge names.
fn named(headers: &HeaderMap) -> Option<String> {
    let mut challenges = Challenge::all(headers);
    challenges.sort_by_key(|challenge| !challenge.is_scheme("DPoP"));
    let mut named = challenges
        .iter()
        .filter_map(|challenge| challenge.parameter("resource_metadata"));
    named.next().map(str::to_owned)
}

/// Where a server's answer leads, if one may go there.
fn follow(leads: &str, allowed: &Audience) -> Result<Uri, Error> {
    let refused = |flaw: Flaw| {
        Error::new(
            Kind::Metadata,
            format!(
                "the `resource_metadata` of a challenge{} is not followed: it {}",
                shown(leads),
                flaw.what()
            ),
        )
    };
    let (uri, origin) = url::endpoint(leads, PlainHttp::Loopback).map_err(refused)?;
    if !allowed.allows(&origin.target(&uri)) {
        return Err(refused(Flaw::new(
            "is of an origin that the program does not allow",
        )));
    }
    Ok(uri)
}

/// Whether a resource is that of a request: the same origin, and a path that is or begins the request's.
fn begins(resource: &str, request: &Uri) -> bool {
    let (Ok((uri, origin)), Ok(request)) = (
        url::endpoint(resource, PlainHttp::Loopback),
        Target::new(request, None),
    ) else {
        return false;
    };
    let path = origin::path(&uri);
    let segments = path.strip_suffix('/').unwrap_or(path);
    let rest = request.path().strip_prefix(segments);
    uri.query().is_none()
        && origin.parts() == request.origin()
        && (path == request.path() || rest.is_some_and(|rest| rest.starts_with('/')))
}

async fn fetch<C, ResBody>(mut client: C, uri: &Uri) -> Result<Zeroizing<Vec<u8>>, Error>
where
    C: Service<Request<Full<Bytes>>, Response = Response<ResBody>>,
    C::Error: Into<BoxError>,
    ResBody: Body,
    ResBody::Error: Into<BoxError>,
{
    match timeout(TIMEOUT, get(&mut client, uri)).await {
        Ok(Ok(Got::Document { json, .. })) => Ok(json),
        Ok(Ok(Got::Nothing { said })) => Err(Error::new(
            Kind::Metadata,
            format!(
                "the resource has no metadata: `{}` answered {said}",
                place(uri)
            ),
        )),
        Ok(Err(failure)) => Err(failure.error),
        Err(_) => Err(Error::new(
            Kind::Timeout,
            format!(
                "no metadata of the resource: `{}` gave no answer within {} s",
                place(uri),
                TIMEOUT.as_secs()
            ),
        )),
    }
}
