//! The changes of `install` and `uninstall`: each is shown, asked for and only then made.

use anyhow::anyhow;
use similar::TextDiff;

use super::super::{App, Error, printer::is_interactive, prompt};
use crate::hosts::{self, Change};

const NO_TERMINAL: &str =
    "there is no terminal to ask on; give --yes to make the changes, or --print to see them";

/// How the person agrees to a change.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Consent {
    /// Only show what would be changed
    #[arg(long, conflicts_with = "yes")]
    print: bool,
    /// Make the changes without asking
    #[arg(long, short)]
    yes: bool,
}

impl Consent {
    pub fn check(self) -> Result<(), Error> {
        if self.print || self.yes || is_interactive() {
            return Ok(());
        }
        Err(Error::Usage(NO_TERMINAL.to_owned()))
    }
}

/// The changes of one command, each shown before it is made. A host that fails does not keep others from being changed.
pub struct Changes<'a> {
    app: &'a App,
    consent: Consent,
    hosts: usize,
    pub written: usize,
    declined: usize,
    failed: usize,
}

impl<'a> Changes<'a> {
    pub fn new(app: &'a App, consent: Consent, hosts: usize) -> Self {
        Self { app, consent, hosts, written: 0, declined: 0, failed: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.written + self.declined + self.failed == 0
    }

    /// Shows a planned change and makes it if the person agrees; returns whether it was made. Without one `already`
    /// is printed.
    pub fn make(
        &mut self,
        planned: Result<Option<Change>, hosts::Error>,
        already: &str,
        question: &str,
    ) -> Result<bool, Error> {
        let printer = &self.app.printer;
        let change = match planned {
            Ok(Some(change)) => change,
            Ok(None) => {
                printer.print_out(already);
                return Ok(false);
            }
            Err(error) => return self.failed(error),
        };
        print_diff(self.app, &change);
        if self.consent.print {
            return Ok(false);
        }
        let question = format!("{question} {}? [y/N] ", change.path().display());
        if !self.consent.yes && !is_yes(&prompt::line(printer, &question, NO_TERMINAL)?) {
            self.declined += 1;
            printer.print_out(format_args!("{} was left unchanged.", change.path().display()));
            return Ok(false);
        }
        match change.write() {
            Ok(backup) => {
                self.written += 1;
                let done = if change.removes_file() { "Removed" } else { "Wrote" };
                printer.print_out(format_args!("{done} {}.", change.path().display()));
                if let Some(backup) = backup {
                    let copy = if change.leaves_backup() {
                        "A copy of the file with the entry that was there before `install`"
                    } else {
                        "A copy of the file as it was"
                    };
                    printer.print_out(format_args!("{copy}: {}", backup.display()));
                }
                Ok(true)
            }
            Err(error) => self.failed(error),
        }
    }

    /// Takes note of a failure; with a single host it is that of the command.
    fn failed(&mut self, error: hosts::Error) -> Result<bool, Error> {
        if self.hosts == 1 {
            return Err(Error::Failed(error.into()));
        }
        self.failed += 1;
        self.app.printer.print_error(error);
        Ok(false)
    }

    pub fn outcome(&self) -> Result<(), Error> {
        match (self.failed, self.written, self.declined) {
            (0, 0, declined) if declined > 0 => Err(Error::Cancelled),
            (0, ..) => Ok(()),
            (1, ..) => Err(Error::Failed(anyhow!("One host was not changed; see above."))),
            (failed, ..) => Err(Error::Failed(anyhow!("{failed} hosts were not changed; see above."))),
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.to_lowercase().as_str(), "y" | "yes")
}

fn print_diff(app: &App, change: &Change) {
    let path = change.path().display().to_string();
    let [before, after] = change.shown();
    let name = |side: &Option<String>| if side.is_some() { path.clone() } else { "/dev/null".to_owned() };
    let (old_name, new_name) = (name(&before), name(&after));
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let diff = TextDiff::from_lines(&before, &after);
    for line in
        diff.unified_diff().header(&old_name, &new_name).missing_newline_hint(false).to_string().lines()
    {
        // A tab would be dropped as a control character.
        app.printer.print_out(line.replace('\t', "    "));
    }
}
