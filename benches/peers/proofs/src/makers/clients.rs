//! Clients for any server.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use http::{Method, Uri};
use huskarl::core::{
    dpop::{AuthorizationServerDPoP as _, DPoP, ResourceServerDPoP as _},
    secrets::SecretString,
};
use huskarl_crypto_native::asymmetric::signer::{AsymmetricAlgorithm, PrivateKey, pkcs8_der};
use openid_client::{
    config::DPoPOptions, defaults::JwsOnlyCrypto, jwk::Jwk, types::http_client::HttpRequest,
};
use skyauth::dpop::{DPoPKey, compute_access_token_hash};
use turbomcp_dpop::{
    DpopAlgorithm, DpopKeyManager, DpopKeyMetadata, DpopKeyPair, DpopPrivateKey,
    DpopProofGenerator, DpopPublicKey,
};
use url::Url;

use super::now;
use crate::case::{BoxError, Case, Kind, METHOD, Make, Maker, NONCE, TOKEN, URL};

pub(super) fn all(case: &Case) -> Result<Vec<Maker>, BoxError> {
    let client = |name, make| Maker {
        name,
        kind: Kind::Client,
        make,
    };
    Ok(vec![
        client("huskarl", huskarl(case)?),
        client("skyauth", skyauth(case)?),
        client("turbomcp-dpop", turbomcp(case)?),
        client("openid-client", openid_client(case)?),
    ])
}

fn huskarl(case: &Case) -> Result<Make, BoxError> {
    let key = pkcs8_der(&case.pkcs8, AsymmetricAlgorithm::Es256, None)?;
    let key = PrivateKey::from_jwk(key)?;
    let dpop = DPoP::builder().signer(key).build();
    let thumbprint = now(dpop.get_current_thumbprint())?.ok_or("no key")?;
    let dpop = dpop.to_resource_server_dpop();
    let (uri, token) = (Uri::from_static(URL), SecretString::new(TOKEN));
    dpop.update_nonce(&uri, NONCE.to_owned());
    Ok(Box::new(move || {
        let proof = now(dpop.proof(&Method::GET, &uri, &token, &thumbprint))??;
        Ok(proof.ok_or("no proof")?.expose_secret().to_owned())
    }))
}

fn skyauth(case: &Case) -> Result<Make, BoxError> {
    let key = DPoPKey::from_pkcs8_der(&case.pkcs8)?;
    Ok(Box::new(move || {
        let ath = compute_access_token_hash(TOKEN);
        Ok(key.create_proof(METHOD, URL, Some(NONCE), Some(&ath))?)
    }))
}

fn turbomcp(case: &Case) -> Result<Make, BoxError> {
    let key = DpopKeyPair {
        id: "key".to_owned(),
        private_key: DpopPrivateKey::EcdsaP256 {
            key_bytes: case.scalar,
        },
        public_key: DpopPublicKey::EcdsaP256 {
            x: case.x,
            y: case.y,
        },
        thumbprint: String::new(),
        algorithm: DpopAlgorithm::ES256,
        created_at: SystemTime::now(),
        expires_at: None,
        metadata: DpopKeyMetadata::default(),
    };
    let proofs = DpopProofGenerator::new(Arc::new(now(DpopKeyManager::new_memory())??));
    Ok(Box::new(move || {
        let proof =
            proofs.generate_proof_with_params(METHOD, URL, Some(TOKEN), Some(NONCE), Some(&key));
        Ok(now(proof)??.to_jwt_string())
    }))
}

fn openid_client(case: &Case) -> Result<Make, BoxError> {
    let mut jwk = case.jwk.clone();
    jwk["alg"] = "ES256".into();
    let url = Url::parse(URL)?;
    let nonces = HashMap::from([(url.origin().ascii_serialization(), NONCE.to_owned())]);
    let key = Jwk::try_from(jwk.to_string().as_str()).map_err(|error| format!("{error:?}"))?;
    let dpop = DPoPOptions::new(key, "ES256".to_owned(), Some(nonces));
    let mut request = HttpRequest::new();
    request.url = url;
    Ok(Box::new(move || {
        dpop.generate_dpop_header(&mut request, Some(TOKEN), None, 0, &JwsOnlyCrypto)
            .map_err(|error| format!("{error:?}"))?;
        let mut proofs = request.headers.remove("DPoP").ok_or("no proof")?;
        Ok(proofs.pop().ok_or("no proof")?)
    }))
}
