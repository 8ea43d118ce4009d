//! Whom to talk to: the server that the flags name, or embedded ones.

use form_urlencoded::parse;
use http::header::AUTHORIZATION;
use tower_dpop::{
    BoxError, ServerMetadata,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Profile, Recorded, ResourceServer},
};

use crate::{
    args::Args,
    common::{self, Usage},
};

pub(crate) struct Servers {
    pub(crate) url: String,
    issuer: String,
    pub(crate) token_endpoint: String,
    pub(crate) authorization_endpoint: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) embedded: Option<Embedded>,
}

/// They end when this is dropped.
pub(crate) struct Embedded {
    authorization_server: AuthorizationServer,
    _api: ResourceServer,
}

impl Servers {
    pub(crate) async fn named_or_embedded(args: &Args) -> Result<Self, BoxError> {
        let named = common::together([
            ("the API's URL", &args.url),
            ("--base-url", &args.base_url),
            ("--client-id", &args.client_id),
        ])?;
        match named {
            Some([url, base, client_id]) => {
                let secret = args.client_secret()?;
                let mut servers = Self::named(url, base, client_id, secret)?;
                if let Some(issuer) = &args.issuer {
                    servers.issuer.clone_from(issuer);
                }
                Ok(servers)
            }
            None => Self::start(args.client_secret()?).await,
        }
    }

    fn named(
        url: &str,
        base: &str,
        client_id: &str,
        secret: Option<String>,
    ) -> Result<Self, BoxError> {
        if common::url(base)?.query().is_some() {
            return Err(Usage("--base-url has a query".to_owned()).into());
        }
        let base = base.trim_end_matches('/');
        Ok(Self {
            url: url.to_owned(),
            issuer: format!("{base}/oauth2/token"), // its name, unless configured otherwise
            token_endpoint: format!("{base}/oauth2/token"),
            authorization_endpoint: format!("{base}/oauth2/authorize"),
            client_id: client_id.to_owned(),
            client_secret: secret
                .ok_or_else(|| Usage("missing: --client-secret-file".to_owned()))?,
            embedded: None,
        })
    }

    /// Servers on loopback that behave as WSO2's do: opaque tokens, no nonces, refresh tokens that are bound to the
    /// key.
    async fn start(secret: Option<String>) -> Result<Self, BoxError> {
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        authorization_server.profile(Profile::Wso2);
        api.profile(Profile::Wso2);
        let client_secret = secret.unwrap_or_else(|| CLIENT_SECRET.to_owned());
        authorization_server.add_client(CLIENT_ID, client_secret.as_str());
        Ok(Self {
            url: api.url("/scim2/Me"),
            issuer: authorization_server.issuer().to_owned(),
            token_endpoint: authorization_server.token_endpoint(),
            authorization_endpoint: authorization_server.authorization_endpoint(),
            client_id: CLIENT_ID.to_owned(),
            client_secret,
            embedded: Some(Embedded {
                authorization_server,
                _api: api,
            }),
        })
    }

    /// Written by hand. The issuer is what an `iss` in the redirect is compared with.
    pub(crate) fn metadata(&self) -> ServerMetadata {
        ServerMetadata::new(&self.issuer)
            .with_token_endpoint(&self.token_endpoint)
            .with_authorization_endpoint(&self.authorization_endpoint)
    }
}

impl Embedded {
    /// What the authorization server saw.
    pub(crate) fn report(&self) -> String {
        let requests = self.authorization_server.requests();
        let lines = requests.iter().map(line);
        format!(
            "# The authorization server saw:\n{}",
            lines.collect::<Vec<_>>().join("\n")
        )
    }
}

fn line(request: &Recorded) -> String {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    let pairs = parse(query).chain(parse(request.body()));
    let shown = pairs.filter(|(name, _)| ["grant_type", "dpop_jkt"].contains(&&**name));
    let mut parts: Vec<String> = shown
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let authorization = request.headers().get(AUTHORIZATION);
    if let Some((scheme, _)) = authorization
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
    {
        parts.push(format!("Authorization: {scheme}"));
    }
    if let Some(htu) = request.claim("htu") {
        parts.push(format!("DPoP: a proof for {htu}"));
    }
    let (method, path) = (request.method(), request.uri().path());
    format!("# {method} {path}, {}", parts.join(", "))
}
