//! The intents to change keys. An intent is recorded before the request, and has a lease for as long as its process is at
//! work on it, so that no other process takes it for one that a crash has left. Where the answer was lost, the lease is left
//! to expire: BondMCP may still make the key.

use std::{collections::HashSet, time::Duration};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Account, Error,
    record::{ManagedKey, Record},
};
use crate::{
    bondmcp::wire::{NewApiKey, Permission},
    clock::Timestamp,
    secret,
    vault::{RecordId, RecordKind},
};

/// What the lease of an intent is on.
const KIND: RecordKind = RecordKind::new("intent");

/// Lifetime of that lease without a heartbeat: the longest time that the others wait for a dead process. A short outage of
/// the vault does not end it.
const LEASE: Duration = Duration::from_mins(2);

/// How long BondMCP may still be at work on a request whose answer was lost, by the clock of whoever looks.
const PROCESSED_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// The intent to create a key, recorded before the request so that a crash leaves a trace.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Intent {
    /// Random id of the intent, made here.
    pub id: String,
    pub name: String,
    pub started_at: Timestamp,
    /// The key ids that the upstream listed before the request.
    pub before: Vec<String>,
    /// Id of the key that the new one replaces.
    #[serde(default)]
    pub replaces: Option<String>,
    /// Whether that key itself gets a new value.
    #[serde(default)]
    pub regenerates: bool,
    /// Id of the new key, once it is stored.
    #[serde(default)]
    pub made: Option<String>,
    /// Ids of keys that this intent probably created and whose values are lost; found after a crash.
    #[serde(default)]
    pub orphans: Vec<String>,
    /// Whether the person has had the values of keys forgotten since: that of the new key is not stored.
    #[serde(default)]
    pub forgotten: bool,
}

/// What became of the value of a key that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    Yes,
    /// The grant has ended meanwhile; the key is to be revoked.
    GrantEnded,
    /// The person has had the values forgotten meanwhile, or another one has signed in.
    Forgotten,
    /// Another value is stored under the key's id, and stays.
    Taken,
}

impl Intent {
    pub fn new(name: &str, started_at: Timestamp, before: Vec<String>, replaces: Option<&str>) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            name: name.to_owned(),
            started_at,
            before,
            replaces: replaces.map(ToOwned::to_owned),
            regenerates: false,
            made: None,
            orphans: vec![],
            forgotten: false,
        }
    }

    /// Whether an answer about key `id` is about another key: one that existed before and is not the one that is replaced.
    pub fn is_about_another(&self, id: &str) -> bool {
        self.replaces.as_deref() != Some(id) && self.before.iter().any(|known| known == id)
    }

    /// Whether the request may be under way, or BondMCP at work on it. `abandoned` are the intents that no process is at
    /// work on.
    pub fn is_in_progress(&self, now: Timestamp, abandoned: &HashSet<String>) -> bool {
        // A date in the future is that of a wrong clock, and says nothing.
        (now - self.started_at).abs() <= PROCESSED_WITHIN || !abandoned.contains(&self.id)
    }
}

impl Account {
    /// Records `intent`, then runs `work`, which is given the e-mail address of the account that it is for.
    pub(super) async fn carry_out<T, Work: Future<Output = Result<T, Error>>>(
        &self,
        intent: &Intent,
        work: impl FnOnce(Option<String>) -> Work,
    ) -> Result<T, Error> {
        let (vault, lease) = (self.inner.store.vault().await?, self.intent_lease(&intent.id));
        vault.acquire_lease(&lease, &intent.id, LEASE).await?;
        let recorded_and_carried_out = async {
            let begin = |record: &mut Record| {
                record.check_open()?;
                record.intents.push(intent.clone());
                Ok(record.email.clone())
            };
            let (email, _) = self.update(begin).await?;
            work(email).await
        };
        let outcome =
            vault.keeping_lease(&lease, &intent.id, LEASE, Box::pin(recorded_and_carried_out)).await;
        // A key that BondMCP may still make is not known yet, and by the clock of another process it may be too late for it.
        // One that was found may be another program's.
        let may_still_be_made =
            matches!(&outcome, Err(Error::CreateLost { cause, .. }) if cause.leaves_key_unknown());
        if !may_still_be_made {
            vault.end_lease(&lease, &intent.id).await;
        }
        outcome
    }

    /// Returns the ids of those intents of `record` that no process is at work on. The database's clock decides: those of
    /// two processes may differ.
    pub(super) async fn abandoned_intents(&self, record: &Record) -> Result<HashSet<String>, Error> {
        let mut abandoned = HashSet::new();
        for Intent { id, .. } in &record.intents {
            if !self.inner.store.vault().await?.is_leased(&self.intent_lease(id)).await? {
                abandoned.insert(id.clone());
            }
        }
        Ok(abandoned)
    }

    fn intent_lease(&self, id: &str) -> RecordId {
        let store = &self.inner.store;
        RecordId { owner: format!("{id}:{}", store.id.owner), ..store.id_of(KIND) }
    }

    pub(super) async fn end_intent(&self, id: &str) -> Result<(), Error> {
        let end = |record: &mut Record| {
            record.end_intent(id);
            Ok(())
        };
        self.update(end).await.map(|_| ())
    }
}

impl Record {
    pub fn end_intent(&mut self, id: &str) {
        self.intents.retain(|intent| intent.id != id);
    }

    /// Stores a key that was made for the account with the address `email`. Can be repeated. The intent of a rotation stays
    /// until the old key is revoked, unless it was that key that got a new value.
    pub fn store_made(
        &mut self,
        key: &NewApiKey,
        permissions: &[Permission],
        intent: &Intent,
        email: Option<&str>,
    ) -> Stored {
        if !self.keeps_made(&key.id, &intent.id, email) {
            return Stored::Forgotten;
        }
        if self.has_another_value(key, intent) {
            return Stored::Taken;
        }
        // Calls go on with the key of that id, if it was the one in use.
        self.keys.retain(|known| known.id != key.id);
        self.keys.push(ManagedKey::new(key, permissions));
        if self.revoke_if_ended() {
            self.end_intent(&intent.id);
            return Stored::GrantEnded;
        }
        match self.intents.iter_mut().find(|known| known.id == intent.id) {
            Some(rotation) if rotation.replaces.as_ref().is_some_and(|old| *old != key.id) => {
                rotation.made = Some(key.id.clone());
                // Another process may have checked the intents after the key was created and before it was stored.
                rotation.orphans.clear();
            }
            _ => self.end_intent(&intent.id),
        }
        Stored::Yes
    }

    /// Whether key `made` comes into this record. If the person has had the values forgotten since, it does not, and the
    /// intent names it instead. An intent that is gone was carried out already, or taken for abandoned.
    pub fn keeps_made(&mut self, made: &str, intent: &str, email: Option<&str>) -> bool {
        if self.check_open().is_err() {
            // It is to be revoked.
            return true;
        }
        match self.intents.iter_mut().find(|known| known.id == intent) {
            Some(intent) if intent.forgotten => {
                intent.orphans = vec![made.to_owned()];
                false
            }
            Some(_) => true,
            None => matches!((&self.email, email), (Some(now), Some(then)) if now.eq_ignore_ascii_case(then)),
        }
    }

    /// Whether a value other than that of `new` is stored under its id, although `intent` does not replace that key. BondMCP
    /// need not have listed it before, and it may have been stored since. The same value is what this has stored itself.
    pub fn has_another_value(&self, new: &NewApiKey, intent: &Intent) -> bool {
        intent.replaces.as_deref() != Some(new.id.as_str())
            && self.key(&new.id).is_some_and(|stored| !secret::same(&stored.secret, &new.api_key))
    }

    /// Deletes the values of keys, and whose account it is. A key that is being made meanwhile belongs to this person and
    /// must have a trace: as long as there is one, the account stays theirs.
    pub fn forget(&mut self, now: Timestamp, abandoned: &HashSet<String>, is_a_subjects: bool) {
        let Self { email, user_id, generation, mut intents, grant, .. } = std::mem::take(self);
        // A key that was found already has been named to the person: nothing more is to be found.
        let is_settled = |intent: &Intent| !intent.orphans.is_empty() && abandoned.contains(&intent.id);
        intents.retain(|intent| {
            intent.made.is_none() && intent.is_in_progress(now, abandoned) && !is_settled(intent)
        });
        for intent in &mut intents {
            intent.forgotten = true;
        }
        let email = email.filter(|_| !intents.is_empty());
        let user_id = user_id.filter(|_| is_a_subjects);
        *self = Self { email, user_id, generation, intents, grant, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::grant::{GrantState, Phase};

    const ADA: Option<&str> = Some("ada@example.com");

    fn stored_in(record: &mut Record) -> Stored {
        let key = serde_json::json!({"id": "key_1", "name": "ci", "api_key": "value"});
        let gone = Intent::new("ci", Timestamp::UNIX_EPOCH, vec![], None);
        record.store_made(&serde_json::from_value(key).unwrap(), &[], &gone, ADA)
    }

    #[test]
    fn without_its_intent_a_key_is_stored_for_whom_it_was_made_alone() {
        let of = |email: Option<&str>| Record { email: email.map(Into::into), ..Record::default() };
        let mut ada = of(Some("Ada@example.com"));
        for _ in 0..2 {
            assert_eq!((stored_in(&mut ada), ada.keys.len()), (Stored::Yes, 1));
        }
        for email in [None, Some("grace@example.com")] {
            let mut other = of(email);
            assert_eq!((stored_in(&mut other), other.keys.len()), (Stored::Forgotten, 0));
        }
    }

    /// BondMCP may still create a key after the process that asked for it is gone.
    #[test]
    fn forgetting_keeps_the_trace_of_a_key_that_may_still_be_made() {
        let now = Timestamp::UNIX_EPOCH + TimeDelta::hours(1);
        let intent =
            |id: &str, age: TimeDelta| Intent { id: id.into(), ..Intent::new("ci", now - age, vec![], None) };
        let (new, old) = (TimeDelta::seconds(1), PROCESSED_WITHIN + TimeDelta::seconds(1));
        let found = Intent { orphans: vec!["key_1".into()], ..intent("found", new) };
        let future = intent("future", -TimeDelta::days(1));
        let intents = vec![intent("new", new), intent("old", old), intent("at work", old), found, future];
        let mut record = Record { email: ADA.map(Into::into), intents, ..Record::default() };
        let abandoned = ["new", "old", "found", "future"].map(Into::into).into();
        record.forget(now, &abandoned, false);
        let kept: Vec<_> = record.intents.iter().map(|intent| (&*intent.id, intent.forgotten)).collect();
        assert_eq!(kept, [("new", true), ("at work", true)]);
        assert_eq!(record.email.as_deref(), ADA);
    }

    #[test]
    fn a_key_that_comes_after_its_grant_was_forgotten_is_to_be_revoked() {
        let forgotten = GrantState { phase: Phase::Forgotten, ..GrantState::default() };
        let mut record = Record { grant: Some(Box::new(forgotten)), ..Record::default() };
        assert_eq!((stored_in(&mut record), record.keys.len()), (Stored::GrantEnded, 0));
        let grant = record.grant.unwrap();
        assert_eq!((grant.phase, grant.to_revoke), (Phase::Ended, vec!["key_1".to_owned()]));
    }
}
