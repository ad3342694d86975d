//! `bondmcp-server status`.

use std::time::Duration;

use serde::Serialize;

use super::{
    App, Error,
    error::worded,
    keys::{print_reminders, print_unfinished},
};
use crate::{
    account::{self, Account, Credential, DailySpending, Renewal, Status, Usd},
    vault::{KeyOrigin, KeyPlace, Keyring},
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server status
  bondmcp-server status --check
  bondmcp-server --profile work status --json";

/// Shows who is signed in, with which kind of credential and until when, and where that is stored. Makes no request
/// without --check; shows no secret. Exits with 1 when signed out.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ask BondMCP whether it accepts the credential; the request is free
    #[arg(long)]
    check: bool,
}

/// Longest wait for the OS keychain to tell whether it holds the sealing key.
const KEYCHAIN_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    status: Status,
    vault: String,
    /// Where the sealing key of the vault lives.
    key_store: String,
    version: &'static str,
    /// What is left of the daily limit of a server that made a billed call today; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    spending_today: Option<DailySpending>,
    /// Whether BondMCP accepts the credential; absent if it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<bool>,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let accounts = app.accounts();
        let account = accounts.local();
        let outcome = self.report(&app, &account).await;
        // Where the vault cannot be read, it is not tried again.
        let outcome = match outcome {
            Ok(report) => account.keys_to_rotate().await.map(|aged| (report, aged)),
            Err(error) => Err(error),
        };
        accounts.close().await;
        let (report, aged) = outcome?;
        if self.json {
            app.printer.print_json(&report);
        } else {
            print(&app, &account, &report);
            print_reminders(&app, &aged);
        }
        if report.status.signed_in && report.error.is_none() { Ok(()) } else { Err(Error::Reported) }
    }

    async fn report(&self, app: &App, account: &Account) -> Result<Report, account::Error> {
        let mut status = account.status().await?;
        let tried = if self.check && status.signed_in { Some(try_credential(account).await) } else { None };
        if tried.is_some() {
            // The session may have been renewed or discarded.
            status = account.status().await?;
        }
        let settings = &app.settings;
        let place = Keyring::locate(&settings.sealing_key, &settings.data_dir, KEYCHAIN_TIMEOUT).await;
        Ok(Report {
            status,
            vault: account.vault_location(),
            key_store: key_store(&place),
            version: env!("CARGO_PKG_VERSION"),
            spending_today: account.daily_spending(None).await?,
            accepted: tried.as_ref().map(Result::is_ok),
            error: tried.and_then(Result::err).map(|error| worded(&error, &app.command_line())),
        })
    }
}

/// Makes a free request with the credential.
async fn try_credential(account: &Account) -> Result<(), account::Error> {
    let models = account.list_models(true).await?;
    models.outage.map_or(Ok(()), Err)
}

fn key_store(place: &KeyPlace) -> String {
    match &place.origin {
        Some(KeyOrigin::Environment) => "BONDMCP_SEALING_KEY".to_owned(),
        Some(KeyOrigin::Keychain) => match &place.hidden {
            Some(path) => format!("the OS keychain or {}", path.display()),
            None => "the OS keychain".to_owned(),
        },
        Some(KeyOrigin::KeyFile(path) | KeyOrigin::NewKeyFile(path)) => path.display().to_string(),
        None => "none yet".to_owned(),
    }
}

fn left_today(spending: DailySpending) -> String {
    let [left, limit] = [spending.left_usd, spending.limit_usd].map(Usd::from_f64);
    format!("{left} of {limit}, until {}", spending.resets_at.format("%Y-%m-%d %H:%M UTC"))
}

fn print(app: &App, account: &Account, report: &Report) {
    let printer = &app.printer;
    let status = &report.status;
    match (&status.email, status.signed_in) {
        (Some(email), true) => printer.print_out(format_args!("Signed in as {email}.")),
        (None, true) => printer.print_out("Calls use an API key; nobody is signed in."),
        (_, false) => {
            printer.print_out(format_args!("You are not signed in. Run: `{}`", app.command(&["login"])));
        }
    }
    let calls_use = match (status.credential, &status.key_id) {
        (Some(Credential::ApiKey), Some(id)) => Some(format!("API key {id}")),
        (Some(Credential::ApiKey), None) if account.has_environment_key() => {
            Some("the key in BONDMCP_API_KEY".to_owned())
        }
        (Some(Credential::ApiKey), None) => {
            Some("the API key that was entered on the sign-in page".to_owned())
        }
        (Some(Credential::Session), _) => Some("the session".to_owned()),
        (None, _) => None,
    };
    let renewed_with = status.renewal.map(|renewal| match renewal {
        Renewal::RefreshToken => "the refresh token",
        Renewal::StoredPassword => "the stored password",
        Renewal::Environment => "BONDMCP_EMAIL and BONDMCP_PASSWORD",
        Renewal::None => "nothing: sign in again when it ends",
    });
    let tried = match (&report.accepted, &report.error) {
        (Some(true), _) => Some("BondMCP accepts the credential".to_owned()),
        (_, Some(error)) => Some(error.clone()),
        _ => status
            .signed_in
            .then(|| format!("no; to ask BondMCP, run: `{}`", app.command(&["status", "--check"]))),
    };
    let facts = [
        ("profile", Some(status.profile.clone())),
        ("upstream", Some(status.upstream.clone())),
        ("user id", status.user_id.clone()),
        ("calls use", calls_use),
        ("token until", status.expires_at.map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())),
        ("renewed with", renewed_with.map(ToOwned::to_owned)),
        ("tried", tried),
        ("left today", report.spending_today.map(left_today)),
        ("vault", Some(report.vault.clone())),
        ("key store", Some(report.key_store.clone())),
        ("version", Some(report.version.to_owned())),
    ];
    let facts = facts.into_iter().filter_map(|(name, fact)| Some([name.to_owned(), fact?]));
    printer.print_table(facts);
    print_unfinished(printer, &status.unfinished);
}
