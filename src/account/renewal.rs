//! Renewing a session: one renewal for all who wait, in the process by a shared flight, across processes by a lease on
//! the vault's record. The vault is read again before anything is renewed or discarded: somebody else may have done it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use uuid::Uuid;

use super::{
    Account, Error, Memory, SignInReason, record::Fingerprint, record::Record, session::Session, store,
};
use crate::{
    bondmcp::{self, wire::Tokens},
    secret::{self, SecretString},
};

/// How often a process that waits for another's renewal looks whether it is done.
const POLL: Duration = Duration::from_millis(100);

/// How long it waits in all; every dead holder's lease has run out several times by then.
const PATIENCE: Duration = Duration::from_secs(30);

/// After a failed renewal ahead of time, the next one waits this long.
const BACKGROUND_PAUSE: Duration = Duration::from_secs(5);

/// A renewal that any number of callers wait for.
type SharedRenewal = Shared<BoxFuture<'static, Result<Session, Error>>>;

/// The renewal under way in this process, if any.
#[derive(Default)]
pub(super) struct Flight {
    current: Mutex<Option<SharedRenewal>>,
    failed_at: Mutex<Option<Instant>>,
}

/// What can renew a session without the person.
enum Means {
    RefreshToken(SecretString),
    Password { email: String, password: SecretString },
}

impl Account {
    /// A session other than the one with the access token `stale`, which ran out or was refused.
    pub(super) async fn renew(&self, stale: Option<&SecretString>) -> Result<Session, Error> {
        let mut session = self.flight(stale.cloned()).await?;
        if is(&session, stale) {
            // The flight that was joined had been called for an older token and brought just this one.
            session = self.flight(stale.cloned()).await?;
        }
        Ok(session)
    }

    /// Renews while the session still holds, so that nobody has to wait.
    pub(super) fn renew_in_background(&self, ageing: &Session) {
        let flight = &self.inner.flight;
        if lock(&flight.current).is_some()
            || lock(&flight.failed_at).is_some_and(|at| at.elapsed() < BACKGROUND_PAUSE)
        {
            return;
        }
        let (account, stale) = (self.clone(), ageing.access_token.clone());
        self.inner.tasks.spawn(async move {
            let outcome = account.renew(Some(&stale)).await;
            *lock(&account.inner.flight.failed_at) = outcome.is_err().then(Instant::now);
        });
    }

    fn flight(&self, stale: Option<SecretString>) -> SharedRenewal {
        let mut current = lock(&self.inner.flight.current);
        if let Some(flight) = &*current {
            return flight.clone();
        }
        let account = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let outcome = account.renewal(stale.as_ref()).await;
            if let Err(error) = &outcome {
                tracing::debug!(%error, "the session was not renewed");
            }
            *lock(&account.inner.flight.current) = None;
            outcome
        });
        let flight = task.map(|ended| ended.unwrap_or(Err(Error::Interrupted))).boxed().shared();
        current.insert(flight).clone()
    }

    async fn renewal(&self, stale: Option<&SecretString>) -> Result<Session, Error> {
        let holder = Uuid::new_v4().to_string();
        let began = tokio::time::Instant::now();
        while began.elapsed() < PATIENCE {
            let memory = self.reread().await?;
            if let Some(session) = self.newer(&memory, stale) {
                return Ok(session);
            }
            self.means(&memory.record)?;
            if self.inner.store.acquire_lease(&holder).await? {
                let outcome = self.renewal_as_holder(&holder, stale).await;
                if let Err(error) = self.inner.store.release_lease(&holder).await {
                    tracing::warn!(%error, "the renewal's lease was not released; it runs out by itself");
                }
                return outcome;
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Error::RenewalBusy)
    }

    async fn renewal_as_holder(&self, holder: &str, stale: Option<&SecretString>) -> Result<Session, Error> {
        let memory = self.reread().await?;
        if let Some(session) = self.newer(&memory, stale) {
            return Ok(session);
        }
        let work = self.renew_upstream(&memory.record, stale);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                () = tokio::time::sleep(store::LEASE / 3) => {
                    // A lease that was lost does no harm: the vault takes only one of two new sessions.
                    self.inner.store.acquire_lease(holder).await?;
                }
            }
        }
    }

    async fn renew_upstream(&self, record: &Record, stale: Option<&SecretString>) -> Result<Session, Error> {
        let mut record = record.clone();
        loop {
            let means = self.means(&record)?;
            let answer = match &means {
                Means::RefreshToken(token) => self.inner.client.refresh(token).await,
                Means::Password { email, password } => self.inner.client.login(email, password).await,
            };
            match (answer, means) {
                (Ok(tokens), _) => return self.store_session(tokens, &record, stale).await,
                (Err(error), Means::RefreshToken(token)) if rejects_refresh(&error) => {
                    record = self.forget_refresh_token(&token).await?;
                }
                (Err(error), Means::Password { password, .. }) if error.is_unauthorized() => {
                    return self.forget_password(&password, stale).await;
                }
                (Err(error), _) => return Err(error.into()),
            }
        }
    }

    /// What renews the session of `record`, in order of preference.
    fn means(&self, record: &Record) -> Result<Means, Error> {
        if let Some(token) = record.session.as_ref().and_then(|session| session.refresh_token.clone()) {
            return Ok(Means::RefreshToken(token));
        }
        if let Some(login) = &self.inner.environment.login {
            if record.rejected.as_ref().is_some_and(|rejected| rejected.matches(login)) {
                return Err(self.sign_in_required(SignInReason::EnvironmentRejected));
            }
            return Ok(Means::Password { email: login.email.clone(), password: login.password.clone() });
        }
        if let (Some(email), Some(password)) = (record.email.clone(), record.password.clone()) {
            return Ok(Means::Password { email, password });
        }
        Err(self.sign_in_required(if self.inner.environment.api_key.is_some() || record.own_key.is_some() {
            SignInReason::KeysNeedSession
        } else if record.session.is_some() {
            SignInReason::SessionEnded
        } else {
            SignInReason::NotSignedIn
        }))
    }

    /// The session in `memory` if it can be used and is not the stale one.
    fn newer(&self, memory: &Memory, stale: Option<&SecretString>) -> Option<Session> {
        let session = memory.record.session.as_ref()?;
        let usable = session.is_usable(self.inner.clock.now()) && !is(session, stale);
        usable.then(|| session.clone())
    }

    /// Seals the session that renewed the one of `before`, unless somebody signed in or out meanwhile: then theirs
    /// holds and the new token is given back.
    async fn store_session(
        &self,
        tokens: Tokens,
        before: &Record,
        stale: Option<&SecretString>,
    ) -> Result<Session, Error> {
        let user = tokens.user.clone();
        let earlier = before.session.as_ref().and_then(|session| session.refresh_token.clone());
        let session = Session::new(tokens, self.inner.clock.now(), earlier);
        let (stored, memory) = self
            .update(|record| {
                if record.generation != before.generation {
                    return Ok(false);
                }
                record.session = Some(session.clone());
                record.rejected = None;
                if let Some(user) = &user {
                    record.user_id.get_or_insert_with(|| user.id.clone());
                }
                if let Some(login) = &self.inner.environment.login {
                    record.email.get_or_insert_with(|| login.email.clone());
                }
                Ok(true)
            })
            .await?;
        if stored {
            return Ok(session);
        }
        if let Err(error) = self.inner.client.logout(&session.access_token).await {
            tracing::debug!(%error, "a superfluous session was not ended; it runs out by itself");
        }
        self.newer(&memory, stale).ok_or_else(|| self.sign_in_required(SignInReason::NotSignedIn))
    }

    async fn forget_refresh_token(&self, rejected: &SecretString) -> Result<Record, Error> {
        let change = |record: &mut Record| {
            if let Some(session) = &mut record.session {
                session.refresh_token.take_if(|token| secret::same(token, rejected));
            }
            Ok(())
        };
        let ((), memory) = self.update(change).await?;
        Ok(memory.record.clone())
    }

    /// The upstream said no to the password: it is not tried again, so that the account is not locked.
    async fn forget_password(
        &self,
        rejected: &SecretString,
        stale: Option<&SecretString>,
    ) -> Result<Session, Error> {
        let environment = self.inner.environment.login.as_ref();
        let change = |record: &mut Record| {
            match environment {
                Some(login) => record.rejected = Some(Fingerprint::of(login)),
                None => {
                    record.password.take_if(|password| secret::same(password, rejected));
                }
            }
            Ok(())
        };
        let ((), memory) = self.update(change).await?;
        self.newer(&memory, stale).ok_or_else(|| {
            self.sign_in_required(match environment {
                Some(_) => SignInReason::EnvironmentRejected,
                None => SignInReason::PasswordRejected,
            })
        })
    }
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flight")
    }
}

fn is(session: &Session, stale: Option<&SecretString>) -> bool {
    stale.is_some_and(|token| secret::same(token, &session.access_token))
}

/// A refusal that says the token is no good, or that there is nothing to refresh with at this upstream (the seed
/// knows no refreshing); not an outage, after which the same token may do.
fn rejects_refresh(error: &bondmcp::Error) -> bool {
    matches!(error, bondmcp::Error::Refused(refusal) if matches!(refusal.status, 400 | 401 | 403 | 404 | 405 | 422))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
