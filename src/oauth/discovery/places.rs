//! Where metadata are (RFC 8414, section 3; OpenID Connect Discovery 1.0, section 4). Pure.

use http::Uri;

use crate::{
    error::Error,
    origin::{self, Origin},
};

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// Where the metadata of an issuer may be, in the order in which they are asked for: where RFC 8414 puts them, then
/// where OpenID does; then each with the other's way to put them (RFC 8414, section 5), as servers exist that mixed
/// the two.
pub(super) fn places(issuer: &Uri, origin: &Origin) -> Result<Vec<Uri>, Error> {
    let path = origin::path(issuer);
    // Both ways say that a slash at its end is left out.
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut places = vec![
        format!("{origin}{OAUTH}{path}"),
        format!("{origin}{path}{OPENID}"),
    ];
    if !path.is_empty() {
        places.push(format!("{origin}{OPENID}{path}"));
        places.push(format!("{origin}{path}{OAUTH}"));
    }
    let parsed = places.iter().map(|place| place.parse());
    parsed
        .collect::<Result<_, _>>()
        .map_err(|_| Error::config("the issuer is too long"))
}
