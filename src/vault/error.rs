//! Errors of a vault. After none of them is the vault overwritten.

use std::{io, path::PathBuf};

use crate::error::{Kind, UserFacingError};

/// Errors of a vault or its sealing key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another process changed the record meanwhile.
    #[error("the record was changed meanwhile")]
    Conflict,
    #[error("the sealing key is not the one that this vault was encrypted with")]
    WrongKey,
    /// The vault or a record was encrypted with a key that this process does not know.
    #[error("the vault's sealing key was changed, and this process does not have the new one")]
    UnknownKey,
    /// Another key became the vault's current one while a record was being written.
    #[error("the vault's sealing key was changed meanwhile")]
    KeyChanged,
    /// A record of this program's first version, whose identity is not in it, and is not known.
    #[error("a record was written by an earlier version of bondmcp-server, for another profile or base URL")]
    Unnamed,
    /// A record cannot be decrypted: it was changed, truncated or moved to another identity.
    #[error("a record in the vault was tampered with or is damaged")]
    Tampered,
    #[error("the vault was written by a newer version of bondmcp-server")]
    Newer,
    #[error("the vault file is damaged or not a vault")]
    Damaged,
    /// Others on this machine could read or change it.
    #[error("{path} is open to other users")]
    Exposed { path: PathBuf, mode: &'static str },
    /// Another user of this machine could change it.
    #[error("{path} belongs to another user (uid {owner}, and this process runs as uid {user})")]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    #[error("{path} cannot be used ({reason})")]
    Unusable { path: PathBuf, reason: io::ErrorKind },
    #[error("the vault cannot be written: {0}")]
    Database(&'static str),
    #[error("the vault's PostgreSQL server {0}")]
    Server(&'static str),
    /// Every process that uses the vault needs the same key, which this one would make for itself.
    #[error("a vault in PostgreSQL needs a sealing key that all its processes are given")]
    KeyNotGiven,
    #[error("the sealing key {0} is not 32 bytes in base64 or hex")]
    KeyFormat(String),
    #[error("the vault's sealing key is gone: neither the OS keychain nor {path} has it")]
    KeyMissing { path: PathBuf },
    #[error("the operating system provides no randomness")]
    NoRandomness,
}

impl Error {
    fn solution(&self) -> String {
        match self {
            Self::Conflict | Self::KeyChanged => "Try again.".into(),
            Self::Unnamed => "Run the command with that --profile and --base-url too.".into(),
            Self::WrongKey => {
                "Give the right key (BONDMCP_SEALING_KEY, BONDMCP_SEALING_KEY_FILE, the OS keychain or the key file); without it nothing in the vault can be read, and a new data directory starts afresh.".into()
            }
            Self::UnknownKey => {
                "Give the new key beside the old one (BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE, the new one first) and restart.".into()
            }
            Self::Tampered => {
                "Restore the vault from a backup, or move it away and sign in again; API keys created with it must then be revoked and created again.".into()
            }
            Self::Newer => "Upgrade bondmcp-server, or use another data directory with --data-dir.".into(),
            Self::Damaged => "Restore it from a backup, or move it away and sign in again; the file is left as it is.".into(),
            Self::Exposed { path, mode } => format!("Run: chmod {mode} '{}'", path.display()),
            Self::Foreign { path, user, .. } => format!(
                "Run as its owner, or, if it is yours, run: chown -R {user} '{}'",
                path.display()
            ),
            Self::Unusable { .. } => {
                "Check that it exists and that you may write there, or name another directory with --data-dir or BONDMCP_DATA_DIR.".into()
            }
            Self::Database(_) => "Check the disk and the permissions of the data directory, then try again.".into(),
            Self::Server(_) => {
                "Check BONDMCP_VAULT and that the server runs and can be reached, then try again; lost connections are made again by themselves.".into()
            }
            Self::KeyNotGiven => {
                "Generate one with: openssl rand -base64 32. Give it to every process in BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE.".into()
            }
            Self::KeyFormat(_) => "Generate one with: openssl rand -base64 32".into(),
            Self::KeyMissing { .. } => {
                "Restore the key, or move the vault away and sign in again.".into()
            }
            Self::NoRandomness => "Nothing can be secured without it; check the system.".into(),
        }
    }
}

impl From<&Error> for UserFacingError {
    fn from(error: &Error) -> Self {
        let kind = if *error == Error::Conflict { Kind::Conflict } else { Kind::Internal };
        let message = error.to_string();
        let mut letters = message.chars();
        let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
        Self::new(kind, format!("{first}{}.", letters.as_str()), error.solution())
    }
}
