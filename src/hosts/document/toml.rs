//! TOML.

use std::ops::Range;

use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table, TableLike, Value as TomlValue};

use super::{NotEditable, Slot, SyntaxError, masked::Scalar};
use crate::hosts::value::Value;

pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| SyntaxError {
        line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        message: error.message().replace('\n', "; "),
    })?;
    Ok(map(document.as_table()))
}

/// Returns the keys and values of a text with their places; `None` if they are not known.
pub fn scalars(text: &str) -> Option<Vec<Scalar>> {
    let document = Document::parse(text).ok()?;
    let mut values = Vec::new();
    places(document.as_item(), &mut values)?;
    values.sort_by_key(|range| range.start);
    let mut scalars = Vec::new();
    let mut at = 0;
    for range in values {
        scalars.extend(keys(text, at..range.start)?);
        at = range.end;
        scalars.push(Scalar { range, is_key: false });
    }
    scalars.extend(keys(text, at..text.len())?);
    Some(scalars)
}

/// Adds the places of the values in `item`.
fn places(item: &Item, found: &mut Vec<Range<usize>>) -> Option<()> {
    match item {
        Item::None => Some(()),
        Item::Value(value) => places_in_value(value, found),
        Item::Table(table) => table.iter().try_for_each(|(_, item)| places(item, found)),
        Item::ArrayOfTables(tables) => {
            tables.iter().flat_map(Table::iter).try_for_each(|(_, item)| places(item, found))
        }
    }
}

fn places_in_value(value: &TomlValue, found: &mut Vec<Range<usize>>) -> Option<()> {
    match value {
        TomlValue::Array(items) => items.iter().try_for_each(|item| places_in_value(item, found)),
        TomlValue::InlineTable(table) => {
            table.iter().try_for_each(|(_, value)| places_in_value(value, found))
        }
        scalar => {
            found.push(scalar.span()?);
            Some(())
        }
    }
}

/// Returns the keys between two values, where there are but keys, marks and comments. The parser does not tell the
/// places of those in headers of tables.
fn keys(text: &str, between: Range<usize>) -> Option<Vec<Scalar>> {
    let mut keys = Vec::new();
    let mut at = between.start;
    for line in text.get(between)?.split_inclusive('\n') {
        let end = line.find('#').unwrap_or(line.len());
        let is_mark = |c: char| c.is_whitespace() || "[]{},.=".contains(c);
        for word in line[..end].split(is_mark).filter(|word| !word.is_empty()) {
            let start = at + (word.as_ptr() as usize - line.as_ptr() as usize);
            keys.push(Scalar { range: start..start + word.len(), is_key: true });
        }
        at += line.len();
    }
    Some(keys)
}

fn map(table: &dyn TableLike) -> Value {
    Value::Map(table.iter().map(|(key, item)| (key.to_owned(), of_item(item))).collect())
}

fn of_item(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => of_value(value),
        Item::Table(table) => map(table),
        Item::ArrayOfTables(tables) => Value::List(tables.iter().map(|table| map(table)).collect()),
    }
}

fn of_value(value: &TomlValue) -> Value {
    match value {
        TomlValue::String(text) => Value::text(text.value()),
        TomlValue::Integer(number) => Value::Number(number.value().to_string()),
        TomlValue::Float(number) => Value::Number(format!("{:?}", number.value())),
        TomlValue::Boolean(value) => Value::Bool(*value.value()),
        TomlValue::Datetime(date) => Value::Number(date.value().to_string()),
        TomlValue::Array(items) => Value::List(items.iter().map(of_value).collect()),
        TomlValue::InlineTable(table) => map(table),
    }
}

pub fn set(text: &str, slot: Slot<'_>, entry: &Value) -> Result<String, NotEditable> {
    let mut document: DocumentMut = text.parse().map_err(|_| NotEditable)?;
    let section = document.entry(slot.section.key).or_insert_with(|| {
        let mut table = Table::new();
        table.set_implicit(true);
        Item::Table(table)
    });
    let is_inline = section.is_inline_table();
    let servers = section.as_table_like_mut().ok_or(NotEditable)?;
    match servers.get_mut(slot.name).and_then(Item::as_table_like_mut) {
        Some(existing) => update(existing, entry)?,
        None if is_inline => drop(servers.insert(slot.name, Item::Value(to_value(entry)?))),
        None => {
            let mut table = Table::new();
            if !text.trim().is_empty() {
                table.decor_mut().set_prefix("\n");
            }
            update(&mut table, entry)?;
            servers.insert(slot.name, Item::Table(table));
        }
    }
    Ok(document.to_string())
}

/// Changes only those keys that differ, so that comments beside the others stay.
fn update(table: &mut dyn TableLike, entry: &Value) -> Result<(), NotEditable> {
    let stale = |(key, _): (&str, &Item)| entry.get(key).is_none().then(|| key.to_owned());
    let stale: Vec<String> = table.iter().filter_map(stale).collect();
    for key in stale {
        table.remove(&key);
    }
    for (key, wanted) in entry.entries() {
        if table.get(key).map(of_item).as_ref() != Some(wanted) {
            table.insert(key, Item::Value(to_value(wanted)?));
        }
    }
    Ok(())
}

pub fn remove(text: &str, slot: Slot<'_>) -> Result<String, NotEditable> {
    let mut document: DocumentMut = text.parse().map_err(|_| NotEditable)?;
    let servers = document.get_mut(slot.section.key).and_then(Item::as_table_like_mut).ok_or(NotEditable)?;
    servers.remove(slot.name).ok_or(NotEditable)?;
    Ok(document.to_string())
}

fn to_value(value: &Value) -> Result<TomlValue, NotEditable> {
    Ok(match value {
        // TOML has no null.
        Value::Null => return Err(NotEditable),
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number.parse().map_err(|_| NotEditable)?,
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => TomlValue::Array(items.iter().map(to_value).collect::<Result<Array, _>>()?),
        Value::Map(entries) => {
            let mut table = InlineTable::new();
            for (key, value) in entries {
                table.insert(key, to_value(value)?);
            }
            TomlValue::InlineTable(table)
        }
    })
}
