//! How much may run at the same time: for one person, with all their owners, and for everybody.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

use crate::account::Usd;

/// Limits on the calls of one [person](crate::account::Owner::person), and by `owners_at_once` on those of all.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of concurrent calls.
    pub concurrent: usize,
    /// Maximum number of queued calls; another one is refused as `rate_limited`.
    pub waiting: usize,
    /// Deadline of one call from its start to its answer, including the waits in the queue and for the person. Hosts
    /// usually give up after 60 s.
    pub deadline: Duration,
    /// Time that a billed request may need: none is started if less is left until the deadline.
    pub billed: Duration,
    /// How many persons can use up their limits at the same time: the limits of the process are so many times those of
    /// one, so that none can take all of them.
    pub owners_at_once: usize,
    /// Spending limit at BondMCP until the server ends, for all owners together.
    pub spend: Option<Usd>,
    /// Spending limit at BondMCP for each owner and day (UTC), with all processes that use the vault.
    pub daily_spend: Option<Usd>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent: 64,
            waiting: 1024,
            deadline: Duration::from_secs(55),
            billed: Duration::from_secs(45),
            owners_at_once: 4,
            spend: None,
            daily_spend: None,
        }
    }
}

/// The permits of one person, or of the process.
#[derive(Debug)]
pub(super) struct Permits {
    /// Limits running calls.
    running: Semaphore,
    /// Limits running and queued calls together.
    admitted: Semaphore,
    /// Limits open questions to the person.
    questions: Semaphore,
}

impl Limits {
    pub(super) fn of_a_person(&self) -> Permits {
        self.permits(1)
    }

    pub(super) fn of_the_process(&self) -> Permits {
        self.permits(self.owners_at_once)
    }

    fn permits(&self, persons: usize) -> Permits {
        Permits {
            running: Semaphore::new(self.concurrent * persons),
            admitted: Semaphore::new((self.concurrent + self.waiting) * persons),
            questions: Semaphore::new(self.concurrent * persons),
        }
    }
}

impl Permits {
    /// Waits for the turn of a call. The semaphore is never closed, so acquiring cannot fail.
    pub async fn run(&self) -> Option<SemaphorePermit<'_>> {
        self.running.acquire().await.ok()
    }

    /// Admits a call to the queue; fails if it is full.
    pub fn admit(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.admitted.try_acquire()
    }

    /// Allows one more question; fails if too many are open.
    pub fn ask(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.questions.try_acquire()
    }
}
