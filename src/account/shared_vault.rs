//! The vault of this process: opened when an account first needs it, and shared by all.

use std::path::PathBuf;

use tokio::sync::OnceCell;

use super::Error;
use crate::{
    config::{SealingKeySource, Settings, VaultLocation},
    vault::{self, ChangeMarker, Keyring, RecordId, Vault},
};

#[derive(Debug)]
pub struct SharedVault {
    pub location: VaultLocation,
    pub data_dir: PathBuf,
    sealing_key: SealingKeySource,
    vault: OnceCell<Vault>,
}

impl SharedVault {
    pub fn new(settings: &Settings) -> Self {
        Self {
            location: settings.vault.clone(),
            data_dir: settings.data_dir.clone(),
            sealing_key: settings.sealing_key.clone(),
            vault: OnceCell::new(),
        }
    }

    /// Whether there is a vault; opening it creates one.
    pub fn exists(&self) -> bool {
        self.vault.get().is_some() || self.location.exists()
    }

    /// Refuses a vault of a newer version of this program, without opening it.
    pub async fn refuse_newer(&self) -> Result<(), Error> {
        Ok(vault::refuse_newer(&self.location).await?)
    }

    pub async fn open(&self) -> Result<&Vault, Error> {
        self.vault
            .get_or_try_init(|| async {
                let (keyring, origin) =
                    Keyring::load(&self.sealing_key, &self.data_dir, &self.location).await?;
                if let Some(notice) = origin.warning() {
                    tracing::warn!("{notice}");
                }
                Ok(Vault::open(&self.location, keyring).await?)
            })
            .await
    }

    /// Returns the marker that changes when the record is written; `None` where it is unknown.
    pub fn change_marker(&self, id: &RecordId) -> Option<ChangeMarker> {
        match self.vault.get() {
            Some(vault) => vault.change_marker(id),
            None => (!self.location.exists()).then_some(ChangeMarker::NoVault),
        }
    }

    /// Returns the error of a vault that does not answer.
    pub fn silent(&self) -> vault::Error {
        match &self.location {
            VaultLocation::Sqlite(_) => vault::Error::Database("it does not answer"),
            VaultLocation::Postgres(_) => vault::Error::Server(vault::ServerError::Silent),
        }
    }

    pub async fn close(&self) {
        if let Some(vault) = self.vault.get() {
            vault.close().await;
        }
    }
}
