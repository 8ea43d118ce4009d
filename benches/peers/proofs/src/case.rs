//! What all have to prove: the same request with the same token, nonce and key. And whether they do.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::{
    SecretKey,
    ecdsa::{Signature, VerifyingKey, signature::Verifier as _},
    elliptic_curve::sec1::ToSec1Point as _,
    pkcs8::EncodePrivateKey as _,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) const METHOD: &str = "GET";
pub(crate) const ORIGIN: &str = "https://api.example.com";
/// 64 characters.
pub(crate) const URL: &str = "https://api.example.com/v2/accounts/40918273/orders/2026/open-77";
/// 100 characters.
pub(crate) const TOKEN: &str = "Kz8uTq2mVb0dXr7LsWc5Yn1HpJf4Ga9EiOe6UtRk3BvDxQwZ-Nh_MlCyPjSoAgFi2sd8KqLz0VbTnXr5Wc7Ym1Hp4JfGa9EiOe6U";
/// 34 characters.
pub(crate) const NONCE: &str = "eyJ7S_zG.eyJH0-Z.HX4w-7v.2hT9kQxLa";
/// A date may be this many seconds away from ours.
const AGE: u64 = 10;

/// The key, in the forms that the makers take.
pub(crate) struct Case {
    pub(crate) scalar: [u8; 32],
    pub(crate) x: [u8; 32],
    pub(crate) y: [u8; 32],
    pub(crate) pkcs8: Vec<u8>,
    /// With the private member `d`.
    pub(crate) jwk: Value,
    public: VerifyingKey,
}

/// One that makes proofs.
pub(crate) struct Maker {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) make: Make,
}

/// Makes a proof of the case, each with a `jti` of its own.
pub(crate) type Make = Box<dyn FnMut() -> Result<String, BoxError>>;

/// In which comparison a maker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This crate as it is without features.
    Default,
    /// This crate with aws-lc-rs.
    AwsLc,
    /// This crate in another way: to be looked at, in no row.
    Ours,
    /// Another client.
    Client,
    /// A JWT library, and the claims by hand: no client.
    ByHand,
}

/// A maker whose proofs are right, and what they lack.
pub(crate) struct Checked {
    pub(crate) maker: Maker,
    pub(crate) lacks: Vec<&'static str>,
}

impl Case {
    pub(crate) fn new() -> Result<Self, BoxError> {
        let mut scalar = [0; 32];
        scalar
            .iter_mut()
            .zip(1..)
            .for_each(|(byte, i)| *byte = 7 * i);
        let secret = SecretKey::from_slice(&scalar)?;
        let point = secret.public_key().to_sec1_point(false);
        let (x, y) = match (point.x(), point.y()) {
            (Some(x), Some(y)) => ((*x).into(), (*y).into()),
            _ => return Err("no point".into()),
        };
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Ok(Self {
            scalar,
            x,
            y,
            pkcs8: secret.to_pkcs8_der()?.as_bytes().to_vec(),
            jwk: json!({
                "kty": "EC",
                "crv": "P-256",
                "x": text(&x),
                "y": text(&y),
                "d": text(&scalar),
            }),
            public: VerifyingKey::from(secret.public_key()),
        })
    }

    /// The public key as SEC1 writes it.
    pub(crate) fn point(&self) -> Vec<u8> {
        [&[4][..], &self.x, &self.y].concat()
    }

    /// Makes two proofs and reads them.
    pub(crate) fn check(&self, mut maker: Maker) -> Result<Checked, BoxError> {
        let named = |error: BoxError| format!("{}: {error}", maker.name);
        let first = (maker.make)()
            .and_then(|proof| self.read(&proof))
            .map_err(named)?;
        let second = (maker.make)()
            .and_then(|proof| self.read(&proof))
            .map_err(named)?;
        if first.0 == second.0 {
            return Err(named("two proofs have the same `jti`".into()).into());
        }
        Ok(Checked {
            maker,
            lacks: first.1,
        })
    }

    /// The `jti` of a proof, and what it lacks. It is an error if it says something else than it should, or its
    /// signature is not that of the key.
    fn read(&self, proof: &str) -> Result<(String, Vec<&'static str>), BoxError> {
        let (message, signature) = proof.rsplit_once('.').ok_or("no JWS")?;
        let (header, claims) = message.split_once('.').ok_or("no JWS")?;
        let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature)?)?;
        self.public.verify(message.as_bytes(), &signature)?;

        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        for (name, right) in [("typ", "dpop+jwt"), ("alg", "ES256")] {
            expect(&header, name, right)?;
        }
        for name in ["kty", "crv", "x", "y"] {
            expect(
                &header["jwk"],
                name,
                self.jwk[name].as_str().unwrap_or_default(),
            )?;
        }
        if header["jwk"].get("d").is_some() {
            return Err("the private key stands in the proof".into());
        }

        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
        let ath = URL_SAFE_NO_PAD.encode(Sha256::digest(TOKEN));
        let mut lacks = Vec::new();
        for (name, right) in [
            ("htm", METHOD),
            ("htu", URL),
            ("ath", &ath),
            ("nonce", NONCE),
        ] {
            match claims.get(name) {
                Some(_) => expect(&claims, name, right)?,
                None => lacks.push(name),
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let iat = claims["iat"].as_u64().ok_or("no `iat`")?;
        if iat.abs_diff(now) > AGE {
            return Err("`iat` is not now".into());
        }
        let jti = claims["jti"].as_str().ok_or("no `jti`")?;
        Ok((jti.to_owned(), lacks))
    }
}

fn expect(object: &Value, name: &str, right: &str) -> Result<(), BoxError> {
    match object[name].as_str() == Some(right) {
        true => Ok(()),
        false => Err(format!("`{name}` is {}, not {right}", object[name]).into()),
    }
}
