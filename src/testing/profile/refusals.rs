//! Refusals as each server writes them.

use http::{StatusCode, header::WWW_AUTHENTICATE};
use serde_json::json;

use super::rules::{Challenges, Refusals, ResourceRules, TokenRules};
use crate::testing::{
    answer::{self, Refusal},
    shared::Fault,
};

/// What is wrong with a proof that was used before.
pub(in crate::testing) const REPLAYED: &str = "`jti` was used before";

/// At an authorization server: JSON (RFC 6749, section 5.2).
pub(in crate::testing) fn token_refusal(rules: &TokenRules, fault: Fault) -> Refusal {
    let told = (rules.refusals.rename)(fault);
    let status = status(&rules.refusals, told, StatusCode::BAD_REQUEST);
    let mut refusal = body(&rules.refusals, status, told);
    refusal.reason = fault.reason;
    if rules.challenges && status == StatusCode::UNAUTHORIZED {
        let text = challenge(
            &rules.refusals,
            &Challenges::RFC,
            rules.proof.algorithms,
            told,
        );
        refusal = refusal.header(WWW_AUTHENTICATE, &text);
    }
    refusal
}

/// At a resource server: a challenge (RFC 9449, section 7.1).
pub(in crate::testing) fn resource_refusal(rules: &ResourceRules, fault: Fault) -> Refusal {
    let told = (rules.refusals.rename)(fault);
    let otherwise = match told.code {
        "invalid_request" => StatusCode::BAD_REQUEST,
        _ => StatusCode::UNAUTHORIZED,
    };
    let challenges = &rules.challenges;
    if let Some(generic) = challenges.generic {
        return Refusal::empty(StatusCode::UNAUTHORIZED, fault.reason)
            .header(WWW_AUTHENTICATE, generic);
    }
    let status = status(&rules.refusals, told, otherwise);
    let mut refusal = match challenges.json {
        true => body(&rules.refusals, status, told),
        false => Refusal::empty(status, fault.reason),
    };
    refusal.reason = fault.reason;
    let text = challenge(&rules.refusals, challenges, rules.proof.algorithms, told);
    refusal.header(WWW_AUTHENTICATE, &text)
}

/// At a resource server: who shows no credentials that could be wrong is told no error (RFC 6750, section
/// 3.1), but perhaps where the resource's metadata are (RFC 9728, section 5.1).
pub(in crate::testing) fn no_credentials(
    rules: &ResourceRules,
    reason: &'static str,
    metadata: Option<&str>,
) -> Refusal {
    let challenges = &rules.challenges;
    let mut refusal = Refusal::empty(StatusCode::UNAUTHORIZED, reason);
    let mut text = match challenges.generic {
        Some(generic) => generic.to_owned(),
        None => {
            if let Some(other) = challenges.other_field {
                refusal = refusal.header(WWW_AUTHENTICATE, other);
            }
            let algorithms = challenges
                .algorithms
                .then(|| format!(r#" algs="{}""#, rules.proof.algorithms.join(" ")));
            before(challenges) + challenges.scheme + &algorithms.unwrap_or_default()
        }
    };
    if let Some(metadata) = metadata {
        text += if text.ends_with('"') { ", " } else { " " };
        text += &format!(r#"resource_metadata="{metadata}""#);
    }
    refusal.header(WWW_AUTHENTICATE, &text)
}

fn status(refusals: &Refusals, told: Fault, otherwise: StatusCode) -> StatusCode {
    match told.code {
        "invalid_dpop_proof" => refusals.bad_proof,
        _ => otherwise,
    }
}

fn body(refusals: &Refusals, status: StatusCode, told: Fault) -> Refusal {
    if refusals.description {
        return Refusal::oauth(status, told);
    }
    Refusal {
        response: Box::new(answer::json(
            status,
            json!({ "error": told.code }).to_string(),
        )),
        reason: told.reason,
    }
}

fn challenge(
    refusals: &Refusals,
    challenges: &Challenges,
    algorithms: &[&str],
    told: Fault,
) -> String {
    let Fault { code, reason } = told;
    let mut text = format!(
        r#"{}{} error="{code}""#,
        before(challenges),
        challenges.scheme
    );
    if refusals.description {
        text += &format!(r#", error_description="{reason}""#);
    }
    if challenges.algorithms {
        text += &format!(r#", algs="{}""#, algorithms.join(" "));
    }
    text
}

fn before(challenges: &Challenges) -> String {
    let before = challenges.before.map(|before| format!("{before}, "));
    before.unwrap_or_default()
}

/// Everything is `invalid_request`, with a text of its own.
pub(super) fn keycloak(fault: Fault) -> Fault {
    let reason = match fault.reason {
        "there is no DPoP header" => "DPoP proof is missing",
        "`htu` is not the target of this request" => "DPoP HTTP URL mismatch",
        "`htm` is not the method of this request" => "DPoP HTTP method mismatch",
        "`iat` is too long ago" | "`iat` is in the future" => "DPoP proof is not active",
        REPLAYED => "DPoP proof has already been used",
        _ if fault.code != "invalid_dpop_proof" => return fault,
        other => other,
    };
    Fault {
        code: "invalid_request",
        reason,
    }
}

/// A proof that is missing or was used before counts as a bad grant.
pub(super) fn node(fault: Fault) -> Fault {
    match fault.reason {
        "there is no DPoP header" => Fault {
            code: "invalid_grant",
            reason: "DPoP proof JWT not provided",
        },
        REPLAYED => Fault {
            code: "invalid_grant",
            reason: "DPoP proof JWT Replay detected",
        },
        _ => fault,
    }
}

/// Two proofs are a bad request.
pub(super) fn spring(fault: Fault) -> Fault {
    match fault.reason {
        "there is more than one DPoP header" => Fault {
            code: "invalid_request",
            reason: fault.reason,
        },
        _ => fault,
    }
}

/// A bound token without a proof is a bad token.
pub(super) fn gateway(fault: Fault) -> Fault {
    match fault.reason {
        "there is no DPoP header" => Fault {
            code: "invalid_token",
            reason: fault.reason,
        },
        _ => fault,
    }
}
