//! `bondmcp-server register`.

use super::{App, Failed, prompt::Credentials, say};

/// Creates a BondMCP account. BondMCP sends a mail with a link; once you have followed it you can sign in.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let email = self.credentials.email()?;
        let password = self.credentials.password(true)?;
        let account = app.account();
        let made = account.register(&email, &password).await?;
        say(format!("Created the account {} ({}).", made.email, made.user_id));
        say(format!(
            "Follow the link in the mail from BondMCP, then sign in: {}",
            account.login_command(None)
        ));
        Ok(())
    }
}
