//! After a crash: compares the intents in the vault with the upstream's list of keys and records the result, so that no
//! key exists without a trace. It reports, and finishes rotations whose old key is revoked; revoking is the person's
//! decision.

use std::{collections::HashSet, sync::Arc};

use super::{Account, CachedRecord, Error, intent::Intent, keys::is_active, record::Record};
use crate::bondmcp::wire::ApiKey;

impl Account {
    /// Resolves what an earlier process left unfinished, once the record has been read: a server without calls opens no
    /// vault.
    pub async fn reconcile_once_used(&self) -> Result<(), Error> {
        self.inner.was_read.notified().await;
        if self.reread().await?.record.intents.is_empty() {
            return Ok(());
        }
        let listed = self.upstream_keys().await?;
        let memory = self.reconcile_with(&listed).await?;
        for unfinished in super::Unfinished::all(&memory.record) {
            tracing::warn!(
                lost_key_ids = ?unfinished.lost_key_ids,
                rotating_key_id = unfinished.rotating_key_id,
                replacement_key_id = unfinished.replacement_key_id,
                "a change of API keys was interrupted. {}",
                unfinished.next
            );
        }
        Ok(())
    }

    /// Resolves the intents with the keys that the upstream lists now.
    pub(super) async fn reconcile_with(&self, listed: &[ApiKey]) -> Result<Arc<CachedRecord>, Error> {
        let memory = self.reread().await?;
        if memory.record.intents.is_empty() {
            return Ok(memory);
        }
        let (now, abandoned) = (self.now(), self.abandoned_intents(&memory.record).await?);
        let change = |record: &mut Record| {
            for rotation in revoked_rotations(record, listed) {
                record.replace_key(&rotation.old, &rotation.new);
                record.end_intent(&rotation.intent);
            }
            let stored: Vec<String> = record.keys.iter().map(|key| key.id.clone()).collect();
            for intent in &mut record.intents {
                intent.orphans = orphans(intent, listed, &stored);
            }
            let ends_in_nothing = |intent: &Intent| {
                let lives = |id: &Option<String>| id.as_ref().is_some_and(|id| is_active(listed, id));
                // Somebody may have revoked both keys of a rotation.
                let is_rotation = intent.made.is_some() && intent.replaces.is_some();
                let is_half_done = is_rotation && (lives(&intent.replaces) || lives(&intent.made));
                intent.orphans.is_empty() && !is_half_done && !intent.is_in_progress(now, &abandoned)
            };
            let ended: Vec<Intent> =
                record.intents.extract_if(.., |intent| ends_in_nothing(intent)).collect();
            for Intent { replaces, made, .. } in ended {
                // Of the two keys of a rotation, the one that calls are made with is the grant's.
                if let (Some(old), Some(new)) = (replaces, made)
                    && record.active_key.as_ref() != Some(&old)
                {
                    record.replace_grant_key(&old, &new);
                }
            }
            Ok(())
        };
        Ok(self.update(change).await?.1)
    }

    /// Returns the orphans of one intent whose response was just lost. If listing the keys fails too, the intent stays
    /// for later.
    pub(super) async fn look_for_orphans(&self, intent: &str) -> Vec<String> {
        let settled = async { self.reconcile_with(&self.upstream_keys().await?).await }.await;
        match settled {
            Ok(memory) => {
                let intents = &memory.record.intents;
                intents.iter().find(|i| i.id == intent).map(|i| i.orphans.clone()).unwrap_or_default()
            }
            Err(error) => {
                tracing::warn!(%error, "it is not known yet whether the lost response created an API key");
                vec![]
            }
        }
    }
}

/// A rotation that lacks its last step: the old key is revoked, and the new one is not yet in its place.
struct Revoked {
    intent: String,
    old: String,
    new: String,
}

fn revoked_rotations(record: &Record, listed: &[ApiKey]) -> Vec<Revoked> {
    let revoked = |intent: &Intent| {
        let (old, new) = (intent.replaces.clone()?, intent.made.clone()?);
        let is_revoked = !is_active(listed, &old) && is_active(listed, &new) && record.key(&new).is_some();
        is_revoked.then(|| Revoked { intent: intent.id.clone(), old, new })
    };
    record.intents.iter().filter_map(revoked).collect()
}

/// Returns the keys that `intent` probably created: with its name, not listed before, and not stored here; or the one
/// whose value it may have changed.
pub(super) fn orphans(intent: &Intent, listed: &[ApiKey], stored: &[String]) -> Vec<String> {
    let known: HashSet<&String> = intent.before.iter().chain(stored).collect();
    let made_by_it = |key: &&ApiKey| key.is_active && key.name == intent.name && !known.contains(&key.id);
    if intent.made.is_some() {
        return vec![];
    }
    if intent.regenerates {
        let lives = |id: &&String| listed.iter().any(|key| key.id == **id && key.is_active);
        return intent.replaces.iter().filter(lives).cloned().collect();
    }
    listed.iter().filter(made_by_it).map(|key| key.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn an_orphan_has_the_intents_name_is_new_and_is_not_stored() {
        let key = |id: &str, name: &str, is_active| ApiKey {
            id: id.into(),
            name: name.into(),
            description: None,
            key_preview: None,
            created_at: None,
            last_used: None,
            is_active,
            permissions: None,
        };
        let listed = [
            key("before", "ci", true),
            key("other", "laptop", true),
            key("stored", "ci", true),
            key("revoked", "ci", false),
            key("orphan", "ci", true),
        ];
        let mut intent = Intent::new("ci", Timestamp::UNIX_EPOCH, vec!["before".into()], None);
        assert_eq!(orphans(&intent, &listed, &["stored".into()]), ["orphan"]);
        intent.made = Some("stored".into());
        assert!(orphans(&intent, &listed, &["stored".into()]).is_empty());
    }
}
