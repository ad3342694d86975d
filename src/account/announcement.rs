//! The announcement to the other processes of the same account that somebody is signing in just now, and where. It is
//! stored encrypted in the vault beside the account's record, under a lease of its own that tells whether its writer
//! still lives.

use std::time::Duration;

use super::{Account, Error};
use crate::vault::{self, Record, RecordId, RecordKind};

/// Its kind of record.
const KIND: RecordKind = RecordKind::new("sign-in");

/// How long an announcement is valid without a heartbeat: what others wait, at most, for a process that died.
const LEASE: Duration = Duration::from_secs(3);

impl Account {
    /// Takes or keeps the right to write the announcement; `false` while another holder lives.
    pub async fn acquire_announcement_lease(&self, holder: &str) -> Result<bool, Error> {
        let vault = self.inner.store.vault().await?;
        Ok(vault.acquire_lease(&self.announcement_id(), holder, LEASE).await?)
    }

    pub async fn release_announcement_lease(&self, holder: &str) -> Result<(), Error> {
        let vault = self.inner.store.vault().await?;
        Ok(vault.release_lease(&self.announcement_id(), holder).await?)
    }

    /// Whether the process lives that has the right to write the announcement.
    pub async fn is_announcer_alive(&self) -> Result<bool, Error> {
        Ok(self.inner.store.vault().await?.is_leased(&self.announcement_id()).await?)
    }

    /// Waits until the announcement is newer than `seen` or that process has ended, but at most for as long as others wait
    /// for a process that died.
    pub async fn announcement_wait(&self, seen: u64) -> Result<(), Error> {
        Ok(self.inner.store.vault().await?.lease_wait(&self.announcement_id(), seen, LEASE).await?)
    }

    /// Replaces the announcement with `text`, which the vault keeps for `lifetime`. Only the holder of that right does so.
    pub async fn publish_announcement(&self, text: &[u8], lifetime: Duration) -> Result<(), Error> {
        let (vault, id) = (self.inner.store.vault().await?, self.announcement_id());
        loop {
            let version = vault.read(&id).await?.map(|record| record.version);
            match vault.write(&id, version, text, Some(lifetime)).await {
                Err(vault::Error::Conflict) => {}
                outcome => return Ok(outcome.map(|_| ())?),
            }
        }
    }

    /// Returns the latest announcement.
    pub async fn announcement(&self) -> Result<Option<Record>, Error> {
        Ok(self.inner.store.vault().await?.read(&self.announcement_id()).await?)
    }

    fn announcement_id(&self) -> RecordId {
        self.inner.store.id_of(KIND)
    }
}
