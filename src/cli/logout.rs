//! `bondmcp-server logout`.

use super::{App, Error, progress::requesting};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server logout
  bondmcp-server --profile work logout --forget-keys";

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
        let accounts = app.accounts();
        let account = accounts.local();
        let sign_out = account.sign_out(self.forget_keys);
        let outcome = requesting(&app.printer, account.upstream(), sign_out).await;
        accounts.close().await;
        outcome?;
        app.printer.print_out("Signed out.");
        if app.settings.environment.secrets().next().is_some() {
            app.printer.print_err(
                "The credentials in the environment (BONDMCP_EMAIL, BONDMCP_PASSWORD, BONDMCP_API_KEY) are still \
                 used where they are set.",
            );
        }
        Ok(())
    }
}
