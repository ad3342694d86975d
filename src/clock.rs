//! An injected wall clock: the system's, or one that a test or the demo sets. It is used for validity (expiry, leases),
//! never for durations of work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

/// A point in time, in UTC.
pub type Timestamp = DateTime<Utc>;

/// A source of the current time. Clones of a manual clock move together.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// `None` for the system's clock.
    manual: Option<Manual>,
}

/// A clock that is set, in milliseconds.
#[derive(Clone, Debug)]
struct Manual {
    /// Since the epoch.
    start: i64,
    passed: Arc<AtomicI64>,
}

impl Clock {
    /// Returns the system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Returns a clock that stays at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self { manual: Some(Manual { start: start.timestamp_millis(), passed: Arc::default() }) }
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.manual {
            None => Utc::now(),
            Some(Manual { start, passed }) => {
                DateTime::from_timestamp_millis(start + passed.load(Ordering::SeqCst)).unwrap_or_default()
            }
        }
    }

    /// Moves a manual clock; has no effect on the system's.
    pub fn advance(&self, by: TimeDelta) {
        if let Some(Manual { passed, .. }) = &self.manual {
            passed.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
        }
    }

    /// Returns by how much a manual clock was moved: that much time has passed for other clocks too, such as the
    /// database's. Zero for the system's clock.
    #[must_use]
    pub fn advanced(&self) -> TimeDelta {
        let passed = self.manual.as_ref().map(|manual| manual.passed.load(Ordering::SeqCst));
        TimeDelta::milliseconds(passed.unwrap_or_default())
    }
}

/// Returns a wait in whole seconds, rounded up, so that who waits for so long is not too early.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Returns a duration in whole milliseconds, rounded down.
#[must_use]
pub fn whole_milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
        assert_eq!(other.advanced(), TimeDelta::seconds(90));
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        for (wait, seconds) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_secs(7), 7),
            (Duration::from_millis(7001), 8),
        ] {
            assert_eq!(whole_seconds(wait), seconds, "{wait:?}");
        }
    }
}
