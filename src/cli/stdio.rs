//! `bondmcp-server stdio`: what a host on this machine runs.

use anyhow::anyhow;
use rmcp::transport::stdio_pipes;
use tokio_util::sync::CancellationToken;

use super::{App, Failed, sandboxed, stop};
use crate::{
    mcp::{BondMcp, Limits},
    sign_in::SignIn,
    transport,
};

/// Serves MCP over stdin and stdout until stdin closes. A host starts this; see mcp.json.example.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The port of the sign-in page, on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    sign_in_port: u16,
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
        let sign_in = SignIn::new(account.clone(), self.sign_in_port);
        let server =
            BondMcp::new(account.clone(), Some(sign_in), app.redactor, Limits::default(), stopping.clone());
        let (input, output) = stdio_pipes();
        let outcome = transport::stdio::serve(server, input, output, stopping).await;
        account.close().await;
        outcome.map_err(|error| Failed::Other(anyhow!("Serving over stdio ended: {error}.")))
    }
}
