//! Rotating a key where the plan allows no additional key: BondMCP then gives the same key a new value, and the old
//! value stops working at once. A lost response takes the new value with it, so the intent is recorded first; rotating
//! again gives another value.

use uuid::Uuid;

use super::{
    Account, Error, Key, RequiredCredential,
    record::{Intent, ManagedKey, Record},
};
use crate::bondmcp::wire::{ApiKey, NewApiKey};

impl Account {
    pub(super) async fn regenerate(&self, old: &ApiKey) -> Result<Key, Error> {
        let intent = Intent {
            id: Uuid::new_v4().to_string(),
            name: old.name.clone(),
            started_at: self.now(),
            before: vec![],
            replaces: Some(old.id.clone()),
            regenerates: true,
            made: None,
            orphans: vec![],
        };
        let begin = |record: &mut Record| {
            record.check_open()?;
            record.intents.push(intent.clone());
            Ok(())
        };
        self.update(begin).await?;
        let id = old.id.as_str();
        let answer = self.call(RequiredCredential::Session, |client, bearer| async move {
            client.regenerate_api_key(&bearer, id).await
        });
        match answer.await {
            Ok(new) => {
                let made = new.id.clone();
                let change = |record: &mut Record| {
                    record.regenerated(id, &new);
                    Ok(())
                };
                self.update(change).await?;
                self.stored_key(&made).await
            }
            Err(Error::Upstream(cause)) if !cause.is_certainly_unprocessed() => {
                Err(Error::RegenerationLost { id: id.to_owned(), cause })
            }
            Err(error) => {
                let end = |record: &mut Record| {
                    record.end_intent(&intent.id);
                    Ok(())
                };
                self.update(end).await?;
                Err(error)
            }
        }
    }
}

impl Record {
    /// Stores the new value of key `old` and closes the intents of earlier attempts.
    fn regenerated(&mut self, old: &str, new: &NewApiKey) {
        let was_active = self.active_key.as_deref() == Some(old);
        let permissions = self.key(old).map(|key| key.permissions.clone()).unwrap_or_default();
        self.forget_key(old);
        self.keys.push(ManagedKey::new(new, &permissions));
        if was_active {
            self.active_key = Some(new.id.clone());
        }
        self.replace_grant_key(old, &new.id);
        self.revoke_if_ended();
        self.intents.retain(|intent| !(intent.regenerates && intent.replaces.as_deref() == Some(old)));
    }
}
