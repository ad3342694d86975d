//! `bondmcp-server stdio`: the MCP server that a host on this machine runs.

use anyhow::anyhow;
use rmcp::transport::stdio_pipes;

use super::{App, Error, printer::is_stdin_terminal, serving::ServingArgs};
use crate::transport;

pub(super) const EXAMPLES: &str = "Examples, as the command of an MCP host:
  bondmcp-server stdio
  bondmcp-server stdio --read-only
  bondmcp-server stdio --sandbox";

/// Serves MCP over stdin and stdout until stdin closes. Your MCP host runs this; see mcp.json.example.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    serving: ServingArgs,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        if is_stdin_terminal() {
            explain(&app);
        }
        let serving = self.serving.start(app, true).await?;
        let (input, output) = stdio_pipes();
        let outcome =
            transport::stdio::serve(serving.server.clone(), input, output, serving.stopping.clone()).await;
        serving.end().await;
        outcome.map_err(|error| Error::Failed(anyhow!("Serving over stdio ended: {error}.")))
    }
}

/// Tells a person who started the server by hand that it waits for a host, and what they may have wanted.
fn explain(app: &App) {
    let lines = [
        "This is the MCP server. It waits for a host, such as Claude Desktop, which starts it by itself."
            .to_owned(),
        format!("To sign in:          {}", app.command(&["login"])),
        format!("To set up a host:    {}", app.command(&["install"])),
        "To see what it does: bondmcp-server demo".to_owned(),
        "Press Ctrl-C to end it.".to_owned(),
    ];
    for line in lines {
        app.printer.print_err(line);
    }
}
