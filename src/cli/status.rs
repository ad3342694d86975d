//! `bondmcp-server status`.

use super::{
    App, Error,
    keys::{print_reminders, print_unfinished},
    printer::Printer,
};
use crate::account::{Credential, Renewal, Status};

/// Shows who is signed in, with which kind of credential and until when. Makes no request; shows no secret.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Error> {
        let account = app.account();
        let outcome = account.status().await;
        let aged = account.keys_to_rotate().await;
        account.close().await;
        let status = outcome?;
        if self.json {
            app.printer.print_json(&status);
        } else {
            print(&app.printer, &status, &account.login_command(None));
            print_reminders(&app, &aged?);
        }
        Ok(())
    }
}

fn print(printer: &Printer, status: &Status, login_command: &str) {
    match (&status.email, status.signed_in) {
        (Some(email), true) => printer.print_out(format_args!("Signed in as {email}.")),
        (None, true) => printer.print_out("Signed in."),
        (_, false) => printer.print_out(format_args!("You are not signed in. Run: `{login_command}`")),
    }
    let calls_use = match (status.credential, &status.key_id) {
        (Some(Credential::ApiKey), Some(id)) => Some(format!("API key {id}")),
        (Some(Credential::ApiKey), None) => {
            Some("an API key from the environment or the sign-in page".to_owned())
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
    let facts = [
        ("profile", Some(status.profile.clone())),
        ("upstream", Some(status.upstream.clone())),
        ("user id", status.user_id.clone()),
        ("calls use", calls_use),
        ("token until", status.expires_at.map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())),
        ("renewed with", renewed_with.map(ToOwned::to_owned)),
    ];
    let facts = facts.into_iter().filter_map(|(name, fact)| Some([name.to_owned(), fact?]));
    printer.print_table(facts);
    print_unfinished(printer, &status.unfinished);
}
