//! The form in which every failure is shown to users and agents: a kind for programs, a message, and what to do next.
//! Each module converts its own error enum into a [`UserFacingError`]; this module does not depend on them.

use std::{io, time::Duration};

use schemars::JsonSchema;
use serde::Serialize;

use crate::clock::whole_seconds;

/// The kinds of failure that callers can distinguish, each with what to do about it. They are a contract with agents and
/// scripts; the documentation's table is made from these comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An argument is missing, unknown or out of range, or BondMCP rejects it. Correct what the message names.
    InvalidInput,
    /// Nobody is signed in. Open the link in the answer, or run its command in a terminal; then ask the agent again.
    SignInRequired,
    /// BondMCP does not accept the password, the session or the API key. Sign in again, or choose another key.
    InvalidCredentials,
    /// The account's e-mail address is not verified. Open the link in the e-mail from BondMCP.
    EmailNotVerified,
    /// The account or the API key may not do this, or the person declined. Use a key with the permission, or sign in.
    Forbidden,
    /// The BondMCP account has no credits left. Top it up.
    InsufficientCredits,
    /// There is no such key or model. List what there is.
    NotFound,
    /// It exists already, or somebody else is changing it. Use the one there is, or try again.
    Conflict,
    /// The plan allows no more requests for now. Wait `retry_after_seconds`, or upgrade the plan.
    RateLimited,
    /// The call would exceed a spending limit: the operator's (`--max-spend`, `--daily-spend`), or on a hosted server the
    /// person's, who can change it on `/connections`. Raise it, or wait for the next day (UTC).
    SpendLimit,
    /// BondMCP cannot be reached, or does not answer as it documents. Read the message, and try again later.
    UpstreamUnavailable,
    /// There was no answer in time. Call again, unless the message says that the request may have been billed.
    Timeout,
    /// A bug of this server, or a file that it cannot read. Follow the message; report it if it names no remedy.
    Internal,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::InvalidInput,
        Self::SignInRequired,
        Self::InvalidCredentials,
        Self::EmailNotVerified,
        Self::Forbidden,
        Self::InsufficientCredits,
        Self::NotFound,
        Self::Conflict,
        Self::RateLimited,
        Self::SpendLimit,
        Self::UpstreamUnavailable,
        Self::Timeout,
        Self::Internal,
    ];

    /// Returns its name, as agents read it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::SignInRequired => "sign_in_required",
            Self::InvalidCredentials => "invalid_credentials",
            Self::EmailNotVerified => "email_not_verified",
            Self::Forbidden => "forbidden",
            Self::InsufficientCredits => "insufficient_credits",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate_limited",
            Self::SpendLimit => "spend_limit",
            Self::UpstreamUnavailable => "upstream_unavailable",
            Self::Timeout => "timeout",
            Self::Internal => "internal",
        }
    }
}

/// A failure as it is shown to users and agents: it holds neither a secret nor a raw upstream body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UserFacingError {
    pub kind: Kind,
    /// What happened, in one sentence.
    pub message: String,
    /// What to do next.
    pub solution: String,
    /// HTTP status of the upstream's response, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Seconds to wait before a retry, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

impl UserFacingError {
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>, solution: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            solution: solution.into(),
            status: None,
            retry_after_seconds: None,
        }
    }

    #[must_use]
    pub fn with_status(mut self, status: Option<u16>) -> Self {
        self.status = status;
        self
    }

    /// Sets the wait, rounded up so that a retry is not too early.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after_seconds = after.map(whole_seconds);
        self
    }
}

impl std::fmt::Display for UserFacingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.message, self.solution)
    }
}

impl std::error::Error for UserFacingError {}

/// Capitalises the first letter, unless the text begins with a name such as that of a file, and ends with a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let is_word = text
        .split(' ')
        .next()
        .is_some_and(|word| !word.contains(|c: char| "/\\.".contains(c) || c.is_ascii_digit()));
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|c| if is_word { c.to_uppercase().to_string() } else { c.into() })
        .unwrap_or_default();
    let dot = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{dot}", letters.as_str())
}

/// Says why a file or directory cannot be used.
pub(crate) fn reason(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::AlreadyExists => "it exists already".to_owned(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_name_that_agents_read() {
        let schema = serde_json::to_value(schemars::schema_for!(Kind)).unwrap();
        let names: Vec<_> = schema["oneOf"].as_array().unwrap().iter().map(|kind| &kind["const"]).collect();
        assert_eq!(names, Kind::ALL.map(Kind::name));
    }
}
