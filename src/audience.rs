//! Where a token may go.

use std::{fmt, sync::Arc};

use crate::{
    error::Error,
    origin::{Origin, Target},
};

/// The origins that an access token may be sent to.
///
/// A required choice, because it is the one that keeps a token from leaking: whatever a redirect, a
/// mistyped URL or a layer in between does to a request, [`Dpop`](crate::Dpop) sends the token to these
/// origins and to no other. A request to any other origin passes untouched, without token and without proof.
#[derive(Clone)]
pub struct Audience(Allowed);

#[derive(Clone)]
enum Allowed {
    /// Sorted by their parts: programs exist that talk to thousands.
    Origins(Arc<[Origin]>),
    AnyHttps,
}

impl Audience {
    /// The listed origins, such as `https://api.example.com`. Ports count; paths are not part of an origin.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] for an empty list and for text that is no origin.
    pub fn origins<I>(origins: I) -> Result<Self, Error>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut origins: Vec<Origin> = origins
            .into_iter()
            .map(|origin| origin.as_ref().parse())
            .collect::<Result<_, _>>()?;
        origins.sort_unstable_by(|a, b| a.parts().cmp(&b.parts()));
        if origins.is_empty() {
            return Err(Error::config(
                "the audience is empty, so the token could go nowhere: list the API's origins, such as \
                 `https://api.example.com`",
            ));
        }
        Ok(Self(Allowed::Origins(origins.into())))
    }

    /// Every origin whose scheme is `https`.
    ///
    /// # Security
    ///
    /// Whoever can make the program send a request to a server of theirs, by a redirect or by a URL in some
    /// answer, gets the access token. The proof binds it to the key, and a proof is good for one request;
    /// yet the server learns the token and can recognise the key.
    #[must_use]
    pub fn danger_any_https_origin() -> Self {
        Self(Allowed::AnyHttps)
    }

    /// The origin of a target, if it is one of these.
    pub(crate) fn find(&self, target: &Target<'_>) -> Option<Origin> {
        match &self.0 {
            Allowed::Origins(origins) => listed(origins, target).cloned(),
            Allowed::AnyHttps => self.allows(target).then(|| target.to_origin()),
        }
    }

    pub(crate) fn allows(&self, target: &Target<'_>) -> bool {
        match &self.0 {
            Allowed::Origins(origins) => listed(origins, target).is_some(),
            Allowed::AnyHttps => target.origin().0 == "https",
        }
    }

    /// The first listed origin that plain http would carry the token to.
    pub(crate) fn first_insecure(&self) -> Option<&Origin> {
        match &self.0 {
            Allowed::Origins(origins) => origins.iter().find(|origin| !origin.is_secure()),
            Allowed::AnyHttps => None,
        }
    }
}

fn listed<'a>(origins: &'a [Origin], target: &Target<'_>) -> Option<&'a Origin> {
    let at = origins.binary_search_by(|origin| origin.parts().cmp(&target.origin()));
    origins.get(at.ok()?)
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Allowed::Origins(origins) => f.debug_list().entries(&**origins).finish(),
            Allowed::AnyHttps => f.write_str("any https origin"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(audience: &Audience, uri: &str) -> bool {
        let uri = uri.parse().unwrap();
        audience.allows(&Target::new(&uri, None).unwrap())
    }

    #[test]
    fn each_of_many_origins_is_found_and_no_other() {
        let hosts = || (0..1_000).map(|n| format!("{n}.example"));
        let audience = Audience::origins(
            hosts()
                .flat_map(|host| [format!("https://{host}"), format!("http://{host}:8080")])
                .rev(),
        )
        .unwrap();
        for host in hosts() {
            for uri in [
                format!("https://{host}/a"),
                format!("https://{host}:443/"),
                format!("HTTPS://{}", host.to_uppercase()),
                format!("http://{host}:8080/"),
            ] {
                assert!(allows(&audience, &uri), "{uri}");
            }
            for uri in [
                format!("http://{host}/"),
                format!("https://{host}:8080/"),
                format!("https://x{host}/"),
                format!("https://{host}x/"),
            ] {
                assert!(!allows(&audience, &uri), "{uri}");
            }
        }
    }
}
