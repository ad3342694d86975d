//! Rotating a key where the plan allows no additional key: BondMCP then gives the same key a new value, and the old
//! value stops working at once. A lost response takes the new value with it, so the intent is recorded first; rotating
//! again gives another value.

use super::{
    Account, Error, Key, RequiredCredential, SignInReason,
    intent::{Intent, Stored},
    record::{ManagedKey, Record},
};
use crate::{
    bondmcp::wire::{ApiKey, NewApiKey},
    secret,
};

impl Account {
    pub(super) async fn regenerate(&self, old: &ApiKey, listed: &[ApiKey]) -> Result<Key, Error> {
        let id = old.id.as_str();
        let before = listed.iter().map(|key| key.id.clone()).collect();
        let intent = &Intent { regenerates: true, ..Intent::new(&old.name, self.now(), before, Some(id)) };
        let lost = |cause| Error::RegenerationLost { id: id.to_owned(), cause: Box::new(cause) };
        let regenerate = |email: Option<String>| async move {
            let answer = self.call(RequiredCredential::Session, |client, bearer| async move {
                client.regenerate_api_key(&bearer, id).await
            });
            match answer.await {
                Ok(new) if intent.is_about_another(&new.id) => Err(lost(Error::KeyNotNew { id: new.id })),
                Ok(new) => {
                    let change =
                        |record: &mut Record| Ok(record.regenerated(id, &new, intent, email.as_deref()));
                    match self.update_persistently(change).await.map_err(lost)?.0 {
                        Stored::Yes => self.stored_key(&new.id).await,
                        Stored::GrantEnded => Err(Error::GrantEnded),
                        Stored::Forgotten => Err(lost(self.sign_in_required(SignInReason::NotSignedIn))),
                        Stored::Taken if new.id == id => Err(lost(Error::RotatedMeanwhile)),
                        Stored::Taken => Err(lost(Error::KeyNotNew { id: new.id })),
                    }
                }
                Err(Error::Upstream(cause)) if !cause.is_certainly_unprocessed() => Err(lost(cause.into())),
                Err(error) => {
                    self.end_intent(&intent.id).await?;
                    Err(error)
                }
            }
        };
        self.carry_out(intent, regenerate).await
    }
}

impl Record {
    /// Stores the new value of key `old` and closes the intents of this attempt and of earlier ones. Can be repeated.
    fn regenerated(&mut self, old: &str, new: &NewApiKey, intent: &Intent, email: Option<&str>) -> Stored {
        if !self.keeps_made(&new.id, &intent.id, email) {
            return Stored::Forgotten;
        }
        if self.has_another_value(new, intent) {
            return Stored::Taken;
        }
        let own = self.intents.iter().position(|known| known.id == intent.id);
        if own.is_none() && self.key(old).is_some_and(|stored| !secret::same(&stored.secret, &new.api_key)) {
            // Another attempt has stored a value and closed the intent of this one.
            self.keep_trace(old, intent);
            return Stored::Taken;
        }
        let known = self.key(old).or_else(|| self.key(&new.id));
        let permissions = known.map(|key| key.permissions.clone()).unwrap_or_default();
        let is_active = |id: &str| self.active_key.as_deref() == Some(id);
        let was_active = is_active(old) || is_active(&new.id);
        self.forget_key(old);
        self.forget_key(&new.id);
        self.keys.push(ManagedKey::new(new, &permissions));
        if was_active {
            self.active_key = Some(new.id.clone());
        }
        self.replace_grant_key(old, &new.id);
        // A later attempt may be under way.
        let is_closed = |known: &mut Intent| known.regenerates && known.replaces.as_deref() == Some(old);
        self.intents.extract_if(..own.map_or(0, |at| at + 1), is_closed).for_each(drop);
        if self.revoke_if_ended() { Stored::GrantEnded } else { Stored::Yes }
    }

    /// Records again that the value of key `old` may have changed. The id is another one, so that a repeat does not find the
    /// intent open.
    fn keep_trace(&mut self, old: &str, intent: &Intent) {
        let id = format!("{}:late", intent.id);
        if self.intents.iter().all(|known| known.id != id) {
            self.intents.push(Intent { id, orphans: vec![old.to_owned()], ..intent.clone() });
        }
    }
}
