//! Clients for the AT Protocol. None of the three drops the query from `htu`: the case has none.

use std::sync::{Arc, Mutex};

use atproto_identity::key::{KeyData, KeyType};
use atrium_oauth::DpopClient;
use atrium_xrpc::HttpClient;
use http::{HeaderValue, Request, Response};
use jacquard_oauth::dpop::build_dpop_proof;
use jose_jwk::Key;
use skyauth::dpop::compute_access_token_hash;

use super::now;
use crate::case::{BoxError, Case, Kind, METHOD, Make, Maker, NONCE, TOKEN, URL};

pub(super) fn all(case: &Case) -> Result<Vec<Maker>, BoxError> {
    let client = |name, make| Maker {
        name,
        kind: Kind::Client,
        make,
    };
    let key: Key = serde_json::from_value(case.jwk.clone())?;
    Ok(vec![
        client("jacquard-oauth", jacquard(key.clone())),
        client("atrium-oauth", atrium(key)?),
        client("atproto-oauth", atproto(case)),
    ])
}

fn jacquard(key: Key) -> Make {
    Box::new(move || {
        // Its client does this for each request, in a function of its own.
        let ath = compute_access_token_hash(TOKEN);
        let proof = build_dpop_proof(&key, METHOD, URL, Some(NONCE), Some(&ath))?;
        Ok(proof.into())
    })
}

/// It makes proofs only while it sends.
fn atrium(key: Key) -> Result<Make, BoxError> {
    let nowhere = Arc::new(Nowhere::default());
    let client = DpopClient::new(key, Arc::clone(&nowhere), false, &None)?;
    let authorization = HeaderValue::try_from(format!("DPoP {TOKEN}"))?;
    let send = move || {
        let mut request = Request::new(Vec::new());
        *request.uri_mut() = http::Uri::from_static(URL);
        let headers = request.headers_mut();
        headers.insert("authorization", authorization.clone());
        now(client.send_http(request))??;
        let proof = nowhere.proof.lock().map_err(|_| "poisoned")?.take();
        Ok(proof.ok_or("no proof")?.to_str()?.to_owned())
    };
    send()?; // The first answer brings the nonce.
    Ok(Box::new(send))
}

/// Keeps the proof.
#[derive(Default)]
struct Nowhere {
    proof: Mutex<Option<HeaderValue>>,
}

impl HttpClient for Nowhere {
    async fn send_http(
        &self,
        mut request: Request<Vec<u8>>,
    ) -> Result<Response<Vec<u8>>, BoxError> {
        *self.proof.lock().map_err(|_| "poisoned")? = request.headers_mut().remove("dpop");
        let mut answer = Response::new(Vec::new());
        let nonce = HeaderValue::from_static(NONCE);
        answer.headers_mut().insert("dpop-nonce", nonce);
        Ok(answer)
    }
}

fn atproto(case: &Case) -> Make {
    let key = KeyData::new(KeyType::P256Private, case.scalar.to_vec());
    Box::new(move || Ok(atproto_oauth::dpop::request_dpop(&key, METHOD, URL, TOKEN)?.0))
}
