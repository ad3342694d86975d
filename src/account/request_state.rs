//! What request states depend on. A request state passes through the host and may come back to any process that uses the
//! same vault, and it is used once.

use std::time::Duration;

use uuid::Uuid;

use super::{Account, Error};
use crate::{
    clock::Timestamp,
    vault::{DerivedKey, RecordId, RecordKind},
};

/// Purpose of the derived keys.
const PURPOSE: &[u8] = b"request state";

/// What a used request state is in the vault.
const KIND: RecordKind = RecordKind::new("request-state");

/// How long the vault remembers, by the database's clock, that a state was used: much longer than any process accepts it.
const KEPT: Duration = Duration::from_hours(24);

/// Largest difference between the clocks of two processes that use one vault.
const MAX_CLOCK_SKEW: Duration = Duration::from_hours(1);

impl Account {
    /// Returns the keys of request states, derived from the vault's sealing keys: the one to seal with, and the others
    /// that open.
    pub async fn request_state_keys(&self) -> Result<(DerivedKey, Vec<DerivedKey>), Error> {
        Ok(self.inner.store.vault().await?.derived_keys(PURPOSE))
    }

    /// Looks again which sealing keys there are: another process may have changed them.
    pub async fn reload_keys(&self) -> Result<(), Error> {
        Ok(self.inner.store.vault().await?.reload_keys().await?)
    }

    /// Whether a request state that some process sealed at `sealed_at`, by its own clock, still counts. It does for `lifetime` at
    /// least. Where clocks differ it may do so for longer; it is used once all the same.
    #[must_use]
    pub fn is_request_state_current(&self, sealed_at: Timestamp, lifetime: Duration) -> bool {
        let now = self.now();
        now < sealed_at + lifetime + MAX_CLOCK_SKEW && sealed_at <= now + MAX_CLOCK_SKEW
    }

    /// Uses the state of `round`; `false` if it was used before.
    pub async fn use_request_state(&self, round: Uuid) -> Result<bool, Error> {
        let store = &self.inner.store;
        // The round is random, and its state is bound to the owner.
        let id = RecordId { owner: round.to_string(), ..store.id_of(KIND) };
        Ok(store.vault().await?.insert_once(&id, KEPT).await?)
    }
}
