//! After repeated failures the upstream is left alone for a short time: calls fail at once instead of each waiting for
//! its own time-out. Then one of them is let through as a probe; if it works, all are.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::error::Error;

/// Failed calls in a row that open the circuit.
const FAILURES: u32 = 5;

/// How long it stays open.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Open until then, and closed by the probe that is made afterwards.
    open_until: Option<Instant>,
}

/// A call that was let through; without an outcome it counts as if it had not been made.
#[derive(Debug)]
pub(super) struct Passage<'a>(&'a Circuit);

impl Circuit {
    pub fn enter(&self) -> Result<Passage<'_>, Error> {
        let mut state = self.state();
        if let Some(until) = state.open_until {
            let now = Instant::now();
            if until > now {
                return Err(Error::CircuitOpen { failures: state.failures, retry_after: until - now });
            }
            // For the time of the probe; should that be given up, another one follows.
            state.open_until = Some(now + PAUSE);
        }
        Ok(Passage(self))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage<'_> {
    /// How the call went: an answer, be it a refusal, is a sign of life.
    pub fn went<T>(self, outcome: &Result<T, Error>) {
        let mut state = self.0.state();
        match outcome {
            Err(error) if error.is_outage() => {
                state.failures += 1;
                if state.failures >= FAILURES {
                    state.open_until = Some(Instant::now() + PAUSE);
                }
            }
            // Not sent, so it tells nothing.
            Err(Error::OverBudget { .. } | Error::InvalidId | Error::InvalidCredential) => {}
            _ => *state = State::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(circuit: &Circuit) {
        circuit.enter().unwrap().went::<()>(&Err(Error::Unreachable));
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_failures_open_it_and_one_probe_closes_it() {
        let circuit = Circuit::default();
        for _ in 0..FAILURES {
            fails(&circuit);
        }
        let refusal = circuit.enter().unwrap_err();
        assert_eq!(refusal, Error::CircuitOpen { failures: FAILURES, retry_after: PAUSE });
        tokio::time::advance(PAUSE).await;
        let probe = circuit.enter().unwrap();
        assert!(circuit.enter().is_err(), "one probe at a time");
        probe.went(&Ok(()));
        assert!(circuit.enter().is_ok() && circuit.enter().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_and_an_abandoned_one_is_followed_by_another() {
        let circuit = Circuit::default();
        for _ in 0..FAILURES {
            fails(&circuit);
        }
        tokio::time::advance(PAUSE).await;
        fails(&circuit);
        assert!(circuit.enter().is_err());
        tokio::time::advance(PAUSE).await;
        let _ = circuit.enter().unwrap();
        assert!(circuit.enter().is_err());
        tokio::time::advance(PAUSE).await;
        assert!(circuit.enter().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_between_failures_keeps_it_closed() {
        let circuit = Circuit::default();
        for _ in 0..3 * FAILURES {
            fails(&circuit);
            circuit.enter().unwrap().went(&Ok(()));
        }
        assert!(circuit.enter().is_ok());
    }
}
