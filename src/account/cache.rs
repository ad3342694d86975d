//! A cached response of the upstream, valid for a limited time and for one sign-in. Concurrent callers share one
//! request.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Error;
use crate::clock::{Clock, Timestamp};

/// Lifetime of a cached response.
const CACHE_LIFETIME: Duration = Duration::from_mins(5);

#[derive(Debug)]
pub(super) struct Cache<T> {
    answer: Mutex<Option<Cached<T>>>,
    /// Held during a request to the upstream. Contains the last failure, for the callers that waited for it.
    asking: tokio::sync::Mutex<Option<Failed>>,
}

/// A response and the sign-in that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Cached<T> {
    pub value: T,
    pub fetched_at: Timestamp,
    identity: Option<u64>,
    asked: Instant,
}

#[derive(Debug)]
struct Failed {
    error: Error,
    identity: Option<u64>,
    ended: Instant,
}

/// A response, and whether this caller made the request.
pub(super) struct Fetched<T> {
    pub answer: Cached<T>,
    pub from_cache: bool,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { answer: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }
}

impl<T: Clone> Cache<T> {
    /// Returns the response for `identity`, which the caller has read before: from memory while it is fresh, otherwise
    /// from `ask`. A caller that arrives during another caller's request takes that one's outcome.
    pub async fn get(
        &self,
        identity: Option<u64>,
        clock: &Clock,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<Fetched<T>, Error> {
        let arrived = Instant::now();
        if let Some(answer) = self.fresh(identity) {
            return Ok(Fetched { answer, from_cache: true });
        }
        let mut failed = self.asking.lock().await;
        if let Some(answer) = self.fresh(identity) {
            return Ok(Fetched { answer, from_cache: true });
        }
        if let Some(failed) = &*failed
            && failed.ended >= arrived
            && failed.identity == identity
        {
            return Err(failed.error.clone());
        }
        let outcome = self.refresh(identity, clock, ask).await;
        if let Err(error) = &outcome {
            *failed = Some(Failed { error: error.clone(), identity, ended: Instant::now() });
        }
        outcome
    }

    /// Returns the response for `identity` from `ask` and ignores the cache.
    pub async fn refresh(
        &self,
        identity: Option<u64>,
        clock: &Clock,
        ask: impl Future<Output = Result<T, Error>>,
    ) -> Result<Fetched<T>, Error> {
        let asked = Instant::now();
        let answer = Cached { value: ask.await?, fetched_at: clock.now(), identity, asked };
        let mut last = self.answer.lock();
        // Responses can arrive out of order.
        if last.as_ref().is_none_or(|last| last.asked <= asked) {
            *last = Some(answer.clone());
        }
        Ok(Fetched { answer, from_cache: false })
    }

    fn fresh(&self, identity: Option<u64>) -> Option<Cached<T>> {
        self.last(identity).filter(|answer| answer.asked.elapsed() < CACHE_LIFETIME)
    }

    /// Returns the last response for `identity`, fresh or not.
    pub fn last(&self, identity: Option<u64>) -> Option<Cached<T>> {
        self.answer.lock().clone().filter(|answer| answer.identity == identity)
    }

    pub fn clear(&self) {
        *self.answer.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// A slow upstream that counts its requests.
    struct Upstream(AtomicU32);

    impl Upstream {
        fn new() -> Self {
            Self(AtomicU32::new(0))
        }

        async fn answer(&self, outcome: Result<&'static str, Error>) -> Result<&'static str, Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            outcome
        }

        fn asked(&self) -> u32 {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_cold_callers_ask_once_whether_it_works_or_not() {
        let clock = Clock::system();
        for outcome in [Ok("models"), Err(Error::Interrupted)] {
            let (cache, upstream) = (Cache::default(), Upstream::new());
            let calls = (0..1000).map(|_| cache.get(Some(1), &clock, upstream.answer(outcome.clone())));
            let answers = join_all(calls).await;
            assert!(answers.iter().all(|answer| answer.is_ok() == outcome.is_ok()));
            assert_eq!(upstream.asked(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_leaves_the_asking_to_the_next() {
        let (cache, upstream, clock) = (Cache::default(), Upstream::new(), Clock::system());
        let half = Duration::from_millis(500);
        let hasty = tokio::time::timeout(half, cache.get(None, &clock, upstream.answer(Ok("models"))));
        let (gone, patient) = tokio::join!(hasty, cache.get(None, &clock, upstream.answer(Ok("models"))));
        assert!(gone.is_err());
        assert_eq!(patient.unwrap().answer.value, "models");
        assert_eq!(upstream.asked(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_fresh_for_a_while_and_for_its_identity_alone() {
        let (cache, upstream, clock) = (Cache::default(), Upstream::new(), Clock::system());
        let get = async |identity| {
            cache.get(identity, &clock, upstream.answer(Ok("models"))).await.unwrap().from_cache
        };
        assert!(!get(Some(1)).await);
        assert!(get(Some(1)).await);
        tokio::time::advance(CACHE_LIFETIME).await;
        assert!(!get(Some(1)).await);
        assert!(!get(Some(2)).await);
        assert!(cache.last(Some(1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_asks_whatever_is_remembered_and_the_answer_to_the_last_question_stays() {
        let (cache, upstream, clock) = (Cache::default(), Upstream::new(), Clock::system());
        let slow = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            upstream.answer(Ok("older")).await
        };
        let late = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            cache.refresh(None, &clock, upstream.answer(Ok("newer"))).await
        };
        let (older, newer) = tokio::join!(cache.refresh(None, &clock, slow), late);
        assert_eq!((older.unwrap().answer.value, newer.unwrap().answer.value), ("older", "newer"));
        assert_eq!(cache.last(None).unwrap().value, "newer");
    }
}
