//! `bondmcp-server login`.

use std::time::Duration;

use anyhow::anyhow;

use super::{App, Failed, prompt::Credentials, say};
use crate::{
    account::{Account, Need, Status},
    error::Report,
    sign_in::{End, LIFETIME, Options, SignIn, State},
};

/// Signs in to BondMCP. The session is kept sealed in the vault; with it the server works until you sign out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
    /// Do not keep the password: when BondMCP gives no refresh token, you sign in again after an hour
    #[arg(long)]
    no_remember: bool,
    /// Sign in on a page in the browser of this computer instead
    #[arg(long, conflicts_with_all = ["email", "password_stdin", "no_remember"])]
    web: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        if app.settings.environment.login.is_some() {
            return Err(Failed::Usage(
                "BONDMCP_EMAIL and BONDMCP_PASSWORD are set and sign in by themselves; unset them to sign in here"
                    .to_owned(),
            ));
        }
        let account = app.account()?;
        let outcome = if self.web { on_a_page(&account).await } else { self.here(&account).await };
        account.close().await;
        let status = outcome?;
        say(format!(
            "Signed in as {} (profile {}) at {}.",
            status.email.as_deref().unwrap_or("the owner of an API key"),
            status.profile,
            status.upstream
        ));
        say("Hosts that run bondmcp-server can use the account now; `bondmcp-server logout` ends it.");
        Ok(())
    }

    async fn here(&self, account: &Account) -> Result<Status, Failed> {
        let email = self.credentials.email()?;
        let password = self.credentials.password(false)?;
        Ok(account.sign_in(&email, password, !self.no_remember).await?)
    }
}

const LAST_LOOK: Duration = Duration::from_secs(2);

async fn on_a_page(account: &Account) -> Result<Status, Failed> {
    let sign_in = SignIn::new(account.clone(), Options::default());
    let pending =
        sign_in.begin(None, Need::Api).await.map_err(|error| Failed::Other(Report::from(&error).into()))?;
    say(format!("Open this page in your browser: {}", pending.url()));
    say(format!("It shows the code {}. Waiting …", pending.code()));
    let state = pending.finished(LIFETIME).await;
    // The page goes with the process; the browser has yet to load what it shows last.
    tokio::time::sleep(LAST_LOOK).await;
    sign_in.close().await;
    match state {
        State::SignedIn { .. } => Ok(account.status().await?),
        State::Ended(End::TooManyAttempts) => {
            Err(Failed::Other(anyhow!("Too many wrong passwords. Try again.")))
        }
        _ => Err(Failed::Other(anyhow!("Nobody signed in in time. Try again."))),
    }
}
