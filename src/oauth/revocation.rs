//! Token revocation (RFC 7009).

use super::{
    AccessError, AuthorizationServer, EndReason, Grant, GrantId, OAuthError, form::Form,
    refresh_token::RefreshToken,
};
use crate::{secret::SecretString, vault};

impl AuthorizationServer {
    /// Answers a request to `/revoke`: ends the grant of the token, if it is one of the client's. An unknown token is no
    /// error (section 2.2). Returns the grant whose key is to be revoked.
    pub async fn revoke(
        &self,
        authorization: Option<&str>,
        form: &[u8],
    ) -> Result<Option<Grant>, OAuthError> {
        let form = Form::parse(form)?;
        let token = form.get("token").ok_or(OAuthError::invalid_request("token is missing."))?;
        let grant = match self.grant_of_token(token).await? {
            Some(id) => self.grant(&id).await?,
            None => None,
        };
        // Anybody can name a document. It is fetched only for whoever has a token of that client.
        if let Some(claimed) = self.clients().named_document(authorization, &form)?
            && !grant.as_ref().is_some_and(|grant| grant.is_live_for(&claimed))
        {
            return Ok(None);
        }
        let client = self.clients().authenticate(authorization, &form).await?;
        match grant {
            Some(grant) if grant.client_id == client.id => {
                Ok(self.end_grant(&grant.id, EndReason::Client).await?)
            }
            // Section 2.1 wants the client told.
            Some(_) => Err(OAuthError::invalid_grant("The token was issued to another client.")),
            None => Ok(None),
        }
    }

    /// Returns the grant of a refresh token of any age or of an access token that has not expired. The client's hint
    /// which of them it is (section 2.1) is not needed.
    async fn grant_of_token(&self, token: &SecretString) -> Result<Option<GrantId>, vault::Error> {
        if let Some(token) = RefreshToken::parse(&self.inner.server_keys, token) {
            return Ok(Some(token.grant));
        }
        match self.verify_alone(token).await {
            Ok(verified) => Ok(Some(verified.access.grant.clone())),
            Err(AccessError::Invalid(_)) => Ok(None),
            Err(AccessError::Store(error)) => Err(error),
        }
    }
}
