//! URLs of servers: which of them a client may use. Pure.

use http::Uri;

use crate::{
    error::{Error, Kind},
    oauth::answer::clean,
    origin::{Origin, Target, printable},
};

/// No server needs more, and what is kept of its metadata stays small.
const MAX_URL_BYTES: usize = 2048;

/// Where plain http may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    Nowhere,
    /// To this machine, which it does not leave.
    Loopback,
    /// Anywhere: what [`DpopLayer::danger_allow_plain_http`](crate::DpopLayer::danger_allow_plain_http) means.
    Anywhere,
}

impl PlainHttp {
    /// For what a server names: one that is reached by https leads to nothing on this machine.
    pub(super) fn named_by(self, url: &str) -> Self {
        let https = "https://";
        let secure = url.get(..https.len());
        match self {
            Self::Loopback if secure.is_some_and(|start| start.eq_ignore_ascii_case(https)) => {
                Self::Nowhere
            }
            plain => plain,
        }
    }
}

/// What is wrong with a URL, to follow its name in a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    what: &'static str,
    insecure: bool,
}

impl Flaw {
    const INSECURE: Self = Self {
        what: "is plain http to another machine: use https",
        insecure: true,
    };

    pub(super) const fn new(what: &'static str) -> Self {
        Self {
            what,
            insecure: false,
        }
    }

    pub(super) fn what(self) -> &'static str {
        self.what
    }

    /// Of a URL in a server's document.
    pub(super) fn metadata(self, name: &str, url: &str, of: &str) -> Error {
        let (what, shown) = (self.what, shown(url));
        Error::new(
            Kind::Metadata,
            format!("the metadata of `{of}` cannot be used: `{name}`{shown} {what}"),
        )
    }

    /// Of a URL that the program gave.
    pub(super) fn config(self, name: &str, url: &str) -> Error {
        // Before an `@` may stand a password, behind a `?` a secret.
        let shown = match url.contains('@') {
            true => String::new(),
            false => format!(
                " `{}`",
                printable(url.split(['?', '#']).next().unwrap_or_default())
            ),
        };
        let kind = match self.insecure {
            true => Kind::InsecureHttp,
            false => Kind::Config,
        };
        Error::new(kind, format!("{name}{shown} {}", self.what))
    }
}

/// A server's URL, fit for an error: nothing of one that may hold a password.
pub(super) fn shown(url: &str) -> String {
    match url.contains('@') {
        true => String::new(),
        false => format!(" `{}`", clean(url, &[])),
    }
}

/// Where a request went, fit for an error: a query may hold what is nobody's business.
pub(super) fn place(uri: &Uri) -> String {
    let url = uri.to_string();
    clean(url.split('?').next().unwrap_or_default(), &[])
}

/// An absolute URL that requests may go to.
pub(super) fn endpoint(url: &str, plain: PlainHttp) -> Result<(Uri, Origin), Flaw> {
    if url.len() > MAX_URL_BYTES {
        return Err(Flaw::new("is longer than 2048 bytes"));
    }
    // `http::Uri` takes other characters along, and drops a fragment in silence.
    if !url.is_ascii() {
        return Err(Flaw::new(
            "has characters that a URL has not (RFC 3986, section 2)",
        ));
    }
    if url.contains('#') {
        return Err(Flaw::new("has a fragment (the part after `#`)"));
    }
    let uri: Uri = url.parse().map_err(|_| Flaw::new("is no URL"))?;
    let (Some(_), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(Flaw::new("has no scheme and host"));
    };
    if authority.as_str().contains('@') {
        return Err(Flaw::new("has user information (the part before `@`)"));
    }
    let target = Target::new(&uri, None).map_err(|_| {
        Flaw::new("is no URL of a server that speaks HTTP: check scheme, host and port")
    })?;
    let origin = target.to_origin();
    match plain {
        PlainHttp::Nowhere if origin.parts().0 == "http" => Err(Flaw::new(
            "is plain http, and the server that names it is reached by https",
        )),
        PlainHttp::Loopback if !origin.is_secure() => Err(Flaw::INSECURE),
        _ => Ok((uri, origin)),
    }
}

/// An issuer identifier (RFC 8414, section 2).
pub(super) fn issuer(url: &str, plain: PlainHttp) -> Result<(Uri, Origin), Flaw> {
    if url.contains('?') {
        return Err(Flaw::new(
            "has a query, and an issuer identifier has none (RFC 8414, section 2)",
        ));
    }
    endpoint(url, plain)
}
