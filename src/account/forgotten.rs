//! What is told when the values of keys are deleted here: nothing here knows of those keys afterwards.

use std::collections::HashSet;

use super::{Account, Error, intent::Intent, record::Record};

/// The keys whose values were deleted here, or were lost before, and that may live on at BondMCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub ids: Vec<String>,
    /// Names of the keys that were requested and may yet be found.
    pub names: Vec<String>,
}

impl Forgotten {
    /// Adds those of `others`.
    pub fn add(&mut self, others: Self) {
        add(&mut self.ids, others.ids);
        add(&mut self.names, others.names);
    }
}

fn add(known: &mut Vec<String>, others: impl IntoIterator<Item = String>) {
    for other in others {
        if !known.contains(&other) {
            known.push(other);
        }
    }
}

impl Account {
    /// Returns the ids of the keys known here that are revoked, as far as BondMCP can be asked. To ask finds the keys whose
    /// making was interrupted. A key that is stored only after this began may be missing in BondMCP's answer, and is not
    /// taken for revoked.
    pub async fn revoked_keys(&self) -> Result<Vec<String>, Error> {
        let record = &self.reread().await?.record;
        if record.keys.is_empty() && record.intents.is_empty() {
            return Ok(vec![]);
        }
        let mut known = record.key_ids();
        match self.list_keys().await {
            Ok(list) => known.retain(|id| !list.keys.iter().any(|key| key.id == *id && key.is_active)),
            Err(_) => known.clear(),
        }
        Ok(known)
    }
}

impl Record {
    /// Returns what nothing will know of once the values of keys are forgotten. `abandoned` are the intents that no process is
    /// at work on.
    pub fn to_be_forgotten(&self, abandoned: &HashSet<String>) -> Forgotten {
        // A key that was found may be another program's for as long as BondMCP may still make this one.
        let is_found = |intent: &Intent| !intent.orphans.is_empty() && abandoned.contains(&intent.id);
        let is_expected =
            |intent: &&Intent| intent.made.is_none() && !intent.regenerates && !is_found(intent);
        let expected = self.intents.iter().filter(is_expected).map(|intent| intent.name.clone());
        Forgotten { ids: self.key_ids(), names: expected.collect() }
    }

    /// Returns the ids of the keys that are stored, and of those that were made, or have got a new value, that was lost.
    fn key_ids(&self) -> Vec<String> {
        let mut ids = vec![];
        add(&mut ids, self.keys.iter().map(|key| key.id.clone()));
        for intent in &self.intents {
            let renewed = intent.replaces.iter().filter(|_| intent.regenerates);
            add(&mut ids, intent.orphans.iter().chain(renewed).cloned());
        }
        ids
    }
}
