//! An authorization server without its port: what it knows, and which endpoint a request is for.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Response, StatusCode, header::ALLOW, request::Parts};

use super::{
    answer::Refusal,
    assertion::UsedAssertions,
    authorization_request::Pushed,
    client::{Clients, Credential},
    client_assertion,
    codes::Codes,
    devices::Devices,
    endpoints::{authorize, device, introspect, keys, metadata, par, revoke},
    form::Form,
    refresh_tokens::RefreshTokens,
    server::Endpoint,
    settings::Settings,
    shared::{Fault, Random, Shared, lock},
    token_endpoint,
    tokens::Tokens,
};
use crate::proof::{DPOP, ValidProof};

pub(super) type Answer = Result<Response<Bytes>, Refusal>;

/// Who a flow with a user is in the name of.
pub(super) const USER: &str = "user";

pub(super) struct Issuer {
    shared: Shared,
    tokens: Arc<Tokens>,
    state: Mutex<State>,
}

/// All under one lock, so that each request is one step: what is good once cannot be used by two at a time.
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) clients: Clients,
    pub(super) used_assertions: UsedAssertions,
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) pushed: Pushed,
    pub(super) codes: Codes,
    pub(super) devices: Devices,
    /// Tokens of others that may be exchanged.
    pub(super) subject_tokens: BTreeSet<String>,
    /// What those whom the server trusts sign assertions with, by their names.
    pub(super) trusted: HashMap<String, Credential>,
}

/// A request by POST of a client to an endpoint where a proof may be.
pub(super) struct ClientRequest {
    pub(super) form: Form,
    pub(super) client_id: String,
    pub(super) proof: Option<ValidProof>,
}

impl Issuer {
    pub(super) fn new(shared: Shared, tokens: Arc<Tokens>) -> Self {
        let state = State {
            settings: Settings::new(),
            clients: Clients::default(),
            used_assertions: UsedAssertions::default(),
            refresh_tokens: RefreshTokens::new(),
            pushed: Pushed::default(),
            codes: Codes::default(),
            devices: Devices::new(),
            subject_tokens: BTreeSet::new(),
            trusted: HashMap::new(),
        };
        Self {
            shared,
            tokens,
            state: Mutex::new(state),
        }
    }

    /// The issuer identifier.
    pub(super) fn name(&self) -> &str {
        self.shared.origin()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.name())
    }

    pub(super) fn now(&self) -> Duration {
        self.shared.now()
    }

    /// Whether a client's refresh tokens are bound to a key. One with a secret is bound to its tokens by that,
    /// and may change the key (RFC 9449, section 5).
    pub(super) fn binds_refresh_tokens(&self, state: &State, client_id: &str) -> bool {
        state.clients.is_public(client_id) || self.shared.rules().token.binds_all_refresh_tokens
    }

    /// The algorithms that proofs may be signed with, as the metadata tell them.
    pub(super) fn algorithms(&self) -> &'static [&'static str] {
        self.shared.rules().token.proof.algorithms
    }

    pub(super) fn random(&self) -> &Random {
        self.shared.random()
    }

    pub(super) fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The proof of a request to an endpoint, with its nonce; none, if there is none and the server does without.
    pub(super) fn check_proof(
        &self,
        state: &State,
        head: &Parts,
        form: &Form,
        url: &str,
    ) -> Result<Option<ValidProof>, Refusal> {
        let client_id = form.get("client_id");
        let is_public = client_id.is_some_and(|id| state.clients.is_public(id));
        self.shared.check_token_proof(head, url, is_public)
    }

    /// All but the token endpoint have use for a proof, and do without. One that is there must be right.
    pub(super) fn client_request(
        &self,
        state: &mut State,
        head: &Parts,
        body: &Bytes,
        path: &str,
    ) -> Result<ClientRequest, Refusal> {
        let form = Form::read(head, body)?;
        let url = self.url(path);
        let assertion = client_assertion::check(self, state, &form, &url);
        let proof = if head.headers.contains_key(DPOP) {
            self.check_proof(state, head, &form, &url)?
        } else {
            None
        };
        let client_id = state
            .clients
            .authenticate(&head.headers, &form, assertion)?;
        Ok(ClientRequest {
            form,
            client_id,
            proof,
        })
    }
}

impl Endpoint for Issuer {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn decide(&self, head: &Parts, body: &Bytes) -> Answer {
        let state = &mut self.state();
        match head.uri.path() {
            token_endpoint::PATH => token_endpoint::decide(self, state, head, body),
            authorize::PATH => authorize::decide(self, state, head),
            par::PATH => par::decide(self, state, head, body),
            device::PATH => device::decide(self, state, head, body),
            revoke::PATH => revoke::decide(self, state, head, body),
            introspect::PATH => introspect::decide(self, state, head, body),
            keys::PATH => keys::decide(self, head),
            metadata::OAUTH_PATH | metadata::OPENID_PATH => metadata::decide(self, state, head),
            _ => Err(Refusal::empty(
                StatusCode::NOT_FOUND,
                "there is no endpoint at this path",
            )),
        }
    }
}

/// Refuses any other method.
pub(super) fn only(head: &Parts, method: &Method) -> Result<(), Refusal> {
    if head.method == *method {
        return Ok(());
    }
    let reason = if *method == Method::POST {
        "the method is not POST"
    } else {
        "the method is not GET"
    };
    Err(Refusal::empty(StatusCode::METHOD_NOT_ALLOWED, reason).header(ALLOW, method.as_str()))
}

pub(super) fn bad(fault: Fault) -> Refusal {
    Refusal::oauth(StatusCode::BAD_REQUEST, fault)
}

pub(super) fn invalid_request(reason: &'static str) -> Refusal {
    bad(Fault {
        code: "invalid_request",
        reason,
    })
}

pub(super) fn invalid_grant(reason: &'static str) -> Refusal {
    bad(Fault {
        code: "invalid_grant",
        reason,
    })
}
