//! The account of a grant: what a person has allowed an app has an API key of its own, whose name no other key has, and
//! a limit on what it spends. The grant is complete once it has what its calls are made with; one that is not was
//! interrupted.

use std::time::Duration;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::{
    Account, Authenticated, Error, Usd, intent::Intent, record::Record, release::FORGOTTEN_FOR,
    session::Session,
};
use crate::{
    bondmcp::wire::{CreateApiKey, Permission},
    text::excerpt,
};

/// What an account has because it is a grant's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct GrantState {
    /// The server that made the grant. Others may share the vault and the BondMCP, and do not know the grant.
    pub issuer: String,
    /// Limit on what is spent in a day.
    pub daily_limit: Usd,
    /// Name of the API key that is created for the grant. It is unique, so that the key is found after a crash.
    pub key_name: String,
    /// Id of that key; `None` where the plan allows none.
    pub key_id: Option<String>,
    pub phase: Phase,
    /// Ids of the keys that are to be revoked at BondMCP. Their values are deleted.
    pub to_revoke: Vec<String>,
}

/// How far a grant is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has no credential yet.
    #[default]
    Begun,
    Complete,
    /// It has ended: its account does nothing but revoke its keys.
    Ended,
    /// Nothing is left of it.
    Forgotten,
}

/// What a grant's account is made of.
#[derive(Clone, Debug)]
pub struct NewGrant {
    /// The server that makes the grant.
    pub issuer: String,
    /// Name of the grant's API key, at most 100 characters. No other key may have it.
    pub key_name: String,
    pub permissions: Vec<Permission>,
    pub daily_limit: Usd,
}

/// The longest part of a key's name that an app has chosen, in characters: with the rest it has at most 100.
const MAX_CHOSEN_CHARS: usize = 70;

/// Number of characters of an authorization's reference.
const REFERENCE_CHARS: usize = 8;

/// Number of characters of a grant's id in the name of its key.
const GRANT_CHARS: usize = 8;

/// Returns the name of a grant's API key: words for the person, the date, the reference of the authorization, and the
/// start of the grant's id. One authorization makes several grants if the person tries again.
#[must_use]
pub fn grant_key_name(words: &str, date: NaiveDate, reference: &str, grant: &str) -> String {
    format!("{words} {date} {reference}-{grant:.GRANT_CHARS$}")
}

/// Returns what a name that [`grant_key_name`] made has in common with those of all keys of the grant, and with no other.
fn grant_mark(name: &str) -> Option<&str> {
    let mut parts = name.rsplitn(3, ' ');
    let (mark, date) = (parts.next()?, parts.next()?);
    let (reference, grant) = mark.split_once('-')?;
    let is_reference = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let is_mark = reference.len() == REFERENCE_CHARS
        && reference.chars().all(is_reference)
        && grant.len() == GRANT_CHARS
        && grant.chars().all(|c| c.is_ascii_hexdigit())
        && date.parse::<NaiveDate>().is_ok();
    is_mark.then_some(mark)
}

impl GrantState {
    /// Whether the key with this name at BondMCP was created for the grant.
    pub fn made(&self, name: &str) -> bool {
        name == self.key_name || grant_mark(name).is_some_and(|mark| grant_mark(&self.key_name) == Some(mark))
    }
}

impl Account {
    /// Makes this the account of a grant: it adopts the session of whoever agreed to it and creates the grant's API key
    /// with it. Where the plan allows no further key, calls use the session. If this fails, the account is to be
    /// [released](Self::release).
    pub async fn open_grant(&self, authenticated: Authenticated, mut new: NewGrant) -> Result<(), Error> {
        // The app has chosen a part of it.
        new.key_name = self.listed_name(&new.key_name);
        let account = self.clone();
        self.run_to_completion(async move {
            let begin = |record: &mut Record| {
                record.check_open()?;
                let grant = GrantState {
                    issuer: new.issuer.clone(),
                    daily_limit: new.daily_limit,
                    key_name: new.key_name.clone(),
                    ..GrantState::default()
                };
                record.grant = Some(Box::new(grant));
                Ok(())
            };
            account.update(begin).await?;
            account.adopt(authenticated, false).await?;
            let wanted = CreateApiKey { name: new.key_name, description: None, permissions: new.permissions };
            let key = match account.create_key(wanted).await {
                Ok(key) => Some(key.id),
                // With the session nothing is lost, so any limit will do.
                Err(Error::Upstream(error)) if error.may_be_about_key_limit() => None,
                Err(error) => return Err(error),
            };
            let complete = |record: &mut Record| {
                record.check_open()?;
                if let Some(grant) = &mut record.grant {
                    grant.phase = Phase::Complete;
                    grant.key_id.clone_from(&key);
                    record.active_key.clone_from(&key);
                }
                Ok(())
            };
            account.update(complete).await.map(|_| ())
        })
        .await
    }

    /// Whether the account has a session that can be used now or refreshed.
    pub async fn has_live_session(&self) -> Result<bool, Error> {
        let memory = self.reread().await?;
        let is_live =
            |session: &Session| session.is_usable(self.inner.clock.now()) || session.refresh_token.is_some();
        Ok(memory.record.session.as_ref().is_some_and(is_live))
    }

    /// Fails if this account is a grant's and the key with this name was created for another grant: it is another app's.
    pub async fn check_not_of_another_grant(&self, name: &str) -> Result<(), Error> {
        match &self.record().await?.record.grant {
            Some(grant) if grant_mark(name).is_some() && !grant.made(name) => {
                Err(Error::OtherGrantKey { page: None })
            }
            _ => Ok(()),
        }
    }

    /// Whether calls are made with another key than the one that was created for the grant: its app has chosen it.
    pub async fn uses_chosen_key(&self) -> Result<bool, Error> {
        let record = &self.record().await?.record;
        Ok(record.grant.is_some() && record.active_key.as_deref().is_some_and(|id| !record.is_grant_key(id)))
    }

    /// Fails if key `id` is the one that was created for the grant, or takes its place: it ends with the grant, by the
    /// person's decision.
    pub async fn check_not_the_grants_key(&self, id: &str) -> Result<(), Error> {
        let memory = self.record().await?;
        if memory.record.is_grant_key(id) { Err(Error::GrantKey { page: None }) } else { Ok(()) }
    }
}

impl Record {
    /// Returns the name for a new key: that of a grant's says whose it is, so that no other app ends it.
    pub fn name_of_new_key(&self, name: String, date: NaiveDate) -> String {
        let of_a_grant = self.grant.as_ref().filter(|grant| !grant.made(&name));
        match of_a_grant.and_then(|grant| grant_mark(&grant.key_name)) {
            Some(mark) => format!("{} {date} {mark}", excerpt(&name, MAX_CHOSEN_CHARS)),
            None => name,
        }
    }

    fn is_grant_key(&self, id: &str) -> bool {
        let Some(key) = self.grant.as_ref().and_then(|grant| grant.key_id.as_deref()) else { return false };
        let replaces_it =
            |intent: &Intent| intent.replaces.as_deref() == Some(key) && intent.made.as_deref() == Some(id);
        key == id || self.intents.iter().any(replaces_it)
    }

    /// Fails if the account was that of a grant that has ended.
    pub fn check_open(&self) -> Result<(), Error> {
        match self.grant.as_ref().map(|grant| grant.phase) {
            Some(Phase::Ended | Phase::Forgotten) => Err(Error::GrantEnded),
            _ => Ok(()),
        }
    }

    /// How long the record is kept; always, unless nothing is left of its grant.
    pub fn lifetime(&self) -> Option<Duration> {
        let phase = self.grant.as_ref().map(|grant| grant.phase);
        (phase == Some(Phase::Forgotten)).then_some(FORGOTTEN_FOR)
    }

    /// Makes `new` the grant's key if `old` was it.
    pub fn replace_grant_key(&mut self, old: &str, new: &str) {
        if let Some(grant) = &mut self.grant
            && grant.key_id.as_deref() == Some(old)
        {
            grant.key_id = Some(new.to_owned());
        }
    }

    /// Makes calls use the grant's key, if there is one and no other was chosen: whoever signs in again after signing out
    /// has it back.
    pub fn use_grant_key(&mut self) {
        if let Some(id) = self.grant.as_ref().and_then(|grant| grant.key_id.clone())
            && self.active_key.is_none()
            && self.key(&id).is_some()
        {
            self.active_key = Some(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_grant_is_known_by_its_name() {
        let name = grant_key_name("Claude (claude.ai)", NaiveDate::default(), "K7QM2RTX", "0123456789abcdef");
        assert_eq!(name, "Claude (claude.ai) 1970-01-01 K7QM2RTX-01234567");
        assert_eq!(grant_mark(&name), Some("K7QM2RTX-01234567"));
        for other in [
            "",
            "ci",
            "K7QM2RTX-01234567",
            "ci K7QM2RTX-01234567",
            "ci 2026-01-01 K7QM2RTX-0123456",
            "ci 2026-01-01",
        ] {
            assert_eq!(grant_mark(other), None, "{other}");
        }
        let grant = Box::new(GrantState { key_name: name.clone(), ..GrantState::default() });
        let record = Record { grant: Some(grant), ..Record::default() };
        let name_of = |name: &str| record.name_of_new_key(name.to_owned(), NaiveDate::default());
        assert_eq!(name_of("ci"), "ci 1970-01-01 K7QM2RTX-01234567");
        for own in [&name, &name_of("ci")] {
            assert_eq!(name_of(own), *own);
        }
        let others = "ci 2026-01-01 ABCD2345-89abcdef";
        assert_eq!(name_of(others), format!("{others} 1970-01-01 K7QM2RTX-01234567"));
        assert_eq!(Record::default().name_of_new_key("ci".into(), NaiveDate::default()), "ci");
    }
}
