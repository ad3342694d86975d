//! Metadata of the authorization server (RFC 8414) and of the protected resource (RFC 9728).

use serde_json::{Value, json};

use super::{AuthorizationServer, Scope};
use crate::vault;

/// How clients authenticate. Hosts that have a metadata document as client id use it only where `none` is listed.
const AUTH_METHODS: [&str; 4] = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"];

/// Algorithms of `private_key_jwt`.
const AUTH_ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];

impl AuthorizationServer {
    /// RFC 8414, section 2; client id metadata documents; RFC 9207, section 3.
    #[must_use]
    pub fn authorization_server_metadata(&self) -> Value {
        let endpoints = self.endpoints();
        let mut metadata = json!({
            "issuer": endpoints.issuer(),
            "authorization_endpoint": endpoints.authorize(),
            "token_endpoint": endpoints.token(),
            "registration_endpoint": endpoints.register(),
            "revocation_endpoint": endpoints.revoke(),
            "jwks_uri": endpoints.jwks(),
            "scopes_supported": self.scope_names(),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": AUTH_METHODS,
            "token_endpoint_auth_signing_alg_values_supported": AUTH_ALGORITHMS,
            "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
            "revocation_endpoint_auth_signing_alg_values_supported": AUTH_ALGORITHMS,
            "client_id_metadata_document_supported": true,
        });
        if self.inner.settings.sends_iss {
            metadata["authorization_response_iss_parameter_supported"] = Value::Bool(true);
        }
        metadata
    }

    /// RFC 9728, section 2.
    #[must_use]
    pub fn protected_resource_metadata(&self) -> Value {
        json!({
            "resource": self.endpoints().resource(),
            "authorization_servers": [self.endpoints().issuer()],
            "scopes_supported": self.scope_names(),
            "bearer_methods_supported": ["header"],
            "resource_name": "BondMCP",
        })
    }

    /// The public keys that verify access tokens (RFC 7517, section 5).
    pub async fn jwks(&self) -> Result<Value, vault::Error> {
        Ok(json!({ "keys": self.inner.signing_keys.public().await? }))
    }

    /// Whether the vault answers and there is a signing key.
    pub async fn check_ready(&self) -> Result<(), vault::Error> {
        self.inner.signing_keys.check().await
    }

    /// The list is short, since some hosts ask for all of it.
    fn scope_names(&self) -> Vec<&'static str> {
        self.scopes().iter().map(Scope::as_str).collect()
    }
}
