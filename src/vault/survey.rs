//! Which keys the vault's records need.

use super::{Error, Vault};

/// Number of records that are read at once.
const BATCH: u32 = 100;

/// Counts of the vault's records by the key that encrypted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySurvey {
    pub records: u64,
    /// Records that a known key other than the current one encrypted.
    pub with_old_key: u64,
    /// Records that no known key encrypted.
    pub with_unknown_key: u64,
    /// Number of keys that are known.
    pub known_keys: usize,
}

impl Vault {
    /// Reads all records and finds out which keys they need. Decrypts none.
    pub async fn survey_keys(&self) -> Result<KeySurvey, Error> {
        let sealer = self.refreshed_keys().await?;
        let mut survey = KeySurvey { known_keys: sealer.known_keys(), ..KeySurvey::default() };
        let mut after = None;
        loop {
            let rows = self.database.rows_after(after.as_ref(), BATCH).await?;
            let Some(last) = rows.last() else { return Ok(survey) };
            after = Some(last.key);
            survey.records += rows.len() as u64;
            for row in &rows {
                if !sealer.knows_key_of(&row.sealed) {
                    survey.with_unknown_key += 1;
                } else if survey.known_keys > 1 && !sealer.is_current(&row.sealed) {
                    survey.with_old_key += 1;
                }
            }
        }
    }
}
