//! Spans: one for each sending of a signed request, one for each fetch of a token. Fields are named as
//! OpenTelemetry's conventions for HTTP clients name them.
#![cfg_attr(
    not(feature = "tracing"),
    allow(unused_variables, dead_code, clippy::unused_self)
)]

use std::{future::Future, time::Duration};

use http::{Method, StatusCode};

use super::{Need, token_fetched, token_request_failed, token_request_given_up, token_wanted};
use crate::error::Error;

/// One sending of a signed request.
pub(crate) struct Sending {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl Sending {
    /// `again` is how often the request was sent before.
    pub(crate) fn new(method: &Method, origin: &str, again: u8) -> Self {
        #[cfg(feature = "tracing")]
        {
            use tracing::field::Empty;
            let span = tracing::debug_span!(
                target: "tower_dpop",
                "send",
                otel.kind = "client",
                http.request.method = method.as_str(),
                server.address = address(origin),
                server.port = port(origin),
                http.request.resend_count = Empty,
                http.response.status_code = Empty,
                error.type = Empty,
            );
            if again > 0 {
                span.record("http.request.resend_count", again);
            }
            Self { span }
        }
        #[cfg(not(feature = "tracing"))]
        Self {}
    }

    /// None: the last one is over, and the next has not begun.
    pub(crate) fn over() -> Self {
        #[cfg(feature = "tracing")]
        {
            let span = tracing::Span::none();
            Self { span }
        }
        #[cfg(not(feature = "tracing"))]
        Self {}
    }

    /// Whatever the layers below tell belongs to it.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        work()
    }

    /// `expected` is an answer that is no error but part of the protocol: it will be answered.
    pub(crate) fn answered(&self, status: StatusCode, expected: bool) {
        #[cfg(feature = "tracing")]
        {
            self.span
                .record("http.response.status_code", status.as_u16());
            if status.as_u16() >= 400 && !expected {
                self.span.record("error.type", status.as_str());
            }
        }
    }

    /// There is no answer. The error's type is the inner service's, and nothing is known of it.
    pub(crate) fn failed(&self) {
        #[cfg(feature = "tracing")]
        self.span.record("error.type", "_OTHER");
    }
}

/// A fetch of a token, with all its sendings. Its end is told, however it ends.
pub(crate) struct Fetching {
    #[cfg(feature = "tracing")]
    span: tracing::Span,
    ended: bool,
}

impl Fetching {
    pub(crate) fn new(need: Need) -> Self {
        token_wanted(need);
        #[cfg(feature = "tracing")]
        {
            // The caller that started it may be gone before it ends: it is a trace of its own.
            let span = tracing::debug_span!(
                target: "tower_dpop",
                parent: None,
                "fetch_token",
                cause = need.name(),
                error.type = tracing::field::Empty,
            );
            span.follows_from(tracing::Span::current());
            Self { span, ended: false }
        }
        #[cfg(not(feature = "tracing"))]
        Self { ended: false }
    }

    /// It brought a token, or an error and how long until the next one.
    pub(crate) fn ended(&mut self, outcome: Result<(), (&Error, Duration)>) {
        self.ended = true;
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        match outcome {
            Ok(()) => token_fetched(),
            Err((error, retry_in)) => {
                #[cfg(feature = "tracing")]
                self.span.record("error.type", error.kind_name());
                token_request_failed(error, retry_in);
            }
        }
    }

    /// Whatever `work` tells belongs to it.
    pub(crate) async fn within<F: Future>(&self, work: F) -> F::Output {
        #[cfg(feature = "tracing")]
        {
            let mut work = std::pin::pin!(work);
            std::future::poll_fn(|cx| {
                let _entered = self.span.enter();
                work.as_mut().poll(cx)
            })
            .await
        }
        #[cfg(not(feature = "tracing"))]
        work.await
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if !self.ended {
            token_request_given_up();
        }
    }
}

/// The host of an origin, an IPv6 address without brackets.
pub(super) fn address(origin: &str) -> &str {
    let (_, authority) = origin.split_once("://").unwrap_or(("", origin));
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_matches(['[', ']'])
}

pub(super) fn port(origin: &str) -> u16 {
    let port = origin
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    port.unwrap_or(if origin.starts_with("http://") {
        80
    } else {
        443
    })
}

#[cfg(test)]
mod tests {
    use super::{address, port};

    #[test]
    fn an_origin_has_an_address_and_a_port() {
        for (origin, expected) in [
            ("https://api.example.com", ("api.example.com", 443)),
            ("http://127.0.0.1", ("127.0.0.1", 80)),
            ("https://api.example.com:8443", ("api.example.com", 8443)),
            ("https://[2001:db8::1]", ("2001:db8::1", 443)),
            ("http://[::1]:8080", ("::1", 8080)),
        ] {
            assert_eq!((address(origin), port(origin)), expected, "{origin}");
        }
    }
}
