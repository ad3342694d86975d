//! The account's record in the vault: opened when first needed, read whole, changed by compare-and-swap.

use std::{sync::Arc, time::Duration};

use super::{error::Error, record::Record, shared_vault::SharedVault};
use crate::{
    clock::{Clock, Timestamp},
    secret,
    vault::{self, ChangeMarker, RecordId, RecordKind, Vault},
};

/// Lifetime of a renewal's lease without a heartbeat: the longest time that others wait for a dead holder.
pub const LEASE: Duration = Duration::from_secs(5);

/// A record and its version in the vault; 0 where there is none yet.
#[derive(Debug)]
pub struct Versioned {
    pub record: Record,
    pub version: u64,
}

/// The records of one account in the vault.
#[derive(Debug)]
pub struct Store {
    pub shared: Arc<SharedVault>,
    pub id: RecordId,
    pub clock: Clock,
}

impl Store {
    /// Returns the current record; an empty one if there is none yet. Reading does not create a vault.
    pub async fn read(&self) -> Result<Versioned, Error> {
        if !self.shared.exists() {
            return Ok(Versioned { record: Record::default(), version: 0 });
        }
        match self.vault().await?.read(&self.id).await? {
            None => Ok(Versioned { record: Record::default(), version: 0 }),
            Some(sealed) => {
                let mut record = Record::from_bytes(&sealed.plaintext).ok_or(Error::RecordUnreadable)?;
                self.move_to_clock(&mut record).await?;
                Ok(Versioned { record, version: sealed.version })
            }
        }
    }

    /// Moves the times of the record's session to this process's clock. The vault is asked for its time only where the two
    /// may differ.
    async fn move_to_clock(&self, record: &mut Record) -> Result<(), Error> {
        if let Some(session) = &mut record.session
            && session.is_doubtful(self.clock.now())
        {
            let vault_now = self.vault_now().await?;
            session.move_to_clock(self.clock.now(), vault_now);
        }
        Ok(())
    }

    /// Notes the vault's time of a session that is new in the record.
    async fn note_vault_time(&self, record: &mut Record) -> Result<(), Error> {
        if let Some(session) = &mut record.session
            && session.is_new(self.clock.now())
        {
            let vault_now = self.vault_now().await?;
            session.note_vault_time(self.clock.now(), vault_now);
        }
        Ok(())
    }

    async fn vault_now(&self) -> Result<Timestamp, Error> {
        Ok(self.vault().await?.now().await? + self.clock.advanced())
    }

    /// Changes the record and returns it as it was written, with what `change` gave. A secret that is no longer in it
    /// is removed from the vault's files too. `change` runs again on the newer record if another process wrote
    /// meanwhile, so it must have no other effect.
    pub async fn update<T>(
        &self,
        mut change: impl FnMut(&mut Record) -> Result<T, Error>,
    ) -> Result<(T, Versioned), Error> {
        let vault = self.vault().await?;
        loop {
            let Versioned { mut record, version } = self.read().await?;
            let before: Vec<_> = record.secrets().cloned().collect();
            let outcome = change(&mut record)?;
            self.note_vault_time(&mut record).await?;
            let bytes = record.to_bytes().map_err(|_| Error::RecordUnreadable)?;
            let (expected, lifetime) = ((version > 0).then_some(version), record.lifetime());
            let is_forgotten = |old: &_| !record.secrets().any(|kept| secret::same(kept, old));
            let written = if before.iter().any(is_forgotten) {
                vault.write_forgetting(&self.id, expected, &bytes, lifetime).await
            } else {
                vault.write(&self.id, expected, &bytes, lifetime).await
            };
            match written {
                Ok(version) => return Ok((outcome, Versioned { record, version })),
                Err(vault::Error::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Returns the marker that changes when the record is written; `None` where it is unknown.
    pub fn change_marker(&self) -> Option<ChangeMarker> {
        self.shared.change_marker(&self.id)
    }

    /// Takes the right to renew the session.
    pub async fn acquire_lease(&self, holder: &str) -> Result<bool, Error> {
        Ok(self.vault().await?.acquire_lease(&self.id, holder, LEASE).await?)
    }

    /// Runs `work` as the one who has that right, then gives it back.
    pub async fn while_leased<T>(
        &self,
        holder: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.vault().await?.while_leased(&self.id, holder, LEASE, work).await
    }

    /// The identities that the account's records had in this program's first version, which did not store them. The second
    /// one is of its notice of a sign-in.
    pub fn first_version_records(&self) -> Vec<RecordId> {
        vec![self.id.clone(), RecordId { owner: format!("sign-in:{}", self.id.owner), ..self.id.clone() }]
    }

    /// Waits until nobody holds that right any more or the record is newer than `seen`, but at most for a lease's life.
    pub async fn lease_wait(&self, seen: u64) -> Result<(), Error> {
        Ok(self.vault().await?.lease_wait(&self.id, seen, LEASE).await?)
    }

    /// Returns the id of another record of the same owner.
    pub fn id_of(&self, kind: RecordKind) -> RecordId {
        RecordId { kind, ..self.id.clone() }
    }

    pub async fn vault(&self) -> Result<&Vault, Error> {
        self.shared.open().await
    }
}
