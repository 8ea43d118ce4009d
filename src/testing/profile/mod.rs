//! How servers in use behave, where that touches a client.

mod htu;
mod refusals;
mod rules;
mod servers;

pub(super) use self::{
    refusals::{REPLAYED, no_credentials, resource_refusal, token_refusal},
    rules::{ProofRules, ReplayScope, ResourceRules, Rules, Scheme},
};

/// A server that is in use, for [`AuthorizationServer::profile`](super::AuthorizationServer::profile) and
/// [`ResourceServer::profile`](super::ResourceServer::profile): the embedded servers then accept, refuse and
/// answer as that one does.
///
/// ```
/// use tower_dpop::testing::{AuthorizationServer, Profile, ResourceServer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let authorization_server = AuthorizationServer::start().await?;
/// let resource_server = ResourceServer::start(&authorization_server).await?;
/// authorization_server.profile(Profile::Keycloak);
/// resource_server.profile(Profile::Keycloak);
/// # Ok(())
/// # }
/// ```
///
/// The tables say what differs from what the [module](super) describes, on either side, and what that asks of a
/// client. All else is as it is there, even where the server does otherwise in what no client comes upon.
/// *AS* is the authorization server, *RS* the resource server; a window is how old, and how far ahead of the
/// server's clock, an `iat` may be. What no source tells is as RFC 9449 has it, and named as unknown.
///
/// # Not the server itself
///
/// The statements come from the servers' source code or documentation of 2025 and 2026, in their default
/// configuration. Servers change, and most of this can be configured. A client that passes here may still fail
/// there: test against the server itself before you rely on it.
///
/// At both servers the `typ`, the `jwk`, the signature, `htm` and `ath` are held to the RFC. Of the
/// [`algorithms`](Self::algorithms) those can be checked that are an [`Algorithm`](crate::Algorithm): with the feature
/// `aws-lc-rs`, and ES256 alone without it. A proof with any other is refused, listed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// WSO2 Identity Server (source: `identity-oauth-dpop`, `identity-carbon-auth-rest`).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | window | 60 s; any time ahead | the same | a clock that is not behind |
    /// | `htu` | the whole text, ignoring case; a query is not cut off | the same, with the request's `Host` | the URL's bytes, no query |
    /// | `jti` | not remembered | not remembered | |
    /// | nonces | none; one that comes nevertheless is ignored | the same | |
    /// | no proof | a Bearer token | generic refusal | to refuse a Bearer token |
    /// | refusals | as in the RFC | 401 `realm user=""`: no code, not even a DPoP challenge | not to wait for a code |
    /// | scheme | | exactly `DPoP` and one space | exactly that |
    /// | tokens | opaque | | |
    /// | refresh tokens | bound to the key, for clients with a secret, too | | the same key at each refresh |
    ///
    /// There an application has to be set to DPoP binding: one that is not gets a Bearer token, whatever it
    /// sends, and one that is gets 400 `invalid_dpop_proof` without a proof. Here a request without a proof
    /// stands for the first. The list of algorithms is inferred from its key types: it accepts any `alg`, and
    /// its metadata name none.
    Wso2,

    /// The gateway of WSO2's Financial Services accelerator (source), with [`Wso2`](Self::Wso2) as
    /// authorization server.
    ///
    /// | what | RS | asks of a client |
    /// |---|---|---|
    /// | algorithms | ES256 to ES512, PS256 to PS512: no RS256, no EdDSA | ES256 |
    /// | window | 60 s; 60 s ahead | |
    /// | `htu` | without query, ignoring case and slashes at the end, with the request's `Host` | |
    /// | `jti` | once in 120 s for each key | |
    /// | nonces | none; one that comes nevertheless is ignored | |
    /// | refusals | always 401; a missing proof is `invalid_token` | not to take that for a bad token for ever |
    /// | scheme | a bound token as Bearer is good if a proof comes with it | |
    ///
    /// It can be set to nonces for each key, which this does not imitate; `Nonces::required` comes near, and
    /// [`rotate_nonce`](super::ResourceServer::rotate_nonce).
    Wso2Gateway,

    /// Keycloak 26 (source: `DPoPUtil.java`).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | window | 25 s; 15 s ahead; fixed in the code | the same | a good clock, or one set by `Date` |
    /// | `htu` | as `java.net.URI` compares, without query, with the request's `Host`: the default port differs from none | the same | no default port |
    /// | `jti` | once for each `htu`, whatever the key | the same | |
    /// | nonces | none; one that comes nevertheless is ignored | the same | |
    /// | refusals | 400 `invalid_request` with texts such as `DPoP proof is not active` | unknown: as in the RFC | to know a bad proof by its text, if at all |
    /// | scheme | | exactly `DPoP` | exactly that |
    /// | tokens | signed | | |
    ///
    /// A policy there can bind refresh tokens alone; the access token is then a Bearer one
    /// ([`token_type`](super::AuthorizationServer::token_type)).
    Keycloak,

    /// Duende IdentityServer, and its DPoP for ASP.NET's `JwtBearer` as resource server (source).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | algorithms | RS, PS and ES, 256 to 512 | the same | no EdDSA |
    /// | window | 360 s; 300 s ahead | 30 s; 25 s ahead | to sign last, and never queue a proof |
    /// | nonces | none, unless configured | none, unless configured | |
    /// | refusals | as in the RFC | no `algs` | |
    /// | length | | `Authorization` and the proof: less than 4000 bytes (for the proof, and the codes: inferred) | small tokens |
    /// | tokens | signed | | |
    ///
    /// With its nonces, they live for 60 s at the AS and 5 to 10 s at the RS, and are told in refusals only:
    /// `nonces(Nonces::rotating(Duration::from_secs(5)).only_in_errors())`.
    Duende,

    /// node `oidc-provider` 9 (source).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | window | 300 s; 300 s ahead; not looked at if there is a nonce | the same | |
    /// | `jti` | once in 300 s (of each client; here: of each key) | the same | |
    /// | nonces | none, unless configured; one from elsewhere is refused | the same | never a nonce of another server |
    /// | refusals | a missing proof and one that was used before: 400 `invalid_grant` | to a request without a token: `Bearer` and `DPoP` in a field each | not to give the grant up for it |
    ///
    /// Its nonces are `nonces(Nonces::rotating(Duration::from_secs(60)).previous(2))`.
    NodeOidcProvider,

    /// Okta (documentation and SDKs).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | algorithms | RS and ES, 256 to 512 (documented: RS256; the rest is inferred) | the same | |
    /// | window | 300 s; ahead: unknown | the same | |
    /// | nonces | required; a new one each day, and each is good for three | none | two requests for the first token, and a new client assertion for the second |
    /// | tokens | signed | | |
    Okta,

    /// Auth0, and its SDK `node-oauth2-jwt-bearer` as resource server (documentation; source of the SDK).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | algorithms | ES256 and RS256 | ES256 | ES256 |
    /// | window | unknown | 300 s; 30 s ahead | |
    /// | `htu` | unknown | normalised, with the request's `Host`; a path that starts with `//` is refused | |
    /// | `jti` | unknown | not remembered | |
    /// | nonces | required of clients without a secret | none; one that comes nevertheless is ignored | |
    /// | refusals | as in the RFC | 400 for a bad proof; `Bearer realm="api", DPoP error=…` in one field | to read challenges of a 400, and of more than one scheme |
    /// | tokens | signed | | |
    Auth0,

    /// Bluesky's PDS, with `@atproto/oauth-provider` (source).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | window | 190 s; 180 s ahead | the same | |
    /// | nonces | required, in every answer; a new one each minute, and each is good for three | the same, with others | to learn from each answer |
    /// | refusals | a bad proof is 401, with a challenge; the rest 400 | JSON beside the challenge | to read a 401 of an AS |
    /// | tokens | signed | | |
    Bluesky,

    /// Spring Authorization Server, and Spring Security as resource server (source, 6.5.12 and 7).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | algorithms | RS, PS and ES, 256 to 512 | the same | no EdDSA |
    /// | window | 30 s; 30 s ahead | the same | a good clock |
    /// | `htu` | exactly the URL of the request, with its `Host`; nothing is normalised | the same | the URL's bytes, and the same `Host` |
    /// | `jti` | once for each key | the same, and 1000 for each key and 100 000 in all: beyond that `invalid_dpop_proof` | to slow down, not to drop the token |
    /// | nonces | none; one that comes nevertheless is ignored (inferred) | the same | |
    /// | no proof | a Bearer token | as in the RFC | to refuse a Bearer token |
    /// | refusals | 400 `invalid_dpop_proof` without text; two proofs are `invalid_request` | 401, without text | |
    /// | methods | | the eight that Spring knows (the code is inferred) | |
    /// | tokens | signed | | |
    Spring,

    /// Curity Identity Server (documentation).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | window | 10 s; 10 s ahead | the same (inferred) | a very good clock |
    ///
    /// All else is unknown.
    Curity,

    /// The conformance suite of the OpenID Foundation, as server for FAPI 2.0 clients (source).
    ///
    /// | what | AS | RS | asks of a client |
    /// |---|---|---|---|
    /// | algorithms | PS256, ES256, EdDSA, Ed25519 | the same | |
    /// | window | 300 s; 300 s ahead | the same | |
    /// | `htu` | exactly, after query and fragment are cut off | the same | the URL's bytes |
    /// | nonces | required, good for one success, and told in refusals only; of 90 characters, whichever a nonce may hold | the same | to be challenged at every request, and to answer each time |
    /// | refusals | as in the RFC | the scheme is `dPoP` | schemes in any case |
    /// | `token_type` | `dpOp` | | types in any case |
    ///
    /// Its other variants can be ordered: no `expires_in`
    /// ([`expires_in`](super::AuthorizationServer::expires_in)), no nonces, a
    /// `Bearer error="invalid_token"` ([`refuse`](super::ResourceServer::refuse)).
    FapiSuite,
}

impl Profile {
    /// The algorithms for proofs that the resource server names in `algs` and as
    /// `dpop_signing_alg_values_supported` (RFC 9449, section 7.1; RFC 9728, section 2).
    ///
    /// They are the server's own, by any feature: more than the embedded one can check.
    #[must_use]
    pub fn algorithms(self) -> &'static [&'static str] {
        self.rules().resource.proof.algorithms
    }

    pub(super) fn rules(self) -> Rules {
        match self {
            Self::Wso2 => servers::WSO2,
            Self::Wso2Gateway => servers::WSO2_GATEWAY,
            Self::Keycloak => servers::KEYCLOAK,
            Self::Duende => servers::DUENDE,
            Self::NodeOidcProvider => servers::NODE,
            Self::Okta => servers::OKTA,
            Self::Auth0 => servers::AUTH0,
            Self::Bluesky => servers::BLUESKY,
            Self::Spring => servers::SPRING,
            Self::Curity => servers::CURITY,
            Self::FapiSuite => servers::FAPI_SUITE,
        }
    }
}
