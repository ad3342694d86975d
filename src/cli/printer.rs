//! Everything that the command line prints for people and scripts passes here: without secrets and without characters
//! that act on a terminal. Nothing else in the crate may open stdout or stderr (`clippy.toml`), logging aside.
#![expect(clippy::disallowed_methods, reason = "the one place where they are opened")]

use std::{
    array,
    fmt::Display,
    io::{self, IsTerminal as _, Write},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    redact::Redactor,
    secret::{ExposeSecret as _, SecretString},
    text::{escaped_json, excerpt, printable},
};

/// The most of a name that is printed, in characters.
const LONGEST_NAME: usize = 64;

/// Prints lines, tables and JSON. That nobody reads them any more is no error.
#[derive(Clone, Debug, Default)]
pub(super) struct Printer {
    redactor: Redactor,
}

impl Printer {
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor }
    }

    /// A line on stdout.
    pub fn print_out(&self, line: impl Display) {
        write_line(io::stdout(), &self.clean(&line.to_string()));
    }

    /// A name that somebody else chose, short enough for a table. It is cleaned before it is cut: what is left of a
    /// secret's beginning is not recognised.
    pub fn short(&self, name: &str) -> String {
        excerpt(&self.clean(name), LONGEST_NAME)
    }

    /// A line on stderr, for commands whose stdout has another reader.
    pub fn print_err(&self, line: impl Display) {
        write_line(io::stderr(), &self.clean(&line.to_string()));
    }

    /// An error on stderr.
    pub fn print_error(&self, message: impl Display) {
        self.print_err(format_args!("error: {message}"));
    }

    /// A question on stderr, so that stdout can be piped.
    pub fn print_question(&self, question: &str) {
        let _ = write!(io::stderr(), "{}", self.clean(question));
    }

    /// A value on stdout, as indented JSON.
    pub fn print_json(&self, value: &impl Serialize) {
        self.write_json(value, |value| format!("{value:#}"));
    }

    /// A value on stdout, as JSON in one line.
    pub fn print_json_line(&self, value: &impl Serialize) {
        self.write_json(value, Value::to_string);
    }

    /// Rows on stdout, their columns aligned. Nothing where there are no rows.
    pub fn print_table<const COLUMNS: usize>(&self, rows: impl IntoIterator<Item = [String; COLUMNS]>) {
        let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| self.clean(&cell))).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; COLUMNS] = array::from_fn(width);
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            write_line(io::stdout(), cells.collect::<Vec<_>>().join("  ").trim_end());
        }
    }

    fn write_json(&self, value: &impl Serialize, to_text: impl Fn(&Value) -> String) {
        match serde_json::to_value(value) {
            Ok(mut value) => {
                self.redactor.redact_json(&mut value);
                write_line(io::stdout(), &escaped_json(&to_text(&value)));
            }
            Err(error) => self.print_error(error),
        }
    }

    /// `text` in one line. It is redacted before as well as after: an unprintable character may be part of a secret, or
    /// stand in the middle of one to hide it.
    fn clean(&self, text: &str) -> String {
        let redacted = self.redactor.redact(text);
        self.redactor.redact(&printable(&redacted)).into_owned()
    }
}

/// Prints a secret on stdout, unredacted, for the person who asked to see it.
pub(super) fn reveal_out(secret: &SecretString) {
    write_line(io::stdout(), &printable(secret.expose_secret()));
}

/// Prints lines that hold a secret on stderr, unredacted, for the person who needs to copy it.
pub(super) fn reveal_err(lines: &SecretString) {
    for line in lines.expose_secret().lines() {
        write_line(io::stderr(), &printable(line));
    }
}

/// Whether a person sees what is printed on stdout, and answers on stdin.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn write_line(mut to: impl Write, line: &str) {
    let _ = to.write_all(format!("{line}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printer() -> Printer {
        let redactor = Redactor::default();
        redactor.remember(&"correct horse".into());
        Printer::new(redactor)
    }

    #[test]
    fn a_secret_does_not_hide_behind_characters_that_are_dropped() {
        for text in ["correct horse", "corr\u{200b}ect horse", "corr\u{1b}ect\n horse"] {
            assert_eq!(printer().clean(text), "[redacted]", "{text:?}");
        }
    }

    #[test]
    fn names_and_values_of_json_are_redacted() {
        let mut value = json!({"correct horse": [{"a": "the correct horse"}], "b": 1});
        printer().redactor.redact_json(&mut value);
        assert_eq!(value, json!({"[redacted]": [{"a": "the [redacted]"}], "b": 1}));
    }
}
