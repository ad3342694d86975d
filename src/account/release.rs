//! Ending the grant of an account: the values of its keys are deleted at once, then the keys are revoked at BondMCP.
//! That needs a session; without one, what is left is for the person's next sign-in. Every step can be repeated, so a
//! crash loses nothing.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Account, Accounts, Error, Owner,
    grant::{GrantState, Phase},
    intent::Intent,
    reconcile,
    record::Record,
};
use crate::{
    bondmcp::wire::ApiKey,
    clock::Timestamp,
    vault::{self, RecordId, RecordKind},
};

/// How long the account of an ended grant refuses to be used again. Calls and sign-in pages that began before the end
/// are over by then.
pub const FORGOTTEN_FOR: Duration = Duration::from_hours(1);

/// Keys at BondMCP that nobody uses any more and that are not revoked yet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Leftovers {
    /// Ids of keys.
    pub keys: Vec<String>,
    /// Requests that may have created a key; it is found by its name.
    intents: Vec<Intent>,
}

impl Leftovers {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.intents.is_empty()
    }

    /// Revokes the keys, and those that BondMCP lists and that the requests have probably created. Returns what was seen
    /// to, and the first failure: a key that cannot be revoked keeps no other one.
    pub(super) async fn revoke<Revoked: Future<Output = Result<(), Error>>>(
        &self,
        list: impl Future<Output = Result<Vec<ApiKey>, Error>>,
        revoke: impl Fn(String) -> Revoked,
    ) -> (Self, Result<(), Error>) {
        let (mut done, mut outcome) = (Self::default(), Ok(()));
        let listed = match if self.intents.is_empty() { Ok(vec![]) } else { list.await } {
            Ok(listed) => listed,
            Err(error) => return (done, Err(error)),
        };
        let created = self.intents.iter().flat_map(|intent| reconcile::orphans(intent, &listed, &[]));
        for id in self.keys.iter().cloned().chain(created) {
            match revoke(id.clone()).await {
                Err(error) if !error.is_not_found() => outcome = outcome.and(Err(error)),
                _ => {
                    tracing::info!(key_id = id, "the API key of a grant that has ended is revoked");
                    done.keys.push(id);
                }
            }
        }
        if outcome.is_ok() {
            done.intents.clone_from(&self.intents);
        }
        (done, outcome)
    }

    /// Adds those of another grant.
    pub fn add(&mut self, others: Self) {
        for key in others.keys {
            if !self.keys.contains(&key) {
                self.keys.push(key);
            }
        }
        for intent in others.intents {
            if self.intents.iter().all(|known| known.id != intent.id) {
                self.intents.push(intent);
            }
        }
    }

    /// Removes those that were seen to.
    pub fn remove(&mut self, done: &Self) {
        self.keys.retain(|key| !done.keys.contains(key));
        self.intents.retain(|intent| done.intents.iter().all(|other| other.id != intent.id));
    }
}

impl Account {
    /// Ends the grant of this account: deletes the values of its keys, and revokes them at BondMCP and ends its session as
    /// far as there is one. Returns what is left for the person's next sign-in. Fails if BondMCP or the vault cannot be
    /// reached; then this is to be repeated.
    pub async fn release(&self) -> Result<Leftovers, Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            let (now, before) = (account.now(), account.reread().await?);
            let abandoned = account.abandoned_intents(&before.record).await?;
            // Written even where nothing is stored: the account of a new grant may be about to be opened.
            let ((), memory) = account
                .update(|record| {
                    end(record, now, &abandoned);
                    Ok(())
                })
                .await?;
            account.clear_model_cache();
            match account.revoke_own(&leftovers(&memory.record)).await {
                Err(error) if !needs_the_person(&error) => return Err(error),
                _ => {}
            }
            let memory = account.reread().await?;
            let abandoned = account.abandoned_intents(&memory.record).await?;
            if memory.record.intents.iter().any(|intent| intent.is_in_progress(now, &abandoned)) {
                // Whoever makes the key has not stored it yet.
                return Err(Error::Interrupted);
            }
            let left = leftovers(&memory.record);
            account.sign_out(false).await?;
            Ok(left)
        })
        .await
    }

    /// Deletes what is left of a grant that is released, and what it has spent. Fails if that is more than `left`, which the
    /// caller has seen to: a key came late. Then the grant is to be released again.
    pub async fn forget_grant(&self, left: &Leftovers) -> Result<(), Error> {
        let (account, left) = (self.clone(), left.clone());
        self.run_to_completion(async move {
            if account.reread().await?.version > 0 {
                let change = |record: &mut Record| {
                    let mut late = leftovers(record);
                    late.remove(&left);
                    if !late.is_empty() {
                        return Err(Error::Interrupted);
                    }
                    forget(record);
                    Ok(())
                };
                account.update(change).await?;
            }
            account.inner.spending.forget().await
        })
        .await
    }

    /// Revokes keys of other grants of the same person, with the session of this account. Returns what was seen to, and
    /// the first failure.
    pub async fn revoke_leftovers(&self, left: Leftovers) -> Result<(Leftovers, Result<(), Error>), Error> {
        let account = self.clone();
        self.run_to_completion(async move { Ok(account.revoke(&left).await) }).await
    }

    async fn revoke_own(&self, left: &Leftovers) -> Result<(), Error> {
        let (revoked, outcome) = self.revoke(left).await;
        let (now, abandoned) = (self.now(), self.abandoned_intents(&self.reread().await?.record).await?);
        let done = |record: &mut Record| {
            let is_done = |intent: &Intent| revoked.intents.iter().any(|known| known.id == intent.id);
            record.intents.retain(|intent| !is_done(intent) || intent.is_in_progress(now, &abandoned));
            if let Some(grant) = &mut record.grant {
                grant.to_revoke.retain(|id| !revoked.keys.contains(id));
            }
            Ok(())
        };
        self.update(done).await?;
        outcome
    }

    async fn revoke(&self, left: &Leftovers) -> (Leftovers, Result<(), Error>) {
        left.revoke(self.upstream_keys(), |id| async move { self.revoke_upstream(&id).await }).await
    }
}

impl Accounts {
    /// Returns the owners of the accounts whose grants by this issuer have ended and that are not forgotten. Reads all
    /// accounts: for sweeps.
    pub async fn to_be_released(&self, issuer: &str) -> Result<Vec<Owner>, Error> {
        let (origin, vault) = (self.authenticator().upstream().as_str().to_owned(), self.vault().await?);
        let is_left = |record: &Record| {
            record.grant.as_ref().is_some_and(|grant| grant.phase == Phase::Ended && grant.issuer == issuer)
        };
        let owner_to_release = |id: RecordId, sealed: vault::Record| {
            let subject = id.owner.strip_prefix("subject:").filter(|_| id.origin == origin)?;
            let record = Record::from_bytes(&sealed.plaintext)?;
            is_left(&record).then(|| Owner::Subject(subject.to_owned()))
        };
        Ok(vault.select(&RecordKind::ACCOUNT, true, owner_to_release).await?)
    }
}

impl Record {
    /// Where the grant of the account has ended, deletes the values of the keys that were made meanwhile: they are to be
    /// revoked. Returns whether it has ended.
    pub fn revoke_if_ended(&mut self) -> bool {
        let has_ended = self.check_open().is_err();
        if has_ended {
            self.delete_keys();
        }
        has_ended
    }

    fn delete_keys(&mut self) {
        let keys = self.keys.drain(..).map(|key| key.id);
        let grant = self.grant.get_or_insert_default();
        for id in keys {
            if !grant.to_revoke.contains(&id) {
                grant.to_revoke.push(id);
            }
        }
        // It was forgotten too early: something is left of it after all.
        grant.phase = Phase::Ended;
        self.active_key = None;
    }
}

/// Ends the grant: nothing can be done with its account any more but revoking what was made.
fn end(record: &mut Record, now: Timestamp, abandoned: &HashSet<String>) {
    (record.own_key, record.password) = (None, None);
    record.generation += 1;
    record.delete_keys();
    let Record { grant, intents, .. } = record;
    intents.retain(|intent| {
        let is_the_grants = grant.as_ref().is_some_and(|grant| grant.made(&intent.name));
        let is_kept = is_the_grants || intent.is_in_progress(now, abandoned);
        if !is_kept && intent.made.is_none() && !intent.regenerates {
            // A replacement for a key of the person has that key's name, so it cannot be told from others.
            tracing::warn!(key_ids = ?intent.orphans, "API keys that an app has created may be left at BondMCP");
        }
        is_kept
    });
}

fn leftovers(record: &Record) -> Leftovers {
    let Some(grant) = &record.grant else { return Leftovers::default() };
    let intents = record.intents.iter().filter(|intent| grant.made(&intent.name));
    Leftovers { keys: grant.to_revoke.clone(), intents: intents.cloned().collect() }
}

fn forget(record: &mut Record) {
    // A key that comes late is revoked by the server that made the grant.
    let issuer = record.grant.take().map(|grant| grant.issuer).unwrap_or_default();
    let grant = Box::new(GrantState { issuer, phase: Phase::Forgotten, ..GrantState::default() });
    *record = Record { generation: record.generation + 1, grant: Some(grant), ..Record::default() };
}

/// Whether nothing can be done before the person signs in.
fn needs_the_person(error: &Error) -> bool {
    matches!(error, Error::SignInRequired { .. }) || error.is_unauthorized()
}
