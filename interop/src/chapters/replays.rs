//! That node-oidc-provider and the API beside it would tell if a proof came twice: elsewhere, none does.

use http::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_dpop::{
    Audience, BoxError, Discovery, DpopKey, DpopLayer, Grant, TokenLayer, TokenRequest,
};

use super::requests::CHAPTER;
use crate::{
    Result,
    client::{Body, http, read},
    lab::Lab,
    servers::node::{Node, Settings},
};

pub async fn run(lab: &Lab) -> Result<()> {
    let server = "oidc-provider, nonces off; API's off";
    let run = "a proof that is sent twice on purpose, by the client below the layers";
    lab.report.row(CHAPTER, server, run, replayed(lab)).await;
    Ok(())
}

async fn replayed(lab: &Lab) -> Result<String> {
    let node = Node::start(lab, Settings::default()).await?;
    let run = lab.record.run("a proof sent twice on purpose");
    let once = http(&run);
    let plain = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let twice = service_fn(move |request: Request<Body>| {
        let (plain, again) = (plain.clone(), request.clone());
        async move {
            read(plain.request(request).await?).await?;
            Ok::<_, BoxError>(plain.request(again).await?)
        }
    });
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let discovery = Discovery::new(once.clone(), &*node.issuer)?;
    let registration = node.registration(discovery, "post")?;
    let request = TokenRequest::new(registration, Grant::client_credentials()).scope("read");
    let audience = || Audience::origins([&*node.api]);
    let refused = TokenLayer::new(&dpop, twice.clone(), request.clone(), audience()?)?;
    let refused = refused.access_token().await;
    let code = refused.as_ref().err().and_then(|error| error.oauth_error());
    if code.is_none_or(|error| error.code() != "invalid_grant") {
        return Err(format!("the token request was answered by {refused:?}").into());
    }
    let tokens = TokenLayer::new(&dpop, once, request, audience()?)?;
    let api = ServiceBuilder::new()
        .layer(tokens)
        .layer(dpop)
        .service(twice);
    let request = Request::get(format!("{}/opaque/twice", node.api)).body(Body::default())?;
    let (status, _) = read(api.oneshot(request).await?).await?;
    let (asked, served) = node.counts().await?;
    match (
        asked["replayed"].as_u64(),
        served["replayed"].as_u64(),
        status.as_u16(),
    ) {
        (Some(1), Some(1), 401) => {
            Ok("`invalid_grant`, and 401 of the API; both count it".to_owned())
        }
        _ => Err(format!("{asked}; {served}; {status}").into()),
    }
}
