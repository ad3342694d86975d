//! `bondmcp-server vault rekey`.

use anyhow::anyhow;
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::{
    cli::{
        printer::{Printer, is_stdin_terminal},
        prompt,
        stop::on_signal,
    },
    config::SealingKeySource,
    vault::{Progress, Rekey, Rekeyed},
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server vault rekey
  BONDMCP_SEALING_KEY_FILE=keys.txt bondmcp-server vault rekey --yes";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Do not ask whether every server has both keys
    #[arg(long, short)]
    yes: bool,
}

impl Args {
    pub async fn run(self, app: &App) -> Result<(), Error> {
        let vault = super::open_existing(app).await?;
        let rekey = Rekey::new(vault.clone(), app.accounts().local().first_version_records());
        let outcome = self.complete(app, rekey).await;
        Printer::clear_progress();
        vault.close().await;
        report(app, &outcome?)
    }

    async fn complete(&self, app: &App, mut rekey: Rekey) -> Result<Rekeyed, Error> {
        if rekey.changes_operators_key() && !self.yes {
            confirm(app)?;
        }
        let stopping = CancellationToken::new();
        on_signal(stopping.clone());
        loop {
            match rekey.step().await? {
                Progress::Done => return Ok(rekey.outcome()),
                Progress::Records { done, total } => {
                    app.printer.print_progress(format_args!("Re-encrypting records … {done} of {total}"));
                }
                Progress::Step => {}
            }
            if stopping.is_cancelled() {
                Printer::clear_progress();
                let again = app.command(&["vault", "rekey"]);
                return Err(Error::Failed(anyhow!(
                    "Interrupted. The vault can be used, with both keys. To complete the change, run: `{again}`"
                )));
            }
        }
    }
}

/// Asks whether the servers are ready: one that knows the old key alone can no longer read the vault.
fn confirm(app: &App) -> Result<(), Error> {
    if !is_stdin_terminal() {
        return Err(Error::Usage(
            "there is no terminal to ask on whether every server has both keys; add --yes if so".to_owned(),
        ));
    }
    app.printer.print_err(
        "Every server that uses this vault must have been restarted with both keys, the new one first. Others will \
         stop working.",
    );
    prompt::confirm(&app.printer)
}

fn report(app: &App, outcome: &Rekeyed) -> Result<(), Error> {
    let printer = &app.printer;
    let place = match &app.settings.sealing_key {
        SealingKeySource::Given(_) => "BONDMCP_SEALING_KEY".to_owned(),
        SealingKeySource::File(path) => path.display().to_string(),
        SealingKeySource::KeychainOrFile => String::new(),
    };
    let is_unchanged = !outcome.switched && outcome.records == 0;
    if is_unchanged && outcome.unreadable + outcome.unnamed == 0 && !outcome.keeps_keys {
        printer.print_out(if outcome.known_keys == 1 {
            format!(
                "All records are encrypted with the key in {place}. To change it, put a new one before it, separated by a \
                 comma or a line break, restart every server, and run this again. Generate one with: openssl rand -base64 32"
            )
        } else {
            // Which of them the operator calls the new one is not known.
            format!(
                "All records are encrypted with the first key in {place}. If that is the new key, remove the other one \
                 and restart every server. If it is the old key, put the new one before it, restart every server, and \
                 run this again."
            )
        });
        return Ok(());
    }
    let was = if outcome.records == 1 { "was" } else { "were" };
    let records = format!("{} {was}", super::count(outcome.records));
    printer.print_out(if outcome.switched {
        format!("The vault has a new key; {records} encrypted with it.")
    } else {
        format!("{records} encrypted with the vault's new key.")
    });
    if outcome.unnamed > 0 {
        let (verb, again) =
            (if outcome.unnamed == 1 { "needs" } else { "need" }, app.command(&["vault", "rekey"]));
        printer.print_error(format_args!(
            "{} of an earlier version still {verb} the old key, which is kept: they belong to another profile or base \
             URL. Run `{again}` with each --profile and --base-url that you use.",
            super::count(outcome.unnamed)
        ));
    }
    if outcome.unreadable > 0 {
        printer.print_error(format_args!(
            "{} cannot be decrypted with any known key. The old key is kept. Give the key that is missing, or restore \
             the vault from a backup, and run this again.",
            super::count(outcome.unreadable)
        ));
    }
    if outcome.unnamed + outcome.unreadable > 0 {
        return Err(Error::Reported);
    }
    printer.print_out(if outcome.keeps_keys {
        "The old key was deleted. Copies of the vault that were made before still need it.".to_owned()
    } else {
        format!("Now remove the old key from {place} and restart every server.")
    });
    Ok(())
}
