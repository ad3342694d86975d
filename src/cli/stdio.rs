//! `bondmcp-server stdio`: the MCP server that a host on this machine runs.

use anyhow::anyhow;
use rmcp::transport::stdio_pipes;
use tokio_util::sync::CancellationToken;

use super::{App, Error, printer::is_stdin_terminal, program, serving::ServingArgs, stop};
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
    pub fn is_sandboxed(&self) -> bool {
        self.serving.is_sandboxed()
    }

    pub async fn run(self, app: App) -> Result<(), Error> {
        if is_stdin_terminal() {
            explain(&app, self.serving.is_sandboxed());
        }
        let stopping = CancellationToken::new();
        stop::on_signal(stopping.clone());
        let printer = app.printer.clone();
        let prepared = self.serving.prepare(app).await?;
        prepared.say_how_to_sign_in(&printer);
        let sign_in = Some(prepared.sign_in.clone());
        let serving = prepared.start(sign_in, stopping.clone())?;
        let (input, output) = stdio_pipes();
        let server = serving.server.clone();
        let owner = server.local_owner();
        let outcome = transport::stdio::serve(server, owner, input, output, stopping).await;
        serving.server.close().await;
        outcome.map_err(|error| Error::Failed(anyhow!("Serving over stdio ended: {error}.")))
    }
}

/// Tells a person who started the server by hand that it waits for a host, and what they may have wanted.
fn explain(app: &App, is_sandboxed: bool) {
    let printer = &app.printer;
    printer.print_err("This is the MCP server. It waits for a host, such as Claude Desktop, to start it.");
    let mut install = vec!["install", "--all"];
    if is_sandboxed {
        install.push("--sandbox");
    } else {
        printer.print_err(format_args!("To sign in:           {}", app.command(&["login"])));
    }
    printer.print_err(format_args!("To set up your hosts: {}", app.command(&install)));
    printer.print_err(format_args!("To see what it does:  {} demo", program()));
    printer.print_err("Press Ctrl-C to stop it.");
}
