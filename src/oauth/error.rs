//! Errors as OAuth names them: RFC 6749, sections 4.1.2.1 (authorization) and 5.2 (token); RFC 8707 (`invalid_target`);
//! RFC 7591, section 3.2.2 (registration).

use std::time::Duration;

use super::GrantId;

/// An error of `/token`, `/revoke` or `/register`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthError {
    /// HTTP status.
    pub status: u16,
    /// The value of `error`.
    pub code: &'static str,
    /// The value of `error_description`: our own words, never the client's.
    pub description: &'static str,
    /// The value of `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The grant that this request has ended, whose key is to be revoked.
    pub ended: Option<GrantId>,
}

/// An error of an authorization response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationErrorCode {
    InvalidRequest,
    UnsupportedResponseType,
    InvalidTarget,
    AccessDenied,
    ServerError,
    TemporarilyUnavailable,
}

impl AuthorizationErrorCode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidTarget => "invalid_target",
            Self::AccessDenied => "access_denied",
            Self::ServerError => "server_error",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
        }
    }
}
