//! The models that BondMCP offers, remembered for a while: the list changes seldom and agents ask for it often.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::{Account, Error, Need};
use crate::{
    bondmcp::{self, wire::Model},
    clock::Timestamp,
};

/// How long a list is given out without asking again.
const FRESH: Duration = Duration::from_mins(5);

/// The models, and when the upstream listed them.
#[derive(Clone, Debug)]
pub struct Models {
    pub models: Vec<Model>,
    pub fetched_at: Timestamp,
    pub from_cache: bool,
    /// Why an older list is served, where the upstream was asked and is down.
    pub outage: Option<bondmcp::Error>,
}

#[derive(Debug)]
pub(super) struct ModelCache {
    models: Vec<Model>,
    fetched_at: Timestamp,
    fetched: Instant,
    /// The sign-in that they were listed for.
    generation: Option<u64>,
}

impl Account {
    /// The models; with `refresh` as the upstream lists them now. While it is down, as it listed them last.
    pub async fn list_models(&self, refresh: bool) -> Result<Models, Error> {
        // Asked first, so that nobody who has signed out is served from memory.
        self.bearer(Need::Api).await?;
        let cached = self.cached_models();
        if !refresh && let Some((models, true)) = cached {
            return Ok(models);
        }
        let answer = self.call(Need::Api, |client, bearer| async move { client.list_models(&bearer).await });
        let models = match (answer.await, cached) {
            (Ok(models), _) => models,
            (Err(Error::Upstream(error)), Some((models, _))) if error.is_outage() => {
                return Ok(Models { outage: Some(error), ..models });
            }
            (Err(error), _) => return Err(error),
        };
        let fetched_at = self.inner.clock.now();
        *self.inner.models.lock().unwrap_or_else(PoisonError::into_inner) = Some(ModelCache {
            models: models.clone(),
            fetched_at,
            fetched: Instant::now(),
            generation: self.generation(),
        });
        Ok(Models { models, fetched_at, from_cache: false, outage: None })
    }

    pub(super) fn forget_models(&self) {
        *self.inner.models.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What was listed last for this sign-in, and whether that is fresh.
    fn cached_models(&self) -> Option<(Models, bool)> {
        let cache = self.inner.models.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache.as_ref().filter(|cache| cache.generation == self.generation())?;
        let models = Models {
            models: cache.models.clone(),
            fetched_at: cache.fetched_at,
            from_cache: true,
            outage: None,
        };
        Some((models, cache.fetched.elapsed() < FRESH))
    }

    /// Which sign-in it is.
    pub(super) fn generation(&self) -> Option<u64> {
        self.remembered().map(|memory| memory.record.generation)
    }
}
