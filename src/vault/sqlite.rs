//! The vault's tables in one SQLite file on the local disk. This module sees encrypted bytes only.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Executor as _, FromRow, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow,
        SqliteSynchronous,
    },
};

use super::{
    Error, RecordId, RecordKind,
    database::{Columns, New, Resealed, Row, State},
    files,
    import::Import,
    seal::RecordKey,
};

/// The migrations, listed without sqlx's macro, for which SQLite would be built a second time.
fn migrations() -> Migrator {
    let migration = |version, name: &'static str, sql| {
        Migration::new(version, name.into(), MigrationType::Simple, sqlx::SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations(vec![
        migration(1, "records", include_str!("migrations/0001_records.sql")),
        migration(2, "keyed ids", include_str!("migrations/0002_keyed_ids.sql")),
        migration(3, "current key", include_str!("migrations/0003_current_key.sql")),
        migration(4, "kinds and expiry", include_str!("migrations/0004_kinds_and_expiry.sql")),
    ])
}

/// The version of the newest migration.
fn schema_version() -> i64 {
    migrations().iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// Offset of `user_version` in the file: <https://www.sqlite.org/fileformat.html#user_version_number>.
const USER_VERSION_OFFSET: usize = 60;

/// Longest wait for another process's write, which is short.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Size of the pool: one connection for a lease or a read while the other waits to write.
const MAX_CONNECTIONS: u32 = 2;

/// `SQLITE_CONSTRAINT_TRIGGER`: the triggers refuse records that another key than the current one encrypted.
const REFUSED_BY_TRIGGER: u32 = 1811;

/// Interval at which a lease that another process holds is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The database's clock, in milliseconds since the epoch.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

#[derive(Clone, Debug)]
pub struct Sqlite(SqlitePool);

/// Returns the vault's file itself, where a link leads. Beside that SQLite puts its log, and all processes must agree on
/// the lock. Whoever can change the link's directory can put another vault in its place.
pub fn locate(path: &Path) -> Result<PathBuf, Error> {
    prepare_directory_of(path)?;
    files::resolve(path)
}

fn prepare_directory_of(path: &Path) -> Result<(), Error> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.map_or(Ok(()), files::prepare_directory)
}

/// Creates the directory of the vault and waits for the lock that creating, migrating and opening it need.
pub async fn lock(path: &Path) -> Result<File, Error> {
    prepare_directory_of(path)?;
    let lock = path.with_extension("lock");
    tokio::task::spawn_blocking(move || files::lock(&lock))
        .await
        .map_err(|_| Error::Database("it cannot be locked"))?
}

/// Whether a newer version of this program has migrated the file, by its header alone. SQLite is not opened for that,
/// which would delay the start of every server. For the time before it is opened alone: closing any descriptor of a file
/// drops all locks that this process has on it (POSIX), so that other processes take the vault for unused.
pub fn is_newer(path: &Path) -> bool {
    let mut header = [0; USER_VERSION_OFFSET + 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    let (_, version) = header.split_at(USER_VERSION_OFFSET);
    read.is_ok() && i64::from(u32::from_be_bytes(version.try_into().unwrap_or_default())) > schema_version()
}

impl Sqlite {
    /// Opens the database, for the holder of the lock; creates it if there is none. `key_check` is the encrypted text
    /// that identifies the right key, stored in a new database.
    pub async fn open(path: &Path, key_check: &[u8]) -> Result<Self, Error> {
        if !files::has_content(path)? {
            Self::make(path, key_check).await?;
        }
        // SQLite gives its side files (-wal, -shm) the mode of the database file.
        files::refuse_exposed(path, "600")?;
        let database = Self::connect(path, SqliteJournalMode::Wal).await?;
        database.migrate().await?;
        Ok(database)
    }

    /// Creates the database under a temporary name, so that a crash leaves no partial one.
    async fn make(path: &Path, key_check: &[u8]) -> Result<(), Error> {
        if files::has_content(&files::beside(path, "-wal"))? {
            return Err(Error::Damaged);
        }
        let new = files::beside(path, ".new");
        for leftover in [&new, &files::beside(&new, "-journal"), &files::beside(path, "-journal")] {
            files::remove(leftover)?;
        }
        files::create_private(&new)?;
        let database = Self::connect(&new, SqliteJournalMode::Delete).await?;
        database.migrate().await?;
        database.init_key_check(key_check).await?;
        database.close().await;
        files::publish(&new, path)
    }

    async fn connect(path: &Path, journal: SqliteJournalMode) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(journal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            // Deleted content is overwritten, and temporary data stays in memory.
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY")
            // `ChangeMarker` depends on it.
            .pragma("journal_size_limit", "0")
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(failure)?;
        Ok(Self(pool))
    }

    async fn migrate(&self) -> Result<(), Error> {
        migrations().run(&self.0).await.map_err(|error| match error {
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => Error::Newer,
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(error),
            _ => Error::Damaged,
        })?;
        self.note_schema_version().await
    }

    /// Writes the schema's version to the header of the file, where [`is_newer`] finds it. As long as somebody reads an
    /// older state it stands in the write-ahead log alone; the next process that opens the vault tries again.
    async fn note_schema_version(&self) -> Result<(), Error> {
        let noted: Option<(i64,)> = self.fetch(sqlx::query("PRAGMA user_version")).await?;
        if noted != Some((schema_version(),)) {
            let note = format!("PRAGMA user_version = {}", schema_version());
            sqlx::raw_sql(sqlx::AssertSqlSafe(note)).execute(&self.0).await.map_err(failure)?;
        }
        sqlx::raw_sql("PRAGMA wal_checkpoint(PASSIVE)").execute(&self.0).await.map_err(failure)?;
        Ok(())
    }

    /// Moves the records of an earlier version, which had the owner in plain text, to keyed ids. The old table is
    /// dropped last, so that an interrupted move is repeated.
    pub async fn move_records_by_owner(&self, key_of: impl Fn(&RecordId) -> RecordKey) -> Result<(), Error> {
        if self.copy_records_by_owner(key_of).await.map_err(failure)? {
            self.purge().await?;
            let drop = sqlx::query("DROP TABLE records_by_owner").execute(&self.0);
            drop.await.map_err(failure)?;
        }
        Ok(())
    }

    /// Returns whether there was such a table.
    async fn copy_records_by_owner(
        &self,
        key_of: impl Fn(&RecordId) -> RecordKey,
    ) -> Result<bool, sqlx::Error> {
        let old = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'records_by_owner'");
        if old.fetch_optional(&self.0).await?.is_none() {
            return Ok(false);
        }
        let mut transaction = self.0.begin().await?;
        let rows: Vec<(String, String, i64, Vec<u8>)> =
            sqlx::query_as("SELECT owner, origin, version, sealed FROM records_by_owner")
                .fetch_all(&mut *transaction)
                .await?;
        for (owner, origin, version, sealed) in rows {
            let id = RecordId { kind: RecordKind::ACCOUNT, owner, origin };
            sqlx::query("INSERT INTO records (id, kind, version, sealed) VALUES (?, 'account', ?, ?)")
                .bind(&key_of(&id)[..])
                .bind(version)
                .bind(sealed)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("DELETE FROM records_by_owner").execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Rewrites the file without deleted content and truncates the write-ahead log. `secure_delete` alone leaves some of
    /// it behind, where rows were moved between pages.
    pub async fn purge(&self) -> Result<(), Error> {
        let remains = self.remains().await?;
        sqlx::query("VACUUM").execute(&self.0).await.map_err(failure)?;
        let row: Option<(bool,)> = self.fetch(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")).await?;
        let (is_busy,) = row.ok_or(Error::Damaged)?;
        if is_busy {
            return Err(Error::Locked);
        }
        if let Some(note) = remains {
            // Unless another process has noted remains meanwhile.
            let done = sqlx::query("DELETE FROM meta WHERE name = 'remains' AND value = ?").bind(note);
            done.execute(&self.0).await.map_err(failure)?;
        }
        Ok(())
    }

    /// Stores the known text in a vault that has none yet.
    pub async fn init_key_check(&self, sealed: &[u8]) -> Result<(), Error> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ('key_check', ?) ON CONFLICT DO NOTHING")
            .bind(sealed)
            .execute(&self.0)
            .await
            .map_err(failure)?;
        Ok(())
    }

    /// Returns the known text.
    pub async fn key_check(&self) -> Result<Vec<u8>, Error> {
        let query = sqlx::query("SELECT value FROM meta WHERE name = 'key_check'");
        let row: Option<(Vec<u8>,)> = self.fetch(query).await?;
        let (check,) = row.ok_or(Error::Damaged)?;
        Ok(check)
    }

    /// Returns the time by the database's clock, in milliseconds since the epoch.
    pub async fn now(&self) -> Result<i64, Error> {
        let row: Option<(i64,)> = self.fetch(sqlx::query(concat!("SELECT ", now!()))).await?;
        let (now,) = row.ok_or(Error::Damaged)?;
        Ok(now)
    }

    pub async fn read(&self, id: &RecordKey) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let query = concat!(
            "SELECT version, sealed FROM records WHERE id = ? AND (expires IS NULL OR expires > ",
            now!(),
            ")"
        );
        let found: Option<(i64, Vec<u8>)> = self.fetch(sqlx::query(query).bind(&id[..])).await?;
        let Some((version, sealed)) = found else { return Ok(None) };
        Ok(Some((version.try_into().map_err(|_| Error::Damaged)?, sealed)))
    }

    /// Writes the record if its version follows the stored one (1 if there is none, or an expired one); returns whether
    /// it did.
    pub async fn write(&self, new: &New) -> Result<bool, Error> {
        let version = i64::try_from(new.version).map_err(|_| Error::Damaged)?;
        let query = if new.version == 1 {
            concat!(
                "INSERT INTO records (id, kind, version, sealed, expires) VALUES (?1, ?2, ?3, ?4, ?5 + ",
                now!(),
                ")
                 ON CONFLICT DO UPDATE SET
                     kind = excluded.kind, version = excluded.version, sealed = excluded.sealed, expires = excluded.expires
                 WHERE records.expires <= ",
                now!()
            )
        } else {
            concat!(
                "UPDATE records SET kind = ?2, version = ?3, sealed = ?4, expires = ?5 + ",
                now!(),
                "
                 WHERE id = ?1 AND version = ?3 - 1 AND (expires IS NULL OR expires > ",
                now!(),
                ")"
            )
        };
        let query = sqlx::query(query)
            .bind(&new.key[..])
            .bind(&new.kind)
            .bind(version)
            .bind(&new.sealed)
            .bind(new.lifetime_millis());
        let written = if new.forgets {
            self.forget(query).await
        } else {
            query.execute(&self.0).await.map(|done| done.rows_affected())
        };
        Ok(written.map_err(failure)? == 1)
    }

    /// Runs a statement that replaces or deletes secrets; returns how many rows it changed. That there are remains of them
    /// is noted with it, so that they are removed even if this process ends before it has done so.
    async fn forget(&self, query: Query<'_, sqlx::Sqlite, SqliteArguments>) -> Result<u64, sqlx::Error> {
        let mut transaction = self.0.begin_with("BEGIN IMMEDIATE").await?;
        let changed = query.execute(&mut *transaction).await?.rows_affected();
        if changed > 0 {
            let note = "INSERT INTO meta (name, value) VALUES ('remains', randomblob(16)) \
                        ON CONFLICT DO UPDATE SET value = excluded.value";
            sqlx::query(note).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(changed)
    }

    /// Returns the note that there are remains of secrets; a later change makes another one.
    pub async fn remains(&self) -> Result<Option<Vec<u8>>, Error> {
        let query = sqlx::query("SELECT value FROM meta WHERE name = 'remains'");
        let row: Option<(Vec<u8>,)> = self.fetch(query).await?;
        Ok(row.map(|(note,)| note))
    }

    /// Deletes the record if its version is `version`; returns whether it was.
    pub async fn delete(&self, id: &RecordKey, version: u64) -> Result<bool, Error> {
        let delete = sqlx::query("DELETE FROM records WHERE id = ? AND version = ?")
            .bind(&id[..])
            .bind(i64::try_from(version).map_err(|_| Error::Damaged)?);
        Ok(self.forget(delete).await.map_err(failure)? == 1)
    }

    /// Deletes expired records, and leases that ended; returns how many records.
    pub async fn purge_expired(&self) -> Result<u64, Error> {
        let leases = sqlx::query(concat!("DELETE FROM leases WHERE until <= ", now!())).execute(&self.0);
        leases.await.map_err(failure)?;
        let records = sqlx::query(concat!("DELETE FROM records WHERE expires <= ", now!()));
        self.forget(records).await.map_err(failure)
    }

    /// Puts `new` in the place of the known text `old`; returns whether that was there.
    pub async fn replace_key_check(&self, old: &[u8], new: &[u8]) -> Result<bool, Error> {
        let replaced = sqlx::query("UPDATE meta SET value = ? WHERE name = 'key_check' AND value = ?")
            .bind(new)
            .bind(old)
            .execute(&self.0)
            .await
            .map_err(failure)?;
        Ok(replaced.rows_affected() == 1)
    }

    pub async fn count(&self) -> Result<u64, Error> {
        let row: Option<(i64,)> = self.fetch(sqlx::query("SELECT count(*) FROM records")).await?;
        let (count,) = row.ok_or(Error::Damaged)?;
        count.try_into().map_err(|_| Error::Damaged)
    }

    /// Returns at most `limit` records in the order of their ids, from the one after `after`.
    pub async fn rows_after(&self, after: Option<&RecordKey>, limit: u32) -> Result<Vec<Row>, Error> {
        let rows: Vec<Columns> = sqlx::query_as(
            "SELECT id, kind, version, sealed, expires FROM records WHERE id > ? ORDER BY id LIMIT ?",
        )
        .bind(after.map_or(&[][..], |key| key))
        .bind(limit)
        .fetch_all(&self.0)
        .await
        .map_err(failure)?;
        rows.into_iter().map(Row::try_from).collect()
    }

    /// Returns at most `limit` records of a kind that have not expired, in the order of their ids, from the one after
    /// `after`.
    pub async fn rows_of_kind(
        &self,
        kind: &str,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<Row>, Error> {
        let query = concat!(
            "SELECT id, kind, version, sealed, expires FROM records
             WHERE kind = ? AND id > ? AND (expires IS NULL OR expires > ",
            now!(),
            ") ORDER BY id LIMIT ?"
        );
        let rows: Vec<Columns> = sqlx::query_as(query)
            .bind(kind)
            .bind(after.map_or(&[][..], |key| key))
            .bind(limit)
            .fetch_all(&self.0)
            .await
            .map_err(failure)?;
        rows.into_iter().map(Row::try_from).collect()
    }

    /// Replaces the encrypted text of records that are as they were read; returns how many.
    pub async fn replace_sealed(&self, records: &[Resealed]) -> Result<u64, Error> {
        let replace = async {
            let mut transaction = self.0.begin_with("BEGIN IMMEDIATE").await?;
            let mut replaced = 0;
            for Resealed { row, new } in records {
                let version = i64::try_from(row.version).unwrap_or_default();
                let query = "UPDATE records SET sealed = ? WHERE id = ? AND version = ? AND sealed = ?";
                let query =
                    sqlx::query(query).bind(&new[..]).bind(&row.key[..]).bind(version).bind(&row.sealed[..]);
                replaced += query.execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            Ok(replaced)
        };
        replace.await.map_err(failure)
    }

    /// Returns the state of a record without its content.
    pub async fn state(&self, id: &RecordKey) -> Result<State, Error> {
        let query = concat!(
            "WITH clock(now) AS (SELECT ",
            now!(),
            ")
             SELECT (SELECT version FROM records WHERE id = ?1 AND (expires IS NULL OR expires > now)),
                    (SELECT until - now FROM leases WHERE id = ?1 AND until > now)
             FROM clock"
        );
        let row: Option<(Option<i64>, Option<i64>)> = self.fetch(sqlx::query(query).bind(&id[..])).await?;
        let (version, left) = row.ok_or(Error::Damaged)?;
        Ok(State::new(version, left))
    }

    /// Waits until nobody holds the lease or the version of the record is higher than `seen`.
    pub async fn lease_wait(&self, id: &RecordKey, seen: u64) -> Result<(), Error> {
        while !self.state(id).await?.ends_wait(seen) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until the version of the record is no longer `seen`.
    pub async fn change_wait(&self, id: &RecordKey, seen: u64) -> Result<(), Error> {
        while self.state(id).await?.version == seen {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Begins to add records, all or none.
    pub async fn import(&self) -> Result<Import, Error> {
        let transaction = self.0.begin_with("BEGIN IMMEDIATE").await;
        transaction.map(Import::Sqlite).map_err(failure)
    }

    pub async fn acquire_lease(
        &self,
        id: &RecordKey,
        holder: &str,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        // A lease that ends later than possible was taken before the clock was set back; it is void.
        let query = concat!(
            "WITH clock(now) AS (SELECT ",
            now!(),
            ")
             INSERT INTO leases (id, holder, until) SELECT ?1, ?2, now + ?3 FROM clock WHERE true
             ON CONFLICT DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE leases.holder = ?2 OR leases.until <= excluded.until - ?3 OR leases.until > excluded.until + ?3"
        );
        let taken = sqlx::query(query)
            .bind(&id[..])
            .bind(holder)
            .bind(i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 4))
            .execute(&self.0)
            .await
            .map_err(failure)?;
        Ok(taken.rows_affected() == 1)
    }

    pub async fn release_lease(&self, id: &RecordKey, holder: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM leases WHERE id = ? AND holder = ?")
            .bind(&id[..])
            .bind(holder)
            .execute(&self.0)
            .await
            .map_err(failure)?;
        Ok(())
    }

    pub async fn close(&self) {
        self.0.close().await;
    }

    /// Returns the first row. sqlx's `query_as` does the same with a larger future, which that of every call contains.
    async fn fetch<T: for<'row> FromRow<'row, SqliteRow>>(
        &self,
        query: Query<'_, sqlx::Sqlite, SqliteArguments>,
    ) -> Result<Option<T>, Error> {
        let row = self.0.fetch_optional(query).await.map_err(failure)?;
        row.map(|row| T::from_row(&row)).transpose().map_err(failure)
    }
}

/// SQLite's result codes (<https://www.sqlite.org/rescode.html>), with messages of our own, since SQLite's may quote
/// the file.
pub fn failure(error: sqlx::Error) -> Error {
    let sqlx::Error::Database(error) = error else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => Error::Damaged,
            _ => Error::Database("SQLite does not respond"),
        };
    };
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
    if code == REFUSED_BY_TRIGGER {
        return Error::KeyChanged;
    }
    match code & 0xff {
        11 | 26 => Error::Damaged,
        5 | 6 => Error::Locked,
        8 => Error::Database("it is read-only"),
        10 => Error::Database("disk I/O error"),
        13 => Error::Database("the disk is full"),
        14 => Error::Database("it cannot be opened"),
        _ => Error::Database("SQLite error"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use sqlx::Connection as _;

    use super::*;

    const MARK: usize = 16;

    /// A known text in the format that names no key.
    const FIRST_FORMAT: [u8; 1] = [1];

    /// The marks of which a part of a record is left in the vault's files.
    fn marks_in(directory: &Path) -> Vec<u64> {
        let mut found = Vec::new();
        for file in std::fs::read_dir(directory).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let marks =
                bytes.windows(MARK).filter(|mark| mark.starts_with(b"mark") && mark[12..] == *b"kram");
            found.extend(marks.map(|mark| u64::from_be_bytes(mark[4..12].try_into().unwrap())));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    async fn change_records(changes: &[(u8, usize)]) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/vault.db");
        let _lock = lock(&path).await.unwrap();
        let database = Sqlite::open(&path, &FIRST_FORMAT).await.unwrap();
        let mut current: HashMap<u8, (u64, u64)> = HashMap::new();
        for (number, &(owner, length)) in changes.iter().enumerate() {
            let (number, key) = (number as u64, [owner; 32]);
            let before = current.remove(&owner).map_or(0, |(version, _)| version);
            if length == 0 && before > 0 {
                assert!(database.delete(&key, before).await.unwrap());
            } else if length > 0 {
                let mark = [b"mark", &number.to_be_bytes()[..], b"kram"].concat();
                let (sealed, version) = (mark.repeat(length), before + 1);
                let new = New {
                    key,
                    kind: "test".into(),
                    version,
                    sealed,
                    lifetime: None,
                    forgets: number % 2 == 0,
                };
                assert!(database.write(&new).await.unwrap());
                current.insert(owner, (version, number));
            }
        }
        database.purge().await.unwrap();
        let mut left: Vec<u64> = current.into_values().map(|(_, number)| number).collect();
        left.sort_unstable();
        assert_eq!(marks_in(path.parent().unwrap()), left);
        database.close().await;
    }

    #[tokio::test]
    async fn remains_are_noted_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/vault.db");
        let _lock = lock(&path).await.unwrap();
        let database = Sqlite::open(&path, &FIRST_FORMAT).await.unwrap();
        // A purge that has to wait fails at once.
        sqlx::raw_sql("PRAGMA busy_timeout = 0").execute(&database.0).await.unwrap();
        let record = |version: u64| New {
            key: [1; 32],
            kind: "test".into(),
            version,
            sealed: [b"mark", &version.to_be_bytes()[..], b"kram"].concat(),
            lifetime: None,
            forgets: version > 1,
        };
        assert!(database.write(&record(1)).await.unwrap());
        assert_eq!(database.remains().await, Ok(None));
        let mut reader = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT count(*) FROM records").execute(&mut reader).await.unwrap();
        assert!(database.write(&record(2)).await.unwrap());
        assert_eq!(database.purge().await, Err(Error::Locked));
        assert!(database.remains().await.unwrap().is_some());
        reader.close().await.unwrap();
        database.purge().await.unwrap();
        assert_eq!(database.remains().await, Ok(None));
        assert_eq!(marks_in(path.parent().unwrap()), [2]);
        assert!(database.delete(&[1; 32], 2).await.unwrap());
        assert!(database.remains().await.unwrap().is_some());
        database.close().await;
    }

    /// Otherwise another process that closes the vault takes it for unused, and deletes its log.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_open_vault_is_locked_against_other_processes() {
        use std::os::unix::fs::MetadataExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/vault.db");
        let _lock = lock(&path).await.unwrap();
        let database = Sqlite::open(&path, &FIRST_FORMAT).await.unwrap();
        let inode = format!(":{} ", std::fs::metadata(&path).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let is_ours = |line: &str| line.contains(" POSIX ") && line.contains(&inode);
        assert!(locks.lines().any(is_ours), "{locks}");
        database.close().await;
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn nothing_of_a_replaced_or_deleted_record_is_left_in_the_files(
            changes in prop::collection::vec((0..40_u8, prop_oneof![Just(0), 1..40_usize, 40..600_usize]), 1..250),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(change_records(&changes));
        }
    }
}
