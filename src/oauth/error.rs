//! Errors as OAuth names them: RFC 6749, sections 4.1.2.1 (authorization) and 5.2 (token); RFC 8707 (`invalid_target`);
//! RFC 7591, section 3.2.2 (registration).

use std::time::Duration;

use super::GrantId;
use crate::vault;

/// When a client may try again after trouble with the store or with BondMCP.
const RETRY_AFTER: Duration = Duration::from_secs(5);

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

impl OAuthError {
    /// 400, the status of most errors.
    #[must_use]
    pub fn bad_request(code: &'static str, description: &'static str) -> Self {
        Self { status: 400, code, description, retry_after: None, ended: None }
    }

    #[must_use]
    pub fn invalid_request(description: &'static str) -> Self {
        Self::bad_request("invalid_request", description)
    }

    /// A code or a refresh token is not accepted: the person has to connect again.
    #[must_use]
    pub fn invalid_grant(description: &'static str) -> Self {
        Self::bad_request("invalid_grant", description)
    }

    /// There are more requests than are answered.
    #[must_use]
    pub fn too_many_requests(wait: Duration) -> Self {
        Self {
            status: 429,
            code: "temporarily_unavailable",
            description: "There are too many requests. Try again in a second.",
            retry_after: Some(wait),
            ended: None,
        }
    }

    /// Trouble that passes. A host that got `invalid_grant` instead would sign the person out.
    #[must_use]
    pub fn temporarily_unavailable() -> Self {
        Self {
            status: 503,
            code: "temporarily_unavailable",
            description: "The server cannot answer now. Try again later.",
            retry_after: Some(RETRY_AFTER),
            ended: None,
        }
    }
}

impl From<vault::Error> for OAuthError {
    fn from(error: vault::Error) -> Self {
        tracing::error!(%error, "the vault failed in a request of a client");
        Self::temporarily_unavailable()
    }
}

/// An error of an authorization response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationErrorCode {
    InvalidRequest,
    UnsupportedResponseType,
    InvalidTarget,
    AccessDenied,
}

impl AuthorizationErrorCode {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::InvalidTarget => "invalid_target",
            Self::AccessDenied => "access_denied",
        }
    }
}
