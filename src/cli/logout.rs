//! `bondmcp-server logout`.

use super::{App, Error};

/// Signs out: ends the session at BondMCP and deletes it here, with the stored password. The values of API keys that
/// were created here stay in the vault, encrypted.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also delete the stored values of API keys; they cannot be recovered. The keys stay valid until revoked
    #[arg(long)]
    forget_keys: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let account = app.account();
        let outcome = account.sign_out(self.forget_keys).await;
        account.close().await;
        outcome?;
        app.printer.print_out("Signed out.");
        Ok(())
    }
}
