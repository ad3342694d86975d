//! Listing the records of a kind.

use super::{Error, Record, RecordId, RecordKind, Vault};

/// Number of records that are read at once.
const BATCH: u32 = 100;

impl Vault {
    /// Returns the records of a kind that have not expired, with their ids. Reads the whole table, so it is for rare
    /// work. A damaged record is left out, with a warning, so that it does not hide the others.
    pub async fn list(&self, kind: &RecordKind) -> Result<Vec<(RecordId, Record)>, Error> {
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let rows = self.database.rows_of_kind(kind.as_str(), after.as_ref(), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(records) };
            after = Some(last.key);
            for row in &rows {
                match self.open_row(row, &[]).await {
                    Ok((id, plaintext)) if id.kind == *kind => {
                        records.push((id, Record { version: row.version, plaintext }));
                    }
                    Ok(_) | Err(Error::Tampered) => {
                        tracing::warn!(kind = kind.as_str(), "a damaged record is left out");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::VaultLocation, vault::Keyring};

    fn id(kind: &'static str, owner: &str) -> RecordId {
        RecordId {
            kind: RecordKind::new(kind),
            owner: owner.to_owned(),
            origin: "https://a.example".to_owned(),
        }
    }

    #[tokio::test]
    async fn the_records_of_one_kind_are_listed_without_those_that_have_expired() {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
        for number in 0..250 {
            vault.write(&id("one", &number.to_string()), None, b"content", None).await.unwrap();
        }
        vault.write(&id("other", "1"), None, b"content", None).await.unwrap();
        vault.write(&id("one", "expired"), None, b"content", Some(Duration::ZERO)).await.unwrap();
        let version = vault.write(&id("one", "7"), Some(1), b"changed", None).await.unwrap();

        let listed = vault.list(&RecordKind::new("one")).await.unwrap();
        assert_eq!(listed.len(), 250);
        let (_, seventh) = listed.iter().find(|(found, _)| *found == id("one", "7")).unwrap();
        assert_eq!((seventh.version, &seventh.plaintext[..]), (version, &b"changed"[..]));
        assert_eq!(vault.list(&RecordKind::new("other")).await.unwrap().len(), 1);
        assert!(vault.list(&RecordKind::new("none")).await.unwrap().is_empty());
    }
}
