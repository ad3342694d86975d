//! The sweep: it ends what has expired and releases what has ended, of all persons, and so repeats what was interrupted.

use std::time::Duration;

use super::{
    Hosted,
    release::{Error, REVOCATIONS},
};
use crate::{
    account::{Leftovers, Owner},
    oauth::{Grant, Subject},
    secret::{self, ExposeSecret as _},
    vault::{self, RecordId, RecordKind},
};

/// What the lease of a sweep is on.
const SWEEP: RecordKind = RecordKind::new("sweep");

/// Life of that lease without being extended: how long others wait for a replica that died.
const SWEEP_LEASE: Duration = Duration::from_mins(5);

impl Hosted {
    /// Ends what has expired and releases what has ended, of all persons. Replicas take turns.
    pub async fn sweep(&self) {
        let holder = secret::random().expose_secret().to_owned();
        let swept = async {
            if self.holds_sweep(&holder).await? {
                self.sweep_as(&holder).await?;
                let vault = self.inner.server.records().vault();
                vault.release_lease(&self.sweep_lease(), &holder).await?;
            }
            Ok::<_, vault::Error>(())
        };
        if let Err(error) = swept.await {
            tracing::warn!(%error, "ended grants were not looked for; this is repeated");
        }
    }

    async fn sweep_as(&self, holder: &str) -> Result<(), vault::Error> {
        let server = &self.inner.server;
        for grant in server.end_expired_grants().await? {
            self.note_end(&grant).await;
        }
        for grant in server.all_grants().await?.into_iter().filter(|grant| grant.ended.is_some()) {
            if !self.holds_sweep(holder).await? {
                return Ok(());
            }
            self.release(&grant).await;
        }
        if let Err(error) = self.release_late_keys(holder).await {
            tracing::warn!(%error, "what is left of forgotten grants was not looked for; this is repeated");
        }
        for (subject, _) in server.records().all::<Leftovers>(REVOCATIONS).await? {
            if !self.holds_sweep(holder).await? {
                return Ok(());
            }
            if let Err(error) = self.settle(&Subject::new(subject)).await {
                tracing::warn!(%error, "API keys of ended grants are not revoked yet");
            }
        }
        Ok(())
    }

    /// Releases what is left of grants that are forgotten: a key came so late, or a crash interrupted this.
    async fn release_late_keys(&self, holder: &str) -> Result<(), Error> {
        let issuer = self.inner.server.endpoints().issuer();
        for owner in self.inner.accounts.to_be_released(issuer).await? {
            if !self.holds_sweep(holder).await? {
                return Ok(());
            }
            if let Err(error) = self.release_late_key(&owner).await {
                tracing::warn!(%error, %owner, "what is left of a forgotten grant is not released yet");
            }
        }
        Ok(())
    }

    async fn release_late_key(&self, owner: &Owner) -> Result<(), Error> {
        let Some((person, grant)) = Grant::ids_of(owner) else { return Ok(()) };
        // A grant that is not forgotten yet is released with its account.
        if self.inner.server.grant(&grant).await?.is_some() {
            return Ok(());
        }
        let account = self.inner.accounts.open(owner);
        let left = self.released_account(&account, &person).await?;
        Ok(account.forget_grant(&left).await?)
    }

    /// Takes or extends the turn of this replica.
    async fn holds_sweep(&self, holder: &str) -> Result<bool, vault::Error> {
        self.inner.server.records().vault().acquire_lease(&self.sweep_lease(), holder, SWEEP_LEASE).await
    }

    fn sweep_lease(&self) -> RecordId {
        let origin = self.inner.settings.origin.to_string();
        RecordId { kind: SWEEP, owner: String::new(), origin }
    }
}
