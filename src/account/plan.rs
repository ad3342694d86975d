//! The plan that the account is on. It is shown beside other things, so nobody waits long for it.

use std::time::Duration;

use super::{Account, Need};
use crate::bondmcp::{Allowance, wire::Subscription};

/// How long a caller waits for the upstream's answer.
const PLAN_TIMEOUT: Duration = Duration::from_secs(3);

impl Account {
    /// The plan, where the upstream tells one in time. For an account that is signed in.
    pub async fn plan(&self) -> Option<Subscription> {
        let ask = async {
            let me = self.call(Need::Api, |client, bearer| async move { client.me(&bearer).await });
            Ok(me.await?.subscription)
        };
        let plan = self.inner.plan.get(self.generation(), &self.inner.clock, ask);
        match tokio::time::timeout(PLAN_TIMEOUT, plan).await {
            Ok(Ok(fetched)) => fetched.answer.value,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the plan is not known");
                None
            }
            Err(_) => None,
        }
    }

    /// Requests a minute, as the upstream told last; `None` before the first answer.
    #[must_use]
    pub fn allowance(&self) -> Option<Allowance> {
        self.inner.client.allowance()
    }
}
