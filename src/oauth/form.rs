//! A form, and what of it must not show.

use std::{borrow::Cow, cmp::Reverse};

use form_urlencoded::{Serializer, byte_serialize};
use zeroize::Zeroizing;

/// Parameters whose values are no secrets; an error that names them helps.
const PUBLIC: [&str; 17] = [
    "acr_values",
    "audience",
    "client_id",
    "client_assertion_type",
    "code_challenge_method",
    "display",
    "grant_type",
    "max_age",
    "prompt",
    "redirect_uri",
    "resource",
    "response_mode",
    "response_type",
    "scope",
    "subject_token_type",
    "token_type_hint",
    "ui_locales",
];

/// How much longer a text gets in a form, at the most. What has all its room from the start does not grow: a text
/// that grows leaves copies behind.
const FORM_FACTOR: usize = 3;

/// The parameters of a request, in order.
#[derive(Clone, Default)]
pub(crate) struct Form(Vec<(Cow<'static, str>, Zeroizing<String>)>);

impl Form {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
    ) -> Self {
        self.push(name, Zeroizing::new(value.into()));
        self
    }

    pub(crate) fn push(&mut self, name: impl Into<Cow<'static, str>>, value: Zeroizing<String>) {
        self.0.push((name.into(), value));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.pairs();
        pairs.find_map(|(known, value)| (known == name).then_some(value))
    }

    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    pub(crate) fn encode(&self) -> Zeroizing<String> {
        let room = |(name, value): (&str, &str)| (name.len() + value.len()) * FORM_FACTOR + 2;
        let form = String::with_capacity(self.pairs().map(room).sum());
        Zeroizing::new(Serializer::new(form).extend_pairs(self.pairs()).finish())
    }

    /// The values that must not show in any error: all but those of parameters that are known to be no secrets.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Zeroizing<String>> {
        self.0
            .iter()
            .filter(|(name, _)| !PUBLIC.contains(&&**name))
            .map(|(_, value)| value.clone())
    }
}

/// A value as a form holds it.
pub(crate) fn encoded(text: &str) -> Zeroizing<String> {
    let mut form = Zeroizing::new(String::with_capacity(text.len() * FORM_FACTOR));
    form.extend(byte_serialize(text.as_bytes()));
    form
}

/// Secrets as they are and as they are sent, the longest first: one may be a part of another.
pub(crate) fn all_forms(
    secrets: impl Iterator<Item = Zeroizing<String>>,
) -> Vec<Zeroizing<String>> {
    let mut all: Vec<_> = secrets.filter(|secret| !secret.is_empty()).collect();
    let encoded: Vec<_> = all.iter().map(|secret| encoded(secret)).collect();
    all.extend(encoded);
    all.sort_by_key(|secret| Reverse(secret.len()));
    all
}
