//! `bondmcp-server login`.

use super::{App, Failed, prompt::Credentials, say};

/// Signs in to BondMCP. The session is kept sealed in the vault; with it the server works until you sign out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
    /// Do not keep the password: when BondMCP gives no refresh token, you sign in again after an hour
    #[arg(long)]
    no_remember: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        if app.settings.environment.login.is_some() {
            return Err(Failed::Usage(
                "BONDMCP_EMAIL and BONDMCP_PASSWORD are set and sign in by themselves; unset them to sign in here"
                    .to_owned(),
            ));
        }
        let email = self.credentials.email()?;
        let password = self.credentials.password(false)?;
        let account = app.account()?;
        let outcome = account.sign_in(&email, password, !self.no_remember).await;
        account.close().await;
        let status = outcome?;
        say(format!(
            "Signed in as {} (profile {}) at {}.",
            status.email.as_deref().unwrap_or(&email),
            status.profile,
            status.upstream
        ));
        say("Hosts that run bondmcp-server can use the account now; `bondmcp-server logout` ends it.");
        Ok(())
    }
}
