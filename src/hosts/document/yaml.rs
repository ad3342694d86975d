//! YAML. The text is edited by lines, at positions that the parser gives.

use std::collections::HashSet;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::{NotEditable, Slot, SyntaxError, json::quoted, masked::Scalar};
use crate::hosts::value::Value;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 128;

/// A value with its place in the text. Lines are counted from 0, columns and indices in characters.
struct Node {
    content: Content,
    start: Place,
    /// The last line with a part of the value.
    last_line: usize,
    /// The index behind a scalar.
    end: usize,
}

#[derive(Clone, Copy)]
struct Place {
    index: usize,
    line: usize,
    column: usize,
}

enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    match document(text)? {
        None => Ok(Value::Map(Vec::new())),
        Some(root) => match value(&root) {
            Value::Null => Ok(Value::Map(Vec::new())),
            map @ Value::Map(_) => Ok(map),
            _ => Err(SyntaxError { line: root.start.line + 1, message: "Expected a mapping".to_owned() }),
        },
    }
}

fn value(node: &Node) -> Value {
    match &node.content {
        Content::Scalar(value) => value.clone(),
        Content::List(items) => Value::List(items.iter().map(value).collect()),
        Content::Map(entries) => {
            let entry = |(key, entry): &(Node, Node)| (key_of(key), value(entry));
            Value::Map(entries.iter().map(entry).collect())
        }
    }
}

fn key_of(node: &Node) -> String {
    match value(node) {
        Value::Text(text) | Value::Number(text) => text,
        other => format!("{other:?}"),
    }
}

/// Returns the keys and values of a text with their places; `None` if they are not known.
pub fn scalars(text: &str) -> Option<Vec<Scalar>> {
    let mut scalars = Vec::new();
    if let Some(root) = document(text).ok()? {
        places(&root, false, &mut scalars);
    }
    // From characters to bytes.
    let mut bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    bytes.push(text.len());
    for Scalar { range, .. } in &mut scalars {
        *range = *bytes.get(range.start)?..*bytes.get(range.end)?;
    }
    Some(scalars)
}

fn places(node: &Node, is_key: bool, found: &mut Vec<Scalar>) {
    match &node.content {
        Content::Scalar(_) => found.push(Scalar { range: node.start.index..node.end, is_key }),
        Content::List(items) => items.iter().for_each(|item| places(item, false, found)),
        Content::Map(entries) => {
            for (key, value) in entries {
                places(key, true, found);
                places(value, false, found);
            }
        }
    }
}

/// Reads the only document of a text, if there is one.
fn document(text: &str) -> Result<Option<Node>, SyntaxError> {
    let mut events = Events { parser: Parser::new_from_str(text), depth: 0 };
    let mut root = None;
    loop {
        match events.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(_), span) if root.is_some() => {
                return Err(SyntaxError {
                    line: span.start.line(),
                    message: "Expected one document only".to_owned(),
                });
            }
            (Event::DocumentStart(_), _) => root = Some(events.node()?),
            _ => {}
        }
    }
}

struct Events<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// How many collections are open.
    depth: usize,
}

impl<'a> Events<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), SyntaxError> {
        let failed =
            |error: ScanError| SyntaxError { line: error.marker().line(), message: error.info().to_owned() };
        self.parser.next().unwrap_or(Ok((Event::StreamEnd, Span::default()))).map_err(failed)
    }

    fn node(&mut self) -> Result<Node, SyntaxError> {
        let (event, span) = self.next()?;
        self.node_from(event, span)
    }

    fn node_from(&mut self, event: Event<'a>, span: Span) -> Result<Node, SyntaxError> {
        let (content, own_last_line, end) = match event {
            Event::SequenceStart(..) => {
                let (items, end) = self.collection(span, Self::node_from)?;
                (Content::List(items), end_line(span, end), end.end.index())
            }
            Event::MappingStart(..) => {
                let mut known = HashSet::new();
                let (entries, end) = self.collection(span, |events, event, span| {
                    let key = events.node_from(event, span)?;
                    let name = key_of(&key);
                    if known.insert(name.clone()) {
                        return Ok((key, events.node()?));
                    }
                    let message = format!("\"{name}\" occurs twice");
                    Err(SyntaxError { line: key.start.line + 1, message })
                })?;
                (Content::Map(entries), end_line(span, end), end.end.index())
            }
            Event::Scalar(text, style, ..) => {
                (Content::Scalar(scalar(&text, style)), last_line(span), span.end.index())
            }
            // What an alias stands for is not looked up: repeated aliases could make a short text huge.
            Event::Alias(id) => {
                (Content::Scalar(Value::Text(format!("*{id}"))), last_line(span), span.end.index())
            }
            _ => (Content::Scalar(Value::Null), last_line(span), span.end.index()),
        };
        let children = match &content {
            Content::List(items) => items.iter().map(|item| item.last_line).max(),
            Content::Map(entries) => {
                entries.iter().map(|(key, value)| key.last_line.max(value.last_line)).max()
            }
            Content::Scalar(_) => None,
        };
        let start = Place {
            index: span.start.index(),
            line: span.start.line().saturating_sub(1),
            column: span.start.col(),
        };
        Ok(Node { content, start, last_line: own_last_line.max(children.unwrap_or(0)), end })
    }

    /// Reads the children of a collection up to its end.
    fn collection<T>(
        &mut self,
        start: Span,
        mut child: impl FnMut(&mut Self, Event<'a>, Span) -> Result<T, SyntaxError>,
    ) -> Result<(Vec<T>, Span), SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError { line: start.start.line(), message: "Nested too deeply".to_owned() });
        }
        let mut children = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::MappingEnd | Event::StreamEnd, span) => {
                    self.depth -= 1;
                    return Ok((children, span));
                }
                (event, span) => children.push(child(self, event, span)?),
            }
        }
    }
}

/// Returns the last line of a scalar. One that ends at the start of a line belongs to the lines before.
fn last_line(span: Span) -> usize {
    let (start, end) = (span.start.line().saturating_sub(1), span.end.line().saturating_sub(1));
    if end > start && span.end.col() == 0 { end - 1 } else { end }
}

/// Returns the last line of a collection as far as its own marks go: that of the closing bracket, or else its first.
fn end_line(start: Span, end: Span) -> usize {
    let is_bracket = end.end.index() > end.start.index();
    if is_bracket { end.start.line().saturating_sub(1) } else { start.start.line().saturating_sub(1) }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::text(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if text.parse::<f64>().is_ok() => Value::Number(text.to_owned()),
        _ => Value::text(text),
    }
}

pub fn set(text: &str, slot: Slot<'_>, entry: &Value) -> Result<String, NotEditable> {
    let root = document(text).map_err(|_| NotEditable)?;
    let (source, is_list) = (Source::new(text), slot.section.named_by.is_some());
    let entries = match root.as_ref().map(|root| (root, &root.content)) {
        None | Some((_, Content::Scalar(Value::Null))) => &[][..],
        Some((root, Content::Map(entries))) if !source.is_flow(root) => entries,
        Some(_) => return Err(NotEditable),
    };
    let Some((key, servers)) = entries.iter().find(|(key, _)| key_of(key) == slot.section.key) else {
        let rendered = rendered_section(slot, entry, entries.first().map_or(0, |(key, _)| key.start.column));
        let break_line = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{break_line}{rendered}"));
    };
    let children = source.children(servers, slot.section.named_by).ok_or(NotEditable)?;
    if let Some(existing) = children.iter().find(|child| child.name.as_deref() == Some(slot.name)) {
        if source.is_flow(servers) {
            return Err(NotEditable);
        }
        let rendered = rendered_entry(slot.name, entry, is_list, existing.start.column);
        return Ok(source.with_lines(existing.start.line..existing.last_line + 1, &rendered));
    }
    match children.first() {
        Some(_) if source.is_flow(servers) => {
            let item = super::json::compact(entry);
            let item = if is_list { item } else { format!("{}: {item}", quoted(slot.name)) };
            Ok(source.with_characters(servers.start.index + 1..servers.start.index + 1, &format!("{item}, ")))
        }
        Some(first) if first.start.line > key.start.line => {
            let rendered = rendered_entry(slot.name, entry, is_list, first.start.column);
            Ok(source.with_lines(key.start.line + 1..key.start.line + 1, &rendered))
        }
        Some(_) => Err(NotEditable),
        // Nothing, `null`, `{}` or `[]` gives way to the first entry.
        None => {
            let text = source.without_value(key, servers);
            let rendered = rendered_entry(slot.name, entry, is_list, key.start.column + 2);
            Ok(Source::new(&text).with_lines(key.start.line + 1..key.start.line + 1, &rendered))
        }
    }
}

pub fn remove(text: &str, slot: Slot<'_>) -> Result<String, NotEditable> {
    let root = document(text).map_err(|_| NotEditable)?.ok_or(NotEditable)?;
    let Content::Map(entries) = &root.content else { return Err(NotEditable) };
    let found = entries.iter().find(|(key, _)| key_of(key) == slot.section.key);
    let (key, servers) = found.ok_or(NotEditable)?;
    let source = Source::new(text);
    let children = source.children(servers, slot.section.named_by).ok_or(NotEditable)?;
    let position = children.iter().position(|child| child.name.as_deref() == Some(slot.name));
    let position = position.ok_or(NotEditable)?;
    let child = &children[position];
    if source.is_flow(servers) {
        // An entry is written before the others, so that it ends where the next one begins.
        let next = children.get(position + 1).ok_or(NotEditable)?;
        return Ok(source.with_characters(child.start.index..next.start.index, ""));
    }
    let rest = source.with_lines(child.start.line..child.last_line + 1, "");
    if children.len() > 1 {
        return Ok(rest);
    }
    let empty = if matches!(servers.content, Content::List(_)) { " []" } else { " {}" };
    let colon = key.end + source.characters[key.end..].iter().position(|c| *c == ':').ok_or(NotEditable)? + 1;
    Ok(Source::new(&rest).with_characters(colon..colon, empty))
}

/// A server's entry in the text.
struct Child {
    name: Option<String>,
    start: Place,
    last_line: usize,
}

/// The text by lines and by characters.
struct Source<'a> {
    lines: Vec<&'a str>,
    characters: Vec<char>,
}

impl<'a> Source<'a> {
    fn new(text: &'a str) -> Self {
        Self { lines: text.split_inclusive('\n').collect(), characters: text.chars().collect() }
    }

    fn indentation(&self, line: usize) -> usize {
        self.lines.get(line).map_or(0, |line| line.chars().take_while(|c| *c == ' ').count())
    }

    /// Returns the entries below the section; `None` if it holds something else.
    fn children(&self, servers: &Node, named_by: Option<&str>) -> Option<Vec<Child>> {
        let child =
            |name, first: &Node, last: &Node| Child { name, start: first.start, last_line: last.last_line };
        match &servers.content {
            Content::Scalar(Value::Null) => Some(Vec::new()),
            Content::Scalar(_) => None,
            Content::Map(entries) => {
                Some(entries.iter().map(|(key, entry)| child(Some(key_of(key)), key, entry)).collect())
            }
            Content::List(items) => Some(
                items
                    .iter()
                    .map(|item| {
                        let name =
                            named_by.and_then(|key| value(item).get(key)?.as_text().map(ToOwned::to_owned));
                        let mut child = child(name, item, item);
                        // The item's own column is behind its dash.
                        child.start.column = self.indentation(item.start.line);
                        child
                    })
                    .collect(),
            ),
        }
    }

    fn is_flow(&self, node: &Node) -> bool {
        !matches!(node.content, Content::Scalar(_))
            && matches!(self.characters.get(node.start.index), Some('{' | '['))
    }

    fn with_lines(&self, range: std::ops::Range<usize>, replacement: &str) -> String {
        let (start, end) = (range.start.min(self.lines.len()), range.end.min(self.lines.len()));
        let before = self.lines[..start].concat();
        let break_line = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        format!("{before}{break_line}{replacement}{}", self.lines[end..].concat())
    }

    fn with_characters(&self, range: std::ops::Range<usize>, replacement: &str) -> String {
        let before = self.characters[..range.start].iter();
        before
            .copied()
            .chain(replacement.chars())
            .chain(self.characters[range.end..].iter().copied())
            .collect()
    }

    /// Returns the text without an empty value that stands behind its key.
    fn without_value(&self, key: &Node, value: &Node) -> String {
        let end = if self.is_flow(value) {
            let closing = self.characters[value.start.index..].iter().position(|c| matches!(c, '}' | ']'));
            closing.map_or(value.end, |length| value.start.index + length + 1)
        } else {
            value.end
        };
        if end == value.start.index || value.start.line != key.start.line {
            return self.lines.concat();
        }
        let mut start = value.start.index;
        while start > key.end && self.characters[start - 1] == ' ' {
            start -= 1;
        }
        self.with_characters(start..end, "")
    }
}

fn rendered_section(slot: Slot<'_>, entry: &Value, indent: usize) -> String {
    let entry = rendered_entry(slot.name, entry, slot.section.named_by.is_some(), indent + 2);
    format!("{}{}:\n{entry}", " ".repeat(indent), slot.section.key)
}

fn rendered_entry(name: &str, entry: &Value, is_list: bool, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let body = rendered_map(entry, indent + 2);
    if is_list {
        // The first key stands behind the dash.
        format!("{pad}- {}", body.trim_start())
    } else {
        format!("{pad}{}:\n{body}", plain_or_quoted(name))
    }
}

fn rendered_map(map: &Value, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let line = |(key, value): &(String, Value)| match value {
        Value::Map(entries) if !entries.is_empty() => {
            format!("{pad}{}:\n{}", plain_or_quoted(key), rendered_map(value, indent + 2))
        }
        _ => format!("{pad}{}: {}\n", plain_or_quoted(key), rendered_inline(value)),
    };
    map.entries().iter().map(line).collect()
}

fn rendered_inline(value: &Value) -> String {
    match value {
        Value::Text(text) => plain_or_quoted(text),
        Value::List(items) => {
            format!("[{}]", items.iter().map(rendered_inline).collect::<Vec<_>>().join(", "))
        }
        other => super::json::compact(other),
    }
}

/// Quotes a text unless it can only be read as this text.
fn plain_or_quoted(text: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let is_keyword = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    let starts_plainly = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    if starts_plainly && text.chars().all(is_word) && !is_keyword { text.to_owned() } else { quoted(text) }
}
