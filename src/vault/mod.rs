//! The encrypted storage of accounts. It is independent of BondMCP: a record is bytes with an identity and a version,
//! changed by compare-and-swap, so that several processes can use one vault concurrently.

mod change_notifications;
mod changes;
mod database;
mod error;
mod export;
pub(crate) mod files;
mod import;
mod keychain;
mod keyring;
mod lease;
mod list;
mod postgres;
mod records;
mod rekey;
mod seal;
mod sealing_key;
mod sqlite;
mod survey;

use std::{borrow::Cow, sync::Arc, time::Duration};

use parking_lot::RwLock;
use zeroize::Zeroizing;

pub use self::{
    changes::ChangeMarker,
    error::{Error, ServerError},
    export::{ExportFile, TransferError, is_export},
    keyring::{KeyOrigin, KeyPlace, KeychainAnswer, Keyring},
    postgres::is_in_postgres,
    records::{Next, Records, Versioned},
    rekey::{Progress, Rekey, Rekeyed},
    sealing_key::SealingKey,
    survey::KeySurvey,
};
use self::{
    database::{Database, New},
    seal::Sealer,
};
use crate::{clock::Timestamp, config::VaultLocation, secret::SecretBytes};

/// The identity of a record. It is authenticated with the record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    pub kind: RecordKind,
    pub owner: String,
    pub origin: String,
}

/// What a record is about. Unlike its owner and its origin, it can be read in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordKind(Cow<'static, str>);

impl RecordKind {
    /// An account: what every record was before there were kinds.
    pub const ACCOUNT: Self = Self::new("account");

    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A decrypted record.
#[derive(Debug)]
pub struct Record {
    /// Version of the record, from 1, incremented by every write.
    pub version: u64,
    pub plaintext: SecretBytes,
}

/// Refuses a vault that a newer version of this program has migrated. Opens and creates none; whatever else is wrong with
/// it is told when it is opened.
pub async fn refuse_newer(location: &VaultLocation) -> Result<(), Error> {
    let is_newer = match location {
        VaultLocation::Sqlite(path) => sqlite::is_newer(path),
        VaultLocation::Postgres(url) => postgres::is_newer(url).await,
    };
    if is_newer { Err(Error::Newer) } else { Ok(()) }
}

/// An open vault. Clones share its connections and its keys.
#[derive(Clone, Debug)]
pub struct Vault {
    database: Database,
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
        let new = Sealer::new(keyring.keys())?.known_text()?;
        let (database, _lock) = Database::open(location, &new).await?;
        database.init_key_check(&new).await?;
        let keys = Keys::of_vault(&database.key_check().await?, keyring).await?;
        database.move_records_by_owner(|id| keys.sealer.record_key(id)).await?;
        database.purge_expired().await?;
        Ok(Self { database, keys: Arc::new(RwLock::new(keys)) })
    }

    /// Returns the time by the database's clock, which all processes share: their own may differ.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        self.database.now().await
    }

    /// Reads the record; `None` if there is none.
    pub async fn read(&self, id: &RecordId) -> Result<Option<Record>, Error> {
        let sealer = self.sealer();
        match self.database.read(&sealer.record_key(id)).await? {
            None => Ok(None),
            Some((version, ciphertext)) => {
                let plaintext = match sealer.open(id, version, &ciphertext) {
                    Err(Error::UnknownKey) => self.refreshed_keys().await?.open(id, version, &ciphertext)?,
                    opened => opened?,
                };
                Ok(Some(Record { version, plaintext }))
            }
        }
    }

    /// Writes the record and returns its new version. `expected` is the version that was read before, `None` when there
    /// was no record; [`Error::Conflict`] means that another process wrote meanwhile. After `lifetime`, by the
    /// database's clock, there is no record.
    pub async fn write(
        &self,
        id: &RecordId,
        expected: Option<u64>,
        plaintext: &[u8],
        lifetime: Option<Duration>,
    ) -> Result<u64, Error> {
        self.put(id, expected, plaintext, lifetime, false).await
    }

    /// As [`Self::write`], for a record without a secret that was in the one before: removes that from the vault's files
    /// too. Should that fail, or the process end before, it is done later.
    pub async fn write_forgetting(
        &self,
        id: &RecordId,
        expected: Option<u64>,
        plaintext: &[u8],
        lifetime: Option<Duration>,
    ) -> Result<u64, Error> {
        let version = self.put(id, expected, plaintext, lifetime, true).await?;
        if let Err(error) = self.database.purge_remains().await {
            tracing::warn!(%error, "it is not known whether deleted secrets are still in the vault's file");
        }
        Ok(version)
    }

    async fn put(
        &self,
        id: &RecordId,
        expected: Option<u64>,
        plaintext: &[u8],
        lifetime: Option<Duration>,
        forgets: bool,
    ) -> Result<u64, Error> {
        let version = expected.unwrap_or(0) + 1;
        let mut sealer = self.sealer();
        let (key, kind) = (sealer.record_key(id), id.kind.as_str().to_owned());
        let mut new = New { key, kind, version, sealed: Vec::new(), lifetime, forgets };
        loop {
            new.sealed = sealer.seal(id, version, plaintext)?;
            match self.database.write(&new).await {
                Err(Error::KeyChanged) => sealer = self.sealer_after(&sealer).await?,
                Ok(false) => return Err(Error::Conflict),
                written => return written.map(|_| version),
            }
        }
    }

    /// Deletes the record, if there is one with the version `expected`; if it has another one, [`Error::Conflict`].
    pub async fn delete(&self, id: &RecordId, expected: u64) -> Result<(), Error> {
        let deleted = self.database.delete(&self.sealer().record_key(id), expected).await?;
        if deleted { Ok(()) } else { Err(Error::Conflict) }
    }

    /// Records that something was used; `false` if it was before. It is forgotten after `lifetime`.
    pub async fn insert_once(&self, id: &RecordId, lifetime: Duration) -> Result<bool, Error> {
        match self.write(id, None, &[], Some(lifetime)).await {
            Err(Error::Conflict) => Ok(false),
            written => written.map(|_| true),
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

    /// Looks again which keys there are and which one is current.
    pub async fn reload_keys(&self) -> Result<(), Error> {
        self.refreshed_keys().await.map(|_| ())
    }

    fn sealer(&self) -> Arc<Sealer> {
        self.keys.read().sealer.clone()
    }

    /// Returns the sealer for a write that was refused to `refused`, since its key is no longer the current one.
    async fn sealer_after(&self, refused: &Sealer) -> Result<Arc<Sealer>, Error> {
        let sealer = self.refreshed_keys().await?;
        if sealer.current_id() == refused.current_id() { Err(Error::KeyChanged) } else { Ok(sealer) }
    }

    /// Looks again which keys there are and which one is current, since a change of keys was noticed.
    async fn refreshed_keys(&self) -> Result<Arc<Sealer>, Error> {
        let keyring = self.keys.read().keyring.clone();
        let known_text = self.database.key_check().await?;
        let keys =
            Keys::of_vault(&known_text, keyring.reload().await?).await.map_err(|error| match error {
                // It was the right one when the vault was opened.
                Error::WrongKey => Error::UnknownKey,
                error => error,
            })?;
        let sealer = keys.sealer.clone();
        *self.keys.write() = keys;
        Ok(sealer)
    }

    /// Takes or extends the lease on a record for `lifetime`, unless another holder's is still valid. The database's
    /// clock decides about that. The record need not exist.
    pub async fn acquire_lease(
        &self,
        id: &RecordId,
        holder: &str,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        self.database.acquire_lease(&self.sealer().record_key(id), holder, lifetime).await
    }

    /// Whether anybody holds the lease on a record. Writes nothing.
    pub async fn is_leased(&self, id: &RecordId) -> Result<bool, Error> {
        Ok(self.database.state(&self.sealer().record_key(id)).await?.lease.is_some())
    }

    /// Waits until nobody holds the lease on a record or its version is higher than `seen` (0 for no record), but at
    /// most for `at_most`. Writes nothing.
    pub async fn lease_wait(&self, id: &RecordId, seen: u64, at_most: Duration) -> Result<(), Error> {
        let key = self.sealer().record_key(id);
        let wait = self.database.lease_wait(&key, seen);
        tokio::time::timeout(at_most, wait).await.unwrap_or(Ok(()))
    }

    /// Waits until the version of a record is no longer `seen` (0 for no record), but at most for `at_most`. Writes
    /// nothing.
    pub async fn change_wait(&self, id: &RecordId, seen: u64, at_most: Duration) -> Result<(), Error> {
        let key = self.sealer().record_key(id);
        let wait = self.database.change_wait(&key, seen);
        tokio::time::timeout(at_most, wait).await.unwrap_or(Ok(()))
    }

    /// Returns the marker that changes when the record is written; `None` where it is unknown.
    #[must_use]
    pub fn change_marker(&self, id: &RecordId) -> Option<ChangeMarker> {
        self.database.change_marker(|| self.sealer().record_key(id))
    }

    /// Releases the lease, if `holder` still has it.
    pub async fn release_lease(&self, id: &RecordId, holder: &str) -> Result<(), Error> {
        self.database.release_lease(&self.sealer().record_key(id), holder).await
    }

    /// Removes the remains of earlier versions of the records from the vault's files.
    pub async fn purge(&self) -> Result<(), Error> {
        self.database.purge().await
    }

    /// Deletes what has expired. That happens by itself, too: when a vault is opened, and from time to time on a write.
    pub async fn purge_expired(&self) -> Result<(), Error> {
        self.database.purge_expired().await
    }

    pub async fn close(&self) {
        self.database.close().await;
    }
}

/// A key that was derived from a sealing key; wiped when dropped.
pub type DerivedKey = Zeroizing<[u8; 32]>;

impl Keys {
    /// Finds the key that the vault's known text names. A process that does not know it loads its keys again, once, and
    /// then those that others hide.
    async fn of_vault(known_text: &[u8], mut keyring: Keyring) -> Result<Self, Error> {
        if !keyring.opens(known_text) {
            keyring = keyring.reload().await?;
        }
        if !keyring.opens(known_text)
            && let Some(hidden) = keyring.hidden_keys().await?
        {
            keyring = hidden;
        }
        let sealer = Arc::new(Sealer::of_vault(known_text, keyring.keys())?);
        Ok(Self { keyring, sealer })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
        let check = RecordId { kind: RecordKind::ACCOUNT, owner: String::new(), origin: "key check".into() };
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

    fn holds(directory: &Path, part: &[u8]) -> bool {
        std::fs::read_dir(directory).unwrap().any(|file| {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            bytes.windows(part.len()).any(|window| window == part)
        })
    }

    fn shows_the_owner(directory: &Path) -> bool {
        holds(directory, OWNER.as_bytes())
    }

    /// The process is killed between the change and the removal of what it left.
    #[tokio::test]
    async fn what_a_killed_process_left_of_a_secret_is_removed_when_the_vault_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        files::prepare_directory(&other).unwrap();
        let location = |directory: &Path| VaultLocation::Sqlite(directory.join("vault.db"));
        let id = RecordId { kind: RecordKind::ACCOUNT, owner: OWNER.into(), origin: "u".into() };
        let killed = Vault::open(&location(&one), key(1)).await.unwrap();
        let mut nonces = Vec::new();
        for (version, forgets) in [(None, false), (Some(1), true)] {
            killed.put(&id, version, b"a secret", None, forgets).await.unwrap();
            let (_, sealed) = killed.database.read(&killed.sealer().record_key(&id)).await.unwrap().unwrap();
            nonces.push(sealed[9..33].to_vec());
        }
        for name in ["vault.db", "vault.db-wal"] {
            std::fs::copy(one.join(name), other.join(name)).unwrap();
        }
        assert!(holds(&other, &nonces[0]));
        let vault = Vault::open(&location(&other), key(1)).await.unwrap();
        assert!(!holds(&other, &nonces[0]) && holds(&other, &nonces[1]));
        assert_eq!(vault.read(&id).await.unwrap().unwrap().version, 2);
    }

    #[tokio::test]
    async fn a_vault_that_shows_its_owners_is_moved_to_keyed_ids_by_the_right_key() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let location = VaultLocation::Sqlite(data_dir.join("vault.db"));
        let id =
            RecordId { kind: RecordKind::ACCOUNT, owner: OWNER.into(), origin: "https://api.example".into() };
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
