//! TOML.

use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike, Value as TomlValue};

use super::{NotEditable, Slot, SyntaxError};
use crate::hosts::value::Value;

pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| SyntaxError {
        line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
        message: error.message().replace('\n', "; "),
    })?;
    Ok(map(document.as_table()))
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
