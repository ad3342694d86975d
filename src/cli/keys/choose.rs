//! Which key a person means, by id or by name, and whether they mean what they asked for.

use anyhow::anyhow;

use super::{
    Error, Keys,
    prompt::{self, NO_TERMINAL},
};
use crate::{
    account::{self, Key},
    cli::printer::Printer,
};

/// A key that a person has named.
#[derive(Debug)]
pub(super) struct Choice {
    pub id: String,
    name: String,
    preview: Option<String>,
    /// Whether API calls use it.
    pub in_use: bool,
}

impl From<Key> for Choice {
    fn from(key: Key) -> Self {
        Self { id: key.id, name: key.name, preview: key.preview, in_use: key.in_use }
    }
}

impl Choice {
    /// Describes the key for a question.
    pub fn shown(&self, printer: &Printer) -> String {
        let preview = self.preview.as_ref().map(|preview| format!(", {}", printer.short(preview)));
        format!("`{}` ({}{})", printer.short(&self.name), self.id, preview.unwrap_or_default())
    }
}

impl Keys<'_> {
    /// Returns the key whose value is stored here and whose id or unique name is `wanted`.
    pub async fn stored(self, wanted: &str) -> Result<Choice, Error> {
        match pick(self.account.stored_keys().await?, wanted) {
            Pick::One(key) => Ok(key.into()),
            Pick::Several(ids) => Err(ambiguous(wanted, &ids)),
            Pick::None => Err(Error::Failed(anyhow!(
                "No API key {wanted} is stored here. `{}` shows which ones are.",
                self.app.command(&["keys", "list"])
            ))),
        }
    }

    /// Returns the key of the account whose id or unique name is `wanted`. BondMCP is asked unless it is an id that is
    /// known here.
    pub async fn any(self, wanted: &str) -> Result<Choice, Error> {
        let stored = self.account.stored_keys().await?;
        if let Some(key) = stored.into_iter().find(|key| key.id == wanted) {
            return Ok(key.into());
        }
        match pick(self.requesting(self.account.list_keys()).await?.keys, wanted) {
            Pick::One(key) => Ok(key.into()),
            Pick::Several(ids) => Err(ambiguous(wanted, &ids)),
            Pick::None => Err(self.not_found(wanted)),
        }
    }

    /// Words a failure that concerns `key`.
    pub fn about(self, key: &Choice, error: account::Error) -> Error {
        if error.is_not_found() { self.not_found(&key.id) } else { error.into() }
    }

    fn not_found(self, wanted: &str) -> Error {
        let list = self.app.command(&["keys", "list"]);
        Error::Failed(anyhow!("No API key {wanted}. List them: `{list}`"))
    }
}

enum Pick {
    One(Key),
    Several(Vec<String>),
    None,
}

/// Picks the key with the id `wanted`, otherwise the only one with that name; keys that were revoked elsewhere do not
/// make a name ambiguous.
fn pick(mut keys: Vec<Key>, wanted: &str) -> Pick {
    if let Some(at) = keys.iter().position(|key| key.id == wanted) {
        return Pick::One(keys.swap_remove(at));
    }
    keys.retain(|key| key.name == wanted);
    if keys.len() > 1 && keys.iter().any(|key| key.is_active) {
        keys.retain(|key| key.is_active);
    }
    match keys.pop() {
        None => Pick::None,
        Some(key) if keys.is_empty() => Pick::One(key),
        Some(key) => Pick::Several(keys.into_iter().chain([key]).map(|key| key.id).collect()),
    }
}

fn ambiguous(name: &str, ids: &[String]) -> Error {
    Error::Failed(anyhow!("{} API keys have the name {name}. Give an id: {}", ids.len(), ids.join(", ")))
}

pub(super) fn no_terminal() -> Error {
    Error::Usage(NO_TERMINAL.to_owned())
}

/// Asks before `verb` is done to `key`, and a second time if API calls use the key.
pub(super) fn confirm(printer: &Printer, verb: &str, consequence: &str, key: &Choice) -> Result<(), Error> {
    printer.print_err(format_args!("{verb} API key {}? {consequence}", key.shown(printer)));
    prompt::confirm(printer)?;
    if key.in_use {
        printer.print_err("This key is in use: hosts with this profile make their API calls with it.");
        let answer = prompt::line(printer, "Type the name or the id of the key to continue: ", NO_TERMINAL)?;
        if answer.is_empty() || answer != key.id && answer != key.name.trim() {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, name: &str, is_active: bool) -> Key {
        Key {
            id: id.into(),
            name: name.into(),
            description: None,
            preview: None,
            created_at: None,
            last_used: None,
            permissions: vec![],
            is_active,
            stored: true,
            in_use: false,
        }
    }

    fn picked(keys: &[(&str, &str, bool)], wanted: &str) -> Vec<String> {
        match pick(keys.iter().map(|(id, name, active)| key(id, name, *active)).collect(), wanted) {
            Pick::One(key) => vec![key.id],
            Pick::Several(ids) => ids,
            Pick::None => vec![],
        }
    }

    #[test]
    fn an_id_counts_before_a_name_that_looks_like_it() {
        let keys = [("key_1", "key_2", true), ("key_2", "ci", true)];
        assert_eq!(picked(&keys, "key_2"), ["key_2"]);
        assert_eq!(picked(&keys, "ci"), ["key_2"]);
        assert!(picked(&keys, "c").is_empty());
    }

    #[test]
    fn a_name_of_several_keys_is_ambiguous_unless_only_one_of_them_is_active() {
        assert_eq!(picked(&[("1", "ci", true), ("2", "ci", true)], "ci"), ["1", "2"]);
        assert_eq!(picked(&[("1", "ci", false), ("2", "ci", true)], "ci"), ["2"]);
    }
}
