//! The rules of each server. What is not named is as RFC 9449 has it.

use std::time::Duration;

use http::StatusCode;

use super::{
    htu, refusals,
    rules::{
        Challenges, ProofRules, Refusals, Replay, ReplayScope, ResourceRules, Rules, Scheme,
        TokenRules,
    },
};
use crate::testing::{Nonces, TokenFormat};

const TOKEN: TokenRules = Rules::RFC.token;
const RESOURCE: ResourceRules = Rules::RFC.resource;

const RS_ES: &[&str] = &["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];
const ES_PS: &[&str] = &["ES256", "ES384", "ES512", "PS256", "PS384", "PS512"];
const RS_PS_ES: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
];
const ASYMMETRIC: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
];

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Proofs that are at most so many seconds old, and so many ahead.
const fn within(max_age: u64, max_ahead: u64) -> ProofRules {
    ProofRules {
        max_age: seconds(max_age),
        max_ahead: seconds(max_ahead),
        ..ProofRules::RFC
    }
}

pub(super) const WSO2: Rules = {
    let proof = ProofRules {
        algorithms: RS_PS_ES,
        max_ahead: Duration::MAX,
        same_target: htu::ignoring_case,
        replay: Replay::OFF,
        ignores_stray_nonces: true,
        ..within(60, 0)
    };
    Rules {
        token: TokenRules {
            proof,
            unbound_without_proof: true,
            binds_all_refresh_tokens: true,
            ..TOKEN
        },
        resource: ResourceRules {
            proof: ProofRules {
                host_of_request: true,
                ..proof
            },
            scheme: Scheme::ExactlyWithOneSpace,
            challenges: Challenges {
                generic: Some(r#"realm user="""#),
                ..Challenges::RFC
            },
            ..RESOURCE
        },
    }
};

pub(super) const WSO2_GATEWAY: Rules = Rules {
    token: WSO2.token,
    resource: ResourceRules {
        proof: ProofRules {
            algorithms: ES_PS,
            host_of_request: true,
            same_target: htu::loosely,
            replay: Replay {
                kept: Some(seconds(120)),
                ..Replay::RFC
            },
            ignores_stray_nonces: true,
            ..within(60, 60)
        },
        bearer_with_proof: true,
        refusals: Refusals {
            rename: refusals::gateway,
            ..Refusals::RFC
        },
        ..RESOURCE
    },
};

pub(super) const KEYCLOAK: Rules = {
    let proof = ProofRules {
        algorithms: ASYMMETRIC,
        host_of_request: true,
        same_target: htu::as_java_uri,
        replay: Replay {
            scope: ReplayScope::Htu,
            ..Replay::RFC
        },
        ignores_stray_nonces: true,
        ..within(25, 15)
    };
    Rules {
        token: TokenRules {
            proof,
            refusals: Refusals {
                rename: refusals::keycloak,
                ..TOKEN.refusals
            },
            format: TokenFormat::Signed,
            ..TOKEN
        },
        resource: ResourceRules {
            proof,
            scheme: Scheme::Exactly,
            ..RESOURCE
        },
    }
};

pub(super) const DUENDE: Rules = Rules {
    token: TokenRules {
        proof: ProofRules {
            algorithms: RS_PS_ES,
            ..within(60 + 300, 300)
        },
        format: TokenFormat::Signed,
        ..TOKEN
    },
    resource: ResourceRules {
        proof: ProofRules {
            algorithms: RS_PS_ES,
            ..within(5 + 25, 25)
        },
        too_long: 4000,
        challenges: Challenges {
            algorithms: false,
            ..Challenges::RFC
        },
        ..RESOURCE
    },
};

pub(super) const NODE: Rules = {
    let proof = ProofRules {
        algorithms: ASYMMETRIC,
        nonce_for_iat: true,
        replay: Replay {
            kept: Some(seconds(300)),
            ..Replay::RFC
        },
        ..within(300, 300)
    };
    Rules {
        token: TokenRules {
            proof,
            refusals: Refusals {
                rename: refusals::node,
                ..TOKEN.refusals
            },
            ..TOKEN
        },
        resource: ResourceRules {
            proof,
            challenges: Challenges {
                other_field: Some("Bearer"),
                ..Challenges::RFC
            },
            ..RESOURCE
        },
    }
};

pub(super) const OKTA: Rules = {
    let proof = ProofRules {
        algorithms: RS_ES,
        max_age: seconds(300),
        ..ProofRules::RFC
    };
    Rules {
        token: TokenRules {
            proof,
            // Good for three days from its making, and the newest for one.
            nonces: || Nonces::rotating(DAY).previous(2),
            format: TokenFormat::Signed,
            ..TOKEN
        },
        resource: ResourceRules { proof, ..RESOURCE },
    }
};

pub(super) const AUTH0: Rules = Rules {
    token: TokenRules {
        proof: ProofRules {
            algorithms: &["ES256", "RS256"],
            ..ProofRules::RFC
        },
        nonces: Nonces::required,
        nonces_for_all_clients: false,
        format: TokenFormat::Signed,
        ..TOKEN
    },
    resource: ResourceRules {
        proof: ProofRules {
            replay: Replay::OFF,
            ignores_stray_nonces: true,
            host_of_request: true,
            ..within(300, 30)
        },
        refuses_two_slashes: true,
        refusals: Refusals {
            bad_proof: StatusCode::BAD_REQUEST,
            ..Refusals::RFC
        },
        challenges: Challenges {
            before: Some(r#"Bearer realm="api""#),
            ..Challenges::RFC
        },
        ..RESOURCE
    },
};

pub(super) const BLUESKY: Rules = {
    let proof = ProofRules {
        algorithms: ASYMMETRIC,
        ..within(10 + 180, 180)
    };
    // The one that is given is the next; it is good while it is that, the current and the previous one.
    let nonces: fn() -> Nonces = || Nonces::rotating(MINUTE).previous(2);
    Rules {
        token: TokenRules {
            proof,
            nonces,
            refusals: Refusals {
                bad_proof: StatusCode::UNAUTHORIZED,
                ..Refusals::RFC
            },
            challenges: true,
            format: TokenFormat::Signed,
            ..TOKEN
        },
        resource: ResourceRules {
            proof,
            nonces,
            challenges: Challenges {
                json: true,
                ..Challenges::RFC
            },
            ..RESOURCE
        },
    }
};

pub(super) const SPRING: Rules = {
    let proof = ProofRules {
        algorithms: RS_PS_ES,
        host_of_request: true,
        same_target: htu::exactly,
        ignores_stray_nonces: true,
        ..within(30, 30)
    };
    let refusals = Refusals {
        rename: refusals::spring,
        description: false,
        ..TOKEN.refusals
    };
    Rules {
        token: TokenRules {
            proof,
            unbound_without_proof: true,
            refusals,
            format: TokenFormat::Signed,
            ..TOKEN
        },
        resource: ResourceRules {
            proof: ProofRules {
                replay: Replay {
                    capacity: Some((1000, 100_000)),
                    ..Replay::RFC
                },
                ..proof
            },
            refuses_other_methods: true,
            refusals: Refusals {
                description: false,
                ..Refusals::RFC
            },
            ..RESOURCE
        },
    }
};

pub(super) const CURITY: Rules = Rules {
    token: TokenRules {
        proof: within(10, 10),
        ..TOKEN
    },
    resource: ResourceRules {
        proof: within(10, 10),
        ..RESOURCE
    },
};

pub(super) const FAPI_SUITE: Rules = {
    let proof = ProofRules {
        algorithms: &["PS256", "ES256", "EdDSA", "Ed25519"],
        same_target: htu::exactly_without_query,
        ..within(300, 300)
    };
    // A new one after each success, and told only to whoever comes with the old one.
    let nonces: fn() -> Nonces = || Nonces::one_time().only_in_errors().of_all_characters();
    Rules {
        token: TokenRules {
            proof,
            nonces,
            token_type: "dpOp",
            ..TOKEN
        },
        resource: ResourceRules {
            proof,
            nonces,
            challenges: Challenges {
                scheme: "dPoP",
                ..Challenges::RFC
            },
            ..RESOURCE
        },
    }
};
