//! `bondmcp-server register`.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    App, Error,
    login::{print_signed_in, profile_taken},
    printer::is_interactive,
    progress::{requesting, waiting},
    prompt::Credentials,
};
use crate::{
    account::{self, Account, Status},
    error::{Kind, UserFacingError},
    secret::SecretString,
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server register
  bondmcp-server register ada@example.com --no-wait";

/// Creates a BondMCP account. BondMCP e-mails you a link; on a terminal the command waits until you have opened it and
/// then signs in.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
    /// Do not wait until the link in the e-mail is opened; sign in later with `login`
    #[arg(long)]
    no_wait: bool,
}

/// Longest wait for the person to open the link.
const VERIFICATION_LIMIT: Duration = Duration::from_mins(10);

/// The first wait before BondMCP is asked whether the address is verified; later ones are up to fifteen times as long.
const FIRST_WAIT: Duration = Duration::from_secs(2);

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let email = self.credentials.email(&app.printer)?;
        let password = self.credentials.password(true)?;
        let accounts = app.accounts();
        let account = accounts.local();
        let outcome = self.register(&app, &account, &email, password).await;
        accounts.close().await;
        outcome
    }

    async fn register(
        self,
        app: &App,
        account: &Account,
        email: &str,
        password: SecretString,
    ) -> Result<(), Error> {
        let printer = &app.printer;
        let register = account.register(email, &password);
        let made = match requesting(printer, account.upstream(), register).await {
            Err(account::Error::ProfileTaken { email: owner }) => {
                return Err(profile_taken(app, "register", &owner, email));
            }
            outcome => outcome?,
        };
        printer.print_out(format_args!("Created the account {} ({}).", made.email, made.user_id));
        let later = app.command(&["login", email]);
        if self.no_wait || !self.credentials.are_typed() || !is_interactive() {
            printer.print_out(format_args!("Open the link in the e-mail from BondMCP, then run: `{later}`"));
            return Ok(());
        }
        printer.print_out(format_args!(
            "Open the link in the e-mail from BondMCP. To sign in later, press Ctrl-C and run: `{later}`"
        ));
        let deadline = Instant::now() + VERIFICATION_LIMIT;
        let verified = once_verified(account, email, password, self.credentials.remember());
        let verified = timeout_at(deadline, verified);
        match waiting(printer, "Waiting for the link to be opened", VERIFICATION_LIMIT, verified).await {
            Ok(status) => print_signed_in(app, &status?, self.credentials.remember()),
            Err(_) => printer.print_out(format_args!("Once the link is opened, run: `{later}`")),
        }
        Ok(())
    }
}

/// Signs in as soon as the address is verified.
async fn once_verified(
    account: &Account,
    email: &str,
    password: SecretString,
    remember: bool,
) -> Result<Status, Error> {
    let mut wait = FIRST_WAIT;
    loop {
        sleep(wait).await;
        let error = match account.sign_in(email, password.clone(), remember).await {
            Ok(status) => return Ok(status),
            Err(error) => error,
        };
        let report = UserFacingError::from(&error);
        match report.kind {
            Kind::EmailNotVerified | Kind::RateLimited | Kind::UpstreamUnavailable | Kind::Timeout => {
                let asked_for = report.retry_after_seconds.map(Duration::from_secs).unwrap_or_default();
                wait = (wait * 2).min(FIRST_WAIT * 15).max(asked_for);
            }
            _ => return Err(error.into()),
        }
    }
}
