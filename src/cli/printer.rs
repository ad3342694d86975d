//! The output of the command line for people and scripts, without secrets and without characters that act on a
//! terminal. Nothing else in the crate may open stdout or stderr (`clippy.toml`), except logging.
#![expect(clippy::disallowed_methods, reason = "the one place where they are opened")]

use std::{
    array,
    fmt::Display,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    redact::Redactor,
    secret::{ExposeSecret as _, SecretString},
    text::{MAX_NAME_CHARS, escaped_json, excerpt, printable},
};

/// Width of the line that shows progress. It fits the usual terminal.
const PROGRESS_WIDTH: usize = 78;

/// Prints lines, tables and JSON. A closed output is not an error.
#[derive(Clone, Debug, Default)]
pub(super) struct Printer {
    redactor: Redactor,
}

impl Printer {
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor }
    }

    /// Prints a line on stdout.
    pub fn print_out(&self, line: impl Display) {
        let _ = write_line(io::stdout(), &self.clean(&line.to_string()));
    }

    /// Shortens a name from elsewhere for a table. It is cleaned before it is cut, since the beginning of a secret would
    /// not be recognised.
    pub fn short(&self, name: &str) -> String {
        excerpt(&self.clean(name), MAX_NAME_CHARS)
    }

    /// Prints a line on stderr, for commands whose stdout has another reader.
    pub fn print_err(&self, line: impl Display) {
        let _ = write_line(io::stderr(), &self.clean(&line.to_string()));
    }

    /// Prints an error on stderr.
    pub fn print_error(&self, message: impl Display) {
        self.print_err(format_args!("error: {message}"));
    }

    /// Prints lines of this program's own on stdout as they are.
    pub fn print_text(&self, text: &str) {
        let _ = io::stdout().write_all(self.redactor.redact(text).as_bytes());
    }

    /// Draws the last line of the terminal anew; does nothing if stderr is no terminal.
    pub fn print_progress(&self, line: impl Display) {
        if io::stderr().is_terminal() {
            let line = excerpt(&self.clean(&line.to_string()), PROGRESS_WIDTH);
            let _ = write!(io::stderr(), "\r{line:PROGRESS_WIDTH$}");
        }
    }

    /// Removes the line that [`Printer::print_progress`] drew.
    pub fn clear_progress() {
        if io::stderr().is_terminal() {
            let _ = write!(io::stderr(), "\r{:PROGRESS_WIDTH$}\r", "");
        }
    }

    /// Asks on the terminal itself, whatever stdin and stdout are connected to; returns the answer.
    pub fn ask_on_terminal(&self, questions: &[&str]) -> io::Result<String> {
        let mut terminal = Terminal::open()?;
        let (last, lines) = questions.split_last().unwrap_or((&"", &[]));
        for line in lines {
            writeln!(terminal.output, "{}", self.clean(line))?;
        }
        write!(terminal.output, "{}", self.clean(last))?;
        terminal.output.flush()?;
        let mut answer = String::new();
        BufReader::new(terminal.input).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    /// Prints a question on stderr, so that stdout can be piped.
    pub fn print_question(&self, question: &str) {
        let _ = write!(io::stderr(), "{}", self.clean(question));
    }

    /// Prints a value on stdout as indented JSON.
    pub fn print_json(&self, value: &impl Serialize) {
        let _ = self.write_json(value, |value| format!("{value:#}"));
    }

    /// Prints a value on stdout as JSON in one line; an error means that nobody reads stdout any more.
    pub fn print_json_line(&self, value: &impl Serialize) -> io::Result<()> {
        self.write_json(value, Value::to_string)
    }

    /// Prints rows on stdout with aligned columns. Prints nothing if there are no rows.
    pub fn print_table<const COLUMNS: usize>(&self, rows: impl IntoIterator<Item = [String; COLUMNS]>) {
        let rows: Vec<_> = rows.into_iter().map(|row| row.map(|cell| self.clean(&cell))).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; COLUMNS] = array::from_fn(width);
        for row in &rows {
            let _ = self.print_row(row, widths);
        }
    }

    /// Prints one row of a table on stdout; an error means that nobody reads stdout any more.
    pub fn print_row<const COLUMNS: usize>(
        &self,
        row: &[String; COLUMNS],
        widths: [usize; COLUMNS],
    ) -> io::Result<()> {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", self.clean(cell)));
        write_line(io::stdout(), cells.collect::<Vec<_>>().join("  ").trim_end())
    }

    fn write_json(&self, value: &impl Serialize, to_text: impl Fn(&Value) -> String) -> io::Result<()> {
        let mut value = serde_json::to_value(value)?;
        self.redactor.redact_json(&mut value);
        write_line(io::stdout(), &escaped_json(&to_text(&value)))
    }

    /// Returns `text` in one line. It is redacted before and after escaping: an unprintable character may be part of a
    /// secret, or be inserted to hide one.
    fn clean(&self, text: &str) -> String {
        let redacted = self.redactor.redact(text);
        self.redactor.redact(&printable(&redacted)).into_owned()
    }
}

/// Prints a secret on stdout, unredacted, for the person who asked for it.
pub(super) fn reveal_out(secret: &SecretString) {
    let secret = secret.expose_secret();
    let _ = if io::stdout().is_terminal() {
        write_line(io::stdout(), &printable(secret))
    } else {
        write_line(io::stdout(), secret)
    };
}

/// Prints lines that hold a secret on stderr, unredacted, for the person who needs to copy it.
pub(super) fn reveal_err(lines: &SecretString) {
    for line in lines.expose_secret().lines() {
        let _ = write_line(io::stderr(), &printable(line));
    }
}

/// The terminal of this process.
struct Terminal {
    input: File,
    output: File,
}

impl Terminal {
    #[cfg(unix)]
    fn open() -> io::Result<Self> {
        let output = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        Ok(Self { input: output.try_clone()?, output })
    }

    #[cfg(not(unix))]
    fn open() -> io::Result<Self> {
        let open = |name| OpenOptions::new().read(true).write(true).open(name);
        Ok(Self { input: open("CONIN$")?, output: open("CONOUT$")? })
    }
}

/// Whether this process has a terminal to ask on, whatever stdin and stdout are connected to.
pub(super) fn has_terminal() -> bool {
    Terminal::open().is_ok()
}

/// Whether stdin is a terminal.
pub(super) fn is_stdin_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether stdin and stdout are a terminal.
pub(super) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

fn write_line(mut to: impl Write, line: &str) -> io::Result<()> {
    to.write_all(format!("{line}\n").as_bytes())
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
