//! The vault's tables, in SQLite or in PostgreSQL. These modules see encrypted bytes only.

use std::{fs::File, sync::Arc, time::Duration};

use futures_util::{Stream, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    ChangeMarker, Error, RecordId, changes::ChangeWatch, import::Import, postgres::Postgres, seal::RecordKey,
    sqlite, sqlite::Sqlite,
};
use crate::{clock::Timestamp, config::VaultLocation, metrics};

/// Number of records that are read at once.
pub const BATCH: u32 = 100;

/// Interval at which a process that writes deletes what has expired.
const PURGE_INTERVAL: Duration = Duration::from_mins(10);

/// A record as the database has it.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: RecordKey,
    pub kind: String,
    pub version: u64,
    pub sealed: Vec<u8>,
    pub expires: Option<Timestamp>,
}

/// The columns of a record in both databases: id, kind, version, encrypted text, expiry in milliseconds.
pub type Columns = (Vec<u8>, String, i64, Vec<u8>, Option<i64>);

/// A record that is written.
#[derive(Clone, Debug)]
pub struct New {
    pub key: RecordKey,
    pub kind: String,
    pub version: u64,
    pub sealed: Vec<u8>,
    /// The record expires after it, by the database's clock: that of this process may be off.
    pub lifetime: Option<Duration>,
    /// Whether a secret of the version before is not in it, so that nothing of that may be left in the files.
    pub forgets: bool,
}

/// A record that was encrypted anew, with the text that takes the place of the one that was read.
#[derive(Debug)]
pub struct Resealed {
    pub row: Row,
    pub new: Vec<u8>,
}

/// The state of a record, which others change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Version of the record; 0 if there is none.
    pub version: u64,
    /// Remaining lifetime of the lease on it, if somebody holds it.
    pub lease: Option<Duration>,
}

impl TryFrom<Columns> for Row {
    type Error = Error;

    fn try_from((key, kind, version, sealed, expires): Columns) -> Result<Self, Error> {
        let key = key.try_into().map_err(|_| Error::Damaged)?;
        let version = version.try_into().map_err(|_| Error::Damaged)?;
        Ok(Self { key, kind, version, sealed, expires: expires.and_then(Timestamp::from_timestamp_millis) })
    }
}

impl New {
    pub fn lifetime_millis(&self) -> Option<i64> {
        self.lifetime.map(|lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 4))
    }
}

impl State {
    /// `left` is the remaining lifetime in milliseconds.
    pub fn new(version: Option<i64>, left: Option<i64>) -> Self {
        let version = version.and_then(|version| u64::try_from(version).ok()).unwrap_or(0);
        let left = left.and_then(|left| u64::try_from(left).ok());
        Self { version, lease: left.map(Duration::from_millis) }
    }

    /// Whether a wait for the lease, or for a version higher than `seen`, is over.
    pub fn ends_wait(&self, seen: u64) -> bool {
        self.lease.is_none() || self.version > seen
    }
}

/// An open database. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Database {
    store: Store,
    /// When this process last deleted what had expired.
    purged: Arc<Mutex<Instant>>,
}

#[derive(Clone, Debug)]
enum Store {
    Sqlite(Sqlite, Arc<ChangeWatch>),
    Postgres(Postgres),
}

/// Calls a method that both stores have.
macro_rules! store {
    ($database:ident.$method:ident($($argument:expr),*)) => {
        match &$database.store {
            Store::Sqlite(store, _) => store.$method($($argument),*).await,
            Store::Postgres(store) => store.$method($($argument),*).await,
        }
    };
}

/// Calls a method that both stores have and that asks the database once, and measures it.
macro_rules! measured {
    ($database:ident.$method:ident($($argument:expr),*)) => {{
        let began = Instant::now();
        let answer = store!($database.$method($($argument),*));
        let outcome = if answer.is_ok() { "ok" } else { "error" };
        metrics::store_operation(stringify!($method), outcome, began.elapsed());
        answer
    }};
}

impl Database {
    /// Opens the database; creates its tables if there are none, with `key_check` as known text. Other processes that
    /// open it wait while the lock is held.
    pub async fn open(location: &VaultLocation, key_check: &[u8]) -> Result<(Self, Option<File>), Error> {
        let (store, lock) = match location {
            VaultLocation::Sqlite(path) => {
                let path = sqlite::locate(path)?;
                let lock = sqlite::lock(&path).await?;
                let store = Sqlite::open(&path, key_check).await?;
                (Store::Sqlite(store, Arc::new(ChangeWatch::new(path))), Some(lock))
            }
            VaultLocation::Postgres(url) => (Store::Postgres(Postgres::open(url).await?), None),
        };
        let purged = Arc::new(Mutex::new(Instant::now()));
        Ok((Self { store, purged }, lock))
    }

    /// Moves the records of an earlier version, which had the owner in plain text, to keyed ids.
    pub async fn move_records_by_owner(&self, key_of: impl Fn(&RecordId) -> RecordKey) -> Result<(), Error> {
        match &self.store {
            Store::Sqlite(store, _) => store.move_records_by_owner(key_of).await,
            Store::Postgres(_) => Ok(()),
        }
    }

    /// Stores the known text in a vault that has none yet.
    pub async fn init_key_check(&self, sealed: &[u8]) -> Result<(), Error> {
        store!(self.init_key_check(sealed))
    }

    /// Returns the known text.
    pub async fn key_check(&self) -> Result<Vec<u8>, Error> {
        measured!(self.key_check())
    }

    /// Puts `new` in the place of the known text `old`; returns whether that was there.
    pub async fn replace_key_check(&self, old: &[u8], new: &[u8]) -> Result<bool, Error> {
        store!(self.replace_key_check(old, new))
    }

    /// Returns the time by the database's clock.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        Timestamp::from_timestamp_millis(measured!(self.now())?).ok_or(Error::Damaged)
    }

    pub async fn read(&self, id: &RecordKey) -> Result<Option<(u64, Vec<u8>)>, Error> {
        measured!(self.read(id))
    }

    /// Writes the record if its version follows the stored one (1 if there is none, or an expired one); returns whether
    /// it did. Now and then, what has expired is deleted first.
    pub async fn write(&self, new: &New) -> Result<bool, Error> {
        if self.is_purge_due()
            && let Err(error) = self.purge_expired().await
        {
            tracing::warn!(%error, "expired records were not deleted");
        }
        measured!(self.write(new))
    }

    /// Deletes the record if its version is `version`; returns whether there is none now.
    pub async fn delete(&self, id: &RecordKey, version: u64) -> Result<bool, Error> {
        Ok(measured!(self.delete(id, version))? || self.state(id).await?.version == 0)
    }

    pub async fn count(&self) -> Result<u64, Error> {
        store!(self.count())
    }

    /// Returns at most `limit` records in the order of their ids, from the one after `after`.
    pub async fn rows_after(&self, after: Option<&RecordKey>, limit: u32) -> Result<Vec<Row>, Error> {
        measured!(self.rows_after(after, limit))
    }

    /// Returns at most `limit` records of a kind that have not expired, in the order of their ids, from the one after
    /// `after`.
    pub async fn rows_of_kind(
        &self,
        kind: &str,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<Row>, Error> {
        measured!(self.rows_of_kind(kind, after, limit))
    }

    /// Returns all records, or those of a kind that have not expired, in the order of their ids.
    pub fn rows(&self, kind: Option<&str>) -> impl Stream<Item = Result<Row, Error>> + Send {
        let batches = stream::try_unfold(None, move |after: Option<RecordKey>| async move {
            let rows = match kind {
                Some(kind) => self.rows_of_kind(kind, after.as_ref(), BATCH).await?,
                None => self.rows_after(after.as_ref(), BATCH).await?,
            };
            let last = rows.last().map(|row| row.key);
            Ok(last.map(|last| (stream::iter(rows.into_iter().map(Ok)), Some(last))))
        });
        batches.try_flatten()
    }

    /// Replaces the encrypted text of records that are as they were read; returns how many.
    pub async fn replace_sealed(&self, records: &[Resealed]) -> Result<u64, Error> {
        store!(self.replace_sealed(records))
    }

    /// Begins to add records, all or none.
    pub async fn import(&self) -> Result<Import, Error> {
        store!(self.import())
    }

    /// Returns the state of a record without its content.
    pub async fn state(&self, id: &RecordKey) -> Result<State, Error> {
        measured!(self.state(id))
    }

    pub async fn acquire_lease(
        &self,
        id: &RecordKey,
        holder: &str,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        measured!(self.acquire_lease(id, holder, lifetime))
    }

    pub async fn release_lease(&self, id: &RecordKey, holder: &str) -> Result<(), Error> {
        measured!(self.release_lease(id, holder))
    }

    /// Waits until nobody holds the lease or the version of the record is higher than `seen`.
    pub async fn lease_wait(&self, id: &RecordKey, seen: u64) -> Result<(), Error> {
        store!(self.lease_wait(id, seen))
    }

    /// Waits until the version of the record is no longer `seen`.
    pub async fn change_wait(&self, id: &RecordKey, seen: u64) -> Result<(), Error> {
        store!(self.change_wait(id, seen))
    }

    /// Returns the marker of the changes of a record; `None` where it is unknown.
    pub fn change_marker(&self, id: impl FnOnce() -> RecordKey) -> Option<ChangeMarker> {
        match &self.store {
            Store::Sqlite(_, changes) => changes.marker(),
            Store::Postgres(store) => store.change_marker(&id()),
        }
    }

    /// Removes the remains of earlier versions of the records from the vault's files.
    pub async fn purge(&self) -> Result<(), Error> {
        match &self.store {
            Store::Sqlite(store, _) => store.purge().await,
            // Its files are its administrator's.
            Store::Postgres(_) => Ok(()),
        }
    }

    /// Removes what is left of deleted secrets in the vault's file, whichever process left it. Failures are retried.
    pub async fn purge_remains(&self) -> Result<(), Error> {
        let Store::Sqlite(store, _) = &self.store else { return Ok(()) };
        if store.remains().await?.is_some()
            && let Err(error) = store.purge().await
        {
            tracing::warn!(%error, "deleted secrets are still in the vault's file, encrypted; this is tried again");
        }
        Ok(())
    }

    /// Deletes expired records, and leases that ended, with the remains of all that was deleted.
    pub async fn purge_expired(&self) -> Result<(), Error> {
        measured!(self.purge_expired())?;
        self.purge_remains().await
    }

    pub async fn close(&self) {
        store!(self.close());
    }

    fn is_purge_due(&self) -> bool {
        let mut purged = self.purged.lock();
        let is_due = purged.elapsed() >= PURGE_INTERVAL;
        if is_due {
            *purged = Instant::now();
        }
        is_due
    }
}
