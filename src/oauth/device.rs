use std::{fmt, time::Duration};

use http::Uri;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::{
    error::{Error, Kind},
    json::{Members, number, text},
};

/// Between two polls, if the server does not say (RFC 8628, section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);

/// Of a server that wants to be asked more seldom than this, nobody would wait for the answer.
const INTERVALS: std::ops::RangeInclusive<u64> = 1..=300;

/// How long a server may wait for its user.
const LIFE: std::ops::RangeInclusive<u64> = 1..=3600;

/// A code that is longer nobody types.
const MAX_USER_CODE: usize = 64;

/// An authorization on another device (RFC 8628, section 3.2): what to show to the user, and the grant that is waited
/// for.
///
/// ```no_run
/// # async fn example(client: tower_dpop::OAuthClient, registration: tower_dpop::Registration)
/// # -> Result<(), tower_dpop::Error> {
/// use tower_dpop::{Grant, TokenParameters, TokenRequest};
///
/// let device = client.device_authorization(&TokenParameters::new().scope("orders")).await?;
/// println!("Open {} and type {}", device.verification_uri(), device.user_code());
/// let request = TokenRequest::new(registration, Grant::device_code(&device));
/// // A `TokenLayer` of this request has its token as soon as the user has agreed.
/// # Ok(())
/// # }
/// ```
pub struct DeviceAuthorization {
    device_code: Zeroizing<String>,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    interval: Duration,
    end: Instant,
    server: String,
    client_id: String,
    scope: Option<String>,
}

impl DeviceAuthorization {
    /// `of` names the authorization server and the client; `scope` is what was asked for.
    pub(super) fn read(
        members: &Members<'_>,
        of: (&str, &str),
        scope: Option<&str>,
    ) -> Result<Self, Error> {
        let bad = |what: &str| {
            let message = format!(
                "the answer to the device authorization request {what} (RFC 8628, section 3.2)"
            );
            Error::new(Kind::BadResponse, message)
        };
        let device_code = text(members, "device_code").filter(|code| !code.is_empty());
        let user_code = text(members, "user_code").filter(|code| {
            // It is shown to somebody, on a terminal perhaps.
            !code.is_empty()
                && code.len() <= MAX_USER_CODE
                && code.chars().all(|c| c.is_ascii_graphic() || c == ' ')
        });
        let verification_uri = text(members, "verification_uri")
            // As drafts of the RFC called it, and some servers do.
            .or_else(|| text(members, "verification_url"))
            .filter(|uri| is_web_page(uri));
        let life = number(members, "expires_in").ok_or_else(|| bad("has no `expires_in`"))?;
        let interval = number(members, "interval").map_or(INTERVAL, |seconds| {
            Duration::from_secs(seconds.clamp(*INTERVALS.start(), *INTERVALS.end()))
        });
        let life = Duration::from_secs(life.clamp(*LIFE.start(), *LIFE.end()));
        let complete = text(members, "verification_uri_complete").filter(|uri| is_web_page(uri));
        Ok(Self {
            device_code: device_code.ok_or_else(|| bad("has no `device_code`"))?,
            user_code: user_code
                .ok_or_else(|| bad("has no `user_code` that can be shown"))?
                .to_string(),
            verification_uri: verification_uri
                .ok_or_else(|| bad("has no `verification_uri` that is a web page's"))?
                .to_string(),
            verification_uri_complete: complete.map(|uri| uri.to_string()),
            interval,
            end: Instant::now() + life,
            server: of.0.to_owned(),
            client_id: of.1.to_owned(),
            scope: scope.map(str::to_owned),
        })
    }

    /// What the user types.
    #[must_use]
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// The page where the user types it.
    #[must_use]
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The page with the code in its URL, for a QR code, if the server gave one.
    #[must_use]
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_deref()
    }

    /// How long the user may take from now on.
    #[must_use]
    pub fn expires_in(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    pub(crate) fn device_code(&self) -> &str {
        &self.device_code
    }

    /// The authorization server and the client that it is for.
    pub(crate) fn of(&self) -> (&str, &str) {
        (&self.server, &self.client_id)
    }

    pub(crate) fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    pub(crate) fn end(&self) -> Instant {
        self.end
    }
}

/// It is opened in a browser, or shown.
fn is_web_page(text: &str) -> bool {
    let uri: Option<Uri> = text.parse().ok();
    // Which may hold more than ASCII, control characters among it.
    let uri = uri.filter(|_| text.bytes().all(|b| b.is_ascii_graphic()));
    uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("https" | "http"))
            && uri.host().is_some_and(|host| !host.is_empty())
    })
}

impl fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The user's code is one half of what it takes to hijack the authorization.
        f.debug_struct("DeviceAuthorization")
            .field("verification_uri", &self.verification_uri)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
