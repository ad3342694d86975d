//! `bondmcp-server stdio`: what a host on this machine runs.

use anyhow::anyhow;
use rmcp::transport::stdio_pipes;

use super::{App, Failed, serving::ServingArgs};
use crate::transport;

/// Serves MCP over stdin and stdout until stdin closes. A host starts this; see mcp.json.example.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serving: ServingArgs,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let serving = self.serving.start(app, true).await?;
        let (input, output) = stdio_pipes();
        let outcome =
            transport::stdio::serve(serving.server.clone(), input, output, serving.stopping.clone()).await;
        serving.end().await;
        outcome.map_err(|error| Failed::Other(anyhow!("Serving over stdio ended: {error}.")))
    }
}
