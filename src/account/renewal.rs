//! Renewing a session: all waiting callers share one renewal, by a shared task within the process and by a lease on the
//! vault's record across processes. The vault is read again before anything is renewed or discarded, since another
//! process may have done it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Account, CachedRecord, Error, SignInReason, record::Fingerprint, record::Record, session::Session,
};
use crate::{
    bondmcp::{self, wire::Tokens},
    metrics,
    secret::{self, SecretString},
};

/// Longest wait for another process's renewal. The lease of a dead holder expires several times in this period.
const LEASE_WAIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Wait after a failed early renewal before the next one.
const BACKGROUND_PAUSE: Duration = Duration::from_secs(5);

/// Longest pause that `Retry-After` can impose on renewals.
const MAX_PAUSE: Duration = Duration::from_hours(1);

/// Pause after a refusal that may pass and does not say when, such as that of an address that is not verified yet.
const REFUSAL_PAUSE: Duration = Duration::from_secs(30);

type Outcome = Result<Session, Error>;

/// The renewals of this process: one task performs a renewal, and every caller that needs the session waits for it.
#[derive(Default)]
pub(super) struct Renewals {
    /// The outcome of the renewal in progress. The task drops the sender when it ends, even by a panic.
    current: Mutex<Option<watch::Receiver<Option<Outcome>>>>,
    /// Time of the last failed early renewal.
    failed_at: Mutex<Option<Instant>>,
    paused: Mutex<Option<Pause>>,
    /// The sign-in whose password BondMCP has rejected. The vault may have refused to store that.
    rejected: Mutex<Option<u64>>,
}

/// BondMCP's last refusal.
#[derive(Debug)]
struct Pause {
    /// Which sign-in was refused.
    generation: u64,
    /// Before this time it is not renewed.
    until: Instant,
    error: bondmcp::Error,
}

impl Renewals {
    /// Waits for the renewal in progress; starts `work` as one if there is none.
    async fn join(
        &self,
        tasks: &TaskTracker,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Outcome {
        let mut outcome = {
            let mut current = self.current.lock();
            if let Some(renewal) = current.as_ref().filter(|renewal| is_under_way(renewal)) {
                renewal.clone()
            } else {
                let (sender, receiver) = watch::channel(None);
                // In the span of the call that needs it, so that its log lines can be told from those of other calls.
                tasks.spawn(async move { sender.send_replace(Some(work.await)) }.in_current_span());
                current.insert(receiver).clone()
            }
        };
        let ended = outcome.wait_for(Option::is_some).await;
        ended.map_or(Err(Error::Interrupted), |outcome| outcome.clone().unwrap_or(Err(Error::Interrupted)))
    }

    fn has_rejected(&self, generation: u64) -> bool {
        *self.rejected.lock() == Some(generation)
    }

    fn is_under_way(&self) -> bool {
        self.current.lock().as_ref().is_some_and(is_under_way)
    }

    /// The refusal of a sign-in, or of any, that is still in effect, with the remaining wait.
    fn pause(&self, of: Option<u64>) -> Option<bondmcp::Error> {
        let paused = self.paused.lock();
        let is_of = |pause: &&Pause| of.is_none_or(|generation| generation == pause.generation);
        let Pause { until, error, .. } = paused.as_ref().filter(is_of)?;
        let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        let mut error = error.clone();
        if let bondmcp::Error::Refused(refusal) = &mut error {
            refusal.retry_after = Some(left);
        }
        Some(error)
    }

    /// Pauses the renewals of a sign-in for as long as `error` asks.
    fn pause_after(&self, error: &bondmcp::Error, generation: u64) {
        let bondmcp::Error::Refused(refusal) = error else { return };
        let is_refusal = (400..500).contains(&refusal.status);
        if let Some(pause) = refusal.retry_after.or_else(|| is_refusal.then_some(REFUSAL_PAUSE)) {
            let until = Instant::now() + pause.min(MAX_PAUSE);
            *self.paused.lock() = Some(Pause { generation, until, error: error.clone() });
        }
    }
}

fn is_under_way(renewal: &watch::Receiver<Option<Outcome>>) -> bool {
    renewal.borrow().is_none() && renewal.has_changed().is_ok()
}

/// A way to renew a session without the person.
enum RenewalMethod {
    RefreshToken(SecretString),
    Password { email: String, password: SecretString },
}

impl Account {
    /// Returns a session other than the one with the access token `stale`, which expired or was refused.
    pub(super) async fn renew(&self, stale: Option<&SecretString>) -> Outcome {
        let session = self.join_renewal(stale).await?;
        if !is(&session, stale) {
            return Ok(session);
        }
        // The joined renewal had started for an older token and returned this very one.
        self.join_renewal(stale).await
    }

    /// Renews while the session is still valid, so that no call has to wait.
    pub(super) fn renew_in_background(&self, ageing: &Session) {
        let renewals = &self.inner.renewals;
        if renewals.is_under_way()
            || renewals.failed_at.lock().is_some_and(|at| at.elapsed() < BACKGROUND_PAUSE)
        {
            return;
        }
        let (account, stale) = (self.clone(), ageing.access_token.clone());
        let work = async move {
            let outcome = account.renew(Some(&stale)).await;
            *account.inner.renewals.failed_at.lock() = outcome.is_err().then(Instant::now);
        };
        self.inner.tasks.spawn(work.in_current_span());
    }

    async fn join_renewal(&self, stale: Option<&SecretString>) -> Outcome {
        let (account, stale) = (self.clone(), stale.cloned());
        let work = async move {
            let outcome = Box::pin(account.renewal(stale.as_ref())).await;
            match &outcome {
                Ok(session) => tracing::debug!(expires_at = %session.expires_at, "the session is renewed"),
                Err(error) => tracing::debug!(%error, "the session was not renewed"),
            }
            outcome
        };
        self.inner.renewals.join(&self.inner.tasks, work).await
    }

    async fn renewal(&self, stale: Option<&SecretString>) -> Outcome {
        let holder = Uuid::new_v4().to_string();
        let began = Instant::now();
        while began.elapsed() < LEASE_WAIT_TIMEOUT {
            let memory = self.reread().await?;
            if let Some(session) = self.newer(&memory, stale) {
                tracing::debug!("another caller has renewed the session");
                return Ok(session);
            }
            self.method(&memory.record)?;
            // The environment's login is the same one after a sign-out.
            let of = self.inner.environment.login.is_none().then_some(memory.record.generation);
            if let Some(refusal) = self.inner.renewals.pause(of) {
                return Err(refusal.into());
            }
            if self.inner.store.acquire_lease(&holder).await? {
                tracing::debug!("renewing the session: this process holds the lease");
                // A lease that is lost does no harm: the vault takes only one of two new sessions.
                return self.inner.store.while_leased(&holder, Box::pin(self.renewal_as_holder(stale))).await;
            }
            tracing::debug!("another process is renewing the session");
            self.inner.store.lease_wait(memory.version).await?;
        }
        Err(Error::RenewalBusy)
    }

    async fn renewal_as_holder(&self, stale: Option<&SecretString>) -> Outcome {
        let memory = self.reread().await?;
        match self.newer(&memory, stale) {
            Some(session) => Ok(session),
            None => self.renew_upstream(&memory.record, stale).await,
        }
    }

    async fn renew_upstream(&self, record: &Record, stale: Option<&SecretString>) -> Outcome {
        let mut record = record.clone();
        loop {
            let method = self.method(&record)?;
            let answer = match &method {
                RenewalMethod::RefreshToken(token) => {
                    tracing::debug!("refreshing the session with its refresh token");
                    self.inner.client.refresh(token).await
                }
                RenewalMethod::Password { email, password } => {
                    tracing::debug!("logging in with the password");
                    self.inner.client.login(email, password).await
                }
            };
            metrics::session_renewal(match &answer {
                Ok(_) => "ok",
                Err(error) if rejects_refresh(error) || rejects_password(error) => "refused",
                Err(_) => "failed",
            });
            match (answer, method) {
                (Ok(tokens), _) => return self.store_session(tokens, &record, stale).await,
                (Err(error), RenewalMethod::RefreshToken(token)) if rejects_refresh(&error) => {
                    tracing::debug!(%error, "the refresh token is rejected");
                    record = self.forget_refresh_token(&token).await?;
                }
                (Err(error), RenewalMethod::Password { password, .. }) if rejects_password(&error) => {
                    tracing::debug!(%error, "the password is rejected");
                    *self.inner.renewals.rejected.lock() = Some(record.generation);
                    return self.forget_password(&password, stale).await;
                }
                (Err(error), _) => {
                    self.inner.renewals.pause_after(&error, record.generation);
                    return Err(error.into());
                }
            }
        }
    }

    /// Selects the method that renews the session of `record`, in order of preference.
    fn method(&self, record: &Record) -> Result<RenewalMethod, Error> {
        if let Some(token) = record.session.as_ref().and_then(|session| session.refresh_token.clone()) {
            return Ok(RenewalMethod::RefreshToken(token));
        }
        let is_rejected = self.inner.renewals.has_rejected(record.generation);
        if let Some(login) = &self.inner.environment.login {
            if is_rejected || record.rejected.as_ref().is_some_and(|rejected| rejected.matches(login)) {
                return Err(self.sign_in_required(SignInReason::EnvironmentRejected));
            }
            return Ok(RenewalMethod::Password {
                email: login.email.clone(),
                password: login.password.clone(),
            });
        }
        if let (Some(email), Some(password)) = (record.email.clone(), record.password.clone()) {
            if is_rejected {
                return Err(self.sign_in_required(SignInReason::PasswordRejected));
            }
            return Ok(RenewalMethod::Password { email, password });
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
    fn newer(&self, memory: &CachedRecord, stale: Option<&SecretString>) -> Option<Session> {
        let session = memory.record.session.as_ref()?;
        let usable = session.is_usable(self.inner.clock.now()) && !is(session, stale);
        usable.then(|| session.clone())
    }

    /// Stores the session that renewed the one of `before`. If someone signed in, signed out or renewed meanwhile,
    /// their state is kept instead.
    async fn store_session(&self, tokens: Tokens, before: &Record, stale: Option<&SecretString>) -> Outcome {
        let user = tokens.user.clone();
        let earlier = before.session.as_ref().and_then(|session| session.refresh_token.clone());
        let session = Session::new(tokens, self.inner.clock.now(), earlier);
        let change = |record: &mut Record| {
            if record.generation != before.generation || !is_session_of(before, record) {
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
        };
        // The token that this session replaces can no longer be used.
        let (stored, memory) = self.update_persistently(change).await?;
        if stored {
            return Ok(session);
        }
        // Another renewal may have stored a session of the same sign-in; this one is then left to expire.
        if memory.record.generation != before.generation
            && let Err(error) = self.inner.client.logout(&session.access_token).await
        {
            tracing::debug!(%error, "a superfluous session was not ended; it expires by itself");
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

    /// Deletes a password that the upstream rejected. It is not tried again, so that the account is not locked.
    async fn forget_password(&self, rejected: &SecretString, stale: Option<&SecretString>) -> Outcome {
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

impl std::fmt::Debug for Renewals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renewals")
    }
}

/// Whether both records have the same session, or none.
fn is_session_of(one: &Record, other: &Record) -> bool {
    match (&one.session, &other.session) {
        (Some(one), Some(other)) => secret::same(&one.access_token, &other.access_token),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn is(session: &Session, stale: Option<&SecretString>) -> bool {
    stale.is_some_and(|token| secret::same(token, &session.access_token))
}

/// Whether the refusal means that the token is invalid or that this upstream does not refresh tokens. After an outage
/// the same token may still work.
fn rejects_refresh(error: &bondmcp::Error) -> bool {
    error
        .status()
        .is_some_and(|status| (400..500).contains(&status) && !matches!(status, 408 | 425 | 429 | 499))
}

/// Whether the same password would be refused again. An address that is not verified yet is the exception.
fn rejects_password(error: &bondmcp::Error) -> bool {
    matches!(error.status(), Some(400 | 401 | 403 | 422)) && !error.is_not_verified()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;
    use crate::clock::Timestamp;

    fn session() -> Session {
        Session {
            access_token: "token".into(),
            obtained_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            obtained_by_vault: None,
            refresh_token: None,
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_renewal_is_an_error_for_those_who_wait_and_the_next_call_renews() {
        let (renewals, tasks) = (Renewals::default(), TaskTracker::new());
        let interrupted = renewals.join(&tasks, async { panic!("a renewal that fails badly") }).await;
        assert!(matches!(interrupted, Err(Error::Interrupted)), "{interrupted:?}");
        renewals.join(&tasks, async { Ok(session()) }).await.unwrap();
    }

    #[tokio::test]
    async fn those_who_ask_during_a_renewal_get_its_outcome_and_those_who_ask_later_get_a_new_one() {
        let (renewals, tasks) = (Renewals::default(), TaskTracker::new());
        let go_on = Arc::new(Notify::new());
        let waiting = Arc::clone(&go_on);
        let first = renewals.join(&tasks, async move {
            waiting.notified().await;
            Ok(session())
        });
        let second = renewals.join(&tasks, async { panic!("no second renewal is made") });
        let (first, second, ()) = tokio::join!(first, second, async { go_on.notify_one() });
        assert!(first.is_ok() && second.is_ok());
        let later = renewals.join(&tasks, async { Err(Error::RenewalBusy) }).await;
        assert!(matches!(later, Err(Error::RenewalBusy)));
    }
}
