//! `--sandbox`: the embedded BondMCP in place of the real one, in this process.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    App, Error,
    sandbox::{DEMO_EMAIL, DEMO_PASSWORD, add_demo_account, start},
};
use crate::{
    config::{EnvironmentCredentials, VaultLocation},
    sandbox::{RunningSandbox, SandboxConfig},
};

/// The `--sandbox` flag of the commands that serve MCP.
#[derive(Debug, clap::Args)]
pub(super) struct SandboxFlag {
    /// Use an embedded BondMCP on loopback, with a vault of its own and a demo account
    #[arg(long)]
    sandbox: bool,
}

impl SandboxFlag {
    /// Returns `app`, with a sandbox as its upstream if the flag is set. The sandbox runs until the second value is
    /// dropped.
    pub async fn apply(self, mut app: App) -> Result<(App, Option<RunningSandbox>), Error> {
        if !self.sandbox {
            return Ok((app, None));
        }
        let config =
            SandboxConfig { clock: app.clock.clone(), print_links: true, ..SandboxConfig::default() };
        let sandbox = start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        add_demo_account(&sandbox);
        app.settings.base_url = sandbox.base_url().parse()?;
        // The operator's credentials are for the real BondMCP.
        if app.settings.environment.secrets().next().is_some() {
            app.printer
                .print_err("BONDMCP_EMAIL, BONDMCP_PASSWORD and BONDMCP_API_KEY are ignored with --sandbox.");
            app.settings.environment = EnvironmentCredentials::default();
        }
        // The sandbox has a separate vault. A sealing key from the environment is used for it too: it is never sent
        // anywhere, and `login` in the same environment must be able to open this vault.
        app.settings.data_dir = app.settings.data_dir.join("sandbox");
        app.settings.vault = VaultLocation::Sqlite(app.settings.data_dir.join("vault.db"));
        app.printer.print_err(format_args!("BondMCP sandbox at {}", sandbox.base_url()));
        app.printer.print_err(format_args!("Demo account: {DEMO_EMAIL}, password {DEMO_PASSWORD}"));
        app.printer.print_err(format_args!("Sign in: {}", app.account().login_command(Some(DEMO_EMAIL))));
        Ok((app, Some(sandbox)))
    }
}
