//! The most used JWT library, with each of its backends, and the rest by hand: a page that knows its one request.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, EncodingKey, Header,
    crypto::{CryptoProvider, KeyUtils, aws_lc, rust_crypto},
    encode,
    jwk::Jwk,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::case::{BoxError, Case, Kind, METHOD, Make, Maker, NONCE, TOKEN, URL};

thread_local! {
    /// Whether it signs with RustCrypto. turbomcp-dpop leaves it at aws-lc-rs, its own choice.
    static RUST_CRYPTO: Cell<bool> = const { Cell::new(false) };
}

/// The library has one backend for a process: this one asks which.
static BACKENDS: CryptoProvider = CryptoProvider {
    signer_factory: |algorithm, key| match RUST_CRYPTO.get() {
        true => (rust_crypto::DEFAULT_PROVIDER.signer_factory)(algorithm, key),
        false => (aws_lc::DEFAULT_PROVIDER.signer_factory)(algorithm, key),
    },
    verifier_factory: |algorithm, key| (aws_lc::DEFAULT_PROVIDER.verifier_factory)(algorithm, key),
    key_utils: KeyUtils::new_unimplemented(),
};

pub(super) fn install() -> Result<(), BoxError> {
    let installed = BACKENDS.install_default();
    installed.map_err(|_| "jsonwebtoken has a backend already".into())
}

pub(super) fn all(case: &Case) -> Result<Vec<Maker>, BoxError> {
    let by_hand = |name, rust_crypto| {
        let make = by_hand(case, rust_crypto)?;
        Ok::<_, BoxError>(Maker {
            name,
            kind: Kind::ByHand,
            make,
        })
    };
    Ok(vec![
        by_hand("jsonwebtoken `aws_lc_rs`, by hand", false)?,
        by_hand("jsonwebtoken `rust_crypto`, by hand", true)?,
    ])
}

#[derive(Serialize)]
struct Claims<'a> {
    jti: &'a str,
    htm: &'a str,
    htu: &'a str,
    iat: u64,
    ath: &'a str,
    nonce: &'a str,
}

fn by_hand(case: &Case, rust_crypto: bool) -> Result<Make, BoxError> {
    let key = EncodingKey::from_ec_der(&case.pkcs8);
    let mut public = case.jwk.clone();
    public.as_object_mut().and_then(|jwk| jwk.remove("d"));
    let header = Header {
        typ: Some("dpop+jwt".to_owned()),
        jwk: Some(serde_json::from_value::<Jwk>(public)?),
        ..Header::new(Algorithm::ES256)
    };
    Ok(Box::new(move || {
        RUST_CRYPTO.set(rust_crypto);
        let mut random = [0; 16];
        getrandom::fill(&mut random)?;
        let claims = Claims {
            jti: &URL_SAFE_NO_PAD.encode(random),
            htm: METHOD,
            htu: URL,
            iat: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            ath: &URL_SAFE_NO_PAD.encode(Sha256::digest(TOKEN)),
            nonce: NONCE,
        };
        let proof = encode(&header, &claims, &key);
        RUST_CRYPTO.set(false);
        Ok(proof?)
    }))
}
