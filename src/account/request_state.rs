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
    /// least; where clocks differ, for up to twice their largest difference longer.
    #[must_use]
    pub fn is_request_state_current(&self, sealed_at: Timestamp, lifetime: Duration) -> bool {
        is_current(sealed_at, lifetime, self.now())
    }

    /// Uses the state of `round`, which counts for `lifetime`; `false` if it was used before.
    pub async fn use_request_state(&self, round: Uuid, lifetime: Duration) -> Result<bool, Error> {
        let store = &self.inner.store;
        // The round is random, and its state is bound to the owner.
        let id = RecordId { owner: round.to_string(), ..store.id_of(KIND) };
        Ok(store.vault().await?.insert_once(&id, kept(lifetime)).await?)
    }
}

/// Whether a state counts at `now`, by the clock of the process that opens it.
fn is_current(sealed_at: Timestamp, lifetime: Duration, now: Timestamp) -> bool {
    now < sealed_at + lifetime + MAX_CLOCK_SKEW && sealed_at <= now + MAX_CLOCK_SKEW
}

/// How long the vault remembers, by the database's clock, that a state was used: as long as any process may accept it, and
/// no longer, since each use is a record.
fn kept(lifetime: Duration) -> Duration {
    lifetime + 2 * MAX_CLOCK_SKEW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_remembered_as_long_as_any_process_may_accept_its_state() {
        let (lifetime, opened) = (Duration::from_mins(10), Timestamp::UNIX_EPOCH);
        let longest = (-60..=60).map(|ahead| {
            // By the clock of the process that has sealed it, which differs from the one of the process that opens it.
            let sealed_at = opened + chrono::TimeDelta::minutes(ahead);
            let accepted = (0..24 * 60).map(Duration::from_mins);
            accepted.filter(|after| is_current(sealed_at, lifetime, opened + *after)).max()
        });
        let longest = longest.max().flatten().unwrap();
        assert_eq!(kept(lifetime), longest + Duration::from_mins(1));
    }
}
