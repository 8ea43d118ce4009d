//! Whom to talk to: the servers that the flags name, or embedded ones.

use tower_dpop::{
    BoxError,
    testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer},
};

use crate::args::{Args, ClientAuth};

pub(crate) struct Servers {
    pub(crate) url: String,
    pub(crate) token_endpoint: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: Option<String>,
    /// They end when this is dropped.
    pub(crate) embedded: Option<(AuthorizationServer, ResourceServer)>,
}

impl Servers {
    pub(crate) async fn start_or_named(args: &Args) -> Result<Self, BoxError> {
        match args.servers()? {
            Some(servers) => Ok(servers),
            None => Self::start(args).await,
        }
    }

    /// Servers on loopback that enforce every rule of RFC 9449, nonces included. They take the client's
    /// secret from the flags, if it is there.
    async fn start(args: &Args) -> Result<Self, BoxError> {
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        authorization_server.nonces(Nonces::required());
        api.nonces(Nonces::required());
        let client_secret = if args.client_auth == ClientAuth::None {
            authorization_server.add_public_client(CLIENT_ID);
            None
        } else {
            let secret = args
                .client_secret()?
                .unwrap_or_else(|| CLIENT_SECRET.to_owned());
            authorization_server.add_client(CLIENT_ID, secret.as_str());
            Some(secret)
        };
        Ok(Self {
            url: api.url("/orders"),
            token_endpoint: authorization_server.token_endpoint(),
            client_id: CLIENT_ID.to_owned(),
            client_secret,
            embedded: Some((authorization_server, api)),
        })
    }
}
