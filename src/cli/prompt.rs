//! Asking the person at the terminal, and reading a password that a program pipes in.

use anyhow::anyhow;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use zeroize::Zeroizing;

use super::Failed;
use crate::secret::SecretString;

/// How a command gets e-mail and password.
#[derive(Debug, clap::Args)]
pub(super) struct Credentials {
    /// The e-mail address; asked for when absent
    #[arg(long)]
    email: Option<String>,
    /// Read the password from the first line of stdin instead of asking for it
    #[arg(long, requires = "email")]
    password_stdin: bool,
}

impl Credentials {
    pub fn email(&self) -> Result<String, Failed> {
        match &self.email {
            Some(email) => Ok(email.clone()),
            None => line("E-mail: "),
        }
    }

    /// The password, never echoed; asked for twice when `again`.
    pub fn password(&self, again: bool) -> Result<SecretString, Failed> {
        if self.password_stdin {
            return first_line();
        }
        let password = hidden("Password: ")?;
        if again && !crate::secret::same(&password, &hidden("Password again: ")?) {
            return Err(Failed::Other(anyhow!("The two passwords differ. Try again.")));
        }
        Ok(password)
    }
}

/// Asks for a line; the question goes to stderr, so that stdout can be piped.
pub(super) fn line(question: &str) -> Result<String, Failed> {
    if !io::stdin().is_terminal() {
        return Err(Failed::Usage(format!(
            "there is no terminal to ask on ({}); give --email and --password-stdin",
            question.trim_end_matches([':', ' '])
        )));
    }
    let _ = write!(io::stderr(), "{question}");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|_| unreadable())?;
    Ok(answer.trim().to_owned())
}

fn hidden(question: &str) -> Result<SecretString, Failed> {
    let password = rpassword::prompt_password(question).map_err(|_| {
        Failed::Usage(
            "there is no terminal to ask for the password on; pipe it in with --password-stdin".to_owned(),
        )
    })?;
    not_empty(&Zeroizing::new(password))
}

fn first_line() -> Result<SecretString, Failed> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().lock().read_line(&mut line).map_err(|_| unreadable())?;
    not_empty(&line)
}

fn not_empty(password: &Zeroizing<String>) -> Result<SecretString, Failed> {
    match password.trim_end_matches(['\r', '\n']) {
        "" => Err(Failed::Other(anyhow!("The password is empty."))),
        password => Ok(password.into()),
    }
}

fn unreadable() -> Failed {
    Failed::Other(anyhow!("stdin cannot be read."))
}
