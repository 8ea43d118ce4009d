//! The modules of the OpenID Foundation's conformance suite for clients, plan
//! `fapi2-security-profile-final-client-test-plan` with `sender_constrain=dpop` and `client_auth_type=private_key_jwt`,
//! rebuilt by name against the embedded servers.
//!
//! Each module runs for the plan's two profiles, where it has both: *client credentials*
//! (`fapi_client_credentials_grant`) and *code* (`plain_fapi`, `plain_oauth`: a pushed authorization request, PKCE,
//! `iss`). The client has both layers, and for the code an [`OAuthClient`](tower_dpop::OAuthClient). Whatever reaches a
//! server in a module is judged by the suite's conditions ([`judge`]): each proof, each client assertion, the pushed
//! request, the browser's request, the code's exchange.
//!
//! | module, after `fapi2-security-profile-final-client-` | client credentials | code | here |
//! |---|---|---|---|
//! | `test-happy-path` | yes | yes | [`happy`] |
//! | `test-happy-path-no-dpop-nonce` | yes | yes | [`happy`] |
//! | `test-happy-path-no-mtls-endpoint-aliases` | yes | yes | [`happy`]; all others run with aliases, that lead nowhere |
//! | `test-token-type-case-insensitivity` | yes | yes | [`happy`] |
//! | `test-rs-dpop-auth-scheme-case-insensitivity` | not in the plan, run | yes | [`happy`] |
//! | `test-token-endpoint-response-without-expires_in` | yes | yes | [`happy`] |
//! | `refresh-token-test` | no: it gives no refresh tokens | not in the plan (of Brazil's profile), run | [`refresh`] |
//! | `test-discovery-issuer-mismatch` | not in the plan, run | yes | [`refusals`] |
//! | `test-invalid-authorization-response-iss` | no response | yes | [`refusals`] |
//! | `test-remove-authorization-response-iss` | no response | yes | [`refusals`] |
//! | `test-ensure-authorization-response-with-invalid-state-fails` | no response | yes | [`refusals`] |
//! | `test-ensure-authorization-response-with-invalid-missing-state-fails` | no response | yes | [`refusals`] |
//!
//! Left out, because the crate does not do what they are about:
//!
//! - ID tokens (`test-invalid-iss`, `-invalid-aud`, `-invalid-secondary-aud`, `-invalid-null-alg`, `-invalid-alternate-alg`,
//!   `-invalid-expired-exp`, `-invalid-missing-exp`, `-invalid-missing-aud`, `-invalid-missing-iss`, `-valid-aud-as-array`,
//!   `-invalid-nonce`, `-invalid-missing-nonce`): they need `fapi_client_type=oidc`;
//! - signed responses (`test-ensure-jarm-…`), which this plan leaves out as well: the crate refuses a response that is a
//!   JWT, see [`refusals`];
//! - grant management (`test-grant-management-…`), and what is another profile's alone (mTLS, RAR, request objects).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod checker;
#[path = "../support/conditions.rs"]
mod conditions;
mod happy;
mod judge;
mod refresh;
mod refusals;
mod suite;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "../support/verifier.rs"]
mod verifier;
