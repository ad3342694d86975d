//! How often a grant is refreshed, in this process. A refresh that succeeds is no mistake that the limits per address would
//! count, but costs several reads of the vault, and may cost a record.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use super::{GrantId, OAuthError};
use crate::{
    clock::Timestamp,
    token_bucket::{Bucket, Rate},
};

/// A host refreshes four times an hour; Codex sends five requests within a second.
const RATE: Rate = Rate::new(60, 1);

/// Largest number of grants that are remembered, about 200 bytes each.
const CAPACITY: u64 = 100_000;

/// Time after which a grant is forgotten; its bucket is full again by then.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(2);

/// The buckets, by grant.
#[derive(Debug)]
pub struct RefreshLimit(Cache<GrantId, Arc<Bucket>>);

impl RefreshLimit {
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_idle(FORGOTTEN_AFTER).build())
    }

    /// Fails if the grant may not be refreshed now. Counts nothing.
    pub fn check(&self, grant: &GrantId, now: Timestamp) -> Result<(), OAuthError> {
        let Some(bucket) = self.0.get(grant) else { return Ok(()) };
        take(&bucket, now)?;
        bucket.give_back(&RATE);
        Ok(())
    }

    /// Counts a refresh, unless there were too many.
    pub fn take(&self, grant: &GrantId, now: Timestamp) -> Result<(), OAuthError> {
        take(&self.0.get_with(grant.clone(), Arc::default), now)
    }
}

fn take(bucket: &Bucket, now: Timestamp) -> Result<(), OAuthError> {
    let now = (now - Timestamp::UNIX_EPOCH).to_std().unwrap_or_default();
    bucket.take(&RATE, now).map_err(OAuthError::too_many_requests)
}
