//! Hosts that record everything they see.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
};

use bondmcp_server::secret::{self, SecretString};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::common::{Place, Recorded, Server, secrets, served_at, within};

/// A host that records everything it sees.
pub enum Host {
    Stdio(Server),
    Http(HttpServer),
}

pub struct HttpServer {
    child: Child,
    pub url: String,
    pub token: SecretString,
    client: reqwest::Client,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Host {
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Value {
        match self {
            Self::Stdio(server) => match server.call(tool, arguments).await {
                Ok(result) => serde_json::to_value(result).unwrap(),
                Err(error) => json!({ "refused": error.to_string() }),
            },
            Self::Http(server) => server.call(tool, arguments).await,
        }
    }

    pub async fn end(self) -> Vec<u8> {
        match self {
            Self::Stdio(server) => server.end().await,
            Self::Http(mut server) => {
                let pid = server.child.id().unwrap().to_string();
                assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
                assert!(within(server.child.wait()).await.unwrap().success());
                server.seen.lock().unwrap().clone()
            }
        }
    }

    pub fn pid(&self) -> u32 {
        match self {
            Self::Stdio(server) => server.child.id().unwrap(),
            Self::Http(server) => server.child.id().unwrap(),
        }
    }
}

impl HttpServer {
    pub async fn start(place: &Place) -> Self {
        let token = secret::random();
        let mut child = place
            .command(&["--log", "trace", "--log-format", "json", "http", "--listen", "127.0.0.1:0"])
            .env("BONDMCP_HTTP_TOKEN", secrets::text(&token))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut stdout = Recorded { input: child.stdout.take().unwrap(), seen: Arc::clone(&seen) };
        let stderr = Recorded { input: child.stderr.take().unwrap(), seen: Arc::clone(&seen) };
        tokio::spawn(async move { tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await });
        let url = served_at(stderr).await;
        Self { child, url, token, client: reqwest::Client::new(), seen }
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": tool,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        }});
        let response = self
            .client
            .post(&self.url)
            .bearer_auth(secrets::text(&self.token))
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", tool)
            .body(request.to_string());
        let response = within(response.send()).await.unwrap();
        let head = format!("{} {:?}", response.status(), response.headers());
        let body = within(response.text()).await.unwrap();
        self.seen.lock().unwrap().extend_from_slice(format!("{head}\n{body}\n").as_bytes());
        serde_json::from_str::<Value>(&body).unwrap_or_default()["result"].take()
    }
}
