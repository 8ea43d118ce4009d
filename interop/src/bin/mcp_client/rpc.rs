//! JSON-RPC over HTTP, as the Model Context Protocol has it.
//!
//! Up to 2025-11-25 a session begins with `initialize`. From 2026-07-28 on there is none: each request says in `_meta`
//! what it has to say, and repeats in headers what proxies look at.

use bytes::Bytes;
use http::{
    HeaderMap, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tower::{Service, ServiceExt as _};
use tower_dpop::BoxError;

/// The first version without sessions.
const STATELESS: &str = "2026-07-28";

/// The tool of the suite's servers.
const TOOL: &str = "test-tool";

const MAX_ANSWER_BYTES: usize = 1024 * 1024;

pub(crate) struct Session {
    url: String,
    version: String,
}

/// What the first request, which has no token, is answered with.
pub(crate) enum Begun {
    Refused(HeaderMap),
    Open,
}

impl Session {
    pub(crate) fn new(url: &str) -> Result<Self, BoxError> {
        let version = std::env::var("MCP_CONFORMANCE_PROTOCOL_VERSION");
        Ok(Self {
            url: url.to_owned(),
            version: version.unwrap_or_else(|_| "2025-11-25".to_owned()),
        })
    }

    /// Without a token.
    pub(crate) async fn begin<S, B>(&self, client: S) -> Result<Begun, BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
    {
        let answer = client.oneshot(self.request(1, self.first())?).await;
        let answer = answer.map_err(Into::into)?;
        Ok(match answer.status() {
            StatusCode::UNAUTHORIZED => Begun::Refused(answer.headers().clone()),
            _ => Begun::Open,
        })
    }

    /// The whole session.
    pub(crate) async fn run<S, B>(&self, client: S) -> Result<(), BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>> + Clone,
        B: Body<Data: Send, Error: Into<BoxError>>,
    {
        if !self.is_stateless() {
            self.ask(client.clone(), 1, self.first()).await?;
            let initialized = json!({"method": "notifications/initialized"});
            self.send(client.clone(), self.request_of(initialized)?)
                .await?;
        }
        let tools = self
            .ask(client.clone(), 2, ("tools/list", json!({})))
            .await?;
        let names = tools["tools"].as_array().map(Vec::as_slice);
        if !names
            .unwrap_or_default()
            .iter()
            .any(|tool| tool["name"] == TOOL)
        {
            return Err(format!("the server has no {TOOL}").into());
        }
        let call = json!({"name": TOOL, "arguments": {}});
        let result = self.ask(client, 3, ("tools/call", call)).await?;
        match result["content"][0]["text"].as_str() {
            Some(text) => {
                println!("{TOOL}: {text}");
                Ok(())
            }
            None => Err("the tool gave no text".into()),
        }
    }

    fn is_stateless(&self) -> bool {
        self.version.as_str() >= STATELESS
    }

    fn first(&self) -> (&'static str, Value) {
        if self.is_stateless() {
            return ("tools/list", json!({}));
        }
        let params = json!({
            "protocolVersion": self.version,
            "capabilities": {},
            "clientInfo": client_info(),
        });
        ("initialize", params)
    }

    fn request(&self, id: u32, call: (&str, Value)) -> Result<Request<Full<Bytes>>, BoxError> {
        self.request_of(json!({"id": id, "method": call.0, "params": call.1}))
    }

    fn request_of(&self, mut message: Value) -> Result<Request<Full<Bytes>>, BoxError> {
        message["jsonrpc"] = json!("2.0");
        let mut request = Request::post(&self.url)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream");
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        if method != "initialize" {
            request = request.header("mcp-protocol-version", &self.version);
        }
        if self.is_stateless() {
            message["params"]["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": self.version,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": client_info(),
            });
            request = request.header("mcp-method", method);
            if let Some(name) = message["params"]["name"].as_str() {
                request = request.header("mcp-name", name);
            }
        }
        Ok(request.body(Full::from(message.to_string()))?)
    }

    async fn ask<S, B>(&self, client: S, id: u32, call: (&str, Value)) -> Result<Value, BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
        B: Body<Data: Send, Error: Into<BoxError>>,
    {
        let method = call.0.to_owned();
        let text = self.send(client, self.request(id, call)?).await?;
        let messages = messages(&text);
        let answer = messages.into_iter().find(|message| message["id"] == id);
        match answer {
            Some(mut answer) if answer.get("result").is_some() => Ok(answer["result"].take()),
            _ => Err(format!("{method}: no result, but: {text}").into()),
        }
    }

    async fn send<S, B>(&self, client: S, request: Request<Full<Bytes>>) -> Result<String, BoxError>
    where
        S: Service<Request<Full<Bytes>>, Response = Response<B>, Error: Into<BoxError>>,
        B: Body<Data: Send, Error: Into<BoxError>>,
    {
        let answer = client.oneshot(request).await.map_err(Into::into)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await?;
        let text = String::from_utf8(body.to_bytes().to_vec())?;
        match head.status.is_success() {
            true => Ok(text),
            false => Err(format!("{}: {text}", head.status).into()),
        }
    }
}

fn client_info() -> Value {
    json!({"name": "tower-dpop interop", "version": env!("CARGO_PKG_VERSION")})
}

/// Those of a body that is one message, or a stream of events with one each.
fn messages(text: &str) -> Vec<Value> {
    if let Ok(message) = serde_json::from_str(text) {
        return vec![message];
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    data.filter_map(|data| serde_json::from_str(data.trim()).ok())
        .collect()
}
