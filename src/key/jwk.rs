//! Private keys as JWK (RFC 7517; RFC 7518, sections 6.2 and 6.3; RFC 8037, section 2).

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p256::ecdsa::SigningKey;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    algorithm::Algorithm,
    der,
    private::{Ed25519, Number, Private, Rsa, number},
    refuse,
};
use crate::error::Error;

/// The members of a JWK. Borrowed: a `serde_json::Value` would copy `d`, and drop the copy unwiped.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

/// Reads a private JWK.
pub(super) fn key(json: &[u8]) -> Result<Private, Error> {
    let members = Members(
        serde_json::from_slice(json).map_err(|_| refuse("JSON that is cut off or damaged"))?,
    );
    if !members.has("kty") {
        return Err(refuse(if members.has("keys") {
            "a JWK Set (give the one key out of its \"keys\")"
        } else {
            "JSON without \"kty\", so not a JWK"
        }));
    }
    match members.text("kty") {
        Some("EC") => members.p256().map(Private::P256),
        Some("RSA") => members.rsa().map(Private::rsa),
        Some("OKP") => members.ed25519().map(Private::Ed25519),
        // Names from the file are shown only if they are known ones: others could be anything.
        Some(kty @ ("oct" | "AKP")) => Err(refuse(format!("a JWK of another kind: {kty}"))),
        _ => Err(refuse("a JWK of another kind")),
    }
}

impl Members<'_> {
    fn p256(&self) -> Result<SigningKey, Error> {
        self.curve("P-256")?;
        self.algorithm(&[Algorithm::Es256])?;
        self.private(&["x", "y"])?;
        let signing = der::signing_key(&*self.bytes32("d")?)?;
        let point = signing.verifying_key().to_sec1_point(false);
        let own = [point.x(), point.y()].map(|own| own.map(|bytes| &bytes[..]));
        if own != [Some(&self.bytes32("x")?[..]), Some(&self.bytes32("y")?[..])] {
            return Err(refuse(
                "a JWK whose \"x\" and \"y\" do not belong to its \"d\"",
            ));
        }
        Ok(signing)
    }

    fn rsa(&self) -> Result<Rsa, Error> {
        const NAMES: [&str; 8] = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];

        let algorithm = self.algorithm(&[Algorithm::Ps256, Algorithm::Rs256])?;
        self.private(&NAMES)?;
        if self.has("oth") {
            return Err(refuse("an RSA key with more than two primes"));
        }
        let mut numbers = NAMES.map(|_| Number::default());
        for (number, name) in numbers.iter_mut().zip(NAMES) {
            *number = self.number(name)?;
        }
        Ok(Rsa {
            numbers,
            algorithm,
            pss_only: None,
        })
    }

    fn ed25519(&self) -> Result<Ed25519, Error> {
        self.curve("Ed25519")?;
        let algorithm = self.algorithm(&[Algorithm::Ed25519, Algorithm::EdDsa])?;
        self.private(&["x"])?;
        Ok(Ed25519 {
            seed: self.bytes32("d")?,
            public: Some(self.bytes32("x")?.to_vec()),
            algorithm,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        let value: &RawValue = self.0.get(name)?;
        serde_json::from_str(value.get()).ok()
    }

    fn curve(&self, wanted: &str) -> Result<(), Error> {
        match self.text("crv") {
            Some(crv) if crv == wanted => Ok(()),
            Some(crv @ ("P-384" | "P-521" | "secp256k1" | "Ed448" | "X25519" | "X448")) => {
                Err(refuse(format!("a JWK on another curve: {crv}")))
            }
            _ => Err(refuse("a JWK on another curve, or on none")),
        }
    }

    /// What the key is meant for, if it says so.
    fn algorithm(&self, able: &[Algorithm]) -> Result<Option<Algorithm>, Error> {
        if !self.has("alg") {
            return Ok(None);
        }
        let named = self.text("alg").and_then(Algorithm::named);
        match named.filter(|algorithm| able.contains(algorithm)) {
            Some(algorithm) => Ok(Some(algorithm)),
            None => {
                let able: Vec<&str> = able.iter().map(|algorithm| algorithm.as_str()).collect();
                let able = able.join(" and ");
                Err(refuse(format!("a JWK for another \"alg\" than {able}")))
            }
        }
    }

    /// Whether all is there that a private key has.
    fn private(&self, more: &[&str]) -> Result<(), Error> {
        if !self.has("d") {
            return Err(refuse("a public JWK, without \"d\""));
        }
        match more.iter().find(|name| !self.has(name)) {
            None => Ok(()),
            Some(name) => Err(refuse(format!("a JWK without \"{name}\", which is needed"))),
        }
    }

    /// What each of `d`, `x` and `y` must be (RFC 7518, section 6.2; RFC 8037, section 2).
    fn bytes32(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
        let bytes = || {
            // One byte longer, because the decoder reckons with the longest that 43 characters can be.
            let mut buffer = Zeroizing::new([0; 33]);
            let len = URL_SAFE_NO_PAD
                .decode_slice(self.text(name)?, buffer.as_mut())
                .ok()?;
            let decoded = buffer.get(..len)?;
            let mut bytes = Zeroizing::new([0; 32]);
            (decoded.len() == bytes.len()).then(|| bytes.copy_from_slice(decoded))?;
            Some(bytes)
        };
        bytes().ok_or_else(|| {
            refuse(format!(
                "a JWK whose \"{name}\" is not 32 bytes in base64url"
            ))
        })
    }

    fn number(&self, name: &str) -> Result<Number, Error> {
        let bytes = || {
            let text = self.text(name)?;
            // All the room from the start: growing would leave copies.
            let mut buffer = Zeroizing::new(vec![0; text.len()]);
            let len = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).ok()?;
            Some(number(buffer.get(..len)?))
        };
        bytes().ok_or_else(|| refuse(format!("a JWK whose \"{name}\" is no number in base64url")))
    }
}
