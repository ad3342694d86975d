//! `bondmcp-server stdio`: what a host on this machine runs.

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use super::{App, Failed, sandboxed, stop};
use crate::{
    mcp::{BondMcp, Limits},
    transport,
};

/// Serves MCP over stdin and stdout until stdin closes. A host starts this; see mcp.json.example.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sandbox: sandboxed::SandboxFlag,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let (app, _sandbox) = self.sandbox.apply(app).await?;
        let account = app.account()?;
        let stopping = CancellationToken::new();
        stop::on_signal(stopping.clone());
        super::reconcile_in_background(&account);
        let server = BondMcp::new(account.clone(), app.redactor, Limits::default(), stopping.clone());
        let outcome =
            transport::stdio::serve(server, tokio::io::stdin(), tokio::io::stdout(), stopping).await;
        account.close().await;
        outcome.map_err(|error| Failed::Other(anyhow!("Serving over stdio ended: {error}.")))
    }
}
