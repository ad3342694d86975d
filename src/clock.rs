//! The time of day, injected: the system's, or one that a test or the demo moves by hand. It measures validity
//! (expiry, leases), never durations of work.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

/// A moment, UTC.
pub type Timestamp = DateTime<Utc>;

/// Where `now` comes from. Clones of a manual clock move together.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds since the epoch; `None` asks the system.
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start.timestamp_millis()))) }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.manual {
            None => Utc::now(),
            Some(millis) => {
                DateTime::from_timestamp_millis(millis.load(Ordering::SeqCst)).unwrap_or_default()
            }
        }
    }

    /// Moves a manual clock; the system's cannot be moved and stays.
    pub fn advance(&self, by: TimeDelta) {
        if let Some(millis) = &self.manual {
            millis.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_manual_clock_move_together() {
        let clock = Clock::manual(DateTime::UNIX_EPOCH);
        let other = clock.clone();
        clock.advance(TimeDelta::seconds(90));
        assert_eq!(other.now().timestamp(), 90);
    }
}
