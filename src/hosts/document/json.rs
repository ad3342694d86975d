//! JSON, with or without comments.

use jsonc_parser::{
    CollectOptions, ParseOptions, ast,
    common::Ranged as _,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstRootNode},
    errors::ParseError,
    parse_to_ast,
};

use serde::de::IgnoredAny;

use super::{NotEditable, Slot, SyntaxError};
use crate::hosts::value::Value;

/// What a host accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Strict,
    WithComments,
    /// With comments and trailing commas.
    WithCommas,
}

fn options(dialect: Dialect) -> ParseOptions {
    ParseOptions {
        allow_comments: dialect != Dialect::Strict,
        allow_trailing_commas: dialect == Dialect::WithCommas,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Parses a text whose root is an object. A repeated key is an error, since hosts differ in which one they take.
pub fn parse(text: &str, dialect: Dialect) -> Result<Value, SyntaxError> {
    let root =
        parse_to_ast(text, &CollectOptions::default(), &options(dialect)).map_err(|error| failed(&error))?;
    match root.value {
        None => Ok(Value::Map(Vec::new())),
        Some(object @ ast::Value::Object(_)) => {
            if dialect == Dialect::Strict {
                refuse_what_the_standard_forbids(text)?;
            }
            value(text, &object)
        }
        Some(other) => Err(at(text, other.range().start, "Expected an object".to_owned())),
    }
}

/// Refuses line breaks in strings, which the other parser takes.
fn refuse_what_the_standard_forbids(text: &str) -> Result<(), SyntaxError> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(SyntaxError {
            line: error.line(),
            message: "Expected standard JSON; a string must not contain a line break".to_owned(),
        }),
    }
}

fn failed(error: &ParseError) -> SyntaxError {
    SyntaxError { line: error.line_display(), message: error.kind().to_string() }
}

fn at(text: &str, position: usize, message: String) -> SyntaxError {
    SyntaxError { line: text[..position].matches('\n').count() + 1, message }
}

fn value(text: &str, node: &ast::Value<'_>) -> Result<Value, SyntaxError> {
    Ok(match node {
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::BooleanLit(literal) => Value::Bool(literal.value),
        ast::Value::NumberLit(literal) => Value::Number(literal.value.to_owned()),
        ast::Value::StringLit(literal) => Value::text(literal.value.as_ref()),
        ast::Value::Array(array) => {
            Value::List(array.elements.iter().map(|item| value(text, item)).collect::<Result<_, _>>()?)
        }
        ast::Value::Object(object) => {
            let mut entries: Vec<(String, Value)> = Vec::with_capacity(object.properties.len());
            let mut names = std::collections::HashSet::new();
            for property in &object.properties {
                let name = property.name.as_str();
                if !names.insert(name) {
                    return Err(at(text, property.range.start, format!("\"{name}\" occurs twice")));
                }
                entries.push((name.to_owned(), value(text, &property.value)?));
            }
            Value::Map(entries)
        }
    })
}

pub fn set(text: &str, slot: Slot<'_>, entry: &Value) -> Result<String, NotEditable> {
    if let Some(spliced) = set_in_one_line(text, slot, entry) {
        return Ok(spliced);
    }
    let root = root(text)?;
    let object = root.object_value_or_create().ok_or(NotEditable)?;
    if let Some(key) = slot.section.named_by {
        let list = object.array_value_or_create(slot.section.key).ok_or(NotEditable)?;
        match item(&list, key, slot.name) {
            Some(existing) => update(&existing, entry),
            None => drop(list.append(input(entry))),
        }
        return Ok(root.to_string());
    }
    let servers = object.object_value_or_create(slot.section.key).ok_or(NotEditable)?;
    match servers.object_value(slot.name) {
        Some(existing) => update(&existing, entry),
        None => match servers.get(slot.name) {
            Some(property) => property.set_value(input(entry)),
            None => drop(servers.append(slot.name, input(entry))),
        },
    }
    Ok(root.to_string())
}

/// Returns the object in a list that has the text `name` under `key`.
fn item(list: &CstArray, key: &str, name: &str) -> Option<CstObject> {
    let is_named = |object: &CstObject| {
        let value = object.get(key).and_then(|property| property.value()?.as_string_lit());
        value.and_then(|text| text.decoded_value().ok()).is_some_and(|text| text == name)
    };
    list.elements().iter().filter_map(CstNode::as_object).find(is_named)
}

/// Appends to an object that is written in one line, and leaves it in one line. The parser's own editing would break
/// the line.
fn set_in_one_line(text: &str, slot: Slot<'_>, entry: &Value) -> Option<String> {
    let root = parse_to_ast(text, &CollectOptions::default(), &options(Dialect::WithCommas)).ok()?;
    let Some(ast::Value::Object(root)) = root.value else { return None };
    let Slot { section, name } = slot;
    let (object, addition) = match (root.get_object(section.key), section.named_by) {
        (Some(servers), None) if servers.get(name).is_none() => (servers, property(name, &compact(entry))),
        (None, named_by) if root.get(section.key).is_none() => {
            let entry = match named_by {
                Some(_) => format!("[{}]", compact(entry)),
                None => format!("{{{}}}", property(name, &compact(entry))),
            };
            (&root, property(section.key, &entry))
        }
        _ => return None,
    };
    let last = object.properties.last()?.range.end;
    let is_one_line = !text[object.range.start..object.range.end].contains('\n');
    is_one_line.then(|| format!("{},{addition}{}", &text[..last], &text[last..]))
}

/// Changes only those properties that differ, so that comments beside the others stay.
fn update(existing: &CstObject, entry: &Value) {
    for property in existing.properties() {
        if property.decoded_name().is_none_or(|name| entry.get(&name).is_none()) {
            property.remove();
        }
    }
    for (key, wanted) in entry.entries() {
        match existing.get(key) {
            None => drop(existing.append(key, input(wanted))),
            Some(property) => {
                let current = property.value().map(|node| node.to_string());
                let current =
                    current.and_then(|text| parse(&format!("{{\"v\":{text}}}"), Dialect::WithCommas).ok());
                if current.as_ref().and_then(|current| current.get("v")) != Some(wanted) {
                    property.set_value(input(wanted));
                }
            }
        }
    }
}

pub fn remove(text: &str, slot: Slot<'_>) -> Result<String, NotEditable> {
    let root = root(text)?;
    let object = root.object_value().ok_or(NotEditable)?;
    if let Some(key) = slot.section.named_by {
        let list = object.array_value(slot.section.key).ok_or(NotEditable)?;
        item(&list, key, slot.name).ok_or(NotEditable)?.remove();
    } else {
        let servers = object.object_value(slot.section.key).ok_or(NotEditable)?;
        servers.get(slot.name).ok_or(NotEditable)?.remove();
    }
    Ok(root.to_string())
}

fn root(text: &str) -> Result<CstRootNode, NotEditable> {
    CstRootNode::parse(text, &options(Dialect::WithCommas)).map_err(|_| NotEditable)
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.clone()),
        Value::Text(text) => CstInputValue::String(text.clone()),
        Value::List(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Map(entries) => {
            CstInputValue::Object(entries.iter().map(|(key, value)| (key.clone(), input(value))).collect())
        }
    }
}

/// Writes a value as JSON in one line.
pub fn compact(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.clone(),
        Value::Text(text) => quoted(text),
        Value::List(items) => format!("[{}]", items.iter().map(compact).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| property(key, &compact(value))).collect();
            format!("{{{}}}", entries.join(","))
        }
    }
}

fn property(key: &str, value: &str) -> String {
    format!("{}:{value}", quoted(key))
}

/// Writes a JSON string, which is also a double-quoted string of YAML.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
