//! A user's browser as far as it matters here: it follows redirects and keeps cookies.

use std::collections::BTreeMap;

use http::{Request, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use url::Url;

use crate::{Result, client::Body};

/// More than any login here takes.
const REDIRECTS: usize = 20;

/// Opens `url` and goes where it is sent, until that is the redirect URI, which it answers with.
pub async fn log_in(url: &str, redirect_uri: &str) -> Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Body>();
    let mut cookies = BTreeMap::new();
    let mut url = Url::parse(url)?;
    for _ in 0..REDIRECTS {
        if url.as_str().starts_with(redirect_uri) {
            return Ok(url.into());
        }
        let sent: Vec<String> = cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = Request::get(url.as_str())
            .header(header::COOKIE, sent.join("; "))
            .body(Body::default())?;
        let answer = client.request(request).await?;
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let pair = cookie.to_str()?.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let Some(location) = answer.headers().get(header::LOCATION) else {
            return Err(format!("{url}: {} and no redirect", answer.status()).into());
        };
        url = url.join(location.to_str()?)?;
    }
    Err(format!("more than {REDIRECTS} redirects").into())
}
