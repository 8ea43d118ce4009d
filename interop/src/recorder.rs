//! The innermost service of every stack here: what it sends stands in the record.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use crate::record::{Run, Sent};

/// Records every request with a proof.
#[derive(Clone)]
pub struct RecorderLayer(pub Run);

impl<S> Layer<S> for RecorderLayer {
    type Service = Recorder<S>;

    fn layer(&self, inner: S) -> Recorder<S> {
        Recorder {
            inner,
            run: self.0.clone(),
        }
    }
}

#[derive(Clone)]
pub struct Recorder<S> {
    inner: S,
    run: Run,
}

impl<S, B, ResBody> Service<Request<B>> for Recorder<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Future: Send + 'static,
    ResBody: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let sending = Sending::of(&request, &self.run);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let (Some(mut sending), Ok(answer)) = (sending, &answer) {
                sending.sent.status = Some(answer.status().as_u16());
                sending.sent.offered = text(answer.headers(), "dpop-nonce");
            }
            answer
        })
    }
}

/// Writes its line when it is over, however it ends: a sending that its caller gave up counts as well.
struct Sending {
    sent: Sent,
    run: Run,
}

impl Sending {
    fn of<B>(request: &Request<B>, run: &Run) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let sent = Sent {
            run: run.name().to_owned(),
            sent_ms: now.map_or(0, |now| now.as_millis() as u64),
            method: request.method().to_string(),
            url: request.uri().to_string(),
            proof: text(request.headers(), "dpop")?,
            token: text(request.headers(), "authorization")
                .and_then(|value| Some(value.strip_prefix("DPoP ")?.to_owned())),
            clock: run.clock_now(),
            status: None,
            offered: None,
        };
        Some(Self {
            sent,
            run: run.clone(),
        })
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.run.write(&self.sent);
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
