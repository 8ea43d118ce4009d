use crate::{access_token::AccessToken, budget::Budget, key::DpopKey, nonce::Role, origin::Origin};

/// All that stays the same over the sendings of one request. Key, `ath` and `Authorization` come from one
/// snapshot, so a token that is renewed meanwhile cannot mix with this one.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where the request goes, whatever its path.
    pub(super) origin: Origin,
    pub(super) signer: Signer,
}

#[derive(Debug)]
pub(super) enum Signer {
    /// A request to a resource server, with this token and its key.
    Token(AccessToken),
    /// A request to an authorization server.
    Key(DpopKey),
}

impl Plan {
    pub(super) fn origin(&self) -> &str {
        self.origin.as_str()
    }

    pub(super) fn token(&self) -> Option<&AccessToken> {
        match &self.signer {
            Signer::Token(token) => Some(token),
            Signer::Key(_) => None,
        }
    }

    pub(super) fn key(&self) -> &DpopKey {
        match &self.signer {
            Signer::Token(token) => token.key(),
            Signer::Key(key) => key,
        }
    }

    pub(super) fn role(&self) -> Role {
        match self.signer {
            Signer::Token(_) => Role::ResourceServer,
            Signer::Key(_) => Role::AuthorizationServer,
        }
    }

    pub(super) fn budget(&self) -> Budget {
        self.token().map_or(Budget::FULL, AccessToken::budget)
    }
}
