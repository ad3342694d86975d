//! Registering, signing in and signing out.

use super::{
    Account, CachedRecord, Error, RequiredCredential, SignInReason, Status, record::Record, session::Session,
};
use crate::{
    bondmcp::wire::{Tokens, User},
    secret::SecretString,
};

/// A new BondMCP account whose e-mail address is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub user_id: String,
    pub email: String,
}

impl Account {
    /// Creates a BondMCP account. It can sign in once the person has opened the link in the e-mail.
    pub async fn register(&self, email: &str, password: &SecretString) -> Result<Registration, Error> {
        // So that its secrets are known when the upstream's words are shown.
        self.refresh_if_changed().await;
        let registered = self.inner.client.register(email, password).await?;
        Ok(Registration { user_id: registered.user_id, email: registered.email })
    }

    /// Signs in. With `remember` the password is stored, encrypted, so that the session can be renewed without the person.
    pub async fn sign_in(
        &self,
        email: &str,
        password: SecretString,
        remember: bool,
    ) -> Result<Status, Error> {
        let (account, email) = (self.clone(), email.to_owned());
        self.run_to_completion(async move {
            let before = account.reread().await?;
            check_identity(&before.record, &email)?;
            let tokens = account.inner.client.login(&email, &password).await?;
            let memory = account.store_sign_in(email, password, remember, tokens).await?;
            account.end_other_session(&before, &memory).await;
            account.status().await
        })
        .await
    }

    /// Uses an API key that the person entered instead of signing in. The key is tested before it is stored.
    pub async fn use_own_key(&self, key: SecretString) -> Result<(), Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            account.inner.client.list_models(&key).await?;
            account
                .update(|record| {
                    record.generation += 1;
                    record.own_key = Some(key.clone());
                    record.active_key = None;
                    Ok(())
                })
                .await?;
            account.clear_model_cache();
            account.inner.client.reset_rate_limit();
            Ok(())
        })
        .await
    }

    /// Signs in without the person, where the environment or the stored credentials allow it.
    pub async fn ensure_signed_in(&self) -> Result<Status, Error> {
        match self.bearer(RequiredCredential::Session).await {
            // An API key in the environment needs no session.
            Err(Error::SignInRequired { why: SignInReason::KeysNeedSession, .. }) => {}
            outcome => {
                outcome?;
            }
        }
        self.status().await
    }

    /// Signs out: ends the session upstream and deletes it here, with the stored password. The values of API keys that
    /// were created here stay stored, as they exist nowhere else, unless `forget_keys` is set.
    pub async fn sign_out(&self, forget_keys: bool) -> Result<(), Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            let before = account.reread().await?;
            if before.version == 0 {
                // Nothing is stored for this account, and no vault is created to say so.
                return Ok(());
            }
            let change = |record: &mut Record| {
                record.sign_out();
                if forget_keys {
                    *record = Record { generation: record.generation, ..Record::default() };
                }
                Ok(())
            };
            let ((), memory) = account.update(change).await?;
            account.clear_model_cache();
            account.end_other_session(&before, &memory).await;
            Ok(())
        })
        .await
    }

    async fn store_sign_in(
        &self,
        email: String,
        password: SecretString,
        remember: bool,
        tokens: Tokens,
    ) -> Result<std::sync::Arc<CachedRecord>, Error> {
        let user = match tokens.user.clone() {
            Some(user) => Some(user),
            // Some versions of the API do not say who logged in; signing in does not fail because of that.
            None => self.inner.client.me(&tokens.access_token).await.ok().map(|me| User {
                id: me.id,
                email: Some(me.email),
                name: me.name,
            }),
        };
        let session = Session::new(tokens, self.inner.clock.now(), None);
        let change = |record: &mut Record| {
            check_identity(record, &email)?;
            record.generation += 1;
            record.email = Some(email.clone());
            record.user_id = user.as_ref().map(|user| user.id.clone());
            record.session = Some(session.clone());
            record.password = remember.then(|| password.clone());
            record.own_key = None;
            record.rejected = None;
            Ok(())
        };
        let ((), memory) = self.update(change).await?;
        // It opens the account whether it is stored or not.
        self.inner.redactor.hold("typed password", [&password]);
        self.clear_model_cache();
        self.inner.client.reset_rate_limit();
        Ok(memory)
    }

    /// Ends the session of `before` upstream when `after` has another one. A process that still uses it learns that
    /// from its next refusal. Signing out here does not depend on the upstream.
    async fn end_other_session(&self, before: &CachedRecord, after: &CachedRecord) {
        let Some(old) = &before.record.session else { return };
        if after.record.session.is_some() && before.record.email == after.record.email {
            return;
        }
        if old.is_usable(self.inner.clock.now())
            && let Err(error) = self.inner.client.logout(&old.access_token).await
        {
            tracing::warn!(%error, "the session was deleted here but could not be ended at BondMCP; it expires by itself");
        }
    }
}

/// A profile with stored keys belongs to the account that created them.
fn check_identity(record: &Record, email: &str) -> Result<(), Error> {
    let has_keys = !record.keys.is_empty() || !record.intents.is_empty();
    match &record.email {
        Some(owner) if has_keys && !owner.eq_ignore_ascii_case(email) => {
            Err(Error::ProfileTaken { email: owner.clone() })
        }
        _ => Ok(()),
    }
}
