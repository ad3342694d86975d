//! Rotating an API key: create the new one, store it, switch to it, test it, revoke the old one. One of them works at
//! every moment. An interrupted rotation resumes where it stopped. A key is rotated by one caller at a time, since two
//! would create two keys.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Account, Error, RequiredCredential,
    key_list::Key,
    keys::{Made, check_id, is_active},
    record::Record,
};
use crate::{
    bondmcp::wire::{ApiKey, CreateApiKey, Permission},
    vault::{RecordId, RecordKind},
};

/// Lifetime of a rotation's lease without a heartbeat: the longest time that others wait for a dead process.
const LEASE: Duration = Duration::from_secs(5);

/// What the lease of a rotation is on.
const KIND: RecordKind = RecordKind::new("rotation");

/// Longest wait for another rotation of the same key.
const LEASE_WAIT_TIMEOUT: Duration = Duration::from_secs(30);

impl Account {
    /// Replaces a key by a new one with the same name, description and permissions. Where the plan allows no additional
    /// key, the old one gets a new value instead.
    pub async fn rotate_key(&self, id: &str) -> Result<Key, Error> {
        check_id(id)?;
        let (account, id) = (self.clone(), id.to_owned());
        self.run_to_completion(async move {
            // Checked first, so that a rotation without a sign-in does not create a vault.
            account.bearer(RequiredCredential::Session).await?;
            account.alone(&id, Box::pin(account.rotate(&id))).await
        })
        .await
    }

    async fn rotate(&self, id: &str) -> Result<Key, Error> {
        let listed = self.upstream_keys().await?;
        let old = listed.iter().find(|key| key.id == id && key.is_active).ok_or(Error::KeyNotFound)?;
        self.check_not_of_another_grant(&old.name).await?;
        let memory = self.reread().await?;
        let made = if let Some(made) = memory.record.rotation(id) {
            made
        } else {
            let wanted = CreateApiKey {
                name: old.name.clone(),
                description: old.description.clone(),
                permissions: permissions(old, &memory.record),
            };
            match self.make(wanted, &listed, Some(id)).await {
                Err(Error::Upstream(error)) if error.is_about_key_limit() => {
                    return self.regenerate(old, &listed).await;
                }
                made => made?,
            }
        };
        if made.id == id {
            // BondMCP has given the key itself a new value, so there is no old one to revoke.
            return self.stored_key(id).await;
        }
        self.switch_over(id, &made).await?;
        let change = |record: &mut Record| {
            record.replace_key(id, &made.id);
            record.end_intent(&made.intent);
            Ok(())
        };
        self.update(change).await?;
        self.stored_key(&made.id).await
    }

    /// Switches from `old` to `made`, tests `made` and revokes `old`; switches back if `made` does not work. An interrupted
    /// rotation may have switched already.
    async fn switch_over(&self, old: &str, made: &Made) -> Result<(), Error> {
        let (was_in_use, _) = self
            .update(|record| {
                let is_in_use = |id: &str| record.active_key.as_deref() == Some(id);
                let was_in_use = is_in_use(old) || is_in_use(&made.id);
                if was_in_use {
                    record.active_key = Some(made.id.clone());
                }
                Ok(was_in_use)
            })
            .await?;
        let unfinished =
            |cause| Error::RotationUnfinished { old: old.to_owned(), new: made.id.clone(), cause };
        if let Err(cause) = self.inner.client.list_models(&made.secret).await {
            if was_in_use && let Err(error) = self.switch_back(old, &made.id).await {
                tracing::warn!(%error, key_id = made.id, "an API key that does not work is still in use");
            }
            return Err(unfinished(cause));
        }
        match self.revoke_upstream(old).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(Error::Upstream(cause)) => match self.upstream_keys().await {
                // It was revoked, and only the answer was lost.
                Ok(listed) if !is_active(&listed, old) && is_active(&listed, &made.id) => Ok(()),
                _ => Err(unfinished(cause)),
            },
            outcome => outcome,
        }
    }

    /// Makes calls use `old` again, unless the person has chosen something else meanwhile.
    async fn switch_back(&self, old: &str, made: &str) -> Result<(), Error> {
        let change = |record: &mut Record| {
            if record.active_key.as_deref() == Some(made) && record.key(old).is_some() {
                record.active_key = Some(old.to_owned());
            }
            Ok(())
        };
        self.update(change).await.map(|_| ())
    }

    /// Runs `work` while no other caller, in this process or another, rotates key `id`. A caller that waited sees the
    /// other's result.
    async fn alone<T>(&self, id: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let (store, holder) = (&self.inner.store, Uuid::new_v4().to_string());
        let lease = RecordId { owner: format!("{id}:{}", store.id.owner), ..store.id_of(KIND) };
        let vault = store.vault().await?;
        let began = Instant::now();
        while !vault.acquire_lease(&lease, &holder, LEASE).await? {
            if began.elapsed() >= LEASE_WAIT_TIMEOUT {
                return Err(Error::RotationBusy);
            }
            vault.lease_wait(&lease, 0, LEASE).await?;
        }
        vault.while_leased(&lease, &holder, LEASE, work).await
    }
}

impl Record {
    /// Puts key `new` in the place of `old`, which was revoked.
    pub(super) fn replace_key(&mut self, old: &str, new: &str) {
        if self.active_key.as_deref() == Some(old) {
            self.active_key = Some(new.to_owned());
        }
        self.forget_key(old);
        self.replace_grant_key(old, new);
    }

    /// The interrupted rotation of key `old` whose new key is stored. Older intents that created nothing may precede
    /// it.
    fn rotation(&self, old: &str) -> Option<Made> {
        self.intents.iter().filter(|intent| intent.replaces.as_deref() == Some(old)).find_map(|intent| {
            let key = self.key(intent.made.as_deref()?)?;
            Some(Made { id: key.id.clone(), secret: key.secret.clone(), intent: intent.id.clone() })
        })
    }
}

/// Returns the permissions of `key`: those that the upstream lists, otherwise those requested at creation.
fn permissions(key: &ApiKey, record: &Record) -> Vec<Permission> {
    let listed = key.permissions.clone().filter(|permissions| !permissions.is_empty());
    let stored = || record.key(&key.id).map(|key| key.permissions.clone());
    listed.or_else(stored).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account::{intent::Intent, record::ManagedKey},
        clock::Timestamp,
    };

    fn intent(id: &str, made: Option<&str>) -> Intent {
        Intent {
            id: id.into(),
            made: made.map(ToOwned::to_owned),
            ..Intent::new("ci", Timestamp::UNIX_EPOCH, vec![], Some("old"))
        }
    }

    #[test]
    fn an_interrupted_rotation_is_found_behind_an_older_intent_that_made_nothing() {
        let key = ManagedKey {
            id: "new".into(),
            name: "ci".into(),
            preview: None,
            created_at: None,
            permissions: vec![],
            secret: "value".into(),
        };
        let intents =
            vec![intent("older", None), intent("gone", Some("revoked")), intent("newer", Some("new"))];
        let record = Record { keys: vec![key], intents, ..Record::default() };
        let made = record.rotation("old").unwrap();
        assert_eq!((made.id.as_str(), made.intent.as_str()), ("new", "newer"));
        assert!(record.rotation("other").is_none());
    }
}
