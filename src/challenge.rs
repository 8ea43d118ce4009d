//! Challenges of the `WWW-Authenticate` header, by the grammar of RFC 9110, section 11. Pure.
//!
//! Searching the header for words, as many clients do, finds errors that another scheme's challenge or a
//! quoted text holds, and misses those that are written in another way.

use std::borrow::Cow;

use http::{
    HeaderMap, HeaderName, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// gRPC's status code for what is 401 elsewhere.
const UNAUTHENTICATED: &[u8] = b"16";

/// No server says more than this in good faith, and the check for repeated names stays cheap.
const MAX_PARAMETERS: usize = 64;

/// One challenge: a scheme, and what comes with it (RFC 9110, section 11.3).
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
/// use tower_dpop::Challenge;
///
/// let mut headers = HeaderMap::new();
/// let value = r#"Bearer realm="api", DPoP error="use_dpop_nonce", algs="ES256""#;
/// headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(value));
/// let challenges = Challenge::all(&headers);
/// assert_eq!(challenges.len(), 2);
/// assert!(challenges[1].is_scheme("dpop"));
/// assert_eq!(challenges[1].parameter("error"), Some("use_dpop_nonce"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge<'a> {
    scheme: &'a str,
    token68: Option<&'a str>,
    parameters: Vec<(&'a str, Cow<'a, str>)>,
}

impl<'a> Challenge<'a> {
    /// All challenges of an answer, in their order. A field line that breaks the grammar counts for
    /// nothing; the other lines stand.
    #[must_use]
    pub fn all(headers: &'a HeaderMap) -> Vec<Self> {
        headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|line| Parser::new(line.as_bytes()).challenges())
            .flatten()
            .collect()
    }

    /// The scheme, as it was written.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// Whether the scheme is `name`; schemes know no case.
    #[must_use]
    pub fn is_scheme(&self, name: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(name)
    }

    /// What stands in place of parameters in schemes such as `Negotiate`.
    #[must_use]
    pub fn token68(&self) -> Option<&str> {
        self.token68
    }

    /// The value of a parameter, without quotes and escapes; parameter names know no case.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
    }

    /// All parameters, in their order.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (*name, &**value))
    }
}

/// Whether an answer refuses a request with 401 or as gRPC does, and a challenge in it says why.
pub(crate) fn refuses<B>(response: &Response<B>, error: &str) -> bool {
    is_unauthorized(response) && has_error(response.headers(), error)
}

/// Whether an answer refuses a request so, and does not say why. RFC 9110, section 15.5.2 asks for a challenge and RFC
/// 6750, section 3.1 for an error in it; servers exist that send neither, or a header that nobody can read.
pub(crate) fn gives_no_reason<B>(response: &Response<B>) -> bool {
    let named = |challenge: &Challenge<'_>| challenge.parameter("error").is_some();
    is_unauthorized(response) && !Challenge::all(response.headers()).iter().any(named)
}

/// A gRPC server that has nothing else to say sends its status with the headers ("trailers-only").
fn is_unauthorized<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::UNAUTHORIZED || is_grpc(headers) && is_unauthenticated(headers)
}

/// Elsewhere, neither `grpc-status` nor trailers say anything.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Of headers, or of trailers.
pub(crate) fn is_unauthenticated(headers: &HeaderMap) -> bool {
    headers
        .get(GRPC_STATUS)
        .is_some_and(|status| status.as_bytes() == UNAUTHENTICATED)
}

/// Whether one of the challenges says `error`, in a `DPoP` challenge or in a `Bearer` one: servers exist
/// that answer a DPoP request with a Bearer challenge.
pub(crate) fn has_error(headers: &HeaderMap, error: &str) -> bool {
    Challenge::all(headers)
        .iter()
        .filter(|challenge| challenge.is_scheme("DPoP") || challenge.is_scheme("Bearer"))
        .any(|challenge| challenge.parameter("error") == Some(error))
}

/// Reads one field line once, from left to right.
struct Parser<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(line: &'a [u8]) -> Self {
        Self { line, at: 0 }
    }

    /// The whole line, or none if it breaks the grammar.
    fn challenges(mut self) -> Option<Vec<Challenge<'a>>> {
        let mut found: Vec<Challenge<'a>> = Vec::new();
        loop {
            // Empty list elements count for nothing (RFC 9110, 5.6.1.2).
            while self.skip_blanks() | self.eat(b',') {}
            if self.at == self.line.len() {
                return Some(found);
            }
            let name = self.token()?;
            let blank = self.skip_blanks();
            if self.peek() == Some(b'=') {
                // A further parameter of the challenge before it.
                self.at += 1;
                self.parameter(found.last_mut()?, name)?;
            } else {
                found.push(self.challenge(name, blank)?);
            }
            self.end_of_element()?;
        }
    }

    /// A scheme was read: its token68 or its first parameter, if there is one.
    fn challenge(&mut self, scheme: &'a str, blank: bool) -> Option<Challenge<'a>> {
        let mut challenge = Challenge {
            scheme,
            token68: None,
            parameters: Vec::new(),
        };
        if matches!(self.peek(), None | Some(b',')) {
            return Some(challenge);
        }
        if !blank {
            return None;
        }
        if let Some(token68) = self.token68() {
            challenge.token68 = Some(token68);
            return Some(challenge);
        }
        let name = self.token()?;
        self.skip_blanks();
        if !self.eat(b'=') {
            return None;
        }
        self.parameter(&mut challenge, name)?;
        Some(challenge)
    }

    /// The value after `name=`.
    fn parameter(&mut self, challenge: &mut Challenge<'a>, name: &'a str) -> Option<()> {
        self.skip_blanks();
        let value = match self.peek()? {
            b'"' => self.quoted()?,
            _ => Cow::Borrowed(self.token()?),
        };
        // Each name stands once in a challenge (RFC 9110, 11.2), and no parameter follows a token68.
        let repeated = challenge.parameter(name).is_some();
        if repeated || challenge.token68.is_some() || challenge.parameters.len() == MAX_PARAMETERS {
            return None;
        }
        challenge.parameters.push((name, value));
        Some(())
    }

    /// The token68 that ends this list element, if the element is one.
    fn token68(&mut self) -> Option<&'a str> {
        let start = self.at;
        let body = self.line[start..]
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(b))
            .count();
        let pad = self.line[start + body..]
            .iter()
            .take_while(|b| **b == b'=')
            .count();
        self.at = start + body + pad;
        let end = self.at;
        self.skip_blanks();
        if body > 0 && matches!(self.peek(), None | Some(b',')) {
            return std::str::from_utf8(&self.line[start..end]).ok();
        }
        self.at = start;
        None
    }

    fn token(&mut self) -> Option<&'a str> {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        {
            self.at += 1;
        }
        let token = &self.line[start..self.at];
        if token.is_empty() {
            return None;
        }
        std::str::from_utf8(token).ok()
    }

    /// A quoted string (RFC 9110, 5.6.4), its opening quote still to be read.
    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        let mut unescaped: Option<Vec<u8>> = None;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    let so_far = &self.line[start..self.at - 1];
                    let out = unescaped.get_or_insert_with(|| so_far.to_vec());
                    out.push(self.line.get(self.at).copied()?);
                    self.at += 1;
                }
                _ => {
                    if let Some(out) = &mut unescaped {
                        out.push(byte);
                    }
                }
            }
        }
        Some(match unescaped {
            None => String::from_utf8_lossy(&self.line[start..self.at - 1]),
            Some(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    fn end_of_element(&mut self) -> Option<()> {
        self.skip_blanks();
        matches!(self.peek(), None | Some(b',')).then_some(())
    }

    fn skip_blanks(&mut self) -> bool {
        let start = self.at;
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        self.at > start
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }
}
