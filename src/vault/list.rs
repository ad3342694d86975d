//! Listing the records of a kind.

use std::pin::pin;

use futures_util::TryStreamExt as _;

use super::{Error, Record, RecordId, RecordKind, Vault};

impl Vault {
    /// Returns the records of a kind that have not expired, with their ids. Reads the whole table, so it is for rare
    /// work. A damaged record is left out, with a warning, so that it does not hide the others.
    pub async fn list(&self, kind: &RecordKind) -> Result<Vec<(RecordId, Record)>, Error> {
        self.select(kind, false, |id, record| Some((id, record))).await
    }

    /// Returns what `choose` makes of the records of a kind, and keeps nothing else of them. With `leave_out` also those
    /// that no known key opens are left out.
    pub async fn select<T>(
        &self,
        kind: &RecordKind,
        leave_out: bool,
        mut choose: impl FnMut(RecordId, Record) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let (mut chosen, mut rows) = (Vec::new(), pin!(self.database.rows(Some(kind.as_str()))));
        while let Some(row) = rows.try_next().await? {
            match self.open_row(&row, &[]).await {
                Ok((id, plaintext)) if id.kind == *kind => {
                    chosen.extend(choose(id, Record { version: row.version, plaintext }));
                }
                Ok(_) | Err(Error::Tampered) => {
                    tracing::warn!(kind = kind.as_str(), "a damaged record is left out");
                }
                Err(error @ (Error::Unnamed | Error::UnknownKey)) if leave_out => {
                    tracing::warn!(kind = kind.as_str(), %error, "a record that cannot be opened is left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection as _, SqliteConnection};

    use super::*;
    use crate::{config::VaultLocation, vault::Keyring};

    #[tokio::test]
    async fn a_record_that_cannot_be_opened_does_not_hide_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
        let id = |owner: &str| RecordId {
            kind: RecordKind::ACCOUNT,
            owner: owner.to_owned(),
            origin: "https://api.example".to_owned(),
        };
        let mut database = SqliteConnection::connect(&format!("sqlite://{location}")).await.unwrap();
        sqlx::query("DROP TRIGGER records_update_current_key").execute(&mut database).await.unwrap();
        // The format is 2 and not 1; the id of the key follows.
        for (owner, at, change) in [("first format", 0, 2 ^ 1), ("unknown key", 1, 0xff), ("good", 0, 0)] {
            vault.write(&id(owner), None, b"content", None).await.unwrap();
            let key = vault.sealer().record_key(&id(owner));
            let (_, mut sealed) = vault.database.read(&key).await.unwrap().unwrap();
            sealed[at] ^= change;
            let update = sqlx::query("UPDATE records SET sealed = ? WHERE id = ?");
            update.bind(sealed).bind(&key[..]).execute(&mut database).await.unwrap();
        }
        database.close().await.unwrap();
        for (owner, error) in [("first format", Error::Tampered), ("unknown key", Error::UnknownKey)] {
            assert_eq!(vault.read(&id(owner)).await.unwrap_err(), error);
        }
        assert!(vault.list(&RecordKind::ACCOUNT).await.is_err());
        let listed = vault.select(&RecordKind::ACCOUNT, true, |id, _| Some(id)).await.unwrap();
        assert_eq!(listed, [id("good")]);
    }
}
