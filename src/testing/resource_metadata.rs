//! What a resource server tells of itself (RFC 9728).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Response, StatusCode, request::Parts};
use serde_json::json;

use super::answer;

const PATH: &str = "/.well-known/oauth-protected-resource";

pub(super) struct ResourceMetadata {
    /// The origin of the authorization server.
    issuer: String,
    /// Members as a test wants them, in JSON; those that it left out have none.
    members: BTreeMap<String, Option<String>>,
    pub(super) in_challenges: bool,
}

impl ResourceMetadata {
    pub(super) fn new(issuer: String) -> Self {
        Self {
            issuer,
            members: BTreeMap::new(),
            in_challenges: false,
        }
    }

    pub(super) fn set(&mut self, name: String, json: Option<String>) {
        self.members.insert(name, json);
    }

    /// The answer to a request for metadata: of the resource whose path follows the well-known one.
    pub(super) fn answer(
        &self,
        head: &Parts,
        origin: &str,
        algorithms: &[&str],
    ) -> Option<Response<Bytes>> {
        let path = head.uri.path().strip_prefix(PATH)?;
        let is_ours = path.is_empty() || path.starts_with('/');
        if head.method != Method::GET || !is_ours {
            return None;
        }
        let mut members = BTreeMap::from(
            [
                ("resource", json!(format!("{origin}{path}"))),
                ("authorization_servers", json!([self.issuer])),
                ("dpop_signing_alg_values_supported", json!(algorithms)),
                ("dpop_bound_access_tokens_required", json!(true)),
            ]
            .map(|(name, value)| (name.to_owned(), Some(value.to_string()))),
        );
        members.extend(self.members.clone());
        // Written by hand, since a member may be any text.
        let members: Vec<String> = members
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{}:{}", json!(name), value?)))
            .collect();
        Some(answer::json(
            StatusCode::OK,
            format!("{{{}}}", members.join(",")),
        ))
    }

    /// The URL of the metadata of the resource with this path, fit for a quoted string.
    pub(super) fn url(origin: &str, path: &str) -> String {
        // The slash of the empty path is not part of a resource's name (RFC 9728, section 3.1).
        let path = if path == "/" { "" } else { path };
        let path = path.replace('"', "%22").replace('\\', "%5C");
        format!("{origin}{PATH}{path}")
    }
}
