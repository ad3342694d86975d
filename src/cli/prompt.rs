//! Asking the person at the terminal, and reading a password that a program pipes in.

use anyhow::anyhow;
use std::io::{self, BufRead as _, IsTerminal as _};

use zeroize::Zeroizing;

use super::{Error, printer::Printer};
use crate::secret::SecretString;

/// The flags for the e-mail and the password.
#[derive(Debug, clap::Args)]
pub(super) struct Credentials {
    /// The e-mail address [default: asked for]
    #[arg(long)]
    email: Option<String>,
    /// Read the password from the first line of stdin instead of asking for it
    #[arg(long, requires = "email")]
    password_stdin: bool,
}

impl Credentials {
    pub fn email(&self, printer: &Printer) -> Result<String, Error> {
        match &self.email {
            Some(email) => Ok(email.clone()),
            None => line(printer, "E-mail: "),
        }
    }

    /// Reads the password without echo; asks twice if `again`.
    pub fn password(&self, again: bool) -> Result<SecretString, Error> {
        if self.password_stdin {
            return first_line();
        }
        let password = hidden("Password: ")?;
        if again && !crate::secret::same(&password, &hidden("Password again: ")?) {
            return Err(Error::Failed(anyhow!("The two passwords differ. Try again.")));
        }
        Ok(password)
    }
}

/// Asks for a line.
pub(super) fn line(printer: &Printer, question: &str) -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return Err(Error::Usage(format!(
            "there is no terminal to ask on ({}); give --email and --password-stdin",
            question.trim_end_matches([':', ' '])
        )));
    }
    printer.print_question(question);
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|_| unreadable())?;
    Ok(answer.trim().to_owned())
}

fn hidden(question: &str) -> Result<SecretString, Error> {
    let password = rpassword::prompt_password(question).map_err(|_| {
        Error::Usage(
            "there is no terminal to ask for the password on; pipe it in with --password-stdin".to_owned(),
        )
    })?;
    not_empty(&Zeroizing::new(password))
}

fn first_line() -> Result<SecretString, Error> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line).map_err(|_| unreadable())?;
    not_empty(&line)
}

fn not_empty(password: &Zeroizing<String>) -> Result<SecretString, Error> {
    match password.trim_end_matches(['\r', '\n']) {
        "" => Err(Error::Failed(anyhow!("The password is empty."))),
        password => Ok(password.into()),
    }
}

fn unreadable() -> Error {
    Error::Failed(anyhow!("stdin cannot be read."))
}
