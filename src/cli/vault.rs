//! `bondmcp-server vault …`: changing the vault's key, and moving its records to another vault.

mod rekey;
mod transfer;

use super::{App, Error};
use crate::{
    error::UserFacingError,
    vault::{self, Keyring, Vault},
};

pub(super) const EXAMPLES: &str = "Examples:
  bondmcp-server vault rekey
  bondmcp-server vault export backup.bondmcp
  bondmcp-server --data-dir /srv/bondmcp vault import backup.bondmcp";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Change the key that encrypts the vault; running servers go on working
    ///
    /// A key in the OS keychain or in the data directory is replaced by a new one and deleted at the end. If you keep the
    /// key yourself, in BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE, first put a new one before it, separated by a comma
    /// or a line break, and restart every server.
    #[command(after_help = rekey::EXAMPLES)]
    Rekey(rekey::Args),
    /// Write all records to a file that a passphrase encrypts
    ///
    /// The file has the records of all profiles. The vault is not changed.
    #[command(after_help = transfer::EXPORT_EXAMPLES)]
    Export(transfer::Export),
    /// Add the records of an exported file to the vault
    ///
    /// If the vault has one of them already, nothing is added.
    #[command(after_help = transfer::IMPORT_EXAMPLES)]
    Import(transfer::Import),
}

impl Command {
    pub async fn run(self, app: App) -> Result<(), Error> {
        match self {
            Self::Rekey(args) => args.run(&app).await,
            Self::Export(args) => args.run(&app).await,
            Self::Import(args) => args.run(&app).await,
        }
    }
}

/// Opens the vault, and creates it if there is none.
async fn open(app: &App) -> Result<Vault, Error> {
    let settings = &app.settings;
    let (keyring, origin) = Keyring::load(&settings.sealing_key, &settings.data_dir, &settings.vault).await?;
    if let Some(notice) = origin.warning() {
        app.printer.print_err(format_args!("Note: {notice}."));
    }
    Ok(Vault::open(&settings.vault, keyring).await?)
}

/// Opens the vault; an error if there is none.
async fn open_existing(app: &App) -> Result<Vault, Error> {
    let location = &app.settings.vault;
    if !location.exists() {
        return Err(Error::no_vault(location));
    }
    open(app).await
}

fn count(records: u64) -> String {
    if records == 1 { "1 record".to_owned() } else { format!("{records} records") }
}

impl From<vault::Error> for Error {
    fn from(error: vault::Error) -> Self {
        UserFacingError::from(&error).into()
    }
}
