//! Authorization requests (RFC 6749, section 4.1.1; PKCE: RFC 7636; resource: RFC 8707), their codes' way back to the
//! client (RFC 6749, section 4.1.2; issuer: RFC 9207).

use serde::{Deserialize, Serialize};
use url::Url;

use super::{AuthorizationErrorCode, AuthorizationServer, Client, Grant, Scopes};
use crate::vault;

/// A sound authorization request.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AuthorizationRequest {
    pub client: Client,
    /// One of the client's redirect URIs, as the request has it.
    pub redirect_uri: String,
    pub state: Option<String>,
    /// What was asked for; all where nothing was.
    pub scopes: Scopes,
    /// Challenge of PKCE with S256.
    pub code_challenge: String,
    /// Names the authorization in logs and on its pages.
    pub reference: String,
}

/// What is wrong with an authorization request.
#[derive(Clone, Debug)]
pub enum RequestError {
    /// The client or its redirect URI is not sound, so the person is told on a page. The text is our own.
    Page(&'static str),
    /// The client is told.
    Redirect(Url),
    Store(vault::Error),
}

impl AuthorizationServer {
    /// Checks the query of a request to `/authorize`.
    pub async fn authorization_request(&self, query: &str) -> Result<AuthorizationRequest, RequestError> {
        todo!("{query}")
    }

    /// Makes a code for the grant; returns the address that takes it to the client.
    pub async fn authorization_response(
        &self,
        request: &AuthorizationRequest,
        grant: &Grant,
    ) -> Result<Url, vault::Error> {
        todo!("{request:?} {grant:?}")
    }

    /// Returns the address that tells the client of an error.
    #[must_use]
    pub fn error_response(&self, request: &AuthorizationRequest, error: AuthorizationErrorCode) -> Url {
        todo!("{request:?} {error:?}")
    }
}
