use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{Error, Kind},
    json::{Members, number, text},
    key::DpopKey,
};

/// What an authorization server knows of an access token (RFC 7662, section 2.2).
pub struct Introspection {
    active: bool,
    scope: Option<String>,
    client_id: Option<String>,
    subject: Option<String>,
    issuer: Option<String>,
    expires_at: Option<SystemTime>,
    thumbprint: Option<String>,
}

impl Introspection {
    pub(super) fn read(members: &Members<'_>, key: &DpopKey) -> Result<Self, Error> {
        let active = members.get("active").map(|raw| raw.get());
        let active = match active {
            Some("true") => true,
            Some("false") => false,
            _ => {
                return Err(Error::new(
                    Kind::BadResponse,
                    "the answer of the introspection endpoint does not tell whether the token is `active` \
                     (RFC 7662, section 2.2)",
                ));
            }
        };
        let text = |name| text(members, name).map(|text| text.to_string());
        let cnf: Option<Members<'_>> = members
            .get("cnf")
            .and_then(|cnf| serde_json::from_str(cnf.get()).ok());
        let thumbprint = cnf.and_then(|cnf| crate::json::text(&cnf, "jkt"));
        if thumbprint
            .as_ref()
            .is_some_and(|bound| **bound != key.thumbprint())
        {
            return Err(Error::new(
                Kind::OtherKey,
                "the authorization server says that the access token is bound to another key (`cnf.jkt`) than it is \
                 used with",
            ));
        }
        let expires_at = number(members, "exp")
            .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        Ok(Self {
            active,
            scope: text("scope"),
            client_id: text("client_id"),
            subject: text("sub"),
            issuer: text("iss"),
            expires_at,
            thumbprint: thumbprint.map(|thumbprint| thumbprint.to_string()),
        })
    }

    /// Whether the token is good. Of one that is not, nothing else is known.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// The scopes, separated by spaces.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The client that the token was given to.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// In whose name it was given (`sub`).
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Who gave it (`iss`).
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// When it ends, by the server's clock (`exp`).
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// The thumbprint of the key that it is bound to (`cnf.jkt`; RFC 9449, section 6.2): that of the key it is used
    /// with, or the introspection had been an error. None if the server does not say so.
    #[must_use]
    pub fn thumbprint(&self) -> Option<&str> {
        self.thumbprint.as_deref()
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection")
            .field("active", &self.active)
            .field("scope", &self.scope)
            .field("client_id", &self.client_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
