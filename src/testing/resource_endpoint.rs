//! What a resource server asks of a request (RFC 9449, section 7).

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header::AUTHORIZATION, request::Parts};
use serde_json::json;

use super::{
    answer::{self, Refusal},
    profile::{self, ResourceRules, Scheme},
    resource_metadata::ResourceMetadata,
    server::Endpoint,
    shared::{Fault, Shared, lock},
    tokens::{Grant, Tokens},
};
use crate::proof::DPOP;

const SENT_AS_BEARER: &str = "the access token is bound to a key and was sent as Bearer";

/// The eight that Spring knows.
const USUAL_METHODS: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
];

pub(super) struct ResourceEndpoint {
    shared: Shared,
    tokens: Arc<Tokens>,
    metadata: Mutex<ResourceMetadata>,
}

impl ResourceEndpoint {
    pub(super) fn new(shared: Shared, tokens: Arc<Tokens>, issuer: String) -> Self {
        Self {
            shared,
            tokens,
            metadata: Mutex::new(ResourceMetadata::new(issuer)),
        }
    }

    pub(super) fn metadata(&self) -> MutexGuard<'_, ResourceMetadata> {
        lock(&self.metadata)
    }

    /// What a request shows, or the refusal of one that shows nothing.
    fn credentials<'a>(
        &self,
        head: &'a Parts,
        rules: &ResourceRules,
    ) -> Result<Credentials<'a>, Refusal> {
        credentials(head, rules).map_err(|wrong| match wrong {
            Wrong::Fault(fault) => profile::resource_refusal(rules, fault),
            Wrong::Nothing(reason) => {
                let told = self.metadata().in_challenges;
                let url = told.then(|| ResourceMetadata::url(self.shared.origin(), path(head)));
                profile::no_credentials(rules, reason, url.as_deref())
            }
        })
    }

    /// Checks the request by the rules.
    fn check(
        &self,
        head: &Parts,
        shown: &Credentials<'_>,
        rules: &ResourceRules,
    ) -> Result<Grant, Fault> {
        let grant = self
            .tokens
            .read(shown.token, self.shared.now())
            .map_err(invalid_token);
        if shown.is_bearer {
            let with_proof = rules.bearer_with_proof && head.headers.contains_key(DPOP);
            match &grant {
                Ok(grant) if !grant.is_bound() => return Ok(grant.clone()),
                _ if with_proof => {}
                // RFC 9449, section 7.2.
                _ => return Err(invalid_token(SENT_AS_BEARER)),
            }
        }
        let grant = grant?;
        if !grant.is_bound() {
            return Err(invalid_token("the access token is bound to no key"));
        }
        if rules.refuses_other_methods && !USUAL_METHODS.contains(&head.method) {
            return Err(Fault::proof("no proof is good for this method here"));
        }
        if rules.refuses_two_slashes && path(head).starts_with("//") {
            return Err(invalid_request("the path starts with two slashes"));
        }
        let proofs = head.headers.get_all(DPOP).iter();
        if proofs
            .into_iter()
            .any(|proof| proof.len() >= rules.too_long)
        {
            return Err(Fault::proof("the proof is too long for this server"));
        }
        let url = format!("{}{}", self.shared.origin(), path(head));
        let bound = (shown.token, grant.thumbprint.as_str());
        self.shared.check_resource_proof(head, &url, bound)?;
        Ok(grant)
    }
}

impl Endpoint for ResourceEndpoint {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn decide(&self, head: &Parts, body: &Bytes) -> Result<Response<Bytes>, Refusal> {
        let rules = self.shared.rules().resource;
        if !head.headers.contains_key(AUTHORIZATION) {
            let metadata =
                self.metadata()
                    .answer(head, self.shared.origin(), rules.proof.algorithms);
            if let Some(metadata) = metadata {
                return Ok(metadata);
            }
        }
        let shown = self.credentials(head, &rules)?;
        let grant = self
            .check(head, &shown, &rules)
            .map_err(|fault| profile::resource_refusal(&rules, fault))?;
        let echo = json!({
            "client_id": grant.client_id,
            "scope": grant.scope,
            "method": head.method.as_str(),
            "path": head.uri.path(),
            "body": String::from_utf8_lossy(body),
        });
        Ok(answer::json(StatusCode::OK, echo.to_string()))
    }
}

/// `*`, the target of some OPTIONS requests, stands for the empty path.
fn path(head: &Parts) -> &str {
    let path = head.uri.path();
    if path.starts_with('/') { path } else { "/" }
}

/// The access token that a request shows, and how.
struct Credentials<'a> {
    token: &'a str,
    is_bearer: bool,
}

/// What is wrong with what a request shows.
enum Wrong {
    /// There is nothing that could be wrong.
    Nothing(&'static str),
    Fault(Fault),
}

impl From<Fault> for Wrong {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The access token in the one `Authorization` header (RFC 9449, section 7.1).
fn credentials<'a>(head: &'a Parts, rules: &ResourceRules) -> Result<Credentials<'a>, Wrong> {
    let mut fields = head.headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else {
        return Err(Wrong::Nothing("there is no Authorization header"));
    };
    if fields.next().is_some() {
        return Err(invalid_request("there is more than one Authorization header").into());
    }
    let Ok(field) = field.to_str() else {
        return Err(invalid_request("the Authorization header holds more than ASCII").into());
    };
    if field.len() >= rules.too_long {
        return Err(invalid_token("the Authorization header is too long for this server").into());
    }
    let (scheme, token) = field.split_once(' ').unwrap_or((field, ""));
    let is_bearer = scheme.eq_ignore_ascii_case("Bearer");
    let is_dpop = match rules.scheme {
        Scheme::AnyCase => scheme.eq_ignore_ascii_case("DPoP"),
        Scheme::Exactly | Scheme::ExactlyWithOneSpace => scheme == "DPoP",
    };
    if !is_bearer && !is_dpop {
        return Err(Wrong::Nothing(
            "the scheme of the Authorization header is not DPoP",
        ));
    }
    let token = match rules.scheme {
        Scheme::ExactlyWithOneSpace => token,
        Scheme::AnyCase | Scheme::Exactly => token.trim_start_matches(' '),
    };
    if !is_bearer && !is_token68(token) {
        return Err(
            invalid_request("the Authorization header holds no token68 after its scheme").into(),
        );
    }
    Ok(Credentials { token, is_bearer })
}

/// RFC 9110, section 11.2.
fn is_token68(text: &str) -> bool {
    let unpadded = text.trim_end_matches('=');
    !unpadded.is_empty()
        && unpadded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

fn invalid_request(reason: &'static str) -> Fault {
    Fault {
        code: "invalid_request",
        reason,
    }
}

fn invalid_token(reason: &'static str) -> Fault {
    Fault {
        code: "invalid_token",
        reason,
    }
}
