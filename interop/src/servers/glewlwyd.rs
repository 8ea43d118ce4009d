//! glewlwyd: an authorization server in C, whose `userinfo` is a protected resource.

use http::{Request, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use tokio::process::Command;
use tower_dpop::{
    AuthorizationRequest, Discovery, DpopKey, DpopLayer, Grant, OAuthClient, PrivateKeyJwt,
    Registration,
};

use crate::{
    Result,
    client::{Body, Http, read},
    lab::Lab,
    process::{Clock, Process, Program, free_port},
};

pub const NAME: &str = "glewlwyd";

/// The public client.
pub const PUBLIC: &str = "public";

/// Its clients that may be their own users.
pub const CLIENTS: [(&str, &str); 3] = [
    ("secret_post", "client_secret_post"),
    ("secret_basic", "client_secret_basic"),
    ("private_key_jwt", "private_key_jwt"),
];

pub struct Glewlwyd {
    pub process: Process,
    pub port: u16,
    /// What `prepare.py` said.
    told: Value,
    client_key: DpopKey,
}

impl Glewlwyd {
    pub async fn start(lab: &Lab, clock: Option<&Clock>) -> Result<Self> {
        let (port, folder) = (free_port()?, lab.folder(NAME)?);
        let client_key = DpopKey::generate()?;
        let mut public: Value = serde_json::from_str(client_key.public_jwk())?;
        public["kid"] = json!("client");
        public["alg"] = json!("ES256");
        let settings = json!({ "port": port, "state": folder.join("state"), "client_jwk": public });
        let prepared = Command::new(lab.programs.join("glewlwyd/prepare.py"))
            .arg(settings.to_string())
            .kill_on_drop(true)
            .output()
            .await?;
        if !prepared.status.success() {
            let said = String::from_utf8_lossy(&prepared.stderr);
            return Err(format!("glewlwyd could not be prepared: {said}").into());
        }
        let told: Value = serde_json::from_slice(&prepared.stdout)?;
        let arguments = told["command"].as_array().ok_or("no command")?.iter();
        let program = Program {
            arguments: arguments
                .filter_map(|argument| Some(argument.as_str()?.to_owned()))
                .collect(),
            port,
            clock: clock.cloned(),
            log: folder.join("glewlwyd.log"),
        };
        Ok(Self {
            process: Process::start(program).await?,
            port,
            told,
            client_key,
        })
    }

    fn text(&self, pointer: &str) -> Result<&str> {
        let text = self.told.pointer(pointer).and_then(Value::as_str);
        Ok(text.ok_or_else(|| format!("prepare.py did not say {pointer}"))?)
    }

    pub fn base(&self) -> Result<&str> {
        self.text("/base")
    }

    pub fn userinfo(&self, issuer: &str) -> Result<&str> {
        self.text(&format!("/issuers/{issuer}/userinfo"))
    }

    pub fn discovery(&self, http: Http, issuer: &str) -> Result<Discovery> {
        let url = self.text(&format!("/issuers/{issuer}/issuer"))?;
        Ok(Discovery::new(http, url)?)
    }

    /// A client as it is registered at one of its issuers.
    pub fn registration(&self, http: Http, issuer: &str, client: &str) -> Result<Registration> {
        let at = format!("/issuers/{issuer}/clients/{client}");
        let id = self.text(&format!("{at}/client_id"))?;
        let secret = || self.text(&format!("{at}/client_secret"));
        let registration = Registration::new(self.discovery(http, issuer)?, id);
        Ok(match client {
            "secret_post" => registration.client_secret_post(secret()?),
            "secret_basic" => registration.client_secret_basic(secret()?),
            // It takes its token endpoint for an audience, and nothing else.
            "private_key_jwt" => registration.private_key_jwt(
                PrivateKeyJwt::new(self.client_key.clone())
                    .key_id("client")
                    .endpoint_as_audience(),
            ),
            _ => registration,
        })
    }

    /// A user's login at one of the clients, from the authorization request to the code.
    pub async fn log_in(
        &self,
        dpop: &DpopLayer,
        http: &Http,
        issuer: &str,
        client: &str,
    ) -> Result<Grant> {
        let registration = self.registration(http.clone(), issuer, client)?;
        let id = self.text(&format!("/issuers/{issuer}/clients/{client}/client_id"))?;
        let client = OAuthClient::new(dpop, http.clone(), registration)?;
        let redirect_uri = self.text("/redirect_uri")?;
        let request = AuthorizationRequest::new(redirect_uri)
            .scope("openid api")
            .openid_nonce();
        // Its PAR endpoint offers no nonce.
        let pending = match issuer {
            "plain" => client.push(request).await?,
            _ => client.authorize(request).await?,
        };
        let redirect = self.user(pending.url(), id).await?;
        Ok(pending.answered(&redirect)?)
    }

    /// What the login page's script does for a user who types the password and agrees.
    async fn user(&self, url: &str, client_id: &str) -> Result<String> {
        let browser = Client::builder(TokioExecutor::new()).build_http::<Body>();
        let base = self.base()?;
        let password = &self.told["user"];
        let consent = json!({ "scope": "openid api" });
        let mut cookie = String::new();
        for (method, path, body) in [
            ("POST", "/api/auth/".to_owned(), password),
            ("PUT", format!("/api/auth/grant/{client_id}"), &consent),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(format!("{base}{path}"))
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::COOKIE, &cookie)
                .body(Body::from(body.to_string()))?;
            let answer = browser.request(request).await?;
            if let Some(set) = answer.headers().get(header::SET_COOKIE) {
                cookie = set.to_str()?.split(';').next().unwrap_or_default().into();
            }
            let (status, text) = read(answer).await?;
            if !status.is_success() {
                return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&text)).into());
            }
        }
        let request = Request::get(format!("{url}&g_continue"))
            .header(header::COOKIE, &cookie)
            .body(Body::default())?;
        let answer = browser.request(request).await?;
        let location = answer.headers().get(header::LOCATION);
        let location = location.ok_or_else(|| format!("{} and no redirect", answer.status()))?;
        Ok(location.to_str()?.to_owned())
    }
}
