//! Every client of node-oidc-provider, with every kind of nonces: many requests, renewed tokens, one token revoked.

use bytes::Bytes;
use http::{Method, Request};
use tower_dpop::{
    AuthorizationRequest, Discovery, DpopKey, DpopLayer, ForceRenewal, Grant, OAuthClient,
    TokenParameters, TokenRequest,
};

use crate::{
    Result, browser,
    client::{Body, Http, echoed, http, many, stack},
    lab::Lab,
    servers::node::{CLIENTS, Node, Settings},
};

pub const CHAPTER: &str = "Clients, grants and nonces";
const REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// Nonces of the authorization server, and of the API beside it.
const NONCES: [(&str, &str); 3] = [
    ("off", "off"),
    ("offered", "rotating"),
    ("required", "one-time"),
];

pub async fn run(lab: &Lab) -> Result<()> {
    for (token_nonces, api_nonces) in NONCES {
        let node = Node::start(
            lab,
            Settings {
                token_nonces: Some(token_nonces),
                api_nonces: Some(api_nonces),
                ..Settings::default()
            },
        )
        .await?;
        let server = format!("oidc-provider, nonces {token_nonces}; API's {api_nonces}");
        for (client, method) in CLIENTS {
            let run = format!("client credentials by `{method}`");
            let work = one_client(lab, &node, (token_nonces, api_nonces), client, &run);
            lab.report.row(CHAPTER, &server, &run, work).await;
        }
        for (client, how) in [("public", "a URL"), ("public_par", "PAR")] {
            let run = format!("a user's login by {how}, PKCE, code; rotating refresh tokens");
            let work = one_client(lab, &node, (token_nonces, api_nonces), client, &run);
            lab.report.row(CHAPTER, &server, &run, work).await;
        }
    }
    Ok(())
}

/// One client at work, from its first token to a revoked one.
async fn one_client(
    lab: &Lab,
    node: &Node,
    nonces: (&str, &str),
    client: &str,
    run: &str,
) -> Result<String> {
    node.counts().await?;
    let run = lab.record.run(format!("nonces {nonces:?}: {run}"));
    let http = http(&run);
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let discovery = || Discovery::new(http.clone(), &*node.issuer);
    let registration = node.registration(discovery()?, client)?;
    let grant = if client.starts_with("public") {
        log_in(&dpop, &http, node, client).await?
    } else {
        Grant::client_credentials()
    };
    let request = TokenRequest::new(registration.clone(), grant).scope("read write");
    let (tokens, api) = stack(&http, &dpop, request, &node.api)?;

    // JWTs and opaque tokens in turn; one request in a hundred renews its token before.
    let (total, origin) = (lab.size(1_000, 2_000), node.api.clone());
    let own = api.clone();
    let done = many(total, 8, move |number| {
        let (api, request) = (own.clone(), a_request(&origin, number));
        async move { echoed(api, request?).await }
    });
    done.await.all_ok()?;

    let sent = run.seen();
    let (asked, served) = node.counts().await?;
    let never = [
        (
            "replayed proofs at the authorization server",
            &asked["replayed"],
        ),
        ("invalid_grant", &asked["refused"]["invalid_grant"]),
        ("replayed proofs at the API", &served["replayed"]),
    ];
    for (what, count) in never {
        if count.as_u64().unwrap_or(0) != 0 {
            return Err(format!("{what}: {count}").into());
        }
    }
    // That the servers have the nonces that they are to have.
    let challenged = [
        // By whichever endpoint was asked first.
        asked.to_string().contains("use_dpop_nonce"),
        served["challenged"].as_u64() > Some(0),
    ];
    if challenged != [nonces.0 == "required", nonces.1 != "off"] {
        return Err(format!("challenges: {asked}, {served}").into());
    }
    // What the server itself says of the token, and what comes after its end.
    let token = tokens.access_token().await?;
    let resource = OAuthClient::new(
        &dpop,
        http.clone(),
        node.registration(discovery()?, "resource")?,
    )?;
    let said = resource.introspect(&token).await?;
    if !said.is_active() || said.thumbprint() != Some(dpop.key().thumbprint()) {
        return Err(format!("introspection says {said:?}").into());
    }
    let itself = OAuthClient::new(&dpop, http, registration)?;
    itself.revoke_access_token(&token).await?;
    if resource.introspect(&token).await?.is_active() {
        return Err("the revoked token is still active".into());
    }
    run.seen();
    let after = Request::get(format!("{}/opaque/after", node.api)).body(Body::default())?;
    let after = echoed(api, after).await;
    let asked_again = run.seen().token_sends > 0;
    let after = match (client.starts_with("public"), after) {
        // This server revokes all that came of the login with it, the refresh token, too (RFC 7009, section 2.1).
        (true, Err(error)) if asked_again && error.to_string().starts_with("401") => {
            "a revoked token ended the login, and its request got the API's own 401"
        }
        (false, Ok(())) if asked_again => "a revoked token was replaced within its request",
        (_, after) => return Err(format!("after the revocation: {after:?}").into()),
    };
    Ok(format!(
        "{total} requests of {total} ok in {} sends; {} token requests in {} sends; no proof replayed, no \
         `invalid_grant`; introspected; {after}",
        sent.api_sends, asked["granted"], sent.token_sends,
    ))
}

/// The requests differ in all that a proof tells of.
fn a_request(origin: &str, number: u64) -> Result<Request<Body>> {
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    let paths = [
        "orders",
        "a%2Fb/~user/%C3%A9",
        "t@x:1;v=2/!$&'()*+,=",
        "%7Ea//b/",
    ];
    let format = ["opaque", "jwt"][(number % 2) as usize];
    let path = paths[(number / 2 % 4) as usize];
    let method = methods[(number / 8 % 4) as usize].clone();
    let body = match method {
        Method::POST | Method::PUT => Bytes::from(vec![b'x'; (number % 5_000) as usize]),
        _ => Bytes::new(),
    };
    let resource = TokenParameters::new().resource(format!("{origin}/{format}"));
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{origin}/{format}/{path}?number={number}&q=%20a"))
        .extension(resource);
    if number % 100 == 99 {
        request = request.extension(ForceRenewal::now());
    }
    Ok(request.body(Body::new(body))?)
}

/// A user's login, from the authorization request to the code.
async fn log_in(dpop: &DpopLayer, http: &Http, node: &Node, client_name: &str) -> Result<Grant> {
    let discovery = Discovery::new(http.clone(), &*node.issuer)?;
    let client = OAuthClient::new(
        dpop,
        http.clone(),
        node.registration(discovery, client_name)?,
    )?;
    let request = AuthorizationRequest::new(REDIRECT_URI)
        .scope("openid offline_access read write")
        .resource(format!("{}/opaque", node.api))
        .resource(format!("{}/jwt", node.api));
    let pending = match node.clients[client_name]["require_pushed_authorization_requests"].as_bool()
    {
        // A client's own obligation, which stands in no metadata.
        Some(true) => client.push(request).await?,
        _ => client.authorize(request).await?,
    };
    let redirect = browser::log_in(pending.url(), REDIRECT_URI).await?;
    Ok(pending.answered(&redirect)?)
}
