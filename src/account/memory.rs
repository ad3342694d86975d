//! The account's record in the memory of this process, and in the vault behind it: read when it has changed there,
//! changed in both.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};

use super::{Account, Error, record::Record, retries::Retries, store::Versioned};
use crate::vault::{self, ChangeMarker};

/// How long a look at the vault's files is good for. It serves the steps of one call; another process's change is
/// noticed by the next one.
const CONFIRMATION_LIFETIME: Duration = Duration::from_millis(1);

/// Longest wait for the newest secrets before a response.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// The record as this process last saw it.
#[derive(Debug)]
pub(super) struct CachedRecord {
    pub record: Record,
    pub version: u64,
    /// State of the vault just before the record was read; `None` where it is unknown.
    marker: Option<ChangeMarker>,
    /// When the vault was last seen in that state.
    confirmed: Mutex<Instant>,
}

impl Account {
    /// Looks into the vault now for what another process has done to the account.
    pub async fn reload(&self) -> Result<(), Error> {
        self.reread().await.map(|_| ())
    }

    /// Reads the record again if another process has changed it, so that the redactor knows the newest secrets. Cheap
    /// enough to run before every response. `came` is when the request came, and `longest` how long it may still take. While
    /// it fails, the redactor may not know them.
    pub async fn refresh_if_changed(&self, came: Instant, longest: Duration) -> Result<(), Error> {
        let limit = longest.min(REFRESH_TIMEOUT);
        let look = tokio::time::timeout(limit, self.record_as_of(Duration::ZERO, came));
        let late = |_| Err(self.inner.store.shared.silent().into());
        let looked = look.await.unwrap_or_else(late);
        looked.inspect_err(|error| tracing::warn!(%error, "the account could not be read again")).map(|_| ())
    }

    /// Returns the current record: from memory while the vault is unchanged, so that no call uses a key that another
    /// process has deselected.
    pub(super) async fn record(&self) -> Result<Arc<CachedRecord>, Error> {
        self.record_as_of(CONFIRMATION_LIFETIME, Instant::now()).await
    }

    /// Returns the record as it was at most `age` ago, for a caller who came at `came`.
    async fn record_as_of(&self, age: Duration, came: Instant) -> Result<Arc<CachedRecord>, Error> {
        if let Some(memory) = self.current(age) {
            return Ok(memory);
        }
        let _guard = self.inner.loading.lock().await;
        if let Some(memory) = self.current(age) {
            return Ok(memory);
        }
        self.refuse_in_outage(came)?;
        Box::pin(self.reread()).await
    }

    /// Returns the record from memory if the vault is unchanged since it was read.
    /// A look at its files less than `age` ago is good enough.
    fn current(&self, age: Duration) -> Option<Arc<CachedRecord>> {
        let memory = self.remembered()?;
        let mut confirmed = memory.confirmed.lock();
        if confirmed.elapsed() >= age {
            let seen_at = Instant::now();
            let marker = self.inner.store.change_marker();
            if marker.is_none() || marker != memory.marker {
                return None;
            }
            *confirmed = seen_at;
        }
        drop(confirmed);
        Some(memory)
    }

    /// Reads the record from the vault.
    pub(super) async fn reread(&self) -> Result<Arc<CachedRecord>, Error> {
        let marker = self.inner.store.change_marker();
        match self.inner.store.read().await {
            Ok(read) => Ok(self.remember(read, marker)),
            Err(error) => {
                if let Error::Vault(vault::Error::Server(_)) = &error {
                    *self.outage() = Some((Instant::now(), error.clone()));
                }
                Err(error)
            }
        }
    }

    /// Fails if the vault's server has failed since `came`: one wait for it is enough for all steps of a call, and for all
    /// calls that wait together.
    fn refuse_in_outage(&self, came: Instant) -> Result<(), Error> {
        match &*self.outage() {
            Some((failed, error)) if *failed >= came => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<(Instant, Error)>> {
        self.inner.outage.lock()
    }

    /// Changes the record in the vault and in memory.
    pub(super) async fn update<T>(
        &self,
        change: impl FnMut(&mut Record) -> Result<T, Error>,
    ) -> Result<(T, Arc<CachedRecord>), Error> {
        let marker = self.inner.store.change_marker();
        let (outcome, written) = self.inner.store.update(change).await?;
        Ok((outcome, self.remember(written, marker)))
    }

    /// Changes the record for what exists nowhere else, such as the value of a new key: while the vault cannot be used,
    /// this is tried again. The answer to a change that was made may be lost, so `change` may find its own work.
    pub(super) async fn update_persistently<T>(
        &self,
        mut change: impl FnMut(&mut Record) -> Result<T, Error>,
    ) -> Result<(T, Arc<CachedRecord>), Error> {
        let mut retries = Retries::begin();
        loop {
            match self.update(&mut change).await {
                Err(error) if retries.may_follow(&error) => {
                    tracing::warn!(%error, "what BondMCP has just issued is not stored yet; this is tried again");
                    retries.pause().await;
                }
                outcome => return outcome,
            }
        }
    }

    pub(super) fn remembered(&self) -> Option<Arc<CachedRecord>> {
        self.inner.memory.read().clone()
    }

    /// Caches what was read or written, unless the cache has a newer version.
    fn remember(
        &self,
        Versioned { record, version }: Versioned,
        marker: Option<ChangeMarker>,
    ) -> Arc<CachedRecord> {
        let seen = Arc::new(CachedRecord { record, version, marker, confirmed: Mutex::new(Instant::now()) });
        self.inner.was_read.notify_one();
        let mut memory = self.inner.memory.write();
        match &*memory {
            Some(newer) if newer.version > seen.version => newer.clone(),
            _ => {
                self.inner.redactor.hold("record", seen.record.secrets());
                memory.insert(seen).clone()
            }
        }
    }
}
