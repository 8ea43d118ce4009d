//! Where an authorization server is asked for what.

use std::fmt;

use http::Uri;

use super::{discovery::Discovery, metadata::ServerMetadata, url};
use crate::{
    access_token::ToAuthorizationServer, audience::Audience, dpop::Prover, error::Error,
    origin::Origin,
};

/// Where an authorization server's endpoints are.
///
/// Made from the URL of a token endpoint, if nothing else is needed; from [`ServerMetadata`]; or from a
/// [`Discovery`], which finds them at the issuer and keeps up with them.
#[derive(Clone)]
pub struct Endpoints(Known);

#[derive(Clone)]
enum Known {
    Fixed(ServerMetadata),
    Discovered(Discovery),
}

impl From<&str> for Endpoints {
    fn from(token_endpoint: &str) -> Self {
        ServerMetadata::token_endpoint_only(token_endpoint).into()
    }
}

impl From<&String> for Endpoints {
    fn from(token_endpoint: &String) -> Self {
        token_endpoint.as_str().into()
    }
}

impl From<String> for Endpoints {
    fn from(token_endpoint: String) -> Self {
        token_endpoint.as_str().into()
    }
}

impl From<ServerMetadata> for Endpoints {
    fn from(metadata: ServerMetadata) -> Self {
        Self(Known::Fixed(metadata))
    }
}

impl From<Discovery> for Endpoints {
    fn from(discovery: Discovery) -> Self {
        Self(Known::Discovered(discovery))
    }
}

impl Endpoints {
    pub(crate) async fn metadata(&self) -> Result<ServerMetadata, Error> {
        match &self.0 {
            Known::Fixed(metadata) => Ok(metadata.clone()),
            Known::Discovered(discovery) => discovery.metadata().await,
        }
    }

    /// What needs no asking.
    pub(crate) fn known(&self) -> Option<&ServerMetadata> {
        match &self.0 {
            Known::Fixed(metadata) => Some(metadata),
            Known::Discovered(_) => None,
        }
    }

    /// What the server is called.
    pub(crate) fn name(&self) -> &str {
        match &self.0 {
            Known::Fixed(metadata) => metadata.name(),
            Known::Discovered(discovery) => discovery.issuer(),
        }
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // A URL that was given may hold a secret.
            Known::Fixed(metadata) => {
                let issuer = metadata
                    .issuer()
                    .map(|issuer| url::shown(issuer).trim().to_owned());
                f.debug_tuple("Endpoints").field(&issuer).finish()
            }
            Known::Discovered(discovery) => {
                let issuer = discovery.issuer();
                f.debug_tuple("Endpoints").field(&issuer).finish()
            }
        }
    }
}

/// The endpoints that the client itself sends requests to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Token,
    PushedAuthorizationRequest,
    DeviceAuthorization,
    Revocation,
    Introspection,
}

impl Endpoint {
    pub(super) const ALL: [Self; 5] = [
        Self::Token,
        Self::PushedAuthorizationRequest,
        Self::DeviceAuthorization,
        Self::Revocation,
        Self::Introspection,
    ];

    /// Its name in the metadata (RFC 8414, section 2; RFC 9126, section 5; RFC 8628, section 4).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token_endpoint",
            Self::PushedAuthorizationRequest => "pushed_authorization_request_endpoint",
            Self::DeviceAuthorization => "device_authorization_endpoint",
            Self::Revocation => "revocation_endpoint",
            Self::Introspection => "introspection_endpoint",
        }
    }

    /// What is sent there.
    pub(crate) fn request(self) -> &'static str {
        match self {
            Self::Token => "token request",
            Self::PushedAuthorizationRequest => "pushed authorization request",
            Self::DeviceAuthorization => "device authorization request",
            Self::Revocation => "revocation request",
            Self::Introspection => "introspection request",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "token endpoint",
            Self::PushedAuthorizationRequest => "pushed authorization request endpoint",
            Self::DeviceAuthorization => "device authorization endpoint",
            Self::Revocation => "revocation endpoint",
            Self::Introspection => "introspection endpoint",
        })
    }
}

/// An endpoint that a request can be sent to.
pub(crate) struct Found {
    pub(crate) uri: Uri,
    pub(crate) url: String,
    pub(crate) origin: Origin,
    pub(crate) issuer: Option<String>,
    /// Which keeps the request's proof from going elsewhere.
    pub(crate) mark: ToAuthorizationServer,
}

impl Found {
    /// The endpoint, if the server has it and it can be used with this key.
    pub(crate) fn new(
        metadata: &ServerMetadata,
        endpoint: Endpoint,
        mutual_tls: bool,
        prover: &Prover,
    ) -> Result<Self, Error> {
        metadata.check_algorithm(prover.key.algorithm(), prover.key.algorithms())?;
        let url = metadata.endpoint(endpoint, mutual_tls);
        let url = url.ok_or_else(|| {
            Error::config(format!(
                "the authorization server has no {endpoint}: its metadata name no `{}`",
                endpoint.name()
            ))
        })?;
        let usable = url::endpoint(url, prover.plain_http());
        let (uri, origin) = usable.map_err(|flaw| flaw.config(&format!("the {endpoint}"), url))?;
        Ok(Self {
            uri,
            url: url.to_owned(),
            issuer: metadata.issuer().map(str::to_owned),
            mark: ToAuthorizationServer::new(Audience::origins([&origin])?),
            origin,
        })
    }
}
