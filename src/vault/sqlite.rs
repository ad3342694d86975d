//! The vault's tables in one SQLite file, for one machine. It sees sealed bytes only.

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, Row as _, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Error, RecordId, files};
use crate::clock::Timestamp;

/// Without sqlx's macro, for which SQLite would be built a second time.
fn migrations() -> Migrator {
    let records = sqlx::SqlStr::from_static(include_str!("migrations/0001_records.sql"));
    Migrator::with_migrations(vec![Migration::new(
        1,
        "records".into(),
        MigrationType::Simple,
        records,
        false,
    )])
}

/// For another process's write to end; they are short.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Sqlite(SqlitePool);

impl Sqlite {
    pub async fn open(path: &Path) -> Result<Self, Error> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            files::prepare_directory(directory)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let beside = path.with_extension("lock");
        let lock = tokio::task::spawn_blocking(move || files::lock(&beside))
            .await
            .map_err(|_| Error::Database("it cannot be locked"))??;
        // SQLite gives its side files (-wal, -shm) the rights of the file itself.
        files::prepare_file(path)?;
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|error| failure(&error))?;
        migrations().run(&pool).await.map_err(|error| match error {
            MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => Error::Newer,
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(&error),
            _ => Error::Damaged,
        })?;
        drop(lock);
        Ok(Self(pool))
    }

    /// The sealed text that was put in first: `sealed` itself in a new vault.
    pub async fn key_check(&self, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        sqlx::query("INSERT INTO meta (name, value) VALUES ('key_check', ?) ON CONFLICT DO NOTHING")
            .bind(sealed)
            .execute(&self.0)
            .await
            .map_err(|error| failure(&error))?;
        sqlx::query("SELECT value FROM meta WHERE name = 'key_check'")
            .fetch_one(&self.0)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| failure(&error))
    }

    pub async fn read(&self, id: &RecordId) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let row = sqlx::query("SELECT version, sealed FROM records WHERE owner = ? AND origin = ?")
            .bind(&id.owner)
            .bind(&id.origin)
            .fetch_optional(&self.0)
            .await
            .map_err(|error| failure(&error))?;
        let Some(row) = row else { return Ok(None) };
        let version: i64 = row.try_get(0).map_err(|error| failure(&error))?;
        let sealed = row.try_get(1).map_err(|error| failure(&error))?;
        Ok(Some((u64::try_from(version).map_err(|_| Error::Damaged)?, sealed)))
    }

    /// Whether `version` followed on what was there: 1 on nothing, any other on the one before it.
    pub async fn write(&self, id: &RecordId, version: u64, sealed: &[u8]) -> Result<bool, Error> {
        let version = i64::try_from(version).map_err(|_| Error::Damaged)?;
        let query = if version == 1 {
            "INSERT INTO records (version, sealed, owner, origin) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE records SET version = ?1, sealed = ?2 WHERE owner = ?3 AND origin = ?4 AND version = ?1 - 1"
        };
        let written = sqlx::query(query)
            .bind(version)
            .bind(sealed)
            .bind(&id.owner)
            .bind(&id.origin)
            .execute(&self.0)
            .await
            .map_err(|error| failure(&error))?;
        Ok(written.rows_affected() == 1)
    }

    pub async fn acquire_lease(
        &self,
        id: &RecordId,
        holder: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        let now = now.timestamp_millis();
        let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX / 4);
        // A lease that ends later than any could was taken by a clock that has been set back since.
        let taken = sqlx::query(
            "INSERT INTO leases (owner, origin, holder, until) VALUES (?1, ?2, ?3, ?4 + ?5)
             ON CONFLICT DO UPDATE SET holder = ?3, until = ?4 + ?5
             WHERE holder = ?3 OR until <= ?4 OR until > ?4 + 2 * ?5",
        )
        .bind(&id.owner)
        .bind(&id.origin)
        .bind(holder)
        .bind(now)
        .bind(lifetime)
        .execute(&self.0)
        .await
        .map_err(|error| failure(&error))?;
        Ok(taken.rows_affected() == 1)
    }

    pub async fn release_lease(&self, id: &RecordId, holder: &str) -> Result<(), Error> {
        sqlx::query("DELETE FROM leases WHERE owner = ? AND origin = ? AND holder = ?")
            .bind(&id.owner)
            .bind(&id.origin)
            .bind(holder)
            .execute(&self.0)
            .await
            .map_err(|error| failure(&error))?;
        Ok(())
    }

    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// SQLite's result codes (<https://www.sqlite.org/rescode.html>), in words of ours; its own may quote the file.
fn failure(error: &sqlx::Error) -> Error {
    let sqlx::Error::Database(error) = error else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => Error::Damaged,
            _ => Error::Database("SQLite does not answer"),
        };
    };
    let code = error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0);
    match code & 0xff {
        11 | 26 => Error::Damaged,
        5 | 6 => Error::Database("another process holds it"),
        8 => Error::Database("it is read-only"),
        10 => Error::Database("the disk fails"),
        13 => Error::Database("the disk is full"),
        14 => Error::Database("it cannot be opened"),
        _ => Error::Database("SQLite refuses"),
    }
}
