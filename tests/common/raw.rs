//! The binary on pipes without an MCP client, for messages that no well-behaved client sends.

use std::process::Stdio;

use bondmcp_server::{account::Owner, mcp::BondMcp, transport};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};
use tokio_util::sync::CancellationToken;

use super::{Place, within};

/// The binary on pipes, without an MCP client.
pub struct Raw {
    pub child: Child,
    pub input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Raw {
    pub fn start(place: &Place) -> Self {
        Self::with_stderr(place, Stdio::null())
    }

    pub fn with_stderr(place: &Place, stderr: Stdio) -> Self {
        let mut command = place.command(&["--log", "trace", "stdio"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let (input, output) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, input, output: BufReader::new(output).lines() }
    }

    pub async fn send(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        input.write_all(b"\n").await.unwrap();
        input.flush().await.unwrap();
    }

    /// Reads the next line, which must be a JSON-RPC message.
    pub async fn next(&mut self) -> Value {
        let line = within(self.output.next_line()).await.unwrap().unwrap();
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    pub async fn ask(&mut self, message: Value) -> Value {
        self.send(&message.to_string()).await;
        self.next().await
    }

    pub async fn initialize(&mut self, version: &str) -> Value {
        self.initialize_as(version, json!({})).await
    }

    /// With capabilities of its own.
    pub async fn initialize_as(&mut self, version: &str, capabilities: Value) -> Value {
        let answer = self.ask(initialize(version, capabilities)).await;
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string()).await;
        answer
    }

    /// Closes stdin and returns the exit code; nothing else may have been written.
    pub async fn end(mut self) -> Option<i32> {
        self.input.take();
        let code = within(self.child.wait()).await.unwrap().code();
        assert_eq!(within(self.output.next_line()).await.unwrap(), None);
        code
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
pub fn initialize(version: &str, capabilities: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": capabilities, "clientInfo": {"name": "raw", "version": "1"}}})
}

#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
pub fn call(id: u32, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

pub fn modern(id: u32, method: &str, params: Value) -> Value {
    modern_as(id, method, params, json!({}))
}

/// With capabilities of its own.
#[expect(clippy::needless_pass_by_value, reason = "reads better where it is called")]
pub fn modern_as(id: u32, method: &str, mut params: Value, capabilities: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// Sends one message of `owner` to a server in this process, on a connection of its own; returns the answer.
pub async fn ask(server: &BondMcp, owner: &Owner, message: &Value) -> Value {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(ours);
    let stopping = CancellationToken::new();
    tokio::spawn(transport::stdio::serve(server.clone(), owner.clone(), input, output, stopping.clone()));
    let (input, mut output) = tokio::io::split(theirs);
    output.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    let line = within(BufReader::new(input).lines().next_line()).await.unwrap().unwrap();
    stopping.cancel();
    serde_json::from_str(&line).unwrap()
}
