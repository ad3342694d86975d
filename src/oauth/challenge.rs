//! The challenges of the protected resource: `WWW-Authenticate` (RFC 6750, section 3; RFC 9728, section 5.1).

use super::{Endpoints, Scopes};

/// Returns the value of `WWW-Authenticate`. `error` is absent where the request had no token, `invalid_token` (401) or
/// `insufficient_scope` (403); `scopes` are those that the operation needs, or all that are offered.
#[must_use]
pub fn challenge(endpoints: &Endpoints, error: Option<&'static str>, scopes: Scopes) -> String {
    let error = error.map(|error| format!(r#"error="{error}", "#)).unwrap_or_default();
    let metadata = endpoints.resource_metadata();
    format!(r#"Bearer {error}resource_metadata="{metadata}", scope="{scopes}""#)
}
