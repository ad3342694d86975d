//! Errors of a command, worded for a person: what to type next, not which tool to call.

use std::{io, net::SocketAddr};

use anyhow::anyhow;

use crate::{
    account::{self, SignInReason},
    config::ConfigError,
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
    /// The person did not confirm.
    Cancelled,
    /// A child process ended with this exit code, which is passed on.
    Child(u8),
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<account::Error> for Error {
    fn from(error: account::Error) -> Self {
        use account::Error as Account;
        let message = match &error {
            Account::SignInRequired { why: SignInReason::NotSignedIn, command } => {
                format!("You are not signed in. Run: `{command}`")
            }
            Account::SignInRequired { why: why @ SignInReason::EnvironmentRejected, command } => {
                format!("{why} Correct the two variables, or unset them and run: `{command}`")
            }
            Account::SignInRequired { why, command } => format!("{why} Run: `{command}`"),
            Account::ApiKeyRejected { id: None } => {
                "BondMCP does not accept BONDMCP_API_KEY. Correct the variable, or unset it.".to_owned()
            }
            Account::ApiKeyRejected { id: Some(id) } => format!(
                "BondMCP does not accept API key {id}; it was probably revoked. \
                 Choose another one with `keys use ID`, or go back to the session with `keys use`."
            ),
            Account::OwnKeyRejected => {
                "BondMCP does not accept the API key that was given on the sign-in page. \
                 Run `logout`, then sign in again."
                    .to_owned()
            }
            Account::KeyNotStored => "The value of that API key is not stored here. \
                 `keys list` shows which ones are; `keys create` makes a new one."
                .to_owned(),
            _ => described(&UserFacingError::from(&error)),
        };
        Self::Failed(anyhow::Error::new(error).context(message))
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
    /// Creates the error for listening on `address`.
    pub fn listening(address: SocketAddr, error: &io::Error) -> Self {
        Self::Failed(match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow!("Port {} is in use; choose another with --listen.", address.port())
            }
            _ => anyhow!("Cannot listen on {address}: {error}."),
        })
    }

    /// Creates the error of a command that names the API key `id`.
    pub fn about_key(id: &str, error: account::Error) -> Self {
        if error.is_not_found() {
            Self::Failed(anyhow!("No API key {id}; run `keys list`."))
        } else {
            error.into()
        }
    }
}
