//! Errors of a command, worded for a person: what to type next, not which tool to call.

use std::{io, net::SocketAddr, process::ExitCode};

use anyhow::anyhow;

use super::printer::Printer;
use crate::{
    account::{self, SignInReason},
    config::{ConfigError, VaultLocation},
    error::UserFacingError,
};

/// The reasons for an exit code other than 0.
#[derive(Debug)]
pub(super) enum Error {
    /// Wrong usage or configuration.
    Usage(String),
    /// The command failed; the sources below the message are for the log.
    Failed(anyhow::Error),
    /// The command's output says what is wrong.
    Reported,
    /// The account failed; it is worded by [`Error::report`].
    Account(account::Error),
    /// The person did not confirm.
    Cancelled,
    /// A child process ended with this exit code, which is passed on.
    Child(u8),
    /// A program could not be run; `code` is the exit code of shells for that.
    NotRun { message: String, code: u8 },
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<account::Error> for Error {
    fn from(error: account::Error) -> Self {
        Self::Account(error)
    }
}

impl From<UserFacingError> for Error {
    fn from(report: UserFacingError) -> Self {
        Self::Failed(anyhow!(described(&report)))
    }
}

fn described(report: &UserFacingError) -> String {
    match report.retry_after_seconds {
        Some(seconds) => format!("{} Try again in {seconds} s.", report.message),
        None => report.to_string(),
    }
}

impl Error {
    /// Creates the error for listening on `address`, which `flag` names.
    pub fn listening(address: SocketAddr, flag: &str, error: &io::Error) -> Self {
        Self::Failed(match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow!("Port {} is in use; choose another with {flag}.", address.port())
            }
            _ => anyhow!("Cannot listen on {address}: {error}."),
        })
    }

    /// Creates the error for a vault that does not exist.
    pub fn no_vault(location: &VaultLocation) -> Self {
        Self::Failed(anyhow!(
            "There is no vault at {location} yet. Name another one with --data-dir or BONDMCP_VAULT."
        ))
    }

    /// Prints the error and returns the exit code. `command_line` runs this program for the same account.
    pub fn report(self, printer: &Printer, command_line: &str) -> ExitCode {
        match self {
            Self::Child(code) => code.into(),
            Self::Reported => ExitCode::FAILURE,
            Self::Cancelled => {
                printer.print_err("Cancelled.");
                ExitCode::FAILURE
            }
            Self::Usage(message) => {
                printer.print_error(message);
                ExitCode::from(2)
            }
            Self::NotRun { message, code } => {
                printer.print_error(message);
                code.into()
            }
            Self::Account(error) => {
                let message = worded(&error, command_line);
                Self::Failed(anyhow::Error::new(error).context(message)).report(printer, command_line)
            }
            Self::Failed(error) => {
                tracing::debug!(causes = format!("{error:#}"), "the command failed");
                printer.print_error(&error);
                ExitCode::FAILURE
            }
        }
    }

    /// Returns the outcome for the audit log: the kind of failure, without its details.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Account(error) => UserFacingError::from(error).kind.name(),
            Self::Cancelled => "cancelled",
            Self::Usage(_) => "refused",
            Self::Failed(_) | Self::Reported | Self::Child(_) | Self::NotRun { .. } => "failed",
        }
    }
}

/// Words an account's failure for a person at a terminal.
pub(super) fn worded(error: &account::Error, command_line: &str) -> String {
    use account::Error as Account;
    match error {
        Account::SignInRequired { why: SignInReason::NotSignedIn, command: Some(_) } => {
            format!("You are not signed in. Run: `{command_line} login`")
        }
        Account::SignInRequired { why: why @ SignInReason::EnvironmentRejected, command: Some(_) } => {
            format!("{why} Correct the two variables, or unset them and run: `{command_line} login`")
        }
        Account::SignInRequired { why, command: Some(_) } => format!("{why} Run: `{command_line} login`"),
        Account::ProfileTaken { email } => format!(
            "This profile belongs to {email} and holds its API keys. For another account use another profile: \
             add --profile NAME."
        ),
        Account::ApiKeyRejected { id: None } => {
            "BondMCP does not accept BONDMCP_API_KEY. Correct the variable, or unset it.".to_owned()
        }
        Account::ApiKeyRejected { id: Some(id) } => format!(
            "BondMCP does not accept API key {id}; it was probably revoked. \
             Go back to the session: `{command_line} keys use`"
        ),
        Account::OwnKeyRejected => format!(
            "BondMCP does not accept the API key that was given on the sign-in page. \
             Run `{command_line} logout`, then sign in again."
        ),
        Account::KeyNotStored => format!(
            "The value of that API key is not stored here. `{command_line} keys list` shows which ones are."
        ),
        _ => described(&UserFacingError::from(error)),
    }
}
