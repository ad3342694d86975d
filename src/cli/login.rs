//! `bondmcp-server login`.

use anyhow::anyhow;
use std::time::Duration;

use super::{App, Error, printer::Printer, prompt::Credentials};
use crate::{
    account::{Account, RequiredCredential, Status},
    error::UserFacingError,
    sign_in::{End, LIFETIME, Options, Request, SignIn, State},
};

/// Signs in to BondMCP. The session is stored, encrypted, in the vault; the server uses it until you sign out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
    /// Do not store the password: when BondMCP issues no refresh token, you sign in again after an hour
    #[arg(long)]
    no_remember: bool,
    /// Sign in on a local page in your browser instead
    #[arg(long, conflicts_with_all = ["email", "password_stdin", "no_remember"])]
    web: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        if app.settings.environment.login.is_some() {
            return Err(Error::Usage(
                "BONDMCP_EMAIL and BONDMCP_PASSWORD are set and sign in by themselves; unset them to sign in here"
                    .to_owned(),
            ));
        }
        let account = app.account();
        let outcome = if self.web {
            on_a_page(&account, &app.printer).await
        } else {
            self.at_the_terminal(&account, &app.printer).await
        };
        account.close().await;
        let status = outcome?;
        app.printer.print_out(format_args!(
            "Signed in as {} (profile {}) at {}.",
            status.email.as_deref().unwrap_or("the owner of an API key"),
            status.profile,
            status.upstream
        ));
        app.printer.print_out(
            "Hosts that run bondmcp-server can use the account now, until `bondmcp-server logout`.",
        );
        Ok(())
    }

    async fn at_the_terminal(&self, account: &Account, printer: &Printer) -> Result<Status, Error> {
        let email = self.credentials.email(printer)?;
        let password = self.credentials.password(false)?;
        Ok(account.sign_in(&email, password, !self.no_remember).await?)
    }
}

/// Time for which the page is served after the end, so that the browser can show the outcome.
const PAGE_GRACE_PERIOD: Duration = Duration::from_secs(2);

async fn on_a_page(account: &Account, printer: &Printer) -> Result<Status, Error> {
    let sign_in = SignIn::new(account.clone(), Options::default());
    let pending = sign_in
        .begin(Request { in_terminal: true, ..Request::new(RequiredCredential::Api) })
        .await
        .map_err(|error| UserFacingError::from(&error))?;
    printer.print_out(format_args!("Open this page in your browser: {}", pending.url()));
    printer.print_out(format_args!("Check that it shows the code {}. Waiting …", pending.code()));
    let state = pending.finished(LIFETIME).await;
    // The page ends with the process.
    tokio::time::sleep(PAGE_GRACE_PERIOD).await;
    sign_in.close().await;
    match state {
        State::SignedIn { .. } => Ok(account.status().await?),
        State::Ended(End::TooManyAttempts) => {
            Err(Error::Failed(anyhow!("Too many wrong passwords. Run the command again for a new page.")))
        }
        _ => Err(Error::Failed(anyhow!(
            "The sign-in page expired or was closed. Run the command again for a new one."
        ))),
    }
}
