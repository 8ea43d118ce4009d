//! DER: finds out by its shape what a structure is, and reads PKCS#8 (RFC 5958), SEC1 (RFC 5915) and PKCS#1 (RFC 8017).
//!
//! The parsers of `p256` say yes or no. A person who gave the wrong file needs to hear which one it was.

use p256::ecdsa::SigningKey;
use pkcs8::{
    ObjectIdentifier,
    der::{Reader as _, SliceReader, Tag, TagNumber, Tagged as _, asn1::AnyRef},
};
use zeroize::Zeroizing;

use super::{
    encrypted, oid,
    private::{Ed25519, Private, Rsa},
    pss, refuse,
};
use crate::error::Error;

/// One element: its tag, and the bytes of its value.
pub(super) type Element<'a> = (Tag, &'a [u8]);

/// `inform` is the option that openssl needs to read the file, for the commands in errors.
pub(super) fn key(der: &[u8], password: Option<&str>, inform: &str) -> Result<Private, Error> {
    let elements = top(der)?;
    let [(Tag::Sequence, algorithm), (Tag::OctetString, data)] = elements.as_slice() else {
        return plain(der, &elements, inform);
    };
    let decrypted = encrypted::decrypt(algorithm, data, password, inform)?;
    // One wrong password in 256 leaves a padding that is right by chance, and garbage before it.
    match top(&decrypted) {
        Ok(elements) if is_pkcs8(&elements) => plain(&decrypted, &elements, inform),
        _ => Err(encrypted::wrong()),
    }
}

fn is_pkcs8(elements: &[Element<'_>]) -> bool {
    matches!(
        elements,
        [(Tag::Integer, _), (Tag::Sequence, algorithm), (Tag::OctetString, _), ..]
            if algorithm_oid(algorithm).is_some()
    )
}

/// A key that is not encrypted, or no longer.
fn plain(der: &[u8], elements: &[Element<'_>], inform: &str) -> Result<Private, Error> {
    match elements {
        [_, (_, algorithm), (_, key), rest @ ..] if is_pkcs8(elements) => {
            pkcs8(der, algorithm, key, rest, inform)
        }
        [(Tag::Integer, [1]), (Tag::OctetString, scalar), rest @ ..] => {
            sec1(None, scalar, rest, inform).map(Private::P256)
        }
        [(Tag::Integer, [0 | 1]), rest @ ..] if rest.len() >= 8 => rsa(elements).map(Private::rsa),
        other => Err(refuse(no_key(other))),
    }
}

/// The elements of the one SEQUENCE that a file is.
fn top(der: &[u8]) -> Result<Vec<Element<'_>>, Error> {
    // Indefinite length is BER, which some programs write PKCS#12 in.
    if der.starts_with(&[0x30, 0x80]) {
        return Err(refuse(format!("BER, not DER; if it is {PKCS12}")));
    }
    match elements(der).as_deref() {
        Some([(Tag::Sequence, content)]) => elements(content),
        _ => None,
    }
    .ok_or_else(|| refuse("DER that is cut off, damaged or has something after its end"))
}

/// The elements that stand one after the other in `content`.
pub(super) fn elements(content: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut reader = SliceReader::new(content).ok()?;
    let mut elements = Vec::new();
    while !reader.is_finished() {
        let element: AnyRef<'_> = reader.decode().ok()?;
        elements.push((element.tag(), element.value()));
    }
    Some(elements)
}

/// The object identifier of an `AlgorithmIdentifier`.
pub(super) fn algorithm_oid(algorithm: &[u8]) -> Option<ObjectIdentifier> {
    match elements(algorithm)?.first()? {
        (Tag::ObjectIdentifier, oid) => ObjectIdentifier::from_bytes(oid).ok(),
        _ => None,
    }
}

fn pkcs8(
    der: &[u8],
    algorithm: &[u8],
    key: &[u8],
    rest: &[Element<'_>],
    inform: &str,
) -> Result<Private, Error> {
    let damaged = || refuse("PKCS#8 that is damaged");
    let parameters = elements(algorithm).and_then(|elements| elements.get(1).copied());
    let inner = || top(key).map_err(|_| damaged());
    match algorithm_oid(algorithm).ok_or_else(damaged)? {
        oid::EC => ec(parameters, &inner()?, rest, inform).map(Private::P256),
        oid::RSA => rsa(&inner()?).map(Private::rsa),
        oid::RSA_PSS => {
            pss::check(parameters)?;
            let mut rsa = rsa(&inner()?)?;
            rsa.pss_only = Some(Zeroizing::new(der.to_vec()));
            Ok(Private::rsa(rsa))
        }
        oid::ED25519 => match elements(key).as_deref() {
            Some([(Tag::OctetString, seed)]) => {
                let seed = Zeroizing::new((*seed).try_into().map_err(|_| damaged())?);
                let public = tagged(rest, 1).map(|bits| bits.get(1..).unwrap_or_default().to_vec());
                Ok(Private::Ed25519(Ed25519 {
                    seed,
                    public,
                    algorithm: None,
                }))
            }
            _ => Err(damaged()),
        },
        other => {
            let name = oid::algorithm(other);
            Err(refuse(format!("a PKCS#8 key of another kind: {name}")))
        }
    }
}

fn rsa(elements: &[Element<'_>]) -> Result<Rsa, Error> {
    match elements {
        [(Tag::Integer, [0]), integers @ ..] => Rsa::from_pkcs1(integers),
        [(Tag::Integer, [1]), ..] => Err(refuse("an RSA key with more than two primes")),
        _ => Err(refuse("an RSA key that is damaged")),
    }
}

fn ec(
    parameters: Option<Element<'_>>,
    key: &[Element<'_>],
    rest: &[Element<'_>],
    inform: &str,
) -> Result<SigningKey, Error> {
    let signing = match key {
        [(Tag::Integer, [1]), (Tag::OctetString, scalar), rest @ ..] => {
            sec1(parameters, scalar, rest, inform)
        }
        _ => Err(refuse("PKCS#8 that is damaged")),
    }?;
    // RFC 5958 has a place of its own for the public key, besides the one in SEC1.
    if let Some(bits) = tagged(rest, 1) {
        belongs(&signing, bits)?;
    }
    Ok(signing)
}

/// `outer` are the curve's parameters in PKCS#8, which then lacks those in SEC1.
fn sec1(
    outer: Option<Element<'_>>,
    scalar: &[u8],
    rest: &[Element<'_>],
    inform: &str,
) -> Result<SigningKey, Error> {
    let inside = |number| {
        tagged(rest, number)
            .map(|value| match elements(value).as_deref() {
                Some([element]) => Ok(*element),
                _ => Err(refuse("SEC1 that is damaged")),
            })
            .transpose()
    };
    let parameters = [outer, inside(0)?];
    for parameters in parameters.into_iter().flatten() {
        on_p256(parameters, inform)?;
    }
    let named = parameters.iter().any(Option::is_some);
    // The length is the curve's (RFC 5915, section 3), but there are writers that leave zeros out.
    if scalar.len() > 32 || (scalar.len() < 32 && !named) {
        return Err(refuse("an EC key of another length than P-256's 32 bytes"));
    }
    let mut padded = Zeroizing::new([0; 32]);
    padded[32 - scalar.len()..].copy_from_slice(scalar);
    let signing = signing_key(&padded)?;
    match inside(1)? {
        Some((Tag::BitString, bits)) => belongs(&signing, bits)?,
        Some(_) => return Err(refuse("SEC1 that is damaged")),
        None => {}
    }
    Ok(signing)
}

/// The value of the element with the context-specific tag `number`.
pub(super) fn tagged<'a>(elements: &[Element<'a>], number: u32) -> Option<&'a [u8]> {
    elements
        .iter()
        .find(|(tag, _)| tag.is_context_specific() && tag.number() == TagNumber(number))
        .map(|(_, value)| *value)
}

fn on_p256((tag, value): Element<'_>, inform: &str) -> Result<(), Error> {
    match (tag, ObjectIdentifier::from_bytes(value)) {
        (Tag::ObjectIdentifier, Ok(oid::P256)) => Ok(()),
        (Tag::ObjectIdentifier, Ok(oid)) => {
            let curve = oid::curve(oid);
            Err(refuse(format!("an EC key on another curve: {curve}")))
        }
        (Tag::Sequence, _) => Err(refuse(format!(
            "an EC key with its curve written out instead of named (name it with: openssl ec{inform} \
             -in KEY -param_enc named_curve -out NEW)"
        ))),
        _ => Err(refuse("an EC key whose curve is not named")),
    }
}

/// A file whose public part is another key's was mixed up by somebody: which half is right is not ours to guess.
fn belongs(signing: &SigningKey, bits: &[u8]) -> Result<(), Error> {
    let [long, short] = [false, true].map(|short| signing.verifying_key().to_sec1_point(short));
    let own = match bits {
        // Uncompressed, or hybrid (ANSI X9.62), which openssl writes if told to.
        [0, 4 | 6 | 7, coordinates @ ..] => long.as_bytes().get(1..) == Some(coordinates),
        [0, point @ ..] => point == short.as_bytes(),
        _ => false,
    };
    if own {
        Ok(())
    } else {
        Err(refuse(
            "a private key beside a public key that is not its own",
        ))
    }
}

/// The key with the value `scalar`.
pub(super) fn signing_key(scalar: &[u8; 32]) -> Result<SigningKey, Error> {
    SigningKey::from_slice(scalar).map_err(|_| {
        if scalar.iter().all(|byte| *byte == 0) {
            refuse("an EC key with the value 0, which is none")
        } else {
            refuse("an EC key whose value is beyond the order of P-256")
        }
    })
}

const PKCS12: &str = "PKCS#12 (PFX), take the key out with: openssl pkcs12 -in KEY -nocerts -aes256 -out NEW \
     (and -legacy, if an old program wrote it)";

/// What a structure without a usable private key is.
fn no_key(elements: &[Element<'_>]) -> String {
    const CERTIFICATE: &str = "a certificate without its private key";
    match elements {
        [(Tag::Integer, [3]), (Tag::Sequence, _), ..] => PKCS12.into(),
        [(Tag::Sequence, algorithm), (Tag::BitString, _)] => match algorithm_oid(algorithm) {
            Some(oid) if oid != oid::EC => {
                format!("only a public key, of kind {}", oid::algorithm(oid))
            }
            _ => "only a public key".into(),
        },
        [
            (Tag::Sequence, signed),
            (Tag::Sequence, _),
            (Tag::BitString, _),
        ] => {
            // Version 1 is 0 in a request, and left out in a certificate, that begins with its serial number.
            match self::elements(signed).as_deref() {
                Some([(Tag::Integer, [0]), ..]) => {
                    "a certificate request without its private key".into()
                }
                _ => CERTIFICATE.into(),
            }
        }
        [(Tag::ObjectIdentifier, _), ..] => CERTIFICATE.into(), // PKCS#7
        _ if elements.iter().all(|(tag, _)| *tag == Tag::Integer) => match elements.len() {
            2 => "only a public key, of kind RSA".into(),
            6 => "a DSA key".into(),
            _ => "DER, but not a key".into(),
        },
        _ => "DER, but not a key in any known format".into(),
    }
}
