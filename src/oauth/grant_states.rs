//! Which grants are live, as far as this process has lately noticed.

use std::time::Duration;

use moka::{ops::compute::Op, sync::Cache};

use super::{AuthorizationServer, GrantId, access_token::GRANT_CACHE};
use crate::{clock::Timestamp, vault};

/// Number of grants that are remembered.
const CAPACITY: u64 = 50_000;

/// How long an entry stays in memory; whether it still counts is decided by the injected clock.
const KEPT: Duration = Duration::from_mins(5);

#[derive(Debug)]
pub struct GrantStates(Cache<GrantId, State>);

#[derive(Clone, Copy, Debug)]
enum State {
    Live { seen_at: Timestamp },
    Ended,
}

impl GrantStates {
    pub fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_live(KEPT).build())
    }

    /// A grant that has ended stays so: whoever read it a moment before does not revive it.
    pub fn set_ended(&self, grant: &GrantId) {
        self.0.insert(grant.clone(), State::Ended);
    }

    fn set_live(&self, grant: &GrantId, seen_at: Timestamp) {
        self.0.entry_by_ref(grant).and_compute_with(|state| match state.map(moka::Entry::into_value) {
            Some(State::Ended) => Op::Nop,
            _ => Op::Put(State::Live { seen_at }),
        });
    }

    /// `None` where it has to be looked up.
    fn is_live(&self, grant: &GrantId, now: Timestamp) -> Option<bool> {
        match self.0.get(grant)? {
            State::Ended => Some(false),
            State::Live { seen_at } => {
                let age = (now - seen_at).to_std().unwrap_or(GRANT_CACHE);
                (age < GRANT_CACHE).then_some(true)
            }
        }
    }
}

impl AuthorizationServer {
    /// Whether a grant exists and has not ended; the end in another process is noticed within [`GRANT_CACHE`].
    pub(super) async fn is_live(&self, grant: &GrantId) -> Result<bool, vault::Error> {
        let (states, now) = (&self.inner.grant_states, self.inner.clock.now());
        if let Some(is_live) = states.is_live(grant, now) {
            return Ok(is_live);
        }
        let is_live = self.grant(grant).await?.is_some_and(|grant| grant.ended.is_none());
        if is_live {
            states.set_live(grant, now);
        } else {
            states.set_ended(grant);
        }
        Ok(is_live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_read_a_grant_before_its_end_does_not_revive_it() {
        let (states, grant, now) = (GrantStates::new(), GrantId::given("grant"), Timestamp::UNIX_EPOCH);
        states.set_live(&grant, now);
        assert_eq!(states.is_live(&grant, now), Some(true));
        states.set_ended(&grant);
        states.set_live(&grant, now);
        assert_eq!(states.is_live(&grant, now), Some(false));
    }
}
