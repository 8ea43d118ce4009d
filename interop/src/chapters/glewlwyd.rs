//! Every client of glewlwyd, at its issuers with and without nonces.

use http::Request;
use tower_dpop::{DpopKey, DpopLayer, ForceRenewal, Grant, OAuthClient, TokenRequest};

use crate::{
    Result,
    client::{Body, answered, http, many, stack},
    lab::Lab,
    servers::glewlwyd::{CLIENTS, Glewlwyd, NAME, PUBLIC},
};

use super::requests::CHAPTER;

pub async fn run(lab: &Lab) -> Result<()> {
    let server = Glewlwyd::start(lab, None).await?;
    for (issuer, nonces) in [
        ("plain", "no nonces"),
        ("nonce", "nonces good 26 times"),
        ("twice", "nonces good twice"),
    ] {
        let label = format!("{NAME}, {nonces}");
        for (client, method) in CLIENTS {
            let run = format!("client credentials by `{method}`");
            let work = tokens(lab, &server, issuer, client);
            lab.report.row(CHAPTER, &label, &run, work).await;
        }
        let how = if issuer == "plain" { "PAR" } else { "a URL" };
        for (client, method) in CLIENTS.into_iter().chain([(PUBLIC, "none")]) {
            let run = format!(
                "a user's login by {how}, PKCE, code, client by `{method}`; rotating refresh tokens; userinfo"
            );
            let work = userinfo(lab, &server, issuer, client);
            lab.report.row(CHAPTER, &label, &run, work).await;
        }
    }
    Ok(())
}

/// Many tokens, one after another: a token by client credentials is good for no resource of this server's own.
async fn tokens(lab: &Lab, server: &Glewlwyd, issuer: &str, client: &str) -> Result<String> {
    let run = lab.record.run(format!("{NAME}, {issuer}, {client}"));
    let http = http(&run);
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let registration = server.registration(http.clone(), issuer, client)?;
    let request = TokenRequest::new(registration, Grant::client_credentials()).scope("api");
    let (tokens, _) = stack(&http, &dpop, request, server.base()?)?;
    let total = lab.size(1_000, 2_000);
    for _ in 0..total {
        tokens.forget_tokens();
        tokens.access_token().await?;
    }
    Ok(format!(
        "{total} tokens of {total} in {} sends",
        run.seen().token_sends
    ))
}

async fn userinfo(lab: &Lab, server: &Glewlwyd, issuer: &str, client: &str) -> Result<String> {
    let run = lab
        .record
        .run(format!("{NAME}, {issuer}, {client}, userinfo"));
    let http = http(&run);
    let dpop = DpopLayer::new(DpopKey::generate()?);
    let registration = server.registration(http.clone(), issuer, client)?;
    let grant = server.log_in(&dpop, &http, issuer, client).await?;
    let request = TokenRequest::new(registration, grant);
    let (tokens, api) = stack(&http, &dpop, request, server.base()?)?;

    // One request in a hundred renews its token before. A nonce that is good twice is one for all requests of a client:
    // of many at the same time most fail, whoever sends them.
    let (total, in_flight) = match issuer {
        "twice" => (lab.size(200, 1_000), 1),
        _ => (lab.size(1_000, 2_000), 8),
    };
    let url = server.userinfo(issuer)?.to_owned();
    let done = many(total, in_flight, move |number| {
        let mut request = Request::get(&url);
        if number % 100 == 99 {
            request = request.extension(ForceRenewal::now());
        }
        let (api, request) = (api.clone(), request.body(Body::default()));
        async move { has_subject(&answered(api, request?).await?) }
    });
    done.await.all_ok()?;
    let sent = run.seen();
    if (issuer == "plain") != (sent.api_sends == total) {
        return Err(format!("sent {sent:?}").into());
    }

    let token = tokens.access_token().await?;
    let resource = server.registration(http.clone(), issuer, "secret_post")?;
    let resource = OAuthClient::new(&dpop, http, resource)?;
    let said = resource.introspect(&token).await?;
    if !said.is_active() || said.thumbprint() != Some(dpop.key().thumbprint()) {
        return Err(format!("introspection says {said:?}").into());
    }
    Ok(format!(
        "{total} requests of {total} ok in {} sends, {in_flight} in flight; {} token sends, logins' and refreshes'; \
         introspected",
        sent.api_sends, sent.token_sends,
    ))
}

pub fn has_subject(answer: &serde_json::Value) -> Result<()> {
    match answer["sub"].as_str() {
        Some(_) => Ok(()),
        None => Err(format!("userinfo says {answer}").into()),
    }
}
