//! A request, kept for the case that it has to be sent again.

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use zeroize::Zeroize as _;

use super::Replay;

/// All of a request, in as little memory as it takes: every request is kept, and few are sent again.
pub(crate) struct Spare<B> {
    method: Method,
    uri: Uri,
    version: Version,
    headers: Headers,
    extensions: Extensions,
    body: B,
}

impl<B> Spare<B> {
    /// None if the body can be sent only once. The extensions are not always those of the request.
    pub(crate) fn new(
        policy: &impl Replay<B>,
        request: &Request<B>,
        extensions: Extensions,
    ) -> Option<Self> {
        Some(Self {
            body: policy.replay(request)?,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: Headers::new(request.headers()),
            extensions,
        })
    }

    pub(crate) fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    pub(crate) fn into_request(self) -> Request<B> {
        let mut request = Request::new(self.body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.to_map();
        *request.extensions_mut() = self.extensions;
        request
    }
}

/// Headers in one piece: a clone of the map would cost an allocation or two, and mostly one more for each header.
struct Headers {
    text: Vec<u8>,
    sensitive: bool,
}

/// Between name and value. No name has either.
const PLAIN: u8 = b':';
const SENSITIVE: u8 = b';';

/// After each value. No value has it.
const END: u8 = b'\n';

impl Headers {
    fn new(map: &HeaderMap) -> Self {
        let lens = map
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 2);
        let mut text = Vec::with_capacity(lens.sum());
        let mut sensitive = false;
        for (name, value) in map {
            text.extend_from_slice(name.as_str().as_bytes());
            text.push(match value.is_sensitive() {
                true => SENSITIVE,
                false => PLAIN,
            });
            sensitive |= value.is_sensitive();
            text.extend_from_slice(value.as_bytes());
            text.push(END);
        }
        Self { text, sensitive }
    }

    fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in self.text.split(|byte| *byte == END) {
            let between = |byte: &u8| matches!(*byte, PLAIN | SENSITIVE);
            let Some(at) = line.iter().position(between) else {
                continue;
            };
            let (name, value) = (&line[..at], &line[at + 1..]);
            // They were a name and a value before.
            if let (Ok(name), Ok(mut value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                value.set_sensitive(line[at] == SENSITIVE);
                map.append(name, value);
            }
        }
        map
    }
}

/// A copy of what the caller calls sensitive does not stay behind.
impl Drop for Headers {
    fn drop(&mut self) {
        if self.sensitive {
            self.text.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::replay::CloneBody;

    proptest! {
        #[test]
        fn a_spare_is_the_request_again(
            headers in proptest::collection::vec(
                ("[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}", "[\\t -~\u{80}-\u{ff}]{0,12}", any::<bool>()),
                0..12,
            ),
            body in ".*",
        ) {
            let mut request = Request::put("https://rs.example/a?b=c").extension(7_u8).body(body).unwrap();
            *request.version_mut() = Version::HTTP_2;
            for (name, value, sensitive) in headers {
                let latin1: Vec<u8> = value.chars().map(|c| c as u8).collect();
                let mut value = HeaderValue::from_bytes(&latin1).unwrap();
                value.set_sensitive(sensitive);
                request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
            let spare = Spare::new(&CloneBody, &request, request.extensions().clone()).unwrap();
            let again = spare.into_request();
            prop_assert_eq!(again.method(), request.method());
            prop_assert_eq!(again.uri(), request.uri());
            prop_assert_eq!(again.version(), request.version());
            prop_assert_eq!(again.extensions().get::<u8>(), Some(&7));
            prop_assert_eq!(again.body(), request.body());
            let all = |request: &Request<String>| -> Vec<(HeaderName, HeaderValue, bool)> {
                let headers = request.headers().iter();
                headers.map(|(name, value)| (name.clone(), value.clone(), value.is_sensitive())).collect()
            };
            prop_assert_eq!(all(&again), all(&request));
        }
    }
}
