//! How often a grant is refreshed, in this process: a token bucket for each grant, as the generic cell rate algorithm (ITU-T
//! I.371). A refresh that succeeds is no mistake that the limits per address would count, but costs several reads of the
//! vault, and may cost a record.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use moka::sync::Cache;

use super::{GrantId, OAuthError};
use crate::clock::Timestamp;

/// Refreshes at once. A host refreshes four times an hour; Codex sends five within a second.
const BURST: i32 = 60;

/// Time after which there may be one more.
const INTERVAL: TimeDelta = TimeDelta::seconds(1);

/// Largest number of grants that are remembered, about 200 bytes each.
const CAPACITY: u64 = 100_000;

/// Time after which a grant is forgotten; its bucket is full again by then.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(2);

/// The buckets, by grant. Each is the time at which it is full again.
#[derive(Debug)]
pub struct RefreshLimit(Cache<GrantId, Arc<Mutex<Timestamp>>>);

impl RefreshLimit {
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_idle(FORGOTTEN_AFTER).build())
    }

    /// Fails if the grant may not be refreshed now. Counts nothing.
    pub fn check(&self, grant: &GrantId, now: Timestamp) -> Result<(), OAuthError> {
        match self.0.get(grant) {
            Some(full_at) => {
                after_one_more(*full_at.lock().unwrap_or_else(PoisonError::into_inner), now).map(drop)
            }
            None => Ok(()),
        }
    }

    /// Counts a refresh, unless there were too many.
    pub fn take(&self, grant: &GrantId, now: Timestamp) -> Result<(), OAuthError> {
        let full_at = self.0.get_with(grant.clone(), || Arc::new(Mutex::new(now)));
        let mut full_at = full_at.lock().unwrap_or_else(PoisonError::into_inner);
        *full_at = after_one_more(*full_at, now)?;
        Ok(())
    }
}

/// Returns when a bucket that would be full at `full_at` is full after another refresh.
fn after_one_more(full_at: Timestamp, now: Timestamp) -> Result<Timestamp, OAuthError> {
    let empty = now + INTERVAL * BURST;
    // No bucket is emptier than empty, unless the clock was set back.
    let full_at = if full_at > empty { now } else { full_at.max(now) } + INTERVAL;
    match (full_at - empty).to_std() {
        Ok(wait) if !wait.is_zero() => Err(OAuthError::too_many_requests(wait)),
        _ => Ok(full_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_filled_again_also_when_the_clock_is_set_back() {
        let (limit, grant) = (RefreshLimit::new(), GrantId::given("a"));
        let take = |now| {
            let checked = limit.check(&grant, now).is_ok();
            assert_eq!(limit.take(&grant, now).is_ok(), checked);
            checked
        };
        let start = Timestamp::UNIX_EPOCH + TimeDelta::days(1);
        let at_once = |now| (0..2 * BURST).filter(|_| take(now)).count();
        let burst = usize::try_from(BURST).unwrap();
        assert_eq!(at_once(start), burst);
        assert_eq!(at_once(start + TimeDelta::milliseconds(999)), 0);
        assert_eq!(at_once(start + INTERVAL * 3), 3);
        assert_eq!(at_once(start + TimeDelta::hours(1)), burst);
        assert_eq!(at_once(start), burst);
        assert_eq!(at_once(start + INTERVAL), 1);
    }
}
