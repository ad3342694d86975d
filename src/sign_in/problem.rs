//! A problem with a form of the page, at the field that the person corrects.

use crate::error::{Kind, UserFacingError};

/// The field of a form that a problem concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Email,
    Password,
    Key,
    /// No field: the person can only try again later, or another way.
    None,
}

/// A problem, in words for the person on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub field: Field,
    pub message: String,
}

impl Problem {
    pub fn new(field: Field, message: impl Into<String>) -> Self {
        Self { field, message: message.into() }
    }

    /// Describes an error of signing in with an e-mail address and a password, or of creating an account.
    #[must_use]
    pub fn with_account(error: &UserFacingError) -> Self {
        let field = match error.kind {
            Kind::InvalidInput => named_field(&error.message),
            Kind::Conflict => Field::Email,
            Kind::InvalidCredentials => Field::Password,
            _ => Field::None,
        };
        Self::new(field, words(error))
    }

    /// Describes an error of using an API key.
    #[must_use]
    pub fn with_key(error: &UserFacingError) -> Self {
        let field = match error.kind {
            Kind::InvalidCredentials | Kind::InvalidInput => Field::Key,
            _ => Field::None,
        };
        Self::new(field, words(error))
    }
}

/// Returns how many attempts are left, in words.
#[must_use]
pub fn attempts_left(left: u8) -> String {
    match left {
        0 => "No attempts left.".to_owned(),
        1 => "1 attempt left.".to_owned(),
        left => format!("{left} attempts left."),
    }
}

/// Returns the message and what to do next. The solutions for a wait address agents, so they are not shown.
fn words(error: &UserFacingError) -> String {
    match error.retry_after_seconds {
        Some(seconds) => format!("{} Try again in {seconds} seconds.", error.message),
        None => error.to_string(),
    }
}

/// BondMCP names a field only in its message.
fn named_field(message: &str) -> Field {
    let message = message.to_ascii_lowercase();
    if message.contains("password") {
        Field::Password
    } else if message.contains("email") || message.contains("e-mail") {
        Field::Email
    } else {
        Field::None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_problem_is_at_the_field_that_bondmcp_names() {
        for (kind, message, field) in [
            (Kind::InvalidInput, "Password needs at least 8 characters.", Field::Password),
            (Kind::InvalidInput, "body.email: value is not a valid email address.", Field::Email),
            (Kind::InvalidInput, "No.", Field::None),
            (Kind::Conflict, "This e-mail already has an account.", Field::Email),
            (Kind::UpstreamUnavailable, "The e-mail service is down.", Field::None),
        ] {
            assert_eq!(
                Problem::with_account(&UserFacingError::new(kind, message, "")).field,
                field,
                "{message}"
            );
        }
    }

    #[test]
    fn a_wait_is_given_in_seconds() {
        let limited = UserFacingError::new(Kind::RateLimited, "Too many.", "Wait `retry_after_seconds`.");
        let problem = Problem::with_key(&limited.with_retry_after(Some(Duration::from_secs(7))));
        assert_eq!(problem, Problem::new(Field::None, "Too many. Try again in 7 seconds."));
    }
}
