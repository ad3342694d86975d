//! Access tokens (RFC 9068): JWTs for this server alone.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AuthorizationServer, Grant, GrantId, Scopes, Subject, verified_tokens::VerifiedToken};
use crate::{
    account::Owner,
    clock::Timestamp,
    secret::{ExposeSecret as _, SecretString},
    vault,
};

/// Longest time for which a process does not notice that a grant has ended.
pub const GRANT_CACHE: Duration = Duration::from_secs(30);

/// The type in the header (RFC 9068, section 2.1).
const TYPE: &str = "at+jwt";

/// How far the clocks of two replicas may be apart.
const LEEWAY: TimeDelta = TimeDelta::seconds(5);

/// Longest token that is looked at. A client id can have 2 KiB.
const MAX_BYTES: usize = 8 << 10;

/// What a verified access token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub owner: Owner,
    pub subject: Subject,
    pub grant: GrantId,
    pub client_id: String,
    pub scopes: Scopes,
    pub issued_at: Timestamp,
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

/// The claims (RFC 9068, section 2.2), and the grant. Times are in seconds since the epoch.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    client_id: String,
    grant_id: String,
    scope: Scopes,
    jti: String,
    iat: i64,
    exp: i64,
}

impl AuthorizationServer {
    /// Verifies an access token: signature, algorithm by key, issuer, audience, times, and that its grant has not ended.
    pub async fn verify(&self, token: &SecretString) -> Result<Arc<Access>, AccessError> {
        let VerifiedToken { access, grant } = self.verify_alone(token).await?;
        if self.is_live(&access.grant, &grant).await? {
            Ok(access)
        } else {
            Err(AccessError::Invalid("the grant has ended"))
        }
    }

    /// Verifies all but that the grant has not ended.
    pub(super) async fn verify_alone(&self, token: &SecretString) -> Result<VerifiedToken, AccessError> {
        if token.expose_secret().len() > MAX_BYTES {
            return Err(AccessError::Invalid("too long"));
        }
        let verified = self.inner.verified_tokens.get_or(token, || self.signed(token)).await?;
        let (access, now) = (&verified.access, self.inner.clock.now());
        if now + LEEWAY < access.issued_at {
            return Err(AccessError::Invalid("not yet valid"));
        }
        if now >= access.expires_at + LEEWAY {
            return Err(AccessError::Invalid("expired"));
        }
        Ok(verified)
    }

    /// Verifies what never changes: that the token is of this server and for it.
    async fn signed(&self, token: &SecretString) -> Result<VerifiedToken, AccessError> {
        let claims: Claims = self.inner.signing_keys.verify(TYPE, token).await?;
        let endpoints = self.endpoints();
        if claims.iss != endpoints.issuer() {
            return Err(AccessError::Invalid("another issuer"));
        }
        if claims.aud != endpoints.resource() {
            return Err(AccessError::Invalid("another audience"));
        }
        let (issued_at, expires_at) = (to_time(claims.iat)?, to_time(claims.exp)?);
        let (subject, grant) = (Subject::new(claims.sub), GrantId::given(&claims.grant_id));
        let access = Access {
            owner: Grant::owner_of(&subject, &grant),
            subject,
            grant,
            client_id: claims.client_id,
            scopes: claims.scope,
            issued_at,
            expires_at,
        };
        let grant = self.inner.grant_states.of(&access.owner);
        Ok(VerifiedToken { access: access.into(), grant })
    }

    /// Makes an access token for a grant.
    pub(super) async fn access_token(
        &self,
        grant: &Grant,
        scopes: Scopes,
    ) -> Result<SecretString, vault::Error> {
        let issued_at = self.inner.clock.now().timestamp();
        let claims = Claims {
            iss: self.endpoints().issuer().to_owned(),
            sub: grant.subject.as_str().to_owned(),
            aud: self.endpoints().resource(),
            client_id: grant.client_id.clone(),
            grant_id: grant.id.as_str().to_owned(),
            scope: scopes,
            jti: Uuid::new_v4().simple().to_string(),
            iat: issued_at,
            exp: issued_at.saturating_add_unsigned(self.inner.settings.access_token_lifetime.as_secs()),
        };
        self.inner.signing_keys.sign(TYPE, &claims).await
    }
}

fn to_time(seconds: i64) -> Result<Timestamp, AccessError> {
    DateTime::from_timestamp_secs(seconds).ok_or(AccessError::Invalid("a time out of range"))
}
