//! The parameters of a request, in a form or in a query (RFC 6749, appendix B).

use bytes::Bytes;
use http::{Method, header::CONTENT_TYPE, request::Parts};

use super::{
    answer::Refusal,
    issuer::{invalid_request, only},
    shared::Fault,
};

/// The parameters of a request. One without a value counts as left out (RFC 6749, section 3.2).
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Of a request by POST.
    pub(super) fn read(head: &Parts, body: &Bytes) -> Result<Self, Refusal> {
        only(head, &Method::POST)?;
        if !is_form(head) {
            return Err(invalid_request(
                "the body is not application/x-www-form-urlencoded",
            ));
        }
        if in_query(head, "client_secret") || in_query(head, "client_assertion") {
            return Err(invalid_request("the client's secret is in the URL"));
        }
        Self::parse(body).ok_or_else(|| invalid_request("a parameter stands twice"))
    }

    /// None if a parameter stands twice that must not. Of all parameters only `resource` (RFC 8707) and
    /// `audience` (RFC 8693) may.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut form = Self(Vec::new());
        for (name, value) in form_urlencoded::parse(text) {
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

    /// A parameter that must be there; `missing` is what its absence is called.
    pub(super) fn need(&self, name: &str, missing: &'static str) -> Result<&str, Fault> {
        self.get(name).ok_or(Fault {
            code: "invalid_request",
            reason: missing,
        })
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

    /// The scope that is asked for.
    pub(super) fn scope(&self) -> Result<Option<&str>, Fault> {
        let scope = self.get("scope");
        if scope.is_some_and(|scope| !is_scope(scope)) {
            return Err(invalid_scope("`scope` is no list of scopes"));
        }
        Ok(scope)
    }

    /// The scope that is asked for of what was granted: all of it, if none is named (RFC 6749, section 6).
    pub(super) fn scope_within(&self, granted: Option<&str>) -> Result<Option<String>, Fault> {
        let scope = match self.scope()? {
            None => granted,
            Some(asked) if is_within(asked, granted.unwrap_or_default()) => Some(asked),
            Some(_) => return Err(invalid_scope("`scope` is more than was granted")),
        };
        Ok(scope.map(str::to_owned))
    }

    /// What the token is asked for (RFC 8707).
    pub(super) fn resources(&self) -> Result<Vec<String>, Fault> {
        let resources: Vec<String> = self.all("resource").map(str::to_owned).collect();
        if !resources.iter().all(|resource| is_resource(resource)) {
            return Err(invalid_target(
                "`resource` is no absolute URI without fragment",
            ));
        }
        Ok(resources)
    }

    /// The same of what was granted: all of it, if none is named. A grant that named none sets no limit
    /// (RFC 8707, section 2.2).
    pub(super) fn resources_within(&self, granted: &[String]) -> Result<Vec<String>, Fault> {
        let asked = self.resources()?;
        if asked.is_empty() {
            return Ok(granted.to_vec());
        }
        if !granted.is_empty() && !asked.iter().all(|resource| granted.contains(resource)) {
            return Err(invalid_target("`resource` is none that was granted"));
        }
        Ok(asked)
    }
}

fn invalid_scope(reason: &'static str) -> Fault {
    Fault {
        code: "invalid_scope",
        reason,
    }
}

fn invalid_target(reason: &'static str) -> Fault {
    Fault {
        code: "invalid_target",
        reason,
    }
}

fn is_form(head: &Parts) -> bool {
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    essence
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn in_query(head: &Parts, name: &str) -> bool {
    let query = head.uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).any(|(known, _)| known == name)
}

/// Whether a scope asks for nothing beyond another.
fn is_within(asked: &str, granted: &str) -> bool {
    asked
        .split(' ')
        .all(|one| granted.split(' ').any(|known| known == one))
}

/// RFC 6749, section 3.3.
fn is_scope(text: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty()
            && token
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    text.split(' ').all(is_token)
}

/// RFC 8707, section 2.
fn is_resource(text: &str) -> bool {
    let scheme = text
        .split_once(':')
        .map(|(scheme, _)| scheme)
        .unwrap_or_default();
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(['#', ' '])
}
