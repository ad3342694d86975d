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
    /// JSON with comments and trailing commas.
    Jsonc,
    Toml,
    /// YAML with the servers as a mapping from their names.
    YamlMap,
    /// YAML with the servers as a list of mappings, each with its `name`.
    YamlList,
}

/// Where a server's entry stands in a file: below the top-level key `section`, under the server's name.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    pub section: &'a str,
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
            Self::Jsonc => json::parse(text, json::Dialect::WithComments),
            Self::Toml => toml::parse(text),
            Self::YamlMap | Self::YamlList => yaml::parse(text),
        }
    }

    /// Returns the text with `entry` in the slot, in place of the one that is there.
    pub fn set(self, text: &str, slot: Slot<'_>, entry: &Value) -> Result<String, NotEditable> {
        self.edit(text, |text| match self {
            Self::Json | Self::Jsonc => json::set(text, slot, entry),
            Self::Toml => toml::set(text, slot, entry),
            Self::YamlMap | Self::YamlList => yaml::set(text, slot, entry, self == Self::YamlList),
        })
    }

    /// Returns the text without the entry in the slot.
    pub fn remove(self, text: &str, slot: Slot<'_>) -> Result<String, NotEditable> {
        self.edit(text, |text| match self {
            Self::Json | Self::Jsonc => json::remove(text, slot),
            Self::Toml => toml::remove(text, slot),
            Self::YamlMap | Self::YamlList => yaml::remove(text, slot),
        })
    }

    /// Returns the entry in the slot.
    pub fn entry(self, document: &Value, slot: Slot<'_>) -> Option<Value> {
        self.servers(document, slot.section).into_iter().find(|(name, _)| *name == slot.name).map(|(_, v)| v)
    }

    /// Returns all servers of a document with their names.
    pub fn servers<'a>(self, document: &'a Value, section: &str) -> Vec<(&'a str, Value)> {
        let Some(servers) = document.get(section) else { return Vec::new() };
        match self {
            Self::YamlList => {
                let named = |item: &'a Value| Some((item.get("name")?.as_text()?, item.clone()));
                servers.items().iter().filter_map(named).collect()
            }
            _ => servers.entries().iter().map(|(name, entry)| (name.as_str(), entry.clone())).collect(),
        }
    }

    /// Returns the document without the entry in the slot. A section with nothing in it counts as none.
    pub fn without(self, document: &Value, slot: Slot<'_>) -> Value {
        let kept = |section: &Value| match section {
            Value::Map(entries) if self != Self::YamlList => {
                Value::Map(entries.iter().filter(|(name, _)| name != slot.name).cloned().collect())
            }
            Value::List(items) => {
                let is_ours = |item: &&Value| item.get("name").and_then(Value::as_text) == Some(slot.name);
                Value::List(items.iter().filter(|item| !is_ours(item)).cloned().collect())
            }
            other => other.clone(),
        };
        let entries = document.entries().iter().filter_map(|(key, value)| {
            let value = if key == slot.section { kept(value) } else { value.clone() };
            (key != slot.section || !value.is_empty()).then(|| (key.clone(), value))
        });
        Value::Map(entries.collect())
    }

    /// Edits a text without its byte order mark and with plain line feeds, then puts both back.
    fn edit(
        self,
        text: &str,
        edit: impl FnOnce(&str) -> Result<String, NotEditable>,
    ) -> Result<String, NotEditable> {
        let body = without_mark(text);
        let mark = &text[..text.len() - body.len()];
        if !body.contains('\r') {
            return Ok(format!("{mark}{}", edit(body)?));
        }
        let plain = body.replace("\r\n", "\n");
        Ok(format!("{mark}{}", with_line_endings_of(body, &plain, &edit(&plain)?)))
    }
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
