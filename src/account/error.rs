//! What can go wrong with an account, for callers to match and for people to act on.

use std::time::Duration;

use crate::{
    bondmcp,
    error::{Kind, Report, sentence},
    vault,
};

/// What can go wrong with an account.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nothing can sign in by itself; `command` is for the person's terminal.
    #[error("{why}")]
    SignInRequired { why: SignInReason, command: String },
    #[error(transparent)]
    Upstream(#[from] bondmcp::Error),
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The profile holds somebody else's API keys, whose values exist nowhere else.
    #[error("this profile belongs to {email}")]
    ProfileTaken { email: String },
    /// The upstream refuses the API key that the environment or `use` chose (`None`: the environment).
    #[error("BondMCP does not accept the API key")]
    ApiKeyRejected { id: Option<String> },
    /// The upstream refuses the key that the person brought.
    #[error("BondMCP does not accept the API key that was given in place of signing in")]
    OwnKeyRejected,
    /// The key was not made through this account, so its value is not known here.
    #[error("the value of that API key is not stored here")]
    KeyNotHeld,
    #[error("there is no active API key with that id")]
    KeyNotFound,
    #[error("the API key's {field} does not fit")]
    InvalidText { field: &'static str, longest: usize },
    /// The answer to a create was lost. `orphans`: keys that were probably made by it.
    #[error("the answer to creating the API key was lost")]
    CreateLost { orphans: Vec<String>, cause: bondmcp::Error },
    /// The key may have another value by now, which nobody knows.
    #[error("the answer to giving API key {id} a new value was lost")]
    RegenerationLost { id: String, cause: bondmcp::Error },
    /// The new key is made and kept, the old one still lives.
    #[error("the rotation of API key {old} to {new} is not finished")]
    RotationUnfinished { old: String, new: String, cause: bondmcp::Error },
    /// Another process renews and does not come to an end.
    #[error("another process is still renewing the session")]
    RenewalBusy,
    /// Another call or process rotates the same key and does not come to an end.
    #[error("this API key is still being rotated")]
    RotationBusy,
    /// Another process is beginning a sign-in and does not say where.
    #[error("another process is just beginning a sign-in")]
    SignInBusy,
    /// The sealed record opens but is not understood.
    #[error("the account's record in the vault is not understood")]
    RecordUnreadable,
    /// A task of ours ended without an answer.
    #[error("the operation was interrupted")]
    Interrupted,
}

impl Error {
    fn upstream(&self) -> Option<&bondmcp::Error> {
        match self {
            Self::Upstream(error) => Some(error),
            _ => None,
        }
    }

    /// BondMCP does not accept the credential, or not the e-mail and the password.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::ApiKeyRejected { .. } | Self::OwnKeyRejected)
            || self.upstream().is_some_and(bondmcp::Error::is_unauthorized)
    }

    /// The e-mail address is not verified yet.
    #[must_use]
    pub fn is_not_verified(&self) -> bool {
        self.upstream().is_some_and(bondmcp::Error::is_not_verified)
    }

    /// There is no such thing at BondMCP.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::KeyNotFound) || self.upstream().is_some_and(bondmcp::Error::is_not_found)
    }

    /// BondMCP is down or cannot be reached, so that the same may work later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.upstream().is_some_and(bondmcp::Error::is_outage)
    }

    /// The call failed, and may have been processed and billed all the same.
    #[must_use]
    pub fn is_possibly_billed(&self) -> bool {
        self.upstream().is_some_and(bondmcp::Error::is_possibly_billed)
    }

    /// How long to wait before trying again, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.upstream().and_then(bondmcp::Error::retry_after)
    }
}

/// Why a person must sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInReason {
    NotSignedIn,
    SessionEnded,
    PasswordRejected,
    EnvironmentRejected,
    KeysNeedSession,
}

impl std::fmt::Display for SignInReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotSignedIn => "Nobody is signed in to BondMCP.",
            Self::SessionEnded => "The BondMCP session has ended and cannot be renewed.",
            Self::PasswordRejected => {
                "BondMCP rejected the remembered password; it was forgotten and is not tried again."
            }
            Self::EnvironmentRejected => {
                "BondMCP rejected BONDMCP_EMAIL and BONDMCP_PASSWORD; they are not tried again."
            }
            Self::KeysNeedSession => {
                "Managing API keys needs a signed-in account; an API key cannot manage keys."
            }
        })
    }
}

impl SignInReason {
    fn solution(self, command: &str) -> String {
        match self {
            Self::EnvironmentRejected => format!(
                "Correct the two variables in the server's configuration and restart it, or unset them and run `{command}` in a terminal."
            ),
            _ => format!("The person runs `{command}` in a terminal, outside the chat; then call again."),
        }
    }
}

impl From<&Error> for Report {
    fn from(error: &Error) -> Self {
        let told = |kind, next: String| Self::new(kind, sentence(&error.to_string()), next);
        match error {
            Error::SignInRequired { why, command } => {
                Self::new(Kind::SignInRequired, why.to_string(), why.solution(command))
            }
            Error::Upstream(error) => error.into(),
            Error::Vault(error) => error.into(),
            Error::ProfileTaken { email } => told(
                Kind::Conflict,
                format!(
                    "Use another profile with --profile NAME, or let {email} go with `bondmcp-server logout --forget-keys`."
                ),
            ),
            Error::ApiKeyRejected { id: None } => told(
                Kind::InvalidCredentials,
                "Correct BONDMCP_API_KEY in the server's configuration and restart it.".into(),
            ),
            Error::ApiKeyRejected { id: Some(id) } => told(
                Kind::InvalidCredentials,
                format!("It was probably revoked. Choose another key than {id} with `use`, or none to use the session."),
            ),
            Error::OwnKeyRejected => {
                told(Kind::InvalidCredentials, "Sign out, then sign in again with another key or with a password.".into())
            }
            Error::KeyNotHeld => told(
                Kind::NotFound,
                "Only keys created or rotated here can be used; list the keys and take one with `stored: true`, or create one."
                    .into(),
            ),
            Error::KeyNotFound => {
                told(Kind::NotFound, "List the keys and give the id of one of them.".into())
            }
            Error::InvalidText { field, longest } => told(
                Kind::InvalidInput,
                format!("Give a {field} of 1 to {longest} characters without line breaks."),
            ),
            Error::CreateLost { orphans, .. } if orphans.is_empty() => told(
                Kind::UpstreamUnavailable,
                "List the keys in a moment: a key that was made meanwhile is reported there; revoke it, its value is lost."
                    .into(),
            ),
            Error::CreateLost { orphans, .. } => told(
                Kind::UpstreamUnavailable,
                format!("It has probably made {}, whose value is lost: revoke it and create again.", orphans.join(", ")),
            ),
            Error::RegenerationLost { id, .. } => told(
                Kind::UpstreamUnavailable,
                format!("Its value may have changed: rotate {id} again, or revoke it."),
            ),
            Error::RotationUnfinished { old, new, .. } => told(
                Kind::UpstreamUnavailable,
                format!("Both keys are live and {new} is kept here. Rotate {old} again to finish."),
            ),
            Error::RenewalBusy | Error::RotationBusy | Error::SignInBusy => told(Kind::Timeout, "Try again in a moment.".into()),
            Error::RecordUnreadable => told(
                Kind::Internal,
                "It was probably written by a newer version: upgrade bondmcp-server, or use another profile.".into(),
            ),
            Error::Interrupted => told(Kind::Internal, "Try again; look first whether it was done.".into()),
        }
    }
}
