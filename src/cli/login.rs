//! `bondmcp-server login`.

use anyhow::anyhow;
use std::time::Duration;

use super::{
    App, Error, command_line,
    progress::{requesting, waiting},
    prompt::Credentials,
};
use crate::{
    account::{self, Account, RequiredCredential, Status},
    config::Profile,
    error::UserFacingError,
    sign_in::{End, LIFETIME, Options, Request, SignIn, State, attempts_left},
    text::shell_word,
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server login
  bondmcp-server login ada@example.com
  bondmcp-server login --web
  pass show bondmcp | bondmcp-server login ada@example.com --password-stdin";

/// Signs in to BondMCP. The session is stored, encrypted, in the vault; the server uses it until you sign out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    credentials: Credentials,
    /// Sign in on a local page instead, which opens in your browser
    #[arg(long, conflicts_with_all = ["password_stdin", "no_remember"])]
    web: bool,
}

/// How often a person may type the password.
const ATTEMPTS: u8 = 3;

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        if app.settings.environment.login.is_some() {
            return Err(Error::Usage(
                "BONDMCP_EMAIL and BONDMCP_PASSWORD are set and sign in by themselves; unset them to sign in here"
                    .to_owned(),
            ));
        }
        let accounts = app.accounts();
        let account = accounts.local();
        let outcome = if self.web {
            on_a_page(&account, &app, self.credentials.given_email()).await
        } else {
            self.at_the_terminal(&account, &app).await
        };
        accounts.close().await;
        print_signed_in(&app, &outcome?, !self.web && self.credentials.remember());
        Ok(())
    }

    async fn at_the_terminal(&self, account: &Account, app: &App) -> Result<Status, Error> {
        let mut email = self.credentials.email(&app.printer)?;
        let mut left = if self.credentials.are_typed() { ATTEMPTS } else { 1 };
        loop {
            let password = self.credentials.password(false)?;
            let sign_in = account.sign_in(&email, password, self.credentials.remember());
            left -= 1;
            match requesting(&app.printer, account.upstream(), sign_in).await {
                Err(error) if error.is_unauthorized() && left > 0 => {
                    let left = attempts_left(left);
                    app.printer.print_err(format_args!("Wrong e-mail or password. {left}"));
                    email = self.credentials.email_again(&app.printer, email)?;
                }
                Err(account::Error::ProfileTaken { email: owner }) => {
                    return Err(profile_taken(app, "login", &owner, &email));
                }
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Tells how to sign in to another account, or to create one, without losing the stored API keys of this one.
pub(super) fn profile_taken(app: &App, verb: &str, owner: &str, email: &str) -> Error {
    let settings = &app.settings;
    let other = command_line(settings, &profile_for(email, &settings.profile));
    Error::Failed(anyhow!(
        "Profile {} holds the API keys of {owner}. Another account needs a profile of its own: \
         `{other} {verb} {}`. Hosts use it with the same --profile.",
        settings.profile,
        shell_word(email)
    ))
}

/// Suggests a profile for `email`, other than `taken`: its local part, if that is a valid name.
fn profile_for(email: &str, taken: &Profile) -> Profile {
    let local = email.split('@').next().unwrap_or_default().to_lowercase();
    let suggestions = [local, "second".to_owned(), "other".to_owned()];
    let free = suggestions.iter().filter_map(|name| name.parse().ok()).find(|profile| profile != taken);
    free.unwrap_or_default()
}

pub(super) fn print_signed_in(app: &App, status: &Status, has_stored_password: bool) {
    app.printer.print_out(format_args!(
        "Signed in as {} (profile {}) at {}.",
        status.email.as_deref().unwrap_or("the owner of an API key"),
        status.profile,
        status.upstream
    ));
    app.printer.print_out(format_args!(
        "Hosts that run bondmcp-server can use the account now, until you run `{}`.",
        app.command(&["logout"])
    ));
    if has_stored_password {
        app.printer.print_out("The password is stored, encrypted; with --no-remember it is not.");
    }
}

/// Time for which the page is served after the end, so that the browser can show the outcome.
const PAGE_GRACE_PERIOD: Duration = Duration::from_secs(2);

async fn on_a_page(account: &Account, app: &App, email: Option<&str>) -> Result<Status, Error> {
    let printer = &app.printer;
    let sign_in = SignIn::new(account.clone(), Options { open_browser: true, ..Options::default() });
    let request = Request {
        in_terminal: true,
        email: email.map(ToOwned::to_owned),
        ..Request::new(RequiredCredential::Api)
    };
    let pending = sign_in.begin(request).await.map_err(|error| UserFacingError::from(&error))?;
    printer.print_out(format_args!("Your browser opens this page; if not, open it: {}", pending.url()));
    printer.print_out(format_args!("Check that it shows the code {}.", pending.code()));
    sign_in.show().await;
    let finished = pending.finished(LIFETIME);
    let state =
        waiting(printer, "Waiting for you to sign in in the browser", pending.expires_in(), finished).await;
    // The page ends with the process.
    tokio::time::sleep(PAGE_GRACE_PERIOD).await;
    sign_in.close().await;
    match state {
        State::SignedIn { .. } => Ok(account.status().await?),
        State::Ended(End::TooManyAttempts) => {
            Err(Error::Failed(anyhow!("Too many failed attempts. Run the command again for a new page.")))
        }
        _ => Err(Error::Failed(anyhow!(
            "The sign-in page expired or was closed. Run the command again for a new one."
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_named_after_the_e_mail_and_is_never_the_one_that_is_taken() {
        let name = |email, taken: &str| profile_for(email, &taken.parse().unwrap()).to_string();
        assert_eq!(name("Grace@example.com", "default"), "grace");
        assert_eq!(name("grace@example.com", "grace"), "second");
        assert_eq!(name("a+b@example.com", "second"), "other");
    }
}
