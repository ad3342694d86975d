//! The encrypted storage of accounts. It is independent of BondMCP: a record is bytes with an identity and a version,
//! changed by compare-and-swap, so that several processes can use one vault concurrently.

mod changes;
mod error;
mod export;
pub(crate) mod files;
mod keychain;
mod keyring;
mod rekey;
mod seal;
mod sealing_key;
mod sqlite;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use zeroize::Zeroizing;

pub use self::{
    changes::{ChangeMarker, ChangeWatch},
    error::Error,
    export::TransferError,
    keyring::{KeyOrigin, KeyPlace, KeychainAnswer, Keyring},
    rekey::{Progress, Rekey, Rekeyed},
    sealing_key::SealingKey,
};
use self::{
    seal::{RecordKey, Sealer},
    sqlite::Sqlite,
};
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

/// A record as the database has it.
#[derive(Debug)]
struct Row {
    key: RecordKey,
    version: u64,
    sealed: Vec<u8>,
}

/// A record that was encrypted anew, with the text that takes the place of the one that was read.
#[derive(Debug)]
struct Resealed {
    row: Row,
    new: Vec<u8>,
}

/// An open vault. Clones share its connections and its keys.
#[derive(Clone, Debug)]
pub struct Vault {
    database: Sqlite,
    keys: Arc<RwLock<Keys>>,
}

/// What the vault is encrypted with, as far as this process has noticed.
#[derive(Debug)]
struct Keys {
    keyring: Keyring,
    sealer: Arc<Sealer>,
}

impl Vault {
    /// Opens the vault, and creates it if there is none. An interrupted first start is repeated.
    pub async fn open(location: &VaultLocation, keyring: Keyring) -> Result<Self, Error> {
        let VaultLocation::Sqlite(path) = location;
        let new = Sealer::new(keyring.keys())?.known_text()?;
        let _lock = sqlite::lock(path).await?;
        let database = Sqlite::open(path, &new).await?;
        database.init_key_check(&new).await?;
        let keys = Keys::of_vault(&database.key_check().await?, keyring).await?;
        database.move_records_by_owner(|id| keys.sealer.record_key(id)).await?;
        Ok(Self { database, keys: Arc::new(RwLock::new(keys)) })
    }

    /// Reads the record; `None` if there is none.
    pub async fn read(&self, id: &RecordId) -> Result<Option<Record>, Error> {
        let sealer = self.sealer();
        match self.database.read(&sealer.record_key(id)).await? {
            None => Ok(None),
            Some((version, sealed)) => {
                let plaintext = match sealer.open(id, version, &sealed) {
                    Err(Error::UnknownKey) => self.refreshed_keys().await?.open(id, version, &sealed)?,
                    opened => opened?,
                };
                Ok(Some(Record { version, plaintext }))
            }
        }
    }

    /// Writes the record and returns its new version. `expected` is the version that was read before, `None` when there
    /// was no record; [`Error::Conflict`] means that another process wrote meanwhile.
    pub async fn write(&self, id: &RecordId, expected: Option<u64>, plaintext: &[u8]) -> Result<u64, Error> {
        let version = expected.unwrap_or(0) + 1;
        let mut sealer = self.sealer();
        loop {
            let sealed = sealer.seal(id, version, plaintext)?;
            match self.database.write(&sealer.record_key(id), version, &sealed).await {
                Err(Error::KeyChanged) => sealer = self.sealer_after(&sealer).await?,
                written => return if written? { Ok(version) } else { Err(Error::Conflict) },
            }
        }
    }

    /// Derives keys for `info` from the sealing keys: one from the vault's current key, and those from the other known
    /// ones.
    #[must_use]
    pub fn derived_keys(&self, info: &[u8]) -> (DerivedKey, Vec<DerivedKey>) {
        let mut keys = self.sealer().derived_keys(info);
        let current = keys.remove(0);
        (current, keys)
    }

    fn sealer(&self) -> Arc<Sealer> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).sealer.clone()
    }

    /// Returns the sealer for a write that was refused to `refused`, since its key is no longer the current one.
    async fn sealer_after(&self, refused: &Sealer) -> Result<Arc<Sealer>, Error> {
        let sealer = self.refreshed_keys().await?;
        if sealer.current_id() == refused.current_id() { Err(Error::KeyChanged) } else { Ok(sealer) }
    }

    /// Looks again which keys there are and which one is current, since a change of keys was noticed.
    async fn refreshed_keys(&self) -> Result<Arc<Sealer>, Error> {
        let keyring = self.keys.read().unwrap_or_else(PoisonError::into_inner).keyring.clone();
        let known_text = self.database.key_check().await?;
        let keys =
            Keys::of_vault(&known_text, keyring.reload().await?).await.map_err(|error| match error {
                // It was the right one when the vault was opened.
                Error::WrongKey => Error::UnknownKey,
                error => error,
            })?;
        let sealer = keys.sealer.clone();
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(sealer)
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
        self.database.acquire_lease(&self.sealer().record_key(id), holder, now, lifetime).await
    }

    /// Releases the lease, if `holder` still has it.
    pub async fn release_lease(&self, id: &RecordId, holder: &str) -> Result<(), Error> {
        self.database.release_lease(&self.sealer().record_key(id), holder).await
    }

    /// Removes the remains of earlier versions of the records from the vault's files.
    pub async fn purge(&self) -> Result<(), Error> {
        self.database.purge().await
    }

    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// A key that was derived from a sealing key; wiped when dropped.
pub type DerivedKey = Zeroizing<[u8; 32]>;

impl Keys {
    /// Finds the key that the vault's known text names. A process that does not know it loads its keys again, once.
    async fn of_vault(known_text: &[u8], keyring: Keyring) -> Result<Self, Error> {
        match Sealer::of_vault(known_text, keyring.keys()) {
            Err(Error::WrongKey) => {
                let keyring = keyring.reload().await?;
                let sealer = Arc::new(Sealer::of_vault(known_text, keyring.keys())?);
                Ok(Self { keyring, sealer })
            }
            sealer => Ok(Self { sealer: Arc::new(sealer?), keyring }),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;

    const OWNER: &str = "environment:ada@example.com";

    fn key(byte: u8) -> Keyring {
        Keyring::of(&[byte])
    }

    /// Creates a vault in the format of this program's first version.
    async fn first_version(location: &VaultLocation, id: &RecordId) {
        Vault::open(location, key(1)).await.unwrap().close().await;
        let mut database = SqliteConnection::connect(&format!("sqlite://{location}")).await.unwrap();
        let downgrade = "DROP TABLE records; DROP TABLE leases; ALTER TABLE meta RENAME TO kept;
            DELETE FROM _sqlx_migrations WHERE version > 1;";
        let key = SealingKey::from_bytes([1; 32]);
        let check = RecordId { owner: String::new(), origin: "key check".into() };
        let restore = "DROP TABLE meta; ALTER TABLE kept RENAME TO meta;";
        for statements in [downgrade, include_str!("migrations/0001_records.sql"), restore] {
            sqlx::raw_sql(statements).execute(&mut database).await.unwrap();
        }
        sqlx::query("INSERT INTO records (owner, origin, version, sealed) VALUES (?, ?, 7, ?)")
            .bind(&id.owner)
            .bind(&id.origin)
            .bind(seal::seal_first_format(&key, id, 7, b"a record"))
            .execute(&mut database)
            .await
            .unwrap();
        sqlx::query("UPDATE meta SET value = ?")
            .bind(seal::seal_first_format(&key, &check, 0, b"bondmcp-server"))
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
