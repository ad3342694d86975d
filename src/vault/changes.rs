//! Detects writes to the vault without a query: cheap enough for every call.

use std::{
    fs::File,
    io::{self, Read as _},
    time::SystemTime,
};

use super::files;
use crate::config::VaultLocation;

/// The state of the vault's files. Two equal markers mean that nothing was committed between them.
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
}

/// <https://www.sqlite.org/fileformat2.html#walformat>
const WAL_HEADER_BYTES: usize = 32;

impl ChangeMarker {
    /// Returns the current marker; `None` where it is unknown, so that the vault must be read.
    #[must_use]
    pub fn now(location: &VaultLocation) -> Option<Self> {
        let VaultLocation::Sqlite(path) = location;
        match File::open(files::beside(path, "-wal")) {
            Ok(log) => Self::of_log(log).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Some(if path.exists() { Self::NoLog } else { Self::NoVault })
            }
            Err(_) => None,
        }
    }

    fn of_log(mut log: File) -> io::Result<Self> {
        let metadata = log.metadata()?;
        let mut header = [0; WAL_HEADER_BYTES];
        if metadata.len() >= WAL_HEADER_BYTES as u64 {
            log.read_exact(&mut header)?;
        }
        Ok(Self::Log { length: metadata.len(), modified: metadata.modified().ok(), header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::SealingKeySource,
        vault::{RecordId, SealingKey, Vault},
    };

    async fn open(location: &VaultLocation) -> Vault {
        let source = SealingKeySource::Given("ab".repeat(32).into());
        let (key, _) = SealingKey::load(&source, std::path::Path::new(""), location).await.unwrap();
        Vault::open(location, key).await.unwrap()
    }

    /// SQLite starts its log over about every thousand pages, so that it does so several times here.
    #[tokio::test]
    async fn every_commit_of_anybody_changes_the_marker_and_a_read_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        assert_eq!(ChangeMarker::now(&location), Some(ChangeMarker::NoVault));
        let (reader, writer) = (open(&location).await, open(&location).await);
        let id = RecordId { owner: "o".into(), origin: "u".into() };
        let (mut version, plaintext) = (None, vec![7; 400_000]);
        for round in 0..40 {
            let before = ChangeMarker::now(&location);
            version = Some(writer.write(&id, version, &plaintext).await.unwrap());
            let after = ChangeMarker::now(&location);
            assert_ne!(before, after, "{round}");
            reader.read(&id).await.unwrap().unwrap();
            assert_eq!(after, ChangeMarker::now(&location), "{round}");
            if round == 30 {
                writer.purge().await.unwrap();
                assert_ne!(after, ChangeMarker::now(&location));
            }
        }
    }
}
