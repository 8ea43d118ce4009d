//! WSO2 Identity Server: both flows of its page on DPoP, and the curl commands that they stand for.
//!
//! ```sh
//! cargo run --example wso2
//! cargo run --example wso2 -- --base-url https://localhost:9443 --ca wso2.pem --client-id … --client-secret-file … \
//!     --key key.pem https://localhost:9443/scim2/Me
//! ```
//!
//! The page: <https://is.docs.wso2.com/en/next/references/token-binding/dpop/>. The application there has DPoP as its
//! token binding type; one that has not gets Bearer tokens, which are refused here. Its grant types are those that are
//! used, `refresh_token` among them.

mod args;
#[path = "../common/mod.rs"]
mod common;
mod curl;
mod servers;

use std::{process::ExitCode, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tower::{ServiceBuilder, ServiceExt as _};
use tower_dpop::{
    Audience, AuthorizationRequest, BoxError, DpopLayer, Error, ForceRenewal, Grant, OAuthClient,
    Registration, TokenLayer, TokenRequest,
};

use self::{
    args::Args,
    common::{
        https::{self, HttpsClient},
        login::Login,
        output::{self, say},
    },
    curl::Curl,
    servers::Servers,
};

/// For one request, a new token included.
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), BoxError> {
    let args: Args = common::parse()?;
    let servers = Servers::named_or_embedded(&args).await?;
    let http = https::client(args.ca.as_deref())?;
    let key = args.key.load()?;
    let curl = Curl::new(&servers, &args, key.thumbprint());
    // A confidential client, by HTTP Basic in both flows.
    let registration = Registration::new(servers.metadata(), &servers.client_id)
        .client_secret_basic(&servers.client_secret);
    let wso2 = Wso2 {
        url: common::url(&servers.url)?,
        scope: args.scope.clone(),
        dpop: DpopLayer::new(key.clone()),
        registration,
        http,
    };

    if servers.embedded.is_some() {
        common::tell("note: no server named, so embedded ones were started");
    }
    if args.key.key.is_none() {
        common::tell("note: no --key given, so one was made for this run: `dpop_jkt` is of that");
    }
    say(curl::VARIABLES)?;
    if args.flow.has_client_credentials() {
        say(&curl.client_credentials())?;
        wso2.client_credentials().await?;
    }
    if args.flow.has_authorization_code() {
        let login = match servers.embedded {
            Some(_) => Login::embedded(&wso2.http),
            None => args.login.listen("/callback").await?,
        };
        say(&curl.authorization_code(login.redirect_uri()))?;
        wso2.authorization_code(login).await?;
    }
    match &servers.embedded {
        Some(embedded) => say(&embedded.report()),
        None => Ok(()),
    }
}

struct Wso2 {
    url: Uri,
    scope: Option<String>,
    /// One key for both flows, and for the refresh token: it is bound to it, though the client has a secret.
    dpop: DpopLayer,
    registration: Registration,
    http: HttpsClient,
}

impl Wso2 {
    /// "Try with the client credentials grant".
    async fn client_credentials(&self) -> Result<(), BoxError> {
        let mut request = TokenRequest::new(self.registration.clone(), Grant::client_credentials());
        if let Some(scope) = &self.scope {
            request = request.scope(scope);
        }
        let tokens = self.tokens(request)?;
        self.call(&tokens, self.get()?).await
    }

    /// "Try with the authorization code grant", with the key's thumbprint in `dpop_jkt`: a code that is stolen is of
    /// no use without the key.
    async fn authorization_code(&self, login: Login) -> Result<(), BoxError> {
        let mut request = AuthorizationRequest::new(login.redirect_uri());
        if let Some(scope) = &self.scope {
            request = request.scope(scope);
        }
        let oauth = OAuthClient::new(&self.dpop, self.http.clone(), self.registration.clone())?;
        let grant = login.ask(oauth.authorize(request).await?).await?;
        let tokens = self.tokens(TokenRequest::new(self.registration.clone(), grant))?;
        self.call(&tokens, self.get()?).await?;

        // The refresh token is used by itself, when it is time; here it is to be seen.
        let mut renewed = self.get()?;
        renewed.extensions_mut().insert(ForceRenewal::now());
        self.call(&tokens, renewed).await
    }

    fn tokens(&self, request: TokenRequest) -> Result<TokenLayer, BoxError> {
        let audience = Audience::origins([common::origin(&self.url)])?;
        let http = self.http.clone();
        Ok(TokenLayer::new(&self.dpop, http, request, audience)?)
    }

    /// The layers, from the outermost to the innermost.
    async fn call(
        &self,
        tokens: &TokenLayer,
        request: Request<Full<Bytes>>,
    ) -> Result<(), BoxError> {
        let api = ServiceBuilder::new()
            .timeout(TIMEOUT)
            .and_then(output::read) // within the timeout
            .layer(tokens) // which token?
            .layer(&self.dpop) // prove the key
            .service(self.http.clone());
        let answer = api.oneshot(request).await;
        output::answer(&answer.map_err(|error| self.no_answer(error))?)
    }

    fn get(&self) -> Result<Request<Full<Bytes>>, BoxError> {
        Ok(Request::get(self.url.clone()).body(Full::default())?)
    }

    fn no_answer(&self, error: BoxError) -> BoxError {
        if Error::find(&*error).is_some_and(Error::is_downgrade) {
            let line = common::one_line(&*error);
            return format!("{line} (is DPoP the application's token binding type?)").into();
        }
        https::no_answer(error, &self.url)
    }
}
