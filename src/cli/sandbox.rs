//! `bondmcp-server sandbox`: the embedded BondMCP on a port of its own. It reads no settings and no credentials.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Error, printer::Printer, program, stop};
use crate::{
    clock::Clock,
    error::sentence,
    sandbox::{Plan, RunningSandbox, Sandbox, SandboxConfig, SandboxError},
};

/// The demo account's address. Its password is not secret: it is valid for embedded sandboxes only, which print it.
pub(super) const DEMO_EMAIL: &str = "demo@example.com";
pub(super) const DEMO_PASSWORD: &str = "demo-password-1";

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server sandbox
  bondmcp-server sandbox --listen 127.0.0.1:0 --state-file accounts.json";

/// Serves an embedded BondMCP API on loopback, for trying the product offline. A demo account is ready; links to verify
/// new addresses are printed to stderr.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8788")]
    listen: SocketAddr,
    /// Store accounts and API keys (hashed) in this file
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// Lifetime of an access token
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    token_lifetime: u64,
    /// Don't issue refresh tokens
    #[arg(long)]
    no_refresh_tokens: bool,
}

impl Args {
    pub async fn run(self, printer: Printer, clock: Clock) -> Result<(), Error> {
        let config = SandboxConfig {
            clock,
            token_lifetime: Duration::from_secs(self.token_lifetime),
            refresh_tokens: !self.no_refresh_tokens,
            state_file: self.state_file,
            print_links: true,
            ..SandboxConfig::default()
        };
        let sandbox = start(config, self.listen).await?;
        add_demo_account(&sandbox);
        printer.print_out(format_args!("BondMCP sandbox at {}", sandbox.base_url()));
        printer.print_out(format_args!("Demo account: {DEMO_EMAIL}, password {DEMO_PASSWORD}"));
        printer.print_out(format_args!(
            "Sign in: {} --base-url {} login {DEMO_EMAIL}",
            program(),
            sandbox.base_url()
        ));
        let stopping = CancellationToken::new();
        stop::on_signal(stopping.clone());
        stopping.cancelled().await;
        Ok(())
    }
}

/// Starts a sandbox.
pub(super) async fn start(config: SandboxConfig, address: SocketAddr) -> Result<RunningSandbox, Error> {
    Sandbox::start(config, address).await.map_err(failure)
}

/// Converts the reason why a sandbox does not start.
pub(super) fn failure(error: SandboxError) -> Error {
    match error {
        SandboxError::Listen { address, source } => Error::listening(address, "--listen", &source),
        error => {
            let message = sentence(&error.to_string());
            Error::Failed(anyhow::Error::new(error).context(message))
        }
    }
}

/// Adds the demo account, unless the state file holds it already.
pub(super) fn add_demo_account(sandbox: &Sandbox) {
    if sandbox.verification_link(DEMO_EMAIL).is_none() {
        sandbox.add_account(DEMO_EMAIL, &DEMO_PASSWORD.into(), Plan::Professional, true);
    }
}
