//! API keys: listing, creating, revoking, selecting and revealing. The intent to make a key is recorded before the
//! request, and the key is encrypted to disk before its id is returned.

use super::{
    Account, Error, RequiredCredential, SignInReason,
    intent::{Intent, Stored},
    key_list::{Key, KeyList, Unfinished},
    record::{ManagedKey, Record},
};
use crate::{
    bondmcp::{
        self,
        wire::{ApiKey, CreateApiKey, KeyUsage, NewApiKey, Permission, is_id},
    },
    secret::SecretString,
    text::MAX_NAME_CHARS,
};

impl Account {
    /// Lists the account's keys at the upstream, with their local state.
    pub async fn list_keys(&self) -> Result<KeyList, Error> {
        let listed = self.upstream_keys().await?;
        let memory = self.reconcile_with(&listed).await?;
        let record = &memory.record;
        let mut keys: Vec<Key> = listed.into_iter().map(|key| Key::listed(key, record)).collect();
        let gone = record.keys.iter().filter(|stored| keys.iter().all(|key| key.id != stored.id));
        let gone: Vec<Key> = gone.map(|stored| Key::stored(stored, record, false)).collect();
        keys.extend(gone);
        Ok(KeyList { keys, unfinished: Unfinished::all(record) })
    }

    /// Creates a key and stores it encrypted.
    pub async fn create_key(&self, mut wanted: CreateApiKey) -> Result<Key, Error> {
        check_text("name", &wanted.name)?;
        if let Some(description) = &wanted.description {
            check_text("description", description)?;
        }
        let account = self.clone();
        self.run_to_completion(async move {
            let listed = account.upstream_keys().await?;
            let record = &account.record().await?.record;
            wanted.name = record.name_of_new_key(wanted.name, account.now().date_naive());
            let made = account.make(wanted, &listed, None).await?;
            account.stored_key(&made.id).await
        })
        .await
    }

    /// Revokes a key: requests with it are refused afterwards.
    pub async fn revoke_key(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        self.check_not_the_grants_key(id).await?;
        let (account, id) = (self.clone(), id.to_owned());
        self.run_to_completion(async move {
            let memory = account.record().await?;
            if memory.record.grant.is_some() && memory.record.key(&id).is_none() {
                let listed = account.upstream_keys().await?;
                let key = listed.iter().find(|key| key.id == id).ok_or(Error::KeyNotFound)?;
                account.check_not_of_another_grant(&key.name).await?;
            }
            let revoked = account.revoke_upstream(&id).await;
            let known = account.reread().await?.record.key(&id).is_some();
            match revoked {
                Err(error) if error.is_not_found() && !known => return Err(Error::KeyNotFound),
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
            account
                .update(|record| {
                    record.forget_key(&id);
                    for intent in &mut record.intents {
                        intent.orphans.retain(|orphan| *orphan != id);
                    }
                    record.intents.retain(|intent| !intent.ends_with(&id));
                    Ok(())
                })
                .await?;
            Ok(())
        })
        .await
    }

    /// Selects the key that API calls use; `None` selects the session.
    pub async fn use_key(&self, id: Option<&str>) -> Result<(), Error> {
        if let Some(id) = id {
            check_id(id)?;
        }
        let change = |record: &mut Record| {
            if let Some(id) = id
                && record.key(id).is_none()
            {
                return Err(Error::KeyNotStored);
            }
            record.active_key = id.map(ToOwned::to_owned);
            Ok(())
        };
        self.update(change).await?;
        Ok(())
    }

    /// Returns the usage of a key.
    pub async fn key_usage(&self, id: &str) -> Result<KeyUsage, Error> {
        check_id(id)?;
        let usage = self
            .call(RequiredCredential::Session, |client, bearer| async move {
                client.api_key_usage(&bearer, id).await
            })
            .await;
        let mut usage =
            usage.map_err(|error| if error.is_not_found() { Error::KeyNotFound } else { error })?;
        usage.name = usage.name.map(|name| self.inner.redactor.excerpt(&name, MAX_NAME_CHARS));
        Ok(usage)
    }

    /// Returns the keys whose values are stored here, without asking the upstream.
    pub async fn stored_keys(&self) -> Result<Vec<Key>, Error> {
        let memory = self.record().await?;
        let record = &memory.record;
        Ok(record.keys.iter().map(|key| Key::stored(key, record, true)).collect())
    }

    /// Returns the value of a key. For the command line only, which passes it to a child process, to the terminal or
    /// into a private file.
    pub async fn key_secret(&self, id: &str) -> Result<SecretString, Error> {
        let memory = self.reread().await?;
        let key = memory.record.key(id).ok_or(Error::KeyNotStored)?;
        Ok(key.secret.clone())
    }

    pub(super) async fn upstream_keys(&self) -> Result<Vec<ApiKey>, Error> {
        self.call(
            RequiredCredential::Session,
            |client, bearer| async move { client.list_api_keys(&bearer).await },
        )
        .await
    }

    pub(super) async fn stored_key(&self, id: &str) -> Result<Key, Error> {
        let memory = self.record().await?;
        let key = memory.record.key(id).ok_or(Error::KeyNotStored)?;
        Ok(Key::stored(key, &memory.record, true))
    }

    /// Records the intent, creates the key upstream and stores it.
    pub(super) async fn make(
        &self,
        mut wanted: CreateApiKey,
        listed: &[ApiKey],
        replaces: Option<&str>,
    ) -> Result<Made, Error> {
        wanted.name = self.listed_name(&wanted.name);
        let before = listed.iter().map(|key| key.id.clone()).collect();
        let intent = &Intent::new(&wanted.name, self.now(), before, replaces);
        let wanted = &wanted;
        let create = |email: Option<String>| async move {
            let created = self
                .call(RequiredCredential::Session, |client, bearer| async move {
                    client.create_api_key(&bearer, wanted).await
                })
                .await;
            match created {
                Ok(key) if intent.is_about_another(&key.id) => {
                    Err(self.create_lost(intent, Error::KeyNotNew { id: key.id }).await)
                }
                Ok(key) => self.store(key, wanted, intent, email.as_deref()).await,
                Err(Error::Upstream(cause)) if !cause.is_certainly_unprocessed() => {
                    Err(self.create_lost(intent, cause.into()).await)
                }
                Err(error) => {
                    self.end_intent(&intent.id).await?;
                    Err(error)
                }
            }
        };
        self.carry_out(intent, create).await
    }

    /// The intent stays, and BondMCP is asked which key it has made.
    async fn create_lost(&self, intent: &Intent, cause: Error) -> Error {
        let orphans = self.look_for_orphans(&intent.id).await;
        Error::CreateLost { orphans, cause: Box::new(cause) }
    }

    /// Returns `name` as the list of keys shows it. A key whose making was interrupted is found in the list by its name.
    pub(super) fn listed_name(&self, name: &str) -> String {
        self.inner.redactor.redact(name.trim()).into_owned()
    }

    async fn store(
        &self,
        key: NewApiKey,
        wanted: &CreateApiKey,
        intent: &Intent,
        email: Option<&str>,
    ) -> Result<Made, Error> {
        let store = |record: &mut Record| Ok(record.store_made(&key, &wanted.permissions, intent, email));
        let lost = |cause| Error::CreateLost { orphans: vec![key.id.clone()], cause: Box::new(cause) };
        match self.update_persistently(store).await.map_err(lost)?.0 {
            Stored::Yes => {}
            Stored::GrantEnded => return Err(Error::GrantEnded),
            Stored::Forgotten => return Err(lost(self.sign_in_required(SignInReason::NotSignedIn))),
            Stored::Taken => return Err(self.create_lost(intent, Error::KeyNotNew { id: key.id }).await),
        }
        Ok(Made { id: key.id, secret: key.api_key, intent: intent.id.clone() })
    }

    pub(super) async fn revoke_upstream(&self, id: &str) -> Result<(), Error> {
        self.call(RequiredCredential::Session, |client, bearer| async move {
            client.revoke_api_key(&bearer, id).await
        })
        .await
    }
}

/// A key that was created and stored, and the intent it belongs to.
pub(super) struct Made {
    pub id: String,
    pub secret: SecretString,
    pub intent: String,
}

impl ManagedKey {
    /// Converts `key` to its stored form. Where the upstream reports no permissions, the requested ones apply.
    pub(super) fn new(key: &NewApiKey, made_for: &[Permission]) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            preview: key.key_preview.clone(),
            created_at: key.regenerated_at.clone().or_else(|| key.created_at.clone()),
            permissions: key.permissions.clone().unwrap_or_else(|| made_for.to_vec()),
            secret: key.api_key.clone(),
        }
    }
}

impl Intent {
    /// Whether this intent is finished once key `id` is revoked. An intent that may have created a key stays until it
    /// is known whether that key exists.
    fn ends_with(&self, id: &str) -> bool {
        self.made.as_deref() == Some(id)
            || self.replaces.as_deref() == Some(id) && (self.regenerates || self.made.is_some())
    }
}

/// Whether BondMCP lists the key as one that works.
pub(super) fn is_active(listed: &[ApiKey], id: &str) -> bool {
    listed.iter().any(|key| key.id == id && key.is_active)
}

/// Ids come from an agent or a person. An invalid one is not echoed.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    if is_id(id) { Ok(()) } else { Err(bondmcp::Error::InvalidId.into()) }
}

/// BondMCP documents no limits of its own.
fn check_text(field: &'static str, text: &str) -> Result<(), Error> {
    let is_valid = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if is_valid { Ok(()) } else { Err(Error::InvalidText { field }) }
}
