//! `bondmcp-server register`.

use super::{App, Error, prompt::Credentials};

/// Creates a BondMCP account. BondMCP e-mails you a link; sign in once you have opened it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let email = self.credentials.email(&app.printer)?;
        let password = self.credentials.password(true)?;
        let account = app.account();
        let made = account.register(&email, &password).await?;
        app.printer.print_out(format_args!("Created the account {} ({}).", made.email, made.user_id));
        app.printer.print_out(format_args!(
            "Open the link in the e-mail from BondMCP, then run: `{}`",
            account.login_command(None)
        ));
        Ok(())
    }
}
