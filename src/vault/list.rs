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
