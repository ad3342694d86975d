//! Listing the records of a kind.

use std::pin::pin;

use futures_util::TryStreamExt as _;

use super::{Error, Record, RecordId, RecordKind, Vault};

impl Vault {
    /// Returns the records of a kind that have not expired, with their ids. Reads the whole table, so it is for rare
    /// work. A damaged record is left out, with a warning, so that it does not hide the others.
    pub async fn list(&self, kind: &RecordKind) -> Result<Vec<(RecordId, Record)>, Error> {
        let (mut records, mut rows) = (Vec::new(), pin!(self.database.rows(Some(kind.as_str()))));
        while let Some(row) = rows.try_next().await? {
            match self.open_row(&row, &[]).await {
                Ok((id, plaintext)) if id.kind == *kind => {
                    records.push((id, Record { version: row.version, plaintext }));
                }
                Ok(_) | Err(Error::Tampered) => {
                    tracing::warn!(kind = kind.as_str(), "a damaged record is left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }
}
