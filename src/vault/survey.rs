//! Which keys the vault's records need.

use std::pin::pin;

use futures_util::TryStreamExt as _;

use super::{Error, Vault};

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
        let mut rows = pin!(self.database.rows(None));
        while let Some(row) = rows.try_next().await? {
            survey.records += 1;
            if !sealer.knows_key_of(&row.sealed) {
                survey.with_unknown_key += 1;
            } else if survey.known_keys > 1 && !sealer.is_current(&row.sealed) {
                survey.with_old_key += 1;
            }
        }
        Ok(survey)
    }
}
