//! Where accounts are kept, sealed. It knows no BondMCP: a record is bytes under an identity and a version, changed by
//! compare-and-swap, so that several processes can use one vault at once.

mod error;
pub(crate) mod files;
mod seal;
mod sealing_key;
mod sqlite;

use std::time::Duration;

pub use self::{
    error::Error,
    sealing_key::{KeyOrigin, SealingKey},
};
use self::{seal::Sealer, sqlite::Sqlite};
use crate::{clock::Timestamp, config::VaultLocation, secret::SecretBytes};

/// Which record: whose it is, and for which upstream. Both are sealed into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RecordId {
    pub owner: String,
    pub origin: String,
}

/// A record, opened.
#[derive(Debug)]
pub struct Record {
    /// Grows with every write, from 1.
    pub version: u64,
    pub plaintext: SecretBytes,
}

/// An open vault. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Vault {
    database: Sqlite,
    sealer: Sealer,
}

impl Vault {
    /// Opens the vault, and creates it where there is none.
    pub async fn open(location: &VaultLocation, key: SealingKey) -> Result<Self, Error> {
        let VaultLocation::Sqlite(path) = location;
        let vault = Self { database: Sqlite::open(path).await?, sealer: Sealer::new(key) };
        vault.check_key().await?;
        Ok(vault)
    }

    /// The record, or `None` where there is none.
    pub async fn read(&self, id: &RecordId) -> Result<Option<Record>, Error> {
        match self.database.read(id).await? {
            None => Ok(None),
            Some((version, sealed)) => {
                let plaintext = self.sealer.open(id, version, &sealed)?;
                Ok(Some(Record { version, plaintext }))
            }
        }
    }

    /// Writes the record and returns its new version. `expected` is the version that was read before, `None` when
    /// there was no record; [`Error::Conflict`] tells that somebody else wrote meanwhile.
    pub async fn write(&self, id: &RecordId, expected: Option<u64>, plaintext: &[u8]) -> Result<u64, Error> {
        let version = expected.unwrap_or(0) + 1;
        let sealed = self.sealer.seal(id, version, plaintext)?;
        if self.database.write(id, version, &sealed).await? { Ok(version) } else { Err(Error::Conflict) }
    }

    /// Takes or extends the lease on a record until `now + lifetime`, unless another holder's has not run out. The
    /// record need not exist.
    pub async fn acquire_lease(
        &self,
        id: &RecordId,
        holder: &str,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<bool, Error> {
        self.database.acquire_lease(id, holder, now, lifetime).await
    }

    /// Gives the lease back, if `holder` still has it.
    pub async fn release_lease(&self, id: &RecordId, holder: &str) -> Result<(), Error> {
        self.database.release_lease(id, holder).await
    }

    pub async fn close(&self) {
        self.database.close().await;
    }

    /// Tells a wrong key from a tampered record: a vault holds a known text, sealed when it was made.
    async fn check_key(&self) -> Result<(), Error> {
        let id = RecordId { owner: String::new(), origin: "key check".to_owned() };
        let known = self.sealer.seal(&id, 0, b"bondmcp-server")?;
        let kept = self.database.key_check(&known).await?;
        match self.sealer.open(&id, 0, &kept) {
            Err(Error::Tampered) => Err(Error::WrongKey),
            outcome => outcome.map(|_| ()),
        }
    }
}
