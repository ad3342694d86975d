//! Metadata of the authorization server (RFC 8414) and of the protected resource (RFC 9728).

use serde_json::Value;

use super::AuthorizationServer;
use crate::vault;

impl AuthorizationServer {
    #[must_use]
    pub fn authorization_server_metadata(&self) -> Value {
        todo!()
    }

    #[must_use]
    pub fn protected_resource_metadata(&self) -> Value {
        todo!()
    }

    /// The public keys that verify access tokens (RFC 7517).
    pub async fn jwks(&self) -> Result<Value, vault::Error> {
        todo!()
    }

    /// Whether the vault answers and there is a signing key.
    pub async fn check_ready(&self) -> Result<(), vault::Error> {
        todo!()
    }
}
