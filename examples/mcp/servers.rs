//! Whom to talk to: the server that the flags name, or embedded ones.

use tower_dpop::{
    BoxError,
    testing::{AuthorizationServer, ResourceServer},
};

use crate::{args::Args, common};

pub(crate) struct Servers {
    pub(crate) url: String,
    pub(crate) client_id: String,
    /// They end when this is dropped.
    pub(crate) embedded: Option<(AuthorizationServer, ResourceServer)>,
}

impl Servers {
    pub(crate) async fn named_or_embedded(args: &Args) -> Result<Self, BoxError> {
        let named = common::together([
            ("the MCP server's URL", &args.url),
            ("--client-id", &args.client_id),
        ])?;
        match named {
            Some([url, client_id]) => Ok(Self {
                url: url.to_owned(),
                client_id: client_id.to_owned(),
                embedded: None,
            }),
            None => Self::start().await,
        }
    }

    /// An API on loopback that tells where tokens are had, and repeats what it is sent.
    async fn start() -> Result<Self, BoxError> {
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        api.resource_metadata_in_challenges(true);
        api.metadata_member("scopes_supported", Some(r#"["mcp:tools"]"#));
        let client_id = "mcp-client";
        authorization_server.add_public_client(client_id);
        Ok(Self {
            url: api.url("/mcp"),
            client_id: client_id.to_owned(),
            embedded: Some((authorization_server, api)),
        })
    }
}
