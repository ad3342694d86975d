//! `bondmcp-server sandbox`: the embedded BondMCP on a port of its own.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{App, Failed, say, stop};
use crate::sandbox::{Plan, Sandbox, SandboxConfig};

/// The demo account's address. Its password is no secret: it opens an embedded toy and is printed in the README.
pub(super) const DEMO_EMAIL: &str = "demo@example.com";
pub(super) const DEMO_PASSWORD: &str = "demo-password-1";

/// Serves an embedded BondMCP API on loopback, for trying the product offline. A demo account is ready; links to verify
/// new addresses are printed to stderr.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8788")]
    listen: SocketAddr,
    /// Keep accounts and API keys (hashed) in this file
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
    /// Life of an access token
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    token_lifetime: u64,
    /// Give no refresh tokens, like the API of BondMCP's own guide
    #[arg(long)]
    no_refresh_tokens: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let config = SandboxConfig {
            clock: app.clock,
            token_lifetime: Duration::from_secs(self.token_lifetime),
            refresh_tokens: !self.no_refresh_tokens,
            state_file: self.state_file,
            print_links: true,
            ..SandboxConfig::default()
        };
        let sandbox =
            Sandbox::start(config, self.listen).await.map_err(|error| Failed::Other(error.into()))?;
        add_demo_account(&sandbox);
        say(format!("BondMCP sandbox at {}", sandbox.base_url()));
        say(format!("Demo account: {DEMO_EMAIL}, password {DEMO_PASSWORD}"));
        say(format!("Sign in: bondmcp-server --base-url {} login --email {DEMO_EMAIL}", sandbox.base_url()));
        let stopping = CancellationToken::new();
        stop::on_signal(stopping.clone());
        stopping.cancelled().await;
        Ok(())
    }
}

/// Does nothing where the state file has brought it already.
pub(super) fn add_demo_account(sandbox: &Sandbox) {
    if sandbox.verification_link(DEMO_EMAIL).is_none() {
        sandbox.add_account(DEMO_EMAIL, &DEMO_PASSWORD.into(), Plan::Professional, true);
    }
}
