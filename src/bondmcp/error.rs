//! Errors of the upstream client.

use std::time::Duration;

use super::{
    circuit_breaker::Open,
    connection::{BreakCause, ConnectFailure, SetupError},
    refusal::Refusal,
};
use crate::{
    clock::whole_seconds,
    error::{Kind, UserFacingError, sentence},
};

/// Advice after a billed request whose outcome is unknown.
pub const POSSIBLY_BILLED: &str =
    "The request may have been processed and billed: ask the person before repeating it.";

/// Errors of a call to the upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The upstream refused the request.
    #[error("{} answered with HTTP {}", .0.host, .0.status)]
    Refused(Box<Refusal>),
    /// The upstream rejected an e-mail and a password (401).
    #[error("wrong e-mail or password")]
    LoginRejected(Box<Refusal>),
    /// The upstream refused to register an e-mail address that has an account (409).
    #[error("this e-mail already has an account")]
    AccountExists(Box<Refusal>),
    /// No connection was made, so nothing was processed.
    #[error("cannot connect to {host}: {cause}")]
    Unreachable { host: String, cause: ConnectFailure },
    /// No connection to the proxy in the environment was made, so nothing was processed.
    #[error("cannot connect to the proxy {proxy}, through which requests to {host} go: {cause}")]
    ProxyUnreachable { host: String, proxy: String, cause: ConnectFailure },
    /// The connection broke; the request may have been processed.
    #[error("the connection to {host} broke: {cause}")]
    Broken { host: String, cause: BreakCause },
    /// No answer in time; the request may have been processed.
    #[error("{host} did not answer in time")]
    Timeout { host: String },
    /// The upstream answered with a redirect, which is not followed because it would receive the credentials.
    #[error("{host} answered with a redirect (HTTP {status}), which is not followed")]
    Redirected { host: String, status: u16 },
    /// The response is larger than the client accepts.
    #[error("the response from {host} is larger than {} MiB", limit >> 20)]
    Oversize { host: String, limit: usize },
    /// A successful response is not JSON, or not in the expected format.
    #[error("the response from {host} is not in BondMCP's format")]
    Unreadable { host: String },
    /// The account's requests in this minute are used up; nothing was sent.
    #[error("the plan's rate limit is reached")]
    RateLimited { retry_after: Duration },
    /// The circuit breaker is open after repeated failures; nothing was sent.
    #[error(transparent)]
    CircuitOpen(#[from] Open),
    /// Too little time is left for a billed request; nothing was sent.
    #[error("waiting has used up the time of this call; nothing was billed")]
    TooLate,
    /// A billed request failed and may have been processed.
    #[error("{cause}")]
    PossiblyBilled { cause: Box<Error> },
    /// The id is malformed; nothing was sent.
    #[error("that is not an API key id")]
    InvalidId,
    /// The credential cannot be sent in a header; nothing was sent.
    #[error("the credential holds characters that an HTTP header cannot carry")]
    InvalidCredential,
    /// The HTTP client could not be set up; nothing was sent.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl Error {
    /// Returns the refusal, if the upstream answered with one.
    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) | Self::LoginRejected(refusal) | Self::AccountExists(refusal) => {
                Some(refusal)
            }
            Self::PossiblyBilled { cause } => cause.refusal(),
            _ => None,
        }
    }

    /// Returns the HTTP status of the refusal, if the upstream answered with one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// Whether the credential was rejected (401).
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        self.status() == Some(401)
    }

    /// Whether the e-mail address is not verified yet.
    #[must_use]
    pub fn is_not_verified(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.kind() == Kind::EmailNotVerified)
    }

    /// Whether the plan allows no additional API key. The documented status, 403, is also that of missing permissions.
    #[must_use]
    pub fn is_about_key_limit(&self) -> bool {
        self.refusal().is_some_and(Refusal::is_about_key_limit)
    }

    /// Whether the plan may allow no additional API key: for what does no harm where it is about another limit.
    #[must_use]
    pub fn may_be_about_key_limit(&self) -> bool {
        self.refusal().is_some_and(Refusal::may_be_about_key_limit)
    }

    /// Whether the object does not exist (404). A 404 from something that is not the API says nothing about the object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404) && self.refusal().is_some_and(Refusal::is_in_format)
    }

    /// Whether a failed billed request may have been processed.
    #[must_use]
    pub fn is_possibly_billed(&self) -> bool {
        matches!(self, Self::PossiblyBilled { .. })
    }

    /// Whether the upstream certainly did not process the request.
    #[must_use]
    pub fn is_certainly_unprocessed(&self) -> bool {
        match self {
            Self::Refused(refusal) | Self::LoginRejected(refusal) | Self::AccountExists(refusal) => {
                // Gateways and frameworks also answer so when the processing takes too long: 408, and nginx's 499.
                let is_time_out = matches!(refusal.status, 408 | 499);
                // A 101 says nothing about it.
                (400..500).contains(&refusal.status) && !is_time_out || refusal.is_load_shed()
            }
            // The other redirects ask for the same request elsewhere (RFC 9110, 15.4). After a POST, 303 and in
            // practice 302 lead to the result of a processed request.
            Self::Redirected { status, .. } => matches!(status, 301 | 307 | 308),
            Self::Unreachable { .. } | Self::ProxyUnreachable { .. } => true,
            Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Oversize { .. }
            | Self::Unreadable { .. }
            | Self::PossiblyBilled { .. } => false,
            _ => !self.was_sent(),
        }
    }

    /// Whether a request was sent to the upstream.
    pub(super) fn was_sent(&self) -> bool {
        !matches!(
            self,
            Self::RateLimited { .. }
                | Self::CircuitOpen(_)
                | Self::TooLate
                | Self::InvalidId
                | Self::InvalidCredential
                | Self::Setup(_)
        )
    }

    /// Whether a read may succeed when it is repeated.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.status, 429 | 500 | 502 | 503 | 504),
            Self::Unreachable { cause, .. } | Self::ProxyUnreachable { cause, .. } => {
                cause.is_of_the_network()
            }
            Self::Broken { .. } | Self::Timeout { .. } => true,
            _ => false,
        }
    }

    /// Whether a billed request may be repeated: the upstream has certainly not processed it, and may do so soon.
    pub(super) fn should_retry_billed(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status == 429 || refusal.is_load_shed(),
            Self::Unreachable { cause, .. } | Self::ProxyUnreachable { cause, .. } => {
                cause.is_of_the_network()
            }
            _ => false,
        }
    }

    /// Whether the error indicates that the upstream is down.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status >= 500,
            Self::Unreachable { .. }
            | Self::ProxyUnreachable { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::CircuitOpen(_) => true,
            Self::PossiblyBilled { cause } => cause.is_outage(),
            _ => false,
        }
    }

    /// Returns the wait before a retry, where it is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::CircuitOpen(Open { retry_after, .. }) => {
                Some(*retry_after)
            }
            Self::PossiblyBilled { cause } => cause.retry_after(),
            _ => self.refusal()?.retry_after,
        }
    }
}

impl From<&Error> for UserFacingError {
    fn from(error: &Error) -> Self {
        let report = |kind, next: &str| Self::new(kind, sentence(&error.to_string()), next);
        match error {
            Error::Refused(refusal) => refusal.as_ref().into(),
            Error::LoginRejected(refusal) => {
                report(Kind::InvalidCredentials, "Check both and try again.").of(refusal)
            }
            Error::AccountExists(refusal) => report(Kind::Conflict, "Sign in instead.").of(refusal),
            Error::Unreachable { cause, .. } => report(Kind::UpstreamUnavailable, cause.solution()),
            Error::ProxyUnreachable { .. } => report(
                Kind::UpstreamUnavailable,
                "Check the proxy settings in the environment (HTTPS_PROXY, ALL_PROXY, NO_PROXY), and whether the proxy runs.",
            ),
            Error::Broken { cause: BreakCause::NotHttp, .. } => {
                report(Kind::UpstreamUnavailable, "Check the scheme, the host and the port in the base URL.")
            }
            Error::Broken { .. } => report(
                Kind::UpstreamUnavailable,
                "Try again in a moment; if it keeps failing, check the network and the base URL.",
            ),
            Error::Timeout { .. } => report(
                Kind::Timeout,
                "Try again in a moment; a change may have been made anyway, so check before repeating it.",
            ),
            Error::Redirected { .. } => report(
                Kind::UpstreamUnavailable,
                "The operator must set BONDMCP_BASE_URL to the address that it redirects to, if that is to be trusted.",
            ),
            Error::Oversize { .. } | Error::Unreadable { .. } => report(
                Kind::UpstreamUnavailable,
                "Check that the base URL points at the BondMCP API; otherwise try again later.",
            ),
            Error::RateLimited { retry_after } => {
                report(Kind::RateLimited, "Wait `retry_after_seconds`, or upgrade the plan.")
                    .with_retry_after(Some(*retry_after))
            }
            Error::CircuitOpen(Open { retry_after, .. }) => {
                report(Kind::UpstreamUnavailable, &format!("Retry in {} s.", whole_seconds(*retry_after)))
                    .with_retry_after(Some(*retry_after))
            }
            Error::TooLate => report(Kind::Timeout, "Call again now with the same arguments."),
            Error::PossiblyBilled { cause } => {
                Self { solution: POSSIBLY_BILLED.to_owned(), ..cause.as_ref().into() }
            }
            Error::InvalidId => report(Kind::InvalidInput, "List the keys and give the id of one of them."),
            Error::InvalidCredential => {
                report(Kind::InvalidCredentials, "Copy it again, without line breaks or spaces.")
            }
            Error::Setup(SetupError::NoTrustedCertificates) => report(
                Kind::Internal,
                "Install the system's CA certificates, or name a file of them with SSL_CERT_FILE.",
            ),
            Error::Setup(SetupError::Client) => {
                report(Kind::Internal, "Check the proxy settings in the environment.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_error_is_no_proof_that_nothing_was_processed_because_the_limit_is_reached() {
        let reached = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000001")];
        for (status, headers, unprocessed) in [
            (503, &reached[..], false),
            (503, &[("retry-after", "1")], true),
            (500, &reached, false),
            (429, &reached, true),
            (101, &[], false),
            (408, &[], false),
            (499, &[], false),
            (422, &reached, true),
        ] {
            let error = Error::Refused(Box::new(Refusal::answered(status, headers, "")));
            assert_eq!(error.is_certainly_unprocessed(), unprocessed, "{status} {headers:?}");
            assert!(unprocessed || !error.should_retry_billed(), "{status} {headers:?}");
        }
    }
}
