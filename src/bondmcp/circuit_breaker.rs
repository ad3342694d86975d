//! A circuit breaker. After repeated failures calls fail at once for a short time, instead of each waiting for its own
//! time-out. Then the upstream is probed (`GET /health`, which is free); if it answers, calls are admitted, and the
//! outcome of the first one decides.
//!
//! There is one circuit for each owner and one for all. The requests of one person alone, which may be what is wrong,
//! open the circuits of that person's owners only.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Consecutive failures that open a circuit.
const MAX_FAILURES: u32 = 5;

/// Failures of one person that count for the circuit of all.
const MAX_FAILURES_OF_ONE: u32 = 3;

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
    /// It failed, for this reason. Other owners read it: it holds nothing that the upstream wrote.
    Down(String),
}

/// The circuit breaker of one owner.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    person: Arc<str>,
    own: Circuit,
    all: Arc<Circuit>,
}

#[derive(Debug)]
struct Circuit {
    /// Time for which the circuit stays open.
    open_for: Duration,
    /// Failures of one person that count.
    max_of_one: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of consecutive failures by person.
    failures: HashMap<Arc<str>, u32>,
    /// The last failure.
    cause: String,
    /// Time until which the circuit is open; afterwards the upstream is probed.
    open_until: Option<Instant>,
}

/// An admitted call. If dropped without an outcome, it does not count.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    probes_own: bool,
    probes_all: bool,
}

impl CircuitBreaker {
    pub fn new(open_for: Duration) -> Self {
        Self::below(Arc::new(Circuit::new(open_for, MAX_FAILURES_OF_ONE)), "process")
    }

    /// Makes the circuit breaker of another owner. For the circuit of all, the failures of a `person` count together.
    pub fn for_owner(&self, person: &str) -> Self {
        Self::below(self.all.clone(), person)
    }

    fn below(all: Arc<Circuit>, person: &str) -> Self {
        Self { person: person.into(), own: Circuit::new(all.open_for, MAX_FAILURES), all }
    }

    pub fn acquire(&self) -> Result<Permit<'_>, Open> {
        let now = Instant::now();
        let (mut own, mut all) = (self.own.state.lock(), self.all.state.lock());
        for state in [&own, &all] {
            state.admits(now)?;
        }
        let probes_own = own.begins_probe(now + self.own.open_for);
        let probes_all = all.begins_probe(now + self.all.open_for);
        Ok(Permit { breaker: self, probes_own, probes_all })
    }
}

impl Circuit {
    fn new(open_for: Duration, max_of_one: u32) -> Self {
        Self { open_for, max_of_one, state: Mutex::default() }
    }

    fn record(&self, person: &Arc<str>, observed: &Observed) {
        let mut state = self.state.lock();
        match observed {
            Observed::Alive => *state = State::default(),
            Observed::Down(cause) => {
                *state.failures.entry(Arc::clone(person)).or_default() += 1;
                state.cause.clone_from(cause);
                let counted =
                    state.failures.values().map(|failures| *failures.min(&self.max_of_one)).sum::<u32>();
                if counted >= MAX_FAILURES {
                    state.open_until = Some(Instant::now() + self.open_for);
                }
            }
        }
    }
}

impl State {
    fn admits(&self, now: Instant) -> Result<(), Open> {
        match self.open_until {
            Some(until) if until > now => Err(Open {
                failures: self.failures.values().sum(),
                cause: self.cause.clone(),
                retry_after: until - now,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the upstream must be probed first. Other calls are blocked during the probe, until `until`; if it is
    /// abandoned, another one follows.
    fn begins_probe(&mut self, until: Instant) -> bool {
        self.open_until.as_mut().map(|open_until| *open_until = until).is_some()
    }
}

impl Permit<'_> {
    /// Whether the upstream must be probed first.
    pub fn is_probe(&self) -> bool {
        self.probes_own || self.probes_all
    }

    /// Closes the circuit after a successful probe. One more failure opens it again.
    pub fn close(&self) {
        for (circuit, probed) in [(&self.breaker.own, self.probes_own), (&*self.breaker.all, self.probes_all)]
        {
            if probed {
                circuit.state.lock().open_until = None;
            }
        }
    }

    /// Counts the outcome of the call. A call that was not sent says nothing; its permit is dropped.
    pub fn record(self, observed: &Observed) {
        for circuit in [&self.breaker.own, &*self.breaker.all] {
            circuit.record(&self.breaker.person, observed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(10);

    fn fails(breaker: &CircuitBreaker) {
        breaker.acquire().unwrap().record(&Observed::Down("gone".into()));
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
        assert!(probe.is_probe());
        assert!(breaker.acquire().is_err(), "one probe at a time");
        probe.close();
        assert!(breaker.acquire().is_ok_and(|permit| !permit.is_probe()));
        fails(&breaker);
        assert!(breaker.acquire().is_err(), "it failed after all");
        tokio::time::advance(OPEN_FOR).await;
        let probe = breaker.acquire().unwrap();
        probe.close();
        probe.record(&Observed::Alive);
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
            breaker.acquire().unwrap().record(&Observed::Alive);
        }
        assert!(breaker.acquire().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_failures_of_one_owner_open_the_circuit_of_that_owner_only() {
        let one = CircuitBreaker::new(OPEN_FOR);
        let other = one.for_owner("other");
        for _ in 0..MAX_FAILURES {
            fails(&one);
        }
        assert!(one.acquire().is_err());
        assert!(other.acquire().is_ok_and(|permit| !permit.is_probe()));
        fails(&other);
        assert!(other.acquire().is_ok(), "five failures of one owner and one of another are no outage yet");
        other.acquire().unwrap().record(&Observed::Alive);
        assert!(one.acquire().is_err(), "what works for another owner may not work for this one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_failures_of_one_person_with_several_owners_pause_no_other_person() {
        let one = CircuitBreaker::new(OPEN_FOR);
        for breaker in [one.for_owner("ada"), one.for_owner("ada"), one.for_owner("ada")] {
            for _ in 0..MAX_FAILURES - 1 {
                fails(&breaker);
            }
        }
        assert!(one.acquire().is_ok());
        fails(&one);
        assert!(one.acquire().is_ok());
        fails(&one);
        assert!(one.acquire().is_err(), "three failures of one person and two of another are an outage");
    }

    #[tokio::test(start_paused = true)]
    async fn the_failures_of_several_owners_open_the_circuit_of_all() {
        let one = CircuitBreaker::new(OPEN_FOR);
        let (two, three) = (one.for_owner("two"), one.for_owner("three"));
        for breaker in [&one, &two, &one, &two, &one] {
            assert!(three.acquire().is_ok());
            fails(breaker);
        }
        for breaker in [&one, &two, &three] {
            let cause = "gone".to_owned();
            let open = Open { failures: MAX_FAILURES, cause, retry_after: OPEN_FOR };
            assert_eq!(breaker.acquire().unwrap_err(), open);
        }
        tokio::time::advance(OPEN_FOR).await;
        let probe = three.acquire().unwrap();
        assert!(probe.is_probe());
        assert!(one.acquire().is_err() && two.acquire().is_err(), "one probe for all");
        probe.close();
        probe.record(&Observed::Alive);
        fails(&one);
        assert!([&one, &two, &three].into_iter().all(|breaker| breaker.acquire().is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_for_one_owner_does_not_close_the_circuit_of_all() {
        let one = CircuitBreaker::new(OPEN_FOR);
        for _ in 0..MAX_FAILURES {
            fails(&one);
        }
        tokio::time::advance(OPEN_FOR).await;
        let (two, three) = (one.for_owner("two"), one.for_owner("three"));
        let probe = one.acquire().unwrap();
        for breaker in [&two, &three] {
            fails(breaker);
        }
        probe.close();
        assert!(two.acquire().is_err());
    }
}
