//! The plan that the account is on. It is shown with other facts, so callers do not wait long for it.

use std::time::Duration;

use super::{Account, RequiredCredential};
use crate::bondmcp::{Allowance, wire::Subscription};

/// Longest wait for the upstream's response.
const PLAN_TIMEOUT: Duration = Duration::from_secs(3);

impl Account {
    /// Returns the plan of a signed-in account, if the upstream reports it in time.
    pub async fn plan(&self) -> Option<Subscription> {
        let ask = async {
            let me =
                self.call(RequiredCredential::Api, |client, bearer| async move { client.me(&bearer).await });
            Ok(me.await?.subscription)
        };
        let plan = self.inner.plan.get(self.identity_number(), &self.inner.clock, ask);
        match tokio::time::timeout(PLAN_TIMEOUT, plan).await {
            Ok(Ok(fetched)) => fetched.answer.value,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the plan is unknown");
                None
            }
            Err(_) => None,
        }
    }

    /// Returns the rate limit that the upstream reported last; `None` before the first response.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.inner.client.allowance()
    }
}
