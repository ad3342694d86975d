//! A rate limiter that follows the upstream's headers (`X-RateLimit-Limit`, `-Remaining`, `-Reset` and `Retry-After`):
//! a request that would certainly be refused is not sent.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::{error::Error, refusal::retry_after};
use crate::clock::Timestamp;

/// Longest wait that is absorbed; longer ones are returned to the caller.
const MAX_INLINE_WAIT: Duration = Duration::from_secs(2);

/// Length of the upstream's window. A later reset in the headers comes from a clock that differs from ours.
const MAX_WINDOW: Duration = Duration::from_mins(1);

/// The upstream's latest figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Allowance {
    pub limit: u64,
    pub remaining: u64,
    /// When `remaining` is `limit` again.
    pub resets_at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct RateLimiter {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    allowance: Option<Allowance>,
    /// Requests in flight, which the upstream's figures may not include yet.
    in_flight: u64,
    /// When the upstream accepts requests again after a 429.
    blocked_until: Option<Instant>,
    /// When the window of `allowance` ends.
    renewed_at: Option<Instant>,
    /// End of the window by the upstream's clock, which identifies the window of a response.
    reset: Option<Timestamp>,
}

/// A request that was let through.
#[derive(Debug)]
pub(super) struct Permit<'a>(&'a RateLimiter);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.known.lock().in_flight -= 1;
    }
}

impl RateLimiter {
    /// Admits a request, after a short wait if that is enough.
    pub async fn admit(&self) -> Result<Permit<'_>, Error> {
        let began = Instant::now();
        loop {
            let Some(wait) = self.take() else { return Ok(Permit(self)) };
            if began.elapsed() + wait >= MAX_INLINE_WAIT {
                return Err(Error::RateLimited { retry_after: wait });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes the figures from the `headers` of a response received at `now`.
    pub fn observe(&self, status: StatusCode, headers: &HeaderMap, now: Timestamp) {
        let mut known = self.known.lock();
        let from_now = |wait: Duration| Instant::now() + wait.min(MAX_WINDOW);
        if let Some(figures) = allowance(headers) {
            let reset = figures.resets_at;
            // Known figures are valid for a minute by our clock, regardless of the upstream's.
            let holds = known.renewed_at.is_some_and(|at| at > Instant::now());
            let later = known.reset.filter(|known| holds && *known >= reset);
            // Responses can arrive out of order: within a window the smallest figure is the newest.
            if later.is_none_or(|known| known == reset) {
                let others = known.in_flight.saturating_sub(1);
                let before =
                    known.allowance.as_ref().filter(|_| later.is_some()).map(|known| known.remaining);
                let remaining = figures.remaining.saturating_sub(others).min(before.unwrap_or(u64::MAX));
                let wait = (reset - now).to_std().unwrap_or_default().min(MAX_WINDOW);
                known.renewed_at = Some(from_now(wait));
                known.reset = Some(reset);
                known.allowance = Some(Allowance { remaining, resets_at: now + wait, ..figures });
            }
        }
        if status == StatusCode::TOO_MANY_REQUESTS
            && let Some(wait) = retry_after(status, headers, now)
        {
            known.blocked_until = Some(from_now(wait));
        }
    }

    /// Returns the upstream's latest figures; `None` before the first ones.
    pub fn allowance(&self) -> Option<Allowance> {
        self.known.lock().allowance.clone()
    }

    /// Resets the figures, for another account.
    pub fn reset(&self) {
        let mut known = self.known.lock();
        *known = Known { in_flight: known.in_flight, ..Known::default() };
    }

    /// Takes one request, or returns how long to wait for one.
    fn take(&self) -> Option<Duration> {
        let mut known = self.known.lock();
        let now = Instant::now();
        known.blocked_until.take_if(|until| *until <= now);
        if known.renewed_at.take_if(|at| *at <= now).is_some()
            && let Some(allowance) = &mut known.allowance
        {
            allowance.remaining = allowance.limit;
        }
        let used_up = known.renewed_at.filter(|_| known.allowance.as_ref().is_some_and(|a| a.remaining == 0));
        if let Some(until) = known.blocked_until.max(used_up) {
            return Some(until - now);
        }
        known.in_flight += 1;
        if let Some(allowance) = &mut known.allowance {
            allowance.remaining = allowance.remaining.saturating_sub(1);
        }
        None
    }
}

fn allowance(headers: &HeaderMap) -> Option<Allowance> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let reset = i64::try_from(number("x-ratelimit-reset")?).ok()?;
    Some(Allowance {
        limit: number("x-ratelimit-limit")?,
        remaining: number("x-ratelimit-remaining")?,
        resets_at: Timestamp::from_timestamp(reset, 0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn reported(remaining: u64, reset_in: i64) -> HeaderMap {
        [
            ("x-ratelimit-limit", "10".to_owned()),
            ("x-ratelimit-remaining", remaining.to_string()),
            ("x-ratelimit-reset", (NOW + reset_in).to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
    }

    fn now() -> Timestamp {
        Timestamp::from_timestamp(NOW, 0).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_would_be_refused_is_not_sent() {
        let limiter = RateLimiter::default();
        drop(limiter.admit().await.unwrap());
        limiter.observe(StatusCode::OK, &reported(1, 30), now());
        drop(limiter.admit().await.unwrap());
        let refusal = limiter.admit().await.unwrap_err();
        assert_eq!(refusal, Error::RateLimited { retry_after: Duration::from_secs(30) });
        tokio::time::advance(Duration::from_secs(29)).await;
        drop(limiter.admit().await.unwrap());
        assert_eq!(limiter.allowance().unwrap().remaining, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_on_their_way_count() {
        let limiter = RateLimiter::default();
        let (one, two) = (limiter.admit().await.unwrap(), limiter.admit().await.unwrap());
        limiter.observe(StatusCode::OK, &reported(2, 30), now());
        drop(one);
        assert_eq!(limiter.allowance().unwrap().remaining, 1);
        // A response that arrived out of order.
        limiter.observe(StatusCode::OK, &reported(5, 30), now());
        drop(two);
        assert_eq!(limiter.allowance().unwrap().remaining, 1);
        limiter.observe(StatusCode::OK, &reported(10, 90), now());
        assert_eq!(limiter.allowance().unwrap().remaining, 10);
        limiter.observe(StatusCode::OK, &reported(0, 30), now());
        assert_eq!(limiter.allowance().unwrap().remaining, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_reset_counts_for_a_minute_at_most() {
        let limiter = RateLimiter::default();
        limiter.observe(StatusCode::OK, &reported(0, i64::from(u32::MAX)), now());
        assert_eq!(limiter.allowance().unwrap().resets_at, now() + MAX_WINDOW);
        let refusal = limiter.admit().await.unwrap_err();
        assert_eq!(refusal, Error::RateLimited { retry_after: MAX_WINDOW });
        tokio::time::advance(MAX_WINDOW).await;
        limiter.observe(StatusCode::OK, &reported(7, 90), now() + MAX_WINDOW);
        assert_eq!(limiter.allowance().unwrap().remaining, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_with_a_wait_holds_the_next_requests_back_for_a_minute_at_most() {
        let limiter = RateLimiter::default();
        let headers =
            |seconds: &str| HeaderMap::from_iter([(http::header::RETRY_AFTER, seconds.parse().unwrap())]);
        limiter.observe(StatusCode::TOO_MANY_REQUESTS, &headers("1"), now());
        drop(limiter.admit().await.unwrap());
        limiter.observe(StatusCode::TOO_MANY_REQUESTS, &headers("86400"), now());
        let refusal = limiter.admit().await.unwrap_err();
        assert_eq!(refusal, Error::RateLimited { retry_after: MAX_WINDOW });
        limiter.reset();
        drop(limiter.admit().await.unwrap());
    }
}
