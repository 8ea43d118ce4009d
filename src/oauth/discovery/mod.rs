//! An authorization server's metadata, fetched, kept and renewed (RFC 8414).

mod ask;
mod known;
mod places;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};
use tower_service::Service;

use self::{
    ask::{Client, Found, Look},
    known::{Fetched, Known, Plan, Wait},
};
use super::{
    ServerMetadata,
    url::{self, PlainHttp},
};
use crate::{
    caught::{Panicked, caught},
    error::{BoxError, Error, Kind},
    event,
    oauth::answer::Failure,
    origin::printable,
    random::chance,
};

/// For all places together: waiting for the client, connecting, the document.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How often a caller joins or starts a fetch that is then lost without an answer: aborted with its runtime, or
/// given up.
const MAX_ROUNDS: usize = 3;

/// The metadata of an authorization server, by its issuer identifier: fetched when they are first needed, kept, and
/// renewed (RFC 8414).
///
/// ```
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// # use tower::service_fn;
/// use tower_dpop::Discovery;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_dpop::Error> {
/// # let http = service_fn(|request: Request<Full<Bytes>>| async move {
/// #     assert_eq!(request.uri(), "https://as.example.com/.well-known/oauth-authorization-server/tenant");
/// #     let json = r#"{"issuer":"https://as.example.com/tenant","token_endpoint":"https://as.example.com/token"}"#;
/// #     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(json)))
/// # });
/// let discovery = Discovery::new(http, "https://as.example.com/tenant")?;
///
/// let metadata = discovery.metadata().await?;
/// assert_eq!(metadata.token_endpoint(), Some("https://as.example.com/token"));
/// # Ok(())
/// # }
/// ```
///
/// A cheap handle: clones share what was fetched.
///
/// # Where they are looked for
///
/// For `https://as.example.com/tenant`, with or without a slash at its end:
///
/// 1. `https://as.example.com/.well-known/oauth-authorization-server/tenant` (RFC 8414, section 3.1)
/// 2. `https://as.example.com/tenant/.well-known/openid-configuration` (OpenID Connect Discovery, section 4)
/// 3. `https://as.example.com/.well-known/openid-configuration/tenant`
/// 4. `https://as.example.com/tenant/.well-known/oauth-authorization-server`
///
/// The next one is asked for when a server has nothing there: on any status 4xx but 408 and 429, and when it shows a
/// page (`text/html`) instead. A server in trouble, an answer that cannot be used, and a redirect end it: they are no
/// reason to look elsewhere.
///
/// # How long they are kept
///
/// For an hour, or for a shorter time that `Cache-Control: max-age` tells, but a minute at the least. Whoever asks
/// after that still gets the old ones at once, while the new ones are fetched in a task of its own. If that fails, for
/// whatever reason, the old ones go on to serve: an outage of the document never stops what needs it, once it is
/// known.
///
/// Whoever asks while there are none waits for the one fetch, and all get the same answer. A failure is remembered:
/// for half a second to a second at first, up to 30 s when it goes on, and for as long as a server's `Retry-After`
/// asks for, 5 minutes at the most. A fetch may take 10 s.
///
/// # Security
///
/// The requests carry neither proof nor token. Whoever answers for the issuer's host and path says where the client's
/// secret is sent: that is what its TLS certificate is for, and why plain http is for loopback hosts.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

struct Inner {
    issuer: String,
    plain: PlainHttp,
    places: Arc<[Uri]>,
    client: Arc<dyn Look>,
    /// Short, never held across an await or somebody else's code; what it guards is valid at every step.
    known: Mutex<Known>,
}

impl Discovery {
    /// The metadata of `issuer`, fetched through `client`: the plain HTTP client, which follows no redirects. Nothing
    /// is sent before they are needed.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`] if `issuer` is no issuer identifier: an https URL without query, fragment and user
    /// information (RFC 8414, section 2). [`Error::is_insecure_http`] if it is plain http, and not to loopback.
    pub fn new<C, ResBody>(client: C, issuer: impl Into<String>) -> Result<Self, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Into<BoxError>,
        ResBody: Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<BoxError>,
    {
        Self::with(client, issuer.into(), PlainHttp::Loopback)
    }

    /// The same, with plain http to any host: for the issuer, and for the endpoints in its metadata.
    ///
    /// To be used with [`DpopLayer::danger_allow_plain_http`](crate::DpopLayer::danger_allow_plain_http), without
    /// which those endpoints are refused all the same.
    ///
    /// # Errors
    ///
    /// [`Error::is_config`], as [`new`](Self::new).
    ///
    /// # Security
    ///
    /// Whoever can change what is on its way says where the client's secret and its tokens go.
    pub fn danger_allow_plain_http<C, ResBody>(
        client: C,
        issuer: impl Into<String>,
    ) -> Result<Self, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Into<BoxError>,
        ResBody: Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<BoxError>,
    {
        Self::with(client, issuer.into(), PlainHttp::Anywhere)
    }

    fn with<C, ResBody>(client: C, issuer: String, plain: PlainHttp) -> Result<Self, Error>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<ResBody>> + Clone + Send + 'static,
        C::Future: Send,
        C::Error: Into<BoxError>,
        ResBody: Body + Send + 'static,
        ResBody::Data: Send,
        ResBody::Error: Into<BoxError>,
    {
        let (uri, origin) =
            url::issuer(&issuer, plain).map_err(|flaw| flaw.config("the issuer", &issuer))?;
        Ok(Self(Arc::new(Inner {
            places: places::places(&uri, &origin)?.into(),
            issuer,
            plain,
            client: Arc::new(Client::new(client)),
            known: Mutex::default(),
        })))
    }

    /// The issuer identifier.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The metadata: those that are known, or those that the fetch under way brings.
    ///
    /// The fetch runs in a task of its own. Whoever stops waiting neither ends nor delays it.
    ///
    /// # Errors
    ///
    /// Only while there are none: [`Error::is_metadata`] if what was found cannot be used, or nothing was;
    /// [`Error::is_token_request`] for that and for all other reasons: the server could not be reached, is in trouble,
    /// took too long, or there is no Tokio runtime.
    pub async fn metadata(&self) -> Result<ServerMetadata, Error> {
        for _ in 0..MAX_ROUNDS {
            let mut wait = match self.plan() {
                Plan::Have(outcome) => return outcome,
                Plan::Wait(wait) => wait,
            };
            let _watchdog = self.watch(&wait);
            if let Ok(news) = wait.news.wait_for(Option::is_some).await
                && let Some(outcome) = &*news
            {
                return outcome.clone();
            }
        }
        Err(Error::new(
            Kind::Runtime,
            "there are no metadata after several fetches: each ended without an answer (is the runtime being shut \
             down?)",
        ))
    }

    /// What to do, with the fetch started that is needed for it.
    fn plan(&self) -> Plan {
        // That of now, not that in which the handle was made.
        let runtime = Handle::try_current().ok();
        let (plan, started, dead) = {
            let mut known = self.0.known();
            known.plan(Instant::now(), TIMEOUT, runtime.as_ref())
        };
        drop(dead);
        if let (Some(id), Some(runtime)) = (started, runtime) {
            let landing = Landing(Arc::clone(&self.0), id);
            drop(runtime.spawn(landing.fly()));
        }
        plan
    }

    /// A fetch runs in the runtime of the caller that started it, which may live on and be driven by nobody. Who
    /// waits in another runtime has a timer there, in a task: a runtime without timers shall make no caller panic.
    fn watch(&self, wait: &Wait) -> Option<Watchdog> {
        let runtime = Handle::try_current().ok();
        let runtime = runtime.filter(|runtime| runtime.id() != wait.runtime)?;
        let (inner, id, overdue) = (Arc::clone(&self.0), wait.id, wait.overdue);
        let task = runtime.spawn(async move {
            sleep_until(overdue).await;
            inner.give_up(id);
        });
        Some(Watchdog(task.abort_handle()))
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_up(&self, id: u64) {
        let flight = self.known().lost(id);
        drop(flight);
    }

    async fn fetch(&self) -> Result<Fetched, Failure> {
        let found = Arc::clone(&self.client).ask(Arc::clone(&self.places));
        match timeout(TIMEOUT, found).await {
            Ok(Ok(Found::Document { json, max_age })) => Ok(Fetched {
                metadata: ServerMetadata::read(&self.issuer, &json, self.plain)?,
                max_age,
            }),
            Ok(Ok(Found::Nothing { said })) => Err(self.nothing(said).into()),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Error::new(
                Kind::Timeout,
                format!(
                    "no metadata of `{}`: no answer within {} s",
                    printable(&self.issuer),
                    TIMEOUT.as_secs()
                ),
            )
            .into()),
        }
    }

    fn nothing(&self, said: Option<String>) -> Error {
        let said = said.map(|said| format!(" (the first of them answered {said})"));
        Error::new(
            Kind::Metadata,
            format!(
                "`{}` has no metadata at any of the well-known places{}: check the issuer identifier, or write what \
                 the server does not tell with `ServerMetadata::new`",
                printable(&self.issuer),
                said.unwrap_or_default()
            ),
        )
    }
}

/// Ends a fetch, however it ends: by its answer, or when its task is dropped before that.
struct Landing(Arc<Inner>, u64);

impl Landing {
    /// The whole of a fetch, in its own task.
    async fn fly(self) {
        // Timers included: they panic in a runtime that has none.
        let outcome = caught(self.0.fetch()).await;
        let outcome = outcome.unwrap_or_else(|Panicked| Err(panicked().into()));
        let landed = {
            let mut known = self.0.known();
            known.land(self.1, outcome, Instant::now(), chance())
        };
        if let Some(landed) = landed {
            if let Some((error, retry_in)) = landed.outage() {
                event::metadata_not_renewed(&self.0.issuer, error, retry_in);
            }
            landed.tell();
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.give_up(self.1);
    }
}

/// Sleeps no longer than the caller waits.
struct Watchdog(AbortHandle);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn panicked() -> Error {
    Error::new(
        Kind::Runtime,
        "fetching the server's metadata panicked: in the client for it, or because the runtime has no timers \
         (`enable_time`)",
    )
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery")
            .field("issuer", &self.0.issuer)
            .finish_non_exhaustive()
    }
}
