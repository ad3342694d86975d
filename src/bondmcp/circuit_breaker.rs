//! A circuit breaker. After repeated failures calls fail at once for a short time, instead of each waiting for its own
//! time-out. Then the upstream is probed (`GET /health`, which is free); if it answers, calls are admitted, and the
//! outcome of the first one decides.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Consecutive failures that open the circuit.
const MAX_FAILURES: u32 = 5;

/// The error while the circuit is open: nothing is sent before `retry_after` has passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BondMCP failed {failures} times in a row ({cause}); calls are paused")]
pub struct Open {
    pub failures: u32,
    /// The last failure.
    pub cause: String,
    pub retry_after: Duration,
}

/// The health of the upstream according to the outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// The upstream answered, even if with a refusal.
    Alive,
    /// It failed, for this reason.
    Down(String),
}

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    /// Time for which the circuit stays open.
    open_for: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of consecutive failures.
    failures: u32,
    /// The last failure.
    cause: String,
    /// Time until which the circuit is open; afterwards the upstream is probed.
    open_until: Option<Instant>,
}

/// An admitted call. If dropped without an outcome, it does not count.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    /// Whether the upstream must be probed first.
    pub is_probe: bool,
}

impl CircuitBreaker {
    pub fn new(open_for: Duration) -> Self {
        Self { open_for, state: Mutex::default() }
    }

    pub fn acquire(&self) -> Result<Permit<'_>, Open> {
        let mut state = self.state();
        if let Some(until) = state.open_until {
            let now = Instant::now();
            if until > now {
                let (failures, cause) = (state.failures, state.cause.clone());
                return Err(Open { failures, cause, retry_after: until - now });
            }
            // Blocks other calls during the probe; if it is abandoned, another one follows.
            state.open_until = Some(now + self.open_for);
            return Ok(Permit { breaker: self, is_probe: true });
        }
        Ok(Permit { breaker: self, is_probe: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Closes the circuit after a successful probe. One more failure opens it again.
    pub fn close(&self) {
        self.breaker.state().open_until = None;
    }

    /// Counts the outcome of the call. A call that was not sent says nothing; its permit is dropped.
    pub fn record(self, observed: Observed) {
        let mut state = self.breaker.state();
        match observed {
            Observed::Alive => *state = State::default(),
            Observed::Down(cause) => {
                state.failures += 1;
                state.cause = cause;
                if state.failures >= MAX_FAILURES {
                    state.open_until = Some(Instant::now() + self.breaker.open_for);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);

    fn fails(breaker: &CircuitBreaker) {
        breaker.acquire().unwrap().record(Observed::Down("gone".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_failures_open_it_and_one_probe_closes_it() {
        let breaker = CircuitBreaker::new(OPEN_FOR);
        for _ in 0..MAX_FAILURES {
            fails(&breaker);
        }
        let refusal = breaker.acquire().unwrap_err();
        let cause = "gone".to_owned();
        assert_eq!(refusal, Open { failures: MAX_FAILURES, cause, retry_after: OPEN_FOR });
        tokio::time::advance(OPEN_FOR).await;
        let probe = breaker.acquire().unwrap();
        assert!(probe.is_probe);
        assert!(breaker.acquire().is_err(), "one probe at a time");
        probe.close();
        assert!(breaker.acquire().is_ok_and(|permit| !permit.is_probe));
        fails(&breaker);
        assert!(breaker.acquire().is_err(), "it failed after all");
        tokio::time::advance(OPEN_FOR).await;
        let probe = breaker.acquire().unwrap();
        probe.close();
        probe.record(Observed::Alive);
        fails(&breaker);
        assert!(breaker.acquire().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_and_an_abandoned_one_is_followed_by_another() {
        let breaker = CircuitBreaker::new(OPEN_FOR);
        for _ in 0..MAX_FAILURES {
            fails(&breaker);
        }
        tokio::time::advance(OPEN_FOR).await;
        fails(&breaker);
        assert!(breaker.acquire().is_err());
        tokio::time::advance(OPEN_FOR).await;
        let _ = breaker.acquire().unwrap();
        assert!(breaker.acquire().is_err());
        tokio::time::advance(OPEN_FOR).await;
        assert!(breaker.acquire().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_between_failures_keeps_it_closed() {
        let breaker = CircuitBreaker::new(OPEN_FOR);
        for _ in 0..3 * MAX_FAILURES {
            fails(&breaker);
            breaker.acquire().unwrap().record(Observed::Alive);
        }
        assert!(breaker.acquire().is_ok());
    }
}
