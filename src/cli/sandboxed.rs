//! `--sandbox`: the embedded BondMCP in place of the real one, in this process.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use sha2::{Digest as _, Sha256};

use super::{
    App, Error,
    sandbox::{DEMO_EMAIL, DEMO_PASSWORD, add_demo_account, start},
};
use crate::{
    config::{EnvironmentCredentials, SQLITE_FILE, VaultLocation},
    sandbox::{RunningSandbox, Sandbox, SandboxConfig, SandboxError},
    sign_in::Demo,
};

/// The `--sandbox` flag of the commands that serve MCP.
#[derive(Debug, clap::Args)]
pub(super) struct SandboxFlag {
    /// Use an embedded BondMCP on loopback, with a vault of its own and a demo account
    #[arg(long)]
    pub sandbox: bool,
}

impl SandboxFlag {
    /// Returns `app`, with a sandbox as its upstream if the flag is set. The sandbox runs until the second value is
    /// dropped.
    pub async fn apply(self, mut app: App) -> Result<(App, Option<RunningSandbox>), Error> {
        if !self.sandbox {
            return Ok((app, None));
        }
        // The sandbox has a separate vault. A sealing key from the environment is used for it too: it is never sent
        // anywhere, and `login` in the same environment must be able to open this vault.
        app.settings.data_dir = app.settings.data_dir.join("sandbox");
        app.settings.vault = VaultLocation::Sqlite(app.settings.data_dir.join(SQLITE_FILE));
        let config =
            SandboxConfig { clock: app.clock.clone(), print_links: true, ..SandboxConfig::default() };
        let sandbox = start_again(config, &app.settings.data_dir).await?;
        add_demo_account(&sandbox);
        // A demo does not run out of credits because of earlier ones.
        sandbox.set_credits(DEMO_EMAIL, DEMO_CREDITS);
        app.settings.base_url = sandbox.base_url().parse()?;
        // The operator's credentials are for the real BondMCP.
        if app.settings.environment.secrets().next().is_some() {
            app.printer
                .print_err("BONDMCP_EMAIL, BONDMCP_PASSWORD and BONDMCP_API_KEY are ignored with --sandbox.");
            app.settings.environment = EnvironmentCredentials::default();
        }
        app.printer.print_err(format_args!("BondMCP sandbox at {}", sandbox.base_url()));
        app.printer.print_err(format_args!("Demo account: {DEMO_EMAIL}, password {DEMO_PASSWORD}"));
        Ok((app, Some(sandbox)))
    }
}

/// Returns what the sign-in page offers for the sandbox.
pub(super) fn demo(sandbox: &RunningSandbox) -> Demo {
    let (address, sandbox) = (sandbox.address(), Sandbox::clone(sandbox));
    Demo {
        email: DEMO_EMAIL,
        password: DEMO_PASSWORD.into(),
        verification_link: Arc::new(move |email| {
            sandbox.verification_link(email).map(|link| format!("http://{address}{link}"))
        }),
    }
}

/// Credits of the demo account at every start, in cents.
const DEMO_CREDITS: u64 = 500;

/// Number of processes of one data directory whose sandboxes survive a restart.
const MAX_SANDBOXES: u8 = 4;

/// Starts the sandbox of `data_dir` at the address that it had before, with its accounts and keys. Credentials belong
/// to an address, so that the person stays signed in. A process that finds the address in use takes another one, with
/// other accounts.
async fn start_again(config: SandboxConfig, data_dir: &Path) -> Result<RunningSandbox, Error> {
    for number in 0..MAX_SANDBOXES {
        let port = port(data_dir, number);
        let state_file = Some(data_dir.join(format!("sandbox-{port}.json")));
        let config = SandboxConfig { state_file, ..config.clone() };
        match Sandbox::start(config.clone(), SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
            Err(SandboxError::Listen { source, .. }) if is_taken(&source) => {}
            outcome => return outcome.map_err(super::sandbox::failure),
        }
    }
    start(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
}

/// Returns the port of a sandbox by its number: always the same, and outside the ranges from which systems assign ports.
fn port(data_dir: &Path, number: u8) -> u16 {
    let digest = Sha256::new().chain_update([number]).chain_update(data_dir.as_os_str().as_encoded_bytes());
    let digest = digest.finalize();
    10_000 + u16::from_be_bytes([digest[0], digest[1]]) % 20_000
}

/// Whether another program has the port; Windows also reserves some.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}
