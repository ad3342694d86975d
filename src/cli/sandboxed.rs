//! `--sandbox`: the embedded BondMCP in place of the real one, in this process.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    App, Failed,
    sandbox::{DEMO_EMAIL, DEMO_PASSWORD, add_demo_account},
    tell,
};
use crate::{
    config::VaultLocation,
    sandbox::{RunningSandbox, Sandbox, SandboxConfig},
};

/// Shared by the commands that serve MCP.
#[derive(Debug, clap::Args)]
pub(super) struct SandboxFlag {
    /// Run against an embedded BondMCP on loopback, with a vault of its own and a ready demo account
    #[arg(long)]
    sandbox: bool,
}

impl SandboxFlag {
    /// `app`, turned to a sandbox where that is wanted; it runs as long as what is returned beside it.
    pub async fn apply(self, mut app: App) -> Result<(App, Option<RunningSandbox>), Failed> {
        if !self.sandbox {
            return Ok((app, None));
        }
        let config =
            SandboxConfig { clock: app.clock.clone(), print_links: true, ..SandboxConfig::default() };
        let sandbox = Sandbox::start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .map_err(|error| Failed::Other(error.into()))?;
        add_demo_account(&sandbox);
        app.settings.base_url = sandbox.base_url().parse()?;
        // The person's vault is not for toys.
        app.settings.data_dir = app.settings.data_dir.join("sandbox");
        app.settings.vault = VaultLocation::Sqlite(app.settings.data_dir.join("vault.db"));
        tell(format!("BondMCP sandbox at {}", sandbox.base_url()));
        tell(format!("Demo account: {DEMO_EMAIL}, password {DEMO_PASSWORD}"));
        tell(format!("Sign in: {}", app.account().login_command(Some(DEMO_EMAIL))));
        Ok((app, Some(sandbox)))
    }
}
