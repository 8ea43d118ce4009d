//! The client's secret: as it is (RFC 6749, section 2.3.1), or as what signs an assertion (RFC 7523).

use std::{fmt, future};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::HeaderValue;
use zeroize::Zeroizing;

use super::{
    Authenticating, AuthenticationContext, ClientAuthentication, Credentials,
    assertion::{claims, header, hs256, signed, signing_input},
};
use crate::{error::Error, oauth::form::encoded};

/// In the `Authorization` header, the way that every server has to know.
#[derive(Clone)]
pub(crate) struct ClientSecretBasic(Zeroizing<String>);

impl ClientSecretBasic {
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check(&self.0)
    }

    fn credentials(&self, client_id: &str) -> Credentials {
        // Whoever reads the header knows the secret, too.
        Credentials::new()
            .authorization(basic(client_id, &self.0))
            .hide(self.0.clone())
    }
}

impl ClientAuthentication for ClientSecretBasic {
    fn authenticate<'a>(&'a self, request: &'a AuthenticationContext<'a>) -> Authenticating<'a> {
        Box::pin(future::ready(Ok(self.credentials(request.client_id))))
    }
}

impl fmt::Debug for ClientSecretBasic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecretBasic(..)")
    }
}

/// In the request's form.
#[derive(Clone)]
pub(crate) struct ClientSecretPost(Zeroizing<String>);

impl ClientSecretPost {
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check(&self.0)
    }
}

impl ClientAuthentication for ClientSecretPost {
    fn authenticate<'a>(&'a self, _: &'a AuthenticationContext<'a>) -> Authenticating<'a> {
        let secret = self.0.as_str();
        let credentials = Credentials::new().parameter("client_secret", secret);
        Box::pin(future::ready(Ok(credentials)))
    }
}

impl fmt::Debug for ClientSecretPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecretPost(..)")
    }
}

/// An assertion by the client's secret, which does not leave the client: `client_secret_jwt`, with HS256.
///
/// Its `aud` is the issuer, or the endpoint's URL if that is not known: then nobody but the program named it, and a
/// secret is shared with one server only.
///
/// RFC 7518, section 3.2 asks for secrets of 256 bits. Servers give out shorter ones and take what was signed with
/// them, so these are accepted: how good a secret is cannot be told by its length.
#[derive(Clone)]
pub(crate) struct ClientSecretJwt(Zeroizing<String>);

impl ClientSecretJwt {
    pub(crate) fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check(&self.0)
    }

    fn assertion(&self, request: &AuthenticationContext<'_>) -> Result<String, Error> {
        let audience = request.issuer.unwrap_or(request.endpoint);
        let input = signing_input(header("JWT", "HS256"), claims(request, audience)?);
        let code = hs256(self.0.as_bytes(), input.as_bytes())?;
        Ok(signed(input, &code))
    }
}

impl ClientAuthentication for ClientSecretJwt {
    fn authenticate<'a>(&'a self, request: &'a AuthenticationContext<'a>) -> Authenticating<'a> {
        let credentials = self.assertion(request).map(Credentials::jwt);
        // The server knows it as well, and might repeat it.
        let hidden = credentials.map(|credentials| credentials.hide(self.0.clone()));
        Box::pin(future::ready(hidden.map_err(Into::into)))
    }
}

impl fmt::Debug for ClientSecretJwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecretJwt(..)")
    }
}

/// An empty one is what a variable holds that was never set.
fn check(secret: &str) -> Result<(), Error> {
    if secret.is_empty() {
        return Err(Error::config("the client secret is empty"));
    }
    Ok(())
}

/// Id and secret are form-urlencoded first, so that neither a colon nor a letter outside of ASCII is in the way.
fn basic(id: &str, secret: &str) -> HeaderValue {
    let pair = Zeroizing::new([encoded(id).as_str(), ":", &encoded(secret)].concat());
    let base64 = Zeroizing::new(BASE64.encode(pair.as_bytes()));
    let value = Zeroizing::new(["Basic ", &base64].concat());
    // Base64 is ASCII, so this default is never taken.
    HeaderValue::from_maybe_shared(Bytes::from_owner(value))
        .unwrap_or(HeaderValue::from_static("Basic"))
}
