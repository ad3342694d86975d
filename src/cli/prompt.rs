//! Asking the person at the terminal, and reading a password that a program pipes in.

use anyhow::anyhow;
use std::io::{self, BufRead as _};

use zeroize::Zeroizing;

use super::{
    Error,
    printer::{Printer, is_stdin_terminal},
};
use crate::{error::sentence, secret::SecretString};

/// The arguments for the e-mail and the password.
#[derive(Debug, clap::Args)]
pub(super) struct Credentials {
    /// The e-mail address [default: asked for]
    email: Option<String>,
    /// The same as EMAIL
    #[arg(long = "email", value_name = "EMAIL", hide = true, conflicts_with = "email")]
    email_flag: Option<String>,
    /// Read the password from the first line of stdin instead of asking for it
    #[arg(long)]
    password_stdin: bool,
    /// Do not store the password: when BondMCP issues no refresh token, you sign in again after an hour
    #[arg(long)]
    no_remember: bool,
}

impl Credentials {
    /// Returns the e-mail address that was given as an argument.
    pub fn given_email(&self) -> Option<&str> {
        self.email.as_deref().or(self.email_flag.as_deref())
    }

    pub fn email(&self, printer: &Printer) -> Result<String, Error> {
        match self.given_email() {
            Some(email) => Ok(email.to_owned()),
            None => line(printer, "E-mail: ", NO_TERMINAL_FOR_EMAIL),
        }
    }

    /// Asks for the e-mail address again, unless it was given as an argument; no answer means `last`.
    pub fn email_again(&self, printer: &Printer, last: String) -> Result<String, Error> {
        if self.given_email().is_some() {
            return Ok(last);
        }
        match line(printer, &format!("E-mail [{last}]: "), NO_TERMINAL_FOR_EMAIL)? {
            email if email.is_empty() => Ok(last),
            email => Ok(email),
        }
    }

    /// Reads the password without echo; asks twice if `again`.
    pub fn password(&self, again: bool) -> Result<SecretString, Error> {
        PASSWORD.read(self.password_stdin, again)
    }

    /// Whether a person types the password, rather than a program.
    pub fn are_typed(&self) -> bool {
        !self.password_stdin
    }

    /// Whether the password may be stored.
    pub fn remember(&self) -> bool {
        !self.no_remember
    }
}

const NO_TERMINAL_FOR_EMAIL: &str =
    "there is no terminal to ask for the e-mail on; give it as an argument, with --password-stdin";

pub(super) const NO_TERMINAL: &str = "there is no terminal to ask on";

/// Refuses a command that asks before it acts where nobody can answer.
pub(super) fn refuse_without_answer() -> Result<(), Error> {
    if is_stdin_terminal() {
        Ok(())
    } else {
        Err(Error::Usage(format!("{NO_TERMINAL}; add --yes to do it without a question")))
    }
}

/// Asks for a line on stdin; `without` is the error where that is no terminal.
pub(super) fn line(printer: &Printer, question: &str, without: &str) -> Result<String, Error> {
    if !is_stdin_terminal() {
        return Err(Error::Usage(without.to_owned()));
    }
    printer.print_question(question);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|_| unreadable())?;
    Ok(answer.trim().to_owned())
}

/// Asks for a yes; an error if the answer is another.
pub(super) fn confirm(printer: &Printer) -> Result<(), Error> {
    if line(printer, "Type \"yes\" to continue: ", NO_TERMINAL)? == "yes" {
        Ok(())
    } else {
        Err(Error::Cancelled)
    }
}

/// A secret that a person types without echo, or a program pipes in.
pub(super) struct Hidden {
    name: &'static str,
    stdin_flag: &'static str,
}

const PASSWORD: Hidden = Hidden { name: "password", stdin_flag: "--password-stdin" };
pub(super) const PASSPHRASE: Hidden = Hidden { name: "passphrase", stdin_flag: "--passphrase-stdin" };

impl Hidden {
    /// Reads it from the first line of stdin, or asks for it on the terminal, twice if `again`.
    pub fn read(&self, from_stdin: bool, again: bool) -> Result<SecretString, Error> {
        if from_stdin {
            return self.first_line();
        }
        let question = sentence(self.name).trim_end_matches('.').to_owned();
        let typed = self.ask(&format!("{question}: "))?;
        if again && !crate::secret::same(&typed, &self.ask(&format!("{question} again: "))?) {
            return Err(Error::Failed(anyhow!("The two {}s differ. Try again.", self.name)));
        }
        Ok(typed)
    }

    fn ask(&self, question: &str) -> Result<SecretString, Error> {
        let typed = rpassword::prompt_password(question).map_err(|_| {
            let Self { name, stdin_flag } = self;
            Error::Usage(format!(
                "there is no terminal to ask for the {name} on; pipe it in with {stdin_flag}"
            ))
        })?;
        self.not_empty(&Zeroizing::new(typed))
    }

    fn first_line(&self) -> Result<SecretString, Error> {
        let mut line = Zeroizing::new(String::new());
        io::stdin().lock().read_line(&mut line).map_err(|_| unreadable())?;
        self.not_empty(&line)
    }

    fn not_empty(&self, text: &str) -> Result<SecretString, Error> {
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::Failed(anyhow!("The {} is empty.", self.name))),
            text => Ok(text.into()),
        }
    }
}

fn unreadable() -> Error {
    Error::Failed(anyhow!("stdin cannot be read."))
}
