//! The account's requests a minute, as the upstream's headers last told (`X-RateLimit-Limit`, `-Remaining`, `-Reset` and
//! `Retry-After`): a request that would certainly be refused is not sent.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::error::{Error, retry_after};
use crate::clock::Timestamp;

/// A shorter wait is waited; a longer one is told to the caller.
const SHORT: Duration = Duration::from_secs(2);

/// Limits count by the minute. What the headers say of a later time is a clock that differs from ours.
const LONGEST: Duration = Duration::from_mins(1);

/// What the upstream told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Allowance {
    /// Requests a minute.
    pub limit: u64,
    /// Requests that are left of this minute.
    pub remaining: u64,
    /// When there are as many as `limit` again (RFC 3339).
    pub resets_at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Budget {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    allowance: Option<Allowance>,
    /// Requests that are on their way, which the upstream's figures may not know yet.
    in_flight: u64,
    /// Until then every request is refused.
    blocked_until: Option<Instant>,
    /// When `allowance` has run out, as far as it tells.
    renewed_at: Option<Instant>,
    /// The same by the upstream's clock, which tells the minute that an answer belongs to.
    reset: Option<Timestamp>,
}

/// A request that was let through.
#[derive(Debug)]
pub(super) struct Admitted<'a>(&'a Budget);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.known().in_flight -= 1;
    }
}

impl Budget {
    /// Lets a request through, after a short wait where that helps.
    pub async fn admit(&self) -> Result<Admitted<'_>, Error> {
        let began = Instant::now();
        loop {
            let Some(wait) = self.take() else { return Ok(Admitted(self)) };
            if began.elapsed() + wait >= SHORT {
                return Err(Error::OverBudget { retry_after: wait });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// What `headers` tell, of an answer that came at `now`.
    pub fn learn(&self, status: u16, headers: &HeaderMap, now: Timestamp) {
        let mut known = self.known();
        let from_now = |wait: Duration| Instant::now() + wait.min(LONGEST);
        if let Some(told) = allowance(headers) {
            let reset = told.resets_at;
            // What is known holds for a minute by our clock, whatever the upstream's may say.
            let holds = known.renewed_at.is_some_and(|at| at > Instant::now());
            let later = known.reset.filter(|known| holds && *known >= reset);
            // Answers overtake each other: of one minute the smallest figure is the newest.
            if later.is_none_or(|known| known == reset) {
                let others = known.in_flight.saturating_sub(1);
                let before =
                    known.allowance.as_ref().filter(|_| later.is_some()).map(|known| known.remaining);
                let remaining = told.remaining.saturating_sub(others).min(before.unwrap_or(u64::MAX));
                let wait = (reset - now).to_std().unwrap_or_default().min(LONGEST);
                known.renewed_at = Some(from_now(wait));
                known.reset = Some(reset);
                known.allowance = Some(Allowance { remaining, resets_at: now + wait, ..told });
            }
        }
        if status == 429
            && let Some(wait) = retry_after(headers, now)
        {
            known.blocked_until = Some(from_now(wait));
        }
    }

    /// What the upstream told last; `None` before it told anything.
    pub fn allowance(&self) -> Option<Allowance> {
        self.known().allowance.clone()
    }

    /// Another account has another budget.
    pub fn forget(&self) {
        let mut known = self.known();
        *known = Known { in_flight: known.in_flight, ..Known::default() };
    }

    /// Takes one request, or tells how long there is none.
    fn take(&self) -> Option<Duration> {
        let mut known = self.known();
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

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn told(remaining: u64, reset_in: i64) -> HeaderMap {
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
        let budget = Budget::default();
        drop(budget.admit().await.unwrap());
        budget.learn(200, &told(1, 30), now());
        drop(budget.admit().await.unwrap());
        let refusal = budget.admit().await.unwrap_err();
        assert_eq!(refusal, Error::OverBudget { retry_after: Duration::from_secs(30) });
        tokio::time::advance(Duration::from_secs(29)).await;
        drop(budget.admit().await.unwrap());
        assert_eq!(budget.allowance().unwrap().remaining, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_on_their_way_count() {
        let budget = Budget::default();
        let (one, two) = (budget.admit().await.unwrap(), budget.admit().await.unwrap());
        budget.learn(200, &told(2, 30), now());
        drop(one);
        assert_eq!(budget.allowance().unwrap().remaining, 1);
        // An answer that was overtaken.
        budget.learn(200, &told(5, 30), now());
        drop(two);
        assert_eq!(budget.allowance().unwrap().remaining, 1);
        budget.learn(200, &told(10, 90), now());
        assert_eq!(budget.allowance().unwrap().remaining, 10);
        budget.learn(200, &told(0, 30), now());
        assert_eq!(budget.allowance().unwrap().remaining, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_reset_counts_for_a_minute_at_most() {
        let budget = Budget::default();
        budget.learn(200, &told(0, i64::from(u32::MAX)), now());
        assert_eq!(budget.allowance().unwrap().resets_at, now() + LONGEST);
        let refusal = budget.admit().await.unwrap_err();
        assert_eq!(refusal, Error::OverBudget { retry_after: LONGEST });
        tokio::time::advance(LONGEST).await;
        budget.learn(200, &told(7, 90), now() + LONGEST);
        assert_eq!(budget.allowance().unwrap().remaining, 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_with_a_wait_holds_the_next_requests_back_for_a_minute_at_most() {
        let budget = Budget::default();
        let headers =
            |seconds: &str| HeaderMap::from_iter([(http::header::RETRY_AFTER, seconds.parse().unwrap())]);
        budget.learn(429, &headers("1"), now());
        drop(budget.admit().await.unwrap());
        budget.learn(429, &headers("86400"), now());
        let refusal = budget.admit().await.unwrap_err();
        assert_eq!(refusal, Error::OverBudget { retry_after: LONGEST });
        budget.forget();
        drop(budget.admit().await.unwrap());
    }
}
