//! The token endpoint (RFC 6749, sections 4.1.3 and 6; resource: RFC 8707).

use super::{AuthorizationServer, Grant, OAuthError, Scopes};
use crate::secret::SecretString;

/// A successful answer of the token endpoint (RFC 6749, section 5.1). It leaves the process only in that answer.
#[derive(Debug)]
pub struct TokenResponse {
    pub access_token: SecretString,
    pub refresh_token: Option<SecretString>,
    /// Seconds.
    pub expires_in: u64,
    pub scope: Scopes,
    /// Names the authorization in logs.
    pub reference: String,
}

/// Whether BondMCP still accepts what a grant calls it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    /// For good: the grant ends.
    Refused,
    /// It cannot be found out now.
    Unknown,
}

impl AuthorizationServer {
    /// Answers a request to `/token`. `authorization` is the header of the same name, `form` the body. `accepted` tells
    /// before a refresh whether BondMCP still accepts what the grant calls it with.
    pub async fn token(
        &self,
        authorization: Option<&str>,
        form: &[u8],
        accepted: impl AsyncFn(&Grant) -> Acceptance,
    ) -> Result<TokenResponse, OAuthError> {
        let _ = accepted;
        todo!("{authorization:?} {form:?}")
    }
}
