//! Which grants are live, as far as this process has lately noticed.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{AuthorizationServer, GrantId, access_token::GRANT_CACHE};
use crate::{
    account::{Owner, PerOwner},
    clock::Timestamp,
    vault,
};

/// The states of the grants, by the owners of their requests.
#[derive(Debug, Default)]
pub struct GrantStates(PerOwner<GrantState>);

/// Whether one grant is live: the same for all who look at the same time.
#[derive(Debug, Default)]
pub struct GrantState(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default)]
enum Seen {
    #[default]
    Never,
    Live {
        at: Timestamp,
    },
    Ended,
}

impl GrantStates {
    pub fn of(&self, owner: &Owner) -> Arc<GrantState> {
        self.0.get_or_open(owner, GrantState::default)
    }
}

impl GrantState {
    /// A grant that has ended stays so: whoever read it a moment before does not revive it.
    pub fn set_ended(&self) {
        *self.0.lock() = Seen::Ended;
    }

    fn set_live(&self, at: Timestamp) {
        let mut seen = self.0.lock();
        if !matches!(*seen, Seen::Ended) {
            *seen = Seen::Live { at };
        }
    }

    /// `None` where it has to be looked up.
    fn is_live(&self, now: Timestamp) -> Option<bool> {
        match *self.0.lock() {
            Seen::Never => None,
            Seen::Ended => Some(false),
            Seen::Live { at } => {
                let age = (now - at).to_std().unwrap_or(GRANT_CACHE);
                (age < GRANT_CACHE).then_some(true)
            }
        }
    }
}

impl AuthorizationServer {
    /// Whether a grant exists and has not ended; the end in another process is noticed within [`GRANT_CACHE`].
    pub(super) async fn is_live(&self, grant: &GrantId, state: &GrantState) -> Result<bool, vault::Error> {
        let now = self.inner.clock.now();
        if let Some(is_live) = state.is_live(now) {
            return Ok(is_live);
        }
        let is_live = self.live_grant(grant).await?.is_some();
        if is_live {
            state.set_live(now);
        } else {
            state.set_ended();
        }
        Ok(is_live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_read_a_grant_before_its_end_does_not_revive_it() {
        let (states, now) = (GrantStates::default(), Timestamp::UNIX_EPOCH);
        let owner = Owner::Subject("ada.grant".to_owned());
        let reader = states.of(&owner);
        reader.set_live(now);
        assert_eq!(reader.is_live(now), Some(true));
        states.of(&owner).set_ended();
        reader.set_live(now);
        assert_eq!(reader.is_live(now), Some(false));
    }
}
