//! A server's entry, written in a host's shape and read back from it.

use super::{
    is_this_program,
    table::{Shape, TOKEN_VARIABLE, TokenSource},
    value::Value,
};

/// A part of an entry: a fixed value, or a place for something about the server.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Word(&'static str),
    Texts(&'static [&'static str]),
    Yes,
    Object(&'static [(&'static str, Part)]),
    Name,
    Command,
    Arguments,
    /// The command and its arguments in one list.
    CommandLine,
    Url,
}

/// A server that a host is to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The name of the entry.
    pub name: String,
    pub launch: Launch,
}

/// How a host reaches a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launch {
    /// The host starts the server.
    Stdio { command: String, arguments: Vec<String> },
    /// The server runs already; with `token` it wants a token.
    Http { url: String, token: bool },
}

/// What an entry says about how the server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    pub command: Option<String>,
    pub arguments: Vec<String>,
    pub url: Option<String>,
    /// The names of the variables that the entry sets.
    pub variables: Vec<String>,
    /// Whether the person has switched the entry off.
    pub is_off: bool,
}

impl Shape {
    /// Returns the entry for `server`; `None` if the host's file takes no server over HTTP.
    pub(super) fn entry(&self, server: &Server) -> Option<Value> {
        let parts = match &server.launch {
            Launch::Stdio { .. } => self.stdio.to_vec(),
            Launch::Http { token, .. } => {
                let token = if *token { self.token } else { &[] };
                self.http?.iter().chain(token).copied().collect()
            }
        };
        Some(object(&parts, server))
    }

    /// Returns `entry` with those keys of `existing` that the shape does not know, such as what a person added.
    pub(super) fn with_foreign_keys(&self, entry: &Value, existing: &Value) -> Value {
        let known = self.stdio.iter().chain(self.http.unwrap_or_default()).chain(self.token);
        let known: Vec<&str> = known.map(|(key, _)| *key).collect();
        let foreign = existing.entries().iter().filter(|(key, _)| !known.contains(&key.as_str()));
        Value::Map(entry.entries().iter().chain(foreign).cloned().collect())
    }

    /// Whether `entry` is one that this program writes: a person's own is not taken for it unless it is the same.
    pub(super) fn wrote(&self, name: &str, entry: &Value) -> bool {
        let Parsed { command, arguments, url, .. } = self.read(entry);
        let launch = match (command, url) {
            (Some(command), _) if is_this_program(&command) => Launch::Stdio { command, arguments },
            // Without a token nothing tells an entry from a person's.
            (None, Some(url)) if !self.token.is_empty() => Launch::Http { url, token: true },
            _ => return false,
        };
        self.entry(&Server { name: name.to_owned(), launch }).as_ref() == Some(entry)
    }

    /// Returns the fixed words of an entry.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> {
        let parts = self.stdio.iter().chain(self.http.unwrap_or_default()).map(|(_, part)| part);
        parts
            .flat_map(|part| match part {
                Part::Word(word) => std::slice::from_ref(word),
                Part::Texts(texts) => texts,
                _ => &[],
            })
            .copied()
    }

    /// Whether an entry has the host send the token of this server, taken from [`TOKEN_VARIABLE`] in its environment.
    /// What the host asks the person for is never known to be in a variable.
    pub(super) fn sends_token_variable(&self, entry: &Value) -> bool {
        let is_variable = matches!(self.token_source, TokenSource::Variable);
        is_variable && sends_token_variable(self.token, entry)
    }

    pub(super) fn read(&self, entry: &Value) -> Parsed {
        let mut parsed = Parsed::default();
        for (key, part) in self.stdio.iter().chain(self.http.unwrap_or_default()) {
            let Some(value) = entry.get(key) else { continue };
            match part {
                Part::Command => parsed.command = value.as_text().map(ToOwned::to_owned),
                Part::Arguments => parsed.arguments = texts(value.items()),
                Part::CommandLine => {
                    let mut words = texts(value.items()).into_iter();
                    parsed.command = words.next();
                    parsed.arguments = words.collect();
                }
                Part::Url => parsed.url = value.as_text().map(ToOwned::to_owned),
                _ => {}
            }
        }
        let variables = entry.get(self.environment).map(Value::entries).unwrap_or_default();
        parsed.variables = variables.iter().map(|(name, _)| name.clone()).collect();
        // Hosts have one key or the other. Neither has another meaning in any, and a person who writes it means it.
        let is = |key, value| matches!(entry.get(key), Some(Value::Bool(set)) if *set == value);
        parsed.is_off = is("enabled", false) || is("disabled", true);
        parsed
    }
}

/// Returns an entry that says nothing about a server.
pub(super) fn fixed(parts: &[(&str, Part)]) -> Value {
    let launch = Launch::Stdio { command: String::new(), arguments: Vec::new() };
    object(parts, &Server { name: String::new(), launch })
}

/// Whether `value` has one of `parts` with [`TOKEN_VARIABLE`] in the place where an entry that is written has it.
fn sends_token_variable(parts: &[(&str, Part)], value: &Value) -> bool {
    let is_sent = |part: &Part, value: &Value| match part {
        Part::Object(parts) => sends_token_variable(parts, value),
        Part::Word(TOKEN_VARIABLE) => value.as_text() == Some(TOKEN_VARIABLE),
        Part::Word(_) => value.as_text().is_some_and(is_token_header),
        _ => false,
    };
    parts.iter().any(|(key, part)| {
        // Header names are case-insensitive.
        let mut values = value.entries().iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
        values.any(|(_, value)| is_sent(part, value))
    })
}

/// Whether `text` is the header with the token and nothing else, however a host writes the reference. The name is whole:
/// the token of a variable with a longer name is another server's.
fn is_token_header(text: &str) -> bool {
    let reference = match text.split_once(' ') {
        Some((scheme, reference)) if scheme.eq_ignore_ascii_case("Bearer") => reference.trim(),
        _ => return false,
    };
    let within = |start, end| reference.strip_prefix(start)?.strip_suffix(end);
    let name = within("${{", "}}")
        .and_then(|inner| inner.trim().strip_prefix("secrets."))
        .or_else(|| within("${env:", "}"))
        .or_else(|| within("{env:", "}"))
        // Behind `:-` stands what is sent if the variable is not set.
        .or_else(|| within("${", "}").map(|inner| inner.split_once(":-").map_or(inner, |(name, _)| name)))
        .or_else(|| reference.strip_prefix('$'));
    name == Some(TOKEN_VARIABLE)
}

fn texts(items: &[Value]) -> Vec<String> {
    items.iter().filter_map(Value::as_text).map(ToOwned::to_owned).collect()
}

fn object(parts: &[(&str, Part)], server: &Server) -> Value {
    Value::Map(parts.iter().map(|(key, part)| ((*key).to_owned(), value(*part, server))).collect())
}

fn value(part: Part, server: &Server) -> Value {
    let (command, arguments, url) = match &server.launch {
        Launch::Stdio { command, arguments } => (command.as_str(), arguments.as_slice(), ""),
        Launch::Http { url, .. } => ("", &[][..], url.as_str()),
    };
    match part {
        Part::Word(word) => Value::text(word),
        Part::Texts(texts) => Value::List(texts.iter().copied().map(Value::text).collect()),
        Part::Yes => Value::Bool(true),
        Part::Object(parts) => object(parts, server),
        Part::Name => Value::text(&server.name),
        Part::Command => Value::text(command),
        Part::Arguments => Value::List(arguments.iter().map(Value::text).collect()),
        Part::CommandLine => Value::List(
            std::iter::once(command).chain(arguments.iter().map(String::as_str)).map(Value::text).collect(),
        ),
        Part::Url => Value::text(url),
    }
}
