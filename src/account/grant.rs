//! The account of a grant: what a person has allowed an app has an API key of its own, whose name no other key has, and
//! a limit on what it spends. The grant is complete once it has what its calls are made with; one that is not was
//! interrupted.

use std::time::Duration;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::{
    Account, Authenticated, Error, Usd,
    record::{Intent, Record},
    release::FORGOTTEN_FOR,
    session::Session,
};
use crate::bondmcp::wire::{CreateApiKey, Permission};

/// What an account has because it is a grant's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct GrantState {
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
    /// Name of the grant's API key, at most 100 characters. No other key may have it.
    pub key_name: String,
    pub permissions: Vec<Permission>,
    pub daily_limit: Usd,
}

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

/// Whether [`grant_key_name`] makes such names.
fn is_grant_key_name(name: &str) -> bool {
    let mut parts = name.rsplitn(3, ' ');
    let (Some(unique), Some(date)) = (parts.next(), parts.next()) else { return false };
    let is_unique = unique.split_once('-').is_some_and(|(reference, grant)| {
        let is_reference = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
        reference.len() == REFERENCE_CHARS
            && reference.chars().all(is_reference)
            && grant.len() == GRANT_CHARS
            && grant.chars().all(|c| c.is_ascii_hexdigit())
    });
    is_unique && date.parse::<NaiveDate>().is_ok()
}

impl Account {
    /// Makes this the account of a grant: it adopts the session of whoever agreed to it and creates the grant's API key
    /// with it. Where the plan allows no further key, calls use the session. If this fails, the account is to be
    /// [released](Self::release).
    pub async fn open_grant(&self, authenticated: Authenticated, new: NewGrant) -> Result<(), Error> {
        let account = self.clone();
        self.run_to_completion(async move {
            let begin = |record: &mut Record| {
                record.check_open()?;
                let (daily_limit, key_name) = (new.daily_limit, new.key_name.clone());
                record.grant = Some(Box::new(GrantState { daily_limit, key_name, ..GrantState::default() }));
                Ok(())
            };
            account.update(begin).await?;
            account.adopt(authenticated, false).await?;
            let wanted = CreateApiKey { name: new.key_name, description: None, permissions: new.permissions };
            let key = match account.create_key(wanted).await {
                Ok(key) => Some(key.id),
                Err(Error::Upstream(error)) if error.is_about_key_limit() => None,
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

    /// Whether the account is that of a complete grant.
    pub async fn is_complete_grant(&self) -> Result<bool, Error> {
        let memory = self.reread().await?;
        Ok(memory.record.grant.as_ref().is_some_and(|grant| grant.phase == Phase::Complete))
    }

    /// Whether the account has a session that can be used now or refreshed.
    pub async fn has_live_session(&self) -> Result<bool, Error> {
        let memory = self.reread().await?;
        let is_live =
            |session: &Session| session.is_usable(self.inner.clock.now()) || session.refresh_token.is_some();
        Ok(memory.record.session.as_ref().is_some_and(is_live))
    }

    /// Fails if this account is a grant's and the key is that of another grant: it is another app's.
    pub async fn check_not_of_another_grant(&self, id: &str, name: &str) -> Result<(), Error> {
        let record = &self.record().await?.record;
        let is_another_grants = |grant: &GrantState| {
            // One of its own name may be its own, of which it lost the value.
            grant.key_name != name && record.key(id).is_none() && is_grant_key_name(name)
        };
        match &record.grant {
            Some(grant) if is_another_grants(grant) => Err(Error::OtherGrantKey { page: None }),
            _ => Ok(()),
        }
    }

    /// Fails if key `id` is the one that was created for the grant, or takes its place: it ends with the grant, by the
    /// person's decision.
    pub async fn check_not_the_grants_key(&self, id: &str) -> Result<(), Error> {
        let memory = self.record().await?;
        if memory.record.is_grant_key(id) { Err(Error::GrantKey { page: None }) } else { Ok(()) }
    }
}

impl Record {
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
        assert!(is_grant_key_name(&name));
        for other in [
            "",
            "ci",
            "K7QM2RTX-01234567",
            "ci K7QM2RTX-01234567",
            "ci 2026-01-01 K7QM2RTX-0123456",
            "ci 2026-01-01",
        ] {
            assert!(!is_grant_key_name(other), "{other}");
        }
    }
}
