//! `bondmcp-server logout`.

use super::{App, Error, progress::requesting};
use crate::account;

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
        let signing_out = async {
            let revoked = if self.forget_keys { account.revoked_keys().await? } else { vec![] };
            let mut forgotten = account.sign_out(self.forget_keys).await?;
            forgotten.ids.retain(|id| !revoked.contains(id));
            Ok::<_, account::Error>(forgotten)
        };
        let outcome = requesting(&app.printer, account.upstream(), signing_out).await;
        accounts.close().await;
        let account::Forgotten { ids, names } = outcome?;
        app.printer.print_out("Signed out.");
        if !ids.is_empty() {
            let ids = ids.join(", ");
            app.printer.print_err(format_args!(
                "API keys whose values are no longer stored here stay valid at BondMCP until they are revoked: {ids}"
            ));
        }
        for name in names {
            app.printer.print_err(format_args!(
                "An API key named `{}` may exist at BondMCP, as its creation was interrupted: look for it there.",
                app.printer.short(&name)
            ));
        }
        if app.settings.environment.secrets().next().is_some() {
            app.printer.print_err(
                "The credentials in the environment (BONDMCP_EMAIL, BONDMCP_PASSWORD, BONDMCP_API_KEY) are still \
                 used where they are set.",
            );
        }
        Ok(())
    }
}
