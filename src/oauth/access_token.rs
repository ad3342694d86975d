//! Access tokens (RFC 9068): JWTs for this server alone.

use std::time::Duration;

use super::{AuthorizationServer, GrantId, Scopes, Subject};
use crate::{account::Owner, clock::Timestamp, secret::SecretString, vault};

/// Longest time for which a process does not notice that a grant has ended.
pub const GRANT_CACHE: Duration = Duration::from_secs(30);

/// What a verified access token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub owner: Owner,
    pub subject: Subject,
    pub grant: GrantId,
    pub client_id: String,
    pub scopes: Scopes,
    pub expires_at: Timestamp,
}

/// Why an access token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The reason is for the log only.
    #[error("the access token is not accepted: {0}")]
    Invalid(&'static str),
    /// It is not known whether the token is good.
    #[error(transparent)]
    Store(#[from] vault::Error),
}

impl AuthorizationServer {
    /// Verifies an access token: signature, algorithm by key, issuer, audience, times, and that its grant has not ended.
    pub async fn verify(&self, token: &SecretString) -> Result<Access, AccessError> {
        todo!("{token:?}")
    }
}
