//! A notice to the other processes of the same account: that somebody is signing in just now, and where. It is stored
//! encrypted in the vault beside the account's record, under a lease of its own that tells whether its writer still lives.

use std::time::Duration;

use super::{Account, Error};
use crate::{clock::Timestamp, secret::SecretBytes, vault};

/// How long a notice counts without a sign of life: what others wait, at most, for a process that died.
const LEASE: Duration = Duration::from_secs(3);

impl Account {
    /// Takes or keeps the right to write the notice; `false` while another holder lives.
    pub async fn acquire_announcement_lease(&self, holder: &str) -> Result<bool, Error> {
        let store = &self.inner.store;
        Ok(store.vault().await?.acquire_lease(&store.announcement_id(), holder, self.now(), LEASE).await?)
    }

    pub async fn release_announcement_lease(&self, holder: &str) -> Result<(), Error> {
        let store = &self.inner.store;
        Ok(store.vault().await?.release_lease(&store.announcement_id(), holder).await?)
    }

    /// Puts `text` in the place of the notice that is there. For the holder.
    pub async fn publish_announcement(&self, text: &[u8]) -> Result<(), Error> {
        let (vault, id) = (self.inner.store.vault().await?, self.inner.store.announcement_id());
        loop {
            let version = vault.read(&id).await?.map(|record| record.version);
            match vault.write(&id, version, text).await {
                Err(vault::Error::Conflict) => {}
                outcome => return Ok(outcome.map(|_| ())?),
            }
        }
    }

    /// The notice as it was posted last.
    pub async fn announcement(&self) -> Result<Option<SecretBytes>, Error> {
        let (vault, id) = (self.inner.store.vault().await?, self.inner.store.announcement_id());
        Ok(vault.read(&id).await?.map(|record| record.plaintext))
    }

    /// Looks into the vault now for what another process has done to the account.
    pub async fn reload(&self) -> Result<(), Error> {
        self.reread().await.map(|_| ())
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}
