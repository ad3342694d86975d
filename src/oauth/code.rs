//! Authorization codes (RFC 6749, section 4.1.2; RFC 9700, section 2.1.1): 256 random bits, of which the vault has the
//! hash, good for one use within a minute.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{
    AuthorizationRequest, AuthorizationServer, Client, EndReason, Grant, GrantId, OAuthError, form::Form,
};
use crate::{
    clock::Timestamp,
    secret::{self, ExposeSecret as _, SecretString},
    vault::{self, RecordKind, Versioned},
};

const CODE: RecordKind = RecordKind::new("code");

const LIFETIME: Duration = Duration::from_mins(1);

const UNKNOWN: &str = "The code is unknown or has expired.";
const USED: &str = "The code was used before, so what it allowed has ended.";

/// What a code is bound to. There is one resource, so that needs no place here. A used one is kept until it would have
/// expired, so that a second use is recognised.
#[derive(Debug, Deserialize, Serialize)]
struct Code {
    grant: GrantId,
    client_id: String,
    redirect_uri: String,
    challenge: String,
    expires_at: Timestamp,
    is_used: bool,
}

/// A code that fits the request and was not used yet.
#[derive(Debug)]
pub struct Redeemable {
    pub grant: Grant,
    hash: String,
    code: Versioned<Code>,
}

impl AuthorizationServer {
    pub(super) async fn new_code(
        &self,
        request: &AuthorizationRequest,
        grant: &Grant,
    ) -> Result<SecretString, vault::Error> {
        let code = secret::random();
        let record = Code {
            grant: grant.id.clone(),
            client_id: request.client.id.clone(),
            redirect_uri: request.redirect_uri.clone(),
            challenge: request.code_challenge.clone(),
            expires_at: self.inner.clock.now() + LIFETIME,
            is_used: false,
        };
        let hash = secret::digest(code.expose_secret());
        self.records().write(CODE, &hash, None, &record, Some(LIFETIME)).await?;
        Ok(code)
    }

    /// Whether a code was issued to the client and would not have expired yet. The second use of a code ends its grant,
    /// whoever tries it.
    pub(super) async fn is_code_of(&self, client_id: &str, code: &SecretString) -> Result<bool, OAuthError> {
        match self.records().read::<Code>(CODE, &secret::digest(code.expose_secret())).await? {
            Some(Versioned { value, .. }) if value.is_used => Err(self.code_replayed(&value.grant).await?),
            found => Ok(found.is_some_and(|found| found.value.client_id == client_id)),
        }
    }

    /// Checks a code against the request (RFC 6749, section 4.1.3; RFC 7636, section 4.6) without using it up. The second
    /// use of a code ends its grant (RFC 9700, section 4.5). A redirect URI that is absent is not missed: OAuth 2.1 has
    /// removed it, since PKCE protects better.
    pub(super) async fn redeemable(&self, client: &Client, form: &Form) -> Result<Redeemable, OAuthError> {
        let code = form.get("code").ok_or(OAuthError::invalid_request("code is missing."))?;
        let verifier = form.get("code_verifier");
        let verifier = verifier.ok_or(OAuthError::invalid_request("code_verifier is missing."))?;
        let hash = secret::digest(code.expose_secret());
        let found = self.records().read::<Code>(CODE, &hash).await?;
        let code = found.ok_or(OAuthError::invalid_grant(UNKNOWN))?;
        let bound = &code.value;
        if bound.is_used {
            return Err(self.code_replayed(&bound.grant).await?);
        }
        if bound.client_id != client.id {
            return Err(OAuthError::invalid_grant("The code was issued to another client."));
        }
        if form.get("redirect_uri").is_some_and(|uri| uri.expose_secret() != bound.redirect_uri) {
            return Err(OAuthError::invalid_grant("redirect_uri is not that of the authorization request."));
        }
        let challenge = secret::digest(verifier.expose_secret());
        if !secret::same_text(&challenge, &bound.challenge) {
            return Err(OAuthError::invalid_grant("code_verifier does not match code_challenge."));
        }
        if self.inner.clock.now() >= bound.expires_at {
            return Err(OAuthError::invalid_grant(UNKNOWN));
        }
        let grant = self.live_grant(&bound.grant).await?;
        let grant = grant.ok_or(OAuthError::invalid_grant("What the code allowed has ended."))?;
        Ok(Redeemable { grant, hash, code })
    }

    /// Uses a code up. Of several requests at once one succeeds, and the others are second uses.
    pub(super) async fn use_up(&self, redeemable: Redeemable) -> Result<(), OAuthError> {
        let Redeemable { grant, hash, code: Versioned { value, version } } = redeemable;
        let left = value.expires_at - self.inner.clock.now();
        let left = left.max(TimeDelta::seconds(1)).to_std().unwrap_or(LIFETIME);
        let used = Code { is_used: true, ..value };
        match self.records().write(CODE, &hash, Some(version), &used, Some(left)).await {
            // It was used or has expired.
            Err(vault::Error::Conflict) => Err(match self.records().read::<Code>(CODE, &hash).await? {
                Some(_) => self.code_replayed(&grant.id).await?,
                None => OAuthError::invalid_grant(UNKNOWN),
            }),
            written => Ok(written.map(|_| ())?),
        }
    }

    async fn code_replayed(&self, grant: &GrantId) -> Result<OAuthError, vault::Error> {
        tracing::warn!(%grant, "an authorization code was used twice");
        self.ended(grant, EndReason::Replay, USED).await
    }
}
