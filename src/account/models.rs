//! The models that BondMCP offers, remembered for a while: the list changes seldom and agents ask for it often.

use std::sync::Arc;

use super::{Account, Error, RequiredCredential};
use crate::{bondmcp::wire::Model, clock::Timestamp};

/// The models, and when the upstream listed them.
#[derive(Clone, Debug)]
pub struct Models {
    /// The same list as long as the upstream is not asked again.
    pub models: Arc<Vec<Model>>,
    pub fetched_at: Timestamp,
    pub from_cache: bool,
    /// Why an older list is served, where the upstream was asked and is down.
    pub outage: Option<Error>,
}

impl Account {
    /// The models; with `refresh` as the upstream lists them now. While it is down, as it listed them last.
    pub async fn list_models(&self, refresh: bool) -> Result<Models, Error> {
        // Asked first, so that nobody who has signed out is served from memory.
        self.bearer(RequiredCredential::Api).await?;
        // Read before the request: when somebody signs in meanwhile, the answer is not theirs.
        let identity = self.identity_number();
        let (cache, clock) = (&self.inner.models, &self.inner.clock);
        let ask = self.call(RequiredCredential::Api, |client, bearer| async move {
            client.list_models(&bearer).await.map(Arc::new)
        });
        let outcome = if refresh {
            cache.refresh(identity, clock, ask).await
        } else {
            cache.get(identity, clock, ask).await
        };
        let (answer, from_cache, outage) = match outcome {
            Ok(fetched) => (fetched.answer, fetched.from_cache, None),
            Err(error) => match cache.last(identity) {
                Some(answer) if error.is_outage() => (answer, true, Some(error)),
                _ => return Err(error),
            },
        };
        Ok(Models { models: answer.value, fetched_at: answer.fetched_at, from_cache, outage })
    }

    pub(super) fn clear_model_cache(&self) {
        self.inner.models.clear();
    }
}
