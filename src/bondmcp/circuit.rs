//! After repeated failures the upstream is left alone for a short time: calls fail at once instead of each waiting for
//! its own time-out. Then it is asked once whether it is well (`GET /health`, which costs nothing); if it answers, calls
//! are let through, and the first of them decides.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Failed calls in a row that open the circuit.
const FAILURES: u32 = 5;

/// The circuit is open: nothing is sent before `retry_after` has passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("BondMCP failed {failures} times in a row; calls are paused")]
pub struct Open {
    pub failures: u32,
    pub retry_after: Duration,
}

/// What a call tells of the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    /// It answered, be it with a refusal.
    Alive,
    Down,
}

#[derive(Debug)]
pub(super) struct Circuit {
    /// How long it stays open.
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// Open until then; afterwards it is probed.
    open_until: Option<Instant>,
}

/// A call that was let through; without an outcome it counts as if it had not been made.
#[derive(Debug)]
pub(super) struct Passage<'a> {
    circuit: &'a Circuit,
    /// Whether the upstream is to be probed first.
    pub is_probe: bool,
}

impl Circuit {
    pub fn new(pause: Duration) -> Self {
        Self { pause, state: Mutex::default() }
    }

    pub fn enter(&self) -> Result<Passage<'_>, Open> {
        let mut state = self.state();
        if let Some(until) = state.open_until {
            let now = Instant::now();
            if until > now {
                return Err(Open { failures: state.failures, retry_after: until - now });
            }
            // For the time of the probe; should that be given up, another one follows.
            state.open_until = Some(now + self.pause);
            return Ok(Passage { circuit: self, is_probe: true });
        }
        Ok(Passage { circuit: self, is_probe: false })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage<'_> {
    /// The probe has been answered: calls are let through again. One more failure opens the circuit at once.
    pub fn is_well(&self) {
        self.circuit.state().open_until = None;
    }

    /// Counts what the call has told. A call that was not sent tells nothing; its passage is dropped.
    pub fn record(self, observed: Observed) {
        let mut state = self.circuit.state();
        match observed {
            Observed::Alive => *state = State::default(),
            Observed::Down => {
                state.failures += 1;
                if state.failures >= FAILURES {
                    state.open_until = Some(Instant::now() + self.circuit.pause);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn fails(circuit: &Circuit) {
        circuit.enter().unwrap().record(Observed::Down);
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_failures_open_it_and_one_probe_closes_it() {
        let circuit = Circuit::new(PAUSE);
        for _ in 0..FAILURES {
            fails(&circuit);
        }
        let refusal = circuit.enter().unwrap_err();
        assert_eq!(refusal, Open { failures: FAILURES, retry_after: PAUSE });
        tokio::time::advance(PAUSE).await;
        let probe = circuit.enter().unwrap();
        assert!(probe.is_probe);
        assert!(circuit.enter().is_err(), "one probe at a time");
        probe.is_well();
        assert!(circuit.enter().is_ok_and(|passage| !passage.is_probe));
        fails(&circuit);
        assert!(circuit.enter().is_err(), "it was not well after all");
        tokio::time::advance(PAUSE).await;
        let probe = circuit.enter().unwrap();
        probe.is_well();
        probe.record(Observed::Alive);
        fails(&circuit);
        assert!(circuit.enter().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_again_and_an_abandoned_one_is_followed_by_another() {
        let circuit = Circuit::new(PAUSE);
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
        let circuit = Circuit::new(PAUSE);
        for _ in 0..3 * FAILURES {
            fails(&circuit);
            circuit.enter().unwrap().record(Observed::Alive);
        }
        assert!(circuit.enter().is_ok());
    }
}
