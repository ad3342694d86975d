//! Errors of a vault. After none of them is the vault overwritten.

use std::{io, path::PathBuf};

use crate::{
    error::{Kind, UserFacingError, sentence},
    text::shell_word,
};

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
    #[error("`{path}` is open to other users")]
    Exposed { path: PathBuf, mode: &'static str },
    /// Another user of this machine could change it.
    #[error("`{path}` belongs to another user (uid {owner}, and this process runs as uid {user})")]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    /// What it leads to may be on a volume that is not mounted, so nothing is made in its place.
    #[error("`{path}` is a symbolic link whose target does not exist")]
    BrokenLink { path: PathBuf },
    #[error("cannot use {path}: {}", crate::error::reason(*.reason))]
    Unusable { path: PathBuf, reason: io::ErrorKind },
    #[error("the vault cannot be used: {0}")]
    Database(&'static str),
    #[error("another process has locked the vault")]
    Locked,
    #[error("the OS keychain {0}")]
    Keychain(&'static str),
    #[error("the vault's PostgreSQL server {0}")]
    Server(ServerError),
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
                "Give the right key (BONDMCP_SEALING_KEY, BONDMCP_SEALING_KEY_FILE, the OS keychain or the key file); without it nothing in the vault can be read. To start afresh, use another data directory or database.".into()
            }
            Self::UnknownKey => {
                "Give the new key beside the old one (BONDMCP_SEALING_KEY or BONDMCP_SEALING_KEY_FILE, the new one first) and restart.".into()
            }
            Self::Tampered => {
                "Restore the vault from a backup, or move it away and sign in again; API keys created with it must then be revoked and created again.".into()
            }
            Self::Newer => "Upgrade bondmcp-server, or use another vault (--data-dir or BONDMCP_VAULT).".into(),
            Self::Damaged => "Restore it from a backup, or move it away and sign in again; the file is left as it is.".into(),
            Self::Exposed { path, mode } => format!("Run: chmod {mode} {}", shell_word(&path.to_string_lossy())),
            Self::Foreign { path, user, .. } => format!(
                "Run as its owner, or, if it is yours, run: chown -R {user} {}",
                shell_word(&path.to_string_lossy())
            ),
            Self::BrokenLink { .. } => {
                "Mount the volume or restore the file that it leads to. To start afresh, remove the link.".into()
            }
            Self::Unusable { .. } => {
                "Check that it exists and that you may read and write it, or name another: a data directory with --data-dir, a key file with BONDMCP_SEALING_KEY_FILE.".into()
            }
            Self::Database(_) => "Check the disk and the permissions of the data directory, then try again.".into(),
            Self::Locked => "Try again in a moment. If it stays locked, end the other processes of bondmcp-server.".into(),
            Self::Keychain(_) => "Unlock the OS keychain, then try again.".into(),
            Self::Server(error) => error.solution().into(),
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
        Self::new(kind, sentence(&error.to_string()), error.solution())
    }
}

/// What is wrong with the PostgreSQL server of a vault. The words are ours, since the server's may quote data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    #[error("cannot be reached")]
    Unreachable,
    #[error("does not answer in time")]
    Silent,
    #[error("is shutting down or starting")]
    Restarting,
    #[error("is too busy")]
    Busy,
    #[error("answers in an unexpected way")]
    Unexpected,
    #[error("reports an error")]
    Other,
    #[error("refuses the user or the password")]
    Login,
    #[error("does not have the database")]
    NoDatabase,
    #[error("does not let the user create or use the tables")]
    Forbidden,
    #[error("is read-only")]
    ReadOnly,
    #[error("has no space or memory left")]
    Full,
    #[error("accepts no more connections")]
    TooManyConnections,
    #[error("cannot be trusted: TLS failed, or its certificate is not known")]
    Untrusted,
    #[error("is no longer used: this process is ending")]
    Closed,
}

impl ServerError {
    fn solution(self) -> &'static str {
        match self {
            Self::Unreachable | Self::Silent | Self::Restarting => {
                "Check that the server that BONDMCP_VAULT names runs and can be reached, then try again."
            }
            Self::Unexpected => "Check that BONDMCP_VAULT names a PostgreSQL server.",
            Self::Busy => "Try again.",
            Self::Other => "Read the PostgreSQL server's log.",
            Self::Login => "Correct the user or the password in BONDMCP_VAULT.",
            Self::NoDatabase => "Create the database, or correct its name in BONDMCP_VAULT.",
            Self::Forbidden => "Make the user in BONDMCP_VAULT the owner of the database.",
            Self::ReadOnly => "Name the primary server in BONDMCP_VAULT.",
            Self::Full => "Give the PostgreSQL server more space or memory; its log says which.",
            Self::TooManyConnections => {
                "Raise max_connections of the PostgreSQL server; each bondmcp-server keeps up to six."
            }
            Self::Untrusted => {
                "Check the server's certificate, and sslmode and sslrootcert in BONDMCP_VAULT."
            }
            Self::Closed => "Start it again.",
        }
    }
}
