//! `bondmcp-server status`.

use super::{App, Failed, say};
use crate::account::{Credential, Renewal, Status};

/// Tells who is signed in, how and until when. Asks nobody; shows no secret.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    pub async fn run(self, app: App) -> Result<(), Failed> {
        let account = app.account();
        let outcome = account.status().await;
        account.close().await;
        let status = outcome?;
        if self.json {
            super::say_json(&status);
        } else {
            print(&status, &account.login_command(None));
        }
        Ok(())
    }
}

fn print(status: &Status, login_command: &str) {
    match (&status.email, status.signed_in) {
        (Some(email), true) => say(format!("Signed in as {email}.")),
        (None, true) => say("Signed in."),
        (_, false) => say(format!("Not signed in. Sign in with: {login_command}")),
    }
    say(format!("  profile     {}", status.profile));
    say(format!("  upstream    {}", status.upstream));
    if let Some(user_id) = &status.user_id {
        say(format!("  user id     {user_id}"));
    }
    match (status.credential, &status.key_id) {
        (Some(Credential::ApiKey), Some(id)) => say(format!("  calls use   API key {id}")),
        (Some(Credential::ApiKey), None) => {
            say("  calls use   an API key from the environment or the sign-in page");
        }
        (Some(Credential::Session), _) => say("  calls use   the session"),
        (None, _) => {}
    }
    if let Some(expires_at) = status.expires_at {
        say(format!("  token until {}", expires_at.format("%Y-%m-%d %H:%M:%S UTC")));
    }
    match status.renewal {
        Some(Renewal::RefreshToken) => say("  renewed by  the refresh token"),
        Some(Renewal::RememberedPassword) => say("  renewed by  the remembered password"),
        Some(Renewal::Environment) => say("  renewed by  BONDMCP_EMAIL and BONDMCP_PASSWORD"),
        Some(Renewal::None) => say("  renewed by  nothing: sign in again at its end"),
        None => {}
    }
    for unfinished in &status.unfinished {
        say(format!("  unfinished  API key `{}`: {}", unfinished.name, unfinished.next));
    }
}
