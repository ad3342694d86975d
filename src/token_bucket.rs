//! Token buckets, as the generic cell rate algorithm (ITU-T I.371): one number each, the time at which it is full again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a bucket holds and how fast it is filled.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Nanoseconds that an empty bucket takes to be full.
    capacity: u64,
    /// Nanoseconds for one request.
    interval: u64,
}

/// A bucket, full at first. Times are given from the same beginning.
#[derive(Debug, Default)]
pub struct Bucket {
    /// In nanoseconds.
    full_at: AtomicU64,
}

impl Rate {
    /// A bucket of `burst` requests, to which `per_second` are added.
    #[must_use]
    pub const fn new(burst: u32, per_second: u32) -> Self {
        let interval = 1_000_000_000 / per_second as u64;
        Self { capacity: interval * burst as u64, interval }
    }

    /// A bucket of so many times the requests, filled so many times as fast.
    #[must_use]
    pub const fn times(self, factor: u32) -> Self {
        Self { interval: self.interval / factor as u64, ..self }
    }

    /// Returns when a bucket that would be full at `full_at` is full after another request, or the wait for one.
    fn after_one_more(&self, full_at: u64, now: u64) -> Result<u64, Duration> {
        // No bucket is emptier than empty, unless the clock was set back.
        let full_at = if full_at > now + self.capacity { now } else { full_at.max(now) } + self.interval;
        match (full_at - now).checked_sub(self.capacity + 1) {
            None => Ok(full_at),
            Some(over) => Err(Duration::from_nanos(over + 1)),
        }
    }
}

impl Bucket {
    /// Takes one request from the bucket, or returns the wait for one.
    pub fn take(&self, rate: &Rate, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let mut known = self.full_at.load(Ordering::Relaxed);
        loop {
            let after = rate.after_one_more(known, now)?;
            match self.full_at.compare_exchange_weak(known, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => known = other,
            }
        }
    }

    /// Gives a request back that was taken. The bucket gets no fuller than full.
    pub fn give_back(&self, rate: &Rate) {
        let less = |full_at: u64| Some(full_at.saturating_sub(rate.interval));
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_a_burst_and_then_a_rate() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 4));
        let at = Duration::from_millis;
        for _ in 0..10 {
            bucket.take(&rate, at(5000)).unwrap();
        }
        assert_eq!(bucket.take(&rate, at(5000)), Err(at(250)));
        assert_eq!(bucket.take(&rate, at(5100)), Err(at(150)));
        bucket.take(&rate, at(5250)).unwrap();
        assert_eq!(bucket.take(&rate, at(5250)), Err(at(250)));
        // Full again, and no fuller.
        for _ in 0..10 {
            bucket.take(&rate, at(60_000)).unwrap();
        }
        assert_eq!(bucket.take(&rate, at(60_000)), Err(at(250)));
    }

    #[test]
    fn a_clock_that_is_set_back_empties_no_bucket() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 4));
        for _ in 0..10 {
            bucket.take(&rate, Duration::from_hours(1)).unwrap();
        }
        for _ in 0..10 {
            bucket.take(&rate, Duration::from_secs(1)).unwrap();
        }
        assert_eq!(bucket.take(&rate, Duration::from_secs(1)), Err(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_given_back_can_be_taken_once() {
        let (bucket, rate) = (Bucket::default(), Rate::new(10, 4));
        let at = Duration::from_millis;
        for _ in 0..10 {
            bucket.take(&rate, at(5000)).unwrap();
        }
        bucket.give_back(&rate);
        bucket.take(&rate, at(5000)).unwrap();
        assert_eq!(bucket.take(&rate, at(5000)), Err(at(250)));
        // After it was filled again.
        bucket.give_back(&rate);
        for _ in 0..10 {
            bucket.take(&rate, at(60_000)).unwrap();
        }
        assert_eq!(bucket.take(&rate, at(60_000)), Err(at(250)));
    }

    #[test]
    fn threads_share_a_bucket() {
        let (bucket, rate) = (Bucket::default(), Rate::new(1000, 1));
        let taken = std::thread::scope(|scope| {
            let take = || (0..500).filter(|_| bucket.take(&rate, Duration::ZERO).is_ok()).count();
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
        });
        assert_eq!(taken, 1000);
    }
}
