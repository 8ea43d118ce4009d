//! Getting a server's metadata: one plain GET, through any client.

use std::{future::poll_fn, time::SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue, LOCATION},
};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;
use zeroize::Zeroizing;

use super::{
    body::{self, Unread},
    document::MAX_BYTES,
    url::{place, shown},
};
use crate::{
    clock,
    error::{BoxError, Error, Kind},
    oauth::answer::Failure,
};

/// What was found at a place.
pub(super) enum Got {
    Document {
        headers: HeaderMap,
        json: Zeroizing<Vec<u8>>,
    },
    /// There is none, and there may be one elsewhere.
    Nothing { said: String },
}

/// Gets what `uri` holds. It follows no redirect: where metadata are is not for the one to say who answers.
pub(super) async fn get<C, ResBody>(client: &mut C, uri: &Uri) -> Result<Got, Failure>
where
    C: Service<Request<Full<Bytes>>, Response = Response<ResBody>>,
    C::Error: Into<BoxError>,
    ResBody: Body,
    ResBody::Error: Into<BoxError>,
{
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri.clone();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(ACCEPT, json);

    let failed = |error: C::Error| unreached(uri, error.into());
    poll_fn(|cx| client.poll_ready(cx)).await.map_err(failed)?;
    let response = client.call(request).await.map_err(failed)?;

    let (head, body) = response.into_parts();
    match head.status {
        StatusCode::OK if is_page(&head.headers) => Ok(Got::Nothing {
            said: format!("{} with a page (`text/html`)", head.status),
        }),
        StatusCode::OK => Ok(Got::Document {
            headers: head.headers,
            json: body::read(body, MAX_BYTES)
                .await
                .map_err(|error| unread(uri, error))?,
        }),
        status if status.is_redirection() => Err(redirected(uri, status, &head.headers).into()),
        status if is_absent(status) => Ok(Got::Nothing {
            said: status.to_string(),
        }),
        status => Err(Failure {
            error: Error::new(
                Kind::BadResponse,
                format!("no metadata: `{}` answered {status}", place(uri)),
            ),
            retry_after: clock::retry_after(&head.headers, SystemTime::now()),
        }),
    }
}

/// A refusal tells nothing either: many servers forbid what they do not have. But one that asks for time is there.
fn is_absent(status: StatusCode) -> bool {
    let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_client_error() && !later.contains(&status)
}

/// What sites answer for whatever they do not know: the page of their own application.
fn is_page(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    media_type.is_some_and(|value| {
        value
            .get(..9)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
    })
}

fn unread(uri: &Uri, unread: Unread) -> Error {
    let at = place(uri);
    match unread {
        Unread::TooLong => Error::new(
            Kind::Metadata,
            format!("the metadata at `{at}` cannot be used: they are longer than 256 KiB"),
        ),
        Unread::Broken(error) => {
            let message = format!("the metadata at `{at}` broke off");
            Error::with_source(Kind::Transport, message, error)
        }
    }
}

/// Ours stay what they are.
fn unreached(uri: &Uri, error: BoxError) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(source) => Error::with_source(
            Kind::Transport,
            format!(
                "the metadata at `{}` could not be asked for, or no answer came: is the server up?",
                place(uri)
            ),
            source,
        ),
    }
}

fn redirected(uri: &Uri, status: StatusCode, headers: &HeaderMap) -> Error {
    let to = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    let to = to.and_then(|to| to.split(['?', '#']).next());
    let to = to.map(|to| match shown(to) {
        shown if shown.is_empty() => shown,
        shown => format!(" to{shown}"),
    });
    Error::new(
        Kind::Metadata,
        format!(
            "`{}` answered with a redirect{} ({status}), which is not followed: metadata count where the \
             server's name puts them",
            place(uri),
            to.unwrap_or_default()
        ),
    )
}
