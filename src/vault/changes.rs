//! Detects writes to the vault without a query: cheap enough for every call.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::RwLock;

use super::files;

/// The state of the vault. Two equal markers mean that nothing was committed between them.
///
/// A commit appends to SQLite's write-ahead log, and the first one after a checkpoint starts the log over with a new
/// salt in its header and cuts it to length (`journal_size_limit`, see `sqlite.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeMarker {
    NoVault,
    /// There is no write-ahead log: no process has the vault open.
    NoLog,
    Log {
        length: u64,
        modified: Option<SystemTime>,
        header: [u8; WAL_HEADER_BYTES],
    },
    /// The number of changes of the record, and perhaps of others, that PostgreSQL has notified of on a connection.
    Notified {
        connection: u64,
        changes: u64,
    },
}

/// <https://www.sqlite.org/fileformat2.html#walformat>
const WAL_HEADER_BYTES: usize = 32;

/// A watch on the vault's files. It keeps the write-ahead log open, since opening a file costs several times as much as
/// looking at an open one.
#[derive(Debug)]
pub struct ChangeWatch {
    /// The vault's file itself, since its log lies beside that and not beside a link to it.
    vault: PathBuf,
    log: RwLock<Option<File>>,
}

impl ChangeWatch {
    pub fn new(vault: PathBuf) -> Self {
        Self { vault, log: RwLock::default() }
    }

    /// Returns the current marker; `None` where it is unknown, so that the vault must be read.
    pub fn marker(&self) -> Option<ChangeMarker> {
        let log = self.log.read();
        if let Some(log) = &*log
            && let Some(marker) = of_log(log).ok()?
        {
            return Some(marker);
        }
        drop(log);
        self.reopen()
    }

    fn reopen(&self) -> Option<ChangeMarker> {
        let vault = &self.vault;
        let mut held = self.log.write();
        *held = None;
        let log = match File::open(files::beside(vault, "-wal")) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(without_log(vault)),
            Err(_) => return None,
        };
        let marker = of_log(&log).ok()?.unwrap_or_else(|| without_log(vault));
        // Elsewhere an open file does not show that it was deleted.
        *held = cfg!(unix).then_some(log);
        Some(marker)
    }
}

fn without_log(vault: &Path) -> ChangeMarker {
    if vault.exists() { ChangeMarker::NoLog } else { ChangeMarker::NoVault }
}

/// Returns the marker of an open log; `None` if the file was deleted, as the last process to close a vault does.
#[cfg(unix)]
fn of_log(log: &File) -> io::Result<Option<ChangeMarker>> {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    let metadata = log.metadata()?;
    if metadata.nlink() == 0 {
        return Ok(None);
    }
    let mut header = [0; WAL_HEADER_BYTES];
    if metadata.len() >= WAL_HEADER_BYTES as u64 {
        log.read_exact_at(&mut header, 0)?;
    }
    Ok(Some(ChangeMarker::Log { length: metadata.len(), modified: metadata.modified().ok(), header }))
}

#[cfg(not(unix))]
fn of_log(mut log: &File) -> io::Result<Option<ChangeMarker>> {
    use std::io::Read as _;

    let metadata = log.metadata()?;
    let mut header = [0; WAL_HEADER_BYTES];
    if metadata.len() >= WAL_HEADER_BYTES as u64 {
        log.read_exact(&mut header)?;
    }
    Ok(Some(ChangeMarker::Log { length: metadata.len(), modified: metadata.modified().ok(), header }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{Keyring, RecordId, RecordKind, Vault},
    };

    async fn open(location: &VaultLocation) -> Vault {
        Vault::open(location, Keyring::of(&[1])).await.unwrap()
    }

    /// SQLite starts its log over about every thousand pages.
    #[tokio::test]
    async fn every_commit_of_anybody_changes_the_marker_and_a_read_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/vault.db");
        let location = VaultLocation::Sqlite(path.clone());
        let watch = ChangeWatch::new(path);
        let now = || watch.marker().unwrap();
        assert_eq!(now(), ChangeMarker::NoVault);
        let (reader, writer) = (open(&location).await, open(&location).await);
        let id = RecordId { kind: RecordKind::ACCOUNT, owner: "o".into(), origin: "u".into() };
        let (mut version, plaintext) = (None, vec![7; 400_000]);
        let mut starts = 0;
        for round in 0..12 {
            let before = now();
            version = Some(writer.write(&id, version, &plaintext, None).await.unwrap());
            let after = now();
            assert_ne!(before, after, "{round}");
            starts += usize::from(header(&before) != header(&after));
            reader.read(&id).await.unwrap().unwrap();
            assert_eq!(after, now(), "{round}");
        }
        assert!(starts > 1, "the log was never started over");
        let before = now();
        writer.purge().await.unwrap();
        assert_ne!(before, now());
    }

    fn header(marker: &ChangeMarker) -> Option<&[u8; WAL_HEADER_BYTES]> {
        match marker {
            ChangeMarker::Log { header, .. } => Some(header),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_log_that_was_deleted_and_made_again_is_not_watched_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/vault.db");
        let location = VaultLocation::Sqlite(path.clone());
        let watch = ChangeWatch::new(path);
        let id = RecordId { kind: RecordKind::ACCOUNT, owner: "o".into(), origin: "u".into() };
        let mut version = None;
        let mut seen = vec![];
        for _ in 0..3 {
            let vault = open(&location).await;
            version = Some(vault.write(&id, version, b"record", None).await.unwrap());
            seen.push(watch.marker().unwrap());
            assert!(matches!(seen.last(), Some(ChangeMarker::Log { .. })));
            vault.close().await;
            assert_eq!(watch.marker(), Some(ChangeMarker::NoLog));
        }
        seen.dedup();
        assert_eq!(seen.len(), 3);
    }
}
