//! Which credential a call uses, and what happens when the upstream refuses it.

use super::{Account, Error, record::Record};
use crate::{
    bondmcp::{self, Client},
    secret::{self, SecretString},
};

/// The kind of credential that a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredCredential {
    /// An API key or a session, whichever the account uses for API calls.
    Api,
    /// A session: an API key cannot manage API keys.
    Session,
}

/// A credential for one call.
#[derive(Clone, Debug)]
pub struct Bearer {
    pub secret: SecretString,
    pub source: CredentialSource,
}

/// The origin of a bearer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// `BONDMCP_API_KEY`.
    EnvironmentKey,
    /// The key selected with `use`, by id.
    ManagedKey(String),
    /// The API key that the person entered.
    OwnKey,
    Session,
}

impl Account {
    /// Returns a bearer for this call: from memory while the session is valid, otherwise after a renewal.
    pub async fn bearer(&self, need: RequiredCredential) -> Result<Bearer, Error> {
        if need == RequiredCredential::Api
            && let Some(key) = &self.inner.environment.api_key
        {
            return Ok(Bearer { secret: key.clone(), source: CredentialSource::EnvironmentKey });
        }
        let memory = self.record().await?;
        if need == RequiredCredential::Api {
            memory.record.check_open()?;
            if let Some(key) = memory.record.active() {
                let source = CredentialSource::ManagedKey(key.id.clone());
                return Ok(Bearer { secret: key.secret.clone(), source });
            }
            if let Some(key) = &memory.record.own_key {
                return Ok(Bearer { secret: key.clone(), source: CredentialSource::OwnKey });
            }
        }
        let now = self.inner.clock.now();
        match &memory.record.session {
            Some(session) if session.is_usable(now) => {
                if session.is_ageing(now) {
                    self.renew_in_background(session);
                }
                Ok(Bearer { secret: session.access_token.clone(), source: CredentialSource::Session })
            }
            session => {
                let stale = session.as_ref().map(|session| &session.access_token);
                Box::pin(self.renewed(stale)).await
            }
        }
    }

    /// Makes `request` with a bearer. If the upstream refuses the bearer, the request is repeated once with another
    /// one; a refused request (401) was certainly not processed.
    pub(super) async fn call<T, F, Answer>(&self, need: RequiredCredential, request: F) -> Result<T, Error>
    where
        F: Fn(Client, SecretString) -> Answer,
        Answer: Future<Output = Result<T, bondmcp::Error>>,
    {
        let bearer = self.bearer(need).await?;
        match request(self.inner.client.clone(), bearer.secret.clone()).await {
            Err(error) if error.is_unauthorized() => {}
            outcome => return Ok(outcome?),
        }
        let other = Box::pin(self.replacement(&bearer, need)).await?;
        match request(self.inner.client.clone(), other.secret.clone()).await {
            Err(error) if error.is_unauthorized() => Err(rejected(&other).unwrap_or(error.into())),
            outcome => Ok(outcome?),
        }
    }

    async fn replacement(&self, refused: &Bearer, need: RequiredCredential) -> Result<Bearer, Error> {
        if refused.source == CredentialSource::Session {
            let renewed = self.renewed(Some(&refused.secret)).await;
            if let Err(Error::SignInRequired { .. }) = &renewed {
                self.end_refused_session(&refused.secret).await?;
            }
            return renewed;
        }
        // Another process may have rotated or selected another key.
        if refused.source != CredentialSource::EnvironmentKey {
            self.reread().await?;
        }
        let other = self.bearer(need).await?;
        match rejected(refused) {
            Some(error) if secret::same(&other.secret, &refused.secret) => Err(error),
            _ => Ok(other),
        }
    }

    /// BondMCP has refused a session that nothing can renew: it has ended, whatever its token says, so that the next call
    /// asks the person at once.
    async fn end_refused_session(&self, refused: &SecretString) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let end = |record: &mut Record| {
            if let Some(session) = &mut record.session
                && secret::same(&session.access_token, refused)
            {
                session.end(now);
            }
            Ok(())
        };
        self.update(end).await.map(drop)
    }

    async fn renewed(&self, stale: Option<&SecretString>) -> Result<Bearer, Error> {
        let session = self.renew(stale).await?;
        Ok(Bearer { secret: session.access_token, source: CredentialSource::Session })
    }
}

fn rejected(bearer: &Bearer) -> Option<Error> {
    match &bearer.source {
        CredentialSource::EnvironmentKey => Some(Error::ApiKeyRejected { id: None }),
        CredentialSource::OwnKey => Some(Error::OwnKeyRejected),
        CredentialSource::ManagedKey(id) => Some(Error::ApiKeyRejected { id: Some(id.clone()) }),
        CredentialSource::Session => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use static_assertions::assert_not_impl_any;

    assert_not_impl_any!(Bearer: serde::Serialize, std::fmt::Display);

    #[test]
    fn a_bearer_does_not_show_in_debug() {
        let bearer = Bearer { secret: "canary-token".into(), source: CredentialSource::Session };
        assert!(!format!("{bearer:?}").contains("canary"));
    }
}
