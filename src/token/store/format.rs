//! A stored grant as JSON. Pure.
//!
//! ```json
//! {"tower_dpop_grant":1,"authorization_server":"https://as.example.com","client_id":"app","scope":"orders",
//!  "jkt":"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs","key":"-----BEGIN PRIVATE KEY-----\n…","refresh_token":"…"}
//! ```
//!
//! (in one line). `scope` and `key` may be missing; `"answer":"lost"` says that the refresh token was sent, and what
//! became of it is not known. `"signer":"aws-lc-rs"` says that the key came by `AwsLcRs`, and `alg` what it signs with, if
//! that is not ES256. Members that are not known are passed over.

use zeroize::Zeroizing;

use super::StoredGrant;
use crate::{
    error::{Error, Kind},
    json::{Members, TEXT_FACTOR, push_text, text},
    key::{Algorithm, DpopKey},
};

/// Bytes of a stored grant. A large one has a few KiB; more is a wrong path or somebody else's row.
pub(super) const MAX_LEN: usize = 256 * 1024;

/// The member that says whose it is, and its value: what a reader must understand.
const MARKER: &str = "tower_dpop_grant";
const VERSION: u64 = 1;

/// The member that says what became of the refresh token, and its only value.
const ANSWER: &str = "answer";
const LOST: &str = "lost";

/// The members that say what signs with the key, and by what algorithm.
const SIGNER: &str = "signer";
const ALGORITHM: &str = "alg";

/// How each one begins, so that it is recognised whatever became of its end.
pub(super) const HEAD: &[u8] = br#"{"tower_dpop_grant":1,"#;

/// The length of a SHA-256 in base64url.
const THUMBPRINT_LEN: usize = 43;

/// Whether this was a stored grant of a version that is known here, whole or not.
pub(super) fn is_ours(json: &[u8]) -> bool {
    json.starts_with(HEAD)
}

pub(super) fn write(grant: &StoredGrant) -> Result<Zeroizing<String>, Error> {
    if grant.refresh_token.is_empty() {
        return Err(store(
            "the refresh token is empty: there is nothing to store",
        ));
    }
    // A key that cannot leave its place is found again by its thumbprint.
    let pem = grant.key.as_ref().and_then(|key| key.to_pkcs8_pem().ok());
    let key = grant.key.as_ref().filter(|_| pem.is_some());
    let algorithm = key
        .map(DpopKey::algorithm)
        .filter(|algorithm| *algorithm != Algorithm::Es256);
    let members = [
        ("authorization_server", Some(&*grant.authorization_server)),
        ("client_id", Some(&grant.client_id)),
        ("scope", grant.scope.as_deref()),
        ("jkt", Some(&grant.thumbprint)),
        ("key", pem.as_ref().map(|pem| pem.as_str())),
        (SIGNER, key.and_then(DpopKey::signer_name)),
        (ALGORITHM, algorithm.map(Algorithm::as_str)),
        ("refresh_token", Some(&grant.refresh_token)),
        (ANSWER, grant.uncertain.then_some(LOST)),
    ];
    // All the room from the start: a text that grows leaves copies behind.
    let room = members.iter().map(|(name, value)| {
        name.len() + value.unwrap_or_default().len() * TEXT_FACTOR + r#","":"""#.len()
    });
    let room = HEAD.len() + room.sum::<usize>() + "}".len();
    let mut json = Zeroizing::new(String::with_capacity(room));
    json.push_str(&String::from_utf8_lossy(HEAD));
    for (name, value) in members {
        let Some(value) = value else { continue };
        if json.len() > HEAD.len() {
            json.push(',');
        }
        push_text(&mut json, name);
        json.push(':');
        push_text(&mut json, value);
    }
    json.push('}');
    debug_assert!(json.len() <= room, "it has grown");
    match json.len() {
        0..=MAX_LEN => Ok(json),
        _ => Err(too_long()),
    }
}

pub(super) fn read(json: &[u8]) -> Result<StoredGrant, Error> {
    if json.len() > MAX_LEN {
        return Err(too_long());
    }
    let members: Members<'_> = match serde_json::from_slice(json) {
        Ok(members) => members,
        // Its own text may show what stands there.
        Err(error) => return Err(unreadable(json, error.is_eof())),
    };
    let Some(version) = members.get(MARKER) else {
        return Err(foreign("JSON, but no stored grant"));
    };
    match version.get().parse() {
        Ok(VERSION) => {}
        Ok(newer @ VERSION..) => {
            return Err(store(format!(
                "a stored grant of format {newer}, and this version of tower-dpop knows no later one than format \
                 {VERSION}: use the newer program, which wrote it"
            )));
        }
        _ => return Err(damaged("of no known format")),
    }

    let thumbprint = needed(&members, "jkt")?;
    if !is_thumbprint(&thumbprint) {
        return Err(damaged("its `jkt` is no thumbprint"));
    }
    let key = match optional(&members, "key")? {
        None => None,
        Some(pem) => Some(key(&members, &pem)?),
    };
    if let Some(key) = key.as_ref().filter(|key| key.thumbprint() != *thumbprint) {
        return Err(Error::new(
            Kind::OtherKey,
            format!(
                "a stored grant for the key with the thumbprint {}, but beside it stands the key {}: somebody \
                 changed it, and the refresh token is of no use with this key; {ADVICE}",
                *thumbprint,
                key.thumbprint()
            ),
        ));
    }
    let refresh_token = needed(&members, "refresh_token")?;
    if refresh_token.is_empty() {
        return Err(damaged("its `refresh_token` is empty"));
    }
    Ok(StoredGrant {
        key,
        thumbprint: thumbprint.to_string(),
        refresh_token,
        authorization_server: needed(&members, "authorization_server")?.to_string(),
        client_id: needed(&members, "client_id")?.to_string(),
        scope: optional(&members, "scope")?.map(|scope| scope.to_string()),
        uncertain: optional(&members, ANSWER)?.is_some_and(|answer| *answer == LOST),
    })
}

fn key(members: &Members<'_>, pem: &str) -> Result<DpopKey, Error> {
    let signer = optional(members, SIGNER)?;
    let algorithm = optional(members, ALGORITHM)?;
    let [signer, algorithm] =
        [&signer, &algorithm].map(|text| text.as_ref().map(|text| text.as_str()));
    // It may be in order, and no reason to give it up.
    let of_another = |error| {
        store(format!(
            "a stored grant of a key with another signer, which cannot be used by this program: {error}"
        ))
    };
    let key = DpopKey::restore(pem, signer).map_err(|error| match signer {
        Some(name) if !DpopKey::has_signer(name) => of_another(error),
        _ => damaged(&format!("its `key` cannot be used: {error}")),
    })?;
    let Some(name) = algorithm else {
        return Ok(key);
    };
    Algorithm::named(name)
        .ok_or_else(|| Error::key("it is for an algorithm that is not known"))
        .and_then(|algorithm| key.with_algorithm(algorithm))
        .map_err(of_another)
}

fn needed(members: &Members<'_>, name: &str) -> Result<Zeroizing<String>, Error> {
    optional(members, name)?.ok_or_else(|| damaged(&format!("it has no `{name}`")))
}

fn optional(members: &Members<'_>, name: &str) -> Result<Option<Zeroizing<String>>, Error> {
    match members.get(name).map(|raw| raw.get()) {
        None | Some("null") => Ok(None),
        Some(_) => text(members, name)
            .map(Some)
            .ok_or_else(|| damaged(&format!("its `{name}` is no text"))),
    }
}

fn is_thumbprint(text: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    text.len() == THUMBPRINT_LEN && text.bytes().all(base64url)
}

/// What to do about a grant that is lost.
const ADVICE: &str = "restore a copy of it, or clear the store and let the user grant anew";

/// What is no JSON object.
fn unreadable(json: &[u8], ends_early: bool) -> Error {
    match json.trim_ascii() {
        [] => store(
            "empty, where a stored grant should be: clear the store, and let the user grant anew",
        ),
        _ if is_ours(json) && ends_early => {
            damaged(&format!("it is cut off after {} bytes", json.len()))
        }
        _ if is_ours(json) => damaged("it is no JSON any more"),
        [b'-', b'-', b'-', b'-', b'-', ..] => foreign("a PEM file, perhaps a key"),
        _ => foreign("something else than a stored grant, or what is left of one"),
    }
}

fn foreign(what: &str) -> Error {
    store(format!(
        "{what}: it is left as it is; give the store a place of its own"
    ))
}

fn damaged(how: &str) -> Error {
    store(format!("a stored grant that is damaged ({how}): {ADVICE}"))
}

fn too_long() -> Error {
    store(format!(
        "longer than {} KiB, which no stored grant is: is this the right place?",
        MAX_LEN / 1024
    ))
}

fn store(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::Store, message)
}
