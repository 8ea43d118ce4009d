//! What a session log may show of a message. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONTENT_LOCATION, CONTENT_TYPE, LOCATION, PROXY_AUTHORIZATION, REFERER,
    },
};
use serde_json::Value;

const MASK: &str = "***";

/// As much of a body as is shown, in characters.
const SHOWN_CHARS: usize = 4096;

/// Parts of the names of parameters, JSON members and headers whose value is a secret. A name too many
/// costs little, one too few costs the secret.
const SECRET_WORDS: [&str; 12] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "token",
    "assertion",
    "credential",
    "cookie",
    "api_key",
    "api-key",
    "apikey",
    "jwt",
];

/// Parameters of OAuth requests that are secrets, and words of everyday use elsewhere.
const SECRET_PARAMETERS: [&str; 7] = [
    "code",
    "code_verifier",
    "device_code",
    "key",
    "otp",
    "sig",
    "signature",
];

/// Parts of the names of headers whose value is a secret, beside the words above.
const SECRET_HEADERS: [&str; 4] = ["auth", "session", "signature", "-key"];

/// Headers that have such a name, and are worth seeing.
const PUBLIC_HEADERS: [&str; 2] = ["www-authenticate", "proxy-authenticate"];

/// A shorter text is not looked for elsewhere: it would be found in every other word.
const MIN_SWEPT_BYTES: usize = 6;

/// For one request and its answer: what was masked in the request is masked in the answer, too, should the
/// server repeat it.
#[derive(Default)]
pub(crate) struct Masking {
    found: Vec<String>,
}

impl Masking {
    pub(crate) fn header(&mut self, name: &HeaderName, value: &HeaderValue) -> String {
        let text = String::from_utf8_lossy(value.as_bytes());
        if *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION {
            let (scheme, credentials) = text.split_once(' ').unwrap_or(("", &text));
            self.credentials(scheme, credentials);
            format!("{scheme} {MASK}").trim_start().to_owned()
        } else if value.is_sensitive() || is_secret_header(name.as_str()) {
            self.remember(&text);
            MASK.to_owned()
        } else if [LOCATION, CONTENT_LOCATION, REFERER].contains(name) {
            self.url(&text)
        } else {
            printable(&self.sweep(&text))
        }
    }

    /// A URL's query, and whatever stands in its fragment, is written like a form.
    pub(crate) fn url(&mut self, url: &str) -> String {
        let shown = match url.split_once(['?', '#']) {
            Some((path, query)) => {
                let mark = &url[path.len()..=path.len()];
                format!("{path}{mark}{}", self.form(query))
            }
            None => url.to_owned(),
        };
        printable(&self.sweep(&shown))
    }

    /// Text is shown, everything else only by its length.
    pub(crate) fn body(&mut self, headers: &HeaderMap, body: &[u8]) -> String {
        let media_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        let media_type = media_type.and_then(|value| value.split(';').next());
        let media_type = media_type.unwrap_or_default().trim().to_ascii_lowercase();
        let shown = match media_type.as_str() {
            "application/x-www-form-urlencoded" => {
                std::str::from_utf8(body).ok().map(|form| self.form(form))
            }
            json if json.ends_with("/json") || json.ends_with("+json") => self.json(body),
            text if text.starts_with("text/")
                || text.ends_with("/xml")
                || text.ends_with("+xml") =>
            {
                std::str::from_utf8(body).ok().map(str::to_owned)
            }
            _ => None,
        };
        match shown {
            Some(text) => cut(&printable(&self.sweep(&text))),
            None => format!("({} bytes)", body.len()),
        }
    }

    fn form(&mut self, form: &str) -> String {
        let pairs = form.split('&').map(|pair| {
            let Some((name, value)) = pair.split_once('=') else {
                return pair.to_owned();
            };
            let Some((plain_name, plain)) = form_urlencoded::parse(pair.as_bytes()).next() else {
                return pair.to_owned();
            };
            if is_secret(&plain_name) || SECRET_PARAMETERS.contains(&&*plain_name) {
                self.remember(value);
                self.remember(&plain);
                return format!("{name}={MASK}");
            }
            pair.to_owned()
        });
        pairs.collect::<Vec<_>>().join("&")
    }

    /// JSON written anew, so that no other way to write a name hides it. None for what is not JSON.
    fn json(&mut self, body: &[u8]) -> Option<String> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        self.member(&mut value, false);
        Some(value.to_string())
    }

    fn member(&mut self, value: &mut Value, secret: bool) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.member(item, secret)),
            Value::Object(members) => {
                for (name, value) in members {
                    self.member(value, secret || is_secret(name));
                }
            }
            Value::String(text) if secret => {
                self.remember(text);
                MASK.clone_into(text);
            }
            Value::String(text) => *text = self.sweep(text),
            Value::Number(_) if secret => *value = Value::from(MASK),
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    fn credentials(&mut self, scheme: &str, credentials: &str) {
        self.remember(credentials);
        if scheme.eq_ignore_ascii_case("Basic")
            && let Ok(pair) = BASE64.decode(credentials)
            && let Ok(pair) = String::from_utf8(pair)
            && let Some((_, secret)) = pair.split_once(':')
        {
            self.form(&format!("secret={secret}"));
        }
    }

    fn remember(&mut self, secret: &str) {
        if secret.len() >= MIN_SWEPT_BYTES && !self.found.iter().any(|found| found == secret) {
            self.found.push(secret.to_owned());
            // A secret that holds another one is looked for first.
            self.found
                .sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    fn sweep(&self, text: &str) -> String {
        let found = self.found.iter();
        found.fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), MASK)
        })
    }
}

fn is_secret_header(name: &str) -> bool {
    let secret = SECRET_HEADERS.iter().any(|part| name.contains(part));
    name == "dpop" || (secret && !PUBLIC_HEADERS.contains(&name)) || is_secret(name)
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // `token_type` and `client_assertion_type` are not secret, and worth seeing.
    !name.ends_with("_type") && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Nothing that moves a terminal's cursor, or looks like another entry of the log.
fn printable(text: &str) -> String {
    text.replace(
        |c: char| c.is_control() && c != '\n' && c != '\t',
        "\u{fffd}",
    )
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}\n… ({} bytes in all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
