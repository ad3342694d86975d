//! Adding records to a vault in one transaction: all or none.

use sqlx::{Postgres, Sqlite, Transaction};

use super::{Error, database::Row, postgres, sqlite};

/// Records that are being added; none of them is if this is dropped.
#[derive(Debug)]
pub enum Import {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Import {
    /// Adds a record; returns whether there was none.
    pub async fn insert(&mut self, row: &Row) -> Result<bool, Error> {
        let version = i64::try_from(row.version).map_err(|_| Error::Damaged)?;
        let expires = row.expires.map(|expires| expires.timestamp_millis());
        match self {
            Self::Sqlite(transaction) => {
                let query = "INSERT INTO records (id, kind, version, sealed, expires) VALUES (?, ?, ?, ?, ?) \
                             ON CONFLICT DO NOTHING";
                let query = sqlx::query(query).bind(&row.key[..]).bind(&row.kind).bind(version);
                let inserted = query.bind(&row.sealed).bind(expires).execute(&mut **transaction).await;
                inserted.map(|done| done.rows_affected() == 1).map_err(sqlite::failure)
            }
            Self::Postgres(transaction) => {
                let query = "INSERT INTO records (id, kind, version, sealed, expires) \
                             VALUES ($1, $2, $3, $4, to_timestamp($5::bigint / 1000.0)) ON CONFLICT DO NOTHING";
                let query = sqlx::query(query).bind(&row.key[..]).bind(&row.kind).bind(version);
                let inserted = query.bind(&row.sealed).bind(expires).execute(&mut **transaction);
                Ok(postgres::answer(inserted).await?.rows_affected() == 1)
            }
        }
    }

    /// Whether the vault has this very row: no two encrypted texts are the same. Waits for a transaction that is adding it.
    /// Not to be committed after it.
    pub async fn has(&mut self, row: &Row) -> Result<bool, Error> {
        // A row that nobody has added can be added, and one that somebody is adding is waited for.
        if self.insert(row).await? {
            return Ok(false);
        }
        let query = "SELECT count(*) FROM records WHERE id = $1 AND sealed = $2";
        let count: i64 = match self {
            Self::Sqlite(transaction) => {
                let query = sqlx::query_scalar(query).bind(&row.key[..]).bind(&row.sealed);
                query.fetch_one(&mut **transaction).await.map_err(sqlite::failure)?
            }
            Self::Postgres(transaction) => {
                let query = sqlx::query_scalar(query).bind(&row.key[..]).bind(&row.sealed);
                postgres::answer(query.fetch_one(&mut **transaction)).await?
            }
        };
        Ok(count == 1)
    }

    pub async fn commit(self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await.map_err(sqlite::failure),
            Self::Postgres(transaction) => postgres::answer(transaction.commit()).await,
        }
    }
}
