//! Reading an authorization response (RFC 6749, section 4.1.2; RFC 9207). Pure.

use std::{borrow::Cow, collections::BTreeMap, mem};

use http::Uri;
use zeroize::Zeroizing;

use crate::{
    error::{Error, Kind},
    origin::{Target, scheme},
};

/// Codes that hold a whole session are some KiB long; browsers and servers cut URLs long before this.
const MAX_BYTES: usize = 64 * 1024;

/// What is read. Whatever else a server or a redirect URI has there is ignored (RFC 6749, section 4.1.2).
pub(super) const NAMES: [&str; 6] = [
    "code",
    "error",
    "error_description",
    "iss",
    "response",
    "state",
];

/// The parameters of a response, each of which stands there once (RFC 6749, section 3.1).
pub(super) type Parameters = BTreeMap<&'static str, Zeroizing<String>>;

/// Reads the response that came to `redirect`, if that is `redirect_uri`: a URL, its path and query, or its query.
pub(super) fn read(redirect: &str, redirect_uri: &str) -> Result<Parameters, Error> {
    if redirect.len() > MAX_BYTES {
        return Err(refuse("the authorization response is longer than 64 KiB"));
    }
    let (redirect, fragment) = redirect.split_once('#').unwrap_or((redirect, ""));
    let query = query(redirect, redirect_uri)?;
    let parameters = parse(query)?;
    if parameters.is_empty() && !parse(fragment)?.is_empty() {
        return Err(refuse(
            "the authorization response stands in the URL's fragment, behind the `#`, where it is not looked for: the \
             server is to take `response_mode=query`",
        ));
    }
    Ok(parameters)
}

fn query<'a>(redirect: &'a str, redirect_uri: &str) -> Result<&'a str, Error> {
    if let Some(query) = redirect.strip_prefix('?') {
        return Ok(query);
    }
    let is_path = redirect.starts_with('/');
    if !is_path && scheme(redirect).is_none() {
        return Ok(redirect);
    }
    let (place, query) = redirect.split_once('?').unwrap_or((redirect, ""));
    let expected = without_query(redirect_uri);
    let expected = canonical(expected);
    let same = match is_path {
        true => place == path(&expected),
        false => canonical(place) == expected,
    };
    match same {
        true => Ok(query),
        false => Err(refuse(
            "the request did not come to the `redirect_uri`, so it is not the authorization response; where a proxy \
             stands in front and changes URLs, give the query alone",
        )),
    }
}

pub(super) fn without_query(uri: &str) -> &str {
    uri.split(['?', '#']).next().unwrap_or_default()
}

/// As browsers write a URL: with scheme and host in lower case, and no default port. An app's own scheme has no such
/// rules for what stands behind it.
fn canonical(url: &str) -> Cow<'_, str> {
    if let Ok(uri) = url.parse::<Uri>()
        && let Ok(target) = Target::new(&uri, None)
    {
        return target.to_string().into();
    }
    match url.split_once(':') {
        Some((scheme, rest)) => format!("{}:{rest}", scheme.to_ascii_lowercase()).into(),
        None => url.into(),
    }
}

/// The path of an absolute URI.
fn path(url: &str) -> &str {
    let rest = url.split_once(':').map_or("", |(_, rest)| rest);
    match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => rest,
    }
}

fn parse(query: &str) -> Result<Parameters, Error> {
    let mut parameters = Parameters::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name);
        let Some(name) = NAMES.into_iter().find(|known| *known == *name) else {
            continue;
        };
        if parameters.insert(name, decoded(value)).is_some() {
            return Err(refuse(format!(
                "`{name}` stands twice in the authorization response, which means two things (RFC 6749, section 3.1)"
            )));
        }
    }
    Ok(parameters)
}

/// From `application/x-www-form-urlencoded`. It does not grow: a text that grows leaves copies behind.
fn decoded(text: &str) -> Zeroizing<String> {
    let mut decoded = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let Some((&byte, mut next)) = rest.split_first() {
        decoded.push(match (byte, next) {
            (b'+', _) => b' ',
            (b'%', &[high, low, ref after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                next = after;
                hex(high) << 4 | hex(low)
            }
            _ => byte,
        });
        rest = next;
    }
    match String::from_utf8(mem::take(&mut *decoded)) {
        Ok(text) => Zeroizing::new(text),
        // Nothing that is compared or sent is other than ASCII, so it is no secret.
        Err(error) => Zeroizing::new(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

pub(super) fn refuse(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::Authorization, message)
}
