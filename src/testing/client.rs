//! Client authentication (RFC 6749, section 2.3).

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};

use super::{answer::Refusal, shared::Fault};

/// Secrets by client id; a public client has none.
pub(super) type Clients = HashMap<String, Option<String>>;

/// Whether it is a client without a secret.
pub(super) fn is_public(clients: &Clients, id: &str) -> bool {
    clients.get(id).is_some_and(Option::is_none)
}

/// The parameters of a request. One without a value counts as left out (RFC 6749, section 3.2).
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// None if a parameter stands twice that must not. Of all parameters only `resource` (RFC 8707) and
    /// `audience` (RFC 8693) may.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut form = Self(Vec::new());
        for (name, value) in form_urlencoded::parse(body) {
            let may_repeat = name == "resource" || name == "audience";
            if !may_repeat && form.0.iter().any(|(known, _)| *known == name) {
                return None;
            }
            form.0.push((name.into_owned(), value.into_owned()));
        }
        Some(form)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0
            .iter()
            .filter(move |(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// The id of the client, if it shows who it is by exactly one method: `client_secret_basic`,
/// `client_secret_post`, or `none` for a public client.
pub(super) fn authenticate(
    clients: &Clients,
    headers: &HeaderMap,
    form: &Form,
) -> Result<String, Refusal> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let basic = fields.next();
    let methods = usize::from(basic.is_some())
        + usize::from(form.get("client_secret").is_some())
        + usize::from(form.get("client_assertion").is_some());
    if methods > 1 || fields.next().is_some() {
        return Err(invalid_request(
            "the client authenticates by more than one method",
        ));
    }
    if form.get("client_assertion").is_some() {
        return Err(invalid_client("client assertions are not supported"));
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
    match clients.get(&id) {
        None => Err(invalid_client("the client is unknown")),
        Some(known) if *known != secret => {
            Err(invalid_client("the client's secret is wrong, or missing"))
        }
        Some(_) => Ok(id),
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

pub(super) fn invalid_request(reason: &'static str) -> Refusal {
    Refusal::oauth(
        StatusCode::BAD_REQUEST,
        Fault {
            code: "invalid_request",
            reason,
        },
    )
}

/// A 401 must say how to authenticate (RFC 9110, section 15.5.2), and a Basic challenge has a realm.
fn invalid_client(reason: &'static str) -> Refusal {
    Refusal::oauth(
        StatusCode::UNAUTHORIZED,
        Fault {
            code: "invalid_client",
            reason,
        },
    )
    .header(WWW_AUTHENTICATE, r#"Basic realm="token endpoint""#)
}
