//! A server's metadata as they came: what RFC 8414 and RFC 9728 have in common. Pure.

use serde_json::{Map, Value};

use super::url::{self, PlainHttp};
use crate::{
    error::{Error, Kind},
    json,
    origin::printable,
};

/// The largest documents in the field have 20 KiB.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// A JSON object of bounded size and depth, each of whose members has one name.
///
/// Members that nobody asks for are ignored, whatever they hold; `null` counts as missing.
pub(super) struct Document {
    members: Map<String, Value>,
    /// Whose metadata they are, for errors: without its query.
    of: String,
}

impl Document {
    /// Reads the metadata of `of`, which is the value of the member `identity`.
    ///
    /// Both are compared code point by code point (RFC 8414, section 3.3): `https://as.example` is not
    /// `https://as.example/`.
    pub(super) fn read(of: &str, identity: &str, bytes: &[u8]) -> Result<Self, Error> {
        let document = Self::of_any(of, bytes)?;
        match document.text(identity)? {
            Some(found) if found == of => Ok(document),
            found => Err(document.is_of_another(identity, found, "is not the same to the letter")),
        }
    }

    /// Reads metadata, whosoever they are.
    pub(super) fn of_any(of: &str, bytes: &[u8]) -> Result<Self, Error> {
        let document = Self {
            members: Map::new(),
            of: printable(of.split('?').next().unwrap_or_default()),
        };
        if bytes.len() > MAX_BYTES {
            return Err(document.unusable("they are longer than 256 KiB"));
        }
        match json::unique::object(bytes) {
            Some(members) => Ok(Self {
                members,
                ..document
            }),
            None => Err(document
                .unusable("they are no JSON object, hold a name twice, or are nested too deeply")),
        }
    }

    /// The error for metadata of another.
    pub(super) fn is_of_another(&self, identity: &str, found: Option<&str>, rule: &str) -> Error {
        self.unusable(&match found {
            Some(found) => {
                let found = url::shown(found);
                format!("they are of another: their `{identity}`{found} {rule}")
            }
            None => format!("they have no `{identity}`"),
        })
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let items = match self.members.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(items)) => items.iter(),
            Some(_) => return Err(self.wrong(name, "an array of strings")),
        };
        let texts = items.map(|item| item.as_str().map(str::to_owned));
        let texts: Option<Vec<_>> = texts.collect();
        texts
            .map(Some)
            .ok_or_else(|| self.wrong(name, "an array of strings"))
    }

    /// False unless it says otherwise.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// An object in it.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, Error> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Self {
                members: members.clone(),
                of: self.of.clone(),
            })),
            Some(_) => Err(self.wrong(name, "an object")),
        }
    }

    /// A URL that requests may go to.
    pub(super) fn endpoint(&self, name: &str, plain: PlainHttp) -> Result<Option<String>, Error> {
        let Some(url) = self.text(name)? else {
            return Ok(None);
        };
        match url::endpoint(url, plain) {
            Ok(_) => Ok(Some(url.to_owned())),
            Err(flaw) => Err(flaw.metadata(name, url, &self.of)),
        }
    }

    /// Issuer identifiers.
    pub(super) fn issuers(&self, name: &str, plain: PlainHttp) -> Result<Vec<String>, Error> {
        let issuers = self.texts(name)?.unwrap_or_default();
        for issuer in &issuers {
            url::issuer(issuer, plain).map_err(|flaw| flaw.metadata(name, issuer, &self.of))?;
        }
        Ok(issuers)
    }

    fn wrong(&self, name: &str, expected: &str) -> Error {
        self.unusable(&format!("their `{name}` is not {expected}"))
    }

    fn unusable(&self, why: &str) -> Error {
        Error::new(
            Kind::Metadata,
            format!("the metadata of `{}` cannot be used: {why}", self.of),
        )
    }
}
