//! The vault's tables in PostgreSQL, for several servers. This module sees encrypted bytes only.
//!
//! Every wait is bounded, and a statement whose connection was lost is run again on a new one. That is right for each of
//! them, even when the first run reached the server: it then changes nothing the second time.

use std::{str::FromStr as _, time::Duration};

use futures_util::{Stream, TryStreamExt as _};
use sqlx::{
    ConnectOptions as _, Either, Executor as _, FromRow, PgPool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow},
    query::{Query, QueryScalar},
};
use tokio::{runtime::Handle, time::timeout};

use super::{
    ChangeMarker, Error, ServerError,
    change_notifications::ChangeNotifications,
    database::{Columns, New, Resealed, Row, State},
    import::Import,
    seal::RecordKey,
};
use crate::{config::PostgresUrl, secret::ExposeSecret as _};

/// Size of the pool of one process; another connection is notified of changes. A server allows 100 by default.
const MAX_CONNECTIONS: u32 = 5;

/// Longest wait for a connection, also while the server restarts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a statement, which the server applies.
const STATEMENT_TIMEOUT: &str = "5s";

/// Longest wait for a connection and a statement, where the server does not apply its own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// Longest wait for a statement of a migration, and for the lock while another process migrates. The server applies it.
const MIGRATION_STATEMENT_TIMEOUT: &str = "20s";

/// Longest wait for all migrations. A call that opens the vault has 55 s.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for the answer that nobody waits for any more: shorter than that for a connection.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(4);

/// How often a statement is run whose connection is lost.
const ATTEMPTS: u32 = 3;

/// Longest wait for connections to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Number of rows that one statement deletes, so that it is short.
const PURGE_BATCH: i64 = 1000;

/// Interval at which a lease that another process holds is looked at while there are no notifications of changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The error of the trigger that refuses records that another key than the current one encrypted.
const REFUSED_BY_TRIGGER: &str = "BM001";

type Statement = Query<'static, sqlx::Postgres, PgArguments>;

#[derive(Clone, Debug)]
pub struct Postgres {
    pool: PgPool,
    changes: ChangeNotifications,
}

fn migrations() -> Migrator {
    let vault = sqlx::SqlStr::from_static(include_str!("migrations/postgres/0001_vault.sql"));
    Migrator::with_migrations(vec![Migration::new(1, "vault".into(), MigrationType::Simple, vault, false)])
}

impl Postgres {
    /// Opens the database; creates the tables if there are none.
    pub async fn open(url: &PostgresUrl) -> Result<Self, Error> {
        let options = options(url)?;
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_lazy_with(options.clone());
        migrate(url).await?;
        Ok(Self { pool, changes: ChangeNotifications::listen(options) })
    }

    /// Stores the known text in a vault that has none yet.
    pub async fn init_key_check(&self, sealed: &[u8]) -> Result<(), Error> {
        let query = "INSERT INTO meta (name, value) VALUES ('key_check', $1) ON CONFLICT DO NOTHING";
        self.execute(|| sqlx::query(query).bind(sealed.to_vec())).await?;
        Ok(())
    }

    /// Returns the known text.
    pub async fn key_check(&self) -> Result<Vec<u8>, Error> {
        let query = "SELECT value FROM meta WHERE name = 'key_check'";
        let row: Option<(Vec<u8>,)> = self.fetch(|| sqlx::query(query)).await?;
        let (check,) = row.ok_or(Error::Damaged)?;
        Ok(check)
    }

    /// Puts `new` in the place of the known text `old`; returns whether that was there.
    pub async fn replace_key_check(&self, old: &[u8], new: &[u8]) -> Result<bool, Error> {
        let query = "UPDATE meta SET value = $1 WHERE name = 'key_check' AND value IN ($1, $2)";
        let replaced = self.execute(|| sqlx::query(query).bind(new.to_vec()).bind(old.to_vec())).await?;
        Ok(replaced == 1)
    }

    /// Returns the time by the database's clock, in milliseconds since the epoch.
    pub async fn now(&self) -> Result<i64, Error> {
        let query = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let row: Option<(i64,)> = self.fetch(|| sqlx::query(query)).await?;
        let (now,) = row.ok_or(Error::Damaged)?;
        Ok(now)
    }

    pub async fn read(&self, id: &RecordKey) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let query = "SELECT version, sealed FROM records \
                     WHERE id = $1 AND (expires IS NULL OR expires > clock_timestamp())";
        let found: Option<(i64, Vec<u8>)> = self.fetch(|| sqlx::query(query).bind(id.to_vec())).await?;
        let Some((version, sealed)) = found else { return Ok(None) };
        Ok(Some((version.try_into().map_err(|_| Error::Damaged)?, sealed)))
    }

    /// Writes the record if its version follows the stored one (1 if there is none, or an expired one); returns whether
    /// it did. No two encrypted texts are the same, so a stored one that is the same was written by this very call.
    pub async fn write(&self, new: &New) -> Result<bool, Error> {
        let query = if new.version == 1 {
            "INSERT INTO records (id, kind, version, sealed, expires) \
             VALUES ($1, $2, $3, $4, clock_timestamp() + $5::bigint * interval '1 millisecond') \
             ON CONFLICT (id) DO UPDATE SET \
                 kind = excluded.kind, version = excluded.version, sealed = excluded.sealed, expires = excluded.expires \
             WHERE records.expires <= clock_timestamp() OR records.sealed = excluded.sealed"
        } else {
            "UPDATE records SET kind = $2, version = $3, sealed = $4, \
                 expires = clock_timestamp() + $5::bigint * interval '1 millisecond' \
             WHERE id = $1 AND (version = $3 - 1 AND (expires IS NULL OR expires > clock_timestamp()) \
                                OR version = $3 AND sealed = $4)"
        };
        let version = i64::try_from(new.version).map_err(|_| Error::Damaged)?;
        let statement = || {
            let query = sqlx::query(query).bind(new.key.to_vec()).bind(new.kind.clone()).bind(version);
            query.bind(new.sealed.clone()).bind(new.lifetime_millis())
        };
        Ok(self.execute(statement).await? == 1)
    }

    /// Deletes the record if its version is `version`; returns whether it was.
    pub async fn delete(&self, id: &RecordKey, version: u64) -> Result<bool, Error> {
        let version = i64::try_from(version).map_err(|_| Error::Damaged)?;
        let query = "DELETE FROM records WHERE id = $1 AND version = $2";
        Ok(self.execute(|| sqlx::query(query).bind(id.to_vec()).bind(version)).await? == 1)
    }

    pub async fn count(&self) -> Result<u64, Error> {
        let row: Option<(i64,)> = self.fetch(|| sqlx::query("SELECT count(*) FROM records")).await?;
        let (count,) = row.ok_or(Error::Damaged)?;
        count.try_into().map_err(|_| Error::Damaged)
    }

    /// Returns at most `limit` records in the order of their ids, from the one after `after`.
    pub async fn rows_after(&self, after: Option<&RecordKey>, limit: u32) -> Result<Vec<Row>, Error> {
        let query = "SELECT id, kind, version, sealed, (extract(epoch FROM expires) * 1000)::bigint \
                     FROM records WHERE id > $1 ORDER BY id LIMIT $2";
        let after = after.map_or(&[][..], |key| key);
        let statement = || sqlx::query(query).bind(after.to_vec()).bind(i64::from(limit));
        self.records(statement).await
    }

    /// Returns at most `limit` records of a kind that have not expired, in the order of their ids, from the one after
    /// `after`.
    pub async fn rows_of_kind(
        &self,
        kind: &str,
        after: Option<&RecordKey>,
        limit: u32,
    ) -> Result<Vec<Row>, Error> {
        let query = "SELECT id, kind, version, sealed, (extract(epoch FROM expires) * 1000)::bigint FROM records \
                     WHERE kind = $1 AND id > $2 AND (expires IS NULL OR expires > clock_timestamp()) \
                     ORDER BY id LIMIT $3";
        let after = after.map_or(&[][..], |key| key);
        let statement =
            || sqlx::query(query).bind(kind.to_owned()).bind(after.to_vec()).bind(i64::from(limit));
        self.records(statement).await
    }

    /// Replaces the encrypted text of records that are as they were read; returns how many.
    pub async fn replace_sealed(&self, records: &[Resealed]) -> Result<u64, Error> {
        let query = "UPDATE records SET sealed = new.sealed \
                     FROM unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::bytea[]) AS new (id, version, old, sealed) \
                     WHERE records.id = new.id AND records.version = new.version \
                       AND records.sealed IN (new.old, new.sealed)";
        let column = |of: fn(&Resealed) -> &[u8]| records.iter().map(|r| of(r).to_vec()).collect::<Vec<_>>();
        let versions: Vec<_> =
            records.iter().map(|r| i64::try_from(r.row.version).unwrap_or_default()).collect();
        let statement = || {
            let query = sqlx::query(query).bind(column(|r| &r.row.key)).bind(versions.clone());
            query.bind(column(|r| &r.row.sealed)).bind(column(|r| &r.new))
        };
        self.execute(statement).await
    }

    /// Begins to add records, all or none.
    pub async fn import(&self) -> Result<Import, Error> {
        answer(self.pool.begin()).await.map(Import::Postgres)
    }

    /// Returns the state of a record without its content.
    pub async fn state(&self, id: &RecordKey) -> Result<State, Error> {
        let query = "WITH clock AS (SELECT clock_timestamp() AS now) \
                     SELECT (SELECT version FROM records WHERE id = $1 AND (expires IS NULL OR expires > now)), \
                            (SELECT ceil(extract(epoch FROM expires - now) * 1000)::bigint \
                             FROM leases WHERE id = $1 AND expires > now) \
                     FROM clock";
        let row: Option<(Option<i64>, Option<i64>)> =
            self.fetch(|| sqlx::query(query).bind(id.to_vec())).await?;
        let (version, left) = row.ok_or(Error::Damaged)?;
        Ok(State::new(version, left))
    }

    /// Waits until nobody holds the lease or the version of the record is higher than `seen`.
    pub async fn lease_wait(&self, id: &RecordKey, seen: u64) -> Result<(), Error> {
        loop {
            // Before the state is looked at, so that no change is missed.
            let change = self.changes.next(id);
            let state = self.state(id).await?;
            let Some(left) = state.lease.filter(|_| !state.ends_wait(seen)) else { return Ok(()) };
            let longest = if self.changes.is_listening() { left } else { left.min(POLL_INTERVAL) };
            let _ = timeout(longest, change).await;
        }
    }

    /// Waits until the version of the record is no longer `seen`. There is no notification of its expiry: the caller's wait
    /// has an end.
    pub async fn change_wait(&self, id: &RecordKey, seen: u64) -> Result<(), Error> {
        loop {
            // Before the state is looked at, so that no change is missed.
            let change = self.changes.next(id);
            if self.state(id).await?.version != seen {
                return Ok(());
            }
            if self.changes.is_listening() {
                change.await;
            } else {
                let _ = timeout(POLL_INTERVAL, change).await;
            }
        }
    }

    pub async fn acquire_lease(
        &self,
        id: &RecordKey,
        holder: &str,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        // A lease that ends later than possible was taken before the clock was set back; it is void.
        let query = "INSERT INTO leases (id, holder, expires) \
                     SELECT $1, $2, now + $3 FROM (SELECT clock_timestamp() AS now) AS clock \
                     ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, expires = excluded.expires \
                     WHERE leases.holder = $2 OR leases.expires <= clock_timestamp() \
                        OR leases.expires > clock_timestamp() + 2 * $3";
        let statement = || sqlx::query(query).bind(id.to_vec()).bind(holder.to_owned()).bind(lifetime);
        Ok(self.execute(statement).await? == 1)
    }

    pub async fn release_lease(&self, id: &RecordKey, holder: &str) -> Result<(), Error> {
        let query = "DELETE FROM leases WHERE id = $1 AND holder = $2";
        self.execute(|| sqlx::query(query).bind(id.to_vec()).bind(holder.to_owned())).await?;
        Ok(())
    }

    /// Deletes expired records, and leases that ended. Processes that do so at the same time do not wait for each other.
    pub async fn purge_expired(&self) -> Result<u64, Error> {
        let mut deleted = 0;
        for query in [
            "DELETE FROM records WHERE id IN (SELECT id FROM records \
             WHERE expires <= clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)",
            "DELETE FROM leases WHERE id IN (SELECT id FROM leases \
             WHERE expires <= clock_timestamp() LIMIT $1 FOR UPDATE SKIP LOCKED)",
        ] {
            loop {
                let batch = self.execute(|| sqlx::query(query).bind(PURGE_BATCH)).await?;
                deleted += batch;
                if batch < PURGE_BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(deleted)
    }

    pub fn change_marker(&self, id: &RecordKey) -> Option<ChangeMarker> {
        self.changes.marker(id)
    }

    pub async fn close(&self) {
        self.changes.stop();
        let _ = timeout(CLOSE_TIMEOUT, self.pool.close()).await;
    }

    async fn fetch<T: for<'row> FromRow<'row, PgRow>>(
        &self,
        statement: impl Fn() -> Statement,
    ) -> Result<Option<T>, Error> {
        let row = self.run(statement).await?.rows.pop();
        row.map(|row| T::from_row(&row)).transpose().map_err(failure)
    }

    async fn records(&self, statement: impl Fn() -> Statement) -> Result<Vec<Row>, Error> {
        let rows = self.run(statement).await?.rows;
        rows.iter().map(|row| Row::try_from(Columns::from_row(row).map_err(failure)?)).collect()
    }

    /// Returns the number of rows that the statement changed.
    async fn execute(&self, statement: impl Fn() -> Statement) -> Result<u64, Error> {
        Ok(self.run(statement).await?.changed)
    }

    /// Runs a statement that can be run again.
    async fn run(&self, statement: impl Fn() -> Statement) -> Result<Answer, Error> {
        let mut attempt = 1;
        loop {
            // Boxed, or the futures of all that use the vault would nest deeper than the compiler follows.
            match timeout(ANSWER_TIMEOUT, Box::pin(self.ask(statement()))).await {
                Err(_) => return Err(Error::Server(ServerError::Silent)),
                Ok(Err(error)) if is_lost_connection(&error) && attempt < ATTEMPTS => attempt += 1,
                Ok(outcome) => return outcome.map_err(failure),
            }
        }
    }

    async fn ask(&self, statement: Statement) -> Result<Answer, sqlx::Error> {
        let mut borrowed = Borrowed(self.pool.acquire().await?);
        Answer::of(borrowed.0.fetch_many(statement)).await
    }
}

/// Waits for what the server is asked, but not for ever.
pub async fn answer<T>(asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    let answered = timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| Error::Server(ServerError::Silent))?;
    answered.map_err(failure)
}

/// What a statement did.
#[derive(Default)]
struct Answer {
    changed: u64,
    rows: Vec<PgRow>,
}

impl Answer {
    async fn of(
        mut results: impl Stream<Item = Result<Either<PgQueryResult, PgRow>, sqlx::Error>> + Unpin,
    ) -> Result<Self, sqlx::Error> {
        let mut answer = Self::default();
        while let Some(result) = results.try_next().await? {
            match result {
                Either::Left(done) => answer.changed += done.rows_affected(),
                Either::Right(row) => answer.rows.push(row),
            }
        }
        Ok(answer)
    }
}

/// A connection of the pool. It is given back when it has answered what it was asked, even if nobody waits for that any
/// more, so that a process never asks more at once than it has connections. sqlx waits for the answer without end; a
/// connection that hangs would be missing until TCP gives up.
struct Borrowed(PoolConnection<sqlx::Postgres>);

impl Drop for Borrowed {
    fn drop(&mut self) {
        let given_back = self.0.return_to_pool();
        if let Ok(runtime) = Handle::try_current() {
            // At the end of this time it is closed.
            runtime.spawn(timeout(GIVE_BACK_TIMEOUT, given_back));
        }
    }
}

/// Whether there is a vault in the database. Creates nothing.
pub async fn is_in_postgres(url: &PostgresUrl) -> Result<bool, Error> {
    ask_once(url, sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")).await
}

/// Whether a newer version of this program has migrated the database.
pub async fn is_newer(url: &PostgresUrl) -> bool {
    let newest = migrations().iter().map(|migration| migration.version).max();
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version > $1)");
    ask_once(url, query.bind(newest)).await.unwrap_or(false)
}

/// Asks a yes-or-no question over a connection of its own.
async fn ask_once(
    url: &PostgresUrl,
    query: QueryScalar<'_, sqlx::Postgres, bool, PgArguments>,
) -> Result<bool, Error> {
    let ask = async {
        let mut connection = options(url)?.connect().await.map_err(failure)?;
        query.fetch_one(&mut connection).await.map_err(failure)
    };
    timeout(CONNECT_TIMEOUT, ask).await.unwrap_or(Err(Error::Server(ServerError::Silent)))
}

fn options(url: &PostgresUrl) -> Result<PgConnectOptions, Error> {
    options_with(url, STATEMENT_TIMEOUT)
}

/// Options of a connection whose statements take at most `longest`.
fn options_with(url: &PostgresUrl, longest: &str) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url.expose().expose_secret())
        .map_err(|_| Error::Server(ServerError::Unexpected))?;
    Ok(options
        .application_name(env!("CARGO_PKG_NAME"))
        .options([
            ("statement_timeout", longest),
            ("lock_timeout", longest),
            ("idle_in_transaction_session_timeout", longest),
        ])
        .disable_statement_logging())
}

/// Brings the tables up to date, under an advisory lock that sqlx takes. Other processes that start meanwhile wait.
async fn migrate(url: &PostgresUrl) -> Result<(), Error> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_TIMEOUT);
    let pool = pool.connect_lazy_with(options_with(url, MIGRATION_STATEMENT_TIMEOUT)?);
    let migrated = timeout(MIGRATION_TIMEOUT, migrations().run(&pool)).await;
    let _ = timeout(CLOSE_TIMEOUT, pool.close()).await;
    migrated.map_err(|_| Error::Server(ServerError::Silent))?.map_err(|error| match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) => Error::Newer,
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failure(error),
        _ => Error::Damaged,
    })
}

/// Whether the connection ended, so that what was asked may or may not have been done.
fn is_lost_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // Connection exceptions; the server is shut down, has crashed, or is starting.
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03")),
        _ => false,
    }
}

/// PostgreSQL's error codes (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), as errors of ours.
fn failure(error: sqlx::Error) -> Error {
    let sqlx::Error::Database(error) = error else {
        return match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => Error::Damaged,
            sqlx::Error::PoolTimedOut => Error::Server(ServerError::Silent),
            sqlx::Error::PoolClosed => Error::Server(ServerError::Closed),
            sqlx::Error::Tls(_) => Error::Server(ServerError::Untrusted),
            sqlx::Error::Io(_) => Error::Server(ServerError::Unreachable),
            _ => Error::Server(ServerError::Unexpected),
        };
    };
    match &*error.code().unwrap_or_default() {
        REFUSED_BY_TRIGGER => Error::KeyChanged,
        "57014" | "55P03" => Error::Server(ServerError::Busy),
        "28000" | "28P01" => Error::Server(ServerError::Login),
        "3D000" => Error::Server(ServerError::NoDatabase),
        "42501" => Error::Server(ServerError::Forbidden),
        "42P01" | "42703" => Error::Damaged,
        "25006" => Error::Server(ServerError::ReadOnly),
        "53100" | "53200" => Error::Server(ServerError::Full),
        "53300" => Error::Server(ServerError::TooManyConnections),
        code if code.starts_with("57P") || code.starts_with("08") => Error::Server(ServerError::Restarting),
        _ => Error::Server(ServerError::Other),
    }
}
