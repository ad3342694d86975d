//! What becomes of a grant that has ended: its credential is deleted here at once, its API key is revoked at BondMCP, and
//! nothing is left of it. Revoking needs a session of the person; without one, the key waits in a record of the person
//! for the next session. A sweep finds what was interrupted.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::{Mutex, MutexGuard};
use tracing::Instrument as _;

use super::{Hosted, browser::Browser};
use crate::{
    account::{self, Account, Leftovers, Owner},
    oauth::{Grant, Subject},
    vault::{self, Next, RecordKind},
};

/// The keys of a person that wait to be revoked.
pub(super) const REVOCATIONS: RecordKind = RecordKind::new("revocations");

/// How long the record of a person is kept when nothing waits any more. Were it deleted, its versions would begin anew, and
/// a late change by another replica would hit the next one.
const EMPTIED_FOR: Duration = Duration::from_hours(1);

/// How far a grant that has ended is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// Nothing is left of it.
    Entirely,
    /// An API key waits to be revoked at BondMCP: its owner must sign in again for that.
    UntilSignIn,
    /// A sweep repeats it.
    Not,
}

/// What is held while the keys of a person are revoked, so that no key is at once revoked twice.
#[derive(Debug, Default)]
pub(super) struct Turn {
    held: Mutex<()>,
    /// The browsers for which somebody waits.
    waiting: parking_lot::Mutex<HashSet<String>>,
}

impl Turn {
    /// Waits for the turn; `None` if somebody waits for it with the session of the same browser, and will do the same. Whoever
    /// has it may not: it may have another session, and does not know of keys that were added since.
    async fn lock_once_for(&self, browser: String) -> Option<MutexGuard<'_, ()>> {
        if !self.waiting.lock().insert(browser.clone()) {
            return None;
        }
        let turn = self.held.lock().await;
        self.waiting.lock().remove(&browser);
        Some(turn)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Account(#[from] account::Error),
    #[error(transparent)]
    Vault(#[from] vault::Error),
}

impl Hosted {
    /// Revokes the API key of an ended grant, ends its session, and forgets its account. What cannot be done now is done
    /// by a later [`sweep`](Self::sweep), or when the person signs in again.
    pub async fn release(&self, grant: &Grant) -> Released {
        self.released(grant).await.unwrap_or_else(|error| {
            tracing::warn!(%error, reference = grant.reference, "a grant has ended and is not released yet; this is repeated");
            Released::Not
        })
    }

    /// Each step can be repeated, and the record of the grant goes last: it leads a sweep here after a crash.
    async fn released(&self, grant: &Grant) -> Result<Released, Error> {
        let server = &self.inner.server;
        // Nothing of a grant that lives is ever released.
        if server.live_grant(&grant.id).await?.is_some() {
            return Ok(Released::Not);
        }
        let account = self.inner.accounts.open(&grant.owner());
        let left = self.released_account(&account, &grant.subject).await?;
        let waits = !left.keys.is_empty() && self.revocations(&grant.subject).await?.is_some();
        account.forget_grant(&left).await?;
        server.forget_grant(grant).await?;
        if waits {
            tracing::warn!(
                key_ids = ?left.keys,
                reference = grant.reference,
                "API keys of a grant that has ended are revoked when the person signs in again"
            );
            self.step_of(grant, "ended; its key waits to be revoked").await;
            return Ok(Released::UntilSignIn);
        }
        self.step_of(grant, "ended; its key is revoked").await;
        Ok(Released::Entirely)
    }

    /// Releases the account of a grant. Returns what waited for a session of the person.
    pub(super) async fn released_account(
        &self,
        account: &Account,
        person: &Subject,
    ) -> Result<Leftovers, Error> {
        let left = account.release().await?;
        if !left.is_empty() {
            self.add_revocations(person, left.clone()).await?;
            // Another app of the person may have a session.
            if let Err(error) = self.settle(person).await {
                tracing::warn!(%error, key_ids = ?left.keys, "an API key is not revoked yet");
            }
        }
        Ok(left)
    }

    async fn add_revocations(&self, subject: &Subject, left: Leftovers) -> Result<(), vault::Error> {
        let add = |waiting: Option<Leftovers>| {
            let mut waiting = waiting.unwrap_or_default();
            waiting.add(left.clone());
            (Next::Write(waiting, None), ())
        };
        self.inner.server.records().change(REVOCATIONS, subject.as_str(), add).await
    }

    /// Revokes the keys of the person that wait for that, with the session of any grant that has one.
    pub(super) async fn settle(&self, subject: &Subject) -> Result<(), Error> {
        if self.revocations(subject).await?.is_none() {
            return Ok(());
        }
        for grant in self.inner.server.grants_of(subject).await? {
            let account = self.inner.accounts.open(&grant.owner());
            if account.has_live_session().await? {
                let turn = self.settling(subject);
                let _turn = turn.held.lock().await;
                let Some(waiting) = self.revocations(subject).await? else { return Ok(()) };
                let (done, outcome) = account.revoke_leftovers(waiting).await?;
                self.remove_revocations(subject, &done).await?;
                return Ok(outcome?);
            }
        }
        Ok(())
    }

    /// Revokes the keys that wait for the person who has signed in in a browser. Nobody waits for that.
    pub(super) fn settle_in_background(&self, browser: &Browser) {
        let (hosted, browser) = (self.clone(), browser.clone());
        let work = async move {
            if let Err(error) = hosted.settle_in(&browser).await {
                tracing::warn!(%error, "API keys of grants that have ended are not revoked yet");
            }
        };
        tokio::spawn(work.in_current_span());
    }

    async fn settle_in(&self, browser: &Browser) -> Result<(), Error> {
        let Some((subject, session)) = self.inner.browsers.session(browser).await? else { return Ok(()) };
        let turn = self.settling(&subject);
        let Some(_turn) = turn.lock_once_for(browser.sign_in_binding()).await else { return Ok(()) };
        let Some(waiting) = self.revocations(&subject).await? else { return Ok(()) };
        let (done, outcome) = self.inner.accounts.authenticator().revoke_leftovers(&session, &waiting).await;
        self.remove_revocations(&subject, &done).await?;
        Ok(outcome?)
    }

    fn settling(&self, subject: &Subject) -> Arc<Turn> {
        self.inner.settling.get_or_open(&Owner::Subject(subject.as_str().to_owned()), Turn::default)
    }

    async fn revocations(&self, subject: &Subject) -> Result<Option<Leftovers>, vault::Error> {
        let found = self.inner.server.records().read::<Leftovers>(REVOCATIONS, subject.as_str()).await?;
        Ok(found.map(|found| found.value).filter(|waiting| !waiting.is_empty()))
    }

    async fn remove_revocations(&self, subject: &Subject, done: &Leftovers) -> Result<(), vault::Error> {
        let remove = |waiting: Option<Leftovers>| {
            let Some(mut waiting) = waiting else { return (Next::Keep, ()) };
            waiting.remove(done);
            let lifetime = waiting.is_empty().then_some(EMPTIED_FOR);
            (Next::Write(waiting, lifetime), ())
        };
        self.inner.server.records().change(REVOCATIONS, subject.as_str(), remove).await
    }
}
