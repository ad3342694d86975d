//! The sign-in status: the account, its credential and its expiry. It holds no secret and is computed without a
//! request.

use serde::Serialize;

use super::{Account, Error, key_list::Unfinished};
use crate::clock::Timestamp;
use schemars::JsonSchema;

/// What API calls use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// The token of a signed-in account.
    Session,
    /// An API key.
    ApiKey,
}

/// What renews the session without the person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    RefreshToken,
    /// The password, stored encrypted in the vault.
    StoredPassword,
    /// `BONDMCP_EMAIL` and `BONDMCP_PASSWORD`.
    Environment,
    /// Nothing: the person signs in again when the session expires.
    None,
}

/// An account as a person or an agent may see it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Status {
    /// Whether calls can be made.
    pub signed_in: bool,
    /// Local name of the account.
    pub profile: String,
    /// The BondMCP API that calls go to.
    pub upstream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The API key in use, if it is stored here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// When the session's token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
    /// Interrupted changes of API keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unfinished: Vec<Unfinished>,
}

impl Account {
    /// Whether calls use the API key of the environment.
    #[must_use]
    pub fn has_environment_key(&self) -> bool {
        self.inner.environment.api_key.is_some()
    }

    pub async fn status(&self) -> Result<Status, Error> {
        let environment = &self.inner.environment;
        let memory = self.reread().await?;
        let record = &memory.record;
        let now = self.inner.clock.now();
        let login = environment.login.as_ref();
        let signs_in_itself = login
            .is_some_and(|login| record.rejected.as_ref().is_none_or(|rejected| !rejected.matches(login)));
        let renewal = match &record.session {
            Some(session) if session.refresh_token.is_some() => Renewal::RefreshToken,
            _ if signs_in_itself => Renewal::Environment,
            _ if record.password.is_some() => Renewal::StoredPassword,
            _ => Renewal::None,
        };
        let session = record.session.as_ref().filter(|s| s.is_usable(now) || renewal != Renewal::None);
        let key_id = match &environment.api_key {
            Some(_) => None,
            None => record.active().map(|key| key.id.clone()),
        };
        let credential = if environment.api_key.is_some() || key_id.is_some() || record.own_key.is_some() {
            Some(Credential::ApiKey)
        } else {
            (session.is_some() || signs_in_itself).then_some(Credential::Session)
        };
        let is_known = !record.uses_own_key() && environment.api_key.is_none();
        Ok(Status {
            signed_in: credential.is_some(),
            profile: self.inner.name.clone(),
            upstream: self.inner.client.base_url().to_string(),
            email: record
                .email
                .clone()
                .or_else(|| login.map(|login| login.email.clone()))
                .filter(|_| is_known),
            user_id: record.user_id.clone().filter(|_| is_known),
            credential,
            key_id,
            expires_at: session.map(|session| session.expires_at),
            renewal: (session.is_some() || signs_in_itself).then_some(renewal),
            unfinished: Unfinished::all(record),
        })
    }
}
