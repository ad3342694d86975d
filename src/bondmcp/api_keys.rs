//! API keys: listing, creating, revoking, regenerating and their usage. All of these need an access token; an API key
//! cannot manage API keys.

use std::borrow::Cow;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::{
    Client, Error,
    exchange::Request,
    wire::{ApiKey, ApiKeyList, CreateApiKey, KeyUsage, NewApiKey, is_id},
};
use crate::secret::{SecretString, to_secret_json};

impl Client {
    /// `GET /auth/api-keys`: previews without the keys' values.
    pub async fn list_api_keys(&self, access_token: &SecretString) -> Result<Vec<ApiKey>, Error> {
        let mut list: ApiKeyList = self.read(&["auth", "api-keys"], access_token).await?;
        for key in &mut list.api_keys {
            let ApiKey { name, description, key_preview, created_at, last_used, .. } = key;
            self.clean(name, [description, key_preview, created_at, last_used]);
        }
        Ok(list.api_keys)
    }

    /// `POST /auth/api-keys`: the only time that the key's value is shown. Never repeated by the client, since a lost
    /// response may have created a key.
    pub async fn create_api_key(
        &self,
        access_token: &SecretString,
        wanted: &CreateApiKey,
    ) -> Result<NewApiKey, Error> {
        let body = to_secret_json(wanted).map_err(|_| self.unreadable())?;
        let path = &["auth", "api-keys"];
        let request = Request {
            method: Method::POST,
            path,
            bearer: Some(access_token),
            body: Some(Bytes::from_owner(body)),
            sent: None,
        };
        self.shown_once(request).await
    }

    /// `DELETE /auth/api-keys/{id}`: requests with that key are refused afterwards.
    pub async fn revoke_api_key(&self, access_token: &SecretString, id: &str) -> Result<(), Error> {
        let path = &["auth", "api-keys", checked(id)?];
        let request =
            Request { method: Method::DELETE, path, bearer: Some(access_token), body: None, sent: None };
        self.send_once::<Value>(request).await?;
        Ok(())
    }

    /// `POST /api/v1/api-keys/{id}/regenerate`: the old value stops working at once.
    pub async fn regenerate_api_key(
        &self,
        access_token: &SecretString,
        id: &str,
    ) -> Result<NewApiKey, Error> {
        let path = &["api", "v1", "api-keys", checked(id)?, "regenerate"];
        let request =
            Request { method: Method::POST, path, bearer: Some(access_token), body: None, sent: None };
        self.shown_once(request).await
    }

    /// `GET /api/v1/api-keys/usage/{id}`.
    pub async fn api_key_usage(&self, access_token: &SecretString, id: &str) -> Result<KeyUsage, Error> {
        let path = &["api", "v1", "api-keys", "usage", checked(id)?];
        self.read(path, access_token).await
    }

    async fn shown_once(&self, request: Request<'_>) -> Result<NewApiKey, Error> {
        let mut key: NewApiKey = self.send_once(request).await?;
        self.redactor.remember(&key.api_key);
        let NewApiKey { name, description, key_preview, created_at, regenerated_at, .. } = &mut key;
        self.clean(name, [description, key_preview, created_at, regenerated_at]);
        Ok(key)
    }

    /// Takes secrets out of what is kept of a key: it is shown after the secrets are forgotten.
    fn clean<const N: usize>(&self, name: &mut String, others: [&mut Option<String>; N]) {
        for text in std::iter::once(name).chain(others.into_iter().flatten()) {
            if let Cow::Owned(clean) = self.redactor.redact(text) {
                *text = clean;
            }
        }
    }
}

/// An id comes from an agent and becomes a path segment.
fn checked(id: &str) -> Result<&str, Error> {
    if is_id(id) { Ok(id) } else { Err(Error::InvalidId) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_would_change_the_path_is_refused() {
        assert_eq!(checked("key_1-a"), Ok("key_1-a"));
        for id in ["", ".", "..", "a/b", "a?b", "a%2Fb", "a b", &"x".repeat(129)] {
            assert_eq!(checked(id), Err(Error::InvalidId), "{id}");
        }
    }
}
