//! The host of the demo: a real MCP client on the pipes of a `bondmcp-server stdio`, which records everything it sees.

use anyhow::anyhow;
use std::{process::Stdio, sync::Arc};

use parking_lot::Mutex;
use rmcp::{
    RoleClient, ServiceExt as _,
    model::{CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation},
    service::RunningService,
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::io::InspectReader;

use super::{
    super::{Error, Printer},
    brief,
    person::Person,
};

pub struct Host {
    client: RunningService<RoleClient, ClientConfig>,
    server: Child,
    output: Arc<Mutex<Vec<u8>>>,
    log: JoinHandle<Vec<u8>>,
    printer: Printer,
}

impl Host {
    pub async fn start(person: &Person, printer: Printer) -> Result<Self, Error> {
        let mut command: Command = person.command("stdio")?;
        command.args(["--log", "trace"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut server =
            command.spawn().map_err(|error| Error::Failed(anyhow!("The server did not start: {error}.")))?;
        let (Some(stdin), Some(stdout), Some(mut stderr)) =
            (server.stdin.take(), server.stdout.take(), server.stderr.take())
        else {
            return Err(Error::Failed(anyhow!("The server has no pipes.")));
        };
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let recorded = {
            let output = Arc::clone(&output);
            InspectReader::new(stdout, move |bytes| output.lock().extend_from_slice(bytes))
        };
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log).await;
            log
        });
        let identity = Implementation::new("bondmcp-demo-host", env!("CARGO_PKG_VERSION"));
        let client = ClientConfig::new(ClientCapabilities::default(), identity)
            .serve((recorded, stdin))
            .await
            .map_err(|error| Error::Failed(anyhow!("The server does not answer: {error}.")))?;
        Ok(Self { client, server, output, log, printer })
    }

    /// Calls a tool and prints both sides; the structured result, or the error.
    pub async fn call(&mut self, tool: &'static str, arguments: Value) -> Result<Value, Error> {
        self.printer.print_out(format_args!("  agent   {tool} {arguments}"));
        let mut request = CallToolRequestParams::new(tool);
        request.arguments = arguments.as_object().cloned();
        let result = self
            .client
            .call_tool(request)
            .await
            .map_err(|error| Error::Failed(anyhow!("`{tool}` was not answered: {error}.")))?;
        let answer = result.structured_content.clone().unwrap_or_else(|| {
            let text =
                result.content.first().and_then(|block| block.as_text()).map(|text| text.text.as_str());
            // The last line of a failure is JSON.
            let json = text.and_then(|text| text.lines().last());
            json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or(json!(null))
        });
        self.printer.print_out(format_args!("  server  {}", brief(&answer)));
        Ok(answer)
    }

    pub async fn manage_keys(&mut self, arguments: Value) -> Result<Value, Error> {
        self.call("manage_api_keys", arguments).await
    }

    /// Ends the server and returns everything that it wrote: protocol and log.
    pub async fn end(mut self) -> Result<String, Error> {
        let broken = |error: &dyn std::fmt::Display| {
            Error::Failed(anyhow!("The server did not shut down cleanly: {error}."))
        };
        self.client.cancel().await.map_err(|error| broken(&error))?;
        let status = self.server.wait().await.map_err(|error| broken(&error))?;
        if !status.success() {
            return Err(broken(&status));
        }
        let log = self.log.await.map_err(|error| broken(&error))?;
        let mut seen = self.output.lock().clone();
        seen.extend_from_slice(&log);
        Ok(String::from_utf8_lossy(&seen).into_owned())
    }
}
