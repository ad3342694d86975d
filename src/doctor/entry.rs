//! Speaking MCP to the server behind a host's entry: `initialize` and `tools/list`, within bounded time and size.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use http::{
    StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use rmcp::{
    ServiceExt as _,
    model::{ClientCapabilities, ClientConfig, Implementation},
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
};
use url::Url;

use crate::{
    config::BaseUrl,
    hosts::{self, is_shown_command},
    secret::{ExposeSecret as _, SecretString},
};

/// Longest wait for a server to start and to list its tools.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a server to end by itself.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// Most that is read of a server's output.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// The reason why an entry does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("its program {0} does not exist")]
    Missing(String),
    #[error("its program does not exist: hosts read the whole command as one file name")]
    NoFile,
    #[error("another user of this computer can replace its program, at {}", .0.display())]
    Replaceable(PathBuf),
    #[error("its program does not start: {0}")]
    NotRunnable(io::ErrorKind),
    #[error("its program starts and does not speak MCP")]
    NoMcp,
    #[error("its program starts and does not speak MCP: no answer within {} s", START_TIMEOUT.as_secs())]
    Silent,
    #[error("it names neither a program nor an address")]
    NothingToReach,
    #[error("its address is not https, nor on this computer")]
    Insecure,
    #[error("no server answers at its address: {0}")]
    NotServed(&'static str),
    #[error("the server at its address wants a token")]
    TokenWanted,
    #[error("what answers at its address is not bondmcp-server, so the token was not sent to it")]
    Stranger,
    #[error("what answers at its address does not speak MCP")]
    NoMcpOverHttp,
}

/// A server that works.
#[derive(Debug)]
pub(super) struct Server {
    pub name: String,
    pub version: String,
    /// The number of its tools.
    pub tools: usize,
}

/// Starts the server as a host does, lists its tools and ends it.
pub(super) async fn start(
    command: &str,
    arguments: &[String],
    environment: &BTreeMap<String, SecretString>,
) -> Result<Server, Failure> {
    refuse_replaceable(command)?;
    let variables = environment.iter().map(|(name, value)| (name, value.expose_secret()));
    let mut child = Command::new(command)
        .args(arguments)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // It may quote secrets of the entry.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if is_shown_command(command) => Failure::Missing(command.to_owned()),
            io::ErrorKind::NotFound => Failure::NoFile,
            kind => Failure::NotRunnable(kind),
        })?;
    let tried = tokio::time::timeout(START_TIMEOUT, list_tools(&mut child)).await;
    end(child).await;
    tried.unwrap_or(Err(Failure::Silent))
}

/// Refuses a program that another user can replace. One without a directory is found by `PATH`, which is the person's.
fn refuse_replaceable(command: &str) -> Result<(), Failure> {
    let program = Path::new(command);
    if program.components().count() < 2 {
        return Ok(());
    }
    match hosts::refuse_replaceable(program) {
        Err(hosts::Error::Replaceable { place, .. }) => Err(Failure::Replaceable(place)),
        // What cannot be looked at does not start either.
        _ => Ok(()),
    }
}

async fn list_tools(child: &mut Child) -> Result<Server, Failure> {
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::NoMcp);
    };
    let identity = Implementation::new("bondmcp-doctor", env!("CARGO_PKG_VERSION"));
    let client = ClientConfig::new(ClientCapabilities::default(), identity)
        .serve((output.take(MAX_OUTPUT_BYTES), input))
        .await
        .map_err(|_| Failure::NoMcp)?;
    let tools = client.list_all_tools().await.map_err(|_| Failure::NoMcp)?.len();
    let identity = client.peer_info().and_then(|info| info.server_info.clone()).ok_or(Failure::NoMcp)?;
    // Its stdin closes, upon which a server ends.
    let _ = client.cancel().await;
    Ok(Server { name: identity.name, version: identity.version, tools })
}

async fn end(mut child: Child) {
    if tokio::time::timeout(END_TIMEOUT, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Asks the server at `url` for its tools, with the token from the environment if the entry sends that. Another token
/// is not sent, as its server need not be this one.
pub(super) async fn connect(url: &str, passes_token_variable: bool) -> Result<Server, Failure> {
    let url: BaseUrl = url.parse().map_err(|_| Failure::Insecure)?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(START_TIMEOUT);
    // Plain HTTP is for loopback.
    let http = if url.is_https() { http } else { http.no_proxy() };
    let http = http.build().map_err(|_| Failure::NotServed("the HTTP client could not be set up"))?;
    let token = if passes_token_variable { token() } else { None };
    let server = HttpServer { http, url: url.endpoint(&[]), token, session: None };
    server.list_tools().await
}

/// A server over streamable HTTP.
struct HttpServer {
    http: reqwest::Client,
    url: Url,
    token: Option<http::HeaderValue>,
    session: Option<http::HeaderValue>,
}

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "2025-11-25";

/// What this server answers to a request without its token.
const CHALLENGE: &[u8] = br#"Bearer realm="bondmcp-server""#;

impl HttpServer {
    async fn list_tools(mut self) -> Result<Server, Failure> {
        let identity = json!({"name": "bondmcp-doctor", "version": env!("CARGO_PKG_VERSION")});
        let parameters = json!({"protocolVersion": VERSION, "capabilities": {}, "clientInfo": identity});
        let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters});
        let initialized = self.introduce(&initialize).await?;
        self.session = initialized.headers().get(SESSION).cloned();
        let identity = message(initialized).await?["result"]["serverInfo"].take();
        let text = |field| identity[field].as_str().map(ToOwned::to_owned).ok_or(Failure::NoMcpOverHttp);
        let (name, version) = (text("name")?, text("version")?);
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.send(&notification).await?;
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
        let answer = message(self.send(&list).await?).await?;
        if self.session.is_some() {
            let _ = self.request(self.http.delete(self.url.clone())).send().await;
        }
        let tools = answer["result"]["tools"].as_array().ok_or(Failure::NoMcpOverHttp)?.len();
        Ok(Server { name, version, tools })
    }

    /// Sends the first message. A port of this computer may be another program's while the server does not run, so the
    /// token goes there only after this server's challenge. That keeps it from programs that came there by chance, not
    /// from one that poses as this server.
    async fn introduce(&mut self, initialize: &Value) -> Result<reqwest::Response, Failure> {
        let is_local = self.url.scheme() != "https";
        if let Some(token) = self.token.take_if(|_| is_local) {
            let answer = self.post(initialize).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return accepted(answer);
            }
            let challenge =
                answer.headers().get(WWW_AUTHENTICATE).map_or(&[][..], |header| header.as_bytes());
            if !challenge.starts_with(CHALLENGE) {
                return Err(Failure::Stranger);
            }
            self.token = Some(token);
        }
        self.send(initialize).await
    }

    async fn send(&self, message: &Value) -> Result<reqwest::Response, Failure> {
        accepted(self.post(message).await?)
    }

    async fn post(&self, message: &Value) -> Result<reqwest::Response, Failure> {
        let request = self
            .request(self.http.post(self.url.clone()))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, text/event-stream")
            .body(message.to_string());
        request.send().await.map_err(|error| {
            Failure::NotServed(if error.is_timeout() { "timed out" } else { "no connection" })
        })
    }

    fn request(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        let mut request = request.header("mcp-protocol-version", VERSION);
        if let Some(session) = &self.session {
            request = request.header(SESSION, session);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        request
    }
}

fn accepted(answer: reqwest::Response) -> Result<reqwest::Response, Failure> {
    match answer.status() {
        StatusCode::UNAUTHORIZED => Err(Failure::TokenWanted),
        status if status.is_success() => Ok(answer),
        _ => Err(Failure::NoMcpOverHttp),
    }
}

/// Returns the header with the token that hosts take from the same variable.
fn token() -> Option<http::HeaderValue> {
    let token: SecretString =
        std::env::var("BONDMCP_HTTP_TOKEN").ok().filter(|token| !token.is_empty())?.into();
    let mut header = http::HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Reads the message in an answer, which is JSON or one event of a stream.
async fn message(mut answer: reqwest::Response) -> Result<Value, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|_| Failure::NoMcpOverHttp)? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > MAX_OUTPUT_BYTES {
            return Err(Failure::NoMcpOverHttp);
        }
        let text = String::from_utf8_lossy(&body);
        let events = text.lines().map(|line| line.strip_prefix("data:").unwrap_or(line));
        let mut messages = events.filter_map(|event| serde_json::from_str::<Value>(event).ok());
        if let Some(message) = messages.find(Value::is_object) {
            return Ok(message);
        }
    }
    Err(Failure::NoMcpOverHttp)
}
