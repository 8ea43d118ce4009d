//! Origins (RFC 6454) and the `htu` claim (RFC 9449, section 4.2). Pure: no clock, no network.
//!
//! An `htu` is canonical but keeps the path's bytes, because servers exist that compare it byte by byte with
//! the path they were asked for. (How a server should compare is in `proof/htu.rs`.)

use std::{
    borrow::{Borrow, Cow},
    fmt,
    net::Ipv4Addr,
    net::Ipv6Addr,
    str::FromStr,
    sync::Arc,
};

use http::{
    HeaderValue, Request, Uri,
    header::HOST,
    uri::{Authority, Scheme},
};

use crate::error::{Error, Kind};

/// Scheme, host and port of a server: `https://api.example.com`, `http://127.0.0.1:8080`.
///
/// Canonical: scheme and host are in lower case and the scheme's default port is left out, so two origins
/// are equal exactly when they mean the same server.
///
/// ```
/// use tower_dpop::Origin;
///
/// let origin: Origin = "HTTPS://API.Example.com:443/".parse()?;
/// assert_eq!(origin.as_str(), "https://api.example.com");
/// assert!("https://api.example.com/v1".parse::<Origin>().is_err(), "an origin has no path");
/// # Ok::<(), tower_dpop::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    /// The origin as text, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Scheme and authority.
    pub(crate) fn parts(&self) -> (&str, &str) {
        // There is no third scheme.
        match self.0.strip_prefix("https://") {
            Some(authority) => ("https", authority),
            None => ("http", self.0.strip_prefix("http://").unwrap_or_default()),
        }
    }

    /// The target of a request for `uri` at this server.
    pub(crate) fn target<'a>(&'a self, uri: &'a Uri) -> Target<'a> {
        let (scheme, authority) = self.parts();
        Target {
            scheme,
            authority: authority.into(),
            path: path(uri),
        }
    }

    /// What may be reached by plain http without harm: https, or a host that never leaves this machine.
    pub(crate) fn is_secure(&self) -> bool {
        let (scheme, authority) = self.parts();
        scheme == "https" || is_loopback(authority)
    }

    /// Makes the host on the wire the one that is signed, in the URI and in a `Host` header that the caller
    /// wrote. A server that compares byte by byte would otherwise refuse a proof for `api.example` in a request
    /// to `API.example` (RFC 9449, 4.3, 9); and a token for one virtual host shall not go to another.
    pub(crate) fn canonicalize<B>(&self, request: &mut Request<B>) {
        let (_, host) = self.parts();
        if request
            .headers()
            .get_all(HOST)
            .iter()
            .any(|value| value != host)
            && let Ok(value) = HeaderValue::from_str(host)
        {
            request.headers_mut().insert(HOST, value);
        }
        if request
            .uri()
            .authority()
            .is_some_and(|authority| authority.as_str() != host)
            && let Ok(authority) = host.parse()
        {
            let mut parts = request.uri().clone().into_parts();
            parts.authority = Some(authority);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
}

impl FromStr for Origin {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::is_config`] for anything but scheme (`http` or `https`), host and port.
    fn from_str(text: &str) -> Result<Self, Error> {
        // First of all, so that no error shows a password.
        if text.contains('@') {
            return Err(Error::config(
                "an origin has no user information (the part before `@`): leave it out",
            ));
        }
        let uri: Uri = text.parse().map_err(|_| {
            Error::config(format!(
                "`{}` is no origin: expected scheme, host and port, such as `https://api.example.com`",
                printable(text)
            ))
        })?;
        // `http::Uri` drops a fragment in silence, so it is looked for in the text.
        if !matches!(uri.path(), "" | "/") || text.contains(['?', '#']) {
            return Err(Error::config(format!(
                "`{}` is no origin: it has a path, a query or a fragment; expected scheme, host and \
                 port alone, such as `https://api.example.com`",
                printable(text)
            )));
        }
        let target = Target::new(&uri, None)?;
        Ok(target.to_origin())
    }
}

impl Borrow<str> for Origin {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Origin {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({})", self.0)
    }
}

/// Where a request goes. Borrowed from its URI as far as that is written canonically: this is looked at for every
/// request, and most are.
#[derive(Clone)]
pub(crate) struct Target<'a> {
    scheme: &'a str,
    /// Host in lower case, and the port if it is not the scheme's.
    authority: Cow<'a, str>,
    path: &'a str,
}

impl<'a> Target<'a> {
    /// The target of a request for `uri`; `default` is the origin of a path-only URI.
    pub(crate) fn new(uri: &'a Uri, default: Option<&'a Origin>) -> Result<Self, Error> {
        match (uri.scheme(), uri.authority(), default) {
            (Some(scheme), Some(authority), _) => Ok(Self {
                scheme: scheme.as_str(),
                authority: canonical(scheme, authority)?,
                path: path(uri),
            }),
            (None, None, Some(origin)) => Ok(origin.target(uri)),
            (None, None, None) => Err(Error::new(
                Kind::MissingOrigin,
                "the request's URI is a path without scheme and host, so no proof can name its target: \
                 set the server's with `DpopLayer::origin`",
            )),
            _ => Err(Error::config(
                "the request's URI has a host but no scheme: write it as `https://host/path`",
            )),
        }
    }

    /// The target of a request that may be none of ours. None, if no token or proof could be for it: another
    /// scheme, the authority form of `CONNECT`, a port that is none.
    pub(crate) fn of_any(uri: &'a Uri, default: Option<&'a Origin>) -> Result<Option<Self>, Error> {
        match Self::new(uri, default) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.is_missing_origin() => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// The path, `/` at least.
    pub(crate) fn path(&self) -> &'a str {
        self.path
    }

    /// The two parts of its origin, as [`Origin::parts`] has them.
    pub(crate) fn origin(&self) -> (&str, &str) {
        (self.scheme, &self.authority)
    }

    pub(crate) fn to_origin(&self) -> Origin {
        let (scheme, authority) = self.origin();
        Origin([scheme, SEPARATOR, authority].concat().into())
    }
}

/// The `htu` claim.
impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, authority) = self.origin();
        write!(f, "{scheme}{SEPARATOR}{authority}{}", self.path)
    }
}

/// Between scheme and authority.
const SEPARATOR: &str = "://";

/// The path as it is sent: the empty one is sent as `/`; the asterisk form stands for the empty path (RFC 9110, 4.2.3
/// and 7.1).
pub(crate) fn path(uri: &Uri) -> &str {
    match uri.path() {
        "" | "*" => "/",
        path => path,
    }
}

fn canonical<'a>(scheme: &Scheme, authority: &'a Authority) -> Result<Cow<'a, str>, Error> {
    let default_port = match scheme {
        s if *s == Scheme::HTTPS => 443,
        s if *s == Scheme::HTTP => 80,
        _ => {
            return Err(Error::config(
                "the scheme is neither `https` nor `http`: a DPoP proof is for HTTP requests",
            ));
        }
    };
    let host = authority.host();
    if host.is_empty() {
        return Err(Error::config("the URI has no host"));
    }
    let mut canonical = Cow::Borrowed(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        canonical.to_mut().make_ascii_lowercase();
    }
    let whole = authority.as_str();
    if whole.len() == host.len() {
        return Ok(canonical);
    }
    let after_userinfo = whole.rsplit('@').next().unwrap_or_default();
    let port = after_userinfo.strip_prefix(host).unwrap_or_default();
    let digits = port.strip_prefix(':').unwrap_or_default();
    if digits.is_empty() {
        return Ok(canonical);
    }
    let port = digits
        .parse::<u16>()
        .map_err(|_| Error::config("the URI's port is no number between 0 and 65535"))?;
    if port == default_port {
        return Ok(canonical);
    }
    let as_written = matches!(canonical, Cow::Borrowed(_))
        && whole.len() == after_userinfo.len()
        && !digits.starts_with(['0', '+']);
    Ok(match as_written {
        true => whole.into(),
        false => format!("{canonical}:{port}").into(),
    })
}

fn is_loopback(authority: &str) -> bool {
    if let Some(v6) = authority.strip_prefix('[') {
        let address = v6.split(']').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok_and(|a| a.is_loopback());
    }
    let host = authority.split(':').next().unwrap_or_default();
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

/// The scheme of an absolute URI, whatever stands behind it (RFC 3986, section 3.1).
pub(crate) fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let mut bytes = scheme.bytes();
    let plain = bytes.next()?.is_ascii_alphabetic()
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    plain.then_some(scheme)
}

/// Whether this is an absolute URI without fragment, of any scheme (RFC 3986, section 4.3).
pub(crate) fn is_absolute_uri(text: &str) -> bool {
    scheme(text).is_some_and(|scheme| {
        let rest = &text[scheme.len() + ":".len()..];
        !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
    })
}

/// The start of a text that a user gave, fit for one line of an error.
pub(crate) fn printable(text: &str) -> String {
    const SHOWN: usize = 100;
    let mut out: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secure(origin: &str) -> bool {
        origin.parse::<Origin>().unwrap().is_secure()
    }

    #[test]
    fn plain_http_is_secure_on_loopback_only() {
        for origin in [
            "https://api.example.com",
            "http://localhost:1",
            "http://127.0.0.1",
            "http://127.9.8.7:80",
            "http://[::1]:9",
        ] {
            assert!(secure(origin), "{origin}");
        }
        for origin in [
            "http://api.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://10.0.0.1",
            "http://[::2]",
            "http://0.0.0.0",
            "http://127.1.example",
        ] {
            assert!(!secure(origin), "{origin}");
        }
    }

    #[test]
    fn a_host_that_looks_like_a_port_is_none() {
        for (text, origin) in [
            ("https://1:11", "https://1:11"),
            ("http://8:80", "http://8"),
            ("http://0:8080", "http://0:8080"),
            ("https://44:443", "https://44"),
            ("https://80:8080", "https://80:8080"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().as_str(), origin);
        }
    }

    #[test]
    fn bad_origins_say_why() {
        for (text, word) in [
            ("", "no origin"),
            ("api.example.com", "scheme"),
            ("ftp://api.example.com", "neither"),
            ("https://api.example.com/v1", "path"),
            ("https://api.example.com?x", "query"),
            ("https://api.example.com/#x", "fragment"),
            ("https://user:pw@api.example.com", "user information"),
            ("https://user:pw@api.example.com/v1", "user information"),
            ("https://user:p w@api.example.com", "user information"),
            ("https://user:pw#@api.example.com", "user information"),
            ("https://api.example.com:99999", "port"),
            ("/only/a/path", "path"),
        ] {
            let error = text.parse::<Origin>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn the_host_on_the_wire_is_the_one_that_was_signed() {
        for (wire, canonical) in [
            ("https://RS.Example/a?x", "https://rs.example/a?x"),
            ("https://rs.example:443/a", "https://rs.example/a"),
            ("https://rs.example:08443/a", "https://rs.example:8443/a"),
            ("https://user:pw@rs.example/a", "https://rs.example/a"),
            (
                "https://rs.example:8443/A%2f?y=%7E",
                "https://rs.example:8443/A%2f?y=%7E",
            ),
        ] {
            let mut request = Request::get(wire)
                .header("host", "Other.example")
                .body(())
                .unwrap();
            let origin = Target::new(request.uri(), None).unwrap().to_origin();
            origin.canonicalize(&mut request);
            let uri = request.uri();
            assert_eq!(request.headers()["host"], uri.authority().unwrap().as_str());
            assert_eq!(uri, canonical, "{wire}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,80}", other in "[a-zA-Z0-9:/?#@.%\\[\\] -]{0,80}") {
            for text in [text, other] {
                let _ = crate::proof::same_target(&text, &text);
                if let Ok(origin) = text.parse::<Origin>() {
                    prop_assert_eq!(origin.as_str().parse::<Origin>().unwrap(), origin);
                }
            }
        }

        #[test]
        fn what_is_emitted_is_canonical_and_compares_equal(
            scheme in "https?",
            host in "[a-zA-Z0-9]{1,10}(\\.[a-zA-Z0-9]{1,10}){0,2}",
            port in proptest::option::of(1_u16..),
            path in "(/([a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2}){0,6}){0,4}",
            query in "(\\?[a-z=&/?]{0,10})?",
        ) {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let url = format!("{scheme}://{host}{port}{path}{query}");
            let uri: Uri = url.parse().unwrap();
            let target = Target::new(&uri, None).unwrap();
            let ours = target.to_origin();
            let origin: Origin = ours.as_str().parse().unwrap();
            prop_assert_eq!(&origin, &ours);
            prop_assert_eq!(origin.parts(), target.origin());
            prop_assert_eq!(origin.target(&uri).to_string(), target.to_string());
            prop_assert_eq!(ours.as_str().to_ascii_lowercase(), ours.as_str());
            // Against another reading of the URI than ours.
            let origin: Uri = ours.as_str().parse().unwrap();
            let default = if scheme == "https" { 443 } else { 80 };
            prop_assert_eq!(origin.host().unwrap(), host.to_ascii_lowercase());
            prop_assert_eq!(origin.port_u16().unwrap_or(default), uri.port_u16().unwrap_or(default));
            prop_assert!(origin.port_u16() != Some(default));
            let path = if path.is_empty() { "/" } else { &path };
            let htu = target.to_string();
            prop_assert_eq!(&htu, &format!("{ours}{path}"), "the path as it is");
            prop_assert!(crate::proof::same_target(&url, &htu));
            let longer = format!("{htu}x");
            prop_assert!(!crate::proof::same_target(&url, &longer));
        }
    }
}
