//! What a hosted server keeps in the vault besides accounts: JSON, encrypted, found by a keyed hash of its id.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    secret::to_secret_json,
    vault::{self, RecordId, RecordKind, Vault},
};

/// How often a change is tried. Each failure means that another process succeeded.
const ATTEMPTS: usize = 50;

/// The records of one issuer. Clones share the vault.
#[derive(Clone, Debug)]
pub struct Records {
    vault: Vault,
    issuer: String,
}

/// A record and its version, by which a change is detected.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    pub value: T,
    pub version: u64,
}

/// What becomes of a record that is changed.
#[derive(Debug)]
pub enum Next<T> {
    Keep,
    /// It is forgotten after that time, if there is one.
    Write(T, Option<Duration>),
    Delete,
}

impl Records {
    #[must_use]
    pub fn new(vault: Vault, issuer: String) -> Self {
        Self { vault, issuer }
    }

    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    fn id(&self, kind: RecordKind, id: &str) -> RecordId {
        RecordId { kind, owner: id.to_owned(), origin: self.issuer.clone() }
    }

    pub async fn read<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        id: &str,
    ) -> Result<Option<Versioned<T>>, vault::Error> {
        let Some(record) = self.vault.read(&self.id(kind, id)).await? else { return Ok(None) };
        let value = serde_json::from_slice(&record.plaintext).map_err(|_| vault::Error::Damaged)?;
        Ok(Some(Versioned { value, version: record.version }))
    }

    /// Writes a record; `version` is the one that was read, `None` for a new record. [`vault::Error::Conflict`] means
    /// that it was written meanwhile. It is forgotten after `lifetime`.
    pub async fn write<T: Serialize>(
        &self,
        kind: RecordKind,
        id: &str,
        version: Option<u64>,
        value: &T,
        lifetime: Option<Duration>,
    ) -> Result<u64, vault::Error> {
        let bytes = to_secret_json(value).map_err(|_| vault::Error::Damaged)?;
        self.vault.write(&self.id(kind, id), version, &bytes, lifetime).await
    }

    /// Changes a record: `decide` gets it as it is and says what becomes of it, anew whenever another process wrote it
    /// meanwhile. Returns what `decide` said last.
    pub async fn change<T: Serialize + DeserializeOwned, R>(
        &self,
        kind: RecordKind,
        id: &str,
        mut decide: impl FnMut(Option<T>) -> (Next<T>, R),
    ) -> Result<R, vault::Error> {
        for _ in 0..ATTEMPTS {
            let found = self.read(kind.clone(), id).await?;
            let (value, version) = found.map(|found| (found.value, found.version)).unzip();
            let (next, result) = decide(value);
            let done = match (next, version) {
                (Next::Keep, _) | (Next::Delete, None) => return Ok(result),
                (Next::Write(value, lifetime), _) => {
                    self.write(kind.clone(), id, version, &value, lifetime).await.map(|_| ())
                }
                (Next::Delete, Some(version)) => self.delete(kind.clone(), id, version).await,
            };
            match done {
                Err(vault::Error::Conflict) => {}
                done => return done.map(|()| result),
            }
        }
        Err(vault::Error::Conflict)
    }

    pub async fn delete(&self, kind: RecordKind, id: &str, version: u64) -> Result<(), vault::Error> {
        self.vault.delete(&self.id(kind, id), version).await
    }

    /// Waits until the version of a record is no longer `seen` (0 for no record), but at most for `at_most`.
    pub async fn change_wait(
        &self,
        kind: RecordKind,
        id: &str,
        seen: u64,
        at_most: Duration,
    ) -> Result<(), vault::Error> {
        self.vault.change_wait(&self.id(kind, id), seen, at_most).await
    }

    /// Records that something was used; `false` if it was before. It is forgotten after `lifetime`.
    pub async fn insert_once(
        &self,
        kind: RecordKind,
        id: &str,
        lifetime: Duration,
    ) -> Result<bool, vault::Error> {
        self.vault.insert_once(&self.id(kind, id), lifetime).await
    }

    /// Returns all records of a kind, with their ids: for operators and for sweeps. One that this version cannot read is
    /// left out, with a warning, so that it does not hide the others.
    pub async fn all<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
    ) -> Result<Vec<(String, Versioned<T>)>, vault::Error> {
        let mut found = Vec::new();
        for (id, record) in self.vault.list(&kind).await? {
            if id.origin == self.issuer {
                match serde_json::from_slice(&record.plaintext) {
                    Ok(value) => found.push((id.owner, Versioned { value, version: record.version })),
                    Err(_) => {
                        tracing::warn!(kind = kind.as_str(), "a record that cannot be read is left out");
                    }
                }
            }
        }
        Ok(found)
    }
}
