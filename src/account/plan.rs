//! The plan that the account is on. Nice to know, so it is asked seldom, and nobody waits long for it.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::{Account, Need};
use crate::bondmcp::{Allowance, wire::Subscription};

/// How long an answer is given out without asking again.
const FRESH: Duration = Duration::from_mins(5);

/// How long the upstream has for it.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct PlanCache {
    plan: Option<Subscription>,
    fetched: Instant,
    /// The sign-in that it was asked for.
    generation: Option<u64>,
}

impl Account {
    /// The plan, where the upstream tells one in time. For an account that is signed in.
    pub async fn plan(&self) -> Option<Subscription> {
        let generation = self.generation();
        if let Some(cache) = &*self.inner.plan.lock().unwrap_or_else(PoisonError::into_inner)
            && cache.generation == generation
            && cache.fetched.elapsed() < FRESH
        {
            return cache.plan.clone();
        }
        let me = self.call(Need::Api, |client, bearer| async move { client.me(&bearer).await });
        let plan = match tokio::time::timeout(PATIENCE, me).await {
            Ok(Ok(me)) => me.subscription,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the plan is not known");
                return None;
            }
            Err(_) => return None,
        };
        *self.inner.plan.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(PlanCache { plan: plan.clone(), fetched: Instant::now(), generation });
        plan
    }

    /// Requests a minute, as the upstream told last; `None` before the first answer.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.inner.client.allowance()
    }
}
