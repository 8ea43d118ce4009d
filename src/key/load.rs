//! One door for every format: tells by the content what a file holds, and hands it to the file that reads it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::{der, jwk, pem, private::Private, refuse};
use crate::error::{Error, Kind};

/// Bytes of a file that may be read. A key with a chain of certificates has some 10 KiB; more is a wrong path,
/// and a wrong path may be a disk image or `/dev/zero`.
const MAX_LEN: usize = 64 * 1024;

/// `make` takes what was read, or refuses it.
pub(super) fn from_file<T>(
    path: &Path,
    password: Option<&str>,
    make: impl FnOnce(Private) -> Result<T, Error>,
) -> Result<T, Error> {
    let bytes = read(path)?;
    from_bytes(&bytes, password)
        .and_then(make)
        .map_err(|error| {
            if !error.is_key() {
                return error; // of the first signature: the file has no part in it
            }
            let kind = if error.is_password_missing() {
                Kind::PasswordMissing
            } else if error.is_password_wrong() {
                Kind::PasswordWrong
            } else {
                Kind::Key
            };
            Error::new(kind, format!("key file {}: {error}", path.display()))
        })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let unreadable = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::NotFound => "no such file",
            io::ErrorKind::PermissionDenied => "no permission to read it",
            _ => "it cannot be read",
        };
        let message = format!("key file {}: {why}", path.display());
        Error::with_source(Kind::Key, message, error)
    };
    // Asked first, because opening a directory fails with another error on every system.
    if path.is_dir() {
        let found = format!("key file {}: it is a directory", path.display());
        return Err(refuse(found));
    }
    let file = File::open(path).map_err(unreadable)?;
    // Room for more than will come: a vector that grows leaves its old content behind, unwiped. And the file's
    // length is not asked, because pipes have none.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MAX_LEN));
    file.take(MAX_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

pub(super) fn from_bytes(bytes: &[u8], password: Option<&str>) -> Result<Private, Error> {
    if bytes.len() > MAX_LEN {
        return Err(refuse("more than 64 KiB, which no key has"));
    }
    if let Some(text) = utf16(bytes) {
        return from_text(text.as_bytes(), password);
    }
    // 0x30 opens every structure in DER, but is the digit 0 too. Each of ours has an INTEGER (0x02) or an
    // OBJECT IDENTIFIER (0x06), and no text has these bytes.
    if bytes.first() == Some(&0x30) && bytes.iter().any(|byte| *byte < 0x09) {
        return der::key(bytes, password, " -inform DER");
    }
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    from_text(text, password)
}

/// UTF-16 with a byte order mark, which Windows PowerShell writes by default.
fn utf16(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let (unit, bytes): (fn([u8; 2]) -> u16, _) = match bytes {
        [0xff, 0xfe, bytes @ ..] => (u16::from_le_bytes, bytes),
        [0xfe, 0xff, bytes @ ..] => (u16::from_be_bytes, bytes),
        _ => return None,
    };
    let units = bytes.as_chunks().0.iter().map(|pair| unit(*pair));
    // Two bytes become three at the most, so it does not grow.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() / 2 * 3));
    text.extend(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
    Some(text)
}

fn from_text(text: &[u8], password: Option<&str>) -> Result<Private, Error> {
    let text = text.trim_ascii();
    if text.is_empty() {
        Err(refuse("nothing in it"))
    } else if text.starts_with(b"{") {
        jwk::key(text)
    } else if pem::is_pem(text) {
        from_pem(text, password)
    } else {
        Err(refuse("not a key in any known format"))
    }
}

fn from_pem(text: &[u8], password: Option<&str>) -> Result<Private, Error> {
    let blocks = pem::blocks(text)?;
    let mut keys = blocks
        .iter()
        .filter(|block| block.label.ends_with("PRIVATE KEY"));
    let Some(key) = keys.next() else {
        return Err(refuse(without_key(&blocks)));
    };
    match keys.count() {
        0 => {}
        more => {
            let found = format!("{} private keys, and no telling which is meant", more + 1);
            return Err(refuse(found));
        }
    }
    match key.label {
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => {
            der::key(&key.decode()?, password, "")
        }
        "DSA PRIVATE KEY" => Err(refuse("a DSA key")),
        "OPENSSH PRIVATE KEY" => Err(refuse(
            "a key in OpenSSH's own format (if it is an ecdsa-sha2-nistp256 key, convert a copy of it in place \
             with: ssh-keygen -p -m PKCS8 -f COPY)",
        )),
        label => Err(refuse(format!("a PEM block \"{label}\""))),
    }
}

/// What a PEM file without private key holds.
fn without_key(blocks: &[pem::Block<'_>]) -> String {
    // Parameters stand before something else, which is more telling.
    let label = blocks
        .iter()
        .map(|block| block.label)
        .find(|label| *label != "EC PARAMETERS");
    match label {
        None => "EC parameters without a key".into(),
        Some("CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE") => {
            "a certificate without its private key".into()
        }
        Some("CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => {
            "a certificate request without its private key".into()
        }
        Some(label) if label.ends_with("PUBLIC KEY") => "only a public key".into(),
        Some(label) => format!("a PEM block \"{label}\""),
    }
}
