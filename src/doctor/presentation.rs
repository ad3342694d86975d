//! Paths and commands as the findings show them: the home directory as `~`, e-mail addresses masked, and every command
//! such that a shell runs it as it stands.

use std::{borrow::Cow, path::Path, path::PathBuf};

use regex_lite::{Captures, Regex};

use super::{Check, Fix};
use crate::text::shell_word;

pub(super) struct Presentation {
    /// `None` where replacing it would say nothing.
    home: Option<PathBuf>,
    /// The command line that runs this program for the same account.
    program: String,
    email: Option<Regex>,
}

impl Presentation {
    pub fn new(command_line: &str) -> Self {
        let home = std::env::home_dir().filter(|home| home.is_absolute() && home.parent().is_some());
        let mut presentation = Self {
            home,
            program: String::new(),
            email: Regex::new(r"([A-Za-z0-9])[A-Za-z0-9._%+-]*@([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)").ok(),
        };
        let words = shlex::split(command_line).unwrap_or_default();
        let words: Vec<_> = words.iter().map(|word| presentation.word(Path::new(word))).collect();
        presentation.program = words.join(" ");
        presentation
    }

    /// Returns the command that runs this program with `arguments`, which are words of a shell.
    pub fn command(&self, arguments: &str) -> String {
        format!("{} {arguments}", self.program)
    }

    /// Returns `path` as one word of a POSIX shell. The tilde stands outside of the quotes, where a shell expands it.
    pub fn word(&self, path: &Path) -> String {
        match self.home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
            Some(rest) if rest.as_os_str().is_empty() => "~".to_owned(),
            Some(rest) => format!("~/{}", shell_word(&rest.to_string_lossy())),
            None => shell_word(&path.to_string_lossy()).into_owned(),
        }
    }

    /// Returns `check` without the name of the home directory and with e-mail addresses masked.
    pub fn without_private_parts(&self, check: Check) -> Check {
        let fix = check.fix.map(|fix| Fix {
            advice: fix.advice.map(|advice| self.masked(&self.tilde(&advice))),
            run: fix.run,
        });
        Check { detail: self.masked(&self.tilde(&check.detail)), fix, ..check }
    }

    fn tilde(&self, text: &str) -> String {
        let Some(home) = self.home.as_ref().and_then(|home| home.to_str()) else { return text.to_owned() };
        let mut shown = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(home) {
            let (before, found) = rest.split_at(at);
            rest = &found[home.len()..];
            shown.push_str(before);
            // `/home/ada2` is not in `/home/ada`.
            let is_whole = rest.chars().next().is_none_or(|c| !c.is_alphanumeric() && !"-_.".contains(c));
            shown.push_str(if is_whole { "~" } else { home });
        }
        shown + rest
    }

    fn masked(&self, text: &str) -> String {
        match &self.email {
            Some(email) => {
                email.replace_all(text, |found: &Captures| format!("{}…@{}", &found[1], &found[2]))
            }
            None => Cow::Borrowed(text),
        }
        .into_owned()
    }
}

/// Longest name from elsewhere that is shown, in characters.
const MAX_NAME_CHARS: usize = 80;

/// Returns a name from elsewhere. A long one is left out whole: its beginning could be that of a secret, which would not
/// be recognised.
pub(super) fn shown(name: &str) -> &str {
    if name.chars().count() <= MAX_NAME_CHARS { name } else { "(a long text)" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_home(home: &str) -> Presentation {
        Presentation { home: Some(home.into()), ..Presentation::new("bondmcp-server") }
    }

    #[test]
    fn a_path_in_the_home_directory_is_a_word_that_a_shell_expands() {
        let presentation = at_home("/home/ada");
        assert_eq!(presentation.word(Path::new("/home/ada/a b/v.db")), "~/'a b/v.db'");
        assert_eq!(presentation.word(Path::new("/home/ada2/v.db")), "/home/ada2/v.db");
    }

    #[test]
    fn the_home_directory_and_addresses_are_masked_in_a_text() {
        let check = Check::ok("x", "/home/ada/v.db of ada.l@mail.example.com, not /home/ada2/v.db");
        let shown = at_home("/home/ada").without_private_parts(check).detail;
        assert_eq!(shown, "~/v.db of a…@mail.example.com, not /home/ada2/v.db");
    }

    #[test]
    fn a_command_line_is_shown_with_the_tilde() {
        let Some(home) = std::env::home_dir() else { return };
        let line = format!("{0}/bin/bondmcp-server --data-dir '{0}/a b'", home.display());
        assert_eq!(
            Presentation::new(&line).command("login"),
            "~/bin/bondmcp-server --data-dir ~/'a b' login"
        );
    }
}
