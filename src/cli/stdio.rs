//! `bondmcp-server stdio`: the MCP server that a host on this machine runs.

use anyhow::anyhow;
use rmcp::transport::stdio_pipes;

use super::{App, Error, serving::ServingArgs};
use crate::transport;

/// Serves MCP over stdin and stdout until stdin closes. Your MCP host runs this; see mcp.json.example.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serving: ServingArgs,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let serving = self.serving.start(app, true).await?;
        let (input, output) = stdio_pipes();
        let outcome =
            transport::stdio::serve(serving.server.clone(), input, output, serving.stopping.clone()).await;
        serving.end().await;
        outcome.map_err(|error| Error::Failed(anyhow!("Serving over stdio ended: {error}.")))
    }
}
