//! The models that BondMCP offers, remembered for a while: the list changes seldom and agents ask for it often.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use super::{Account, Error, Need};
use crate::{bondmcp::wire::Model, clock::Timestamp};

/// How long a list is given out without asking again.
const FRESH: Duration = Duration::from_mins(5);

/// The models, and when the upstream listed them.
#[derive(Clone, Debug)]
pub struct Models {
    pub models: Vec<Model>,
    pub fetched_at: Timestamp,
    pub from_cache: bool,
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
    /// The models; with `refresh` as the upstream lists them now.
    pub async fn list_models(&self, refresh: bool) -> Result<Models, Error> {
        // Asked first, so that nobody who has signed out is served from memory.
        self.bearer(Need::Api).await?;
        if !refresh && let Some(models) = self.cached_models() {
            return Ok(models);
        }
        let models =
            self.call(Need::Api, |client, bearer| async move { client.list_models(&bearer).await }).await?;
        let fetched_at = self.inner.clock.now();
        *self.inner.models.lock().unwrap_or_else(PoisonError::into_inner) = Some(ModelCache {
            models: models.clone(),
            fetched_at,
            fetched: Instant::now(),
            generation: self.generation(),
        });
        Ok(Models { models, fetched_at, from_cache: false })
    }

    pub(super) fn forget_models(&self) {
        *self.inner.models.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn cached_models(&self) -> Option<Models> {
        let cache = self.inner.models.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache.as_ref()?;
        let holds = cache.fetched.elapsed() < FRESH && cache.generation == self.generation();
        holds.then(|| Models { models: cache.models.clone(), fetched_at: cache.fetched_at, from_cache: true })
    }

    fn generation(&self) -> Option<u64> {
        self.remembered().map(|memory| memory.record.generation)
    }
}
