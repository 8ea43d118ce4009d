//! What servers do in their own way, as data. The default of everything is what RFC 9449 asks for.

use std::time::Duration;

use http::StatusCode;

use crate::{
    Algorithm,
    proof::{MAX_AGE, MAX_AHEAD, VERIFIED, same_target},
    testing::{Nonces, TokenFormat, shared::Fault},
};

/// All that a profile sets.
#[derive(Clone, Copy)]
pub(in crate::testing) struct Rules {
    pub(in crate::testing) token: TokenRules,
    pub(in crate::testing) resource: ResourceRules,
}

/// How an authorization server behaves.
#[derive(Clone, Copy)]
pub(in crate::testing) struct TokenRules {
    pub(in crate::testing) proof: ProofRules,
    pub(in crate::testing) nonces: fn() -> Nonces,
    /// Whether a client that authenticates is asked for a nonce, too.
    pub(in crate::testing) nonces_for_all_clients: bool,
    /// Whether a request without a proof gets a token that is bound to no key.
    pub(in crate::testing) unbound_without_proof: bool,
    /// Whether the refresh tokens of a client that authenticates are bound to a key, too.
    pub(in crate::testing) binds_all_refresh_tokens: bool,
    pub(in crate::testing) refusals: Refusals,
    /// Whether a refusal with 401 has a challenge beside its JSON body.
    pub(in crate::testing) challenges: bool,
    pub(in crate::testing) format: TokenFormat,
    pub(in crate::testing) token_type: &'static str,
}

/// How a resource server behaves.
#[derive(Clone, Copy)]
pub(in crate::testing) struct ResourceRules {
    pub(in crate::testing) proof: ProofRules,
    pub(in crate::testing) nonces: fn() -> Nonces,
    pub(in crate::testing) scheme: Scheme,
    /// Whether a bound token that is sent as Bearer is good if a proof is there.
    pub(in crate::testing) bearer_with_proof: bool,
    /// Values of `Authorization` and `DPoP` of so many bytes are refused.
    pub(in crate::testing) too_long: usize,
    /// Whether a path that starts with two slashes is refused.
    pub(in crate::testing) refuses_two_slashes: bool,
    /// Whether methods beside the usual eight are refused.
    pub(in crate::testing) refuses_other_methods: bool,
    pub(in crate::testing) refusals: Refusals,
    pub(in crate::testing) challenges: Challenges,
}

/// How proofs are checked.
#[derive(Clone, Copy)]
pub(in crate::testing) struct ProofRules {
    /// As `algs` and `dpop_signing_alg_values_supported` tell them: those of the server, which may be more than can be checked.
    pub(in crate::testing) algorithms: &'static [&'static str],
    pub(in crate::testing) max_age: Duration,
    pub(in crate::testing) max_ahead: Duration,
    /// Whether the nonce stands for the time: `iat` is looked at only where there is none.
    pub(in crate::testing) nonce_for_iat: bool,
    /// Whether the URL of a request is that of its `Host`, not the one that the server knows of itself.
    pub(in crate::testing) host_of_request: bool,
    pub(in crate::testing) same_target: fn(&str, &str) -> bool,
    pub(in crate::testing) replay: Replay,
    /// Whether a nonce is ignored where none was asked for.
    pub(in crate::testing) ignores_stray_nonces: bool,
}

/// Which proofs are refused as used before.
#[derive(Clone, Copy)]
pub(in crate::testing) struct Replay {
    pub(in crate::testing) scope: ReplayScope,
    /// How long a `jti` is remembered, if not just as long as its proof could be accepted.
    pub(in crate::testing) kept: Option<Duration>,
    /// How many are remembered of one key, and of all; a proof beyond that is refused.
    pub(in crate::testing) capacity: Option<(usize, usize)>,
}

/// What a `jti` must be used only once with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::testing) enum ReplayScope {
    /// Nobody remembers any.
    Nothing,
    Key,
    Htu,
}

/// How the scheme in `Authorization` is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::testing) enum Scheme {
    /// In upper and lower case (RFC 9110, section 11.1).
    AnyCase,
    Exactly,
    /// With a single space after it.
    ExactlyWithOneSpace,
}

/// How a refusal of a proof reads.
#[derive(Clone, Copy)]
pub(in crate::testing) struct Refusals {
    /// The server's own code and text for a broken rule.
    pub(in crate::testing) rename: fn(Fault) -> Fault,
    /// Whether the text is told.
    pub(in crate::testing) description: bool,
    /// What answers `invalid_dpop_proof`; for the rest it is what the server's kind uses.
    pub(in crate::testing) bad_proof: StatusCode,
}

/// How the `WWW-Authenticate` of a resource server looks.
#[derive(Clone, Copy)]
pub(in crate::testing) struct Challenges {
    /// In place of any challenge, if set.
    pub(in crate::testing) generic: Option<&'static str>,
    pub(in crate::testing) scheme: &'static str,
    pub(in crate::testing) algorithms: bool,
    /// Another challenge, before ours in the same field.
    pub(in crate::testing) before: Option<&'static str>,
    /// Another challenge to whoever shows no token, in a field of its own before ours.
    pub(in crate::testing) other_field: Option<&'static str>,
    /// Whether error and text stand in a JSON body, too.
    pub(in crate::testing) json: bool,
}

impl Rules {
    pub(in crate::testing) const RFC: Self = Self {
        token: TokenRules {
            proof: ProofRules::RFC,
            nonces: Nonces::off,
            nonces_for_all_clients: true,
            unbound_without_proof: false,
            binds_all_refresh_tokens: false,
            refusals: Refusals {
                bad_proof: StatusCode::BAD_REQUEST,
                ..Refusals::RFC
            },
            challenges: false,
            format: TokenFormat::Opaque,
            token_type: "DPoP",
        },
        resource: ResourceRules {
            proof: ProofRules::RFC,
            nonces: Nonces::off,
            scheme: Scheme::AnyCase,
            bearer_with_proof: false,
            too_long: usize::MAX,
            refuses_two_slashes: false,
            refuses_other_methods: false,
            refusals: Refusals::RFC,
            challenges: Challenges::RFC,
        },
    };
}

impl ProofRules {
    pub(in crate::testing) const RFC: Self = Self {
        algorithms: &["ES256"],
        max_age: MAX_AGE,
        max_ahead: MAX_AHEAD,
        nonce_for_iat: false,
        host_of_request: false,
        same_target,
        replay: Replay::RFC,
        ignores_stray_nonces: false,
    };

    /// Those of the server's algorithms that can be checked.
    pub(in crate::testing) fn verified_algorithms(&self) -> Vec<Algorithm> {
        let listed = |one: &&Algorithm| self.algorithms.contains(&one.as_str());
        VERIFIED.iter().filter(listed).copied().collect()
    }
}

impl Replay {
    pub(in crate::testing) const RFC: Self = Self {
        scope: ReplayScope::Key,
        kept: None,
        capacity: None,
    };

    pub(in crate::testing) const OFF: Self = Self {
        scope: ReplayScope::Nothing,
        ..Self::RFC
    };
}

impl Refusals {
    pub(in crate::testing) const RFC: Self = Self {
        rename: |fault| fault,
        description: true,
        bad_proof: StatusCode::UNAUTHORIZED,
    };
}

impl Challenges {
    pub(in crate::testing) const RFC: Self = Self {
        generic: None,
        scheme: "DPoP",
        algorithms: true,
        before: None,
        other_field: None,
        json: false,
    };
}
