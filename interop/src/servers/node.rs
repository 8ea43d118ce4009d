//! node-oidc-provider, and beside it an API that checks tokens and proofs with others' libraries.

use serde_json::{Value, json};
use tower_dpop::{DpopKey, PrivateKeyJwt, Registration, oauth::Endpoints};

use crate::{
    Result,
    client::{get_json, post},
    lab::Lab,
    process::{Clock, Process, Program, free_port},
};

/// How the two are to be.
#[derive(Clone, Copy, Default)]
pub struct Settings<'a> {
    /// `off`, `offered`, `required`.
    pub token_nonces: Option<&'a str>,
    /// `off`, `rotating`, `one-time`.
    pub api_nonces: Option<&'a str>,
    pub clock: Option<&'a Clock>,
    /// How long access tokens last; ten minutes unless told.
    pub token_seconds: Option<u64>,
}

pub struct Node {
    pub authorization: Process,
    pub resource: Process,
    pub authorization_port: u16,
    pub resource_port: u16,
    pub issuer: String,
    pub api: String,
    pub clients: Value,
    client_key: DpopKey,
}

/// Its clients that are their own users, by their names there and by how they authenticate.
pub const CLIENTS: [(&str, &str); 3] = [
    ("post", "client_secret_post"),
    ("basic", "client_secret_basic"),
    ("jwt", "private_key_jwt"),
];

impl Node {
    pub async fn start(lab: &Lab, settings: Settings<'_>) -> Result<Self> {
        let (authorization_port, resource_port) = (free_port()?, free_port()?);
        let issuer = format!("http://127.0.0.1:{authorization_port}");
        let api = format!("http://127.0.0.1:{resource_port}");
        let folder = lab.folder("oidc-provider")?;
        let client_key = DpopKey::generate()?;
        let public: Value = serde_json::from_str(client_key.public_jwk())?;
        let node = lab.programs.join("node/node_modules/.bin/node");
        let program = |name: &str, port: u16, settings_json: Value| Program {
            arguments: vec![
                node.display().to_string(),
                lab.programs.join("node").join(name).display().to_string(),
                settings_json.to_string(),
            ],
            port,
            clock: settings.clock.cloned(),
            log: folder.join(format!("{name}.log")),
        };
        let authorization = Process::start(program(
            "authorization_server.js",
            authorization_port,
            json!({
                "port": authorization_port,
                "nonces": settings.token_nonces.unwrap_or("off"),
                "state": folder,
                "resource": api,
                "client_jwk": public,
                "token_seconds": settings.token_seconds.unwrap_or(600),
            }),
        ))
        .await?;
        let resource = Process::start(program(
            "resource_server.js",
            resource_port,
            json!({
                "port": resource_port,
                "issuer": issuer,
                "nonces": settings.api_nonces.unwrap_or("off"),
                "rotate_ms": 1000,
                "state": folder,
            }),
        ))
        .await?;
        Ok(Self {
            clients: get_json(&format!("{issuer}/interop/clients")).await?,
            authorization,
            resource,
            authorization_port,
            resource_port,
            issuer,
            api,
            client_key,
        })
    }

    /// A client as it is registered there.
    pub fn registration(&self, server: impl Into<Endpoints>, client: &str) -> Result<Registration> {
        let facts = &self.clients[client];
        let fact = |name: &str| {
            let value = facts[name].as_str().map(str::to_owned);
            value.ok_or_else(|| format!("{client}: no {name}"))
        };
        let registration = Registration::new(server, fact("client_id")?);
        Ok(match &*fact("token_endpoint_auth_method")? {
            "client_secret_post" => registration.client_secret_post(fact("client_secret")?),
            "client_secret_basic" => registration.client_secret_basic(fact("client_secret")?),
            "private_key_jwt" => {
                registration.private_key_jwt(PrivateKeyJwt::new(self.client_key.clone()))
            }
            _ => registration,
        })
    }

    /// What both counted since they were asked for the last time.
    pub async fn counts(&self) -> Result<(Value, Value)> {
        let mut counts = Vec::new();
        for server in [&self.issuer, &self.api] {
            let url = format!("{server}/interop/counts");
            counts.push(get_json(&url).await?);
            post(&url).await?;
        }
        let api = counts.pop().unwrap_or_default();
        Ok((counts.pop().unwrap_or_default(), api))
    }
}
