//! Clients, and how they show who they are (RFC 6749, section 2.3).

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};

use super::{answer::Refusal, form::Form, issuer::invalid_request, shared::Fault};
use crate::DpopKey;

/// What a client shows who it is by.
pub(super) enum Credential {
    /// A public client has nothing.
    None,
    Secret(String),
    /// It signs assertions with this key, and nothing else will do.
    Key(DpopKey),
}

/// All clients that a server knows.
#[derive(Default)]
pub(super) struct Clients {
    by_id: HashMap<String, Credential>,
    /// By the client's id. Those on loopback need not be here.
    redirect_uris: HashMap<String, Vec<String>>,
}

impl Clients {
    pub(super) fn add(&mut self, id: String, credential: Credential) {
        self.by_id.insert(id, credential);
    }

    pub(super) fn add_redirect_uri(&mut self, id: String, uri: String) {
        self.redirect_uris.entry(id).or_default().push(uri);
    }

    pub(super) fn get(&self, id: &str) -> Option<&Credential> {
        self.by_id.get(id)
    }

    pub(super) fn is_public(&self, id: &str) -> bool {
        matches!(self.get(id), Some(Credential::None))
    }

    /// Compared character by character (RFC 9700, section 2.1).
    pub(super) fn has_redirect_uri(&self, id: &str, uri: &str) -> bool {
        let known = self.redirect_uris.get(id);
        known.is_some_and(|known| known.iter().any(|one| one == uri))
    }

    /// The id of the client, if it shows who it is by exactly one method. What became of an assertion is
    /// known by now: it had to be looked at before the nonce.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        form: &Form,
        assertion: Option<Result<String, &'static str>>,
    ) -> Result<String, Refusal> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let basic = fields.next();
        let methods = usize::from(basic.is_some())
            + usize::from(form.get("client_secret").is_some())
            + usize::from(assertion.is_some());
        if methods > 1 || fields.next().is_some() {
            return Err(invalid_request(
                "the client authenticates by more than one method",
            ));
        }
        if let Some(assertion) = assertion {
            return assertion.map_err(invalid_client);
        }
        let (id, secret) = match basic {
            None => {
                let id = form
                    .get("client_id")
                    .ok_or_else(|| invalid_client("there is no client authentication"))?;
                (id.to_owned(), form.get("client_secret").map(str::to_owned))
            }
            Some(basic) => {
                let (id, secret) = basic.to_str().ok().and_then(read_basic).ok_or_else(|| {
                    invalid_client("the Authorization header is not that of client_secret_basic")
                })?;
                if form.get("client_id").is_some_and(|other| other != id) {
                    return Err(invalid_request(
                        "`client_id` is another than the one that authenticates",
                    ));
                }
                (id, Some(secret))
            }
        };
        match (self.get(&id), secret) {
            (None, _) => Err(invalid_client("the client is unknown")),
            (Some(Credential::Key(_)), _) => Err(invalid_client(
                "the client has a key, and must authenticate with an assertion",
            )),
            (Some(Credential::None), None) => Ok(id),
            (Some(Credential::Secret(known)), Some(secret)) if *known == secret => Ok(id),
            (Some(_), _) => Err(invalid_client("the client's secret is wrong, or missing")),
        }
    }
}

/// Id and secret are form-urlencoded before they are base64-encoded (RFC 6749, section 2.3.1).
fn read_basic(field: &str) -> Option<(String, String)> {
    let (scheme, credentials) = field.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = pair.split_once(':')?;
    Some((decode(id)?, decode(secret)?))
}

/// Undoes the form encoding of one value. `&` would end a value; here it is a character that the client
/// forgot to encode.
fn decode(text: &str) -> Option<String> {
    let pair = format!("value={}", text.replace('&', "%26"));
    let (_, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(value.into_owned())
}

/// A 401 must say how to authenticate (RFC 9110, section 15.5.2), and a Basic challenge has a realm.
pub(super) fn invalid_client(reason: &'static str) -> Refusal {
    Refusal::oauth(
        StatusCode::UNAUTHORIZED,
        Fault {
            code: "invalid_client",
            reason,
        },
    )
    .header(WWW_AUTHENTICATE, r#"Basic realm="token endpoint""#)
}
