//! Work under a lease: the lease is extended for as long as the work takes. After it, it is released, or left to expire.

use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::{RecordId, Vault};

impl Vault {
    /// Runs `work` for `holder`, who has the lease on a record, then releases the lease.
    pub async fn while_leased<T>(
        &self,
        id: &RecordId,
        holder: &str,
        lifetime: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let outcome = self.keeping_lease(id, holder, lifetime, work).await;
        self.end_lease(id, holder).await;
        outcome
    }

    /// Runs `work` for `holder`, who has the lease on a record and keeps it. A lease that is lost meanwhile does not end the
    /// work.
    pub async fn keeping_lease<T>(
        &self,
        id: &RecordId,
        holder: &str,
        lifetime: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let (vault, leased, by) = (self.clone(), id.clone(), holder.to_owned());
        let extend = move || {
            let (vault, leased, by) = (vault.clone(), leased.clone(), by.clone());
            async move {
                let kind = leased.kind.as_str();
                match vault.acquire_lease(&leased, &by, lifetime).await {
                    Ok(true) => {}
                    Ok(false) => tracing::warn!(kind, "another process has taken a lease"),
                    Err(error) => tracing::warn!(%error, kind, "a lease was not extended"),
                }
            }
        };
        with_heartbeat(lifetime / 3, extend, work).await
    }

    /// Releases the lease of `holder`. One that cannot be released expires by itself.
    pub async fn end_lease(&self, id: &RecordId, holder: &str) {
        if let Err(error) = self.release_lease(id, holder).await {
            tracing::warn!(%error, kind = id.kind.as_str(), "a lease was not released; it expires by itself");
        }
    }
}

/// Runs `work` while a separate task repeats `beat`. A beat that blocks or fails does not delay `work`.
async fn with_heartbeat<T, Beat>(
    interval: Duration,
    beat: impl Fn() -> Beat + Send + Sync + 'static,
    work: impl Future<Output = T>,
) -> T
where
    Beat: Future<Output = ()> + Send,
{
    let _heartbeat = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            beat().await;
        }
    }));
    work.await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sqlx::{Connection as _, SqliteConnection};
    use tokio::sync::Notify;

    use super::*;
    use crate::{
        config::VaultLocation,
        vault::{Keyring, RecordKind},
    };

    const LEASE: Duration = Duration::from_secs(5);

    /// The work itself releases what the heartbeat waits for, so the test hangs unless the two run concurrently.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_heartbeat_that_waits_for_another_writer_neither_delays_nor_drops_the_work() {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
        let id = RecordId { kind: RecordKind::ACCOUNT, owner: "o".into(), origin: "u".into() };
        let mut other = SqliteConnection::connect(&format!("sqlite://{location}")).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();

        let began = Arc::new(Notify::new());
        let beat = {
            let (vault, id, began) = (vault.clone(), id.clone(), Arc::clone(&began));
            move || {
                let (vault, id, began) = (vault.clone(), id.clone(), Arc::clone(&began));
                async move {
                    began.notify_one();
                    let _ = vault.acquire_lease(&id, "holder", LEASE).await;
                }
            }
        };
        let work = async {
            began.notified().await;
            let unchanged = vault.read(&id).await.unwrap();
            sqlx::query("COMMIT").execute(&mut other).await.unwrap();
            vault.write(&id, unchanged.map(|record| record.version), b"renewed", None).await.unwrap()
        };
        assert_eq!(with_heartbeat(Duration::from_millis(1), beat, work).await, 1);
    }

    #[tokio::test]
    async fn the_lease_is_held_during_the_work_and_released_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let location = VaultLocation::Sqlite(directory.path().join("data/vault.db"));
        let vault = Vault::open(&location, Keyring::of(&[1])).await.unwrap();
        let id = RecordId { kind: RecordKind::ACCOUNT, owner: "o".into(), origin: "u".into() };
        assert!(vault.acquire_lease(&id, "holder", LEASE).await.unwrap());
        let during = vault.while_leased(&id, "holder", LEASE, vault.is_leased(&id)).await;
        assert!(during.unwrap());
        assert!(!vault.is_leased(&id).await.unwrap());
    }
}
