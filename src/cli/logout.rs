//! `bondmcp-server logout`.

use super::{App, Failed, say};

/// Signs out: ends the session at BondMCP and forgets it here, and the password too. The values of API keys that were
/// made here stay sealed in the vault.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Forget the values of API keys as well; they cannot be had again. The keys stay valid until revoked
    #[arg(long)]
    forget_keys: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let account = app.account();
        let outcome = account.sign_out(self.forget_keys).await;
        account.close().await;
        outcome?;
        say("Signed out.");
        Ok(())
    }
}
