//! Asking at one place after the other, through any client.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header::CACHE_CONTROL};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use crate::{
    error::BoxError,
    oauth::answer::Failure,
    oauth::get::{Got, get},
};

/// The user's client, whatever its type.
pub(super) trait Look: Send + Sync {
    fn ask(self: Arc<Self>, places: Arc<[Uri]>) -> Asking;
}

pub(super) type Asking = Pin<Box<dyn Future<Output = Result<Found, Failure>> + Send>>;

/// What was found at the first place that has something.
pub(super) enum Found {
    Document {
        json: Zeroizing<Vec<u8>>,
        max_age: Option<Duration>,
    },
    /// With what was said at the first place.
    Nothing { said: Option<String> },
}

/// Locked to be cloned: a client need not be `Sync`.
pub(super) struct Client<C>(Mutex<C>);

impl<C> Client<C> {
    pub(super) fn new(client: C) -> Self {
        Self(Mutex::new(client))
    }
}

impl<C, ResBody> Look for Client<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
    ResBody: Body + Send + 'static,
    ResBody::Data: Send,
    ResBody::Error: Into<BoxError>,
{
    fn ask(self: Arc<Self>, places: Arc<[Uri]>) -> Asking {
        Box::pin(async move {
            // In the task, where a panic of the client's `clone` hurts no caller.
            let client = self.0.lock();
            let mut client = client.unwrap_or_else(PoisonError::into_inner).clone();
            let mut first_said = None;
            for place in &*places {
                match get(&mut client, place).await? {
                    Got::Document { headers, json } => {
                        let max_age = max_age(&headers);
                        return Ok(Found::Document { json, max_age });
                    }
                    Got::Nothing { said } => first_said = first_said.or(Some(said)),
                }
            }
            Ok(Found::Nothing { said: first_said })
        })
    }
}

/// `max-age` of `Cache-Control` (RFC 9111, section 5.2.2.1). More than fits is as long as it gets.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let mut directives = lines.flat_map(|line| line.split(','));
    let seconds = directives.find_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        let named = name.trim().eq_ignore_ascii_case("max-age");
        named.then(|| value.trim().trim_matches('"'))
    })?;
    let digits = seconds.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Duration::from_secs(seconds.parse().unwrap_or(u64::MAX)))
}
