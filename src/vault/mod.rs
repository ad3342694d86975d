//! The encrypted storage of accounts. It is independent of BondMCP: a record is bytes with an identity and a version,
//! changed by compare-and-swap, so that several processes can use one vault concurrently.

mod changes;
mod error;
pub(crate) mod files;
mod seal;
mod sealing_key;
mod sqlite;

use std::time::Duration;

pub use self::{
    changes::{ChangeMarker, ChangeWatch},
    error::Error,
    sealing_key::{KeyOrigin, KeyPlace, KeychainAnswer, SealingKey},
};
use self::{seal::Sealer, sqlite::Sqlite};
use crate::{clock::Timestamp, config::VaultLocation, secret::SecretBytes};

/// The identity of a record: its owner and its upstream. Both are authenticated with the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    pub owner: String,
    pub origin: String,
}

/// A decrypted record.
#[derive(Debug)]
pub struct Record {
    /// Version of the record, from 1, incremented by every write.
    pub version: u64,
    pub plaintext: SecretBytes,
}

/// An open vault. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Vault {
    database: Sqlite,
    sealer: Sealer,
}

impl Vault {
    /// Opens the vault, and creates it if there is none. An interrupted first start is repeated.
    pub async fn open(location: &VaultLocation, key: SealingKey) -> Result<Self, Error> {
        let VaultLocation::Sqlite(path) = location;
        let sealer = Sealer::new(key);
        let check = RecordId { owner: String::new(), origin: "key check".to_owned() };
        let known = sealer.seal(&check, 0, b"bondmcp-server")?;
        let _lock = sqlite::lock(path).await?;
        let database = Sqlite::open(path, &known).await?;
        // Distinguishes a wrong key from a tampered record: a vault holds a known text, encrypted at creation.
        match sealer.open(&check, 0, &database.key_check(&known).await?) {
            Err(Error::Tampered) => return Err(Error::WrongKey),
            outcome => outcome?,
        };
        database.move_records_by_owner(|id| sealer.record_key(id)).await?;
        Ok(Self { database, sealer })
    }

    /// Reads the record; `None` if there is none.
    pub async fn read(&self, id: &RecordId) -> Result<Option<Record>, Error> {
        match self.database.read(&self.sealer.record_key(id)).await? {
            None => Ok(None),
            Some((version, sealed)) => {
                let plaintext = self.sealer.open(id, version, &sealed)?;
                Ok(Some(Record { version, plaintext }))
            }
        }
    }

    /// Writes the record and returns its new version. `expected` is the version that was read before, `None` when there
    /// was no record; [`Error::Conflict`] means that another process wrote meanwhile.
    pub async fn write(&self, id: &RecordId, expected: Option<u64>, plaintext: &[u8]) -> Result<u64, Error> {
        let version = expected.unwrap_or(0) + 1;
        let sealed = self.sealer.seal(id, version, plaintext)?;
        let written = self.database.write(&self.sealer.record_key(id), version, &sealed).await?;
        if written { Ok(version) } else { Err(Error::Conflict) }
    }

    /// Takes or extends the lease on a record until `now + lifetime`, unless another holder's is still valid. The
    /// record need not exist.
    pub async fn acquire_lease(
        &self,
        id: &RecordId,
        holder: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        self.database.acquire_lease(&self.sealer.record_key(id), holder, now, lifetime).await
    }

    /// Releases the lease, if `holder` still has it.
    pub async fn release_lease(&self, id: &RecordId, holder: &str) -> Result<(), Error> {
        self.database.release_lease(&self.sealer.record_key(id), holder).await
    }

    /// Removes the remains of earlier versions of the records from the vault's files.
    pub async fn purge(&self) -> Result<(), Error> {
        self.database.purge().await
    }

    pub async fn close(&self) {
        self.database.close().await;
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;

    const OWNER: &str = "environment:ada@example.com";

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_bytes([byte; 32])
    }

    /// Creates a vault in the format of this program's first version.
    async fn first_version(location: &VaultLocation, id: &RecordId) {
        Vault::open(location, key(1)).await.unwrap().close().await;
        let mut database = SqliteConnection::connect(&format!("sqlite://{location}")).await.unwrap();
        let downgrade = "DROP TABLE records; DROP TABLE leases; ALTER TABLE meta RENAME TO kept;
            DELETE FROM _sqlx_migrations WHERE version > 1;";
        let restore = "DROP TABLE meta; ALTER TABLE kept RENAME TO meta;";
        for statements in [downgrade, include_str!("migrations/0001_records.sql"), restore] {
            sqlx::raw_sql(statements).execute(&mut database).await.unwrap();
        }
        sqlx::query("INSERT INTO records (owner, origin, version, sealed) VALUES (?, ?, 7, ?)")
            .bind(&id.owner)
            .bind(&id.origin)
            .bind(Sealer::new(key(1)).seal(id, 7, b"a record").unwrap())
            .execute(&mut database)
            .await
            .unwrap();
        database.close().await.unwrap();
    }

    fn shows_the_owner(directory: &std::path::Path) -> bool {
        std::fs::read_dir(directory).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(OWNER.len()).any(|window| window == OWNER.as_bytes())
        })
    }

    #[tokio::test]
    async fn a_vault_that_shows_its_owners_is_moved_to_keyed_ids_by_the_right_key() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let location = VaultLocation::Sqlite(data_dir.join("vault.db"));
        let id = RecordId { owner: OWNER.into(), origin: "https://api.example".into() };
        first_version(&location, &id).await;
        assert!(shows_the_owner(&data_dir));

        assert_eq!(Vault::open(&location, key(2)).await.unwrap_err(), Error::WrongKey);
        assert!(shows_the_owner(&data_dir), "a wrong key moves nothing");
        for _ in 0..2 {
            let vault = Vault::open(&location, key(1)).await.unwrap();
            let record = vault.read(&id).await.unwrap().unwrap();
            assert_eq!((record.version, &record.plaintext[..]), (7, &b"a record"[..]));
            assert!(!shows_the_owner(&data_dir));
            vault.close().await;
        }
    }
}
