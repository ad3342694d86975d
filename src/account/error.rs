//! Errors of an account, for callers to match and for people to act on.

use std::{sync::Arc, time::Duration};

use super::{DailyLimit, LimitSetBy, Usd};
use crate::{
    bondmcp,
    clock::Timestamp,
    error::{Kind, UserFacingError, sentence},
    vault,
};

/// Errors of an account.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The person must sign in; `command` does that in a terminal, where the owner has one; it is in backticks.
    #[error("{why}")]
    SignInRequired { why: SignInReason, command: Option<String> },
    #[error(transparent)]
    Upstream(#[from] bondmcp::Error),
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The profile stores the API keys of another account, whose values exist nowhere else.
    #[error("this profile belongs to {email}")]
    ProfileTaken { email: String },
    /// The account of a subject is one BondMCP user's; it was somebody else who signed in, or BondMCP does not say who.
    #[error("this account belongs to another BondMCP user")]
    AnotherUser,
    /// The upstream rejects the API key from the environment (`None`) or the one selected with `use`.
    #[error("BondMCP does not accept the API key")]
    ApiKeyRejected { id: Option<String> },
    /// The upstream rejects the API key that the person entered.
    #[error("BondMCP does not accept the API key that was given in place of signing in")]
    OwnKeyRejected,
    /// The key was not created here, so its value is unknown.
    #[error("the value of that API key is not stored here")]
    KeyNotStored,
    #[error("there is no active API key with that id")]
    KeyNotFound,
    #[error("invalid API key {field}")]
    InvalidText { field: &'static str },
    /// BondMCP gives a value that it has just made as that of a key which existed before. It is not stored: it would take the
    /// place of that key's own value.
    #[error("the answer is about API key {id}, which existed before and may have a new value now")]
    KeyNotNew { id: String },
    /// The response to a create was lost, or the value could not be stored. `orphans` are the ids of keys that it probably
    /// created.
    #[error("creating the API key did not complete: {cause}")]
    CreateLost { orphans: Vec<String>, cause: Box<Error> },
    /// The response to a regeneration was lost, or the value could not be stored: the key may have a new value that is
    /// unknown here.
    #[error("regenerating API key {id} did not complete: {cause}")]
    RegenerationLost { id: String, cause: Box<Error> },
    /// Another process has rotated the key and stored its value, which stays.
    #[error("another process has given the key a new value meanwhile")]
    RotatedMeanwhile,
    /// The new key is created and stored, and the old one is not revoked yet.
    #[error("the rotation of API key {old} to {new} is not finished")]
    RotationUnfinished { old: String, new: String, cause: bondmcp::Error },
    /// Another process is renewing the session and has not finished in time.
    #[error("another process is still renewing the session")]
    RenewalBusy,
    /// Another call or process is rotating the same key and has not finished in time.
    #[error("this API key is still being rotated")]
    RotationBusy,
    /// Another process is starting a sign-in and has not announced its link in time.
    #[error("another process is starting a sign-in")]
    SignInBusy,
    /// The owner's daily limit does not allow the call; nothing was sent. `page` is where a person changes it.
    #[error("the call costs up to {price}; of today's limit of {}, {taken} are spent or reserved", limit.usd)]
    DailyLimit { price: Usd, taken: Usd, limit: DailyLimit, resets_at: Timestamp, page: Option<Arc<str>> },
    /// It is not known what was spent today; nothing was sent.
    #[error("the daily spending limit cannot be checked, so nothing was sent to BondMCP: {cause}")]
    LimitUnknown { cause: Box<Error> },
    /// The key is the one that the app's own calls are made with.
    #[error("this app's own API key cannot be revoked by the app")]
    GrantKey { page: Option<Arc<str>> },
    /// The key is the one that the calls of another app are made with.
    #[error("this API key is another app's")]
    OtherGrantKey { page: Option<Arc<str>> },
    /// The person, the operator or the app has ended what the person had allowed.
    #[error("this app is no longer connected to BondMCP")]
    GrantEnded,
    /// The record decrypts but cannot be parsed.
    #[error("the account's record in the vault cannot be parsed")]
    RecordUnreadable,
    /// An internal task ended without a result.
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

    /// Names the page on which a person sees the connected apps, where the error sends them there.
    #[must_use]
    pub fn with_page(mut self, address: &Arc<str>) -> Self {
        if let Self::DailyLimit { page, .. } | Self::GrantKey { page } | Self::OtherGrantKey { page } =
            &mut self
        {
            *page = Some(Arc::clone(address));
        }
        self
    }

    /// Whether BondMCP rejects the credential, or the e-mail and password.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::ApiKeyRejected { .. } | Self::OwnKeyRejected)
            || self.upstream().is_some_and(bondmcp::Error::is_unauthorized)
    }

    /// Whether the e-mail address is not verified yet.
    #[must_use]
    pub fn is_not_verified(&self) -> bool {
        self.upstream().is_some_and(bondmcp::Error::is_not_verified)
    }

    /// Whether BondMCP does not know the object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::KeyNotFound) || self.upstream().is_some_and(bondmcp::Error::is_not_found)
    }

    /// Whether BondMCP is down or unreachable, so that the same call may work later.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.upstream().is_some_and(bondmcp::Error::is_outage)
    }

    /// Whether the failed call may have been processed and billed.
    #[must_use]
    pub fn is_possibly_billed(&self) -> bool {
        self.upstream().is_some_and(bondmcp::Error::is_possibly_billed)
    }

    /// Whether a change of keys that failed so may have made a key whose id was not told.
    pub(super) fn leaves_key_unknown(&self) -> bool {
        matches!(self, Self::Upstream(_) | Self::KeyNotNew { .. })
    }

    /// The wait before a retry, where it is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.upstream().and_then(bondmcp::Error::retry_after)
    }
}

/// The reason why a person must sign in.
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
            Self::NotSignedIn => "Not signed in to BondMCP.",
            Self::SessionEnded => "The BondMCP session has expired and cannot be renewed.",
            Self::PasswordRejected => {
                "BondMCP rejected the stored password; it was deleted and is not tried again."
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
    fn solution(self, command: Option<&str>) -> String {
        let Some(command) = command else {
            return "The person signs in outside the chat, on the page whose link `login` gives; then call again. If that does not help, they connect this app again in the settings of their host.".into();
        };
        match self {
            Self::EnvironmentRejected => format!(
                "Correct the two variables in the server's configuration and restart it, or unset them and run {command} in a terminal."
            ),
            _ => {
                format!("Ask the person to run {command} in a terminal, outside the chat; then call again.")
            }
        }
    }
}

/// Names the page of connected apps where its address is not known.
const CONNECTIONS: &str = "this server's page /connections";

impl From<&Error> for UserFacingError {
    fn from(error: &Error) -> Self {
        let report = |kind, next: String| Self::new(kind, sentence(&error.to_string()), next);
        match error {
            Error::SignInRequired { why, command } => {
                Self::new(Kind::SignInRequired, why.to_string(), why.solution(command.as_deref()))
            }
            Error::Upstream(error) => error.into(),
            Error::Vault(error) => error.into(),
            Error::ProfileTaken { email } => report(
                Kind::Conflict,
                format!(
                    "Use another profile with --profile NAME, or sign {email} out first (`bondmcp-server logout --forget-keys`, which also deletes its stored keys)."
                ),
            ),
            Error::AnotherUser => report(
                Kind::Conflict,
                "Sign in with the e-mail address and password with which this server was connected. To use another BondMCP account, disconnect the server and connect it again.".into(),
            ),
            Error::ApiKeyRejected { id: None } => report(
                Kind::InvalidCredentials,
                "Correct BONDMCP_API_KEY in the server's configuration and restart it.".into(),
            ),
            Error::ApiKeyRejected { id: Some(id) } => report(
                Kind::InvalidCredentials,
                format!("{id} was probably revoked. Choose another key, or none to use the session."),
            ),
            Error::OwnKeyRejected => {
                report(Kind::InvalidCredentials, "Sign out, then sign in again with another key or with a password.".into())
            }
            Error::KeyNotStored => report(
                Kind::NotFound,
                "Only keys created or rotated here can be used; list the keys and take one with `stored: true`, or create one."
                    .into(),
            ),
            Error::KeyNotFound => {
                report(Kind::NotFound, "List the keys and give the id of one of them.".into())
            }
            Error::InvalidText { field } => report(
                Kind::InvalidInput,
                format!("Give a {field} that is not empty and has no line breaks or other control characters."),
            ),
            Error::KeyNotNew { id } => report(
                Kind::UpstreamUnavailable,
                format!("If calls with {id} fail, rotate it."),
            ),
            Error::RotatedMeanwhile => {
                report(Kind::Conflict, "List the keys; if calls with this one fail, rotate it again.".into())
            }
            Error::CreateLost { orphans, cause } => {
                report(kind_of_loss(cause), advice_on_lost_key(orphans) + &advice_on_other_key(cause))
            }
            Error::RegenerationLost { id, cause } => report(
                kind_of_loss(cause),
                format!("Its value may have changed: rotate {id} again, or revoke it.")
                    + &advice_on_other_key(cause),
            ),
            Error::RotationUnfinished { old, new, .. } => report(
                Kind::UpstreamUnavailable,
                format!("{new} is stored here. Rotate {old} again to finish, if it is still listed as active."),
            ),
            Error::RenewalBusy | Error::RotationBusy | Error::SignInBusy => report(Kind::Timeout, "Try again in a moment.".into()),
            Error::DailyLimit { limit, resets_at, page, .. } => {
                let changed_by = match limit.set_by {
                    LimitSetBy::Operator => "The operator sets the limit with --daily-spend".to_owned(),
                    LimitSetBy::Person => {
                        let page = page.as_deref().unwrap_or(CONNECTIONS);
                        format!("They can change this app's limit on {page}")
                    }
                };
                let at = resets_at.format("%Y-%m-%d %H:%M UTC");
                report(Kind::SpendLimit, format!("Tell the person. {changed_by}; it resets at {at}."))
            }
            Error::GrantKey { page } => report(
                Kind::Forbidden,
                format!("Rotate it to replace it. To end it, the person disconnects this app on {}.", page.as_deref().unwrap_or(CONNECTIONS)),
            ),
            Error::OtherGrantKey { page } => report(
                Kind::Forbidden,
                format!("To end it, the person disconnects that app on {}.", page.as_deref().unwrap_or(CONNECTIONS)),
            ),
            Error::GrantEnded => report(
                Kind::InvalidCredentials,
                "The person connects the app again in its settings.".into(),
            ),
            Error::LimitUnknown { cause } => {
                let Self { kind, solution, .. } = cause.as_ref().into();
                report(kind, solution)
            }
            Error::RecordUnreadable => report(
                Kind::Internal,
                "It was probably written by a newer version: upgrade bondmcp-server, or use another profile.".into(),
            ),
            Error::Interrupted => {
                report(Kind::Internal, "Check whether it took effect, then try again.".into())
            }
        }
    }
}

/// Returns what to do about the key that a create has made, or may have: `orphans` are those that were found.
fn advice_on_lost_key(orphans: &[String]) -> String {
    if orphans.is_empty() {
        return "List the keys in a moment: a key that was created meanwhile is reported there; revoke it, since its value is lost."
            .into();
    }
    let orphans = orphans.join(", ");
    format!("It probably created {orphans}, whose value is lost: revoke it and create another key.")
}

/// Returns what to do about the key whose id BondMCP gave in place of that of the key whose value was lost.
fn advice_on_other_key(cause: &Error) -> String {
    match cause {
        Error::KeyNotNew { .. } => format!(" {}", UserFacingError::from(cause).solution),
        _ => String::new(),
    }
}

/// Returns the kind of an error by which the value of a key was lost.
fn kind_of_loss(cause: &Error) -> Kind {
    match cause {
        Error::Upstream(_) => Kind::UpstreamUnavailable,
        cause => UserFacingError::from(cause).kind,
    }
}
