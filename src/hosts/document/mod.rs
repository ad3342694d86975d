//! Reading and editing the text of a configuration file. An edit touches one server's entry; the rest of the text,
//! with its order, comments, indentation and line endings, stays as it is.

mod json;
mod masked;
mod toml;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use similar::{ChangeTag, TextDiff};

use super::value::Value;

/// How a host writes its servers into its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON as the standard has it.
    Json,
    /// JSON with comments.
    JsonWithComments,
    /// JSON with comments and trailing commas.
    Jsonc,
    Toml,
    Yaml,
}

/// A top-level key of a file with named entries below it.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub key: &'static str,
    /// In a list, the key under which an entry has its name; `None` for a map from names.
    pub named_by: Option<&'static str>,
}

/// Where an entry stands in a file.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    pub section: Section,
    pub name: &'a str,
}

/// A text that is not of its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The line, counted from 1.
    pub line: usize,
    pub message: String,
}

/// The text is well-formed, but it is not written in a way that can be edited here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotEditable;

impl Format {
    /// Parses a text. An empty one holds an empty map.
    pub fn parse(self, text: &str) -> Result<Value, SyntaxError> {
        let text = without_mark(text);
        match self {
            Self::Json => json::parse(text, json::Dialect::Strict),
            Self::JsonWithComments => json::parse(text, json::Dialect::WithComments),
            Self::Jsonc => json::parse(text, json::Dialect::WithCommas),
            Self::Toml => toml::parse(text),
            Self::Yaml => yaml::parse(text),
        }
    }

    /// Returns the text with `entry` in the slot, in place of the one that is there.
    pub fn set(self, text: &str, slot: Slot<'_>, entry: &Value) -> Result<String, NotEditable> {
        edit(text, |text| match self {
            Self::Json | Self::JsonWithComments | Self::Jsonc => json::set(text, slot, entry),
            Self::Toml => toml::set(text, slot, entry),
            Self::Yaml => yaml::set(text, slot, entry),
        })
    }

    /// Returns the text without the entry in the slot.
    pub fn remove(self, text: &str, slot: Slot<'_>) -> Result<String, NotEditable> {
        edit(text, |text| match self {
            Self::Json | Self::JsonWithComments | Self::Jsonc => json::remove(text, slot),
            Self::Toml => toml::remove(text, slot),
            Self::Yaml => yaml::remove(text, slot),
        })
    }
}

impl Section {
    /// Returns the entries of a section with their names.
    #[must_use]
    pub fn entries<'a>(&self, document: &'a Value) -> Vec<(&'a str, &'a Value)> {
        let Some(section) = document.get(self.key) else { return Vec::new() };
        match self.named_by {
            Some(key) => {
                let named = |item: &'a Value| Some((item.get(key)?.as_text()?, item));
                section.items().iter().filter_map(named).collect()
            }
            None => section.entries().iter().map(|(name, entry)| (name.as_str(), entry)).collect(),
        }
    }
}

impl Slot<'_> {
    /// Returns the entry in the slot.
    #[must_use]
    pub fn entry<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        self.section
            .entries(document)
            .into_iter()
            .find(|(name, _)| *name == self.name)
            .map(|(_, entry)| entry)
    }

    /// Returns the document without the entry in the slot. A section with nothing in it counts as none.
    #[must_use]
    pub fn emptied(&self, document: &Value) -> Value {
        let kept = |section: &Value| match (section, self.section.named_by) {
            (Value::Map(entries), None) => {
                Value::Map(entries.iter().filter(|(name, _)| name != self.name).cloned().collect())
            }
            (Value::List(items), Some(key)) => {
                let is_ours = |item: &&Value| item.get(key).and_then(Value::as_text) == Some(self.name);
                Value::List(items.iter().filter(|item| !is_ours(item)).cloned().collect())
            }
            (other, _) => other.clone(),
        };
        let entries = document.entries().iter().filter_map(|(key, value)| {
            let is_section = key == self.section.key;
            let value = if is_section { kept(value) } else { value.clone() };
            (!is_section || !value.is_empty()).then(|| (key.clone(), value))
        });
        Value::Map(entries.collect())
    }
}

/// Edits a text without its byte order mark and with plain line feeds, then puts both back.
fn edit(text: &str, edit: impl FnOnce(&str) -> Result<String, NotEditable>) -> Result<String, NotEditable> {
    let body = without_mark(text);
    let mark = &text[..text.len() - body.len()];
    if !body.contains('\r') {
        return Ok(format!("{mark}{}", edit(body)?));
    }
    let plain = body.replace("\r\n", "\n");
    Ok(format!("{mark}{}", with_line_endings_of(body, &plain, &edit(&plain)?)))
}

/// Returns `edited` with the line endings that its lines have in `original`. A changed line keeps its ending; new lines
/// end as the first one does. `plain` is `original` with line feeds.
fn with_line_endings_of(original: &str, plain: &str, edited: &str) -> String {
    let mut lines = original.split_inclusive('\n');
    let usual = original.split_inclusive('\n').next().map_or("\n", ending);
    let mut changed = VecDeque::new();
    let mut result = String::with_capacity(original.len() + edited.len());
    for change in TextDiff::from_lines(plain, edited).iter_all_changes() {
        match change.tag() {
            ChangeTag::Equal => {
                changed.clear();
                result.push_str(lines.next().unwrap_or_default());
            }
            ChangeTag::Delete => changed.push_back(ending(lines.next().unwrap_or_default())),
            ChangeTag::Insert => {
                let ending = changed.pop_front().unwrap_or(usual);
                match change.value().strip_suffix('\n') {
                    Some(line) => result.extend([line, ending]),
                    None => result.push_str(change.value()),
                }
            }
        }
    }
    result
}

fn ending(line: &str) -> &'static str {
    if line.ends_with("\r\n") { "\r\n" } else { "\n" }
}

/// Returns `text` without the byte order mark that some editors on Windows write.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
