//! Encrypted PKCS#8 (RFC 5958, section 3): PBES2 (RFC 8018), and what to do about everything older.

use pkcs8::{
    der::{Tag, asn1::AnyRef},
    pkcs5::{
        self,
        pbes2::{Kdf, Parameters, Pbkdf2Prf},
    },
};
use zeroize::Zeroizing;

use super::{der, oid, refuse};
use crate::error::{Error, Kind};

/// Rounds of PBKDF2: RFC 8018 calls 10 million appropriate for critical keys. They take seconds; more is an
/// attack or a mistake.
const MAX_ROUNDS: u32 = 10_000_000;

/// Bytes that scrypt may fill, all its blocks together: openssl takes 16 MiB, OWASP advises 128 MiB.
const MAX_SCRYPT: u128 = 256 * 1024 * 1024;

/// Decrypts what an `EncryptedPrivateKeyInfo` holds.
pub(super) fn decrypt(
    algorithm: &[u8],
    data: &[u8],
    password: Option<&str>,
    inform: &str,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Before the password is asked for: no password helps against an algorithm that we do not have.
    let parameters = parameters(algorithm, inform)?;
    check_cost(&parameters.kdf)?;
    let password = password.ok_or_else(|| {
        Error::new(
            Kind::PasswordMissing,
            "the key is encrypted, and no password was given",
        )
    })?;
    // In place, in a buffer of ours: the other way leaves an unwiped one behind where it fails.
    let mut buffer = Zeroizing::new(data.to_vec());
    let len = match parameters.decrypt_in_place(password, &mut buffer) {
        Ok(plain) => plain.len(),
        Err(pkcs5::Error::DecryptFailed) => return Err(wrong()),
        Err(_) => return Err(refuse("an encrypted key with parameters that cannot be")),
    };
    buffer.truncate(len);
    Ok(buffer)
}

/// A wrong password and a damaged file look the same.
pub(super) fn wrong() -> Error {
    Error::new(
        Kind::PasswordWrong,
        "the password does not open the key, or the file is damaged",
    )
}

/// The error for an encryption that openssl can convert to one that we have.
pub(super) fn convert(what: &str, inform: &str, provider: &str) -> Error {
    refuse(format!(
        "a key with an encryption that is not supported: {what} (convert it with: openssl pkcs8 -topk8{inform} \
         -in KEY -out NEW{provider})"
    ))
}

fn parameters(algorithm: &[u8], inform: &str) -> Result<Parameters, Error> {
    const LEGACY: &str = " -provider default -provider legacy";

    let damaged = || refuse("an encrypted key with damaged parameters");
    let oid = der::algorithm_oid(algorithm).ok_or_else(damaged)?;
    if oid != oid::PBES2 {
        return Err(convert(&format!("PBES1, {oid}"), inform, LEGACY));
    }
    let outer = der::elements(algorithm).ok_or_else(damaged)?;
    let Some((Tag::Sequence, content)) = outer.get(1) else {
        return Err(damaged());
    };
    let inner = der::elements(content).ok_or_else(damaged)?;
    let [(Tag::Sequence, _), (Tag::Sequence, cipher)] = inner.as_slice() else {
        return Err(damaged());
    };
    let cipher = der::algorithm_oid(cipher).ok_or_else(damaged)?;
    if let Some(name) = oid::old_cipher(cipher) {
        return Err(convert(name, inform, LEGACY));
    }
    let parameters = AnyRef::new(Tag::Sequence, content)
        .and_then(Parameters::try_from)
        .map_err(|_| convert("an unknown cipher or key derivation", inform, ""))?;
    match &parameters.kdf {
        Kdf::Pbkdf2(pbkdf2) if pbkdf2.prf == Pbkdf2Prf::HmacWithSha1 => {
            Err(convert("PBKDF2 with HMAC-SHA1", inform, ""))
        }
        _ => Ok(parameters),
    }
}

/// A hostile file could ask for hours or for all of the memory.
fn check_cost(kdf: &Kdf) -> Result<(), Error> {
    let allowed = match kdf {
        Kdf::Pbkdf2(pbkdf2) => (1..=MAX_ROUNDS).contains(&pbkdf2.iteration_count),
        Kdf::Scrypt(scrypt) => {
            // Also keeps a cost of 0 from pkcs5, that would take the logarithm of it and panic.
            scrypt.cost_parameter.is_power_of_two()
                && 128
                    * u128::from(scrypt.cost_parameter)
                    * u128::from(scrypt.block_size)
                    * u128::from(scrypt.parallelization)
                    <= MAX_SCRYPT
        }
        _ => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(refuse(
            "an encrypted key whose password takes an absurd effort to check (more than 10 million rounds of \
             PBKDF2, or 256 MiB of scrypt)",
        ))
    }
}
