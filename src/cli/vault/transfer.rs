//! `bondmcp-server vault export` and `import`.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{App, Error};
use crate::{
    cli::prompt::PASSPHRASE,
    error::UserFacingError,
    secret::{ExposeSecret as _, SecretString},
    vault::{ExportFile, TransferError, Vault},
};

pub(super) const EXPORT_EXAMPLES: &str = "Examples:
  bondmcp-server vault export backup.bondmcp
  pass show bondmcp-export | bondmcp-server vault export backup.bondmcp --passphrase-stdin";

pub(super) const IMPORT_EXAMPLES: &str = "Examples:
  bondmcp-server vault import backup.bondmcp
  bondmcp-server --data-dir /srv/bondmcp vault import backup.bondmcp
  pass show bondmcp-export | bondmcp-server vault import backup.bondmcp --passphrase-stdin";

/// Shortest passphrase of an export, since a thief of the file can try as many as they like.
const MIN_PASSPHRASE_CHARS: usize = 12;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Export {
    /// The file to write; it must not exist
    file: PathBuf,
    /// Read the passphrase from the first line of stdin instead of asking for it
    #[arg(long)]
    passphrase_stdin: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Import {
    /// The file to read
    file: PathBuf,
    /// Read the passphrase from the first line of stdin instead of asking for it
    #[arg(long)]
    passphrase_stdin: bool,
}

impl Export {
    pub async fn run(self, app: &App) -> Result<(), Error> {
        let vault = super::open_existing(app).await?;
        let outcome = self.export(app, &vault).await;
        vault.close().await;
        let records = outcome?;
        app.printer.print_out(format_args!(
            "Exported {}. Whoever has the file and the passphrase can use the accounts in it: delete it when it has \
             been imported.",
            super::count(records)
        ));
        Ok(())
    }

    async fn export(&self, app: &App, vault: &Vault) -> Result<u64, Error> {
        let passphrase = PASSPHRASE.read(self.passphrase_stdin, true)?;
        app.redactor.remember(&passphrase);
        refuse_short(&passphrase)?;
        let candidates = app.accounts().local().first_version_records();
        Ok(vault.export(&self.file, &passphrase, &candidates).await?)
    }
}

impl Import {
    pub async fn run(self, app: &App) -> Result<(), Error> {
        let passphrase = PASSPHRASE.read(self.passphrase_stdin, false)?;
        app.redactor.remember(&passphrase);
        // Before a vault is made for it.
        let file = ExportFile::open(&self.file, &passphrase)?;
        let vault = super::open(app).await?;
        let outcome = vault.import(file).await;
        vault.close().await;
        let (records, location) = (super::count(outcome?), &app.settings.vault);
        app.printer.print_out(format_args!("Imported {records} into {location}."));
        Ok(())
    }
}

fn refuse_short(passphrase: &SecretString) -> Result<(), Error> {
    if passphrase.expose_secret().chars().count() < MIN_PASSPHRASE_CHARS {
        return Err(Error::Failed(anyhow!(
            "The passphrase is too short: it must have {MIN_PASSPHRASE_CHARS} characters or more."
        )));
    }
    Ok(())
}

impl From<TransferError> for Error {
    fn from(error: TransferError) -> Self {
        UserFacingError::from(&error).into()
    }
}
