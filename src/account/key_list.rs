//! API keys as a person or an agent may see them, and the changes to them that were interrupted.

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    intent::Intent,
    record::{ManagedKey, Record},
};
use crate::{
    bondmcp::wire::{ApiKey, Permission},
    redact::Redactor,
    text::MAX_NAME_CHARS,
};

/// The longest description of a key that is shown, in characters.
const MAX_DESCRIPTION_CHARS: usize = 1000;

/// An API key as a person or an agent may see it, without its value.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Key {
    pub id: String,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// First and last characters of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<String>,
    /// Not in the tools' schemas, which are kept short.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(skip)]
    pub permissions: Vec<Permission>,
    /// Whether BondMCP accepts the key.
    pub is_active: bool,
    /// Whether its value is stored here.
    pub stored: bool,
    /// Whether API calls use it.
    pub in_use: bool,
}

/// The keys of an account, and the changes to them that were interrupted.
#[derive(Clone, Debug)]
pub struct KeyList {
    pub keys: Vec<Key>,
    pub unfinished: Vec<Unfinished>,
}

/// An interrupted key change and what remains to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Unfinished {
    pub name: String,
    /// Keys that it created and whose values are lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost_key_ids: Vec<String>,
    /// The key that was being rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotating_key_id: Option<String>,
    /// Its replacement, which is stored here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement_key_id: Option<String>,
    pub next: String,
}

impl Key {
    /// Returns it as agents see it: whoever wrote a text at BondMCP may have made it long or hidden something in it.
    #[must_use]
    pub fn shortened(self, redactor: &Redactor) -> Self {
        let name = |text: &str| redactor.excerpt(text, MAX_NAME_CHARS);
        let description = self.description.as_deref();
        Self {
            name: name(&self.name),
            description: description.map(|text| redactor.excerpt(text, MAX_DESCRIPTION_CHARS)),
            preview: self.preview.as_deref().map(name),
            created_at: self.created_at.as_deref().map(name),
            last_used: self.last_used.as_deref().map(name),
            ..self
        }
    }

    pub(super) fn listed(key: ApiKey, record: &Record) -> Self {
        let stored = record.key(&key.id);
        let permissions = key.permissions.or_else(|| stored.map(|stored| stored.permissions.clone()));
        Self {
            stored: stored.is_some(),
            in_use: record.active_key.as_ref() == Some(&key.id),
            id: key.id,
            name: key.name,
            description: key.description,
            preview: key.key_preview,
            created_at: key.created_at,
            last_used: key.last_used,
            permissions: permissions.unwrap_or_default(),
            is_active: key.is_active,
        }
    }

    pub(super) fn stored(key: &ManagedKey, record: &Record, is_active: bool) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            description: None,
            preview: key.preview.clone(),
            created_at: key.created_at.clone(),
            last_used: None,
            permissions: key.permissions.clone(),
            is_active,
            stored: true,
            in_use: record.active_key.as_ref() == Some(&key.id),
        }
    }
}

impl Unfinished {
    /// Returns it as agents see it.
    #[must_use]
    pub fn shortened(self, redactor: &Redactor) -> Self {
        Self { name: redactor.excerpt(&self.name, MAX_NAME_CHARS), ..self }
    }

    /// Returns the intents of `record` that need an action.
    pub(super) fn all(record: &Record) -> Vec<Self> {
        record.intents.iter().filter_map(|intent| Self::of(intent, record.grant.is_some())).collect()
    }

    fn of(intent: &Intent, is_of_a_grant: bool) -> Option<Self> {
        let next = match (&intent.replaces, &intent.made, &intent.orphans[..]) {
            (Some(old), None, _) if intent.regenerates => {
                format!("Its value may have changed: rotate {old} again, or revoke it.")
            }
            // The app may not be allowed to revoke the new one.
            (Some(old), Some(_), _) if is_of_a_grant => format!("Rotate {old} again to finish."),
            (Some(old), Some(new), _) => format!("Rotate {old} again to finish, or revoke {new} to undo."),
            (_, _, []) => return None,
            (_, _, orphans) => {
                let orphans = orphans.join(", ");
                format!(
                    "Unless another program made {orphans}, the value is lost: revoke what was made, then create again."
                )
            }
        };
        Some(Self {
            name: intent.name.clone(),
            lost_key_ids: intent.orphans.clone(),
            rotating_key_id: intent.replaces.clone(),
            replacement_key_id: intent.made.clone(),
            next,
        })
    }
}
