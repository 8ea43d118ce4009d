//! Servers for a run without arguments: real ones, on loopback, that check every rule of RFC 9449.

use std::io;

use tower_dpop::testing::{AuthorizationServer, CLIENT_ID, CLIENT_SECRET, Nonces, ResourceServer};

use crate::args::{Args, ClientAuth, Servers};

/// They end when this is dropped.
pub(crate) struct Embedded {
    authorization_server: AuthorizationServer,
    api: ResourceServer,
}

impl Embedded {
    /// Both ask for nonces. They know the client of `args`, whatever its secret is.
    pub(crate) async fn start(args: &Args, secret: &mut Option<String>) -> io::Result<Self> {
        let authorization_server = AuthorizationServer::start().await?;
        let api = ResourceServer::start(&authorization_server).await?;
        authorization_server.nonces(Nonces::required());
        api.nonces(Nonces::required());
        if args.client_auth == ClientAuth::None {
            authorization_server.add_public_client(CLIENT_ID);
        } else {
            let secret = secret.get_or_insert_with(|| CLIENT_SECRET.to_owned());
            authorization_server.add_client(CLIENT_ID, secret.as_str());
        }
        Ok(Self {
            authorization_server,
            api,
        })
    }

    pub(crate) fn servers(&self) -> Servers {
        Servers {
            url: self.api.url("/orders"),
            token_endpoint: self.authorization_server.token_endpoint(),
            client_id: CLIENT_ID.to_owned(),
        }
    }
}
