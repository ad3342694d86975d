//! Token revocation (RFC 7009).

use super::{AuthorizationServer, Grant, OAuthError};

impl AuthorizationServer {
    /// Answers a request to `/revoke`: ends the grant of the token, if it is one of the client's. An unknown token is no
    /// error. Returns the grant whose key is to be revoked.
    pub async fn revoke(&self, authorization: Option<&str>, form: &[u8]) -> Result<Option<Grant>, OAuthError> {
        todo!("{authorization:?} {form:?}")
    }
}
