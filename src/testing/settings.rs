//! What a test sets an authorization server to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{TokenFormat, grants};

/// Short, as RFC 9700 asks, and longer than any test runs.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

pub(super) struct Settings {
    pub(super) lifetime: Duration,
    pub(super) format: TokenFormat,
    pub(super) token_type: String,
    pub(super) expires_in: ExpiresIn,
    /// Grant types whose answers hold a refresh token.
    pub(super) refreshed: BTreeSet<String>,
    /// Grant types that are let through as they are.
    pub(super) custom_grants: BTreeSet<String>,
    pub(super) deny_authorizations: bool,
    pub(super) require_pushed: bool,
    /// Whether an assertion's `aud` must be the issuer.
    pub(super) strict_audience: bool,
    /// Members of the metadata that are another than they should be, as JSON text; None for one left out.
    pub(super) metadata: BTreeMap<String, Option<String>>,
}

/// What an answer says about a token's life.
pub(super) enum ExpiresIn {
    Truth,
    Json(String),
    LeftOut,
}

impl Settings {
    pub(super) fn new() -> Self {
        let refreshed = [grants::AUTHORIZATION_CODE, grants::DEVICE_CODE];
        Self {
            lifetime: DEFAULT_LIFETIME,
            format: TokenFormat::default(),
            token_type: "DPoP".to_owned(),
            expires_in: ExpiresIn::Truth,
            refreshed: refreshed.map(str::to_owned).into(),
            custom_grants: BTreeSet::new(),
            deny_authorizations: false,
            require_pushed: false,
            strict_audience: false,
            metadata: BTreeMap::new(),
        }
    }
}
