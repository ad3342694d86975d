//! The limits of an account: its number of keys and its requests per minute.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// BondMCP's plans, and one of the sandbox's own for tests and benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    Free,
    Starter,
    Professional,
    /// Practically no limits; the real API has no such plan.
    Unlimited,
}

impl Plan {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Starter => "starter",
            Self::Professional => "professional",
            Self::Unlimited => "unlimited",
        }
    }

    pub(super) fn requests_a_minute(self) -> u64 {
        match self {
            Self::Free => 10,
            Self::Starter => 50,
            Self::Professional => 200,
            Self::Unlimited => 1_000_000_000,
        }
    }

    pub(super) fn keys(self) -> usize {
        match self {
            Self::Free => 2,
            Self::Starter => 5,
            Self::Professional => 20,
            Self::Unlimited => 1000,
        }
    }
}

/// Requests in the current minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Minute {
    began: Timestamp,
    used: u64,
}

/// Remaining requests in the current minute.
pub(super) struct Allowance {
    pub limit: u64,
    pub remaining: u64,
    pub resets_at: Timestamp,
    pub exceeded: bool,
}

impl Minute {
    pub fn spend(&mut self, plan: Plan, now: Timestamp) -> Allowance {
        if now - self.began >= TimeDelta::minutes(1) {
            *self = Self { began: now, used: 0 };
        }
        let limit = plan.requests_a_minute();
        let exceeded = self.used >= limit;
        self.used += u64::from(!exceeded);
        Allowance {
            limit,
            remaining: limit.saturating_sub(self.used),
            resets_at: self.began + TimeDelta::minutes(1),
            exceeded,
        }
    }
}
