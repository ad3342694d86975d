//! Registering, signing in and signing out.

use super::{
    Account, Error, Forgotten, Owner, RequiredCredential, SignInReason, Status,
    authenticate::{Authenticated, NewSession, Proof},
    record::Record,
    session::Session,
};
use crate::secret::SecretString;

/// A new BondMCP account whose e-mail address is not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub user_id: String,
    pub email: String,
}

impl Account {
    /// Creates a BondMCP account. It can sign in once the person has opened the link in the e-mail.
    pub async fn register(&self, email: &str, password: &SecretString) -> Result<Registration, Error> {
        // An account that could not sign in here is not created. The record's secrets are known when the upstream's words
        // are shown.
        self.check_profile(&self.reread().await?.record, email)?;
        self.authenticator().register(email, password).await
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
            // Nothing is sent for an identity that cannot be adopted.
            account.check_profile(&account.reread().await?.record, &email)?;
            let authenticated = account.authenticator().with_password(&email, password).await?;
            account.adopt(authenticated, remember).await?;
            account.status().await
        })
        .await
    }

    /// Uses an API key that the person entered instead of signing in. The key is tested before it is stored.
    pub async fn use_own_key(&self, key: SecretString) -> Result<(), Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            let authenticated = account.authenticator().with_key(key).await?;
            account.adopt(authenticated, false).await
        })
        .await
    }

    /// Makes somebody who has proved who they are the one who is signed in. With `remember` the password is stored too.
    /// The session of `authenticated` is ended if that fails, and the one that was signed in before if it is another
    /// user's.
    pub async fn adopt(&self, authenticated: Authenticated, remember: bool) -> Result<(), Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            match authenticated.proof() {
                Some(Proof::Session(new)) => account.adopt_session(new, remember).await?,
                Some(Proof::Key(key)) => account.adopt_key(key).await?,
                None => {}
            }
            authenticated.keep();
            account.clear_model_cache();
            account.inner.client.reset_rate_limit();
            Ok(())
        })
        .await
    }

    async fn adopt_session(&self, new: &NewSession, remember: bool) -> Result<(), Error> {
        let user_id = new.user.as_ref().map(|user| user.id.clone());
        // Outside of the change, which finds its own session if the answer to it was lost.
        let mut former = None;
        let change = |record: &mut Record| {
            record.check_open()?;
            self.check_profile(record, &new.email)?;
            self.check_user(record, user_id.as_deref())?;
            let current = record.session.take().filter(|_| record.email.as_ref() != Some(&new.email));
            former = current.or(former.take());
            record.generation += 1;
            record.email = Some(new.email.clone());
            record.user_id.clone_from(&user_id);
            record.session = Some(new.session.clone());
            record.password = new.password.clone().filter(|_| remember);
            record.own_key = None;
            record.rejected = None;
            record.use_grant_key();
            Ok(())
        };
        self.update(change).await?;
        // It opens the account whether it is stored or not.
        self.inner.redactor.hold("typed password", &new.password);
        self.end_former_session(former).await;
        Ok(())
    }

    async fn adopt_key(&self, key: &SecretString) -> Result<(), Error> {
        let change = |record: &mut Record| {
            self.check_user(record, None)?;
            record.generation += 1;
            record.own_key = Some(key.clone());
            record.active_key = None;
            Ok(())
        };
        self.update(change).await.map(|_| ())
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
    /// were created here stay stored, as they exist nowhere else, unless `forget_keys` is set. Returns what was forgotten.
    pub async fn sign_out(&self, forget_keys: bool) -> Result<Forgotten, Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            let memory = account.reread().await?;
            if memory.version == 0 {
                // Nothing is stored for this account, and no vault is created to say so.
                return Ok(Forgotten::default());
            }
            let (now, abandoned) = (account.now(), account.abandoned_intents(&memory.record).await?);
            // Outside of the change, as it finds its own work if the answer to it was lost.
            let (mut former, mut forgotten) = (None, Forgotten::default());
            let change = |record: &mut Record| {
                former = record.session.take().or(former.take());
                record.sign_out();
                if forget_keys {
                    forgotten.add(record.to_be_forgotten(&abandoned));
                    record.forget(now, &abandoned, account.belongs_to_a_subject());
                }
                Ok(())
            };
            let updated = account.update(change).await;
            account.clear_model_cache();
            // Also after a failure: the session may be deleted here, and then nobody could end it.
            account.end_former_session(former).await;
            if updated.is_err() && forgotten != Forgotten::default() {
                tracing::warn!(key_ids = ?forgotten.ids, "the values of these API keys may be deleted although signing out failed");
            }
            updated.map(|_| forgotten)
        })
        .await
    }

    /// Ends a session that was deleted here. A process that still uses it learns that from its next refusal. Signing out
    /// here does not depend on the upstream.
    async fn end_former_session(&self, former: Option<Session>) {
        let now = self.inner.clock.now();
        if let Some(old) = former.filter(|session| session.is_usable(now))
            && let Err(error) = self.inner.client.logout(&old.access_token).await
        {
            tracing::warn!(%error, "the session was deleted here but could not be ended at BondMCP; it expires by itself");
        }
    }

    /// A profile with stored keys belongs to the account that created them.
    fn check_profile(&self, record: &Record, email: &str) -> Result<(), Error> {
        let has_keys = !record.keys.is_empty() || !record.intents.is_empty();
        match &record.email {
            Some(owner) if has_keys && !owner.eq_ignore_ascii_case(email) && !self.belongs_to_a_subject() => {
                Err(Error::ProfileTaken { email: owner.clone() })
            }
            _ => Ok(()),
        }
    }

    /// The account of a subject is one user's, so that user is known and does not change.
    fn check_user(&self, record: &Record, user_id: Option<&str>) -> Result<(), Error> {
        let is_somebody_else =
            user_id.is_none() || record.user_id.as_deref().is_some_and(|known| Some(known) != user_id);
        if is_somebody_else && self.belongs_to_a_subject() { Err(Error::AnotherUser) } else { Ok(()) }
    }

    /// Whether it is a subject's, and so one of many, rather than a local profile's.
    #[must_use]
    pub fn belongs_to_a_subject(&self) -> bool {
        matches!(self.inner.owner, Owner::Subject(_))
    }
}
